//! The memory cache of the index: parsed blocks, table indexes and filters, by their weight in bytes.
//!
//! They are in one order of use. A lookup uses the index and the filter of a table before it knows which block to read, so those of the
//! tables that are in use stay, whatever part of the cache they take; blocks have the rest.
//!
//! Readers that miss the same entry at the same time share one request.

use crate::sync::{Arc, AtomicBool, Ordering};
use async_trait::async_trait;
use foyer_memory::{Cache, CacheBuilder};
use slatedb::Error;
use slatedb::db_cache::{CacheFetch, CacheLoader, CachedEntry, CachedKey, DbCache};

/// Parts of a cache that have a lock each.
const SHARDS: usize = 4;

/// A cache of entries of the engine.
pub(super) struct RowCache {
    entries: Cache<CachedKey, CachedEntry>,
}

impl RowCache {
    /// Returns an empty cache for `bytes` bytes of entries.
    pub(super) fn new(bytes: usize) -> Self {
        let builder = CacheBuilder::new(bytes).with_shards(SHARDS);
        let builder = builder.with_weighter(|_, entry: &CachedEntry| entry.size());
        Self {
            entries: builder.build(),
        }
    }

    fn entry(&self, key: &CachedKey) -> Option<CachedEntry> {
        let found = self.entries.get(key);
        found.map(|found| found.value().clone())
    }

    /// Returns the entry, or loads it; of concurrent calls one loads.
    async fn fetch(&self, key: &CachedKey, load: CacheLoader) -> Result<CacheFetch, Error> {
        let is_loaded = Arc::new(AtomicBool::new(false));
        let loading = Arc::clone(&is_loaded);
        let fetched = self.entries.get_or_fetch(key, move || {
            loading.store(true, Ordering::Relaxed);
            load()
        });
        match fetched.await {
            Ok(found) if is_loaded.load(Ordering::Relaxed) => {
                Ok(CacheFetch::miss(found.value().clone()))
            }
            Ok(found) => Ok(CacheFetch::hit(found.value().clone())),
            // All callers that wait for a load get the same error, so that it is a cause of each one's.
            Err(error) => Err(
                Error::unavailable("an entry of the cache was not loaded".into())
                    .with_source(Box::new(error)),
            ),
        }
    }
}

#[async_trait]
impl DbCache for RowCache {
    async fn get_block(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.entry(key))
    }

    async fn get_index(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.entry(key))
    }

    async fn get_filter(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.entry(key))
    }

    async fn get_stats(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.entry(key))
    }

    async fn insert(&self, key: CachedKey, value: CachedEntry) {
        self.entries.insert(key, value);
    }

    async fn remove(&self, key: &CachedKey) {
        self.entries.remove(key);
    }

    /// Only the engine's metrics use it; the cache counts bytes.
    fn entry_count(&self) -> u64 {
        0
    }

    async fn fetch_block(&self, key: CachedKey, load: CacheLoader) -> Result<CacheFetch, Error> {
        self.fetch(&key, load).await
    }

    async fn fetch_index(&self, key: CachedKey, load: CacheLoader) -> Result<CacheFetch, Error> {
        self.fetch(&key, load).await
    }

    async fn fetch_filter(&self, key: CachedKey, load: CacheLoader) -> Result<CacheFetch, Error> {
        self.fetch(&key, load).await
    }

    async fn fetch_stats(&self, key: CachedKey, load: CacheLoader) -> Result<CacheFetch, Error> {
        self.fetch(&key, load).await
    }
}
