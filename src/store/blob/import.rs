//! Imports: versions with a time and an id that another store gave them.
//!
//! An imported version begins at its own time, so an import changes what the past of its key shows between that time
//! and now.
//! Invariant: an import does not change what an existing version shows. Therefore its time must be in the past and
//! later than every change of the key: versions are imported oldest first, and each is the current one until the next
//! import.

use bytes::Bytes;

use super::error::BlobError;
use super::key::ObjectKey;
use super::write::{FOREIGN_ID, PutOptions, PutSource};
use super::{BlobStore, OpenStore};
use crate::store::schema::rows::ImportedRow;
use crate::store::{Op, Retained, Timestamp, VersionId};

/// Maximum length of an imported id, in bytes.
const ID_MAX: usize = 255;

impl BlobStore {
    /// Puts `bytes` under a key as a version that begins at `time` (nanoseconds since 1970). The version has `id` as a
    /// second id, which is unique in the namespace. Returns the version's own id.
    ///
    /// # Errors
    /// `InvalidKey`; `Invalid` if `id` is empty, longer than 255 bytes, or contains `/`, `.` or NUL, or if `time` is in
    /// the future or not later than every change of the key; `Imported` if the id is already in use; else as
    /// [`BlobStore::put`].
    pub async fn import_version(
        &self,
        key: impl AsRef<[u8]>,
        id: &str,
        bytes: impl Into<Bytes>,
        time: Timestamp,
        options: &PutOptions,
    ) -> Result<VersionId, BlobError> {
        let (key, bytes) = (ObjectKey::new(key.as_ref())?, bytes.into());
        check_id(id)?;
        let mut how = self.0.placing(options)?;
        how.op = Op::Import;
        how.since = Some(time);
        how.foreign_id = Some(Bytes::copy_from_slice(id.as_bytes()));
        let attribute = Bytes::from_static(FOREIGN_ID);
        how.xattrs
            .push((attribute, Bytes::copy_from_slice(id.as_bytes())));
        how.xattrs.sort();
        let _one_at_a_time = self.0.alone.lock().await;
        if self.0.imported(id).await?.is_some() {
            return Err(BlobError::Imported(id.to_owned()));
        }
        self.0.check_time(&key, time).await?;
        self.0.put(&key, PutSource::Bytes(bytes), &how).await
    }

    /// Returns the version of a key that was imported with `id`.
    ///
    /// # Errors
    /// `InvalidKey`; `NotFound` if the id is unknown or belongs to another key, or if its version was deleted.
    pub async fn imported_version(
        &self,
        key: impl AsRef<[u8]>,
        id: &str,
    ) -> Result<VersionId, BlobError> {
        let key = ObjectKey::new(key.as_ref())?;
        let version = self.0.imported(id).await?.ok_or(BlobError::NotFound)?;
        let mut states = self.0.states(&key).await?.into_iter();
        match states.any(|(_, entry)| entry.version == version) {
            true => Ok(version),
            false => Err(BlobError::NotFound),
        }
    }
}

impl OpenStore {
    /// Returns the version that was imported with `id`, if it still exists.
    async fn imported(&self, id: &str) -> Result<Option<VersionId>, BlobError> {
        let row = self.namespace.history().view().imported(id).await?;
        let Some(ImportedRow {
            directory,
            name,
            version,
        }) = row
        else {
            return Ok(None);
        };
        let versions = self
            .namespace
            .history()
            .view()
            .versions(directory, &name)
            .await?;
        let stands = versions
            .iter()
            .any(|entry| entry.version == version && entry.kept != Retained::Nothing);
        Ok(stands.then_some(version))
    }

    /// Checks that `time` is later than every change of the key, in all directories to which the path of the key ever
    /// led.
    async fn check_time(&self, key: &ObjectKey, time: Timestamp) -> Result<(), BlobError> {
        if time >= self.now() {
            let text = format!("{} ns is in the future", time.0);
            return Err(BlobError::Invalid(text));
        }
        let states = self.states(key).await?;
        let last = states
            .iter()
            .map(|(_, entry)| entry.ended.unwrap_or(entry.version.timestamp))
            .max();
        match last {
            Some(last) if last >= time => Err(BlobError::Invalid(format!(
                "the key changed at {} ns, not before {} ns",
                last.0, time.0
            ))),
            _ => Ok(()),
        }
    }
}

fn check_id(id: &str) -> Result<(), BlobError> {
    let why = match id {
        "" => "is empty",
        id if id.len() > ID_MAX => "is longer than 255 bytes",
        id if id.contains(['/', '.', '\0']) => "has '/', '.' or NUL in it",
        _ => return Ok(()),
    };
    Err(BlobError::Invalid(format!("the version id {id:?} {why}")))
}
