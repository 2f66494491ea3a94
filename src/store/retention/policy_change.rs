//! Changes of the policy. A policy that keeps every version at least as long is in force at once; a stricter one a day later, and can
//! be taken back until then.
//!
//! Path of a change: the row of the policy (or of the pending one) in one operation. When a stricter policy comes into force, the same
//! operation begins a walk over all versions that have ended, which files anew those that are due earlier; row `G V` says how far
//! it is, so that the next run goes on after a crash. Versions that end meanwhile are filed by the policy that they find in memory,
//! which changes before the walk begins.

use std::time::Duration;

use bytes::Bytes;

use crate::store::commit::txn::Txn;
use crate::store::index::directory_policies::DirectoryPolicies;
use crate::store::model::error::StoreError;
use crate::store::model::policy::{Due, Policy};
use crate::store::model::version::Timestamp;
use crate::store::retention::Retention;
use crate::store::retention::brake::Brake;
use crate::store::retention::carry_out::Outcome;
use crate::store::retention::policies::PolicyReader;
use crate::store::retention::shown::EndedVersion;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::retention_rows::{AheadDrops, WaitingCause, WaitingDrops};
use crate::store::schema::rows::{Filing, PendingPolicy};
use crate::store::schema::tables::{LinkedVersionTable, RowTable, VersionTable};
use crate::store::tree::version_record::VersionRows;

/// How long a stricter policy waits before it comes into force.
pub const POLICY_DELAY: Duration = Duration::from_secs(86_400);
/// Records that are read at once while versions are filed anew.
const PAGE: usize = 256;

/// When a policy comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InForce {
    /// At once if it keeps every version at least as long, else after [`POLICY_DELAY`].
    Usual,
    /// At once.
    Now,
}

/// What a change of the policy led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyChange {
    /// The policy is in force.
    InForce,
    /// The policy comes into force at this time.
    Pending(Timestamp),
}

