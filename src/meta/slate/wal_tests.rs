//! How much of the log an open reads, through the whole engine.

use super::*;
use crate::backend::{Backend, BackendConfig, Counters};
use crate::meta::contract::join;
use crate::meta::{Batch, MetaRead, MetaStore, SlateConfig, SlateFollower, SlateStore};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use std::time::Duration;
use tokio::time::Instant;

/// A bucket in memory that counts, and is slow when told to.
struct Bucket {
    slow: Arc<ThrottledStore<InMemory>>,
    backend: Backend,
}

impl Bucket {
    fn new() -> Self {
        let slow = ThrottledStore::new(InMemory::new(), ThrottleConfig::default());
        let slow = Arc::new(slow);
        let store: Arc<dyn ObjectStore> = Arc::<ThrottledStore<InMemory>>::clone(&slow);
        Self {
            slow,
            backend: Backend::over("given://wal", store, &BackendConfig::default()),
        }
    }

    fn delay(&self, delay: Duration) {
        self.slow.config_mut(|config| {
            config.wait_get_per_call = delay;
            config.wait_put_per_call = delay;
            config.wait_list_per_call = delay;
        });
    }

    async fn open(&self) -> SlateStore {
        let config = SlateConfig::new(join);
        let store = SlateStore::open(self.backend.object_store(), "meta", config).await;
        store.unwrap()
    }

    /// Makes `count` rows durable, each by itself, and ends without a close.
    async fn written_and_killed(&self, count: usize) {
        let store = self.open().await;
        for number in 0..count {
            let mut batch = Batch::new();
            batch.put(format!("C{number:05}"), "value");
            let commit = store.commit(batch).await.unwrap();
            store.durable(commit).await.unwrap();
        }
    }

    fn asked_since(&self, before: Counters) -> u64 {
        let now = self.backend.counters();
        (now.get + now.head) - (before.get + before.head)
    }
}

async fn rows(store: &dyn MetaRead) -> usize {
    let mut scan = store.scan("A".into().."Z".into()).await.unwrap();
    let mut rows = 0;
    while scan.next().await.unwrap().is_some() {
        rows += 1;
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_reads_a_short_log_whatever_was_made_durable() {
    let bucket = Bucket::new();
    bucket.written_and_killed(3_000).await;
    bucket.delay(Duration::from_millis(20));
    let (before, begin) = (bucket.backend.counters(), Instant::now());
    let store = bucket.open().await;
    let (asked, took) = (bucket.asked_since(before), begin.elapsed());
    // So fast a writer is ahead of compaction.
    assert!(asked < 800, "{asked} requests, {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(rows(&store).await, 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_after_a_replay_leaves_the_next_open_little_to_read() {
    let bucket = Bucket::new();
    bucket.written_and_killed(200).await;
    let before = bucket.backend.counters();
    let store = bucket.open().await;
    let asked = bucket.asked_since(before);
    assert!(
        (200..280).contains(&asked),
        "{asked} requests for 200 objects"
    );
    store.close().await.unwrap();
    for _ in 0..3 {
        let before = bucket.backend.counters();
        let store = bucket.open().await;
        let asked = bucket.asked_since(before);
        assert!(asked < 60, "{asked} requests");
        assert_eq!(rows(&store).await, 200);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_reads_as_little_as_a_writer() {
    let bucket = Bucket::new();
    bucket.written_and_killed(200).await;
    let config = SlateConfig::new(join);
    let before = bucket.backend.counters();
    let store = bucket.backend.object_store();
    let hour = Duration::from_secs(3_600);
    let follower = SlateFollower::open(store, "meta", &config, hour).await;
    let follower = follower.unwrap();
    let asked = bucket.asked_since(before);
    assert!(asked < 280, "{asked} requests");
    assert_eq!(rows(&follower).await, 200);
    follower.close().await.unwrap();
}

#[tokio::test]
async fn a_length_brings_the_bytes_along_until_the_log_is_read() {
    let store = Arc::new(InMemory::new());
    let at = |number: u64| Path::from(format!("x/wal/{number:020}.sst"));
    let (small, medium, large) = (at(7), at(8), at(9));
    let bytes: Vec<u8> = (0..KEPT_OBJECT + 1).map(|n| (n / 7) as u8).collect();
    let put = async |at: &Path, len: usize| {
        store.put(at, bytes[..len].to_vec().into()).await.unwrap();
    };
    put(&small, 1000).await;
    put(&medium, ONE_READ as usize + 1).await;
    put(&large, KEPT_OBJECT as usize + 1).await;
    let wal = Wal::new(false);
    let inner: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&store);
    let watched = WalStore::new(inner, Arc::clone(&wal));
    for (at, len) in [
        (&small, 1000),
        (&medium, ONE_READ + 1),
        (&large, KEPT_OBJECT + 1),
    ] {
        assert_eq!(watched.head(at).await.unwrap().size, len);
        store.delete(at).await.unwrap();
    }
    let got = watched.get_range(&small, 100..1000).await.unwrap();
    assert_eq!(got, bytes[100..1000]);
    assert!(watched.get_range(&small, 100..1000).await.is_err(), "once");
    for range in [1..ONE_READ + 1, 0..50] {
        let got = watched.get_range(&medium, range.clone()).await.unwrap();
        assert_eq!(got, bytes[range.start as usize..range.end as usize]);
    }
    assert!(watched.get_range(&large, 0..10).await.is_err());
    assert_eq!(wal.bytes_read(), 900 + ONE_READ + 50);

    put(&small, 1000).await;
    wal.replayed();
    watched.head(&small).await.unwrap();
    store.delete(&small).await.unwrap();
    assert!(watched.get_range(&small, 0..10).await.is_err());
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let (store, at) = (InMemory::new(), Path::from("any"));
    store.put(&at, "x".into()).await.unwrap();
    let any = store.head(&at).await.unwrap();
    let mut kept = PrefetchedObjects::default();
    for number in 0..400_u64 {
        kept.keep(LogFile {
            meta: ObjectMeta {
                location: Path::from(format!("wal/{number:020}.sst")),
                ..any.clone()
            },
            attributes: Attributes::default(),
            bytes: vec![0; ONE_READ as usize].into(),
        });
    }
    assert!(kept.bytes <= KEPT_BYTES && kept.objects.len() as u64 * ONE_READ <= KEPT_BYTES as u64);
    assert!(
        kept.find(&Path::from("wal/00000000000000000399.sst"))
            .is_some()
    );
    assert!(
        kept.find(&Path::from("wal/00000000000000000000.sst"))
            .is_none()
    );
}

#[test]
fn only_objects_of_the_log_have_numbers() {
    let number = |at: &str| number_of(&Path::from(at));
    assert_eq!(number("b/ns/meta/wal/00000000000000000042.sst"), Some(42));
    assert_eq!(number("wal/00000000000000000042.sst"), Some(42));
    assert_eq!(number("meta/compacted/00000000000000000042.sst"), None);
    assert_eq!(number("meta/manifest/00000000000000000042.manifest"), None);
    assert_eq!(number("law/x.sst"), None);
}
