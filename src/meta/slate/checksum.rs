//! Checksums of the engine's manifests and compaction states.
//!
//! The engine's tables and its write-ahead log have checksums, its manifests do not: a flipped bit there hides rows or makes
//! the engine skip a part of its log, without an error. So this wrapper appends a CRC32C to each of them. The engine parses the
//! object from its beginning and ignores the trailing bytes.

use crate::sync::Arc;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// The end of the trailer, behind the CRC32C (`u32`, little-endian) of the bytes before the trailer.
const MAGIC: &[u8; 4] = b"RWCK";

/// The length of the trailer, in bytes.
const TRAILER: usize = 8;

/// The number of reads of an object that does not match its checksum, before it counts as damaged: a proxy may have answered.
const READS: u32 = 3;

/// Pause between two such reads.
const PAUSE: Duration = Duration::from_millis(300);

/// An object of the index whose bytes are not those that were written.
#[derive(Debug, Error)]
#[error("{key} is damaged: {what}")]
pub(super) struct DamagedObject {
    pub(super) key: String,
    pub(super) what: String,
}

impl DamagedObject {
    /// The error for the engine, of the only kind for which the engine does not retry without limit.
    pub(super) fn error(at: &Path, what: &str) -> object_store::Error {
        let (key, what) = (at.to_string(), what.to_owned());
        object_store::Error::NotSupported {
            source: Box::new(Self { key, what }),
        }
    }

    /// Finds it among the causes of an error.
    pub(super) fn find<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        loop {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            error = error.source()?;
        }
    }
}

/// A store whose manifests and compaction states end in a checksum; all other objects are passed through.
pub(super) struct Checksummed {
    inner: Arc<dyn ObjectStore>,
}

impl Checksummed {
    pub(super) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner }
    }

    async fn verified(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let mut reads = 1;
        loop {
            let got = self.inner.get_opts(at, options.clone()).await?;
            let (meta, range) = (got.meta.clone(), got.range.clone());
            let (attributes, extensions) = (got.attributes.clone(), got.extensions.clone());
            let bytes = got.bytes().await?;
            match check(&bytes) {
                Ok(()) => {
                    let payload = futures::stream::once(std::future::ready(Ok(bytes))).boxed();
                    return Ok(GetResult {
                        payload: GetResultPayload::Stream(payload),
                        meta,
                        range,
                        attributes,
                        extensions,
                    });
                }
                Err(_) if reads < READS => {
                    reads += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(what) => {
                    return Err(DamagedObject::error(at, what));
                }
            }
        }
    }
}

fn is_checked(at: &Path) -> bool {
    at.as_ref().ends_with(".manifest") || at.as_ref().ends_with(".compactions")
}

/// Whether the options ask for the whole object.
fn is_whole(options: &GetOptions) -> bool {
    !options.head && options.range.is_none()
}

fn with_checksum(payload: PutPayload) -> PutPayload {
    let crc = payload
        .iter()
        .fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    let trailer = [&crc.to_le_bytes()[..], MAGIC].concat();
    payload
        .iter()
        .cloned()
        .chain([Bytes::from(trailer)])
        .collect()
}

fn check(bytes: &[u8]) -> std::result::Result<(), &'static str> {
    let Some(at) = bytes.len().checked_sub(TRAILER) else {
        return Err("it is cut short");
    };
    let (body, trailer) = bytes.split_at(at);
    if &trailer[4..] != MAGIC {
        return Err("its end is missing");
    }
    match crc32c::crc32c(body).to_le_bytes() == trailer[..4] {
        true => Ok(()),
        false => Err("its checksum does not match"),
    }
}

/// Tells whether the bytes end in their checksum.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn is_sealed(bytes: &[u8]) -> bool {
    check(bytes).is_ok()
}

/// Returns the bytes with their checksum.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let payload = with_checksum(PutPayload::from_bytes(Bytes::copy_from_slice(bytes)));
    payload.iter().flatten().copied().collect()
}

impl fmt::Debug for Checksummed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksummed({:?})", self.inner)
    }
}

impl fmt::Display for Checksummed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Checksummed {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        let payload = match is_checked(at) {
            true => with_checksum(payload),
            false => payload,
        };
        self.inner.put_opts(at, payload, o).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if is_checked(at) && is_whole(&options) {
            return self.verified(at, options).await;
        }
        self.inner.get_opts(at, options).await
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
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    #[tokio::test(start_paused = true)]
    async fn every_flip_and_every_cut_of_a_manifest_is_found() {
        let store = Arc::new(InMemory::new());
        let checked = Checksummed::new(Arc::clone(&store) as Arc<dyn ObjectStore>);
        let at = Path::from("meta/manifest/00000000000000000001.manifest");
        let parts = [&b"the first part, "[..], b"and the second"].map(Bytes::from_static);
        checked
            .put(&at, parts.iter().cloned().collect())
            .await
            .unwrap();
        let whole = store.get(&at).await.unwrap().bytes().await.unwrap();
        assert!(whole.starts_with(&parts.concat()));
        let read = checked.get(&at).await.unwrap().bytes().await.unwrap();
        assert_eq!(read, whole);
        for place in 0..whole.len() {
            let mut bad = whole.to_vec();
            bad[place] ^= 0x10;
            store.put(&at, bad.into()).await.unwrap();
            let error = checked.get(&at).await.unwrap_err();
            let found = DamagedObject::find(&error).map(|damaged| damaged.key.clone());
            assert_eq!(found.as_deref(), Some(at.as_ref()), "byte {place}: {error}");
            store.put(&at, whole.slice(..place).into()).await.unwrap();
            assert!(checked.get(&at).await.is_err(), "cut at {place}");
        }
        store.put(&at, whole.into()).await.unwrap();
        assert!(checked.get(&at).await.is_ok());
    }

    #[tokio::test]
    async fn other_objects_pass_as_they_are() {
        let store = Arc::new(InMemory::new());
        let checked = Checksummed::new(Arc::clone(&store) as Arc<dyn ObjectStore>);
        let at = Path::from("meta/wal/00000000000000000001.sst");
        checked.put(&at, Bytes::new().into()).await.unwrap();
        assert_eq!(store.head(&at).await.unwrap().size, 0);
        assert!(
            checked
                .get(&at)
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap()
                .is_empty()
        );
    }
}
