//! Dry runs: what a run would drop now, or by another policy.
//!
//! A dry run reads one snapshot, and all that it remembers is its own value: it needs no turn, so that runs, changes of the policy and
//! other dry runs go on beside it, and it answers for the rows and the policy with which it began. Beside the labels and holds it has one page
//! of rows in memory and what the judge and the report remember at most, however many versions there are.

use bytes::Bytes;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::policy::Policy;
use crate::store::model::version::Timestamp;
use crate::store::retention::Retention;
use crate::store::retention::brake::EndedPages;
use crate::store::retention::cap::in_force;
use crate::store::retention::pace::Pace;
use crate::store::retention::report::RetentionReport;
use crate::store::retention::reviews::{KeptRecords, kept_by_label, kept_by_name};
use crate::store::retention::run::{PAGE, due_until, has_due};
use crate::store::retention::shown::EndedVersion;
use crate::store::retention::verdict::{Judge, count};
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::rows::{Filing, PendingPolicy};
use crate::store::schema::tables::{RemovedLabelTable, ReviewTable, RowTable};

/// The state of a dry run.
struct DryRun<'a> {
    retention: &'a Retention,
    rows: Snapshot,
    judge: Judge<'a>,
    report: RetentionReport,
    pace: Pace,
}

impl Retention {
    /// Reports what a run would drop now, the drops included that wait for a confirmation.
    ///
    /// # Errors
    /// `Closed` when the namespace is being closed; errors of the index.
    pub async fn dry_run(&self) -> Result<RetentionReport, StoreError> {
        let now = self.now();
        let rows = self.core.index.snapshot();
        let policy = in_force(&rows).await?;
        let unfiled = not_filed_by(&rows, policy.as_ref(), now).await?;
        let is_filed = unfiled.is_none();
        let mut report = RetentionReport::default();
        if let Some(policy) = unfiled.or(policy) {
            let plan = self.plan_cap(&rows, &policy, now).await?;
            report = match plan.map(|plan| plan.policy) {
                None if is_filed => self.report_due(&rows, &policy, now).await?,
                capped => {
                    let policy = capped.as_ref().unwrap_or(&policy);
                    self.report_all(&rows, policy, now).await?
                }
            };
        }
        report.waiting = rows.row(&retention_keys::waiting_drops()).await?;
        Ok(report)
    }

    /// Reports what a run would drop if `policy` were in force. Looks at every version that has ended.
    ///
    /// # Errors
    /// As those of [`Self::dry_run`].
    pub async fn preview(&self, policy: &Policy) -> Result<RetentionReport, StoreError> {
        let now = self.core.now().min(Timestamp(self.core.env.now()));
        let rows = self.core.index.snapshot();
        self.report_all(&rows, policy, now).await
    }

    async fn report_all(
        &self,
        rows: &Snapshot,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<RetentionReport, StoreError> {
        let mut run = self.begin_dry_run(rows, policy, now).await?;
        let mut pages = EndedPages::new(rows.clone());
        while let Some(versions) = pages.next().await? {
            for version in versions {
                run.judge(&version).await?;
            }
        }
        Ok(run.report)
    }

    /// Reports what is due, where every version is filed by the policy.
    async fn report_due(
        &self,
        rows: &Snapshot,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<RetentionReport, StoreError> {
        if !has_due(rows, now).await? {
            return Ok(RetentionReport::default());
        }
        let mut run = self.begin_dry_run(rows, policy, now).await?;
        run.judge_reviews().await?;
        run.judge_due(now).await?;
        Ok(run.report)
    }

    async fn begin_dry_run<'a>(
        &'a self,
        rows: &Snapshot,
        policy: &'a Policy,
        now: Timestamp,
    ) -> Result<DryRun<'a>, StoreError> {
        Ok(DryRun {
            retention: self,
            rows: rows.clone(),
            judge: self.judge(rows.clone(), policy, now).await?,
            report: RetentionReport::default(),
            pace: Pace::begin(),
        })
    }
}

