//! The writes of tables from the engine's write-ahead log.
//!
//! An open replays the objects of the log whose rows are in no table, with separate requests for each. The engine alone lets
//! 4,096 of them accumulate, and each fsync that shares no flush adds one. So a task writes tables whenever [`OBJECTS_MAX`]
//! objects have accumulated, and a close leaves few small ones.
//! Invariant: no tables are written while [`YOUNG_MAX`] young tables wait for compaction, because the engine would soon stop
//! commits.

use super::connect::EngineTasks;
use super::timeout;
use super::wal::Wal;
use crate::meta::Batch;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::task::Tasks;
use slatedb::config::{FlushOptions, FlushType};
use slatedb::{Db, VersionedManifest};
use std::time::Duration;

/// The number of objects of the log without tables at which tables are written. A mount reads as many in a few round trips. The
/// number doubles with every [`YOUNG_STEP`] young tables, so that compaction can keep up.
const OBJECTS_MAX: u64 = 256;

/// The number of young tables of one part of the index that doubles [`OBJECTS_MAX`].
const YOUNG_STEP: u32 = 4;

/// The number of objects of the log that a close may leave; to open the tables instead takes more requests.
const OBJECTS_LEFT: u64 = 16;

/// The bytes of rows, committed or replayed since the open, from which a close writes tables.
const MUCH: u64 = 1 << 20;

/// The number of young tables of one part of the index from which no more are written; at 16 the engine stops commits.
const YOUNG_MAX: u32 = 12;

/// The time limit of these writes at a close. The next open replays the rest.
const DEADLINE: Duration = Duration::from_secs(5);

/// The task that writes tables, and the size of the rows that may be in no table.
#[derive(Debug)]
pub(super) struct TableWriter {
    wal: Arc<Wal>,
    committed: AtomicU64,
    tasks: EngineTasks,
}

impl TableWriter {
    /// Starts the task that keeps the log of `db` short. All of `tasks` end with the result.
    pub(super) fn keep(db: &Db, wal: Arc<Wal>, tasks: EngineTasks) -> Self {
        let work = keep_short(db.clone(), Arc::clone(&wal), tasks.0.clone());
        drop(tasks.0.spawn("tables", work));
        Self {
            wal,
            committed: AtomicU64::new(0),
            tasks,
        }
    }

    /// Counts a batch that is committed.
    pub(super) fn add(&self, batch: &Batch) {
        self.committed
            .fetch_add(batch.bytes() as u64, Ordering::Relaxed);
    }

    /// Stops the task before a close, and writes tables if the next open would replay many rows.
    pub(super) async fn finish(&self, db: &Db) {
        self.tasks.0.stop();
        let bytes = self.committed.load(Ordering::Relaxed) + self.wal.bytes_read();
        if bytes < MUCH && untabled(&db.manifest(), &self.wal) <= OBJECTS_LEFT {
            return;
        }
        if timeout(DEADLINE, write(db)).await.is_err() {
            tracing::debug!("tables were not written in time");
        }
    }
}

/// The number of objects of the log that the next open would read.
fn untabled(manifest: &VersionedManifest, wal: &Wal) -> u64 {
    wal.objects_after(manifest.replay_after_wal_id())
}

/// The number of young tables of the part of the index that has most of them.
fn young(manifest: &VersionedManifest) -> u32 {
    let segments = manifest.segments().iter();
    let most = segments.map(|segment| segment.l0().len()).max();
    most.unwrap_or(0).try_into().unwrap_or(u32::MAX)
}

/// Tells whether to write tables, for a number of objects of the log without tables and a number of young tables.
fn is_due(objects: u64, young: u32) -> bool {
    young < YOUNG_MAX && objects >= OBJECTS_MAX << (young / YOUNG_STEP)
}

async fn keep_short(db: Db, wal: Arc<Wal>, tasks: Tasks) {
    loop {
        let manifest = db.manifest();
        if is_due(untabled(&manifest, &wal), young(&manifest)) {
            tokio::select! {
                () = write(&db) => {}
                () = tasks.stopped() => return,
            }
        }
        tokio::select! {
            () = wal.grown() => {}
            () = tasks.stopped() => return,
        }
    }
}

async fn write(db: &Db) {
    let flush_type = FlushType::MemTable;
    if let Err(error) = db.flush_with_options(FlushOptions { flush_type }).await {
        tracing::debug!(%error, "tables were not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_written_more_rarely_the_more_wait_for_compaction() {
        assert!(is_due(256, 0) && is_due(256, 3) && !is_due(255, 3));
        assert!(is_due(512, 4) && !is_due(511, 7));
        assert!(is_due(1024, 8) && is_due(1024, 11) && !is_due(1023, 8));
        assert!(!is_due(u64::MAX, 12) && !is_due(u64::MAX, u32::MAX));
    }
}
