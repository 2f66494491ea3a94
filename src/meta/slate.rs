//! The index on the bucket: one SlateDB database per namespace.
//!
//! Invariant: an outage is never fatal. Inside the engine a failed upload that is given up ends the writer for good, so
//! the engine retries for ever, and patience has its limits out here: opening, reads and flushes give up after a deadline
//! with [`MetaError::Unavailable`] while the engine goes on trying, and the same calls succeed once the store is back.
//! Fixed at creation and never to change: the segment extractor (first key byte), the merge function, zstd.

use self::checksum::DamagedObject;
use self::connect::{OpenWatch, connect};
use self::row_layout::{FirstByteSegments, RowMerge};
use super::commit::FlushCoordinator;
use super::error::chain;
use super::{Batch, Change, Commit, MergeFn, MetaError, MetaRead, MetaState, MetaStore, RowScan};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::task::Tasks;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use slatedb::config::{
    CloseOptions, CompactionWorkerOptions, CompactorOptions, CompressionCodec, FlushType,
    GarbageCollectorDirectoryOptions, GarbageCollectorOptions, ObjectStoreCacheOptions,
    ReadOptions, ScanOptions, SstBlockSize,
};
use slatedb::db_cache::foyer::{FoyerCache, FoyerCacheOptions};
use slatedb::db_cache::{DbCache, SplitCache};
use slatedb::{CloseReason, Db, DbIterator, DbSnapshot, DbStatus, ErrorKind, Settings, WriteBatch};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

mod checksum;
mod connect;
mod follow;
mod inspect;
mod read_window;
mod reason;
mod row_layout;
mod tables;
mod verified;
mod wal;

pub use follow::SlateFollower;
pub use inspect::{BadObject, Inspection, LastWriterState, LoggedPut, inspect};
use reason::FailureReason;
pub use reason::Reason;

/// How long an open may take in all: a log of 400,000 rows over a slow store replays within a second.
const OPEN_DEADLINE: Duration = Duration::from_secs(120);

/// How long the engine's tasks may take to end; one that waits to try again does so for up to two seconds.
const CLOSE_DEADLINE: Duration = Duration::from_secs(30);

/// How long the engine's status may lag behind the errors of its calls.
const STATUS_LAG: Duration = Duration::from_secs(1);

/// Interval of the engine's background flush, for commits without a waiting caller. Without new commits, no request.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// How long objects of the index stay at most that none of its states needs.
const COLLECT_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// The same for its log, whose rows are in tables by then.
const WAL_COLLECT_AFTER_MAX: Duration = Duration::from_secs(60);

/// How often the engine looks for such objects: as it does by itself, or as often as they are to go.
const COLLECT_EVERY_MIN: Duration = Duration::from_secs(1);
const COLLECT_EVERY_MAX: Duration = Duration::from_secs(300);

/// What one request of a scan fetches; at the engine's default, one request per block, a cold directory of 10,000
/// entries takes seven seconds instead of fifty milliseconds.
const SCAN_AHEAD: usize = 1024 * 1024;

/// Tables smaller than this many rows carry no filter.
const FILTER_KEYS_MIN: u32 = 100;

/// A cache of the index's objects on a local disk.
#[derive(Debug, Clone)]
pub struct DiskCache {
    /// Where it lies; nothing else lies there.
    pub dir: PathBuf,
    /// How much it may hold, in bytes.
    pub bytes: usize,
}

/// How an index is opened. The memory budgets add up to about 200 MiB with what compaction needs.
#[derive(Clone)]
pub struct SlateConfig {
    /// How values merge; the same for every open of an index, for ever.
    pub merge: MergeFn,
    /// The object store is a local directory, which has no conditional overwrite.
    pub local: bool,
    /// Memory for blocks of rows, in bytes.
    pub block_cache_bytes: u64,
    /// Memory for table indexes and filters, in bytes; about 2 MB per million rows.
    pub meta_cache_bytes: u64,
    /// Rows that may wait in memory for their upload, in bytes; writers wait beyond.
    pub unflushed_bytes: usize,
    /// The disk cache, if there is one.
    pub disk_cache: Option<DiskCache>,
    /// How long objects stay that no state of the index needs; at most the engine's own day.
    pub collect_after: Duration,
    /// How long a read or a flush may take before it is called unavailable.
    pub deadline: Duration,
    /// Tells why the object store fails, for the message of a call that took too long.
    pub reason: Option<Reason>,
}

