//! Consistency check of a namespace: replays its log into rows and compares them with the rows of the index; recounts
//! the reference counts and totals of the index; follows every reference of a row to the names, rows and segments that it leads to.
//!
//! The check only reads the bucket and does not disturb a writer; [`repair()`] mends what it finds, as the writer.
//! Invariant: memory is bounded by [`Spill`], independent of the size of the namespace. Beyond it, only the names of
//! the log objects, the first findings of each kind, and the lost extents, of bounded number, are kept.

mod comparison;
mod config;
mod damage;
mod finding;
mod lost;
mod names;
mod orphans;
mod references;
mod repair;
mod report;
mod scan;
mod shown;

use std::time::Duration;

pub(crate) use comparison::compare;
pub use config::{CheckConfig, CheckStep, DataReads};
pub use finding::{Finding, Findings, Subject};
pub use orphans::{OrphanCount, Orphans};
pub use repair::repair;
pub use repair::report::{LogRepair, RepairReport};
pub use report::{CheckReport, MoreDamage};

use crate::backend::Backend;
use crate::meta::{MetaRead, SlateConfig, SlateFollower};
use crate::store::check::comparison::{Comparison, IndexRow, checkpoint, newest};
use crate::store::check::damage::{DamagedContents, DamagedStates};
use crate::store::check::finding::PathFinder;
use crate::store::check::lost::{ExtentSearch, LostExtents};
use crate::store::check::names::NameRows;
use crate::store::check::scan::ScannedRows;
use crate::store::index::current::Index;
use crate::store::model::config::check_name;
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::recovery::evidence::{self, Evidence};
use crate::store::replay::faulty::FaultyKeys;
use crate::store::replay::log_replay::{LogPosition, LogProgress, LogReplay};
#[cfg(test)]
use crate::store::replay::recount::Recount;
use crate::store::replay::sorted::{SortedRows, Spill};
use crate::store::schema::manifest::{NamespaceHome, existing_identity};
use crate::store::schema::merge;
use crate::store::schema::rows::LogPlace;
use crate::sync::Arc;

/// Refresh interval of the index; the check compares one fixed state.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// Pause between two reads of a log that is behind.
const AGAIN: Duration = Duration::from_secs(2);

/// Size of the memory cache of the index, in bytes. A small one is enough, because the index is scanned once.
const INDEX_CACHE: u64 = 32 << 20;

/// Compares every row of the index of a namespace with a replay of its log, recounts its counts, and looks whether what rows refer to is
/// there. Both are compared
/// as they are at the start: later changes of a writer are ignored, and batches that the writer has not logged yet are
/// waited for, as `config` says. `step` receives the progress.
///
/// # Errors
/// `NotFound` if the namespace does not exist or is empty; `Unavailable`, also if the log does not catch up with the
/// index; `Damaged` if the index lacks what other objects prove, or the namespace has lost its identity; `Corrupt` if the index cannot be read; `LocalDisk` if
/// temporary files cannot be written; `Invalid` for a bad name.
pub async fn check_log(
    backend: &Backend,
    name: &str,
    config: &CheckConfig,
    step: impl Fn(CheckStep) + Send + Sync,
) -> Result<CheckReport, StoreError> {
    check_name(name)?;
    let identity = existing_identity(&backend.child(name)).await?;
    identity.check_complete()?;
    let home = identity.home(backend, name);
    let slate = SlateConfig {
        local: backend.is_local(),
        cache_bytes: INDEX_CACHE,
        ..SlateConfig::new(merge::merge)
    };
    match evidence::examine(&home, &slate).await? {
        Evidence::Damaged(what) => return Err(StoreError::Damaged(what)),
        Evidence::Unused => return Err(StoreError::NotFound),
        Evidence::Whole | Evidence::LogUnreadable(_) => {}
    }
    let checked = CheckedNamespace {
        home,
        slate,
        config,
    };
    let deadline = tokio::time::Instant::now() + config.patience;
    loop {
        let index = Arc::new(checked.open().await?);
        let begins = checkpoint(&*index).await;
        let audit = match &begins {
            Ok(begins) => checked.audit(&index, *begins, &step).await,
            Err(_) => Ok(CheckReport::default()),
        };
        index.close().await?;
        let (begins, audit) = (begins?, audit?);
        if audit.damaged.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(audit);
        }
        // The writer may have completed a checkpoint since, and deleted the objects that were found missing.
        let index = checked.open().await?;
        let newest = checkpoint(&index).await;
        index.close().await?;
        if newest? == begins {
            return Ok(audit);
        }
        step(CheckStep::Waiting);
    }
}

