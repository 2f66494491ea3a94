//! The store as the index sees it: its requests wait while the store fails.
//!
//! The engine repeats what fails after at most a second, for ever; here it is slowed down, and the last reason is kept.
//! Invariant: a request that is dropped while it waits was never made.

use super::base::{Base, is_trouble, prefixed};
use super::circuit_breaker::{Lane, RequestMode, RequestPermit};
use super::counters::CountedStore;
use super::error::{BackendError, is_past_end, is_undecided, is_whole};
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
            usual: prefixed(base.counted.clone(), &prefix),
            base,
            prefix,
        }
    }

    async fn acquire(&self, lane: Lane) -> (RequestPermit, Arc<PrefixStore<CountedStore>>) {
        let permit = self.base.acquire(lane).await;
        let store = match permit.mode {
            RequestMode::Normal => Arc::clone(&self.usual),
            RequestMode::Trial => prefixed(self.base.once().clone(), &self.prefix),
        };
        (permit, store)
    }

    /// Ends a permit by what the store said of a request with so many bytes.
    fn ended<T>(&self, permit: RequestPermit, outcome: Result<T>, bytes: usize) -> Result<T> {
        match outcome.as_ref().err().and_then(|e| self.trouble(e)) {
            Some(error) => permit.failed(&error, bytes as u64),
            None => permit.succeeded(),
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
        let (permit, store) = self.acquire(lane(at)).await;
        let put = store.put_opts(at, payload, o).await;
        self.ended(permit, put, bytes)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (permit, store) = self.acquire(lane(at)).await;
        let begun = store.put_multipart_opts(at, options).await;
        Ok(Box::new(HeldUpload {
            inner: self.ended(permit, begun, 0)?,
            store: self.clone(),
            lane: lane(at),
        }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let (permit, store) = self.acquire(Lane::IndexReads).await;
        let got = store.get_opts(at, options).await;
        self.ended(permit, got, 0)
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let held = self.clone();
        let delete = move |keys: Vec<Result<Path>>| {
            let held = held.clone();
            async move {
                let (permit, store) = held.acquire(Lane::IndexDeletes).await;
                let keys = futures::stream::iter(keys).boxed();
                let gone: Vec<Result<Path>> = store.delete_stream(keys).collect().await;
                let failed = gone.iter().filter_map(|gone| gone.as_ref().err());
                match failed.filter_map(|error| held.trouble(error)).next_back() {
                    Some(error) => permit.failed(&error, 0),
                    None => permit.succeeded(),
                }
                futures::stream::iter(gone)
            }
        };
        at.ready_chunks(DELETES).then(delete).flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (held, prefix) = (self.clone(), prefix.cloned());
        let begin = async move {
            let (permit, store) = held.acquire(Lane::IndexReads).await;
            held.listed(permit, store.list(prefix.as_ref()))
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
            let (permit, store) = held.acquire(Lane::IndexReads).await;
            held.listed(permit, store.list_with_offset(prefix.as_ref(), &offset))
        };
        begin.into_stream().flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (permit, store) = self.acquire(Lane::IndexReads).await;
        let listed = store.list_with_delimiter(prefix).await;
        self.ended(permit, listed, 0)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (permit, store) = self.acquire(lane(to)).await;
        let copied = store.copy_opts(from, to, options).await;
        self.ended(permit, copied, 0)
    }
}

/// Objects that are removed in one permit.
const DELETES: usize = 1000;

impl HeldStore {
    /// A listing that ends its permit with the first failure, or with its end.
    fn listed(
        &self,
        permit: RequestPermit,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let held = self.clone();
        let state = (listing, Some(permit));
        let next =
            move |(mut listing, mut permit): (BoxStream<'static, _>, Option<RequestPermit>)| {
                let held = held.clone();
                async move {
                    let next = listing.try_next().await;
                    if !matches!(next, Ok(Some(_)))
                        && let Some(permit) = permit.take()
                    {
                        match next.as_ref().err().and_then(|e| held.trouble(e)) {
                            Some(error) => permit.failed(&error, 0),
                            None => permit.succeeded(),
                        }
                    }
                    Some((next.transpose()?, (listing, permit)))
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
            let permit = store.base.acquire(lane).await;
            let put = part.await;
            store.ended(permit, put, bytes)
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let permit = self.store.base.acquire(self.lane).await;
        let done = self.inner.complete().await;
        self.store.ended(permit, done, 0)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
