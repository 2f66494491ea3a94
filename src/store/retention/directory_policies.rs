//! Policies of directories: what is below such a directory is kept for a shorter time.
//!
//! Path: the row of the directory says which policy it had and when (`PolicySpan`); it holds for versions that ended then in the directory
//! or below, wherever the directory is now. Versions that end are filed by what memory has of the rows (`tree/filing_policy.rs`); a run
//! judges each by where its directory was when it ended (`policies.rs`), after the directory's horizons are durable. A directory whose
//! span began during a run has no version yet that the run finds due.
//!
//! Lock: `directory_turn`, before every other lock, so that a change and a run do not write the same row from the same reading.

use crate::store::commit::operation::Operation;
use crate::store::history::horizons::Horizons;
use crate::store::index::directory_policies::DirectoryPolicies;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::policy::Policy;
use crate::store::model::version::{Ino, Kind, ROOT, Timestamp};
use crate::store::retention::Retention;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::retention_rows::{DirectoryPolicyRow, PolicySpan};
use crate::store::schema::rows::InodeRow;
use crate::store::schema::tables::{
    DirectoryLocationTable, DirectoryPolicyTable, RowKey, RowTable,
};
use crate::sync::Arc;

/// A policy that limits a directory, and the directory that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPolicy {
    /// The directory itself, or one above it.
    pub directory: Ino,
    /// The policy.
    pub policy: Policy,
}

impl Retention {
    /// Returns the policies that limit a directory now, its own first; those of directories above it follow.
    ///
    /// # Errors
    /// `NotFound` when the directory was removed; errors of the index.
    pub async fn directory_policies(
        &self,
        directory: Ino,
    ) -> Result<Vec<DirectoryPolicy>, StoreError> {
        let policies = DirectoryPolicies::read(&self.core.index.snapshot()).await?;
        let mut found = Vec::new();
        if policies.is_empty() {
            return Ok(found);
        }
        let above = self.tree.lineage(directory).await?;
        for directory in [directory].into_iter().chain(above) {
            if let Some(policy) = policies.now(directory).cloned() {
                found.push(DirectoryPolicy { directory, policy });
            }
        }
        Ok(found)
    }

