//! A bucket in memory that is slow, fails before or after it has done the work, and cuts off machines.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::randomness::Dice;

/// How bad the bucket is at present, in thousandths of the requests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// The longest delay of a request, in milliseconds.
    pub(crate) delay: u64,
    /// Requests that fail and do nothing.
    pub(crate) fails_before: u64,
    /// Requests that fail after the work is done.
    pub(crate) fails_after: u64,
}

/// What the bucket does wrong without saying so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Honesty {
    Honest,
    /// It loses some segments that it has acknowledged.
    LosesSegments,
}

/// A bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    objects: InMemory,
    honesty: Honesty,
    began: Instant,
    start: SystemTime,
    state: Mutex<BucketState>,
}

#[derive(Debug)]
struct BucketState {
    dice: Dice,
    weather: Weather,
    /// When each object was written last.
    written: HashMap<Path, SystemTime>,
    digest: u64,
    requests: u64,
}

/// Whether a process reaches the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkState {
    Connected,
    /// Its requests wait.
    Partitioned,
    /// It has crashed: none of its requests has an effect or an end any more.
    Dead,
}

/// The bucket as one process reaches it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    bucket: Arc<Bucket>,
    state: Arc<watch::Sender<LinkState>>,
}

/// Whether a request fails after its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Told,
    Lost,
}

impl Bucket {
    pub(crate) fn new(seed: u64, honesty: Honesty) -> Arc<Self> {
        Arc::new(Self {
            objects: InMemory::new(),
            honesty,
            began: Instant::now(),
            // Whole seconds, as stores tell them.
            start: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_210_008),
            state: Mutex::new(BucketState {
                dice: Dice::new(seed ^ 0xb0c4e7),
                weather: Weather::default(),
                written: HashMap::new(),
                digest: 0,
                requests: 0,
            }),
        })
    }

    pub(crate) fn link(self: &Arc<Self>) -> Link {
        Link {
            bucket: Arc::clone(self),
            state: Arc::new(watch::Sender::new(LinkState::Connected)),
        }
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state.lock().unwrap().weather = weather;
    }

    /// A number that follows from all requests and their times, and the number of requests.
    pub(crate) fn digest(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap();
        (state.digest, state.requests)
    }

    /// Adds what happened to the digest, with its millisecond. What happens in the same millisecond has no order.
    pub(crate) fn note(&self, what: &str) {
        let elapsed = self.began.elapsed().as_millis();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in what.bytes().chain(elapsed.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut state = self.state.lock().unwrap();
        state.digest = state.digest.wrapping_add(hash);
    }

    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let state = self.state.lock().unwrap();
        if let Some(at) = state.written.get(&meta.location) {
            meta.last_modified = (*at).into();
        }
        meta
    }

    fn wrote(&self, at: &Path) {
        let now = self.start + self.began.elapsed();
        self.state.lock().unwrap().written.insert(at.clone(), now);
    }

    fn loses(&self, at: &Path) -> bool {
        self.honesty == Honesty::LosesSegments
            && at.as_ref().contains("/data/")
            && self.state.lock().unwrap().dice.in_thousand(200)
    }
}

impl Link {
    pub(crate) fn set(&self, state: LinkState) {
        // A process that has crashed stays so.
        self.state.send_if_modified(|now| {
            let changes = *now != LinkState::Dead && *now != state;
            if changes {
                *now = state;
            }
            changes
        });
    }

    /// Waits for the request to arrive.
    async fn arrive(&self, what: &str, at: &Path) -> Result<Outcome> {
        let (delay, drawn, weather) = {
            let mut state = self.bucket.state.lock().unwrap();
            state.requests += 1;
            let weather = state.weather;
            let delay = match weather.delay {
                0 => 0,
                most => 1 + state.dice.below(most),
            };
            (delay, state.dice.below(1000), weather)
        };
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let mut link = self.state.subscribe();
        // A closed channel means that the process is gone.
        if link
            .wait_for(|state| *state == LinkState::Connected)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
        // Names of tables have random parts, which follow from the machine's clock too.
        let folder = at
            .as_ref()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        self.bucket.note(&format!("{what} {folder}"));
        if drawn < weather.fails_before {
            return Err(busy(at));
        }
        Ok(match drawn < weather.fails_before + weather.fails_after {
            true => Outcome::Lost,
            false => Outcome::Told,
        })
    }
}

fn busy(at: &Path) -> Error {
    Error::Generic {
        store: "simulated",
        source: format!("{at}: Server returned non-2xx status code: 503 Service Unavailable")
            .into(),
    }
}

fn told<T>(outcome: Outcome, at: &Path, value: T) -> Result<T> {
    match outcome {
        Outcome::Told => Ok(value),
        Outcome::Lost => Err(busy(at)),
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated bucket")
    }
}

#[async_trait]
impl ObjectStore for Link {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let outcome = self.arrive("put", at).await?;
        if self.bucket.loses(at) {
            let version = None;
            return Ok(PutResult {
                e_tag: None,
                version,
                ..self
                    .bucket
                    .objects
                    .put_opts(&Path::from("lost"), payload, PutOptions::default())
                    .await?
            });
        }
        let written = self.bucket.objects.put_opts(at, payload, options).await?;
        self.bucket.wrote(at);
        told(outcome, at, written)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let outcome = self.arrive("multipart", at).await?;
        self.bucket.wrote(at);
        told(
            outcome,
            at,
            self.bucket.objects.put_multipart_opts(at, options).await?,
        )
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let outcome = self.arrive("get", at).await?;
        let mut got = self.bucket.objects.get_opts(at, options).await?;
        got.meta = self.bucket.dated(got.meta);
        told(outcome, at, got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let link = self.clone();
        locations
            .and_then(move |at| {
                let link = link.clone();
                async move {
                    let outcome = link.arrive("delete", &at).await?;
                    let one = stream::iter([Ok(at.clone())]).boxed();
                    let deleted: Vec<Path> =
                        link.bucket.objects.delete_stream(one).try_collect().await?;
                    told(
                        outcome,
                        &at,
                        deleted.into_iter().next().unwrap_or(at.clone()),
                    )
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (link, at) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listing = async move {
            let outcome = link.arrive("list", &at).await?;
            let found: Vec<ObjectMeta> = link.bucket.objects.list(Some(&at)).try_collect().await?;
            let found: Vec<Result<ObjectMeta>> = found
                .into_iter()
                .map(|meta| Ok(link.bucket.dated(meta)))
                .collect();
            told(outcome, &at, stream::iter(found))
        };
        stream::once(listing).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let at = prefix.cloned().unwrap_or_default();
        let outcome = self.arrive("folders", &at).await?;
        let mut found = self.bucket.objects.list_with_delimiter(prefix).await?;
        found.objects = found
            .objects
            .into_iter()
            .map(|meta| self.bucket.dated(meta))
            .collect();
        told(outcome, &at, found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let outcome = self.arrive("copy", from).await?;
        self.bucket.objects.copy_opts(from, to, options).await?;
        self.bucket.wrote(to);
        told(outcome, to, ())
    }
}
