//! Answers to the engine's polls that are kept, so that an index that does not change costs few requests.
//!
//! The engine reads its manifest every second and its list of compactions every five, several times at once: it asks for the next number, which
//! does not exist, and for the boundary of its garbage collection. That small object is always asked for as a whole, so that one answer serves
//! all who ask, whatever entity tag they know. This process is the only one that writes them, unless another
//! writer takes the index, so an answer stays right until this process writes, and is asked for again after [`PollConfig::keep`].
//!
//! While the index is opened, an inspection and then the engine read the same manifests and listings, one after the other. One answer
//! serves all of them for [`OPENING_KEPT`], and the boundary is asked for at the same time as the manifest that it is about. An answer
//! may be old, because another writer may open the index at the same time. Then the engine's next write, which is conditional, fails,
//! and what it reads afterwards is asked for.
//!
//! Invariants: what was read before a write is no answer after it: a write or a deletion
//! of such an object drops every answer, also those of requests that are under way. So does a pause of the process, which shows
//! as a late poll, or a failure of the store: another writer may have taken the index meanwhile. Nothing that was read during the open is
//! an answer after it.

use super::verified::OpenedFlag;
use crate::sync::{Arc, Mutex, lock};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// How long answers are kept while the index is opened.
const OPENING_KEPT: Duration = Duration::from_secs(5);

/// How long answers are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct PollConfig {
    /// The age at which an answer is asked for again.
    pub(super) keep: Duration,
    /// The time between two polls of the manifest from which the process counts as paused.
    pub(super) pause: Duration,
}

/// A store whose answers to polls are kept; all other requests are passed through.
pub(super) struct PollStore {
    inner: Arc<dyn ObjectStore>,
    config: PollConfig,
    opened: OpenedFlag,
    answers: Arc<KeptAnswers>,
    turns: PollTurns,
}

/// The polls that are under way: a second poll of the same object waits for the answer to the first.
#[derive(Debug, Default)]
struct PollTurns(Mutex<Vec<(Path, Turn)>>);

type Turn = Arc<tokio::sync::Mutex<()>>;

impl PollTurns {
    /// Returns what a poll of the object holds during its request.
    fn of(&self, at: &Path) -> Turn {
        let mut turns = lock(&self.0);
        turns.retain(|(_, turn)| Arc::strong_count(turn) > 1);
        if let Some((_, turn)) = turns.iter().find(|(path, _)| path == at) {
            return Arc::clone(turn);
        }
        let turn = Turn::default();
        turns.push((at.clone(), Arc::clone(&turn)));
        turn
    }
}

/// The answers, and what ends them.
#[derive(Debug, Default)]
pub(super) struct KeptAnswers(Mutex<AnswerTable>);

#[derive(Debug, Default)]
struct AnswerTable {
    /// Counts the events that drop all answers.
    generation: u64,
    answers: Vec<KeptAnswer>,
    /// The listing of the manifests, while the index is opened.
    listing: Option<ManifestListing>,
    last_poll: Option<PollTime>,
    /// The newest objects of each folder that were written or found. Their keys ascend with their numbers.
    newest: Vec<Path>,
}

impl AnswerTable {
    fn drop_all(&mut self) {
        self.generation += 1;
        self.answers.clear();
        self.listing = None;
    }

    /// Notes that a numbered object exists. Returns whether it is newer than those that are known.
    fn note(&mut self, at: &Path) -> bool {
        let known = self.newest.iter_mut().find(|one| folder(one) == folder(at));
        match known {
            Some(known) if *known >= *at => return false,
            Some(known) => *known = at.clone(),
            None => self.newest.push(at.clone()),
        }
        true
    }
}

/// The objects of a folder.
#[derive(Debug, Clone)]
struct ManifestListing {
    folder: Path,
    since: Instant,
    objects: Vec<ObjectMeta>,
}

/// Whether an answer was given while the index was opened. Then it is none afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
}

/// An answer, the object it is about, and when it came.
#[derive(Debug, Clone)]
struct KeptAnswer {
    at: Path,
    since: Instant,
    phase: Phase,
    answer: Answer,
}

#[derive(Debug, Clone)]
enum Answer {
    NotFound,
    /// A boundary, or a state that was read during the open.
    Found(ObjectMeta, Attributes, Bytes),
}

/// A moment on tokio's clock, and on the machine's clock that also runs while the machine sleeps.
#[derive(Debug, Clone, Copy)]
struct PollTime {
    awake: Instant,
    machine: Duration,
}