    /// Returns the policy that a directory itself has; `None` if it has none.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn own_policy(&self, directory: Ino) -> Result<Option<Policy>, StoreError> {
        let policies = DirectoryPolicies::read(&self.core.index.snapshot()).await?;
        Ok(policies.now(directory).cloned())
    }

    /// Sets the policy of a directory for the versions that end from now on in it and below; `None` takes it back.
    ///
    /// # Errors
    /// As those of [`Self::change_directory_policy`].
    pub async fn set_directory_policy(
        &self,
        directory: Ino,
        policy: Option<Policy>,
    ) -> Result<(), StoreError> {
        let change = self.change_directory_policy(directory, |_| Ok(policy));
        change.await
    }

    /// Sets the policy of a directory for the versions that end from now on in it and below to what `change` makes of its own one; `None` is
    /// no policy. Changes at the same time are made one after another.
    ///
    /// # Errors
    /// Those of `change`; `Invalid` for the root directory, and while the namespace has no policy; `NotDirectory`; `NotFound`; errors of
    /// the index and the queue.
    pub async fn change_directory_policy(
        &self,
        directory: Ino,
        change: impl FnOnce(Option<Policy>) -> Result<Option<Policy>, StoreError> + Send,
    ) -> Result<(), StoreError> {
        let may_limit = self.check_may_limit(directory).await;
        let _turn = self.directory_turn.lock().await;
        let stored = DirectoryPolicies::read(&self.core.index.snapshot()).await?;
        let policy = change(stored.now(directory).cloned())?;
        may_limit?;
        let old = stored.row(directory);
        if old.is_none() && policy.is_none() {
            return Ok(());
        }
        let old = old.cloned().unwrap_or_default();
        // Before the timestamp: an operation with a later one files by the new policy.
        let early = with_span(&old, policy.clone(), self.core.clock.now());
        let policies = self.core.directory_policies();
        self.core
            .use_directory_policies(policies.with(directory, early));
        let key = retention_keys::directory_policy(directory);
        let set = self.queue_policy(key, &old, policy);
        self.core.load_directory_policies().await?;
        self.commit.wait_durable(&set?).await
    }

    /// Fails if a directory cannot have a policy.
    async fn check_may_limit(&self, directory: Ino) -> Result<(), StoreError> {
        if directory == ROOT {
            return Err(StoreError::Invalid(
                "the policy of the root directory is that of the namespace: set it without a path"
                    .to_owned(),
            ));
        }
        if self.tree.stat(directory).await?.kind != Kind::Directory {
            return Err(StoreError::NotDirectory);
        }
        if self.policy().await?.is_none() {
            return Err(StoreError::Invalid(
                "the namespace keeps every version: set its policy before that of a directory"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn queue_policy(
        &self,
        key: RowKey<DirectoryPolicyTable>,
        old: &DirectoryPolicyRow,
        policy: Option<Policy>,
    ) -> Result<Arc<Operation>, StoreError> {
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(answer.at(), directory_dependencies());
        txn.put(key, &with_span(old, policy, answer.at()));
        self.commit.enqueue(txn)
    }

    /// Raises the horizons of directories to what a run at `now` may drop, and forgets policies that ended before every exact time
    /// and longer ago than `keep-removed`.
    /// Returns whether a row was changed; the change is queued.
    ///
    /// # Errors
    /// Errors of the index and the queue.
    pub(crate) async fn raise_directory_horizons(
        &self,
        policy: &Policy,
        namespace: &Horizons,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let _turn = self.directory_turn.lock().await;
        let rows = self.core.index.snapshot();
        let policies = DirectoryPolicies::read(&rows).await?;
        let mut changed = Vec::new();
        for (directory, row) in policies.rows() {
            let removed = removed_at(&rows, directory).await?;
            let mut horizons = Horizons::of_directory(row);
            let mut spans = Vec::new();
            for span in &row.spans {
                horizons = horizons.raised_by_span(policy, span, now);
                let ended = span.until.into_iter().chain(removed).min();
                let is_needed = |ended: Timestamp| {
                    let removed = policy.removed_until(ended);
                    ended > namespace.first() || removed.is_some_and(|until| until > now)
                };
                if ended.is_none_or(is_needed) {
                    spans.push(span.clone());
                }
            }
            let new = horizons.into_row(spans);
            if new != *row {
                changed.push((directory, new));
            }
        }
        if changed.is_empty() {
            return Ok(false);
        }
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(answer.at(), directory_dependencies());
        for (directory, row) in changed {
            let key = retention_keys::directory_policy(directory);
            match row.spans.is_empty() {
                true => txn.delete(key),
                false => txn.put(key, &row),
            }
        }
        let raised = self.commit.enqueue(txn)?;
        self.core.load_directory_policies().await?;
        drop(answer);
        self.commit.wait_durable(&raised).await?;
        Ok(true)
    }
}

/// Returns the row of a directory whose policy ends at `now`, and which has `policy` from then on.
fn with_span(
    row: &DirectoryPolicyRow,
    policy: Option<Policy>,
    now: Timestamp,
) -> DirectoryPolicyRow {
    let mut row = row.clone();
    if let Some(span) = row.spans.last_mut().filter(|span| span.until.is_none()) {
        span.until = Some(now);
    }
    row.spans.extend(policy.map(|policy| PolicySpan {
        from: now,
        until: None,
        policy,
    }));
    row
}

/// Returns when a removed directory was removed; `None` if it exists.
async fn removed_at(rows: &Snapshot, directory: Ino) -> Result<Option<Timestamp>, StoreError> {
    if let Some(InodeRow::Directory(row)) = rows.row(&keys::inode(directory)).await?
        && row.place.is_some()
    {
        return Ok(None);
    }
    let from = keys::directory_locations(directory);
    let last = rows.first(from.clone(), keys::after(&from)).await?;
    let last = last.map(|(_, value)| DirectoryLocationTable::decode(&value));
    // Without a location nothing of it is kept.
    Ok(Some(
        last.transpose()?.map_or(Timestamp(0), |place| place.end),
    ))
}

/// Returns the dependencies of a change of these rows: each waits for the one before.
fn directory_dependencies() -> Dependencies {
    Dependencies {
        touches: vec![DirectoryPolicyTable::all()],
        ..Dependencies::default()
    }
}
