//! A run: takes what is due and what is listed for review, and carries out a verdict for each.

use std::collections::HashSet;
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
use crate::store::retention::report::{LastRun, RetentionReport};
use crate::store::retention::shown::EndedVersion;
use crate::store::retention::verdict::{Judge, count};
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::tables::{
    DueTable, LinkedVersionTable, PolicyTable, RemovedLabelTable, ReviewTable, RowKey, RowTable,
    VersionTable,
};
use crate::sync::lock;

/// How many due versions or names are read at once.
pub(super) const PAGE: usize = 256;
/// How often a verdict is given anew because what it rests on has changed; the version waits for the next run then.
const ATTEMPTS: u32 = 5;
/// After so long a run rests: a task of the runtime that becomes ready meanwhile may have to wait for as long.
const STRETCH: Duration = Duration::from_millis(1);
/// How many times as long as it worked a run rests; the commits of what it drops take time too.
const REST_FACTOR: u32 = 5;
/// Longest rest: a step that takes longer than a few milliseconds waits for the bucket and takes no core.
const REST_MAX: Duration = Duration::from_millis(10);

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMode {
    /// It only reports what would go.
    DryRun,
    /// It drops what is due, after the horizons have been shown to followers for this time.
    Drop {
        /// The time.
        grace: Duration,
        /// Whether many drops ahead of time wait for a confirmation.
        brake: Brake,
    },
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
    pub(super) mode: RunMode,
    judge: Judge<'a>,
    report: RetentionReport,
    rested: tokio::time::Instant,
    /// Versions that a report has counted because of a name. They may be due too.
    pub(super) reviewed: HashSet<Bytes>,
}