impl PollTime {
    fn now() -> Self {
        let machine = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(machine.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(machine.tv_nsec).unwrap_or(0);
        Self {
            awake: Instant::now(),
            machine: Duration::new(seconds, nanos),
        }
    }

    fn since(self, earlier: Self) -> Duration {
        let awake = self.awake.saturating_duration_since(earlier.awake);
        awake.max(self.machine.saturating_sub(earlier.machine))
    }
}

impl KeptAnswers {
    /// Drops every answer: the next poll is a request.
    pub(super) fn drop_all(&self) {
        lock(&self.0).drop_all();
    }

    /// Returns a kept listing of a folder; without one, the generation that a new listing belongs to.
    fn listing(&self, folder: &Path) -> std::result::Result<Vec<ObjectMeta>, u64> {
        let table = lock(&self.0);
        let kept = table.listing.as_ref();
        let kept =
            kept.filter(|kept| kept.folder == *folder && kept.since.elapsed() < OPENING_KEPT);
        kept.map(|kept| kept.objects.clone())
            .ok_or(table.generation)
    }

    fn keep_listing(&self, generation: u64, listing: ManifestListing) {
        let mut table = lock(&self.0);
        if table.generation == generation {
            table.listing = Some(listing);
        }
    }

    /// Notes that a numbered object was written or found. One that is newer than those that are known is a new state.
    fn note(&self, at: &Path) {
        if lock(&self.0).note(at) {
            self.drop_all();
        }
    }

    /// Finds the answer to a request; without one, returns the generation that a new answer belongs to.
    fn find(&self, at: &Path, phase: Phase, config: PollConfig) -> Lookup {
        let now = PollTime::now();
        let mut table = lock(&self.0);
        if is_manifest(at) {
            let last = table.last_poll.replace(now);
            if last.is_some_and(|last| now.since(last) >= config.pause) {
                table.drop_all();
            }
        }
        let AnswerTable { answers, .. } = &mut *table;
        let keep = match phase {
            Phase::Opening => OPENING_KEPT,
            Phase::Open => config.keep,
        };
        answers.retain(|one| {
            one.phase == phase && now.awake.saturating_duration_since(one.since) < keep
        });
        match answers.iter().find(|one| one.at == *at) {
            Some(one) => Lookup::Kept(one.answer.clone()),
            None => Lookup::Unknown(table.generation),
        }
    }

    fn keep(&self, generation: u64, kept: KeptAnswer) {
        let mut table = lock(&self.0);
        if table.generation == generation {
            table.answers.push(kept);
        }
    }
}

enum Lookup {
    Kept(Answer),
    Unknown(u64),
}

impl Answer {
    /// The result of a read by a caller that knows the object with the entity tag `known`.
    fn into_result(self, at: &Path, known: Option<&str>) -> Result<GetResult> {
        let path = at.to_string();
        let source = "an earlier answer".into();
        match self {
            Self::NotFound => Err(Error::NotFound { path, source }),
            Self::Found(meta, ..) if known.is_some() && meta.e_tag.as_deref() == known => {
                Err(Error::NotModified { path, source })
            }
            Self::Found(meta, attributes, bytes) => Ok(GetResult {
                payload: GetResultPayload::Stream(
                    stream::once(std::future::ready(Ok(bytes))).boxed(),
                ),
                range: 0..meta.size,
                meta,
                attributes,
                extensions: object_store::Extensions::default(),
            }),
        }
    }
}

impl PollStore {
    /// Wraps `inner`. Until `opened` is set, answers are kept for the open.
    pub(super) fn new(
        inner: Arc<dyn ObjectStore>,
        config: PollConfig,
        opened: OpenedFlag,
        answers: Arc<KeptAnswers>,
    ) -> Self {
        Self {
            inner,
            config,
            opened,
            answers,
            turns: PollTurns::default(),
        }
    }

    fn phase(&self) -> Phase {
        match self.opened.is_set() {
            true => Phase::Open,
            false => Phase::Opening,
        }
    }

    /// Answers a request for a polled object. While the index is opened, the boundary of its garbage collection is asked for at the same time,
    /// because the engine wants it next.
    async fn poll(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(boundary) = boundary_of(at).filter(|_| self.phase() == Phase::Opening) else {
            return self.ask(at, options).await;
        };
        let early = self.ask(&boundary, GetOptions::default());
        let (answer, early) = futures::join!(self.ask(at, options), early);
        if let Err(error) = early {
            tracing::trace!(%error, "the boundary was not read early");
        }
        answer
    }