impl SlateConfig {
    /// Makes the default configuration around a merge function.
    #[must_use]
    pub fn new(merge: MergeFn) -> Self {
        Self {
            merge,
            local: false,
            block_cache_bytes: 64 << 20,
            meta_cache_bytes: 32 << 20,
            unflushed_bytes: 64 << 20,
            disk_cache: None,
            collect_after: COLLECT_AFTER_MAX,
            deadline: Duration::from_secs(30),
            reason: None,
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            flush_interval: Some(FLUSH_INTERVAL),
            manifest_update_timeout: OPEN_DEADLINE,
            min_filter_keys: FILTER_KEYS_MIN,
            l0_sst_size_bytes: (self.unflushed_bytes / 4).max(1 << 20),
            max_unflushed_bytes: self.unflushed_bytes.max(4 << 20),
            l0_max_ssts: 16,
            l0_max_ssts_per_key: 16,
            l0_flush_parallelism: 2,
            compression_codec: Some(CompressionCodec::Zstd),
            object_store_max_retries: None,
            compactor_options: Some(CompactorOptions {
                max_concurrent_compactions: 2,
                enable_trivial_move: true,
                worker: Some(CompactionWorkerOptions {
                    max_concurrent_compactions: 2,
                    max_subcompactions: 2,
                    max_sst_size: 64 << 20,
                    max_fetch_tasks: 2,
                    bytes_to_fetch: 1 << 20,
                    min_filter_keys: FILTER_KEYS_MIN,
                    compression_codec: Some(CompressionCodec::Zstd),
                    ..CompactionWorkerOptions::default()
                }),
                ..CompactorOptions::default()
            }),
            garbage_collector_options: Some(GarbageCollectorOptions {
                manifest_options: self.collected(COLLECT_AFTER_MAX),
                wal_options: self.collected(WAL_COLLECT_AFTER_MAX),
                compacted_options: self.collected(COLLECT_AFTER_MAX),
                compactions_options: self.collected(COLLECT_AFTER_MAX),
                boundary_files_enabled: !self.local,
                // Fences are kept for ever: removing one could let a writer that slept for long lose data unnoticed.
                wal_fence_options: None,
                ..GarbageCollectorOptions::default()
            }),
            object_store_cache_options: self.disk_cache_options(),
            ..Settings::default()
        }
    }

    /// How often and from which age on objects of one kind are collected.
    fn collected(&self, max: Duration) -> Option<GarbageCollectorDirectoryOptions> {
        let min_age = self.collect_after.min(max);
        Some(GarbageCollectorDirectoryOptions {
            interval: Some(min_age.clamp(COLLECT_EVERY_MIN, COLLECT_EVERY_MAX)),
            min_age,
            dry_run: false,
        })
    }

    fn disk_cache_options(&self) -> ObjectStoreCacheOptions {
        let defaults = ObjectStoreCacheOptions::default();
        match &self.disk_cache {
            None => defaults,
            Some(cache) => ObjectStoreCacheOptions {
                root_folder: Some(cache.dir.clone()),
                max_cache_size_bytes: Some(cache.bytes),
                // A part is what one small miss fetches; the default is 4 MiB.
                part_size_bytes: 256 * 1024,
                cache_on_flush: true,
                ..defaults
            },
        }
    }

