//! The index in the bucket: one SlateDB database per namespace.
//!
//! Invariant: an outage of the store never ends a writer. The engine closes for good when an upload fails after its last retry,
//! so it is configured to retry without limit. The deadlines are here: an open, a read or a flush returns
//! [`MetaError::Unavailable`] after a deadline while the engine continues to retry, and later calls succeed when the store is
//! back. The segment extractor (first key byte), the merge function and zstd must never change for an existing index.

use self::config::OPEN_DEADLINE;
use self::connect::{EngineRole, EngineTasks, OpenWatch, connect};
use self::engine_clock::EngineClock;
use self::reason::FailureReason;
use self::row_layout::{FirstByteSegments, RowMerge};
use self::status::{EngineStatus, classify, lost_race};
use self::window_files::WindowFiles;
use super::group_flush::FlushCoordinator;
use super::{
    Batch, Change, Commit, MergeFn, MetaError, MetaRead, MetaState, MetaStore, ReplacedObjects,
    RowScan,
};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::task::Tasks;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use slatedb::config::{
    CloseOptions, FlushOptions, FlushType, ReadOptions, ScanOptions, SstBlockSize,
};
use slatedb::{Db, DbIterator, DbSnapshot, Settings, WriteBatch};
use std::ops::Range;
use std::time::Duration;
use tokio::time::timeout;

mod checksum;
mod config;
mod connect;
mod deletions;
mod engine_clock;
mod follow;
mod inspect;
mod log_probes;
mod polls;
mod read_window;
mod reason;
mod rewrite;
mod row_cache;
mod row_layout;
mod status;
mod tables;
mod verified;
mod wal;
mod window;
mod window_files;

pub(crate) use config::SlateConfig;
pub(crate) use follow::SlateFollower;
pub(crate) use inspect::{BadObject, Inspection, LastWriterState, inspect};
pub(crate) use reason::Reason;
pub(crate) use window_files::TableDisk;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use {verified::fuzz_object, window_files::fuzz_window};

/// The time limit of the engine's shutdown; a task in the pause before a retry ends after up to two seconds.
const CLOSE_DEADLINE: Duration = Duration::from_secs(30);

/// The bytes that one request of a scan reads. With the engine's default of one request per block, the listing of a directory
/// with 10,000 entries that are not cached takes seven seconds instead of fifty milliseconds.
const SCAN_AHEAD: usize = 1024 * 1024;

/// The only writer of an index in the bucket.
pub(crate) struct SlateStore {
    db: Db,
    epoch: u64,
    /// The newest commit, which an empty batch returns.
    newest: AtomicU64,
    tables: tables::TableWriter,
    rewriter: rewrite::Rewriter,
    merge: MergeFn,
    deadline: Duration,
    status: EngineStatus,
    coordinator: FlushCoordinator,
}

impl std::fmt::Debug for SlateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlateStore")
            .field("epoch", &self.epoch)
            .field("newest", &self.newest)
            .field("state", &self.state())
            .field("coordinator", &self.coordinator)
            .finish_non_exhaustive()
    }
}

impl SlateStore {
    /// Opens the index under `path` of the object store as its only writer, and fences an earlier writer. Creates the index if
    /// there is none. Must be called in a tokio runtime, on which the engine runs tasks until [`MetaStore::close`].
    ///
    /// # Errors
    /// `Unavailable` within seconds if the object store cannot be listed; `Corrupt` if the index was not written by this
    /// program; `Fenced` if another writer opened it at the same time.
    pub(crate) async fn open(
        object_store: Arc<dyn ObjectStore>,
        path: &str,
        config: SlateConfig,
    ) -> Result<Self, MetaError> {
        Self::open_with(object_store, path, &config, config.settings()).await
    }

