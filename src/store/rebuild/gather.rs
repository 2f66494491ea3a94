//! The rows of a namespace as its log and its old index tell them.
//!
//! The log is enough where it has no gap. An index that is ahead of the log, or whole where the log has gaps, gives the rows; batches that
//! only the log has are applied over them. An index is read as a whole or not at all: rows of half an index would be of several states.

use std::time::Duration;

use bytes::Bytes;

use crate::meta::{Change, Inspection, MetaRead, RowScan, SlateFollower, inspect};
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::rebuild::engine::slate;
use crate::store::rebuild::old_namespace::OldNamespace;
use crate::store::rebuild::report::{LostTime, RebuildLosses, RebuildStep, RebuiltFrom};
use crate::store::replay::log_replay::{LogProgress, LogReplay};
use crate::store::replay::sorted::{SortedRows, Spill};
use crate::store::schema::keys;
use crate::store::schema::merge;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::tables::{AppliedTable, RowTable};

/// Refresh interval of the old index; one state of it is read.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
/// Number of rows between two reports of progress.
pub(super) const ROWS_TOLD: u64 = 10_000;
/// A batch after every other one.
const END: BatchId = BatchId {
    epoch: u64::MAX,
    number: u64::MAX,
};

/// Whether a replay of the log gives the gathered rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogAgreement {
    Agrees,
    /// The log needs a list of all rows.
    Differs,
}

/// The rows of a namespace.
#[derive(Debug)]
pub(super) struct GatheredRows {
    pub(super) rows: SortedRows,
    pub(super) from: RebuiltFrom,
    pub(super) log: LogAgreement,
    pub(super) log_objects: usize,
    pub(super) losses: RebuildLosses,
    /// The first segment that no row may cite although it is not garbage.
    pub(super) unresolved: SegmentId,
}

/// Reads the log, and the old index where it has more.
///
/// # Errors
/// `Unavailable`; `LocalDisk` if temporary files cannot be written.
pub(super) async fn gather(
    old: &OldNamespace,
    spill: &Spill,
    step: &(impl Fn(RebuildStep) + Sync),
) -> Result<GatheredRows, StoreError> {
    // A list of all rows is read beside the rows from before it, so each of the two gets half of the memory.
    let half = Spill {
        memory: spill.memory / 2,
        ..spill.clone()
    };
    let fresh = || SortedRows::new(merge::merge, half.clone());
    let objects = &old.home.objects;
    let mut replay = LogReplay::new(objects, fresh(), None);
    read_all(&mut replay, step).await?;
    let told = replay.told();
    let damage = replay.damage_of_rows();
    let agreement = match damage.is_empty() && told.is_some() {
        true => LogAgreement::Agrees,
        false => LogAgreement::Differs,
    };
    if let Some(index) = OldIndex::open(old).await? {
        let is_wanted = Some(index.newest) > told || !damage.is_empty();
        let rows = match is_wanted {
            true => index.rows(fresh(), step).await,
            false => Ok(None),
        };
        index.close().await;
        let OldIndex {
            newest, applied, ..
        } = index;
        if let Some(rows) = rows? {
            let before = GatheredRows {
                rows: fresh(),
                from: RebuiltFrom::Index,
                log: agreement,
                log_objects: replay.objects,
                losses: RebuildLosses::default(),
                unresolved: replay.newest_unresolved(),
            };
            if Some(newest) >= told {
                return Ok(GatheredRows { rows, ..before });
            }
            drop(replay);
            let mut later = LogReplay::over(objects, rows, newest, applied);
            read_all(&mut later, step).await?;
            return Ok(GatheredRows {
                from: RebuiltFrom::IndexAndLog,
                losses: losses(&later),
                unresolved: later.first_unresolved(),
                rows: later.rows,
                ..before
            });
        }
    }
    let (from, losses) = match told {
        Some(_) => (RebuiltFrom::Log, losses(&replay)),
        None => (RebuiltFrom::Nothing, losses(&replay)),
    };
    Ok(GatheredRows {
        from,
        log: agreement,
        log_objects: replay.objects,
        losses,
        unresolved: replay.first_unresolved(),
        rows: replay.rows,
    })
}

