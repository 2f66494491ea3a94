//! Answers to the engine's polls that are kept, so that an index that does not change costs few requests.
//!
//! The engine reads its manifest every second and its list of compactions every five, several times at once: it asks for the next number, which
//! does not exist, and for the boundary of its garbage collection. That small object is always asked for as a whole, so that one answer serves
//! all who ask, whatever entity tag they know. This process is the only one that writes them, unless another
//! writer takes the index, so an answer stays right until this process writes, and is asked for again after [`PollConfig::keep`].
//!
//! Invariants: before the index is open, nothing is kept, because the engine then checks that it is the only writer. A write or a deletion
//! of such an object drops every answer, also those of requests that are under way. So does a pause of the process, which shows
//! as a late poll, or a failure of the store: another writer may have taken the index meanwhile.

use super::verified::OpenedFlag;
use crate::sync::{Arc, Mutex, lock};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
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
    last_poll: Option<PollTime>,
    /// The newest objects of each folder that were written or found. Their keys ascend with their numbers.
    newest: Vec<Path>,
}

impl AnswerTable {
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

/// An answer, the object it is about, and when it came.
#[derive(Debug, Clone)]
struct KeptAnswer {
    at: Path,
    since: Instant,
    answer: Answer,
}

#[derive(Debug, Clone)]
enum Answer {
    NotFound,
    /// A small object.
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
        let mut table = lock(&self.0);
        table.generation += 1;
        table.answers.clear();
    }

    /// Notes that a numbered object was written or found. One that is newer than those that are known is a new state.
    fn note(&self, at: &Path) {
        if lock(&self.0).note(at) {
            self.drop_all();
        }
    }

    /// Finds the answer to a request; without one, returns the generation that a new answer belongs to.
    fn find(&self, at: &Path, config: PollConfig) -> Lookup {
        let now = PollTime::now();
        let mut table = lock(&self.0);
        if is_manifest(at) {
            let last = table.last_poll.replace(now);
            if last.is_some_and(|last| now.since(last) >= config.pause) {
                table.generation += 1;
                table.answers.clear();
            }
        }
        let AnswerTable { answers, .. } = &mut *table;
        answers.retain(|one| now.awake.saturating_duration_since(one.since) < config.keep);
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
                    futures::stream::once(std::future::ready(Ok(bytes))).boxed(),
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
    /// Wraps `inner`. Answers are kept from the moment when `opened` is set.
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

    async fn poll(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let known = options.if_none_match.as_deref();
        if let Lookup::Kept(answer) = self.answers.find(at, self.config) {
            return answer.into_result(at, known);
        }
        let turn = self.turns.of(at);
        let _asking = turn.lock().await;
        let generation = match self.answers.find(at, self.config) {
            Lookup::Kept(answer) => return answer.into_result(at, known),
            Lookup::Unknown(generation) => generation,
        };
        let whole = GetOptions {
            if_none_match: None,
            ..options.clone()
        };
        let answer = match self.inner.get_opts(at, whole).await {
            Ok(got) if is_boundary(at) => {
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
            answer: answer.clone(),
        };
        self.answers.keep(generation, kept);
        answer.into_result(at, known)
    }
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
        if !is_polled(at) {
            return self.inner.put_opts(at, payload, o).await;
        }
        // Twice: an answer may come before the write and be kept during it.
        self.answers.drop_all();
        let put = self.inner.put_opts(at, payload, o).await;
        self.answers.drop_all();
        if put.is_ok() && !is_boundary(at) {
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
        if is_polled(at) && is_poll(at, &options) && self.opened.is_set() {
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
        self.inner.list(prefix)
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
