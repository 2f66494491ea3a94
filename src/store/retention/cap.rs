//! The cap: what goes when the history is larger than `history-max`.
//!
//! The policy in force is shortened step by step (`Policy::ladder`) until what it drops ahead of time has enough bytes. Row `G d` has the
//! shortened policy, which is in force from then on beside the user's; versions are filed anew by it as after a stricter policy. Drops free
//! bytes only after garbage collection has reviewed them, so the cap rests after each. It is lifted when the history is a quarter below the limit,
//! and when another policy is set that waits for nothing (`policy_change.rs`).

use std::time::Duration;

use bytes::Bytes;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::policy::{Due, Policy};
use crate::store::model::version::Timestamp;
use crate::store::retention::Retention;
use crate::store::retention::brake::{Brake, EndedPages};
use crate::store::retention::verdict::Verdict;
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::retention_rows::{AheadDrops, CapRow, WaitingCause};
use crate::store::schema::tables::{DroppedTable, RowTable};
use crate::sync::lock;

/// How long the cap rests after a drop, until garbage collection has subtracted what went.
pub(crate) const REST: Duration = Duration::from_secs(600);
/// How long it rests when nothing may be dropped, and at most waits for contents that garbage collection has not reviewed.
const LONG_REST: Duration = Duration::from_secs(3600);
/// The history is brought below the limit by this part of it, so that the next save does not reach it again.
const SLACK: u64 = 20;

/// By which policy the history fits, as far as it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CapPlan {
    pub(crate) policy: Policy,
    pub(crate) drops: AheadDrops,
}

/// The size of the history and its limit, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySize {
    /// Bytes of the history.
    pub history: u64,
    /// The largest size that `history-max` means now.
    pub max: u64,
}

