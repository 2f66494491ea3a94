//! The memory part of the block cache: blocks in LRU order within a limit of bytes, and the tokens that pin them.
//!
//! Keys are distributed over shards, each with its own lock, LRU order and share of the budget. Invariant: a pinned block is
//! never evicted, so a key has at most one copy in memory. Pinned blocks may exceed the budget; a task evicts blocks after
//! their last pin is dropped.

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher;

use bytes::Bytes;
use lru::LruCache;
use tokio::sync::Notify;

use super::block_key::{BLOCK, BlockKey};
use super::token::{Token, TokenRegistry};
use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, Weak, lock};
use crate::task::Tasks;

/// The maximal number of shards, chosen so that readers rarely wait for each other. There are fewer if a shard would hold less
/// than [`SHARD_BLOCKS_MIN`] blocks.
const SHARDS_MAX: u64 = 16;

/// The minimal number of blocks per shard: with fewer, the LRU order of the shards differs much from a global one.
const SHARD_BLOCKS_MIN: u64 = 64;

/// A block in memory.
struct ResidentBlock {
    bytes: Bytes,
    /// The offsets of the extents whose hashes were verified.
    verified: Mutex<HashSet<u32>>,
}

/// A pinned block: it stays in memory until the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Block {
    resident: Arc<ResidentBlock>,
    token: Token<BlockKey>,
}

impl Block {
    /// The bytes of the block; fewer than [`BLOCK`] only at the end of its object.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.resident.bytes
    }

    /// Tells whether the extent that begins at `offset` in the block was verified since the block was loaded.
    pub(crate) fn verified(&self, offset: u32) -> bool {
        lock(&self.resident.verified).contains(&offset)
    }

    /// Records that the extent that begins at `offset` was verified; the record lasts as long as the block is in memory.
    pub(crate) fn set_verified(&self, offset: u32) {
        lock(&self.resident.verified).insert(offset);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("key", self.token.key())
            .field("len", &self.resident.bytes.len())
            .finish_non_exhaustive()
    }
}

struct Shard {
    /// Without a limit of their number; the limit is on their bytes.
    order: LruCache<BlockKey, Arc<ResidentBlock>>,
    bytes: u64,
}

/// The fill level of the memory, without a lock: the clean-up of tokens reads it and may take no lock.
struct Level {
    used: AtomicU64,
    budget: u64,
    over: Notify,
}

/// The blocks in memory.
pub(super) struct BlockMemory {
    shards: Box<[Mutex<Shard>]>,
    share: u64,
    hasher: std::hash::RandomState,
    pins: TokenRegistry<BlockKey>,
    level: Arc<Level>,
}

impl BlockMemory {
    /// Creates an empty cache of `budget` bytes, and a task that evicts blocks after pins beyond the budget are dropped.
    pub(super) fn new(budget: u64, tasks: &Tasks) -> Arc<Self> {
        let shards = (budget / (BLOCK * SHARD_BLOCKS_MIN)).clamp(1, SHARDS_MAX);
        let level = Arc::new(Level {
            used: AtomicU64::new(0),
            budget,
            over: Notify::new(),
        });
        let seen = Arc::clone(&level);
        let pins = TokenRegistry::new("cache-tokens", tasks, move |_: &BlockKey| {
            if seen.used.load(Ordering::Relaxed) > seen.budget {
                seen.over.notify_one();
            }
        });
        let shard = |_| {
            Mutex::new(Shard {
                order: LruCache::unbounded(),
                bytes: 0,
            })
        };
        let memory = Arc::new(Self {
            shards: (0..shards).map(shard).collect(),
            share: budget / shards,
            hasher: std::hash::RandomState::new(),
            pins,
            level: Arc::clone(&level),
        });
        let trim = trim(level, Arc::downgrade(&memory), tasks.clone());
        drop(tasks.spawn("cache-trim", trim));
        memory
    }

