use super::*;
use crate::sync::{AtomicUsize, Ordering};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

/// A store that counts the requests for objects.
#[derive(Debug, Default)]
struct CountedProbes {
    objects: InMemory,
    probes: AtomicUsize,
}

impl fmt::Display for CountedProbes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedProbes")
    }
}

#[async_trait]
impl ObjectStore for CountedProbes {
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
        self.probes.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.objects.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
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

fn log(number: u64) -> Path {
    Path::from(format!("x/meta/wal/{number:020}.sst"))
}

/// Probes as the engine does for the objects after `last`, and returns which exist.
async fn probe(store: &LogProbes, last: u64) -> Vec<u64> {
    let distances = (0..8).map(|exponent| 1_u64 << exponent);
    let probes = distances.map(|distance| async move {
        match store.head(&log(last + distance)).await {
            Ok(_) => Some(distance),
            Err(Error::NotFound { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    });
    let found = futures::future::join_all(probes).await;
    found.into_iter().flatten().collect()
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_grow_costs_one_request_a_poll() {
    let below = Arc::<CountedProbes>::default();
    let inner: Arc<dyn ObjectStore> = Arc::<CountedProbes>::clone(&below);
    let store = LogProbes::new(inner, Duration::from_millis(500), Arc::default());
    probe(&store, 7).await;
    below.probes.store(0, Ordering::SeqCst);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(probe(&store, 7).await, [0_u64; 0]);
    }
    assert_eq!(below.probes.load(Ordering::SeqCst), 10);
}

#[tokio::test(start_paused = true)]
async fn every_growth_is_found_by_the_next_poll() {
    for grown in 0..20_u64 {
        let below = Arc::<CountedProbes>::default();
        let inner: Arc<dyn ObjectStore> = Arc::<CountedProbes>::clone(&below);
        let store = LogProbes::new(inner, Duration::from_millis(500), Arc::default());
        let mut last = 0;
        for _ in 0..4 {
            for number in last + 1..=last + grown {
                below.put(&log(number), PutPayload::new()).await.unwrap();
            }
            let expected: Vec<u64> = (0..8)
                .map(|exponent| 1_u64 << exponent)
                .filter(|distance| *distance <= grown)
                .collect();
            assert_eq!(probe(&store, last).await, expected, "{grown} after {last}");
            last += grown;
            assert_eq!(probe(&store, last).await, [0_u64; 0], "behind {last}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
