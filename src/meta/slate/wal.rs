//! A wrapper that counts the objects of the engine's write-ahead log, and reads them with one request instead of two.
//!
//! An open replays every object of the log whose rows are in no table, and sends two requests for each: for its length, then
//! for its bytes. This wrapper reads the bytes with the first request.
//! Invariant: an object of the log never changes, so bytes that were read with its length are valid. At most [`KEPT_BYTES`] are
//! kept, and none after [`Wal::replayed`].

use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use std::collections::VecDeque;
use std::fmt;
use tokio::sync::Notify;

/// The size of the engine's first read, at the end of an object, in bytes; it covers a smaller object completely.
const ONE_READ: u64 = 128 * 1024;

/// The maximal size of an object that is read with its length, in bytes.
const KEPT_OBJECT: u64 = 4 << 20;

/// The maximal size of all objects that are kept for the engine's reads, in bytes.
const KEPT_BYTES: usize = 32 << 20;

/// The state of the log.
#[derive(Debug)]
pub(super) struct Wal {
    /// Whether a request for a length also reads the bytes.
    reads_ahead: AtomicBool,
    /// The highest number of an object that was written.
    newest: AtomicU64,
    /// The bytes of objects that the engine has read.
    read: AtomicU64,
    grown: Notify,
    kept: Mutex<PrefetchedObjects>,
}

/// The objects whose length the engine has requested, oldest first.
#[derive(Debug, Default)]
struct PrefetchedObjects {
    bytes: usize,
    objects: VecDeque<LogFile>,
}

/// A complete object of the log.
#[derive(Debug, Clone)]
struct LogFile {
    meta: ObjectMeta,
    attributes: Attributes,
    bytes: Bytes,
}

impl PrefetchedObjects {
    fn keep(&mut self, object: LogFile) {
        self.bytes += object.bytes.len();
        self.objects.push_back(object);
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.objects.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes.len();
        }
    }

    /// Returns an object for a read of a part; removes it if the engine reads it in one request.
    fn find(&mut self, at: &Path) -> Option<LogFile> {
        let found = self.objects.iter().position(|o| o.meta.location == *at)?;
        if self.objects[found].meta.size > ONE_READ {
            return Some(self.objects[found].clone());
        }
        let object = self.objects.remove(found)?;
        self.bytes -= object.bytes.len();
        Some(object)
    }
}

impl Wal {
    /// Creates the state. `local`: the objects are files of this machine, where a second request costs little.
    pub(super) fn new(local: bool) -> Arc<Self> {
        Arc::new(Self {
            reads_ahead: AtomicBool::new(!local),
            newest: AtomicU64::new(0),
            read: AtomicU64::new(0),
            grown: Notify::new(),
            kept: Mutex::default(),
        })
    }

    /// Ends the read-ahead after the open: the engine does not read the log again.
    pub(super) fn replayed(&self) {
        self.reads_ahead.store(false, Ordering::Relaxed);
        *lock(&self.kept) = PrefetchedObjects::default();
    }

    /// The number of objects that the next open reads, if `replayed_upto` is the newest one whose rows are all in tables.
    pub(super) fn objects_after(&self, replayed_upto: u64) -> u64 {
        self.newest
            .load(Ordering::Relaxed)
            .saturating_sub(replayed_upto)
    }

    /// The bytes of the log that were read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Waits until an object has been written since the last return.
    pub(super) async fn grown(&self) {
        self.grown.notified().await;
    }

    fn written(&self, at: &Path) {
        if let Some(number) = number_of(at) {
            self.newest.fetch_max(number, Ordering::Relaxed);
            self.grown.notify_one();
        }
    }
}

/// The number of an object of the log; `None` for any other object.
pub(super) fn number_of(at: &Path) -> Option<u64> {
    let (folder, file) = at.as_ref().rsplit_once('/')?;
    if folder != "wal" && !folder.ends_with("/wal") {
        return None;
    }
    file.strip_suffix(".sst")?.parse().ok()
}

/// A store whose log is observed; all other requests are passed through.
pub(super) struct WalStore {
    inner: Arc<dyn ObjectStore>,
    wal: Arc<Wal>,
}

impl WalStore {
    /// Wraps `inner` and reports its log objects to `wal`.
    pub(super) fn new(inner: Arc<dyn ObjectStore>, wal: Arc<Wal>) -> Self {
        Self { inner, wal }
    }

    /// Returns the length of an object, and keeps its bytes if it is small.
    async fn look(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let whole = GetOptions {
            head: false,
            ..options
        };
        let got = self.inner.get_opts(at, whole).await?;
        let (meta, attributes) = (got.meta.clone(), got.attributes.clone());
        if meta.size <= KEPT_OBJECT {
            let object = LogFile {
                bytes: got.bytes().await?,
                meta: meta.clone(),
                attributes: attributes.clone(),
            };
            lock(&self.wal.kept).keep(object);
        }
        let range = 0..meta.size;
        Ok(answer(meta, attributes, range, None))
    }

    /// The bytes of a range, if they were read with the length.
    fn known(&self, at: &Path, options: &GetOptions) -> Option<GetResult> {
        let Some(GetRange::Bounded(range)) = &options.range else {
            return None;
        };
        let object = lock(&self.wal.kept).find(at)?;
        let end = range.end.min(object.meta.size);
        let bytes = object
            .bytes
            .get(usize::try_from(range.start).ok()?..usize::try_from(end).ok()?)?;
        let bytes = object.bytes.slice_ref(bytes);
        let range = range.start..end;
        Some(answer(object.meta, object.attributes, range, Some(bytes)))
    }
}

fn answer(
    meta: ObjectMeta,
    attributes: Attributes,
    range: std::ops::Range<u64>,
    bytes: Option<Bytes>,
) -> GetResult {
    GetResult {
        payload: GetResultPayload::Stream(futures::stream::iter(bytes.map(Ok)).boxed()),
        meta,
        range,
        attributes,
        extensions: object_store::Extensions::default(),
    }
}

/// Tells whether a request has no conditions.
fn is_plain(options: &GetOptions) -> bool {
    options.version.is_none()
        && options.if_match.is_none()
        && options.if_none_match.is_none()
        && options.if_modified_since.is_none()
        && options.if_unmodified_since.is_none()
}

impl fmt::Debug for WalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WalStore({:?})", self.inner)
    }
}

impl fmt::Display for WalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for WalStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        let put = self.inner.put_opts(at, payload, o).await?;
        self.wal.written(at);
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if number_of(at).is_none() || !is_plain(&options) {
            return self.inner.get_opts(at, options).await;
        }
        if options.head {
            return match self.wal.reads_ahead.load(Ordering::Relaxed) {
                true => self.look(at, options).await,
                false => self.inner.get_opts(at, options).await,
            };
        }
        let got = match self.known(at, &options) {
            Some(known) => known,
            None => self.inner.get_opts(at, options).await?,
        };
        let bytes = got.range.end.saturating_sub(got.range.start);
        self.wal.read.fetch_add(bytes, Ordering::Relaxed);
        Ok(got)
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
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
#[path = "wal_tests.rs"]
mod tests;
