use super::*;
use crate::sync::{AtomicUsize, Ordering};
use object_store::ObjectStoreExt;
use object_store::PutMode;
use object_store::memory::InMemory;

const CONFIG: PollConfig = PollConfig {
    keep: Duration::from_secs(60),
    pause: Duration::from_secs(3),
};

/// A store that counts the reads.
#[derive(Debug, Default)]
struct CountedReads {
    objects: InMemory,
    reads: AtomicUsize,
}

impl fmt::Display for CountedReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedReads")
    }
}

#[async_trait]
impl ObjectStore for CountedReads {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(at, payload, o).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        // The answer is that of the beginning of the request, and comes later.
        let got = self.objects.get_opts(at, options).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        got
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

/// An open store, and the store below it.
fn opened() -> (Arc<CountedReads>, Arc<PollStore>) {
    let below = Arc::<CountedReads>::default();
    let flag = OpenedFlag::default();
    flag.set();
    let inner: Arc<dyn ObjectStore> = Arc::<CountedReads>::clone(&below);
    let store = PollStore::new(inner, CONFIG, flag, Arc::default());
    (below, Arc::new(store))
}

fn manifest(number: u64) -> Path {
    Path::from(format!("x/meta/manifest/{number:020}.manifest"))
}

fn reads(store: &CountedReads) -> usize {
    store.reads.swap(0, Ordering::SeqCst)
}

/// Polls a manifest that does not exist every second, for `seconds`.
async fn idle(store: &PollStore, number: u64, seconds: u64) {
    for _ in 0..seconds {
        let absent = store.get(&manifest(number)).await;
        assert!(matches!(absent, Err(Error::NotFound { .. })), "{absent:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn polls_of_an_index_that_does_not_change_are_one_request_a_minute() {
    let (below, store) = opened();
    idle(&store, 2, 300).await;
    let sent = reads(&below);
    assert!((5..=6).contains(&sent), "{sent} requests in five minutes");
}

#[tokio::test(start_paused = true)]
async fn polls_at_the_same_time_share_a_request_whose_answer_is_kept() {
    let (below, store) = opened();
    for _ in 0..3 {
        let (at, other) = (manifest(2), manifest(3));
        let polls = [&at, &at, &other, &at].map(|at| store.get(at));
        for absent in futures::future::join_all(polls).await {
            assert!(matches!(absent, Err(Error::NotFound { .. })), "{absent:?}");
        }
        assert_eq!(reads(&below), 2);
        tokio::time::sleep(CONFIG.keep).await;
    }
    // A manifest that is there is a new state, which is not kept.
    store.put(&manifest(2), "new".into()).await.unwrap();
    let at = manifest(2);
    let polls = [&at, &at].map(|at| store.get(at));
    for found in futures::future::join_all(polls).await {
        assert_eq!(found.unwrap().bytes().await.unwrap(), "new");
    }
    assert_eq!(reads(&below), 2);
}

/// A store that is being opened, and another one behind it that shares its answers.
async fn opening() -> (Arc<CountedReads>, OpenedFlag, [PollStore; 2]) {
    let below = Arc::<CountedReads>::default();
    below.objects.put(&manifest(1), "one".into()).await.unwrap();
    let (flag, answers) = (OpenedFlag::default(), Arc::<KeptAnswers>::default());
    let store = || {
        let inner: Arc<dyn ObjectStore> = Arc::<CountedReads>::clone(&below);
        PollStore::new(inner, CONFIG, flag.clone(), Arc::clone(&answers))
    };
    let stores = [store(), store()];
    (below, flag, stores)
}

/// Reads what the engine reads when it looks for the newest manifest: it is number 1.
async fn find_newest(store: &PollStore) {
    let folder = Path::from("x/meta/manifest");
    let listed: Vec<_> = store.list(Some(&folder)).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].location, manifest(1));
    let found = store.get(&manifest(1)).await.unwrap();
    assert_eq!(&found.bytes().await.unwrap()[..], b"one");
    boundary_is_absent(store).await;
    let next = store.get(&manifest(2)).await;
    assert!(matches!(next, Err(Error::NotFound { .. })), "{next:?}");
    boundary_is_absent(store).await;
}

async fn boundary_is_absent(store: &PollStore) {
    let boundary = Path::from("x/meta/gc/manifest.boundary");
    let absent = store.get(&boundary).await;
    assert!(matches!(absent, Err(Error::NotFound { .. })), "{absent:?}");
}

#[tokio::test(start_paused = true)]
async fn one_answer_serves_an_inspection_and_the_open_behind_it() {
    let (below, _, stores) = opening().await;
    let start = Instant::now();
    find_newest(&stores[0]).await;
    assert_eq!(
        reads(&below),
        4,
        "listing, manifest, boundary, next manifest"
    );
    let waited = start.elapsed().as_millis();
    assert!(
        waited <= 60,
        "{waited} ms: three requests of 20 ms after each other"
    );
    find_newest(&stores[1]).await;
    assert_eq!(reads(&below), 0);
    tokio::time::sleep(OPENING_KEPT).await;
    find_newest(&stores[1]).await;
    assert_eq!(reads(&below), 4);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_a_write_is_no_answer_after_it() {
    let (below, _, stores) = opening().await;
    find_newest(&stores[0]).await;
    // Another writer is first, and the conditional write of this one fails.
    below.objects.put(&manifest(2), "two".into()).await.unwrap();
    let create = PutOptions::from(PutMode::Create);
    let refused = stores[1].put_opts(&manifest(2), "own".into(), create).await;
    assert!(
        matches!(refused, Err(Error::AlreadyExists { .. })),
        "{refused:?}"
    );
    reads(&below);
    boundary_is_absent(&stores[1]).await;
    let folder = Path::from("x/meta/manifest");
    let listed: Vec<_> = stores[1].list(Some(&folder)).try_collect().await.unwrap();
    assert_eq!(listed.len(), 2);
    let found = stores[1].get(&manifest(2)).await.unwrap();
    assert_eq!(&found.bytes().await.unwrap()[..], b"two");
    assert_eq!(reads(&below), 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_the_fence_in_the_log_is_no_answer_after_it() {
    let (below, _, stores) = opening().await;
    find_newest(&stores[0]).await;
    reads(&below);
    let fence = Path::from("x/meta/wal/00000000000000000007.sst");
    stores[1].put(&fence, "fence".into()).await.unwrap();
    find_newest(&stores[1]).await;
    assert_eq!(reads(&below), 4);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_during_the_open_is_no_answer_after_it() {
    let (below, flag, stores) = opening().await;
    find_newest(&stores[0]).await;
    reads(&below);
    flag.set();
    find_newest(&stores[1]).await;
    assert_eq!(reads(&below), 4);
}

#[tokio::test(start_paused = true)]
async fn a_write_of_this_process_is_seen_by_the_next_poll() {
    let (below, store) = opened();
    idle(&store, 2, 3).await;
    store.put(&manifest(2), "two".into()).await.unwrap();
    let found = store.get(&manifest(2)).await.unwrap();
    assert_eq!(&found.bytes().await.unwrap()[..], b"two");
    reads(&below);
    store.delete(&manifest(2)).await.unwrap();
    idle(&store, 2, 1).await;
    assert_eq!(reads(&below), 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_state_that_is_known_ends_nothing() {
    let (below, store) = opened();
    for number in [1, 2] {
        store.put(&manifest(number), "ours".into()).await.unwrap();
    }
    idle(&store, 3, 2).await;
    reads(&below);
    assert!(store.get(&manifest(1)).await.is_ok());
    assert!(store.get(&manifest(2)).await.is_ok());
    idle(&store, 3, 2).await;
    assert_eq!(reads(&below), 2, "the two that were read");
    below.put(&manifest(3), "theirs".into()).await.unwrap();
    tokio::time::sleep(CONFIG.keep).await;
    assert!(store.get(&manifest(3)).await.is_ok());
    idle(&store, 4, 1).await;
    assert!(store.get(&manifest(3)).await.is_ok());
    reads(&below);
    idle(&store, 4, 2).await;
    assert_eq!(reads(&below), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_a_write_overtakes_is_not_kept() {
    let (_, store) = opened();
    let polled = Arc::clone(&store);
    let poll = async move { polled.get(&manifest(2)).await.is_err() };
    let write = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        store.put(&manifest(2), "two".into()).await.unwrap();
    };
    let (absent, ()) = tokio::join!(poll, write);
    assert!(absent, "the poll began before the write");
    assert!(store.get(&manifest(2)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn another_writer_is_seen_within_the_time_that_answers_are_kept() {
    let (below, store) = opened();
    idle(&store, 2, 3).await;
    below.put(&manifest(2), "theirs".into()).await.unwrap();
    let begun = Instant::now();
    while store.get(&manifest(2)).await.is_err() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() <= CONFIG.keep, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_the_first_poll_is_a_request() {
    let (below, store) = opened();
    idle(&store, 2, 3).await;
    below.put(&manifest(2), "theirs".into()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(store.get(&manifest(2)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_missing_ends_what_is_kept() {
    let (below, store) = opened();
    idle(&store, 2, 3).await;
    below.put(&manifest(2), "theirs".into()).await.unwrap();
    let table = Path::from("x/meta/compacted/01.sst");
    assert!(store.get(&table).await.is_err());
    assert!(store.get(&manifest(2)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_answer_about_a_boundary_serves_every_caller() {
    let (below, store) = opened();
    let at = Path::from("x/meta/gc/manifest.boundary");
    below.put(&at, "7".into()).await.unwrap();
    let read = async |tag: Option<String>| {
        let options = GetOptions {
            if_none_match: tag,
            ..GetOptions::default()
        };
        store.get_opts(&at, options).await
    };
    let first = read(None).await.unwrap();
    let tag = first.meta.e_tag.clone();
    assert_eq!(&first.bytes().await.unwrap()[..], b"7");
    assert!(matches!(
        read(tag.clone()).await,
        Err(Error::NotModified { .. })
    ));
    assert_eq!(reads(&below), 1);
    let again = read(None).await.unwrap();
    assert_eq!(&again.bytes().await.unwrap()[..], b"7");
    assert!(matches!(
        read(tag.clone()).await,
        Err(Error::NotModified { .. })
    ));
    let old = Some("\"of an earlier one\"".to_owned());
    let whole = read(old).await.unwrap();
    assert_eq!(&whole.bytes().await.unwrap()[..], b"7");
    assert_eq!(reads(&below), 0);
    tokio::time::sleep(CONFIG.keep).await;
    assert!(matches!(
        read(tag.clone()).await,
        Err(Error::NotModified { .. })
    ));
    let whole = read(None).await.unwrap();
    assert_eq!(&whole.bytes().await.unwrap()[..], b"7");
    assert_eq!(reads(&below), 1, "a minute later");
    let newer = PutOptions::from(PutMode::Overwrite);
    store.put_opts(&at, "8".into(), newer).await.unwrap();
    let newest = read(tag).await.unwrap();
    assert_eq!(&newest.bytes().await.unwrap()[..], b"8");
}