/// A namespace that is being checked.
struct CheckedNamespace<'a> {
    home: NamespaceHome,
    slate: SlateConfig,
    config: &'a CheckConfig,
}

impl CheckedNamespace<'_> {
    async fn open(&self) -> Result<SlateFollower, StoreError> {
        let store = self.home.index.object_store();
        Ok(SlateFollower::open(store, "meta", &self.slate, NEVER).await?)
    }

    async fn audit(
        &self,
        index: &Arc<SlateFollower>,
        from: Option<LogPlace>,
        step: &(impl Fn(CheckStep) + Send + Sync),
    ) -> Result<CheckReport, StoreError> {
        let config = self.config;
        let deadline = tokio::time::Instant::now() + config.patience;
        // A list of all rows is read beside the rows from before it, so each of the two gets half of the memory.
        let spill = Spill {
            memory: config.spill.memory / 2,
            ..config.spill.clone()
        };
        let rows = SortedRows::new(merge::merge, spill);
        let mut replay = LogReplay::new(&self.home.objects, rows, from);
        loop {
            let end = newest(&**index).await?;
            let told = |LogProgress { read, all }| step(CheckStep::Log { read, all });
            let reached = replay.read_to(end.batch, end.logged, &told).await?;
            // With a missing or damaged object, the replay may never reach this batch; the rows that it has are compared
            // all the same.
            if reached == LogPosition::There || !replay.damage.is_empty() {
                replay.rows.write_run()?;
                let mut scanned = ScannedRows::new(config);
                let each = |row: IndexRow<'_>| scanned.row(row);
                let mut logged = replay.rows.rows();
                let compared = compare(&**index, &mut logged, step, each).await?;
                drop(logged);
                // The engine refreshes once by itself right after it is opened; the result is valid only if the index did
                // not change.
                if newest(&**index).await? == end {
                    let report = CheckReport {
                        objects: replay.objects,
                        damaged: Findings::of_log(&replay.damage),
                        ..CheckReport::default()
                    };
                    return self
                        .judge(index, from, scanned, compared, report, step)
                        .await;
                }
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(StoreError::Unavailable(
                    behind(end.batch, reached, &replay).into(),
                ));
            }
            step(CheckStep::Waiting);
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Completes a report with what the rows of an index say.
    async fn judge(
        &self,
        index: &Arc<SlateFollower>,
        from: Option<LogPlace>,
        mut scanned: ScannedRows,
        compared: Comparison,
        report: CheckReport,
        step: &(impl Fn(CheckStep) + Send + Sync),
    ) -> Result<CheckReport, StoreError> {
        let config = self.config;
        let miscounted = scanned.counts.finish().await?;
        let found = named(&**index, compared.differing, miscounted).await?;
        let references = &mut scanned.references;
        let segments = references.list(&self.home.objects, step).await?;
        let mut orphans = Orphans::of(references, config).await?;
        if let Some(began) = from {
            orphans.add_log(&self.home.objects, began, config).await?;
        }
        let mut search =
            ExtentSearch::new(&self.home.objects, &**index, config.data, references, step);
        let mut lost = search.run(references).await?;
        let verified = search.read;
        if lost.count > 0 {
            self.forgive(&**index, &mut lost).await?;
        }
        let view = Index::of_follower(Arc::clone(index) as Arc<dyn MetaRead>);
        let contents = DamagedContents::find(&**index, &view.snapshot(), &lost).await?;
        let none = FaultyKeys::default();
        let mut paths = PathFinder::new(&**index, [&none, &none]).await?;
        let states = DamagedStates::name(&**index, &contents, &mut paths, step).await?;
        Ok(CheckReport {
            rows: compared.rows,
            segments,
            verified,
            differing: found.differing,
            miscounted: found.miscounted,
            disagreeing: disagreeing(&scanned.names, &mut paths).await?,
            lost: states.unmarked,
            marked: states.marked,
            more_lost: match contents.is_cut {
                true => MoreDamage::NotNamed,
                false => MoreDamage::None,
            },
            orphans,
            ..report
        })
    }

    /// Forgets lost extents that a writer has stopped citing since the check began.
    async fn forgive(
        &self,
        checked: &dyn MetaRead,
        lost: &mut LostExtents,
    ) -> Result<(), StoreError> {
        let newer = self.open().await?;
        let forgiven = lost.forgive(checked, &newer).await;
        newer.close().await?;
        forgiven
    }
}

/// Returns findings for names whose rows do not agree.
async fn disagreeing(names: &NameRows, paths: &mut PathFinder<'_>) -> Result<Findings, StoreError> {
    let mut findings = Findings::default();
    let mut faults = names.faults();
    while let Some((ino, fault)) = faults.next().await? {
        match findings.is_full() {
            true => findings.count += 1,
            false => findings.add(paths.of_inode(ino).await?, fault.text()),
        }
    }
    Ok(findings)
}

/// Returns findings for rows that differ and for wrong counts, with the names of what they are about.
async fn named(
    index: &dyn MetaRead,
    differing: FaultyKeys,
    miscounted: FaultyKeys,
) -> Result<CheckReport, StoreError> {
    let mut naming = PathFinder::new(index, [&differing, &miscounted]).await?;
    let what = |row: &str| format!("{row} differs from the log");
    let differing = naming.findings(differing, what).await?;
    let what = |row: &str| format!("{row} is counted wrongly");
    Ok(CheckReport {
        differing,
        miscounted: naming.findings(miscounted, what).await?,
        ..CheckReport::default()
    })
}

/// Describes the gap between the end of the log and the newest batch of the index.
fn behind(upto: BatchId, reached: LogPosition, replay: &LogReplay<'_>) -> String {
    let told = match replay.told() {
        Some(told) => format!("batch {} of epoch {}", told.number, told.epoch),
        None => "nothing".to_owned(),
    };
    let BatchId { epoch, number } = upto;
    match reached {
        LogPosition::There | LogPosition::Short => format!(
            "its log ends with {told}, before batch {number} of epoch {epoch}, which the index has: the writer was killed or \
             cannot upload; the next mount that writes fills the gap"
        ),
        LogPosition::Beyond => format!(
            "its log continues from {told}, after batch {number} of epoch {epoch}, where the index ends"
        ),
    }
}

/// Returns the keys of counts that differ from a recount of the other rows.
#[cfg(test)]
pub(crate) async fn wrong_counts(index: &dyn MetaRead) -> Result<Vec<bytes::Bytes>, StoreError> {
    Ok(recounted(index).await?.keys)
}

/// Returns findings for the counts that differ from a recount.
#[cfg(test)]
pub(crate) async fn miscounted(index: &dyn MetaRead) -> Result<Findings, StoreError> {
    let miscounted = recounted(index).await?;
    Ok(named(index, FaultyKeys::default(), miscounted)
        .await?
        .miscounted)
}

#[cfg(test)]
async fn recounted(index: &dyn MetaRead) -> Result<FaultyKeys, StoreError> {
    let mut counts = Recount::new(CheckConfig::default().spill);
    let mut all = index.scan(comparison::all_rows()).await?;
    while let Some((key, value)) = all.next().await? {
        counts.row(&key, &value)?;
    }
    counts.finish().await
}

/// Returns what is wrong with the names of an index.
#[cfg(test)]
pub(crate) async fn name_faults(index: &dyn MetaRead) -> Result<Vec<String>, StoreError> {
    let mut names = NameRows::new(CheckConfig::default().spill);
    let mut all = index.scan(comparison::all_rows()).await?;
    while let Some((key, value)) = all.next().await? {
        names.row(&key, &value)?;
    }
    let (mut found, mut faults) = (Vec::new(), names.faults());
    while let Some((ino, fault)) = faults.next().await? {
        found.push(format!("inode {}: {fault:?}", ino.0));
    }
    Ok(found)
}
