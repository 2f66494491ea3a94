//! The versions of a key: every state that the key ever had, and delete markers for the times without one.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use bytes::Bytes;

use super::error::BlobError;
use super::key::ObjectKey;
use super::read::{BlobReader, ReadSource, limits, metadata};
use super::write::FOREIGN_ID;
use super::{BlobStore, OpenStore};
use crate::store::{Author, Ino, Kind, Op, PastEntry, Retained, StoreError, Timestamp, VersionId};
use crate::sync::Arc;

/// A version of a blob, or a delete marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// The id. Ids sort by time, also as text.
    pub id: VersionId,
    /// When the version began.
    pub timestamp: Timestamp,
    /// When the version ended; `None` for the current one.
    pub ended: Option<Timestamp>,
    /// Whether the key had no blob from this time on. A delete marker has no bytes, author or operation.
    pub is_delete_marker: bool,
    /// The length in bytes.
    pub size: u64,
    /// The operation that made the version; `None` for a delete marker.
    pub op: Option<Op>,
    /// The author of the version.
    pub author: Author,
    /// The machine on which the version was made.
    pub host: String,
    /// Metadata values by name.
    pub metadata: BTreeMap<String, Bytes>,
    /// The media type.
    pub content_type: Option<String>,
    /// The id with which the version was imported.
    pub foreign_id: Option<String>,
}

impl VersionInfo {
    fn of(entry: PastEntry) -> Self {
        let (metadata, content_type) = metadata(&entry.xattrs);
        let foreign = entry.xattrs.iter().find(|(name, _)| name == FOREIGN_ID);
        let foreign_id = foreign
            .filter(|_| entry.op == Op::Import)
            .map(|(_, id)| String::from_utf8_lossy(id).into_owned());
        Self {
            id: entry.version,
            timestamp: entry.version.timestamp,
            ended: entry.ended,
            is_delete_marker: false,
            size: entry.attrs.size,
            op: Some(entry.op),
            author: entry.author,
            host: entry.host,
            metadata,
            content_type,
            foreign_id,
        }
    }

    fn marker(at: Timestamp, until: Option<Timestamp>) -> Self {
        Self {
            id: VersionId {
                timestamp: at,
                suffix: 0,
            },
            timestamp: at,
            ended: until,
            is_delete_marker: true,
            size: 0,
            op: None,
            author: Author::default(),
            host: String::new(),
            metadata: BTreeMap::new(),
            content_type: None,
            foreign_id: None,
        }
    }
}

impl BlobStore {
    /// Returns every version of a key, oldest first, with a delete marker wherever the blob was deleted or renamed
    /// away. Empty for a key that never had a blob. If a rename created the key, the versions under the former name are
    /// included.
    ///
    /// # Errors
    /// `InvalidKey`; `Store`.
    pub async fn list_versions(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Vec<VersionInfo>, BlobError> {
        let key = ObjectKey::new(key.as_ref())?;
        let states = self.0.states(&key).await?;
        let mut all = Vec::with_capacity(states.len() + 1);
        let mut states = states.into_iter().map(|(_, entry)| entry).peekable();
        while let Some(entry) = states.next() {
            let ended = entry.ended;
            all.push(VersionInfo::of(entry));
            let next = states.peek().map(|next| next.version.timestamp);
            if let Some(ended) = ended
                && next.is_none_or(|next| next > ended)
            {
                all.push(VersionInfo::marker(ended, next));
            }
        }
        Ok(all)
    }

    /// Returns the current version of a key; `None` if the key has no blob, and while a program is writing its first
    /// version.
    ///
    /// # Errors
    /// `InvalidKey`; `Store`.
    pub async fn latest_version_id(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<VersionId>, BlobError> {
        match self.stat(key).await {
            Ok(stat) => Ok(stat.version),
            Err(BlobError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a version permanently. If it is the current version, the version before it becomes current; without one,
    /// the key is deleted.
    ///
    /// # Errors
    /// `InvalidKey`; `NotFound` for an id that the key does not list, for a delete marker, and for a version that the
    /// file had under another name; `Store` with `Busy` while a program has the file open with unsaved changes.
    pub async fn delete_version(
        &self,
        key: impl AsRef<[u8]>,
        id: VersionId,
    ) -> Result<(), BlobError> {
        let key = ObjectKey::new(key.as_ref())?;
        let states = self.0.states(&key).await?;
        let listed = states.into_iter().find(|(_, entry)| entry.version == id);
        let (directory, _) = listed.ok_or(BlobError::NotFound)?;
        let name = key.name();
        let deleted = self
            .0
            .namespace
            .history()
            .delete_version(directory, &name, id);
        match deleted.await {
            Ok(()) => self.0.prune(&key).await,
            Err(StoreError::NotFound) => Err(BlobError::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns all bytes of a version.
    ///
    /// # Errors
    /// `InvalidKey`; `NotFound` for an id that the key does not list, and for a delete marker; `Store`.
    pub async fn get_version(
        &self,
        key: impl AsRef<[u8]>,
        id: VersionId,
    ) -> Result<Bytes, BlobError> {
        self.get_version_reader(key, id, ..).await?.rest().await
    }

    /// Returns a reader of a byte range of a version. The reader stays valid if the version is deleted.
    ///
    /// # Errors
    /// As [`BlobStore::get_version`].
    pub async fn get_version_reader(
        &self,
        key: impl AsRef<[u8]>,
        id: VersionId,
        range: impl RangeBounds<u64>,
    ) -> Result<BlobReader, BlobError> {
        let (key, range) = (ObjectKey::new(key.as_ref())?, limits(&range));
        let entry = self.0.version(&key, id).await?;
        let pin = match self.0.namespace.data().hold_standing(&entry).await {
            Ok(pin) => pin,
            // A concurrent call deleted the version.
            Err(StoreError::Stale) => return Err(BlobError::NotFound),
            Err(error) => return Err(error.into()),
        };
        let (size, namespace) = (entry.attrs.size, self.0.namespace.clone());
        let from = ReadSource::Past(Arc::new((namespace, entry, pin)));
        Ok(BlobReader::new(from, size, range))
    }
}

impl OpenStore {
    /// Returns the file states that a key ever led to, oldest first, each with the directory that lists it.
    pub(super) async fn states(&self, key: &ObjectKey) -> Result<Vec<(Ino, PastEntry)>, BlobError> {
        let name = key.name();
        let mut all = Vec::new();
        for directory in self.directories_ever(key).await? {
            let versions = self
                .namespace
                .history()
                .view()
                .versions(directory, &name)
                .await?;
            let files = versions
                .into_iter()
                .filter(|v| v.kind == Kind::File && v.kept != Retained::Nothing);
            all.extend(files.map(|version| (directory, version)));
        }
        all.sort_by_key(|(_, version)| version.version);
        Ok(all)
    }

    async fn version(&self, key: &ObjectKey, id: VersionId) -> Result<PastEntry, BlobError> {
        let states = self.states(key).await?;
        let found = states.into_iter().find(|(_, entry)| entry.version == id);
        found.map(|(_, entry)| entry).ok_or(BlobError::NotFound)
    }
}
