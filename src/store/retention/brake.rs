//! The brake: drops ahead of the time at which versions were filed wait for a confirmation if they are many.
//!
//! A stricter policy, or `history-max`, lets versions go before they are due as they were filed. If those have more than a quarter of
//! the bytes of all ended versions, nothing of it takes effect until `rewindfs prune --confirm`, and row `G b` says so. What falls due
//! as it was filed never waits.

use bytes::Bytes;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::policy::Policy;
use crate::store::model::version::Timestamp;
use crate::store::retention::Retention;
use crate::store::retention::shown::EndedVersion;
use crate::store::retention::verdict::Verdict;
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::retention_rows::{AheadDrops, WaitingCause, WaitingDrops};
use crate::store::schema::rows::Filing;
use crate::store::schema::tables::{LinkedVersionTable, RowTable, VersionTable};

/// Records that are read at once.
const PAGE: usize = 256;

/// Whether many drops ahead of time wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Brake {
    /// They wait for a confirmation.
    #[default]
    Held,
    /// They are confirmed.
    Released,
}

/// Reads every version that has ended, a page at a time.
pub(crate) struct EndedPages {
    rows: Snapshot,
    /// Where the next page begins; `None`: all are read.
    from: Option<Bytes>,
}

impl EndedPages {
    pub(crate) fn new(rows: Snapshot) -> Self {
        let from = Some(VersionTable::all());
        Self { rows, from }
    }

    /// Returns the next versions; `None` at the end.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<EndedVersion>>, StoreError> {
        let Some(from) = self.from.take() else {
            return Ok(None);
        };
        let end = keys::after(&LinkedVersionTable::all());
        let page = self.rows.scan(from, end, PAGE).await?;
        if page.len() == PAGE {
            self.from = page.last().map(|(key, _)| [&key[..], &[0]].concat().into());
        }
        let mut versions = Vec::with_capacity(page.len());
        for (key, _) in page {
            if VersionTable::has(&key) || LinkedVersionTable::has(&key) {
                versions.extend(EndedVersion::read(&self.rows, &key).await?);
            }
        }
        Ok(Some(versions))
    }
}

impl Retention {
    /// Returns the drops that wait for a confirmation; `None` if none do.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn waiting_drops(&self) -> Result<Option<WaitingDrops>, StoreError> {
        self.core.index.row(&retention_keys::waiting_drops()).await
    }

    /// Counts what a policy would drop before it is due as it was filed. Looks at every version that has ended.
    ///
    /// # Errors
    /// Errors of the index.
    pub(crate) async fn ahead(
        &self,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<AheadDrops, StoreError> {
        let rows = self.core.index.snapshot();
        let mut judge = self.judge(rows.clone(), policy, now).await?;
        let mut pages = EndedPages::new(rows);
        let mut drops = AheadDrops::default();
        while let Some(versions) = pages.next().await? {
            for version in versions {
                let Some(bytes) = version.record.node.as_ref().map(|node| node.space()) else {
                    continue;
                };
                drops.all += bytes;
                let is_due = match &version.record.filed {
                    Filing::Due(at) | Filing::Until(at) | Filing::Removed(at, _) => *at <= now,
                    Filing::Nowhere | Filing::Last(_) | Filing::Label(_) => false,
                };
                if !is_due && matches!(judge.verdict(&version).await?, Verdict::Drop(_)) {
                    drops.versions += 1;
                    drops.bytes += bytes;
                }
            }
            self.check_open()?;
        }
        Ok(drops)
    }

    /// Records that drops wait, unless it is recorded.
    pub(crate) async fn wait_for_confirmation(
        &self,
        cause: WaitingCause,
        drops: AheadDrops,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let old = self.waiting_drops().await?;
        let old = old.filter(|old| old.cause == cause);
        let since = old.as_ref().map_or(now, |old| old.since);
        let row = WaitingDrops {
            cause,
            since,
            drops,
        };
        if old.as_ref() == Some(&row) {
            return Ok(());
        }
        tracing::warn!(
            versions = drops.versions,
            bytes = drops.bytes,
            "drops ahead of time wait for `rewindfs prune --confirm`: they have more than a quarter of the history"
        );
        let mut txn = self.policy_txn();
        txn.put(retention_keys::waiting_drops(), &row);
        self.commit.enqueue(txn)?;
        Ok(())
    }

    /// Forgets drops that waited for a reason that no longer holds.
    pub(crate) async fn forget_waiting(&self, cause: WaitingCause) -> Result<(), StoreError> {
        let old = self.waiting_drops().await?;
        if old.is_some_and(|old| old.cause == cause) {
            let mut txn = self.policy_txn();
            txn.delete(retention_keys::waiting_drops());
            self.commit.enqueue(txn)?;
        }
        Ok(())
    }
}