    /// Answers from what is kept, or with a request.
    async fn ask(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let known = options.if_none_match.as_deref();
        let phase = self.phase();
        if let Lookup::Kept(answer) = self.answers.find(at, phase, self.config) {
            return answer.into_result(at, known);
        }
        let turn = self.turns.of(at);
        let _asking = turn.lock().await;
        let generation = match self.answers.find(at, phase, self.config) {
            Lookup::Kept(answer) => return answer.into_result(at, known),
            Lookup::Unknown(generation) => generation,
        };
        let whole = GetOptions {
            if_none_match: None,
            ..options.clone()
        };
        let answer = match self.inner.get_opts(at, whole).await {
            Ok(got) if is_boundary(at) || phase == Phase::Opening => {
                let (meta, attributes) = (got.meta.clone(), got.attributes.clone());
                Answer::Found(meta, attributes, got.bytes().await?)
            }
            // In a new state, what was said about others is old. The garbage collection also reads states before it.
            Ok(got) => {
                self.answers.note(at);
                return Ok(got);
            }
            Err(Error::NotFound { .. }) => Answer::NotFound,
            // While the store fails, much can happen that is not seen.
            Err(error) => {
                self.answers.drop_all();
                return Err(error);
            }
        };
        let kept = KeptAnswer {
            at: at.clone(),
            since: Instant::now(),
            phase,
            answer: answer.clone(),
        };
        self.answers.keep(generation, kept);
        answer.into_result(at, known)
    }

    /// Lists the manifests for all who ask during the open.
    fn list_once(&self, folder: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let generation = match self.answers.listing(folder) {
            Ok(objects) => return stream::iter(objects.into_iter().map(Ok)).boxed(),
            Err(generation) => generation,
        };
        let (listing, answers) = (self.inner.list(Some(folder)), Arc::clone(&self.answers));
        let folder = folder.clone();
        let all = async move {
            let since = Instant::now();
            let objects: Vec<ObjectMeta> = listing.try_collect().await?;
            let kept = ManifestListing {
                folder,
                since,
                objects: objects.clone(),
            };
            answers.keep_listing(generation, kept);
            let all: Result<_> = Ok(stream::iter(objects.into_iter().map(Ok)));
            all
        };
        stream::once(all).try_flatten().boxed()
    }
}

/// The boundary that the engine asks for after it has read a numbered state; `None` for a boundary.
fn boundary_of(at: &Path) -> Option<Path> {
    let kind = folder(at);
    let place = at.as_ref().strip_suffix(at.filename()?)?;
    let place = place.strip_suffix(&format!("{kind}/"))?;
    (kind != "gc").then(|| Path::from(format!("{place}gc/{kind}.boundary")))
}

fn folder(at: &Path) -> &str {
    let mut parts = at.as_ref().rsplit('/');
    parts.next();
    parts.next().unwrap_or_default()
}

fn is_manifest(at: &Path) -> bool {
    folder(at) == "manifest"
}

fn is_boundary(at: &Path) -> bool {
    folder(at) == "gc"
}

/// Tells whether the engine polls an object.
fn is_polled(at: &Path) -> bool {
    matches!(folder(at), "manifest" | "compactions" | "gc")
}

/// Tells whether a request is for a whole object without conditions; a boundary may be asked for with an entity tag.
fn is_poll(at: &Path, options: &GetOptions) -> bool {
    !options.head
        && (options.if_none_match.is_none() || is_boundary(at))
        && options.range.is_none()
        && options.version.is_none()
        && options.if_match.is_none()
        && options.if_modified_since.is_none()
        && options.if_unmodified_since.is_none()
}

impl fmt::Debug for PollStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PollStore({:?})", self.inner)
    }
}

impl fmt::Display for PollStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for PollStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        // During the open, an object of the log fences another writer: what was read before it says nothing about that one.
        if !is_polled(at) && self.phase() == Phase::Open {
            return self.inner.put_opts(at, payload, o).await;
        }
        // Twice: an answer may come before the write and be kept during it.
        self.answers.drop_all();
        let put = self.inner.put_opts(at, payload, o).await;
        self.answers.drop_all();
        if put.is_ok() && is_polled(at) && !is_boundary(at) {
            self.answers.note(at);
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if is_polled(at) && is_poll(at, &options) {
            return self.poll(at, options).await;
        }
        let got = self.inner.get_opts(at, options).await;
        if matches!(got, Err(Error::NotFound { .. })) && folder(at) == "compacted" {
            // Another process has deleted a table, so there is a newer manifest.
            self.answers.drop_all();
        }
        got
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let answers = Arc::clone(&self.answers);
        self.inner
            .delete_stream(at)
            .inspect(move |deleted| {
                if deleted.as_ref().map_or(true, is_polled) {
                    answers.drop_all();
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match prefix.filter(|prefix| prefix.filename() == Some("manifest")) {
            Some(folder) if self.phase() == Phase::Opening => self.list_once(folder),
            _ => self.inner.list(prefix),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
#[path = "polls_tests.rs"]
mod tests;
