//! When rows go from the engine's write-ahead log into tables.
//!
//! Every open replays the objects of the log whose rows no table has, each with requests of its own. The engine by itself
//! lets 4,096 of them accumulate, and each fsync that shares no flush with another adds one. So a task here writes tables
//! whenever [`OBJECTS_MAX`] have accumulated, and a close leaves only a few small ones.
//! Invariant: no more tables are written while so many young ones wait for compaction that the engine would soon make
//! writers wait ([`YOUNG_MAX`]).

use super::timeout;
use super::wal::Wal;
use crate::meta::Batch;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::task::Tasks;
use slatedb::config::{FlushOptions, FlushType};
use slatedb::{Db, VersionedManifest};
use std::time::Duration;

/// Objects of the log that no table has, before tables are written while the index is in use. A mount reads as many in a
/// few round trips. It is twice as many after each [`YOUNG_STEP`] young tables, so that compaction can keep up.
const OBJECTS_MAX: u64 = 256;

/// Young tables of one part of the index that double [`OBJECTS_MAX`].
const YOUNG_STEP: u32 = 4;

/// Objects of the log that a close leaves: fewer than the requests of opening the tables instead.
const OBJECTS_LEFT: u64 = 16;

/// Rows of so many bytes, committed or replayed since the open, are written as tables at a close.
const MUCH: u64 = 1 << 20;

/// Young tables that one part of the index may have for more to be written; at 16 the engine stops writers.
const YOUNG_MAX: u32 = 12;

/// How long a close may take for it. What is not written then is replayed.
const DEADLINE: Duration = Duration::from_secs(5);

/// Rows that are in the log and perhaps in no table.
#[derive(Debug)]
pub(super) struct TableWriter {
    wal: Arc<Wal>,
    committed: AtomicU64,
    tasks: Tasks,
}

impl Drop for TableWriter {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl TableWriter {
    /// Keeps the log of `db` short from now on, in a task of its own.
    pub(super) fn keep(db: &Db, wal: Arc<Wal>, tasks: Tasks) -> Self {
        let work = keep_short(db.clone(), Arc::clone(&wal), tasks.clone());
        drop(tasks.spawn("tables", work));
        Self {
            wal,
            committed: AtomicU64::new(0),
            tasks,
        }
    }

    /// `batch` is committed.
    pub(super) fn add(&self, batch: &Batch) {
        self.committed
            .fetch_add(batch.bytes() as u64, Ordering::Relaxed);
    }

    /// Before a close: stops the task, and writes tables if the next open would have much to replay.
    pub(super) async fn settle(&self, db: &Db) {
        self.tasks.stop();
        let bytes = self.committed.load(Ordering::Relaxed) + self.wal.bytes_read();
        if bytes < MUCH && untabled(&db.manifest(), &self.wal) <= OBJECTS_LEFT {
            return;
        }
        if timeout(DEADLINE, write(db)).await.is_err() {
            tracing::debug!("tables were not written in time");
        }
    }
}

/// Objects of the log that the next open would read.
fn untabled(manifest: &VersionedManifest, wal: &Wal) -> u64 {
    wal.objects_after(manifest.replay_after_wal_id())
}

/// Young tables of the part of the index that has most.
fn young(manifest: &VersionedManifest) -> u32 {
    let segments = manifest.segments().iter();
    let most = segments.map(|segment| segment.l0().len()).max();
    most.unwrap_or(0).try_into().unwrap_or(u32::MAX)
}

/// Whether tables are to be written, with so many objects of the log that no table has.
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
