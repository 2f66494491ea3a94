//! Blocks of objects in the bucket: memory over disk over a fetch that the caller brings along.
//!
//! Objects never change, so a block is what it is for ever and may be kept as long as there is room. Invariants:
//! of one block at most one fetch is under way, however many ask for it, and it goes on if they
//! give up; a [`Block`] that is held stays in memory; disk errors never fail a read.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;

use super::CacheError;
use super::block_key::BlockKey;
use super::disk::DiskStore;
use super::memory::{Block, BlockMemory};
use crate::sync::Arc;
use crate::task::Tasks;

/// How much a cache may take, and where.
#[derive(Clone, Debug)]
pub(crate) struct BlockCacheConfig {
    /// For blocks in memory, in bytes. Blocks that are held may exceed it.
    pub(crate) memory_bytes: u64,
    /// For files on disk, in bytes; 0 for none.
    pub(crate) disk_bytes: u64,
    /// Where the files lie: a directory of this cache's alone, for one namespace; without one there is no disk part.
    pub(crate) dir: Option<PathBuf>,
}

/// State of one fetch, as its waiting callers see it.
#[derive(Clone)]
enum FetchState {
    Running,
    Fetched(Block),
    /// Holds the fetch's error, whose type only the callers know.
    Failed(Arc<dyn Any + Send + Sync>),
}

/// Blocks of immutable objects, in memory and on disk.
pub(crate) struct BlockCache {
    memory: Arc<BlockMemory>,
    disk: Option<DiskStore>,
    /// The fetches under way.
    fetches: DashMap<BlockKey, watch::Receiver<FetchState>>,
    tasks: Tasks,
}

impl BlockCache {
    /// Opens a cache, with what an earlier process left in its directory. Blocks while it lists that directory. Fails
    /// if the directory cannot be made or listed.
    pub(crate) fn open(config: BlockCacheConfig, tasks: Tasks) -> Result<Arc<Self>, CacheError> {
        let disk = match &config.dir {
            Some(dir) if config.disk_bytes > 0 => {
                Some(DiskStore::open(dir, config.disk_bytes, &tasks)?)
            }
            _ => None,
        };
        Ok(Arc::new(Self {
            memory: BlockMemory::new(config.memory_bytes, &tasks),
            disk,
            fetches: DashMap::new(),
            tasks,
        }))
    }

    /// Gives a block: from memory, from disk, or by `fetch`, which then yields the block's bytes (in a buffer of
    /// their own: the whole buffer stays in memory as long as the block).
    ///
    /// Concurrent calls for one key share one fetch, run as a task: giving up a call cancels nothing. If it
    /// fails, all of them get its error, nothing is kept, and the next call fetches again. All callers for one
    /// key use the same `E`; one that waits with another gets [`CacheError::Lost`], as all do if the fetch panics.
    pub(crate) async fn block<E>(
        self: &Arc<Self>,
        key: BlockKey,
        fetch: impl Future<Output = Result<Bytes, E>> + Send + 'static,
    ) -> Result<Block, E>
    where
        E: Clone + From<CacheError> + Send + Sync + 'static,
    {
        if let Some(block) = self.memory.get(key) {
            return Ok(block);
        }
        let mut outcome = match self.find_or_start_fetch(key) {
            BlockLookup::Resident(block) => return Ok(block),
            BlockLookup::Joined(outcome) => outcome,
            BlockLookup::Started(fetch_task, outcome) => {
                drop(self.tasks.spawn("cache-fetch", fetch_task.run(fetch)));
                outcome
            }
        };
        let over = |outcome: &FetchState| !matches!(outcome, FetchState::Running);
        let ended = outcome.wait_for(over).await.map(|ended| ended.clone());
        match ended {
            Ok(FetchState::Fetched(block)) => Ok(block),
            Ok(FetchState::Failed(error)) => Err(error
                .downcast_ref::<E>()
                .map_or_else(|| CacheError::Lost.into(), E::clone)),
            Ok(FetchState::Running) | Err(_) => Err(CacheError::Lost.into()),
        }
    }

    /// Keeps a block whose bytes are at hand, such as one just uploaded. Copies them, since they are mostly a
    /// part of something larger.
    pub(crate) fn insert(&self, key: BlockKey, bytes: Bytes) {
        if self.memory.contains(key) {
            return;
        }
        let bytes = Bytes::copy_from_slice(&bytes);
        drop(self.memory.insert(key, bytes.clone()));
        if let Some(disk) = &self.disk {
            disk.keep(key, bytes);
        }
    }

    /// Forgets a block in memory and on disk: its object is gone, or its bytes are not what their hash says. Those
    /// who hold it keep it.
    pub(crate) fn forget(&self, key: BlockKey) {
        self.memory.remove(key);
        if let Some(disk) = &self.disk {
            disk.remove(key);
        }
    }

    /// Drops the oldest blocks on disk until up to `bytes` are free; how many it was. Blocks in memory stay.
    pub(crate) fn give_up(&self, bytes: u64) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.give_up(bytes))
    }

    /// Finds the running fetch of a key that was not in memory, or starts one.
    fn find_or_start_fetch(self: &Arc<Self>, key: BlockKey) -> BlockLookup {
        match self.fetches.entry(key) {
            Entry::Occupied(fetch) => BlockLookup::Joined(fetch.get().clone()),
            Entry::Vacant(entry) => {
                // A fetch may have ended since the first look; none can end while the entry is held.
                if let Some(block) = self.memory.get(key) {
                    return BlockLookup::Resident(block);
                }
                let (sender, outcome) = watch::channel(FetchState::Running);
                entry.insert(outcome.clone());
                let fetch_task = Fetch {
                    cache: Arc::clone(self),
                    key,
                    ended: FetchState::Running,
                    sender,
                };
                BlockLookup::Started(fetch_task, outcome)
            }
        }
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("memory", &self.memory)
            .field("disk", &self.disk)
            .field("fetches", &self.fetches.len())
            .finish_non_exhaustive()
    }
}

/// What a caller finds when its block is not in memory.
enum BlockLookup {
    Resident(Block),
    Joined(watch::Receiver<FetchState>),
    Started(Fetch, watch::Receiver<FetchState>),
}

/// A fetch under way. Its end, of whatever kind, takes it off the table first and tells those who wait
/// second, so that who comes after an error fetches again.
struct Fetch {
    cache: Arc<BlockCache>,
    key: BlockKey,
    ended: FetchState,
    sender: watch::Sender<FetchState>,
}

impl Fetch {
    async fn run<E>(mut self, fetch: impl Future<Output = Result<Bytes, E>> + Send + 'static)
    where
        E: Send + Sync + 'static,
    {
        let (cache, key) = (Arc::clone(&self.cache), self.key);
        if let Some(disk) = &cache.disk
            && let Some(bytes) = disk.load(key, &cache.tasks).await
        {
            self.ended = FetchState::Fetched(cache.memory.insert(key, bytes));
            return;
        }
        self.ended = match fetch.await {
            Ok(bytes) => {
                if let Some(disk) = &cache.disk {
                    disk.keep(key, bytes.clone());
                }
                FetchState::Fetched(cache.memory.insert(key, bytes))
            }
            Err(error) => FetchState::Failed(Arc::new(error)),
        };
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.cache.fetches.remove(&self.key);
        let ended = std::mem::replace(&mut self.ended, FetchState::Running);
        // Still running: the fetch was lost, which the waiting callers learn when the sender is dropped.
        if !matches!(ended, FetchState::Running) {
            self.sender.send_replace(ended);
        }
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
