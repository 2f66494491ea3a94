//! Read-ahead: what reads of a handle cost in requests and bytes, and what they return where the bucket is damaged.

use super::rng::SeededRng;
use super::*;
use crate::backend::Counters;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// What the kernel asks for at a time where its read-ahead is not raised.
const READ: u32 = 128 << 10;

/// An open handle of a file in the bucket, and the bytes it must return.
struct ColdHandle {
    cluster: TestCluster,
    ns: Namespace,
    file: Arc<File>,
    runs: Arc<ReadAhead>,
    text: Vec<u8>,
    /// The counters before the first read.
    before: Counters,
}

impl ColdHandle {
    /// Saves a file of `mebibytes` MiB, loses the cache directory and opens the file again.
    async fn open(name: &str, mebibytes: u64) -> Self {
        let cluster = TestCluster::new(name);
        let ns = cluster.open().await;
        let mut text = vec![0; (mebibytes * MIB) as usize];
        let mut rng = SeededRng(7);
        for word in text.chunks_exact_mut(8) {
            word.copy_from_slice(&rng.below(usize::MAX).to_le_bytes());
        }
        let ino = save(&ns, ROOT, b"large", &text).await;
        ns.drain().await.unwrap();
        leave(ns).await;
        cluster.wipe();
        let config = NamespaceConfig {
            memory_bytes: 256 << 20,
            ..config(cluster.cache.path().to_owned())
        };
        let ns = cluster.try_open_with(config).await.unwrap();
        let file = ns.tree.file(ino).await.unwrap();
        Self {
            before: quiet(&ns).await,
            cluster,
            ns,
            file,
            runs: Arc::default(),
            text,
        }
    }

    async fn read(&self, offset: u64, len: u32) -> Result<Bytes, StoreError> {
        self.file.read_ahead(&self.runs, offset, len).await;
        self.file.read(offset, len).await
    }

    /// Reads in order; fails unless the bytes are those of the file.
    async fn read_in_order(&self, from: u64, to: u64) {
        for at in (from..to).step_by(READ as usize) {
            self.check(at, &self.read(at, READ).await.unwrap());
        }
    }

    fn check(&self, offset: u64, bytes: &Bytes) {
        let at = offset as usize;
        assert!(
            bytes[..] == self.text[at..at + bytes.len()],
            "wrong bytes at {offset}"
        );
    }

    /// GETs and bytes since the file was opened, once every request has ended.
    async fn cost(&self) -> (u64, u64) {
        let (before, now) = (self.before, quiet(&self.ns).await);
        (now.get - before.get, now.bytes_down - before.bytes_down)
    }
}

/// The counters when no request has been sent for a while.
async fn quiet(ns: &Namespace) -> Counters {
    let mut last = ns.counters();
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let now = ns.counters();
        if now == last {
            return now;
        }
        last = now;
    }
}