impl Retention {
    /// Returns the stricter policy that is not in force yet, and from when on it is; `None` if there is none.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn pending_policy(&self) -> Result<Option<(Policy, Timestamp)>, StoreError> {
        let row: Option<PendingPolicy> = self
            .core
            .index
            .row(&retention_keys::pending_policy())
            .await?;
        Ok(row.map(|row| (row.policy, row.from)))
    }

    /// Returns the policy that was set last: the stricter one that is not in force yet, else that in force.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn newest_policy(&self) -> Result<Policy, StoreError> {
        let rows = self.core.index.snapshot();
        let pending: Option<PendingPolicy> = rows.row(&retention_keys::pending_policy()).await?;
        match pending {
            Some(pending) => Ok(pending.policy),
            None => Ok(rows.row(&keys::policy()).await?.unwrap_or_default()),
        }
    }

    /// Sets the policy, and takes back one that is not in force yet.
    ///
    /// # Errors
    /// As those of [`Self::change_policy`].
    pub async fn set_policy(
        &self,
        policy: &Policy,
        when: InForce,
    ) -> Result<PolicyChange, StoreError> {
        self.change_policy(when, |_| Ok(policy.clone())).await
    }

    /// Sets the policy that `change` makes of the newest one, and takes back one that is not in force yet. Changes at the same time are made
    /// one after another.
    ///
    /// # Errors
    /// `Busy` while a run goes on; those of `change`; errors of the index and the queue.
    pub async fn change_policy(
        &self,
        when: InForce,
        change: impl FnOnce(Policy) -> Result<Policy, StoreError> + Send,
    ) -> Result<PolicyChange, StoreError> {
        let _changing = self.policy_turn.lock().await;
        let Ok(_turn) = self.turn.try_lock() else {
            return Err(StoreError::Busy(
                "a prune of this namespace is running: set the policy when it has ended".to_owned(),
            ));
        };
        let policy = change(self.newest_policy().await?)?;
        self.put_policy(&policy, when).await
    }

    /// Puts a policy in the place of the one in force, or beside it.
    async fn put_policy(&self, policy: &Policy, when: InForce) -> Result<PolicyChange, StoreError> {
        let old = self.policy().await?;
        let is_stricter = match &old {
            Some(old) => policy.is_stricter_than(old),
            None => true,
        };
        let mut delay = u64::try_from(POLICY_DELAY.as_nanos()).unwrap_or(u64::MAX);
        let mut waits = is_stricter;
        let mut ahead = None;
        if is_stricter && when == InForce::Now {
            ahead = Some(self.ahead(policy, self.now()).await?).filter(AheadDrops::are_many);
            (delay, waits) = (0, ahead.is_some());
        }
        let answer = self.core.clock.begin();
        let now = answer.at();
        let mut txn = self.commit.txn(now, policy_dependencies());
        match ahead {
            Some(drops) => {
                let (cause, since) = (WaitingCause::Policy, now);
                let row = WaitingDrops {
                    cause,
                    since,
                    drops,
                };
                txn.put(retention_keys::waiting_drops(), &row);
            }
            None => txn.delete(retention_keys::waiting_drops()),
        }
        if waits {
            let from = Timestamp(now.0.saturating_add(delay));
            let pending = PendingPolicy {
                policy: policy.clone(),
                set: now,
                from,
            };
            txn.put(retention_keys::pending_policy(), &pending);
            let set = self.commit.enqueue(txn)?;
            self.commit.wait_durable(&set).await?;
            self.look(None).await?;
            return Ok(PolicyChange::Pending(from));
        }
        txn.put(keys::policy(), policy);
        txn.delete(retention_keys::pending_policy());
        if old.as_ref() != Some(policy) {
            // The next look shortens this policy by its own steps, if the history is too large for it.
            txn.delete(retention_keys::cap());
        }
        if is_stricter {
            txn.put(retention_keys::refiled(), &Bytes::new());
        }
        let set = self.commit.enqueue(txn)?;
        self.core.load_policy().await?;
        drop(answer);
        self.commit.wait_durable(&set).await?;
        self.look(None).await?;
        Ok(PolicyChange::InForce)
    }

    /// Brings a pending policy into force if its time has come, and goes on with the walk that files versions anew.
    /// A policy that drops many versions ahead of time stays pending until that is confirmed.
    pub(crate) async fn bring_policy_into_force(
        &self,
        now: Timestamp,
        brake: Brake,
    ) -> Result<(), StoreError> {
        let pending: Option<PendingPolicy> = self
            .core
            .index
            .row(&retention_keys::pending_policy())
            .await?;
        if let Some(pending) = pending.filter(|pending| pending.from <= now) {
            if brake == Brake::Held {
                let drops = self.ahead(&pending.policy, now).await?;
                if drops.are_many() {
                    let cause = WaitingCause::Policy;
                    return self.wait_for_confirmation(cause, drops, now).await;
                }
            }
            let mut txn = self.policy_txn();
            txn.put(keys::policy(), &pending.policy);
            txn.delete(retention_keys::pending_policy());
            txn.put(retention_keys::refiled(), &Bytes::new());
            txn.delete(retention_keys::waiting_drops());
            self.commit.enqueue(txn)?;
            self.core.load_policy().await?;
        }
        self.file_all_anew().await
    }

    /// Files every version that is due earlier by the policy in force than it is filed.
    pub(crate) async fn file_all_anew(&self) -> Result<(), StoreError> {
        let Some(mut upto) = self.core.index.row(&retention_keys::refiled()).await? else {
            return Ok(());
        };
        let Some(policy) = self.core.policy() else {
            return Ok(());
        };
        let directories = DirectoryPolicies::read(&self.core.index.snapshot()).await?;
        let mut policies = PolicyReader::new(&policy, directories);
        // Operations that took the old policy from memory have filed their versions before the walk reads them.
        self.core.clock.wait_released(self.core.clock.now()).await;
        let end = keys::after(&LinkedVersionTable::all());
        loop {
            let from = match upto.is_empty() {
                true => VersionTable::all(),
                false => [&upto[..], &[0]].concat().into(),
            };
            let rows = self.core.index.snapshot();
            let page = rows.scan(from, end.clone(), PAGE).await?;
            for (key, _) in &page {
                self.file_earlier(&mut policies, key).await?;
            }
            // The cursor says that all before it are filed.
            self.settle_all().await?;
            let answer = self.core.clock.begin();
            let mut txn = self.commit.txn(answer.at(), policy_dependencies());
            match page.last().filter(|_| page.len() == PAGE) {
                Some((key, _)) => {
                    upto = key.clone();
                    txn.put(retention_keys::refiled(), &upto);
                    self.commit.enqueue(txn)?;
                }
                None => {
                    txn.delete(retention_keys::refiled());
                    self.commit.enqueue(txn)?;
                    return Ok(());
                }
            }
            self.check_open()?;
        }
    }

    async fn file_earlier(
        &self,
        policies: &mut PolicyReader<'_>,
        key: &Bytes,
    ) -> Result<(), StoreError> {
        loop {
            let rows = self.core.index.snapshot();
            let is_version = VersionTable::has(key) || LinkedVersionTable::has(key);
            let version = match is_version {
                true => EndedVersion::read(&rows, key).await?,
                false => None,
            };
            let Some(version) = version else {
                return Ok(());
            };
            let span = version.record.span();
            let policy = match &version.list {
                VersionRows::Of(name) => policies.at(&rows, name.parent, span.end).await?,
                // Its names may have been anywhere: the run that finds it due files it anew.
                VersionRows::Linked(_) => policies.shortest(),
            };
            let Due::At(at) = policy.due(span) else {
                return Ok(());
            };
            let is_later = match &version.record.filed {
                Filing::Nowhere => true,
                Filing::Due(filed) | Filing::Until(filed) | Filing::Removed(filed, _) => {
                    *filed > at
                }
                // What the policy says of the name's versions may have changed: the run decides.
                Filing::Last(_) | Filing::Label(_) => true,
            };
            if !is_later {
                return Ok(());
            }
            if self.refile(&version, Filing::Due(at)).await? == Outcome::Done {
                return Ok(());
            }
        }
    }
}

impl Retention {
    /// Begins an operation on the policy, or on what is derived from it.
    pub(crate) fn policy_txn(&self) -> Txn {
        let answer = self.core.clock.begin();
        self.commit.txn(answer.at(), policy_dependencies())
    }
}

/// Returns the dependencies of a change of the policy: each waits for the one before.
fn policy_dependencies() -> Dependencies {
    Dependencies {
        touches: vec![keys::policy().bytes()],
        ..Dependencies::default()
    }
}
