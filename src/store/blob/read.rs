//! Reads of blobs, complete or in ranges, and their metadata.

use std::collections::BTreeMap;
use std::ops::{Bound, Range, RangeBounds};
use std::pin::Pin as Pinned;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, ReadBuf};

use super::error::BlobError;
use super::key::ObjectKey;
use super::write::{CONTENT_TYPE, METADATA};
use super::{BlobStore, OpenStore};
use crate::store::schema::rows::DentryBody;
use crate::store::{File, Ino, Namespace, PastEntry, Pin, Stat, StoreError, Time, VersionId};
use crate::sync::Arc;

/// Maximum number of bytes in one read from the store.
const STEP: u32 = 1 << 20;

/// The metadata of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStat {
    /// The length in bytes, including writes of programs below a mount.
    pub size: u64,
    /// The time of the last change of the content.
    pub modified: Time,
    /// The newest version; `None` while a program is writing the first one.
    pub version: Option<VersionId>,
    /// Changes whenever the bytes change: equal stamps of one key mean equal bytes.
    pub stamp: String,
    /// Metadata values by name.
    pub metadata: BTreeMap<String, Bytes>,
    /// The media type.
    pub content_type: Option<String>,
}

impl BlobStore {
    /// Returns all current bytes of a blob.
    ///
    /// # Errors
    /// `InvalidKey`, `NotFound`; `Store` with `Unavailable` or `Corrupt` if the bucket cannot deliver the bytes.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Bytes, BlobError> {
        self.get_reader(key, ..).await?.rest().await
    }

    /// Returns a reader of a byte range of a blob; the range is cut at the end of the blob. The reader continues to
    /// read the same blob if another blob is put under the key or the key is deleted.
    ///
    /// # Errors
    /// `InvalidKey`, `NotFound`.
    pub async fn get_reader(
        &self,
        key: impl AsRef<[u8]>,
        range: impl RangeBounds<u64>,
    ) -> Result<BlobReader, BlobError> {
        let (key, range) = (ObjectKey::new(key.as_ref())?, limits(&range));
        let file = self.0.file(&key).await?;
        let size = file.stat().await?.attrs.size;
        Ok(BlobReader::new(ReadSource::Live(file), size, range))
    }

    /// Returns the metadata of the blob under a key.
    ///
    /// # Errors
    /// `InvalidKey`, `NotFound`.
    pub async fn stat(&self, key: impl AsRef<[u8]>) -> Result<BlobStat, BlobError> {
        let key = ObjectKey::new(key.as_ref())?;
        self.0.stat(&key).await
    }

    /// Tells whether a key has a blob.
    ///
    /// # Errors
    /// `InvalidKey`; `Store`.
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool, BlobError> {
        let key = ObjectKey::new(key.as_ref())?;
        Ok(self.0.find(&key).await?.is_some())
    }
}