async fn read_all(
    replay: &mut LogReplay<'_>,
    step: &(impl Fn(RebuildStep) + Sync),
) -> Result<(), StoreError> {
    let told = |LogProgress { read, all }| step(RebuildStep::Log { read, all });
    let _short = replay.read_to(END, None, &told).await?;
    replay.end();
    Ok(())
}

fn losses(replay: &LogReplay<'_>) -> RebuildLosses {
    let mut losses = RebuildLosses::default();
    let damage = replay.damage_of_rows();
    if !damage.is_empty() {
        losses.add_log(&damage, &replay.gaps);
    }
    if replay.told().is_none() {
        losses.times.push(LostTime {
            after_ns: None,
            until_ns: None,
        });
    }
    losses
}

/// The old index, open for reads.
struct OldIndex {
    follower: SlateFollower,
    newest: BatchId,
    /// The row `G A`.
    applied: Bytes,
}

impl OldIndex {
    /// Opens the index, unless it is missing or damaged so that its rows cannot be read.
    async fn open(old: &OldNamespace) -> Result<Option<Self>, StoreError> {
        let slate = slate(&old.home.index);
        let store = || old.home.index.object_store();
        match inspect(store(), "meta", &slate, &[]).await? {
            Inspection::Whole(_) => {}
            Inspection::Absent => return Ok(None),
            // Without the end of its write-ahead log an index has an older state.
            Inspection::Damaged(bad) if bad.iter().all(|object| object.key.contains("/wal/")) => {
                if bad.iter().any(|object| !object.is_missing()) {
                    return Ok(None);
                }
            }
            Inspection::Damaged(_) => return Ok(None),
        }
        let follower = match SlateFollower::open(store(), "meta", &slate, NEVER).await {
            Ok(follower) => follower,
            Err(error) => return unreadable(error.into()).map(|()| None),
        };
        let applied = match follower.get(&keys::applied()).await {
            Ok(Some(row)) => Bytes::copy_from_slice(&row),
            Ok(None) => return Ok(None),
            Err(error) => return unreadable(error.into()).map(|()| None),
        };
        match AppliedTable::decode(&applied) {
            Ok(row) => Ok(Some(Self {
                follower,
                newest: row.batch,
                applied,
            })),
            Err(error) => unreadable(error).map(|()| None),
        }
    }

    /// Adds all rows to `rows`. Returns `None` if some cannot be read.
    async fn rows(
        &self,
        mut rows: SortedRows,
        step: &(impl Fn(RebuildStep) + Sync),
    ) -> Result<Option<SortedRows>, StoreError> {
        let all = Bytes::from_static(b"C")..Bytes::from_static(b"I");
        let mut scan: Box<dyn RowScan> = match self.follower.scan(all).await {
            Ok(scan) => scan,
            Err(error) => return unreadable(error.into()).map(|()| None),
        };
        let mut count = 0_u64;
        loop {
            let (key, value) = match scan.next().await {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(Some(rows)),
                Err(error) => return unreadable(error.into()).map(|()| None),
            };
            // Copies, because the row may share its memory with a block of the index.
            let value = Change::Put(Bytes::copy_from_slice(&value));
            rows.add(Bytes::copy_from_slice(&key), value)?;
            count += 1;
            if count.is_multiple_of(ROWS_TOLD) {
                step(RebuildStep::Index(count));
            }
        }
    }

    async fn close(&self) {
        if let Err(error) = self.follower.close().await {
            tracing::debug!(%error, "the old index ended before it was closed");
        }
    }
}

/// Returns `Ok` for an error that means that the index cannot be read; an outage is an error.
fn unreadable(error: StoreError) -> Result<(), StoreError> {
    match error {
        StoreError::Unavailable(_) => Err(error),
        other => {
            tracing::warn!(error = %other, "the old index cannot be read");
            Ok(())
        }
    }
}
