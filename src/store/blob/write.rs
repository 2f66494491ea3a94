//! Puts and deletes of blobs.
//!
//! A put writes all bytes to a new inode without a name, and then puts the inode under the key in one operation.
//! Readers that are open continue to read the old state.
//! Invariant: concurrent puts of one key take effect in the order in which they finish.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::BlobError;
use super::key::ObjectKey;
use super::list::ListOptions;
use super::{BlobStore, OpenStore};
use crate::store::tree::put::{AtomicPut, PutTarget};
use crate::store::{Author, CloneSource, Kind, Op, StoreError, Timestamp, VersionId, XATTRS_MAX};

/// Maximum number of bytes in one append.
const CHUNK: usize = 1 << 20;
/// Number of keys that a delete by prefix lists at a time.
const PAGE: usize = 1000;

/// Prefix of the extended attributes in which a mount shows metadata values.
pub(super) const METADATA: &[u8] = b"user.meta.";
/// Extended attribute with the content type, under the name that desktop programs use.
pub(super) const CONTENT_TYPE: &[u8] = b"user.mime_type";
/// Extended attribute with the id of an imported version.
pub(super) const FOREIGN_ID: &[u8] = b"user.rewindfs.import";

/// Metadata and author of a put. They belong to the version permanently; a mount shows the metadata as extended attributes.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Metadata values by name; a mount shows them as `user.meta.NAME`.
    pub metadata: BTreeMap<String, Bytes>,
    /// The media type; a mount shows it as `user.mime_type`.
    pub content_type: Option<String>,
    /// The author of the version; `None` means the author of the store.
    pub author: Option<Author>,
}

impl PutOptions {
    pub(super) fn xattrs(&self) -> Result<Vec<(Bytes, Bytes)>, BlobError> {
        let mut all = Vec::new();
        for (name, value) in &self.metadata {
            let name = [METADATA, name.as_bytes()].concat();
            if name.len() == METADATA.len() || name.len() > 255 || name.contains(&0) {
                let name = String::from_utf8_lossy(&name[METADATA.len()..]).into_owned();
                let why = "must have 1 to 245 bytes and no NUL";
                return Err(BlobError::Invalid(format!("metadata name {name:?} {why}")));
            }
            all.push((Bytes::from(name), value.clone()));
        }
        if let Some(kind) = &self.content_type {
            let value = Bytes::copy_from_slice(kind.as_bytes());
            all.push((Bytes::from_static(CONTENT_TYPE), value));
        }
        all.sort();
        let size: usize = all
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if size > XATTRS_MAX {
            let text = format!("{size} bytes of metadata, at most {XATTRS_MAX} are kept");
            return Err(BlobError::Invalid(text));
        }
        Ok(all)
    }
}

impl BlobStore {
    /// Puts `bytes` under a key. The blob before it stays as a version.
    ///
    /// # Errors
    /// `InvalidKey`; `Conflict` if the key leads to something that is not a file, or a part of its path is not a
    /// directory; `Store` with `NoSpace` when the cache directory is full, `Fenced`, `Closed`.
    pub async fn put(
        &self,
        key: impl AsRef<[u8]>,
        bytes: impl Into<Bytes>,
        options: &PutOptions,
    ) -> Result<(), BlobError> {
        self.put_versioned(key, bytes, options).await.map(drop)
    }

    /// As [`BlobStore::put`], with the bytes that `source` delivers until its end.
    ///
    /// # Errors
    /// As [`BlobStore::put`]; `Source` if reading fails, in which case nothing is changed.
    pub async fn put_from(
        &self,
        key: impl AsRef<[u8]>,
        source: impl AsyncRead + Send + Unpin,
        options: &PutOptions,
    ) -> Result<(), BlobError> {
        self.put_versioned_from(key, source, options)
            .await
            .map(drop)
    }

    /// As [`BlobStore::put`]; returns the new version. A put of equal bytes creates a version as well.
    ///
    /// # Errors
    /// As [`BlobStore::put`].
    pub async fn put_versioned(
        &self,
        key: impl AsRef<[u8]>,
        bytes: impl Into<Bytes>,
        options: &PutOptions,
    ) -> Result<VersionId, BlobError> {
        let (key, bytes) = (ObjectKey::new(key.as_ref())?, bytes.into());
        let how = self.0.placing(options)?;
        self.0.put(&key, PutSource::Bytes(bytes), &how).await
    }

    /// As [`BlobStore::put_from`]; returns the new version.
    ///
    /// # Errors
    /// As [`BlobStore::put_from`].
    pub async fn put_versioned_from(
        &self,
        key: impl AsRef<[u8]>,
        mut source: impl AsyncRead + Send + Unpin,
        options: &PutOptions,
    ) -> Result<VersionId, BlobError> {
        let key = ObjectKey::new(key.as_ref())?;
        let how = self.0.placing(options)?;
        self.0.put(&key, PutSource::Source(&mut source), &how).await
    }

