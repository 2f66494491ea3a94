//! A run: takes what is due and what is listed for review, and carries out a verdict for each.

use std::time::Duration;

use bytes::Bytes;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::failpoints::PlantedFault;
use crate::store::model::policy::{HOUR, Policy};
use crate::store::model::role::Role;
use crate::store::model::version::Timestamp;
use crate::store::retention::Retention;
use crate::store::retention::brake::Brake;
use crate::store::retention::cap::REST;
use crate::store::retention::carry_out::Outcome;
use crate::store::retention::pace::Pace;
use crate::store::retention::report::{LastRun, RetentionReport};
use crate::store::retention::shown::EndedVersion;
use crate::store::retention::verdict::{Judge, count};
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::tables::{
    DueTable, PolicyTable, RemovedLabelTable, ReviewTable, RowKey, RowTable,
};
use crate::sync::lock;

/// How many due versions or names are read at once.
pub(super) const PAGE: usize = 256;
/// How often a verdict is given anew because what it rests on has changed; the version waits for the next run then.
const ATTEMPTS: u32 = 5;
/// How a run drops what is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// For how long followers are shown the horizons before the first drop.
    pub grace: Duration,
    /// Whether many drops ahead of time wait for a confirmation.
    pub brake: Brake,
}

/// Whether a run has decided about a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Made,
    /// It changed all the time: the next run decides.
    Open,
}

/// The state of a run.
pub(super) struct Run<'a> {
    judge: Judge<'a>,
    report: RetentionReport,
    pace: Pace,
}

impl Retention {
    /// Drops every version that no rule of the policy keeps now.
    ///
    /// # Errors
    /// `Busy` while another run goes on; `ReadOnly` on a follower; errors of the index and the queue: what was done until then stays
    /// done, and the next run goes on.
    pub async fn run(&self, options: RunOptions) -> Result<RetentionReport, StoreError> {
        if !matches!(self.core.role, Role::Writer) {
            return Err(StoreError::ReadOnly);
        }
        let changing = self.policy_turn.lock().await;
        self.check_open()?;
        let Ok(_turn) = self.turn.try_lock() else {
            return Err(StoreError::Busy(
                "another prune of this namespace is running: wait until it has ended".to_owned(),
            ));
        };
        drop(changing);
        let RunOptions { grace, brake } = options;
        let mut now = match self.agreed_now().await {
            Err(StoreError::Clock(why)) => {
                self.look(Some(why.clone())).await?;
                return Err(StoreError::Clock(why));
            }
            now => now?,
        };
        if self.core.health.failpoints.has(PlantedFault::EarlyExpiry) {
            now.0 += HOUR;
        }
        self.bring_policy_into_force(now, brake).await?;
        self.remove_lapsed(now).await?;
        let mut report = RetentionReport::default();
        if let Some(policy) = self.policy_in_force().await? {
            report = self.take_all(grace, &policy, now, report).await?;
            self.rest_after(&report);
            if let Some(policy) = self.apply_cap(&policy, now, brake).await? {
                report = self.take_all(grace, &policy, now, report).await?;
                self.rest_after(&report);
            }
        }
        report.waiting = self.waiting_drops().await?;
        let at = self.core.now();
        let last = report.clone();
        *lock(&self.last) = Some(LastRun { at, report: last });
        self.look(None).await?;
        Ok(report)
    }

    /// Lets the cap rest after drops.
    fn rest_after(&self, report: &RetentionReport) {
        if report.dropped.versions > 0 {
            self.rest_cap(REST);
        }
    }

    /// Takes everything that is due by a policy, and adds it to a report.
    async fn take_all(
        &self,
        grace: Duration,
        policy: &Policy,
        now: Timestamp,
        report: RetentionReport,
    ) -> Result<RetentionReport, StoreError> {
        let rows = self.core.index.snapshot();
        if !has_due(&rows, now).await? {
            return Ok(report);
        }
        if self.raise_horizons(&rows, policy, now).await? {
            self.show_horizons(grace).await?;
        }
        lock(&self.drops).clear();
        let rows = self.core.index.snapshot();
        let mut run = Run {
            judge: self.judge(rows, policy, now).await?,
            report,
            pace: Pace::begin(),
        };
        self.take_reviews(&mut run).await?;
        self.take_removed_labels(&mut run).await?;
        self.take_due(&mut run, now).await?;
        Ok(run.report)
    }

    /// Returns the last run of this process that dropped what was due; `None` if there was none.
    pub fn last_run(&self) -> Option<LastRun> {
        lock(&self.last).clone()
    }