impl DryRun<'_> {
    /// Counts the versions that are listed for a review, because a name or a label that kept them has changed.
    async fn judge_reviews(&mut self) -> Result<(), StoreError> {
        let names = ReviewTable::all();
        let mut pages = KeyPages::of(names.clone(), keys::after(&names));
        while let Some(keys) = pages.next(&self.rows).await? {
            for name in keys.iter().filter_map(retention_keys::reviewed) {
                self.judge_kept(kept_by_name(&name)).await?;
            }
        }
        let labels = RemovedLabelTable::all();
        let mut pages = KeyPages::of(labels.clone(), keys::after(&labels));
        while let Some(keys) = pages.next(&self.rows).await? {
            for label in keys
                .iter()
                .filter_map(|key| retention_keys::label_place(key))
            {
                self.judge_kept(kept_by_label(label)).await?;
            }
        }
        Ok(())
    }

    async fn judge_kept(&mut self, records: KeptRecords) -> Result<(), StoreError> {
        let mut pages = KeyPages::of(records.prefix.clone(), keys::after(&records.prefix));
        while let Some(keys) = pages.next(&self.rows).await? {
            for record in keys.iter().filter_map(|key| records.record_in(key)) {
                if let Some(version) = EndedVersion::read(&self.rows, &record).await? {
                    self.judge(&version).await?;
                    self.pace.rest(&self.retention.core).await;
                }
            }
        }
        Ok(())
    }

    /// Counts the versions that are due, but those that are counted for a review.
    async fn judge_due(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let (from, end) = due_until(now);
        let mut pages = KeyPages::of(from, end);
        while let Some(keys) = pages.next(&self.rows).await? {
            let records = keys.iter().filter_map(retention_keys::due_record);
            let records: Vec<Bytes> = records.collect();
            self.judge.read_likely(records.iter().cloned().collect());
            for record in records {
                let Some(version) = EndedVersion::read(&self.rows, &record).await? else {
                    continue;
                };
                if !self.is_reviewed(&version).await? {
                    self.judge(&version).await?;
                }
                self.pace.rest(&self.retention.core).await;
            }
        }
        Ok(())
    }

    /// Tells whether a version that is due is also filed under a name that is listed for a review.
    async fn is_reviewed(&self, version: &EndedVersion) -> Result<bool, StoreError> {
        let name = match &version.record.filed {
            Filing::Until(_) => version.list.name(),
            Filing::Removed(_, name) => name.clone(),
            Filing::Nowhere | Filing::Due(_) | Filing::Last(_) | Filing::Label(_) => {
                return Ok(false);
            }
        };
        let listed = self.rows.row(&retention_keys::review(&name)).await?;
        Ok(listed.is_some())
    }

    async fn judge(&mut self, version: &EndedVersion) -> Result<(), StoreError> {
        self.retention.check_open()?;
        let verdict = self.judge.verdict(version).await?;
        count(&mut self.report, version, &verdict);
        Ok(())
    }
}

/// Reads the keys of a range of one snapshot, a page at a time.
struct KeyPages {
    /// Where the next page begins; `None`: all are read.
    from: Option<Bytes>,
    end: Bytes,
}

impl KeyPages {
    fn of(from: Bytes, end: Bytes) -> Self {
        let from = Some(from);
        Self { from, end }
    }

    /// Returns the next keys; `None` at the end.
    async fn next(&mut self, rows: &Snapshot) -> Result<Option<Vec<Bytes>>, StoreError> {
        let Some(from) = self.from.take() else {
            return Ok(None);
        };
        let page = rows.scan(from, self.end.clone(), PAGE).await?;
        if page.len() == PAGE {
            self.from = page.last().map(|(key, _)| [&key[..], &[0]].concat().into());
        }
        Ok(Some(page.into_iter().map(|(key, _)| key).collect()))
    }
}

/// Returns the policy by which the next run files every version anew before it drops any; `None` if they are filed. Then what is
/// due does not tell what goes.
async fn not_filed_by(
    rows: &Snapshot,
    policy: Option<&Policy>,
    now: Timestamp,
) -> Result<Option<Policy>, StoreError> {
    let pending: Option<PendingPolicy> = rows.row(&retention_keys::pending_policy()).await?;
    if let Some(pending) = pending.filter(|pending| pending.from <= now) {
        return Ok(Some(pending.policy));
    }
    let refiled = rows.row(&retention_keys::refiled()).await?;
    Ok(policy.filter(|_| refiled.is_some()).cloned())
}
