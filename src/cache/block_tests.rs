//! The block cache: shared fetches, eviction, pinned blocks, and restarts.

use std::time::Duration;

use futures::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::*;
use crate::cache::BLOCK;
use crate::sync::{AtomicU64, Ordering};

#[derive(Clone, Debug, PartialEq)]
enum Failure {
    Bucket(u32),
    Cache,
}

impl From<CacheError> for Failure {
    fn from(_: CacheError) -> Self {
        Self::Cache
    }
}

fn key(index: u32) -> BlockKey {
    BlockKey {
        object: (1, 2),
        index,
    }
}

fn bytes(index: u32) -> Bytes {
    Bytes::from(vec![index as u8; BLOCK as usize])
}

fn cache(memory_blocks: u64, disk: Option<&std::path::Path>) -> Arc<BlockCache> {
    let config = BlockCacheConfig {
        memory_bytes: memory_blocks * BLOCK,
        disk_bytes: 100 * BLOCK,
        dir: disk.map(Into::into),
    };
    BlockCache::open(config, Tasks::new(Handle::current())).unwrap()
}

/// Tells whether a block is in memory or on disk.
fn has(cache: &BlockCache, index: u32) -> bool {
    let on_disk = |disk: &DiskStore| disk.contains(key(index));
    cache.memory.contains(key(index)) || cache.disk.as_ref().is_some_and(on_disk)
}

/// Waits until every queued block is on disk.
async fn written(cache: &BlockCache) {
    until(|| cache.disk.as_ref().is_none_or(DiskStore::is_written)).await;
}

/// The bytes of the blocks on disk.
fn disk_bytes(cache: &BlockCache) -> u64 {
    cache.disk.as_ref().map_or(0, DiskStore::bytes)
}

/// A fetch of a block that must not be fetched.
async fn no_fetch() -> Result<Bytes, Failure> {
    panic!("a fetch of a block that is in the cache")
}

async fn fill(cache: &Arc<BlockCache>, index: u32) -> Block {
    let fetch = async move { Ok::<_, Failure>(bytes(index)) };
    cache.block(key(index), fetch).await.unwrap()
}

/// Waits until a background task has reached a state.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it was not done within ten seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_calls_share_one_fetch() {
    let cache = cache(10, None);
    let fetches = Arc::new(AtomicU64::new(0));
    let call = |_| {
        let (cache, fetches) = (Arc::clone(&cache), Arc::clone(&fetches));
        cache.tasks.clone().spawn("test-reader", async move {
            let fetch = async move {
                fetches.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, Failure>(bytes(7))
            };
            cache.block(key(7), fetch).await.unwrap().bytes().clone()
        })
    };
    for got in join_all((0..50).map(call)).await {
        assert_eq!(got.unwrap(), bytes(7));
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    assert!(cache.fetches.is_empty());
    assert_eq!((cache.memory.bytes(), disk_bytes(&cache)), (BLOCK, 0));
}

#[tokio::test]
async fn a_failed_fetch_fails_every_waiting_call_and_the_next_call_fetches_again() {
    let cache = cache(10, None);
    let gate = Arc::new(Notify::new());
    let call = |number| {
        let (cache, gate) = (Arc::clone(&cache), Arc::clone(&gate));
        async move {
            let fetch = async move {
                gate.notified().await;
                Err(Failure::Bucket(number))
            };
            let failed = cache.block(key(1), fetch).await.unwrap_err();
            // A waiting call has its error, so the failed fetch must be removed from the table.
            let again = async move { Ok::<_, Failure>(bytes(1)) };
            assert_eq!(cache.block(key(1), again).await.unwrap().bytes(), &bytes(1));
            failed
        }
    };
    let open = async {
        tokio::task::yield_now().await;
        gate.notify_one();
    };
    let (failures, ()) = tokio::join!(join_all((0..5).map(call)), open);
    assert_eq!(failures, vec![Failure::Bucket(0); 5]);
}

