//! Counters of requests and bytes, and a uniform result for two requests whose answers differ between stores: a listing with
//! an offset, and a conditional write during another one of the same key.
//!
//! Invariant: every request of this program, also of the index, passes one [`CountedStore`]. A request is one call of
//! `ObjectStore`; retries and pages inside a call are not counted.

use super::bounds::{BodyRest, ListingSize, READ_MAX, read_len, with_all_pages};
use super::error::{BackendError, undecided};
use crate::sync::{Arc, AtomicU64, Ordering};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use std::fmt;

/// The requests of a backend and its children since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Writes of objects and of their parts, and copies.
    pub put: u64,
    /// Reads of objects or ranges.
    pub get: u64,
    /// Listings.
    pub list: u64,
    /// Deletions of objects.
    pub delete: u64,
    /// Reads of an object's size and date only.
    pub head: u64,
    /// Bytes sent, also by requests that failed.
    pub bytes_up: u64,
    /// Bytes received.
    pub bytes_down: u64,
    /// Failed requests, retries included. "Not found" and "already exists" are not failures.
    pub failures: u64,
}

/// The running counts behind [`Counters`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    put: AtomicU64,
    get: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    head: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    failures: AtomicU64,
}

impl Tally {
    /// Reads the counters one by one.
    pub(super) fn snapshot(&self) -> Counters {
        Counters {
            put: self.put.load(Ordering::Relaxed),
            get: self.get.load(Ordering::Relaxed),
            list: self.list.load(Ordering::Relaxed),
            delete: self.delete.load(Ordering::Relaxed),
            head: self.head.load(Ordering::Relaxed),
            bytes_up: self.bytes_up.load(Ordering::Relaxed),
            bytes_down: self.bytes_down.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// Counts a hard link in place of a write as if the bytes had been sent.
    pub(super) fn linked<T>(&self, len: u64, result: &std::result::Result<T, BackendError>) {
        add(&self.put, 1);
        add(&self.bytes_up, len);
        let answers = |e: &BackendError| {
            matches!(
                e,
                BackendError::AlreadyExists { .. } | BackendError::Unsupported { .. }
            )
        };
        if result.as_ref().is_err_and(|error| !answers(error)) {
            add(&self.failures, 1);
        }
    }

    fn sent(&self, payload: &PutPayload) {
        add(&self.put, 1);
        add(&self.bytes_up, payload.content_length() as u64);
    }

    fn outcome<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && is_failure(error)
        {
            add(&self.failures, 1);
        }
        result
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Tells whether an error is a failure and not an answer.
fn is_failure(error: &Error) -> bool {
    !matches!(
        error,
        Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
    )
}

/// A store that counts requests. Its `Debug` shows the URL alone, because the inner store may hold secrets.
#[derive(Clone)]
pub(super) struct CountedStore {
    url: Arc<str>,
    inner: Arc<dyn ObjectStore>,
    tally: Arc<Tally>,
}

impl CountedStore {
    /// Wraps `inner`, which messages name `url`.
    pub(super) fn new(url: &str, inner: Arc<dyn ObjectStore>, tally: Arc<Tally>) -> Self {
        Self {
            url: url.into(),
            inner,
            tally,
        }
    }
}

impl fmt::Debug for CountedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CountedStore({})", self.url)
    }
}

impl fmt::Display for CountedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[async_trait]
impl ObjectStore for CountedStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        self.tally.sent(&payload);
        let put = self.inner.put_opts(at, payload, o).await;
        self.tally.outcome(put.map_err(undecided))
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        add(&self.tally.put, 1);
        let upload = self.inner.put_multipart_opts(at, options).await;
        Ok(Box::new(CountedUpload {
            inner: self.tally.outcome(upload)?,
            tally: Arc::clone(&self.tally),
        }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = match options.head {
            true => &self.tally.head,
            false => &self.tally.get,
        };
        add(kind, 1);
        let head = options.head;
        let mut result = self.tally.outcome(self.inner.get_opts(at, options).await)?;
        if !head {
            let len = self.tally.outcome(read_len(&result.range, READ_MAX))?;
            result.payload = self.counted_payload(at, result.payload, len);
        }
        Ok(result)
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let asked = Arc::clone(&self.tally);
        let answered = Arc::clone(&self.tally);
        let at = at.inspect(move |_| add(&asked.delete, 1)).boxed();
        self.inner
            .delete_stream(at)
            .map(move |result| answered.outcome(result))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        add(&self.tally.list, 1);
        let tally = Arc::clone(&self.tally);
        let mut size = ListingSize::default();
        self.inner
            .list(prefix)
            .map(move |result| tally.outcome(result.and_then(|found| size.add(found))))
            .boxed()
    }

    // The default of the trait fetches the whole listing and filters it. The filter stays, because Azure's emulator ignores
    // the offset unless it is declared as the emulator.
    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        add(&self.tally.list, 1);
        let tally = Arc::clone(&self.tally);
        let behind = offset.clone();
        let mut size = ListingSize::default();
        self.inner
            .list_with_offset(prefix, offset)
            .map(move |result| tally.outcome(result.and_then(|found| size.add(found))))
            .try_filter(move |found| std::future::ready(found.location > behind))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        add(&self.tally.list, 1);
        let listing = with_all_pages(self.inner.list_with_delimiter(prefix));
        self.tally.outcome(listing.await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        add(&self.tally.put, 1);
        self.tally
            .outcome(self.inner.copy_opts(from, to, options).await)
    }
}

impl CountedStore {
    /// Counts the bytes of a body of `len` bytes while it is read; those of a local file at once. A longer body ends with an error.
    fn counted_payload(&self, at: &Path, payload: GetResultPayload, len: u64) -> GetResultPayload {
        let tally = Arc::clone(&self.tally);
        match payload {
            GetResultPayload::Stream(stream) => {
                let (at, mut rest) = (at.clone(), BodyRest::new(len));
                let counted = move |chunk: Result<Bytes>| -> Result<Bytes> {
                    let chunk = tally.outcome(chunk)?;
                    add(&tally.bytes_down, chunk.len() as u64);
                    tally.outcome(rest.take(&at, chunk.len()))?;
                    Ok(chunk)
                };
                GetResultPayload::Stream(stream.map(counted).boxed())
            }
            file => {
                add(&tally.bytes_down, len);
                file
            }
        }
    }
}

/// A multipart upload that counts its requests.
struct CountedUpload {
    inner: Box<dyn MultipartUpload>,
    tally: Arc<Tally>,
}

impl fmt::Debug for CountedUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedUpload")
    }
}

#[async_trait]
impl MultipartUpload for CountedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.tally.sent(&data);
        let tally = Arc::clone(&self.tally);
        let part = self.inner.put_part(data);
        Box::pin(async move { tally.outcome(part.await) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        add(&self.tally.put, 1);
        self.tally.outcome(self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        add(&self.tally.delete, 1);
        self.tally.outcome(self.inner.abort().await)
    }
}
