//! Consistency check of a namespace: replays its log into rows and compares them with the rows of the index; recounts
//! the reference counts and totals of the index.
//!
//! The check only reads the bucket and does not disturb a writer.
//! Invariant: memory is bounded by [`Spill`], independent of the size of the namespace. Beyond it, only the names of
//! the log objects and the first findings of each kind are kept.

mod config;
mod faulty;
mod finding;
mod log_compare;
mod recount;
mod sorted;

use std::time::Duration;

use bytes::Bytes;

pub use config::{CheckConfig, CheckStep};
pub use finding::{Finding, Findings, Subject};
pub use sorted::Spill;

use crate::backend::{Backend, BackendError};
use crate::meta::{MetaRead, RowScan, SlateConfig, SlateFollower};
use crate::store::check::faulty::FaultyKeys;
use crate::store::check::finding::PathFinder;
use crate::store::check::log_compare::{LogPosition, LogReplay};
use crate::store::check::recount::Recount;
use crate::store::check::sorted::SortedRows;
use crate::store::model::config::check_name;
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::recovery::evidence::{self, Evidence};
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::merge;
use crate::store::schema::rows::LogPlace;
use crate::store::schema::tables::{AppliedTable, CheckpointTable, LoggedTable, RowTable};

/// Refresh interval of the index; the check compares one fixed state.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// Pause between two reads of a log that is behind.
const AGAIN: Duration = Duration::from_secs(2);

/// Number of rows between two progress reports.
const ROWS_TOLD: u64 = 10_000;

/// Size of the memory cache of the index, in bytes. A small one is enough, because the index is scanned once.
const INDEX_CACHE: u64 = 32 << 20;

/// The result of [`check_log`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Number of log objects read.
    pub objects: usize,
    /// Number of rows in the index.
    pub rows: u64,
    /// Log objects that are missing or damaged. Their batches are then absent from the comparison.
    pub damaged: Findings,
    /// Rows that differ, or exist on one side only.
    pub differing: Findings,
    /// Counts that differ from the recount.
    pub miscounted: Findings,
}

impl CheckReport {
    /// Tells whether the check found no fault.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.differing.is_empty() && self.miscounted.is_empty()
    }
}

/// Compares every row of the index of a namespace with a replay of its log, and recounts its counts. Both are compared
/// as they are at the start: later changes of a writer are ignored, and batches that the writer has not logged yet are
/// waited for, as `config` says. `step` receives the progress.
///
/// # Errors
/// `NotFound` if the namespace does not exist or is empty; `Unavailable`, also if the log does not catch up with the
/// index; `Damaged` if the index lacks what other objects prove; `Corrupt` if the index cannot be read; `LocalDisk` if
/// temporary files cannot be written; `Invalid` for a bad name.
pub async fn check_log(
    backend: &Backend,
    name: &str,
    config: &CheckConfig,
    step: impl Fn(CheckStep) + Send + Sync,
) -> Result<CheckReport, StoreError> {
    check_name(name)?;
    let backend = backend.child(name);
    match backend.get("namespace.json").await {
        Ok(_) => {}
        Err(BackendError::NotFound { .. }) => return Err(StoreError::NotFound),
        Err(error) => return Err(error.into()),
    }
    let slate = SlateConfig {
        local: backend.is_local(),
        cache_bytes: INDEX_CACHE,
        ..SlateConfig::new(merge::merge)
    };
    match evidence::examine(&backend, &slate).await? {
        Evidence::Damaged(what) => return Err(StoreError::Damaged(what)),
        Evidence::Unused => return Err(StoreError::NotFound),
        Evidence::Whole | Evidence::LogUnreadable(_) => {}
    }
    let deadline = tokio::time::Instant::now() + config.patience;
    loop {
        let index = SlateFollower::open(backend.object_store(), "meta", &slate, NEVER).await?;
        let checkpoint = checkpoint(&index).await;
        let audit = match &checkpoint {
            Ok(checkpoint) => audit(&backend, &index, *checkpoint, config, &step).await,
            Err(_) => Ok(CheckReport::default()),
        };
        index.close().await?;
        let (checkpoint, audit) = (checkpoint?, audit?);
        if audit.damaged.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(audit);
        }
        // The writer may have completed a checkpoint since, and deleted the objects that were found missing.
        let index = SlateFollower::open(backend.object_store(), "meta", &slate, NEVER).await?;
        let newest = self::checkpoint(&index).await;
        index.close().await?;
        if newest? == checkpoint {
            return Ok(audit);
        }
        step(CheckStep::Waiting);
    }
}

/// Returns where the newest checkpoint that an index names begins.
async fn checkpoint(index: &SlateFollower) -> Result<Option<LogPlace>, StoreError> {
    let row = index.get(&crate::store::schema::keys::checkpoint()).await?;
    let row = row.map(|row| CheckpointTable::decode(&row)).transpose()?;
    Ok(row.map(|row| row.began))
}