    /// Returns the time by which retention decides: the earliest of the machine's clock, the namespace's, and the time below which
    /// history is final.
    pub(crate) fn now(&self) -> Timestamp {
        let machine = Timestamp(self.core.env.now());
        let namespace = self.core.now();
        machine.min(namespace).min(self.commit.low_watermark())
    }

    /// Removes the labels that have expired, and the holds that have ended.
    async fn remove_lapsed(&self, now: Timestamp) -> Result<(), StoreError> {
        loop {
            let step = self.history.remove_lapsed(now, PAGE).await?;
            if step.looked_at < PAGE || step.labels + step.holds == 0 {
                return Ok(());
            }
        }
    }

    /// Takes the versions that are due. A dropped state of a hard-linked inode changes the keys of names that begin with it: they are
    /// due again, and taken by a further pass.
    async fn take_due(&self, run: &mut Run<'_>, now: Timestamp) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            if self.take_due_once(run, now).await? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Takes the versions that are due, once each. Returns how many there were.
    async fn take_due_once(&self, run: &mut Run<'_>, now: Timestamp) -> Result<u64, StoreError> {
        let ((mut from, end), mut taken) = (due_until(now), 0);
        loop {
            let rows = self.core.index.snapshot();
            let page = rows.scan(from, end.clone(), PAGE).await?;
            let due = page
                .iter()
                .filter_map(|(key, _)| retention_keys::due_record(key));
            run.judge.read_likely(due.collect());
            for (key, _) in &page {
                if let Some(record) = retention_keys::due_record(key) {
                    self.take(run, &record).await?;
                    taken += 1;
                }
            }
            // They stay filed until their operations are committed, so that nothing waits for these.
            lock(&self.queued).clear();
            match page.last().filter(|_| page.len() == PAGE) {
                Some((key, _)) => from = [&key[..], &[0]].concat().into(),
                None => return Ok(taken),
            }
        }
    }

    /// Gives a verdict on the version with this record, and carries it out.
    pub(super) async fn take(
        &self,
        run: &mut Run<'_>,
        record: &Bytes,
    ) -> Result<Decision, StoreError> {
        for _ in 0..ATTEMPTS {
            self.check_open()?;
            let rows = self.core.index.snapshot();
            let Some(version) = EndedVersion::read(&rows, record).await? else {
                return Ok(Decision::Made);
            };
            run.judge.renew(rows);
            if self.is_outdated(run.judge.protection()) {
                run.judge.renew_protection(self.protection().await?);
            }
            let verdict = run.judge.verdict(&version).await?;
            let protection = run.judge.protection();
            let outcome = self.carry_out(&version, &verdict, protection).await?;
            if outcome != Outcome::Changed {
                count(&mut run.report, &version, &verdict);
                run.pace.rest(&self.core).await;
                return Ok(Decision::Made);
            }
        }
        tracing::debug!("a version changes all the time; the next prune decides about it");
        Ok(Decision::Open)
    }

    /// Waits until followers have seen the raised horizons, unless the namespace is closed before.
    async fn show_horizons(&self, grace: Duration) -> Result<(), StoreError> {
        // Made before the look: a close after it ends the wait.
        let ended = self.ended.notified();
        self.check_open()?;
        tokio::select! {
            () = self.core.sleep(grace) => {}
            () = ended => {}
        }
        self.check_open()
    }
}

/// Returns the range of keys of the versions that are due at `now`.
pub(super) fn due_until(now: Timestamp) -> (Bytes, Bytes) {
    let after = Timestamp(now.0.saturating_add(1));
    (DueTable::all(), retention_keys::due(after, &[]).bytes())
}

/// Tells whether there is something for a run to look at.
pub(super) async fn has_due(rows: &Snapshot, now: Timestamp) -> Result<bool, StoreError> {
    let (from, end) = due_until(now);
    let mut is_due = rows.first(from, end).await?.is_some();
    for table in [ReviewTable::all(), RemovedLabelTable::all()] {
        let end = keys::after(&table);
        is_due = is_due || rows.first(table, end).await?.is_some();
    }
    Ok(is_due)
}

/// The policy of a namespace as its rows have it.
impl Retention {
    /// Returns the policy in force; `None` if every version is kept.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn policy(&self) -> Result<Option<Policy>, StoreError> {
        let row: RowKey<PolicyTable> = keys::policy();
        self.core.index.row(&row).await
    }
}