#[tokio::test]
async fn a_cold_read_in_order_sends_few_requests() {
    let handle = ColdHandle::open("in-order", 64).await;
    let began = tokio::time::Instant::now();
    handle.read_in_order(0, 64 * MIB).await;
    let (gets, bytes) = handle.cost().await;
    // 11 of content; the index polls its manifest and its log each second.
    let polls = 2 + 2 * began.elapsed().as_secs();
    println!("{gets} GETs, {bytes} bytes");
    assert!(gets <= 12 + polls, "{gets} GETs");
    assert!(bytes <= 64 * MIB + 64 * KIB, "{bytes} bytes for 64 MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_readers_of_one_handle_are_both_followed() {
    let handle = ColdHandle::open("two-readers", 48).await;
    for at in (0..24 * MIB).step_by(READ as usize) {
        for start in [0, 24 * MIB] {
            let at = start + at;
            handle.check(at, &handle.read(at, READ).await.unwrap());
        }
    }
    let (gets, bytes) = handle.cost().await;
    assert!(gets <= 24, "{gets} GETs");
    assert!(bytes <= 49 * MIB, "{bytes} bytes for 48 MiB");
}

#[tokio::test]
async fn random_reads_send_no_request_more_than_without_read_ahead() {
    let mut costs = Vec::new();
    for ahead in [false, true] {
        let handle = ColdHandle::open("random", 64).await;
        let mut rng = SeededRng(3);
        for _ in 0..400 {
            let at = (rng.below(64 << 8) as u64) * 4096;
            let bytes = match ahead {
                true => handle.read(at, 4096).await,
                false => handle.file.read(at, 4096).await,
            };
            handle.check(at, &bytes.unwrap());
        }
        costs.push(handle.cost().await);
    }
    let [(gets, bytes), (ahead_gets, ahead_bytes)] = costs[..] else {
        unreachable!("two costs");
    };
    // The index polls its manifest each second.
    assert!(
        ahead_gets <= gets + 4,
        "{ahead_gets} GETs instead of {gets}"
    );
    assert!(
        ahead_bytes < bytes + 64 * KIB,
        "{ahead_bytes} bytes instead of {bytes}"
    );
}

#[tokio::test]
async fn a_reader_that_stops_early_wastes_at_most_its_window() {
    for (read, most) in [
        (128 * KIB, 256 * KIB),
        (256 * KIB, 1280 * KIB),
        (MIB, 1280 * KIB),
        (2 * MIB, 3328 * KIB),
        (3 * MIB, 8 * MIB),
        (10 * MIB, 32 * MIB),
    ] {
        let handle = ColdHandle::open("stops", 64).await;
        handle.read_in_order(0, read).await;
        let (_, bytes) = handle.cost().await;
        let most = most + 64 * KIB;
        assert!(bytes <= most, "{bytes} bytes for {read}, at most {most}");
    }
}

#[tokio::test]
async fn a_damaged_extent_fails_the_reads_that_need_it_and_no_other() {
    for lost in [false, true] {
        let handle = ColdHandle::open("damaged", 24).await;
        // The second segment of three: of it one extent, or all.
        let backend = handle.cluster.backend();
        let segments = backend.list("data").await.unwrap();
        let key = &segments[1].key;
        let mut object = backend.get(key).await.unwrap().to_vec();
        let (bad, broken) = match lost {
            true => {
                backend.delete(key).await.unwrap();
                (8 * MIB..16 * MIB, "missing")
            }
            false => {
                object[(2 * MIB) as usize + 5] ^= 1;
                backend.put(key, object.into()).await.unwrap();
                (10 * MIB..10 * MIB + 256 * KIB, "does not match its hash")
            }
        };
        for at in (0..24 * MIB).step_by(READ as usize) {
            match handle.read(at, READ).await {
                Ok(bytes) => {
                    assert!(!bad.contains(&at), "bytes at {at} of {bad:?}");
                    handle.check(at, &bytes);
                }
                Err(StoreError::Corrupt(why)) => {
                    assert!(bad.contains(&at), "{why} at {at}");
                    assert!(why.contains(key.as_str()) && why.contains(broken), "{why}");
                }
                Err(other) => panic!("{other} at {at}"),
            }
        }
    }
}

#[tokio::test]
async fn a_version_of_the_past_is_fetched_ahead_too() {
    let handle = ColdHandle::open("past", 24).await;
    let ns = &handle.ns;
    let versions = ns.history.view().versions(ROOT, b"large").await.unwrap();
    for at in (0..24 * MIB).step_by(READ as usize) {
        let (history, runs) = (&ns.history, &handle.runs);
        let ahead = history.read_ahead_past(runs, &versions[0], at, READ);
        ahead.await;
        let bytes = history.read_past(&versions[0], at, READ).await.unwrap();
        handle.check(at, &bytes);
    }
    let (gets, _) = handle.cost().await;
    assert!(gets <= 10, "{gets} GETs");
}
