//! The store as the index sees it: its requests wait while the store fails.
//!
//! The engine repeats what fails after at most a second, for ever; here it is slowed down, and the last reason is kept.
//! Invariant: a request that is dropped while it waits was never made.

use super::circuit::{Turn, Way};
use super::counters::CountedStore;
use super::error::{BackendError, is_past_end, is_undecided, is_whole};
use super::upload::is_trouble;
use super::{Base, Lane};
use crate::sync::Arc;
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt;

/// A place whose requests are held back.
#[derive(Clone)]
pub(super) struct HeldStore {
    base: Arc<Base>,
    prefix: Path,
    usual: Arc<PrefixStore<CountedStore>>,
}

impl HeldStore {
    pub(super) fn new(base: Arc<Base>, prefix: Path) -> Self {
        Self {
            usual: super::prefixed(base.counted.clone(), &prefix),
            base,
            prefix,
        }
    }

    async fn turn(&self, lane: Lane) -> (Turn, Arc<PrefixStore<CountedStore>>) {
        let turn = self.base.turn(lane).await;
        let store = match turn.way {
            Way::Open => Arc::clone(&self.usual),
            Way::Try => super::prefixed(self.base.once().clone(), &self.prefix),
        };
        (turn, store)
    }

    /// Ends a turn by what the store said of a request with so many bytes.
    fn ended<T>(&self, turn: Turn, outcome: Result<T>, bytes: usize) -> Result<T> {
        match outcome.as_ref().err().and_then(|e| self.trouble(e)) {
            Some(error) => turn.failed(&error, bytes as u64),
            None => turn.answered(),
        }
        outcome
    }

    /// What fails, in our words; `None` for an answer.
    fn trouble(&self, error: &Error) -> Option<BackendError> {
        if is_past_end(error) || is_whole(error) || is_undecided(error) {
            return None;
        }
        let place = format!("{}/{}", self.base.location.url, self.prefix);
        Some(BackendError::from_store(place, error)).filter(is_trouble)
    }
}

/// The lane of what is written at a place of the index.
fn lane(at: &Path) -> Lane {
    let has = |part: &str| at.parts().any(|p| p.as_ref() == part);
    if has("wal") {
        Lane::IndexLog
    } else if has("compacted") {
        Lane::IndexTables
    } else {
        Lane::IndexState
    }
}

impl fmt::Debug for HeldStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldStore({})", self.base.location.url)
    }
}

impl fmt::Display for HeldStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base.location.url)
    }
}

#[async_trait]
impl ObjectStore for HeldStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        let bytes = payload.content_length();
        let (turn, store) = self.turn(lane(at)).await;
        let put = store.put_opts(at, payload, o).await;
        self.ended(turn, put, bytes)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (turn, store) = self.turn(lane(at)).await;
        let begun = store.put_multipart_opts(at, options).await;
        Ok(Box::new(HeldUpload {
            inner: self.ended(turn, begun, 0)?,
            store: self.clone(),
            lane: lane(at),
        }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let (turn, store) = self.turn(Lane::IndexReads).await;
        let got = store.get_opts(at, options).await;
        self.ended(turn, got, 0)
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let held = self.clone();
        let delete = move |keys: Vec<Result<Path>>| {
            let held = held.clone();
            async move {
                let (turn, store) = held.turn(Lane::IndexDeletes).await;
                let keys = futures::stream::iter(keys).boxed();
                let gone: Vec<Result<Path>> = store.delete_stream(keys).collect().await;
                let failed = gone.iter().filter_map(|gone| gone.as_ref().err());
                match failed.filter_map(|error| held.trouble(error)).next_back() {
                    Some(error) => turn.failed(&error, 0),
                    None => turn.answered(),
                }
                futures::stream::iter(gone)
            }
        };
        at.ready_chunks(DELETES).then(delete).flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (held, prefix) = (self.clone(), prefix.cloned());
        let begin = async move {
            let (turn, store) = held.turn(Lane::IndexReads).await;
            held.listed(turn, store.list(prefix.as_ref()))
        };
        begin.into_stream().flatten().boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (held, prefix, offset) = (self.clone(), prefix.cloned(), offset.clone());
        let begin = async move {
            let (turn, store) = held.turn(Lane::IndexReads).await;
            held.listed(turn, store.list_with_offset(prefix.as_ref(), &offset))
        };
        begin.into_stream().flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (turn, store) = self.turn(Lane::IndexReads).await;
        let listed = store.list_with_delimiter(prefix).await;
        self.ended(turn, listed, 0)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (turn, store) = self.turn(lane(to)).await;
        let copied = store.copy_opts(from, to, options).await;
        self.ended(turn, copied, 0)
    }
}

/// Objects that are removed in one turn.
const DELETES: usize = 1000;

impl HeldStore {
    /// A listing that ends its turn with the first failure, or with its end.
    fn listed(
        &self,
        turn: Turn,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let held = self.clone();
        let state = (listing, Some(turn));
        let next = move |(mut listing, mut turn): (BoxStream<'static, _>, Option<Turn>)| {
            let held = held.clone();
            async move {
                let next = listing.try_next().await;
                if !matches!(next, Ok(Some(_)))
                    && let Some(turn) = turn.take()
                {
                    match next.as_ref().err().and_then(|e| held.trouble(e)) {
                        Some(error) => turn.failed(&error, 0),
                        None => turn.answered(),
                    }
                }
                Some((next.transpose()?, (listing, turn)))
            }
        };
        futures::stream::unfold(state, next).boxed()
    }
}

/// An upload in parts whose requests are held back.
struct HeldUpload {
    inner: Box<dyn MultipartUpload>,
    store: HeldStore,
    lane: Lane,
}

impl fmt::Debug for HeldUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldUpload")
    }
}

#[async_trait]
impl MultipartUpload for HeldUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, lane, bytes) = (self.store.clone(), self.lane, data.content_length());
        let part = self.inner.put_part(data);
        Box::pin(async move {
            let turn = store.base.turn(lane).await;
            let put = part.await;
            store.ended(turn, put, bytes)
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let turn = self.store.base.turn(self.lane).await;
        let done = self.inner.complete().await;
        self.store.ended(turn, done, 0)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