#[tokio::test]
async fn a_cancelled_call_does_not_cancel_the_shared_fetch() {
    let cache = cache(10, None);
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let first = cache.block(key(1), async move {
        opened.notified().await;
        Ok::<_, Failure>(bytes(1))
    });
    assert!(
        tokio::time::timeout(Duration::from_millis(5), first)
            .await
            .is_err()
    );
    let never = async { panic!("a second fetch") };
    let second = cache.block::<Failure>(key(1), never);
    let open = async {
        tokio::task::yield_now().await;
        gate.notify_one();
    };
    let (block, ()) = tokio::join!(second, open);
    assert_eq!(block.unwrap().bytes(), &bytes(1));
    assert_eq!(cache.tasks.poisoned(), None);
}

#[tokio::test]
async fn a_fetch_that_panics_fails_its_callers() {
    let cache = cache(10, None);
    let bad = cache.block::<Failure>(key(1), async { panic!("planted") });
    assert_eq!(bad.await.unwrap_err(), Failure::Cache);
    assert_eq!(cache.tasks.poisoned(), Some("cache-fetch"));
    assert_eq!(fill(&cache, 1).await.bytes(), &bytes(1));
}

#[tokio::test]
async fn the_least_recently_used_block_is_evicted_from_memory_first() {
    let cache = cache(3, None);
    for index in [1, 2, 3, 1, 4] {
        drop(fill(&cache, index).await);
    }
    let left: Vec<u32> = (1..=4).filter(|index| has(&cache, *index)).collect();
    assert_eq!(left, [1, 3, 4]);
    assert_eq!(cache.memory.bytes(), 3 * BLOCK);
}

#[tokio::test]
async fn pinned_blocks_exceed_the_limit_until_they_are_dropped() {
    let cache = cache(2, None);
    let mut held = Vec::new();
    for index in 0..5 {
        held.push(fill(&cache, index).await);
    }
    assert_eq!(cache.memory.bytes(), 5 * BLOCK);
    held[0].set_verified(4096);
    let same = fill(&cache, 0).await;
    assert!(same.verified(4096) && !same.verified(0));
    drop(held);
    until(|| cache.memory.bytes() == 2 * BLOCK).await;
    assert!(has(&cache, 0));
    drop(same);
    // The set of verified extents is dropped with the block.
    drop((fill(&cache, 8).await, fill(&cache, 9).await));
    assert!(!has(&cache, 0));
    assert!(!fill(&cache, 0).await.verified(4096));
}

#[tokio::test]
async fn a_cache_without_memory_still_returns_blocks() {
    let cache = cache(0, None);
    let block = fill(&cache, 1).await;
    assert_eq!(block.bytes(), &bytes(1));
    drop(block);
    until(|| cache.memory.bytes() == 0).await;
}

#[tokio::test]
async fn the_disk_has_blocks_that_memory_evicted_and_those_of_an_earlier_cache() {
    let temp = tempfile::tempdir().unwrap();
    let first = cache(1, Some(temp.path()));
    for index in 0..4 {
        drop(fill(&first, index).await);
    }
    first.insert(key(4), &bytes(4));
    written(&first).await;
    assert!((0..=4).all(|index| has(&first, index)));
    for index in 0..=4 {
        let block = first
            .block::<Failure>(key(index), no_fetch())
            .await
            .unwrap();
        assert_eq!(block.bytes(), &bytes(index));
    }
    drop(first);
    let second = cache(1, Some(temp.path()));
    assert!(disk_bytes(&second) > 5 * BLOCK);
    for index in 0..=4 {
        let block = second
            .block::<Failure>(key(index), no_fetch())
            .await
            .unwrap();
        assert_eq!(block.bytes(), &bytes(index));
    }
}

