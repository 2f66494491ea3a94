use super::*;
use crate::sync::{AtomicUsize, Ordering};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use tokio::runtime::Handle;

/// A store that counts the requests that delete.
#[derive(Debug, Default)]
struct CountedDeletes {
    objects: InMemory,
    requests: AtomicUsize,
}

impl fmt::Display for CountedDeletes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedDeletes")
    }
}

#[async_trait]
impl ObjectStore for CountedDeletes {
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
        self.objects.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.objects.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

async fn left(store: &CountedDeletes) -> usize {
    store.list(None).count().await
}

#[tokio::test(start_paused = true)]
async fn single_deletions_are_sent_together() {
    let below = Arc::<CountedDeletes>::default();
    let inner: Arc<dyn ObjectStore> = Arc::<CountedDeletes>::clone(&below);
    let tasks = Tasks::new(Handle::current());
    let store = JoinedDeletions::new(inner, &tasks);
    let paths: Vec<Path> = (0..300).map(|n| Path::from(format!("wal/{n}"))).collect();
    for path in &paths {
        below.put(path, "row".into()).await.unwrap();
    }
    for path in &paths {
        store.delete(path).await.unwrap();
    }
    tokio::time::sleep(COLLECTED_FOR * 3).await;
    assert_eq!(left(&below).await, 0);
    let sent = below.requests.load(Ordering::SeqCst);
    assert!((1..=2).contains(&sent), "{sent} requests");
    tasks.stop();
    tasks.join().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_sent_at_the_end_is_left() {
    let below = Arc::<CountedDeletes>::default();
    let inner: Arc<dyn ObjectStore> = Arc::<CountedDeletes>::clone(&below);
    let tasks = Tasks::new(Handle::current());
    let store = JoinedDeletions::new(inner, &tasks);
    let path = Path::from("wal/1");
    below.put(&path, "row".into()).await.unwrap();
    tasks.stop();
    tasks.join().await;
    store.delete(&path).await.unwrap();
    tokio::time::sleep(COLLECTED_FOR * 3).await;
    assert_eq!(left(&below).await, 1);
}