    /// Deletes the blob under a key. Returns false if there was none. The versions stay, and a delete marker follows
    /// them.
    ///
    /// # Errors
    /// `InvalidKey`; `Store`.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, BlobError> {
        let key = ObjectKey::new(key.as_ref())?;
        self.0.delete(&key).await
    }

    /// Deletes every blob whose key begins with `prefix`, one after another, and returns their number. An empty prefix
    /// means all blobs. Blobs that are put during the call may stay.
    ///
    /// # Errors
    /// `Store`; some of the blobs may be deleted by then.
    pub async fn delete_by_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64, BlobError> {
        let prefix = prefix.as_ref().to_vec();
        let mut deleted = 0;
        loop {
            let options = ListOptions {
                limit: PAGE,
                ..ListOptions::prefix(&prefix)
            };
            let page = self.list_page(&options).await?;
            for key in page.keys() {
                deleted += u64::from(self.0.delete(&ObjectKey::new(key)?).await?);
            }
            if page.next.is_none() {
                return Ok(deleted);
            }
        }
    }
}

/// The source of the bytes of a put.
pub(super) enum PutSource<'a> {
    Bytes(Bytes),
    Source(&'a mut (dyn AsyncRead + Send + Unpin)),
    /// Other files, which are kept alive until the put is done.
    Parts(Vec<CloneSource>),
}

impl OpenStore {
    pub(super) fn placing(&self, options: &PutOptions) -> Result<PutTarget, BlobError> {
        let author = options.author.as_ref().unwrap_or(&self.options.author);
        Ok(PutTarget {
            mode: self.options.mode,
            owner: self.options.config.owner,
            xattrs: options.xattrs()?,
            op: Op::Write,
            author: author.clone(),
            since: None,
            foreign_id: None,
        })
    }

    pub(super) async fn put(
        &self,
        key: &ObjectKey,
        fill: PutSource<'_>,
        how: &PutTarget,
    ) -> Result<VersionId, BlobError> {
        let put = self.put_below(key, fill, how).await;
        if put.is_err()
            && let Err(error) = self.prune(key).await
        {
            tracing::debug!(%error, "cannot remove the directories of a failed put");
        }
        put
    }

    async fn put_below(
        &self,
        key: &ObjectKey,
        fill: PutSource<'_>,
        how: &PutTarget,
    ) -> Result<VersionId, BlobError> {
        let directory = self.make_directories(key).await?;
        let name = key.name();
        if let Some(there) = self.namespace.tree().lookup(directory, &name).await? {
            check_kind(key, there.kind)?;
        }
        let mut whole = self.namespace.tree().begin(directory, &name, &how.author);
        self.fill(&mut whole, fill).await?;
        self.place(key, &mut whole, how).await
    }

    /// Puts the written file under the key. A concurrent delete may remove the directories of the key; they are created
    /// again.
    pub(super) async fn place(
        &self,
        key: &ObjectKey,
        whole: &mut AtomicPut,
        how: &PutTarget,
    ) -> Result<VersionId, BlobError> {
        loop {
            let directory = self.make_directories(key).await?;
            match whole.place(directory, &key.name(), how).await {
                Ok(id) => return Ok(id),
                Err(StoreError::NotFound) => {}
                Err(StoreError::IsDirectory) => check_kind(key, Kind::Directory)?,
                Err(StoreError::Exists) => check_kind(key, Kind::Symlink)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn fill(&self, whole: &mut AtomicPut, fill: PutSource<'_>) -> Result<(), BlobError> {
        match fill {
            PutSource::Bytes(mut bytes) => {
                while !bytes.is_empty() {
                    let chunk = bytes.split_to(bytes.len().min(CHUNK));
                    whole.append(chunk).await?;
                }
            }
            PutSource::Parts(parts) => {
                for part in parts {
                    whole.show(&part)?;
                }
            }
            PutSource::Source(source) => loop {
                let mut chunk = BytesMut::with_capacity(CHUNK);
                // Short reads are collected into one append, because every append is a record in the journal.
                while chunk.len() < CHUNK {
                    let mut rest = source.take((CHUNK - chunk.len()) as u64);
                    let read = rest.read_buf(&mut chunk).await;
                    if read.map_err(|error| BlobError::Source(error.to_string()))? == 0 {
                        break;
                    }
                }
                if chunk.is_empty() {
                    break;
                }
                whole.append(chunk.freeze()).await?;
            },
        }
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, BlobError> {
        loop {
            let Some((directory, _)) = self.find(key).await? else {
                return Ok(false);
            };
            let author = &self.options.author;
            match self
                .namespace
                .tree()
                .unlink(directory, &key.name(), author)
                .await
            {
                Ok(_) => break,
                Err(StoreError::NotFound | StoreError::IsDirectory) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.prune(key).await?;
        Ok(true)
    }

    /// Returns the current timestamp of the namespace.
    pub(super) fn now(&self) -> Timestamp {
        self.namespace.now()
    }
}

fn check_kind(key: &ObjectKey, kind: Kind) -> Result<(), BlobError> {
    match kind {
        Kind::File => Ok(()),
        Kind::Directory => Err(BlobError::conflict(key.bytes(), "it is a directory")),
        _ => Err(BlobError::conflict(key.bytes(), "it is not a regular file")),
    }
}
