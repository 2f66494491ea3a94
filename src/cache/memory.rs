//! The memory half of the block cache: an LRU of blocks bounded by bytes, and the tokens that pin them.
//!
//! Keys are spread over shards, each with its lock, its order and its share of the budget. Invariant: a pinned
//! block is never evicted, so one key has one copy; pinned blocks may exceed the budget, and the memory is
//! trimmed again after the last pin is dropped.

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

/// So many shards that readers rarely meet, if each then still holds [`SHARD_BLOCKS_MIN`] blocks.
const SHARDS_MAX: u64 = 16;

/// Fewer blocks in a shard would make its order differ much from that of the whole.
const SHARD_BLOCKS_MIN: u64 = 64;

/// A block in memory, its bytes as they came from the bucket.
struct ResidentBlock {
    bytes: Bytes,
    /// Where the extents begin that were found to be what their hashes say.
    verified: Mutex<HashSet<u32>>,
}

/// A pinned block: it stays in memory until the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Block {
    resident: Arc<ResidentBlock>,
    token: Token<BlockKey>,
}

impl Block {
    /// Its bytes; fewer than [`BLOCK`] only at the object's end.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.resident.bytes
    }

    /// Whether the extent that begins at `offset` in the block was verified since the block came into memory.
    pub(crate) fn verified(&self, offset: u32) -> bool {
        lock(&self.resident.verified).contains(&offset)
    }

    /// Remembers that the extent that begins at `offset` was verified; for as long as the block is in memory.
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
    /// Unbounded in number; the bytes are what is bounded.
    order: LruCache<BlockKey, Arc<ResidentBlock>>,
    bytes: u64,
}

/// How full the memory is; known to the tokens' clean-up, which may take no lock.
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
    /// Makes an empty cache of `budget` bytes, with a task that trims it when held blocks are let go.
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

    /// The block, if it is in memory; it is then the newest of its shard.
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

    /// Whether the block is in memory; its place in the order stays.
    pub(super) fn contains(&self, key: BlockKey) -> bool {
        self.shard(key).order.contains(&key)
    }

    /// Forgets the block, held or not; holders keep their bytes.
    pub(super) fn remove(&self, key: BlockKey) {
        let mut shard = self.shard(key);
        if let Some(resident) = shard.order.pop(&key) {
            self.count_out(&mut shard, &resident);
        }
    }

    /// How many bytes the blocks in memory have.
    pub(super) fn bytes(&self) -> u64 {
        self.level.used.load(Ordering::Relaxed)
    }

    fn shard(&self, key: BlockKey) -> MutexGuard<'_, Shard> {
        // The modulus is the number of shards, so the index is in bounds and fits.
        let index = self.hasher.hash_one(key) % self.shards.len() as u64;
        lock(&self.shards[index as usize])
    }

    /// Takes the token under the shard's lock: after it an eviction would be too late to see it.
    fn hold(
        &self,
        _: &MutexGuard<'_, Shard>,
        key: BlockKey,
        resident: Arc<ResidentBlock>,
    ) -> Block {
        let token = self.pins.take(key);
        Block { resident, token }
    }

    /// Evicts from the oldest on until the shard keeps to its share, or all that is left is held.
    fn trim(&self, shard: &mut Shard) {
        for _ in 0..shard.order.len() {
            if shard.bytes <= self.share {
                return;
            }
            let Some((key, resident)) = shard.order.pop_lru() else {
                return;
            };
            if self.pins.count(&key) > 0 {
                // In use now, so among the newest.
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
        // The trim task finds that there is nothing left to trim, and ends.
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

/// Trims all shards whenever held blocks beyond the budget were let go.
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