async fn audit(
    backend: &Backend,
    index: &SlateFollower,
    from: Option<LogPlace>,
    config: &CheckConfig,
    step: &(impl Fn(CheckStep) + Send + Sync),
) -> Result<CheckReport, StoreError> {
    let deadline = tokio::time::Instant::now() + config.patience;
    // A list of all rows is read beside the rows from before it, so each of the two gets half of the memory.
    let spill = Spill {
        memory: config.spill.memory / 2,
        ..config.spill.clone()
    };
    let mut replay = LogReplay::new(backend, SortedRows::new(merge::merge, spill), from);
    loop {
        let (upto, recorded) = newest(index).await?;
        let reached = replay.read_to(upto, recorded, step).await?;
        // With a missing or damaged object, the replay may never reach this batch; the rows that it has are compared
        // all the same.
        if reached == LogPosition::There || !replay.damaged.is_empty() {
            replay.rows.write_run()?;
            let mut counts = Recount::new(config.spill.clone());
            let each = |row: IndexRow<'_>| counts.row(row.key, row.value);
            let compared = compare(index, &mut replay.rows.rows(), step, each).await?;
            let miscounted = counts.finish().await?;
            let found = named(index, compared.differing, miscounted).await?;
            // The engine refreshes once by itself right after it is opened; the result is valid only if the index did
            // not change.
            if newest(index).await?.0 == upto {
                return Ok(CheckReport {
                    objects: replay.objects,
                    rows: compared.rows,
                    damaged: replay.damaged,
                    ..found
                });
            }
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(StoreError::Unavailable(
                behind(upto, reached, &replay).into(),
            ));
        }
        step(CheckStep::Waiting);
        tokio::time::sleep(AGAIN).await;
    }
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

/// Returns the newest batch in an index, and the newest log object that the index names.
async fn newest(index: &SlateFollower) -> Result<(BatchId, Option<LogPlace>), StoreError> {
    let applied = index.get(&crate::store::schema::keys::applied()).await?;
    let applied: AppliedRow = AppliedTable::decode(&applied.ok_or(StoreError::NotFound)?)?;
    let recorded = index.get(&crate::store::schema::keys::logged()).await?;
    let recorded = recorded.map(|row| LoggedTable::decode(&row)).transpose()?;
    Ok((applied.batch, recorded))
}

/// A row of an index.
#[derive(Clone, Copy)]
pub(crate) struct IndexRow<'a> {
    pub(crate) key: &'a Bytes,
    pub(crate) value: &'a Bytes,
}

/// The result of [`compare`].
pub(crate) struct Comparison {
    /// Number of rows in the index.
    pub(crate) rows: u64,
    pub(crate) differing: FaultyKeys,
}

/// Compares the rows of an index with the rows of `other`, both ordered by key, and passes each row of the index to
/// `each`.
pub(crate) async fn compare(
    index: &dyn MetaRead,
    other: &mut (dyn RowScan + '_),
    step: &(impl Fn(CheckStep) + Sync),
    mut each: impl FnMut(IndexRow<'_>) -> Result<(), StoreError> + Send,
) -> Result<Comparison, StoreError> {
    let all = Bytes::from_static(b"C")..Bytes::from_static(b"I");
    let mut left = index.scan(all).await?;
    let (mut a, mut b) = (left.next().await?, other.next().await?);
    let (mut rows, mut differing) = (0, FaultyKeys::default());
    loop {
        let keys = (a.as_ref().map(|r| &r.0), b.as_ref().map(|r| &r.0));
        let order = match keys {
            (None, None) => return Ok(Comparison { rows, differing }),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(x), Some(y)) => x.cmp(y),
        };
        if a != b
            && let Some(key) = if order.is_le() { keys.0 } else { keys.1 }
        {
            differing.add(key);
        }
        if order.is_le() {
            if let Some((key, value)) = &a {
                each(IndexRow { key, value })?;
            }
            rows += 1;
            if rows % ROWS_TOLD == 0 {
                step(CheckStep::Rows(rows));
            }
            a = left.next().await?;
        }
        if order.is_ge() {
            b = other.next().await?;
        }
    }
}

/// Returns the keys of counts that differ from a recount of the other rows.
#[cfg(test)]
pub(crate) async fn recount(index: &dyn MetaRead) -> Result<Vec<Bytes>, StoreError> {
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
    let mut all = index
        .scan(Bytes::from_static(b"C")..Bytes::from_static(b"I"))
        .await?;
    while let Some((key, value)) = all.next().await? {
        counts.row(&key, &value)?;
    }
    counts.finish().await
}