    async fn open_with(
        object_store: Arc<dyn ObjectStore>,
        path: &str,
        config: &SlateConfig,
        settings: Settings,
    ) -> Result<Self, MetaError> {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let ends = EngineTasks(tasks.clone());
        let mut watch = OpenWatch::new(config, EngineRole::Writer(tasks.clone()));
        if let (Some(place), false) = (config.tables.clone(), config.local) {
            watch.tables = WindowFiles::open(place, tasks.clone()).await;
        }
        let (place, object_store) = connect(object_store, path, config, &watch).await?;
        let building = Db::builder(place.clone(), Arc::clone(&object_store))
            .with_settings(settings)
            .with_sst_block_size(SstBlockSize::Block16Kib)
            .with_db_cache(config.memory_cache(), 0)
            .with_merge_operator(Arc::new(RowMerge(config.merge)))
            .with_segment_extractor(Arc::new(FirstByteSegments))
            .with_system_clock(Arc::new(EngineClock::after(config.opening.newest_tick())))
            .build();
        let db = match timeout(OPEN_DEADLINE, building).await {
            Ok(built) => built.map_err(|error| lost_race(classify(&error)))?,
            Err(_) => {
                return Err(
                    FailureReason::from(config.reason.clone()).late("opening", OPEN_DEADLINE)
                );
            }
        };
        watch.opened.set();
        watch.wal.replayed();
        let status = EngineStatus::new(db.subscribe(), config);
        let (local, deadline) = (config.local, OPEN_DEADLINE);
        let rewriter = rewrite::Rewriter::new(place, object_store, local, status.clone(), deadline);
        Ok(Self {
            rewriter,
            epoch: db.manifest().writer_epoch(),
            newest: AtomicU64::new(status.durable().0),
            tables: tables::TableWriter::keep(&db, watch.wal, ends),
            merge: config.merge,
            deadline: config.deadline,
            coordinator: coordinator(&db, &status, config.deadline),
            status,
            db,
        })
    }

    /// Writes all committed rows as tables, so that the next open reads none of them from the write-ahead log.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`, `Closed`; the rows are in the log in any case, if they are durable.
    pub(crate) async fn write_tables(&self) -> Result<(), MetaError> {
        let flush_type = FlushType::MemTable;
        let call = self.db.flush_with_options(FlushOptions { flush_type });
        self.status
            .within("a flush of tables", OPEN_DEADLINE, call)
            .await
    }

    fn newest(&self) -> Commit {
        Commit(self.newest.load(Ordering::Acquire))
    }

    async fn scan_with(
        &self,
        range: Range<Bytes>,
        options: ScanOptions,
    ) -> Result<Box<dyn RowScan>, MetaError> {
        let rows = if range.start < range.end {
            let call = self.db.scan_with_options(range, &options);
            Some(self.status.within("a scan", self.deadline, call).await?)
        } else {
            None
        };
        Ok(Box::new(SlateScan::new(rows, &self.status, self.deadline)))
    }
}

fn coordinator(db: &Db, status: &EngineStatus, deadline: Duration) -> FlushCoordinator {
    let reached = status.clone();
    let (db, status) = (db.clone(), status.clone());
    FlushCoordinator::new(
        Box::new(move || reached.durable()),
        Box::new(move || {
            let (db, status) = (db.clone(), status.clone());
            Box::pin(async move { status.within("a flush", deadline, db.flush()).await })
        }),
    )
}

/// Returns the error of a store that is not open.
fn refuse(state: MetaState) -> Result<(), MetaError> {
    match state {
        MetaState::Open => Ok(()),
        MetaState::Fenced => Err(MetaError::Fenced("a newer writer is open".to_owned())),
        MetaState::Closed => Err(MetaError::Closed("closed on request".to_owned())),
        MetaState::Failed(text) => Err(MetaError::Closed(text)),
    }
}

/// A scan that reads one block at a time. The blocks of a scan that reads ahead are looked up in the cache, or fetched, in every table
/// of the index, whether the caller wants more than the first row or not.
fn seek_options() -> ScanOptions {
    ScanOptions::default().with_cache_blocks(true)
}

fn scan_options() -> ScanOptions {
    ScanOptions::default()
        .with_read_ahead_bytes(SCAN_AHEAD)
        .with_max_fetch_tasks(4)
        .with_cache_blocks(true)
}

#[async_trait]
impl MetaRead for SlateStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        let options = ReadOptions::default();
        let call = self.db.get_with_options(key, &options);
        self.status.within("a read", self.deadline, call).await
    }

    async fn scan(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        self.scan_with(range, scan_options()).await
    }

    async fn seek(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        self.scan_with(range, seek_options()).await
    }
}

