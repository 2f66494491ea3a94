//! What only this engine does: outages, grouping of uploads, tables and their compaction. The promises that it shares
//! with its twin are in `contract.rs`.

use super::*;
use crate::meta::MemoryStore;
use crate::meta::contract::join;
use crate::sync::{AtomicBool, AtomicUsize};
use futures::stream::{BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use std::fmt::{Display, Formatter};
use tokio::time::Instant;

/// A bucket that counts uploads of the log, can be slow, and can be out of reach.
#[derive(Debug, Default)]
struct Bucket {
    objects: InMemory,
    down: AtomicBool,
    uploads: AtomicUsize,
    /// Bytes of tables that were read.
    read: AtomicUsize,
    /// Reads of tables.
    reads: AtomicUsize,
    delay: Duration,
}

impl Bucket {
    fn down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn connect(&self) -> object_store::Result<()> {
        if self.down.load(Ordering::SeqCst) {
            return Err(object_store::Error::Generic {
                store: "planted",
                source: "no route to host".into(),
            });
        }
        Ok(())
    }
}

impl Display for Bucket {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bucket")
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.connect()?;
        if location.as_ref().contains("/wal/") {
            self.uploads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(self.delay).await;
        }
        self.objects.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.connect()?;
        self.objects.put_multipart_opts(location, opts).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.connect()?;
        let got = self.objects.get_opts(location, options).await?;
        if location.as_ref().contains("/compacted/") {
            let bytes = got.range.end - got.range.start;
            self.read.fetch_add(bytes as usize, Ordering::SeqCst);
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
        Ok(got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.connect() {
            Ok(()) => self.objects.list(prefix),
            Err(error) => futures::stream::once(async move { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.connect()?;
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.connect()?;
        self.objects.copy_opts(from, to, options).await
    }
}

/// A configuration that loses patience after half a second.
fn impatient() -> SlateConfig {
    let mut config = SlateConfig::new(join);
    config.deadline = Duration::from_millis(500);
    config
}

async fn open(bucket: &Arc<Bucket>, config: SlateConfig) -> Result<SlateStore, MetaError> {
    let bucket: Arc<dyn ObjectStore> = Arc::<Bucket>::clone(bucket);
    SlateStore::open(bucket, "meta", config).await
}

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(key.to_owned(), value.to_owned());
    batch
}

/// Writes what is in memory as tables.
async fn tables(store: &SlateStore) {
    let flush_type = FlushType::MemTable;
    let options = FlushOptions { flush_type };
    store.db.flush_with_options(options).await.unwrap();
}

async fn rows(store: &dyn MetaRead) -> Vec<(Bytes, Bytes)> {
    let mut scan = store.scan("A".into().."Z".into()).await.unwrap();
    let mut rows = Vec::new();
    while let Some(row) = scan.next().await.unwrap() {
        rows.push(row);
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_told_and_heals() {
    let bucket = Arc::new(Bucket::default());
    let store = open(&bucket, impatient()).await.unwrap();
    bucket.down(true);
    let begin = Instant::now();
    let early = store.commit(put("Ca", "early")).await.unwrap();
    for _ in 0..3 {
        let refused = store.durable(early).await.unwrap_err();
        assert!(matches!(refused, MetaError::Unavailable(_)), "{refused}");
        assert_eq!(store.state(), MetaState::Open);
    }
    let refused = store.close().await.unwrap_err();
    assert!(matches!(refused, MetaError::Unavailable(_)), "{refused}");
    assert!(begin.elapsed() < Duration::from_secs(4));
    let late = store.commit(put("Ca", "late")).await.unwrap();
    assert_eq!(&store.get(b"Ca").await.unwrap().unwrap()[..], b"late");
    bucket.down(false);
    while store.durable(late).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(15), "it never healed");
    }
    store.close().await.unwrap();
    let store = open(&bucket, impatient()).await.unwrap();
    assert_eq!(&store.get(b"Ca").await.unwrap().unwrap()[..], b"late");
}

/// The engine writes its log and its manifest conditionally; taking an own write for another writer's, it would fence
/// itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_whose_answer_got_lost_are_its_own() {
    let Some(spoilt) = crate::backend::tests::servers::Spoilt::start() else {
        return;
    };
    let place = spoilt.backend.child("index");
    for round in 0..3 {
        let config = SlateConfig::new(join);
        let store = SlateStore::open(place.object_store(), "meta", config).await;
        let store = store.unwrap();
        assert_eq!(rows(&store).await.len(), round * 12);
        for number in 0..12 {
            let batch = put(&format!("C{round}-{number:02}"), "value");
            let commit = store.commit(batch).await.unwrap();
            store.durable(commit).await.unwrap();
        }
        assert!(
            matches!(store.state(), MetaState::Open),
            "{:?}",
            store.state()
        );
        store.close().await.unwrap();
    }
    assert!(spoilt.writes() > 60, "{} writes", spoilt.writes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_give_up_in_an_outage_and_work_again_after_it() {
    let bucket = Arc::new(Bucket::default());
    let store = open(&bucket, impatient()).await.unwrap();
    store.commit(put("Ca", "value")).await.unwrap();
    tables(&store).await;
    store.close().await.unwrap();
    let store = open(&bucket, impatient()).await.unwrap();
    bucket.down(true);
    let refused = store.get(b"Ca").await.unwrap_err();
    assert!(matches!(refused, MetaError::Unavailable(_)), "{refused}");
    bucket.down(false);
    let begin = Instant::now();
    // A read that comes now may join one that sleeps before its next try.
    let value = loop {
        match store.get(b"Ca").await {
            Ok(value) => break value,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(15), "{error}"),
        }
    };
    assert_eq!(&value.unwrap()[..], b"value");
    assert_eq!(store.state(), MetaState::Open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_out_of_reach_fails_the_open_within_seconds() {
    let bucket = Arc::new(Bucket::default());
    bucket.down(true);
    let begin = Instant::now();
    let refused = open(&bucket, SlateConfig::new(join)).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert!(
        matches!(&refused, MetaError::Unavailable(text) if text.contains("no route to host")),
        "{refused}"
    );
}

#[tokio::test]
async fn an_index_of_another_make_is_refused() {
    let bucket = Arc::new(Bucket::default());
    let object_store: Arc<dyn ObjectStore> = Arc::<Bucket>::clone(&bucket);
    let object_store = Arc::new(checksum::Checksummed::new(object_store));
    let plain = Db::builder("meta", object_store).build().await.unwrap();
    plain.close().await.unwrap();
    let refused = open(&bucket, impatient()).await.unwrap_err();
    assert!(
        matches!(&refused, MetaError::Corrupt(text) if text.contains("extractor")),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_waiters_share_few_uploads() {
    let delay = Duration::from_millis(15);
    let bucket = Arc::new(Bucket {
        delay,
        ..Bucket::default()
    });
    let store = Arc::new(open(&bucket, SlateConfig::new(join)).await.unwrap());
    let before = bucket.uploads.load(Ordering::SeqCst);
    let mut waiters = tokio::task::JoinSet::new();
    for task in 0..64 {
        let store = Arc::clone(&store);
        waiters.spawn(async move {
            for n in 0..5 {
                let commit = store.commit(put(&format!("C{task}-{n}"), "x")).await?;
                store.durable(commit).await?;
            }
            Ok::<_, MetaError>(())
        });
    }
    for outcome in waiters.join_all().await {
        outcome.unwrap();
    }
    let uploads = bucket.uploads.load(Ordering::SeqCst) - before;
    // Five rounds in step would be five uploads; one for each of the 320 commits would be the failure.
    assert!(uploads <= 40, "{uploads} uploads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_a_waiter_reaches_the_bucket_within_seconds_and_then_no_request_is_made() {
    let bucket = Arc::new(Bucket::default());
    let store = open(&bucket, SlateConfig::new(join)).await.unwrap();
    let commit = store.commit(put("Ca", "1")).await.unwrap();
    let begin = Instant::now();
    while store.status.durable() < commit {
        assert!(begin.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let uploads = bucket.uploads.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    store.durable(commit).await.unwrap();
    assert_eq!(bucket.uploads.load(Ordering::SeqCst), uploads);
}

/// A step of xorshift: the test needs variety, not quality.
fn step(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

fn random_batch(random: &mut u64, n: u64) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..=step(random) % 4 {
        let segment = ["C", "G", "H"][(step(random) % 3) as usize];
        let key = format!("{segment}{}", step(random) % 5);
        match step(random) % 8 {
            0 => batch.delete(key),
            1 => batch.put(key, format!("[{n}]")),
            _ => batch.merge(key, format!("{n}.")),
        }
    }
    batch
}

/// Waits until the compactor has made a sorted run and left fewer than four young tables in every segment.
async fn compacted(store: &SlateStore) {
    let begin = Instant::now();
    loop {
        let manifest = store.db.manifest();
        let segments = manifest.segments();
        let settled = segments.iter().all(|segment| segment.l0().len() < 4);
        if settled
            && segments
                .iter()
                .any(|segment| !segment.compacted().is_empty())
        {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "no compaction");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_batches_agree_with_the_twin_through_tables_and_compaction() {
    let object_store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let config = SlateConfig::new(join);
    let mut settings = config.settings();
    if let Some(compactor) = &mut settings.compactor_options {
        compactor.poll_interval = Duration::from_millis(50);
        if let Some(worker) = &mut compactor.worker {
            worker.compactions_poll_interval = Duration::from_millis(50);
        }
    }
    let open = || async {
        let bucket = Arc::clone(&object_store);
        let opened = SlateStore::open_with(bucket, "meta", &config, settings.clone());
        opened.await.unwrap()
    };
    let (mut store, twin) = (open().await, MemoryStore::new(join));
    let mut random = 0x5eed;
    for n in 0..400 {
        let batch = random_batch(&mut random, n);
        let commit = store.commit(batch.clone()).await.unwrap();
        twin.commit(batch).await.unwrap();
        match step(&mut random) % 40 {
            0..4 => tables(&store).await,
            4..8 => store.durable(commit).await.unwrap(),
            8 => {
                store.close().await.unwrap();
                store = open().await;
            }
            9..12 => assert_eq!(rows(&store).await, rows(&twin).await, "after batch {n}"),
            _ => {}
        }
    }
    compacted(&store).await;
    assert_eq!(rows(&store).await, rows(&twin).await);
    for (key, value) in rows(&twin).await {
        assert_eq!(store.get(&key).await.unwrap(), Some(value));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_is_in_tables_after_a_close_and_little_is_not() {
    for (rows, expected) in [(10, false), (2000, true)] {
        let bucket = Arc::new(Bucket::default());
        let store = open(&bucket, SlateConfig::new(join)).await.unwrap();
        for row in 0..rows {
            let value = "x".repeat(1000);
            store
                .commit(put(&format!("C{row:04}"), &value))
                .await
                .unwrap();
        }
        store.close().await.unwrap();
        let path = Path::from("meta/compacted");
        let tables = bucket.list_with_delimiter(Some(&path)).await.unwrap();
        assert_eq!(!tables.objects.is_empty(), expected, "{rows} rows");
        let store = open(&bucket, SlateConfig::new(join)).await.unwrap();
        assert_eq!(self::rows(&store).await.len(), rows);
        store.close().await.unwrap();
    }
}

/// Bytes that a compression does not make shorter; a multiple of eight.
fn noise(state: &mut u64, len: usize) -> Vec<u8> {
    let words = (0..len / 8).flat_map(|_| step(state).to_le_bytes());
    words.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_filters_stay_in_memory_while_many_blocks_are_read() {
    const ROWS: u64 = 20_000;
    let bucket = Arc::new(Bucket::default());
    let config = SlateConfig {
        cache_bytes: 512 << 10,
        ..SlateConfig::new(join)
    };
    let mut settings = config.settings();
    let compactor = settings.compactor_options.as_mut();
    let worker = compactor.and_then(|compactor| compactor.worker.as_mut());
    worker.unwrap().max_sst_size = 128 << 10;
    let store = Arc::<Bucket>::clone(&bucket);
    let store = SlateStore::open_with(store, "meta", &config, settings).await;
    let store = store.unwrap();
    let mut state = 1;
    for part in 0..ROWS / 500 {
        let mut batch = Batch::new();
        for number in 0..500 {
            let row = part * 500 + number;
            batch.put(format!("C{row:06}"), noise(&mut state, 256));
        }
        store.commit(batch).await.unwrap();
    }
    store.rewrite(b"C").await.unwrap();
    let tables = store.db.manifest().all_sst_views().count();
    assert!(tables > 30, "{tables} tables");
    let lookups = 500;
    for round in 0..2 {
        let before = bucket.reads.load(Ordering::SeqCst);
        for _ in 0..lookups {
            let row = step(&mut state) % ROWS;
            let found = store.get(format!("C{row:06}").as_bytes()).await.unwrap();
            assert_eq!(found.unwrap().len(), 256);
        }
        let reads = bucket.reads.load(Ordering::SeqCst) - before;
        println!("{reads} reads for {lookups} lookups in {tables} tables");
        assert!(round == 0 || reads <= lookups / 2, "{reads} reads");
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seek_reads_less_ahead_than_a_scan_and_finds_the_same_rows() {
    let bucket = Arc::new(Bucket::default());
    let open = async || {
        let store: Arc<dyn ObjectStore> = Arc::<Bucket>::clone(&bucket);
        let store = SlateStore::open(store, "meta", SlateConfig::new(join)).await;
        store.unwrap()
    };
    let store = open().await;
    let mut state = 1_u64;
    for part in 0..8 {
        let mut batch = Batch::new();
        for number in 0..500 {
            batch.put(format!("C{part}{number:03}"), noise(&mut state, 1024));
        }
        store.commit(batch).await.unwrap();
    }
    store.rewrite(b"C").await.unwrap();
    store.close().await.unwrap();
    let mut found = Vec::new();
    for seeks in [true, false] {
        let store = open().await;
        let before = bucket.read.load(Ordering::SeqCst);
        let range = Bytes::from("C0001")..Bytes::from("D");
        let mut rows = match seeks {
            true => store.seek(range).await.unwrap(),
            false => store.scan(range).await.unwrap(),
        };
        let first = rows.next().await.unwrap().unwrap();
        let (mut count, read) = (1, bucket.read.load(Ordering::SeqCst) - before);
        while rows.next().await.unwrap().is_some() {
            count += 1;
        }
        found.push((first, count, read));
        drop(rows);
        store.close().await.unwrap();
    }
    let [(sought, few, little), (scanned, all, much)] = &found[..] else {
        panic!("two")
    };
    assert_eq!((sought, few), (scanned, all));
    assert_eq!(*all, 3_999);
    assert!(*little < 700 << 10, "{little} bytes");
    assert!(*much > 900 << 10, "{much} bytes of a scan");
}
