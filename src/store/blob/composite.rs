//! Composite puts: a blob that is the concatenation of other blobs. The bytes are shared, not copied.

use super::BlobStore;
use super::error::BlobError;
use super::key::ObjectKey;
use super::write::PutOptions;
use crate::store::{CloneSource, VersionId};

impl BlobStore {
    /// Puts the concatenation of the current bytes of `parts`, in this order, under a key as one blob. The blob keeps
    /// the bytes if a part is replaced or deleted later. A part may occur more than once, and may be the previous blob
    /// of the key itself.
    ///
    /// # Errors
    /// `InvalidKey`; `NotFound` if a part does not exist; else as [`BlobStore::put`].
    pub async fn put_composite<K: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        parts: impl IntoIterator<Item = K>,
        options: &PutOptions,
    ) -> Result<VersionId, BlobError> {
        let key = ObjectKey::new(key.as_ref())?;
        let parts = parts.into_iter().map(|part| ObjectKey::new(part.as_ref()));
        let parts = parts.collect::<Result<Vec<ObjectKey>, BlobError>>()?;
        let how = self.0.placing(options)?;
        let mut sources = Vec::with_capacity(parts.len());
        for part in &parts {
            sources.push(self.source(part).await?);
        }
        self.0
            .put(&key, super::write::PutSource::Parts(sources), &how)
            .await
    }

    async fn source(&self, part: &ObjectKey) -> Result<CloneSource, BlobError> {
        loop {
            let file = self.0.file(part).await?;
            if let Some(source) = file.clone_source(&self.0.options.author).await? {
                return Ok(source);
            }
            // A concurrent put replaced the part; the new blob is looked up.
        }
    }
}