impl Retention {
    /// Drops every version that no rule of the policy keeps now, or reports what would be dropped.
    ///
    /// # Errors
    /// `Busy` while another run goes on; `ReadOnly` on a follower, except for a report; errors of the index and the queue: what was
    /// done until then stays done, and the next run goes on.
    pub async fn run(&self, mode: RunMode) -> Result<RetentionReport, StoreError> {
        let Ok(_turn) = self.turn.try_lock() else {
            return Err(StoreError::Busy(
                "another prune of this namespace is running: wait until it has ended".to_owned(),
            ));
        };
        self.check_open()?;
        let is_writer = matches!(self.core.role, Role::Writer);
        if !is_writer && mode != RunMode::DryRun {
            return Err(StoreError::ReadOnly);
        }
        let RunMode::Drop { brake, .. } = mode else {
            return self.dry_run(self.now()).await;
        };
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
            report = self.take_all(mode, &policy, now, report).await?;
            self.rest_after(&report);
            if let Some(policy) = self.apply_cap(&policy, now, brake).await? {
                report = self.take_all(mode, &policy, now, report).await?;
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

    /// Reports what a run would drop now, the drops included that wait for a confirmation.
    async fn dry_run(&self, now: Timestamp) -> Result<RetentionReport, StoreError> {
        let rows = self.core.index.snapshot();
        let policy = self.policy_in_force().await?;
        let mut report = RetentionReport::default();
        let unfiled = self.not_filed_by(&rows, policy.as_ref(), now).await?;
        if let Some(policy) = unfiled.as_ref().or(policy.as_ref()) {
            report = match (self.plan_cap(policy, now).await?, &unfiled) {
                (Some(plan), _) => self.preview(&plan.policy).await?,
                (None, Some(policy)) => self.preview(policy).await?,
                (None, None) => self.take_all(RunMode::DryRun, policy, now, report).await?,
            };
        }
        report.waiting = self.waiting_drops().await?;
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
        mode: RunMode,
        policy: &Policy,
        now: Timestamp,
        report: RetentionReport,
    ) -> Result<RetentionReport, StoreError> {
        let rows = self.core.index.snapshot();
        if !self.has_due(&rows, now).await? {
            return Ok(report);
        }
        if let RunMode::Drop { grace, .. } = mode
            && self.raise_horizons(&rows, policy, now).await?
        {
            self.show_horizons(grace).await?;
        }
        lock(&self.drops).clear();
        let rows = self.core.index.snapshot();
        let mut run = Run {
            mode,
            judge: self.judge(rows, policy, now).await?,
            report,
            rested: tokio::time::Instant::now(),
            reviewed: HashSet::new(),
        };
        self.take_reviews(&mut run).await?;
        self.take_removed_labels(&mut run).await?;
        self.take_due(&mut run, now).await?;
        Ok(run.report)
    }

    /// Reports what a run would drop if `policy` were in force. Looks at every version that has ended.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn preview(&self, policy: &Policy) -> Result<RetentionReport, StoreError> {
        let rows = self.core.index.snapshot();
        let now = self.core.now().min(Timestamp(self.core.env.now()));
        let mut judge = self.judge(rows.clone(), policy, now).await?;
        let mut report = RetentionReport::default();
        for table in [VersionTable::all(), LinkedVersionTable::all()] {
            let mut from = table.clone();
            let end = keys::after(&table);
            loop {
                let page = rows.scan(from, end.clone(), PAGE).await?;
                for (key, _) in &page {
                    if let Some(version) = EndedVersion::read(&rows, key).await? {
                        let verdict = judge.verdict(&version).await?;
                        count(&mut report, &version, &verdict);
                    }
                }
                match page.last().filter(|_| page.len() == PAGE) {
                    Some((key, _)) => from = [&key[..], &[0]].concat().into(),
                    None => break,
                }
            }
        }
        Ok(report)
    }

    /// Returns the policy by which the next run files every version anew before it drops any; `None` if they are filed. Then what is
    /// due does not tell what goes.
    async fn not_filed_by(
        &self,
        rows: &Snapshot,
        policy: Option<&Policy>,
        now: Timestamp,
    ) -> Result<Option<Policy>, StoreError> {
        let pending = rows.row(&retention_keys::pending_policy()).await?;
        if let Some(pending) = pending.filter(|pending| pending.from <= now) {
            return Ok(Some(pending.policy));
        }
        let refiled = rows.row(&retention_keys::refiled()).await?;
        Ok(policy.filter(|_| refiled.is_some()).cloned())
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

    async fn has_due(&self, rows: &Snapshot, now: Timestamp) -> Result<bool, StoreError> {
        let (from, end) = due_until(now);
        let mut is_due = rows.first(from, end).await?.is_some();
        for table in [ReviewTable::all(), RemovedLabelTable::all()] {
            let end = keys::after(&table);
            is_due = is_due || rows.first(table, end).await?.is_some();
        }
        Ok(is_due)
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
            let taken = self.take_due_once(run, now).await?;
            if taken == 0 || run.mode == RunMode::DryRun {
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
                let record = retention_keys::due_record(key);
                if let Some(record) = record.filter(|record| !run.reviewed.contains(record)) {
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

    /// Gives a verdict on the version with this record, and carries it out unless the run only reports.
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
            let outcome = match run.mode {
                RunMode::DryRun => Outcome::Done,
                RunMode::Drop { .. } => {
                    let protection = run.judge.protection();
                    self.carry_out(&version, &verdict, protection).await?
                }
            };
            if outcome != Outcome::Changed {
                count(&mut run.report, &version, &verdict);
                self.rest(run).await;
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

    /// Lets other work go first from time to time.
    async fn rest(&self, run: &mut Run<'_>) {
        let worked = run.rested.elapsed();
        if worked >= STRETCH {
            self.core.sleep((worked * REST_FACTOR).min(REST_MAX)).await;
            run.rested = tokio::time::Instant::now();
        }
    }
}

/// Returns the range of keys of the versions that are due at `now`.
fn due_until(now: Timestamp) -> (Bytes, Bytes) {
    let after = Timestamp(now.0.saturating_add(1));
    (DueTable::all(), retention_keys::due(after, &[]).bytes())
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
