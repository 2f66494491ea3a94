//! The object store of the index, behind the circuit breakers.
//!
//! The engine repeats every failed request after at most a second, without end. The breakers make these retries rarer and
//! keep the last error.
//! Invariant: a request whose future is dropped while it waits for a permit was never sent.

use super::base::{Base, is_store_failure, prefixed};
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

/// A place whose requests wait for the permit of a circuit breaker.
#[derive(Clone)]
pub(super) struct BreakerStore {
    base: Arc<Base>,
    prefix: Path,
    normal: Arc<PrefixStore<CountedStore>>,
}

impl BreakerStore {
    pub(super) fn new(base: Arc<Base>, prefix: Path) -> Self {
        Self {
            normal: prefixed(base.counted.clone(), &prefix),
            base,
            prefix,
        }
    }

    async fn acquire(&self, lane: Lane) -> (RequestPermit, Arc<PrefixStore<CountedStore>>) {
        let permit = self.base.acquire(lane).await;
        let store = match permit.mode {
            RequestMode::Normal => Arc::clone(&self.normal),
            RequestMode::Trial => prefixed(self.base.once().clone(), &self.prefix),
        };
        (permit, store)
    }

    /// Reports the outcome of a request that had `bytes` bytes to send, and returns it.
    fn report<T>(&self, permit: RequestPermit, outcome: Result<T>, bytes: usize) -> Result<T> {
        match outcome.as_ref().err().and_then(|e| self.store_failure(e)) {
            Some(error) => permit.failed(&error, bytes as u64),
            None => permit.succeeded(),
        }
        outcome
    }

    /// The error as a [`BackendError`] if it means that the store failed; `None` if it is an answer.
    fn store_failure(&self, error: &Error) -> Option<BackendError> {
        if is_past_end(error) || is_whole(error) || is_undecided(error) {
            return None;
        }
        let place = format!("{}/{}", self.base.location.url, self.prefix);
        Some(BackendError::from_store(place, error)).filter(is_store_failure)
    }
}

/// The lane of a write to an object of the index.
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

impl fmt::Debug for BreakerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BreakerStore({})", self.base.location.url)
    }
}

impl fmt::Display for BreakerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base.location.url)
    }
}

#[async_trait]
impl ObjectStore for BreakerStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        let bytes = payload.content_length();
        let (permit, store) = self.acquire(lane(at)).await;
        let put = store.put_opts(at, payload, o).await;
        self.report(permit, put, bytes)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (permit, store) = self.acquire(lane(at)).await;
        let begun = store.put_multipart_opts(at, options).await;
        Ok(Box::new(BreakerUpload {
            inner: self.report(permit, begun, 0)?,
            store: self.clone(),
            lane: lane(at),
        }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let (permit, store) = self.acquire(Lane::IndexReads).await;
        let got = store.get_opts(at, options).await;
        self.report(permit, got, 0)
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |keys: Vec<Result<Path>>| {
            let this = this.clone();
            async move {
                let (permit, store) = this.acquire(Lane::IndexDeletes).await;
                let keys = futures::stream::iter(keys).boxed();
                let gone: Vec<Result<Path>> = store.delete_stream(keys).collect().await;
                let failed = gone.iter().filter_map(|gone| gone.as_ref().err());
                match failed
                    .filter_map(|error| this.store_failure(error))
                    .next_back()
                {
                    Some(error) => permit.failed(&error, 0),
                    None => permit.succeeded(),
                }
                futures::stream::iter(gone)
            }
        };
        at.ready_chunks(DELETES).then(delete).flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let begin = async move {
            let (permit, store) = this.acquire(Lane::IndexReads).await;
            this.listed(permit, store.list(prefix.as_ref()))
        };
        begin.into_stream().flatten().boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix, offset) = (self.clone(), prefix.cloned(), offset.clone());
        let begin = async move {
            let (permit, store) = this.acquire(Lane::IndexReads).await;
            this.listed(permit, store.list_with_offset(prefix.as_ref(), &offset))
        };
        begin.into_stream().flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (permit, store) = self.acquire(Lane::IndexReads).await;
        let listed = store.list_with_delimiter(prefix).await;
        self.report(permit, listed, 0)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (permit, store) = self.acquire(lane(to)).await;
        let copied = store.copy_opts(from, to, options).await;
        self.report(permit, copied, 0)
    }
}

/// The number of objects that are deleted under one permit.
const DELETES: usize = 1000;

impl BreakerStore {
    /// A listing that reports to its permit at its first failure or at its end.
    fn listed(
        &self,
        permit: RequestPermit,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let this = self.clone();
        let state = (listing, Some(permit));
        let next =
            move |(mut listing, mut permit): (BoxStream<'static, _>, Option<RequestPermit>)| {
                let this = this.clone();
                async move {
                    let next = listing.try_next().await;
                    if !matches!(next, Ok(Some(_)))
                        && let Some(permit) = permit.take()
                    {
                        match next.as_ref().err().and_then(|e| this.store_failure(e)) {
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

/// A multipart upload whose requests wait for the permit of a circuit breaker.
struct BreakerUpload {
    inner: Box<dyn MultipartUpload>,
    store: BreakerStore,
    lane: Lane,
}

impl fmt::Debug for BreakerUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BreakerUpload")
    }
}

#[async_trait]
impl MultipartUpload for BreakerUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, lane, bytes) = (self.store.clone(), self.lane, data.content_length());
        let part = self.inner.put_part(data);
        Box::pin(async move {
            let permit = store.base.acquire(lane).await;
            let put = part.await;
            store.report(permit, put, bytes)
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let permit = self.store.base.acquire(self.lane).await;
        let done = self.inner.complete().await;
        self.store.report(permit, done, 0)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