impl OpenStore {
    /// Returns the live file under a key. The file stays readable while the caller holds it.
    pub(super) async fn file(&self, key: &ObjectKey) -> Result<Arc<File>, BlobError> {
        loop {
            let found = self.find(key).await?;
            let (_, stat) = found.ok_or(BlobError::NotFound)?;
            match self.namespace.tree().file(stat.ino).await {
                Ok(file) => return Ok(file),
                // A concurrent put replaced the file; the key is looked up again.
                Err(StoreError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn stat(&self, key: &ObjectKey) -> Result<BlobStat, BlobError> {
        let found = self.find(key).await?;
        let (directory, stat) = found.ok_or(BlobError::NotFound)?;
        let (version, xattrs) = self.state(directory, &key.name(), &stat).await?;
        let (metadata, content_type) = metadata(&xattrs);
        Ok(BlobStat {
            size: stat.attrs.size,
            modified: stat.attrs.mtime,
            version,
            stamp: format!("{:016x}-{:x}", stat.content_stamp, stat.attrs.size),
            metadata,
            content_type,
        })
    }

    /// Returns the newest version of a directory entry, and its extended attributes.
    async fn state(
        &self,
        directory: Ino,
        name: &Bytes,
        stat: &Stat,
    ) -> Result<(Option<VersionId>, Vec<(Bytes, Bytes)>), BlobError> {
        let entry = self.namespace.tree().entry(directory, name).await?;
        match entry.filter(|entry| entry.ino == stat.ino).map(|e| e.body) {
            Some(DentryBody::Own { node, state }) => {
                let version = state.shown_stamp().map(|stamp| stamp.id);
                Ok((version, node.xattrs))
            }
            Some(DentryBody::Linked(_)) => {
                let versions = self
                    .namespace
                    .history()
                    .view()
                    .versions(directory, name)
                    .await?;
                let last = versions.into_iter().last();
                Ok(last.map_or((None, Vec::new()), |v| (Some(v.version), v.xattrs)))
            }
            None => Err(BlobError::NotFound),
        }
    }
}

/// Returns the metadata values and the media type among extended attributes.
pub(super) fn metadata(xattrs: &[(Bytes, Bytes)]) -> (BTreeMap<String, Bytes>, Option<String>) {
    let mut values = BTreeMap::new();
    let mut content_type = None;
    for (name, value) in xattrs {
        if let Some(name) = name.strip_prefix(METADATA) {
            values.insert(String::from_utf8_lossy(name).into_owned(), value.clone());
        } else if name == CONTENT_TYPE {
            content_type = Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    (values, content_type)
}

/// Returns the first byte of a range and the byte after its last one.
pub(super) fn limits(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// The source of a reader.
#[derive(Clone, Debug)]
pub(super) enum ReadSource {
    /// A live file; it outlives its name while it is held.
    Live(Arc<File>),
    /// A version; its bytes are kept while the pin is held.
    Past(Arc<(Namespace, PastEntry, Option<Pin>)>),
}

impl ReadSource {
    async fn read(self, at: u64, len: u32) -> Result<Bytes, StoreError> {
        match self {
            Self::Live(file) => file.read(at, len).await,
            Self::Past(past) => past.0.history().read_past(&past.1, at, len).await,
        }
    }
}

/// A reader of a blob or a version: [`BlobReader::next`] returns this crate's errors; it is also an [`AsyncRead`].
pub struct BlobReader {
    from: ReadSource,
    at: u64,
    end: u64,
    size: u64,
    coming: Option<BoxFuture<'static, Result<Bytes, StoreError>>>,
    ready: Bytes,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({}..{} of {})", self.at, self.end, self.size)
    }
}

impl BlobReader {
    pub(super) fn new(from: ReadSource, size: u64, range: Range<u64>) -> Self {
        Self {
            from,
            at: range.start.min(size),
            end: range.end.min(size),
            size,
            coming: None,
            ready: Bytes::new(),
        }
    }

    /// Returns the length of the complete blob in bytes, also if only a range is read.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the next bytes, at most 1 MiB; `None` at the end.
    ///
    /// # Errors
    /// `Store` with `Unavailable` or `Corrupt`; another call tries the read again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        Ok(std::future::poll_fn(|context| self.poll_next(context)).await?)
    }

    /// Returns all remaining bytes.
    ///
    /// # Errors
    /// As [`BlobReader::next`].
    pub async fn rest(mut self) -> Result<Bytes, BlobError> {
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.next().await? else {
            return Ok(first);
        };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(more) = self.next().await? {
            all.extend_from_slice(&more);
        }
        Ok(all.freeze())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StoreError>> {
        if !self.ready.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.ready))));
        }
        if self.at >= self.end {
            return Poll::Ready(Ok(None));
        }
        let (at, len) = (self.at, (self.end - self.at).min(u64::from(STEP)) as u32);
        let from = &self.from;
        let coming = self
            .coming
            .get_or_insert_with(|| Box::pin(from.clone().read(at, len)));
        let read = ready!(coming.as_mut().poll(context));
        self.coming = None;
        let bytes = read?;
        if bytes.is_empty() {
            // A program below a mount truncated the file.
            self.end = self.at;
            return Poll::Ready(Ok(None));
        }
        self.at += bytes.len() as u64;
        Poll::Ready(Ok(Some(bytes)))
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(
        mut self: Pinned<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let next = ready!(self.poll_next(context)).map_err(std::io::Error::other)?;
        if let Some(mut bytes) = next {
            let len = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..len]);
            bytes.advance(len);
            self.ready = bytes;
        }
        Poll::Ready(Ok(()))
    }
}