    fn memory_cache(&self) -> Arc<dyn DbCache> {
        let of = |max_capacity| -> Option<Arc<dyn DbCache>> {
            let shards = 4;
            Some(Arc::new(FoyerCache::new_with_opts(FoyerCacheOptions {
                max_capacity,
                shards,
            })))
        };
        let split = SplitCache::new()
            .with_block_cache(of(self.block_cache_bytes))
            .with_meta_cache(of(self.meta_cache_bytes));
        Arc::new(split.build())
    }
}

/// The one writer of an index on the bucket.
pub struct SlateStore {
    db: Db,
    epoch: u64,
    /// The newest commit, for empty batches.
    newest: AtomicU64,
    tables: tables::TableWriter,
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
    /// Opens the index under `path` of the object store as its one writer, fencing an earlier one; creates it if there
    /// is none. Must run inside a tokio runtime, whose tasks the engine uses until [`MetaStore::close`].
    ///
    /// # Errors
    /// `Unavailable` within seconds when the object store cannot be listed; `Corrupt` for an index of another make;
    /// `Fenced` when a third writer was faster.
    pub async fn open(
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
        let watch = OpenWatch::new(config);
        let (place, object_store) = connect(object_store, path, config, &watch).await?;
        let building = Db::builder(place, object_store)
            .with_settings(settings)
            .with_sst_block_size(SstBlockSize::Block16Kib)
            .with_db_cache(config.memory_cache(), 0)
            .with_merge_operator(Arc::new(RowMerge(config.merge)))
            .with_segment_extractor(Arc::new(FirstByteSegments))
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
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        Ok(Self {
            epoch: db.manifest().writer_epoch(),
            newest: AtomicU64::new(status.durable().0),
            tables: tables::TableWriter::keep(&db, watch.wal, tasks),
            merge: config.merge,
            deadline: config.deadline,
            coordinator: coordinator(&db, &status, config.deadline),
            status,
            db,
        })
    }

    fn newest(&self) -> Commit {
        Commit(self.newest.load(Ordering::Acquire))
    }
}

fn coordinator(db: &Db, status: &EngineStatus, deadline: Duration) -> FlushCoordinator {
    let reached = status.clone();
    let (db, status) = (db.clone(), status.clone());
    FlushCoordinator::new(
        Box::new(move || reached.durable()),
        Box::new(move || {
            let (db, status) = (db.clone(), status.clone());
            Box::pin(async move { status.patient("a flush", deadline, db.flush()).await })
        }),
    )
}

/// The engine's account of itself.
#[derive(Clone)]
struct EngineStatus {
    told: watch::Receiver<DbStatus>,
    why: FailureReason,
}

impl EngineStatus {
    fn new(told: watch::Receiver<DbStatus>, config: &SlateConfig) -> Self {
        let why = config.reason.clone().into();
        Self { told, why }
    }

    fn durable(&self) -> Commit {
        Commit(self.told.borrow().durable_seq)
    }

    fn state(&self) -> MetaState {
        match self.told.borrow().close_reason {
            None => MetaState::Open,
            Some(CloseReason::Fenced) => MetaState::Fenced,
            Some(CloseReason::Clean) => MetaState::Closed,
            Some(other) => MetaState::Failed(format!("the engine stopped: {other:?}")),
        }
    }

    /// Names an error by what the caller can do, which depends on whether the engine is still there.
    async fn name(&self, error: slatedb::Error) -> MetaError {
        if matches!(error.kind(), ErrorKind::Closed(_)) {
            // A call can fail before the status changes; a caller that gets `Fenced` must also find it in the status.
            let _ = timeout(STATUS_LAG, self.ended()).await;
        }
        match (classify(&error), self.state()) {
            (MetaError::Unavailable(text), MetaState::Closed | MetaState::Failed(_)) => {
                MetaError::Closed(text)
            }
            (named, _) => named,
        }
    }

    /// Waits until the engine has stopped.
    async fn ended(&self) {
        let mut status = self.told.clone();
        // An error means that the engine is gone altogether; the last status says why.
        drop(
            status
                .wait_for(|status| status.close_reason.is_some())
                .await,
        );
    }

