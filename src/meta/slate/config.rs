//! The configuration of an index, and the settings of the engine that follow from it.

use super::reason::Reason;
use crate::meta::MergeFn;
use crate::sync::Arc;
use slatedb::Settings;
use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, CompressionCodec, GarbageCollectorDirectoryOptions,
    GarbageCollectorOptions,
};
use slatedb::db_cache::foyer::{FoyerCache, FoyerCacheOptions};
use slatedb::db_cache::{DbCache, SplitCache};
use std::time::Duration;

/// How long an open may take in all: a log of 400,000 rows over a slow store replays within a second.
pub(super) const OPEN_DEADLINE: Duration = Duration::from_secs(120);

/// Interval of the engine's background flush, for commits without a waiting caller. Without new commits, no request.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// How long objects of the index stay at most that none of its states needs.
const COLLECT_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// The same for its log, whose rows are in tables by then.
const WAL_COLLECT_AFTER_MAX: Duration = Duration::from_secs(60);

/// How often the engine looks for such objects: as it does by itself, or as often as they are to go.
const COLLECT_EVERY_MIN: Duration = Duration::from_secs(1);
const COLLECT_EVERY_MAX: Duration = Duration::from_secs(300);

/// Tables smaller than this many rows carry no filter.
const FILTER_KEYS_MIN: u32 = 100;

/// How an index is opened. The memory budgets add up to about 200 MiB with what compaction needs.
#[derive(Clone)]
pub(crate) struct SlateConfig {
    /// How values merge; the same for every open of an index, for ever.
    pub(crate) merge: MergeFn,
    /// The object store is a local directory, which has no conditional overwrite.
    pub(crate) local: bool,
    /// Memory for blocks of rows, in bytes.
    pub(crate) block_cache_bytes: u64,
    /// Memory for table indexes and filters, in bytes; about 2 MB per million rows.
    pub(crate) meta_cache_bytes: u64,
    /// Rows that may wait in memory for their upload, in bytes; writers wait beyond.
    pub(crate) unflushed_bytes: usize,
    /// How long objects stay that no state of the index needs; at most the engine's own day.
    pub(crate) collect_after: Duration,
    /// How long a read or a flush may take before it is called unavailable.
    pub(crate) deadline: Duration,
    /// Tells why the object store fails, for the message of a call that took too long.
    pub(crate) reason: Option<Reason>,
}

impl SlateConfig {
    /// Makes the default configuration around a merge function.
    #[must_use]
    pub(crate) fn new(merge: MergeFn) -> Self {
        Self {
            merge,
            local: false,
            block_cache_bytes: 64 << 20,
            meta_cache_bytes: 32 << 20,
            unflushed_bytes: 64 << 20,
            collect_after: COLLECT_AFTER_MAX,
            deadline: Duration::from_secs(30),
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

    /// The cache of rows, table indexes and filters.
    pub(super) fn memory_cache(&self) -> Arc<dyn DbCache> {
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
