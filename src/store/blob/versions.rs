//! The versions of a key: what the names it stood for ever held, and the gaps in between as delete markers.

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

/// A version of a blob, or the mark of its absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// Its id; ids sort by time, also as text.
    pub id: VersionId,
    /// When it began.
    pub timestamp: Timestamp,
    /// When it ended; `None` for what is there now.
    pub ended: Option<Timestamp>,
    /// Whether the key led to nothing from here on. A marker has no bytes, no author and no op.
    pub is_delete_marker: bool,
    /// Length in bytes.
    pub size: u64,
    /// How it came to be.
    pub op: Option<Op>,
    /// Who made it.
    pub author: Author,
    /// Machine it was made on.
    pub host: String,
    /// Metadata by name.
    pub metadata: BTreeMap<String, Bytes>,
    /// Media type.
    pub content_type: Option<String>,
    /// The id it was imported with.
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
    /// Every version of a key, oldest first, with a delete marker wherever the key led to nothing afterwards: deleted, or
    /// renamed away below a mount. Empty for a key that never was. Where a rename made the name, its versions under the
    /// name before are among them.
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

    /// The version that a key shows now; `None` when it was deleted, when it never was, and while a program writes it
    /// for the first time.
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

    /// Deletes a version for good. Of the current one the predecessor becomes current again; without one the key goes.
    ///
    /// # Errors
    /// `InvalidKey`; `NotFound` for an id the key does not list, for that of a delete marker, and for a version the name
    /// had under another name; `Store` with `Busy` while a program has the file open with changes.
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

    /// All bytes of a version.
    ///
    /// # Errors
    /// `InvalidKey`; `NotFound` for an id the key does not list, and for that of a delete marker; `Store`.
    pub async fn get_version(
        &self,
        key: impl AsRef<[u8]>,
        id: VersionId,
    ) -> Result<Bytes, BlobError> {
        self.get_version_reader(key, id, ..).await?.rest().await
    }

    /// A reader of the bytes `range` of a version. It goes on reading when the version is deleted meanwhile.
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
            // It was deleted just now.
            Err(StoreError::Stale) => return Err(BlobError::NotFound),
            Err(error) => return Err(error.into()),
        };
        let (size, namespace) = (entry.attrs.size, self.0.namespace.clone());
        let from = ReadSource::Past(Arc::new((namespace, entry, pin)));
        Ok(BlobReader::new(from, size, range))
    }
}

impl OpenStore {
    /// The states of files that a key ever led to, oldest first, and the directories they are listed in.
    pub(super) async fn states(&self, key: &ObjectKey) -> Result<Vec<(Ino, PastEntry)>, BlobError> {
        let name = key.name();
        let mut all = Vec::new();
        for directory in self.directories_ever(key).await? {
            let versions = self.namespace.history().versions(directory, &name).await?;
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