#[async_trait]
impl MetaStore for SlateStore {
    async fn commit(&self, batch: Batch) -> Result<Commit, MetaError> {
        batch.check()?;
        if batch.is_empty() {
            refuse(self.state())?;
            return Ok(self.newest());
        }
        self.tables.add(&batch);
        let mut rows = WriteBatch::new();
        for (key, change) in batch.fold(self.merge) {
            match change {
                Change::Put(value) => rows.put_bytes(key, value),
                Change::Delete => rows.delete(key),
                Change::Merge(operand) => rows.merge(key, operand),
            }
        }
        // Without a deadline: a commit could still be applied after it, and the caller would not know.
        let handle = match self.db.write(rows).await {
            Ok(handle) => handle,
            Err(error) => return Err(self.status.classify(error).await),
        };
        self.newest.fetch_max(handle.seqnum(), Ordering::AcqRel);
        Ok(Commit(handle.seqnum()))
    }

    async fn durable(&self, commit: Commit) -> Result<(), MetaError> {
        self.coordinator.durable(commit).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn MetaRead>, MetaError> {
        let rows = match self.db.snapshot() {
            Ok(rows) => rows,
            Err(error) => return Err(self.status.classify(error).await),
        };
        Ok(Arc::new(SlateSnapshot {
            rows,
            status: self.status.clone(),
            deadline: self.deadline,
        }))
    }

    async fn rewrite(&self, parts: &[u8]) -> Result<ReplacedObjects, MetaError> {
        refuse(self.state())?;
        self.rewriter.rewrite(&self.db, parts).await
    }

    async fn delete_replaced(
        &self,
        parts: &[u8],
        replaced: &ReplacedObjects,
    ) -> Result<ReplacedObjects, MetaError> {
        refuse(self.state())?;
        self.rewriter
            .delete_replaced(&self.db, parts, replaced)
            .await
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn state(&self) -> MetaState {
        self.status.state()
    }

    async fn ended(&self) -> MetaState {
        self.status.ended().await;
        self.state()
    }

    async fn close(&self) -> Result<(), MetaError> {
        let before = self.state();
        match before {
            MetaState::Closed => return Ok(()),
            // Before the close, because the engine drops its rows when it closes.
            MetaState::Open => {
                self.durable(self.newest()).await?;
                self.tables.finish(&self.db).await;
            }
            MetaState::Fenced | MetaState::Failed(_) => {}
        }
        // The rows in memory are also in the engine's log. They are few, and the next open replays them faster than it opens
        // tables.
        let options = CloseOptions::default().with_flush_type(Some(FlushType::Wal));
        match timeout(CLOSE_DEADLINE, self.db.close_with_options(options)).await {
            // An engine that had stopped closes without a flush, so its last commits are lost.
            Ok(Ok(())) => refuse(before),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) => Err(self.status.why.late("closing", CLOSE_DEADLINE)),
        }
    }
}

/// A snapshot, which later commits do not change.
struct SlateSnapshot {
    rows: Arc<DbSnapshot>,
    status: EngineStatus,
    deadline: Duration,
}

impl SlateSnapshot {
    async fn scan_with(
        &self,
        range: Range<Bytes>,
        options: ScanOptions,
    ) -> Result<Box<dyn RowScan>, MetaError> {
        let rows = if range.start < range.end {
            let call = self.rows.scan_with_options(range, &options);
            Some(self.status.within("a scan", self.deadline, call).await?)
        } else {
            None
        };
        Ok(Box::new(SlateScan::new(rows, &self.status, self.deadline)))
    }
}

impl std::fmt::Debug for SlateSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlateSnapshot")
            .field("commit", &self.rows.seq())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl MetaRead for SlateSnapshot {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        let options = ReadOptions::default();
        let call = self.rows.get_with_options(key, &options);
        self.status.within("a read", self.deadline, call).await
    }

    async fn scan(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        self.scan_with(range, scan_options()).await
    }

    async fn seek(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        self.scan_with(range, seek_options()).await
    }
}

/// A scan under way; `rows` is `None` for an empty range, for which the engine returns an error.
struct SlateScan {
    rows: Option<DbIterator>,
    status: EngineStatus,
    deadline: Duration,
}

impl SlateScan {
    fn new(rows: Option<DbIterator>, status: &EngineStatus, deadline: Duration) -> Self {
        Self {
            rows,
            status: status.clone(),
            deadline,
        }
    }
}

#[async_trait]
impl RowScan for SlateScan {
    async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, MetaError> {
        let Some(rows) = &mut self.rows else {
            return Ok(None);
        };
        let row = self
            .status
            .within("a scan", self.deadline, rows.next())
            .await?;
        Ok(row.map(|row| (row.key, row.value)))
    }
}

#[cfg(test)]
mod tests;
