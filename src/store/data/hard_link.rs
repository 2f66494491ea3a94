//! Segments that are hard links: if the bucket is a directory on the filesystem of the staging files, a large staging file
//! becomes a segment without a copy of its bytes.
//!
//! The object has the same form as a copied segment: extents, then the footer that lists them. Path: hash the bytes -> append
//! the footer to the staging file and sync the file -> hard-link the file under the name of the object. Invariant: once a
//! staging file may be an object of the bucket, nothing but the same footer is written to it. Staging files of an earlier
//! process are copied.

use crate::backend::{BackendError, Lane};
use crate::cache::{CacheError, StagingFile};
use crate::store::data::DataStore;
use crate::store::data::chunks::ContentParts;
use crate::store::data::contents::PendingContent;
use crate::store::data::retry_upload::UploadAborted;
use crate::store::data::segment::SegmentBuilder;
use crate::store::data::upload::{UploadedExtents, footer_file, piece};
use crate::store::model::error::StoreError;
use crate::sync::Arc;

impl DataStore {
    /// Makes a whole staging file a segment; returns `None` if its bytes have to be copied instead.
    ///
    /// # Errors
    /// As [`DataStore::upload`].
    pub(crate) async fn link_segment(
        &self,
        file: &Arc<StagingFile>,
        parts: &ContentParts,
        contents: &[Arc<PendingContent>],
    ) -> Result<Option<UploadedExtents>, StoreError> {
        let id = self.new_segment();
        let (staging, parts, owned) = (Arc::clone(file), parts.clone(), contents.to_vec());
        let footed = self
            .core
            .tasks
            .blocking("foot", move || -> Result<_, StoreError> {
                let mut builder = SegmentBuilder::new(id);
                let mut uploaded = Vec::new();
                for (at, cuts) in parts {
                    let pending = &owned[at];
                    builder.file(footer_file(pending));
                    for cut in cuts {
                        let bytes = cut.bytes()?;
                        let (ino, content) = (pending.ino, pending.content);
                        let source = builder.note(ino, content, cut.offset, &bytes);
                        uploaded.push((at, cut.offset, piece(cut.offset, source, cut.len)));
                    }
                }
                let footer = builder.finish();
                match staging.foot(&footer) {
                    Ok(()) => Ok(Some((uploaded, staging.len() + footer.len() as u64))),
                    // The file has the footer of another segment, or the disk has no room for the footer: a copy needs neither.
                    Err(CacheError::Closed { .. } | CacheError::NoSpace { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            });
        let Some((uploaded, len)) = footed.await.map_err(|_| StoreError::Closed)?? else {
            return Ok(None);
        };
        let key = id.key();
        let link = || {
            let lane = Lane::Segments;
            self.core
                .backend
                .upload_linked(lane, &key, file.path(), len)
        };
        match self.persist(contents, link).await {
            Ok(()) => Ok(Some(uploaded)),
            Err(UploadAborted::Refused(BackendError::Unsupported { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