    /// Awaits an engine's call for as long as `deadline`.
    async fn patient<T>(
        &self,
        what: &str,
        deadline: Duration,
        call: impl Future<Output = Result<T, slatedb::Error>> + Send,
    ) -> Result<T, MetaError> {
        match timeout(deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.name(error).await),
            Err(_) => Err(self.why.late(what, deadline)),
        }
    }
}

fn classify(error: &slatedb::Error) -> MetaError {
    let text = chain(error);
    if DamagedObject::find(error).is_some() {
        return MetaError::Corrupt(text);
    }
    match error.kind() {
        ErrorKind::Transaction => MetaError::Conflict(text),
        ErrorKind::Unavailable => MetaError::Unavailable(text),
        ErrorKind::Closed(CloseReason::Fenced) => MetaError::Fenced(text),
        ErrorKind::Closed(_) => MetaError::Closed(text),
        _ => MetaError::Corrupt(text),
    }
}

/// Two that open an index at the same moment write the same manifest; the engine calls what the slower one gets damage.
fn lost_race(error: MetaError) -> MetaError {
    match error {
        MetaError::Corrupt(text) if text.contains("version already exists") => {
            MetaError::Fenced(text)
        }
        other => other,
    }
}

/// Says why a store in `state` does nothing any more.
fn refuse(state: MetaState) -> Result<(), MetaError> {
    match state {
        MetaState::Open => Ok(()),
        MetaState::Fenced => Err(MetaError::Fenced("a newer writer is open".to_owned())),
        MetaState::Closed => Err(MetaError::Closed("closed on request".to_owned())),
        MetaState::Failed(text) => Err(MetaError::Closed(text)),
    }
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
        self.status.patient("a read", self.deadline, call).await
    }

    async fn scan(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        let options = scan_options();
        let rows = if range.start < range.end {
            let call = self.db.scan_with_options(range, &options);
            Some(self.status.patient("a scan", self.deadline, call).await?)
        } else {
            None
        };
        Ok(Box::new(SlateScan::new(rows, &self.status, self.deadline)))
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
        // No deadline: a commit that was given up might still be applied, and its caller could not know.
        let handle = match self.db.write(rows).await {
            Ok(handle) => handle,
            Err(error) => return Err(self.status.name(error).await),
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
            Err(error) => return Err(self.status.name(error).await),
        };
        Ok(Arc::new(SlateSnapshot {
            rows,
            status: self.status.clone(),
            deadline: self.deadline,
        }))
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
            // Through the coordinator, because the engine gives up its rows once it is asked to close.
            MetaState::Open => {
                self.durable(self.newest()).await?;
                self.tables.settle(&self.db).await;
            }
            MetaState::Fenced | MetaState::Failed(_) => {}
        }
        // What is in memory is in the engine's log too, and little of it: the next open replays it faster than it opens
        // tables.
        let options = CloseOptions::default().with_flush_type(Some(FlushType::Wal));
        match timeout(CLOSE_DEADLINE, self.db.close_with_options(options)).await {
            // An engine that had stopped closes without a flush: what was not durable then is not durable now.
            Ok(Ok(())) => refuse(before),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) => Err(self.status.why.late("closing", CLOSE_DEADLINE)),
        }
    }
}

/// A view that later commits do not change.
struct SlateSnapshot {
    rows: Arc<DbSnapshot>,
    status: EngineStatus,
    deadline: Duration,
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
        self.status.patient("a read", self.deadline, call).await
    }

    async fn scan(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        let options = scan_options();
        let rows = if range.start < range.end {
            let call = self.rows.scan_with_options(range, &options);
            Some(self.status.patient("a scan", self.deadline, call).await?)
        } else {
            None
        };
        Ok(Box::new(SlateScan::new(rows, &self.status, self.deadline)))
    }
}

/// A scan under way; `rows` is `None` for an empty range, which the engine refuses.
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
            .patient("a scan", self.deadline, rows.next())
            .await?;
        Ok(row.map(|row| (row.key, row.value)))
    }
}

#[cfg(test)]
mod tests;