#[tokio::test]
async fn a_forgotten_block_is_fetched_again() {
    let temp = tempfile::tempdir().unwrap();
    let cache = cache(2, Some(temp.path()));
    let bad = async { Ok::<_, Failure>(Bytes::from_static(b"bad")) };
    let held = cache.block(key(1), bad).await.unwrap();
    // The write may be queued or done; neither may bring the block back.
    cache.forget(key(1));
    assert!(!has(&cache, 1));
    assert_eq!(fill(&cache, 1).await.bytes(), &bytes(1));
    assert_eq!(&held.bytes()[..], b"bad");
    written(&cache).await;
    cache.memory.remove(key(1));
    let block = cache.block(key(1), no_fetch()).await.unwrap();
    assert_eq!(block.bytes(), &bytes(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_end_with_the_cache_and_at_the_stop_signal() {
    let temp = tempfile::tempdir().unwrap();
    let cache = cache(2, Some(temp.path()));
    let tasks = cache.tasks.clone();
    for index in 0..20 {
        drop(fill(&cache, index).await);
    }
    drop(cache);
    tasks.join().await;

    let cache = tests::cache(2, Some(temp.path()));
    let held = fill(&cache, 30).await;
    cache.tasks.stop();
    cache.tasks.join().await;
    assert_eq!(held.bytes(), &bytes(30));
    // A read after the stop signal still succeeds.
    assert_eq!(fill(&cache, 31).await.bytes(), &bytes(31));
    cache.tasks.join().await;
    drop(cache);
    let cache = tests::cache(2, Some(temp.path()));
    assert!(
        has(&cache, 30),
        "blocks queued before the stop signal were written"
    );
}

/// Reads, failures, cancellations and removals on all threads with low limits: every block has the right bytes, and at the end
/// no block is pinned and no fetch is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_readers_get_the_bytes_of_the_bucket() {
    let temp = tempfile::tempdir().unwrap();
    let small = |index: u32| Bytes::from(vec![index as u8; 10_000]);
    let config = BlockCacheConfig {
        memory_bytes: 40_000,
        disk_bytes: 80_000,
        dir: Some(temp.path().into()),
    };
    let cache = BlockCache::open(config, Tasks::new(Handle::current())).unwrap();
    let work = |seed: u32| {
        let cache = Arc::clone(&cache);
        cache.tasks.clone().spawn("test-reader", async move {
            let mut held = None;
            for round in 0..400_u32 {
                let random = (seed * 1_000_003 + round).wrapping_mul(2_654_435_761) >> 8;
                let index = random % 16;
                let fetch = async move {
                    tokio::time::sleep(Duration::from_micros(u64::from(random % 300))).await;
                    let fails = random.is_multiple_of(11);
                    if fails {
                        Err(Failure::Bucket(index))
                    } else {
                        Ok(small(index))
                    }
                };
                let patience = Duration::from_micros(u64::from(200 + random % 2000));
                match tokio::time::timeout(patience, cache.block(key(index), fetch)).await {
                    Ok(Ok(block)) => {
                        assert_eq!(block.bytes(), &small(index));
                        held = (!random.is_multiple_of(3)).then_some(block);
                    }
                    Ok(Err(failure)) => assert_eq!(failure, Failure::Bucket(index)),
                    Err(_) => {}
                }
                if random.is_multiple_of(13) {
                    cache.forget(key(index));
                }
            }
            drop(held);
        })
    };
    for done in join_all((0..8).map(work)).await {
        done.unwrap();
    }
    until(|| cache.fetches.is_empty() && cache.memory.bytes() <= 40_000).await;
    written(&cache).await;
    assert!(disk_bytes(&cache) <= 80_000);
    assert_eq!(cache.tasks.poisoned(), None);
}

#[tokio::test]
async fn a_reserved_block_is_waited_for() {
    let cache = cache(10, None);
    let reserved = cache.reserve(key(1)).unwrap();
    assert!(cache.reserve(key(1)).is_none(), "it is reserved already");
    let (block, ()) = tokio::join!(cache.block(key(1), no_fetch()), async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        reserved.fill(bytes(1));
    });
    assert_eq!(block.unwrap().bytes(), &bytes(1));
    assert!(cache.fetches.is_empty());
    assert!(cache.reserve(key(1)).is_none(), "it is in memory");
}

#[tokio::test]
async fn a_call_fetches_a_block_whose_reservation_was_dropped() {
    let cache = cache(10, None);
    let reserved = cache.reserve(key(1)).unwrap();
    let calls = [fill(&cache, 1), fill(&cache, 1)];
    let (blocks, ()) = tokio::join!(join_all(calls), async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(reserved);
    });
    for block in blocks {
        assert_eq!(block.bytes(), &bytes(1));
    }
    assert!(cache.fetches.is_empty());
}

#[tokio::test]
async fn a_block_on_disk_is_not_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(4, Some(dir.path()));
    for index in 0..8 {
        fill(&cache, index).await;
    }
    written(&cache).await;
    assert!(!cache.memory.contains(key(0)), "it left the memory");
    assert!(cache.reserve(key(0)).is_none());
}