    /// Returns a block that is in memory, and marks it as the most recently used of its shard.
    pub(super) fn get(&self, key: BlockKey) -> Option<Block> {
        let mut shard = self.shard(key);
        let resident = Arc::clone(shard.order.get(&key)?);
        Some(self.hold(&shard, key, resident))
    }

    /// Inserts a block and evicts the least recently used unpinned ones. A block that is already present stays.
    pub(super) fn insert(&self, key: BlockKey, bytes: Bytes) -> Block {
        let mut shard = self.shard(key);
        if let Some(resident) = shard.order.get(&key).map(Arc::clone) {
            return self.hold(&shard, key, resident);
        }
        let len = bytes.len() as u64;
        let resident = Arc::new(ResidentBlock {
            bytes,
            verified: Mutex::default(),
        });
        let block = self.hold(&shard, key, Arc::clone(&resident));
        shard.order.put(key, resident);
        shard.bytes += len;
        self.level.used.fetch_add(len, Ordering::Relaxed);
        self.trim(&mut shard);
        block
    }

    /// Tells whether a block is in memory; does not change the LRU order.
    pub(super) fn contains(&self, key: BlockKey) -> bool {
        self.shard(key).order.contains(&key)
    }

    /// Removes a block, pinned or not. A [`Block`] that a caller holds keeps its bytes.
    pub(super) fn remove(&self, key: BlockKey) {
        let mut shard = self.shard(key);
        if let Some(resident) = shard.order.pop(&key) {
            self.count_out(&mut shard, &resident);
        }
    }

    /// The keys of all blocks.
    pub(super) fn keys(&self) -> Vec<BlockKey> {
        let of = |shard: &Mutex<Shard>| -> Vec<BlockKey> {
            lock(shard).order.iter().map(|(key, _)| *key).collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// The size of all blocks in memory, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.level.used.load(Ordering::Relaxed)
    }

    fn shard(&self, key: BlockKey) -> MutexGuard<'_, Shard> {
        // The modulus is the number of shards, so the index is in bounds and fits.
        let index = self.hasher.hash_one(key) % self.shards.len() as u64;
        lock(&self.shards[index as usize])
    }

    /// Takes a token under the shard's lock, so that an eviction, which also needs the lock, sees it.
    fn hold(
        &self,
        _: &MutexGuard<'_, Shard>,
        key: BlockKey,
        resident: Arc<ResidentBlock>,
    ) -> Block {
        let token = self.pins.take(key);
        Block { resident, token }
    }

    /// Evicts the least recently used blocks until the shard is within its share, or all remaining blocks are pinned.
    fn trim(&self, shard: &mut Shard) {
        for _ in 0..shard.order.len() {
            if shard.bytes <= self.share {
                return;
            }
            let Some((key, resident)) = shard.order.pop_lru() else {
                return;
            };
            if self.pins.count(&key) > 0 {
                // It is in use, so it becomes the most recently used.
                shard.order.put(key, resident);
            } else {
                self.count_out(shard, &resident);
            }
        }
    }

    fn count_out(&self, shard: &mut Shard, resident: &ResidentBlock) {
        let len = resident.bytes.len() as u64;
        shard.bytes -= len;
        self.level.used.fetch_sub(len, Ordering::Relaxed);
    }
}

impl Drop for BlockMemory {
    fn drop(&mut self) {
        // Wakes the trim task, which then ends.
        self.level.over.notify_one();
    }
}

impl fmt::Debug for BlockMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockMemory")
            .field("bytes", &self.bytes())
            .field("budget", &self.level.budget)
            .finish_non_exhaustive()
    }
}

/// Trims all shards whenever a pin was dropped while the memory was over its budget.
async fn trim(level: Arc<Level>, memory: Weak<BlockMemory>, tasks: Tasks) {
    loop {
        tokio::select! {
            () = level.over.notified() => {}
            () = tasks.stopped() => return,
        }
        let Some(memory) = memory.upgrade() else {
            return;
        };
        for shard in &memory.shards {
            memory.trim(&mut lock(shard));
        }
    }
}
