//! The configuration of an index, and the settings of the engine that follow from it.

use super::polls::KeptAnswers;
use super::read_window::WindowTable;
use super::reason::Reason;
use super::row_cache::RowCache;
use super::window_files::TableDisk;
use crate::meta::MergeFn;
use crate::sync::{Arc, AtomicBool, AtomicI64, Ordering};
use slatedb::Settings;
use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, CompressionCodec, GarbageCollectorDirectoryOptions,
    GarbageCollectorOptions,
};
use slatedb::db_cache::DbCache;
use std::time::Duration;

/// The time limit of an open. For scale: the replay of a log of 400,000 rows from a slow store takes a second.
pub(super) const OPEN_DEADLINE: Duration = Duration::from_secs(120);

/// The interval of the engine's background flush, for commits without a waiting caller. It sends no request without commits.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// The upper bound of the age at which unreferenced objects of the index are deleted.
const COLLECT_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// The same for objects of the write-ahead log, whose rows are in tables by then.
const WAL_COLLECT_AFTER_MAX: Duration = Duration::from_secs(60);

/// The lower bound of the interval of the engine's garbage collection.
pub(super) const COLLECT_EVERY_MIN: Duration = Duration::from_secs(1);

/// The upper bound of that interval, which is the engine's default.
const COLLECT_EVERY_MAX: Duration = Duration::from_secs(300);

/// The time after which an idle index asks whether another writer has taken it. The writer's lease tells so earlier.
const POLLS_KEPT: Duration = Duration::from_secs(300);

/// How often the engine looks for compactions to schedule and to carry out. A rewriting of the index waits for such looks; while nothing
/// changes they are answered from memory.
const COMPACT_EVERY: Duration = Duration::from_secs(1);

/// The number of rows from which a table has a filter.
const FILTER_KEYS_MIN: u32 = 100;

/// The size of the tables that compactions write. The index and the filter of a table are read as a whole, and take a thirtieth of its size:
/// with small tables an index that does not fit into memory costs less per lookup.
const TABLE_BYTES: usize = 16 << 20;

/// The configuration of an index.
#[derive(Clone)]
pub(crate) struct SlateConfig {
    /// The merge function; it must never change for an existing index.
    pub(crate) merge: MergeFn,
    /// The object store is a local directory, which has no conditional overwrite.
    pub(crate) local: bool,
    /// Where windows of tables are kept on disk; `None` keeps them in memory only. Not used for a local object store.
    pub(crate) tables: Option<TableDisk>,
    /// The limit of cached table indexes, filters and blocks of rows, in bytes; the first two take about 2 MB per million rows.
    pub(crate) cache_bytes: u64,
    /// The limit of rows in memory that are not uploaded, in bytes; commits wait beyond it.
    pub(crate) unflushed_bytes: usize,
    /// The age at which unreferenced objects are deleted; at most a day, which is the engine's default.
    pub(crate) collect_after: Duration,
    /// The time after which an idle index asks whether another process has changed it. Not used for a local object store, which is asked
    /// every second.
    pub(crate) polls_kept: Duration,
    /// The time limit of a read or a flush.
    pub(crate) deadline: Duration,
    /// What an inspection has read, for the open behind it.
    pub(crate) opening: OpeningReads,
    /// Returns why the object store fails, for the error of a call that exceeded its deadline.
    pub(crate) reason: Option<Reason>,
}

/// What the inspection of an index and the open behind it read once for both.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpeningReads {
    pub(super) answers: Arc<KeptAnswers>,
    pub(super) windows: Arc<WindowTable>,
    /// Whether the object store has answered.
    is_reached: Arc<AtomicBool>,
    /// The time of the newest row that an inspection has seen, in milliseconds since 1970-01-01 UTC.
    newest_tick: Arc<AtomicI64>,
}

impl OpeningReads {
    /// Forgets everything: what is read from now on is asked for.
    pub(super) fn forget(&self) {
        self.answers.drop_all();
        self.windows.clear();
        self.is_reached.store(false, Ordering::Relaxed);
    }

    /// Notes the time of a row, in milliseconds since 1970-01-01 UTC.
    pub(super) fn note_tick(&self, tick: i64) {
        self.newest_tick.fetch_max(tick, Ordering::Relaxed);
    }

    /// Returns the newest time that was noted.
    pub(super) fn newest_tick(&self) -> i64 {
        self.newest_tick.load(Ordering::Relaxed)
    }

    /// Notes that the object store has answered.
    pub(super) fn set_reached(&self) {
        self.is_reached.store(true, Ordering::Relaxed);
    }

    /// Tells whether the object store has answered.
    pub(super) fn is_reached(&self) -> bool {
        self.is_reached.load(Ordering::Relaxed)
    }
}

impl SlateConfig {
    /// Creates the default configuration with a merge function.
    #[must_use]
    pub(crate) fn new(merge: MergeFn) -> Self {
        Self {
            merge,
            local: false,
            tables: None,
            cache_bytes: 96 << 20,
            unflushed_bytes: 64 << 20,
            collect_after: COLLECT_AFTER_MAX,
            polls_kept: POLLS_KEPT,
            deadline: Duration::from_secs(30),
            opening: OpeningReads::default(),
            reason: None,
        }
    }

    /// The engine's settings.
    pub(super) fn settings(&self) -> Settings {
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
                poll_interval: COMPACT_EVERY,
                max_concurrent_compactions: 2,
                enable_trivial_move: true,
                worker: Some(CompactionWorkerOptions {
                    compactions_poll_interval: COMPACT_EVERY,
                    max_concurrent_compactions: 2,
                    max_subcompactions: 1,
                    max_sst_size: TABLE_BYTES,
                    max_fetch_tasks: 2,
                    bytes_to_fetch: 256 << 10,
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
                // Fences are never deleted: without one, a writer that resumes after a long pause could lose data unnoticed.
                wal_fence_options: None,
                ..GarbageCollectorOptions::default()
            }),
            ..Settings::default()
        }
    }

    /// The interval and the minimal age of the garbage collection of one kind of objects.
    fn collected(&self, max: Duration) -> Option<GarbageCollectorDirectoryOptions> {
        let min_age = self.collect_after.min(max);
        Some(GarbageCollectorDirectoryOptions {
            interval: Some(min_age.clamp(COLLECT_EVERY_MIN, COLLECT_EVERY_MAX)),
            min_age,
            dry_run: false,
        })
    }

    /// The cache of rows, table indexes and filters.
    pub(super) fn memory_cache(&self) -> Arc<dyn DbCache> {
        let bytes = usize::try_from(self.cache_bytes).unwrap_or(usize::MAX);
        Arc::new(RowCache::new(bytes))
    }
}