impl Retention {
    /// Returns the policy that is in force: the user's, shortened by `history-max`; `None` if every version is kept.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn policy_in_force(&self) -> Result<Option<Policy>, StoreError> {
        in_force(&self.core.index.snapshot()).await
    }

    /// Returns the policy to which `history-max` has shortened that of the user, and since when; `None` if it has not.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn cap(&self) -> Result<Option<CapRow>, StoreError> {
        self.core.index.row(&retention_keys::cap()).await
    }

    /// Returns the size of the history and its limit; `None` without a limit, or while the bytes are not counted.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn history_size(&self) -> Result<Option<HistorySize>, StoreError> {
        match self.policy().await? {
            Some(policy) => self.size_under(&policy).await,
            None => Ok(None),
        }
    }

    async fn size_under(&self, policy: &Policy) -> Result<Option<HistorySize>, StoreError> {
        let max = policy.history_max.limit(self.live_peak(self.now()).await?);
        let history = self.amounts().await?.history();
        Ok(history
            .zip(max)
            .map(|(history, max)| HistorySize { history, max }))
    }

    /// Tells whether the history is larger than its limit, and a run can do something about it now.
    pub(crate) async fn is_cap_reached(&self) -> Result<bool, StoreError> {
        let size = self.history_size().await?;
        let is_larger = size.is_some_and(|size| size.history > size.max);
        Ok(is_larger && self.waiting_drops().await?.is_none() && self.has_settled().await?)
    }

    /// Notes that versions were dropped: the history does not show it yet.
    pub(crate) fn rest_cap(&self, time: Duration) {
        let until = self.core.env.now().saturating_add(nanoseconds(time));
        let mut rests = lock(&self.cap_rests);
        *rests = until.max(*rests);
    }

    /// Tells whether what was dropped is subtracted from the history.
    async fn has_settled(&self) -> Result<bool, StoreError> {
        let (now, rests) = (self.core.env.now(), *lock(&self.cap_rests));
        if now < rests {
            return Ok(false);
        }
        let all = DroppedTable::all();
        let end = keys::after(&all);
        let is_reviewed = self.core.index.first(all, end).await?.is_none();
        Ok(is_reviewed || now >= rests.saturating_add(nanoseconds(LONG_REST)))
    }

    /// Returns how the policy in force is to be shortened now; `None` if the history is below its limit, or nothing may be dropped.
    pub(crate) async fn plan_cap(
        &self,
        rows: &Snapshot,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Option<CapPlan>, StoreError> {
        let Some(size) = self.size_under(policy).await? else {
            return Ok(None);
        };
        if size.history <= size.max {
            return Ok(None);
        }
        let steps = policy.ladder();
        let Some(strictest) = steps.last() else {
            return Ok(None);
        };
        let mut judge = self.judge(rows.clone(), strictest, now).await?;
        let mut freed = vec![AheadDrops::default(); steps.len()];
        let (mut pages, mut all) = (EndedPages::new(rows.clone()), 0);
        while let Some(versions) = pages.next().await? {
            for version in versions {
                let Some(bytes) = version.record.node.as_ref().map(|node| node.space()) else {
                    continue;
                };
                all += bytes;
                if matches!(judge.verdict(&version).await?, Verdict::Drop(_)) {
                    let span = version.record.span();
                    let step = steps.partition_point(|step| step.due(span) > Due::At(now));
                    // What is due already goes anyway.
                    if let Some(freed) = freed.get_mut(step).filter(|_| step > 0) {
                        freed.versions += 1;
                        freed.bytes += bytes;
                    }
                }
            }
            self.check_open()?;
        }
        Ok(chosen(&steps, &freed, size, all))
    }

    /// Brings the history below its limit, or lifts the limit's policy. Returns the policy to prune by; `None` if nothing goes ahead
    /// of time.
    ///
    /// # Errors
    /// Errors of the index and the queue.
    pub(crate) async fn apply_cap(
        &self,
        policy: &Policy,
        now: Timestamp,
        brake: Brake,
    ) -> Result<Option<Policy>, StoreError> {
        self.lift_cap().await?;
        let waits = self.waiting_drops().await?;
        let waits = waits.is_some_and(|waits| waits.cause == WaitingCause::HistoryMax);
        let is_confirmed = waits && brake == Brake::Released;
        if !is_confirmed && !self.has_settled().await? {
            return Ok(None);
        }
        let rows = self.core.index.snapshot();
        let Some(plan) = self.plan_cap(&rows, policy, now).await? else {
            self.forget_waiting(WaitingCause::HistoryMax).await?;
            self.rest_cap(LONG_REST);
            return Ok(None);
        };
        if brake == Brake::Held && plan.drops.are_many() {
            self.wait_for_confirmation(WaitingCause::HistoryMax, plan.drops, now)
                .await?;
            return Ok(None);
        }
        let since = self.cap().await?.map_or(now, |cap| cap.since);
        let asked = self.policy().await?;
        let mut txn = self.policy_txn();
        let row = CapRow {
            policy: plan.policy.cap_of(asked.as_ref().unwrap_or(policy)),
            since,
        };
        txn.put(retention_keys::cap(), &row);
        txn.put(retention_keys::refiled(), &Bytes::new());
        if waits {
            txn.delete(retention_keys::waiting_drops());
        }
        self.commit.enqueue(txn)?;
        self.core.load_policy().await?;
        tracing::info!(
            versions = plan.drops.versions,
            "the history is larger than history-max: older versions are dropped ahead of time"
        );
        self.file_all_anew().await?;
        Ok(Some(plan.policy))
    }

    /// Ends the shortened policy when the history is a quarter below its limit.
    async fn lift_cap(&self) -> Result<(), StoreError> {
        if self.cap().await?.is_none() {
            return Ok(());
        }
        let policy = self.policy().await?;
        let has_limit = policy.is_some_and(|policy| policy.history_max.limit(0).is_some());
        let size = self.history_size().await?;
        let is_far = size.is_some_and(|size| size.history <= size.max / 4 * 3);
        if has_limit && !is_far {
            return Ok(());
        }
        let mut txn = self.policy_txn();
        txn.delete(retention_keys::cap());
        self.commit.enqueue(txn)?;
        self.core.load_policy().await?;
        tracing::info!(
            "the history is below history-max again: the policy is in force as it was set"
        );
        Ok(())
    }
}

/// Returns the policy that is in force in one state of the rows.
///
/// # Errors
/// Errors of the index; `Corrupt`.
pub(super) async fn in_force(rows: &Snapshot) -> Result<Option<Policy>, StoreError> {
    let policy: Option<Policy> = rows.row(&keys::policy()).await?;
    let cap: Option<CapRow> = rows.row(&retention_keys::cap()).await?;
    Ok(policy.map(|policy| policy.capped(cap.as_ref().map(|cap| &cap.policy))))
}

/// Chooses the first step by which enough goes: the share of the bytes of all ended versions by which the history is too large.
fn chosen(steps: &[Policy], freed: &[AheadDrops], size: HistorySize, all: u64) -> Option<CapPlan> {
    let goal = size.max - size.max / SLACK;
    let excess = u128::from(size.history - goal.min(size.history));
    let wanted = excess * u128::from(all) / u128::from(size.history.max(1));
    let mut drops = AheadDrops {
        all,
        ..AheadDrops::default()
    };
    let mut found = None;
    for (policy, freed) in steps.iter().zip(freed) {
        if freed.versions > 0 {
            drops.versions += freed.versions;
            drops.bytes += freed.bytes;
            let policy = policy.clone();
            found = Some(CapPlan { policy, drops });
        }
        if u128::from(drops.bytes) >= wanted {
            break;
        }
    }
    found
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
