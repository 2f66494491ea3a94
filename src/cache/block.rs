//! The block cache: blocks of objects in memory, on disk, and by a fetch that the caller passes.
//!
//! Objects never change, so a cached block never becomes stale. Invariants: at most one fetch of a block is under way, for
//! any number of callers, and it continues when they are cancelled; a [`Block`] that a caller holds stays in memory; errors of
//! the disk never fail a read.

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

/// The limits of a cache and its directory.
#[derive(Clone, Debug)]
pub(crate) struct BlockCacheConfig {
    /// The limit of the blocks in memory, in bytes. Pinned blocks may exceed it.
    pub(crate) memory_bytes: u64,
    /// The limit of the files on disk, in bytes; 0 disables the disk part.
    pub(crate) disk_bytes: u64,
    /// The directory of the files, used by this cache alone and for one namespace; `None` disables the disk part.
    pub(crate) dir: Option<PathBuf>,
}

/// State of one fetch, as its waiting callers see it.
#[derive(Clone)]
enum FetchState {
    Running,
    Fetched(Block),
    /// The error of the fetch, whose type only the callers know.
    Failed(Arc<dyn Any + Send + Sync>),
    /// A reservation ended without a block: a caller that needs the block fetches it.
    Abandoned,
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
    /// Opens a cache with the blocks that an earlier process left in its directory. Blocks the thread while it lists the
    /// directory.
    ///
    /// # Errors
    /// `Io` or `NoSpace` if the directory cannot be created or listed.
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

    /// Returns a block from memory, from disk, or from `fetch`. `fetch` returns the bytes in a buffer of their own, because the
    /// whole buffer stays allocated as long as the block.
    ///
    /// Concurrent calls for one key share one fetch, which runs as a task: dropping a call does not cancel it. If the fetch
    /// fails, all of them get its error, nothing is cached, and the next call fetches again. All callers for one key use the
    /// same `E`; a caller with another type gets [`CacheError::Lost`], and so do all callers if the fetch panics.
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
        let mut fetch = Some(fetch);
        loop {
            let mut outcome = match self.find_or_start_fetch(key) {
                BlockLookup::Resident(block) => return Ok(block),
                BlockLookup::Joined(outcome) => outcome,
                BlockLookup::Started(fetch_task, outcome) => {
                    if let Some(fetch) = fetch.take() {
                        drop(self.tasks.spawn("cache-fetch", fetch_task.run(fetch)));
                    }
                    outcome
                }
            };
            let over = |outcome: &FetchState| !matches!(outcome, FetchState::Running);
            let ended = outcome.wait_for(over).await.map(|ended| ended.clone());
            match ended {
                Ok(FetchState::Fetched(block)) => return Ok(block),
                Ok(FetchState::Failed(error)) => {
                    return Err(error
                        .downcast_ref::<E>()
                        .map_or_else(|| CacheError::Lost.into(), E::clone));
                }
                // Never the outcome of a fetch of this call, which therefore is still to be started.
                Ok(FetchState::Abandoned) => {}
                Ok(FetchState::Running) | Err(_) => return Err(CacheError::Lost.into()),
            }
        }
    }

    /// Reserves a block that the caller is about to fetch together with others. Until the reservation is filled or dropped, calls
    /// for the block wait for it. `None` if the block is in memory, on disk or being fetched.
    pub(crate) fn reserve(self: &Arc<Self>, key: BlockKey) -> Option<BlockReservation> {
        if self.memory.contains(key) || self.disk.as_ref().is_some_and(|disk| disk.contains(key)) {
            return None;
        }
        match self.find_or_start_fetch(key) {
            BlockLookup::Resident(_) | BlockLookup::Joined(_) => None,
            BlockLookup::Started(mut fetch, _) => {
                fetch.ended = FetchState::Abandoned;
                Some(BlockReservation(fetch))
            }
        }
    }

    /// Keeps a block whose bytes the caller has, such as a block of a segment that was just uploaded.
    ///
    /// Copies the bytes. A slice of the segment's buffer would keep the whole buffer allocated, 8 MiB, for as long as one of
    /// its blocks is in memory, and the budget counts the 256 KiB of a block: it could be exceeded 32 times.
    pub(crate) fn insert(&self, key: BlockKey, bytes: &[u8]) {
        if self.memory.contains(key) {
            return;
        }
        let bytes = Bytes::copy_from_slice(bytes);
        drop(self.memory.insert(key, bytes.clone()));
        if let Some(disk) = &self.disk {
            disk.keep(key, bytes);
        }
    }

    /// Removes a block from memory and disk, because its object was deleted or its bytes do not match their hash. A [`Block`]
    /// that a caller holds stays valid.
    pub(crate) fn forget(&self, key: BlockKey) {
        self.memory.remove(key);
        if let Some(disk) = &self.disk {
            disk.remove(key);
        }
    }

    /// Removes the blocks of all objects but those that `is_kept` names, from memory and disk. A [`Block`] that a caller holds stays
    /// valid.
    pub(crate) fn keep_only(&self, is_kept: impl Fn((u64, u64)) -> bool) {
        for key in self.memory.keys() {
            if !is_kept(key.object) {
                self.memory.remove(key);
            }
        }
        if let Some(disk) = &self.disk {
            disk.keep_only(is_kept);
        }
    }

    /// Deletes the least recently used blocks on disk until `bytes` bytes or all are freed, and returns how many bytes that
    /// were. Blocks in memory stay.
    pub(crate) fn give_up(&self, bytes: u64) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.give_up(bytes))
    }

    /// Finds the running fetch of a key that was not in memory, or starts one.
    fn find_or_start_fetch(self: &Arc<Self>, key: BlockKey) -> BlockLookup {
        match self.fetches.entry(key) {
            Entry::Occupied(fetch) => BlockLookup::Joined(fetch.get().clone()),
            Entry::Vacant(entry) => {
                // A fetch may have ended since the first lookup. None can end while this entry is locked.
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

/// The result of the second lookup of a block that was not in memory.
enum BlockLookup {
    Resident(Block),
    Joined(watch::Receiver<FetchState>),
    Started(Fetch, watch::Receiver<FetchState>),
}

/// A block that its owner fetches. If it is dropped without the bytes, the calls that wait for the block fetch it themselves.
pub(crate) struct BlockReservation(Fetch);

impl BlockReservation {
    /// Gives the block its bytes, in a buffer of their own, and the calls that wait for it the block.
    pub(crate) fn fill(self, bytes: Bytes) {
        let Self(mut fetch) = self;
        fetch.ended = fetch.keep(bytes);
    }
}

/// A fetch under way. At its end, also by a panic, it is removed from the table first, and its waiting callers are notified
/// second, so that a caller that retries after an error starts a new fetch.
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
            Ok(bytes) => self.keep(bytes),
            Err(error) => FetchState::Failed(Arc::new(error)),
        };
    }

    /// Puts the block into memory and into the queue of the disk.
    fn keep(&self, bytes: Bytes) -> FetchState {
        let Self { cache, key, .. } = self;
        if let Some(disk) = &cache.disk {
            disk.keep(*key, bytes.clone());
        }
        FetchState::Fetched(cache.memory.insert(*key, bytes))
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.cache.fetches.remove(&self.key);
        let ended = std::mem::replace(&mut self.ended, FetchState::Running);
        // Still running: the fetch was lost. The waiting callers get an error when the sender is dropped.
        if !matches!(ended, FetchState::Running) {
            self.sender.send_replace(ended);
        }
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
