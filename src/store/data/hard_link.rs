//! Segments that are staging files: in a local bucket on the same disk a large one becomes an object where it lies.
//!
//! The object is what a copy of it would be: the extents, then a footer that says which. Path: hash the bytes in place -> footer
//! behind them, on the disk to stay -> hard link. Invariant: an inode that may be an object is never written to again, but for
//! the same footer; what an earlier process left is copied.

use crate::backend::{BackendError, Lane};
use crate::cache::{CacheError, StagingFile};
use crate::store::data::DataStore;
use crate::store::data::extent_map::PendingContent;
use crate::store::data::retry_upload::UploadAborted;
use crate::store::data::segment::SegmentBuilder;
use crate::store::data::upload::{ContentParts, UploadedExtents, cut_bytes, footer_file, piece};
use crate::store::model::error::StoreError;
use crate::sync::Arc;

impl DataStore {
    /// Makes a segment of a whole staging file; `None` if it has to be copied.
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
                        let bytes = cut_bytes(&cut)?;
                        let (ino, content) = (pending.ino, pending.content);
                        let source = builder.note(ino, content, cut.offset, &bytes);
                        uploaded.push((at, cut.offset, piece(cut.offset, source, cut.len)));
                    }
                }
                let footer = builder.finish();
                match staging.foot(&footer) {
                    Ok(()) => Ok(Some((uploaded, staging.len() + footer.len() as u64))),
                    // It is another state's object, or the disk has no room for the footer: a copy needs none.
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
