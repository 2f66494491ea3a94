//! Content of a new state: its lineage, the bytes to upload for it, and the rows that reference it.
//!
//! A state continues its file's own lineage where it can, so that only the changed bytes are uploaded. A copy of a whole file
//! shares the source's content and uploads nothing. A lineage that starts on another content records it as its parent.

use crate::cache::{DirtySnapshot, Source};
use crate::store::commit::txn::Txn;
use crate::store::data::contents::{PendingContent, UploadState};
use crate::store::model::error::StoreError;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{Content, ContentRef, Ino, Timestamp};
use crate::store::schema::journal_record::ContentRecord;
use crate::store::schema::keys;
use crate::store::schema::rows::{EntryState, LineageRow};
use crate::store::tree::Tree;
use crate::store::tree::inode::{FileInode, FlushedState};
use crate::sync::Arc;

/// A content for a transaction: what the directory entry will reference, and the bytes to upload for it, if any.
pub(crate) struct PreparedContent {
    pub(crate) content: Content,
    pub(crate) upload: Option<(Arc<PendingContent>, ContentRecord)>,
}

/// A state whose content is to be determined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContentChange<'a> {
    /// The changes over the base.
    pub(crate) map: &'a DirtySnapshot,
    pub(crate) base: Option<ContentBase>,
    /// The flush that recorded the state.
    pub(crate) flush: &'a FlushedState,
    /// Timestamp of the content in its lineage.
    pub(crate) at: Timestamp,
    /// Length of the state in bytes.
    pub(crate) len: u64,
}

impl Tree {
    /// Determines the content that a dirty map makes over a base, and what has to be uploaded for it.
    pub(crate) async fn prepare(
        &self,
        ino: Ino,
        file: &FileInode,
        change: ContentChange<'_>,
    ) -> Result<PreparedContent, StoreError> {
        let ContentChange {
            map, base, at, len, ..
        } = change;
        if len == 0 {
            return Ok(PreparedContent {
                content: Content::Empty,
                upload: None,
            });
        }
        let cut = map
            .cut()
            .filter(|cut| base.is_some_and(|base| *cut < base.len));
        let unchanged = map.spans().next().is_none() && cut.is_none();
        if let (
            true,
            Some(ContentBase {
                content,
                len: base_len,
            }),
        ) = (unchanged, base)
        {
            let content = match self.is_own(file, content) {
                true => Some(Content::Bytes(content)),
                // A foreign content may be longer than this file; a reference to it shows its first `len` bytes.
                false => (len <= base_len).then_some(Content::Shared(content)),
            };
            if let Some(content) = content {
                return Ok(PreparedContent {
                    content,
                    upload: None,
                });
            }
        } else if unchanged {
            return Ok(PreparedContent {
                content: Content::Bytes(ContentRef {
                    cid: self.core.new_id(),
                    timestamp: at,
                }),
                upload: None,
            });
        }
        if let Some(content) = copied(map, len) {
            return Ok(PreparedContent {
                content: Content::Shared(content),
                upload: None,
            });
        }
        let base = if cut == Some(0) { None } else { base };
        let upload = self
            .begin_content(ino, file, ContentChange { base, ..change })
            .await?;
        Ok(PreparedContent {
            content: Content::Bytes(upload.0.content),
            upload: Some(upload),
        })
    }

    /// Starts the next content of the file's lineage, or the first content of a new lineage.
    async fn begin_content(
        &self,
        ino: Ino,
        file: &FileInode,
        change: ContentChange<'_>,
    ) -> Result<(Arc<PendingContent>, ContentRecord), StoreError> {
        let ContentChange {
            map,
            base,
            flush,
            at,
            len,
        } = change;
        // A late state must start a new lineage: newer rows of this one were computed without it.
        let goes_on = !file.is_behind(flush);
        let own = base.filter(|base| goes_on && self.is_own(file, base.content));
        let cid = own.map_or_else(|| self.core.new_id(), |base| base.content.cid);
        let content = ContentRef { cid, timestamp: at };
        let nowhere = || Dentry::new(Ino(0), bytes::Bytes::new());
        let place = file.place().cloned().unwrap_or_else(nowhere);
        let unshown = matches!(
            file.state,
            EntryState::Unborn { .. } | EntryState::Provisional(_)
        );
        let replaces = match own {
            Some(ContentBase { content: c, len: _ })
                if unshown && self.is_own_state(file, c).await? =>
            {
                Some(c.timestamp)
            }
            _ => None,
        };
        let record = ContentRecord {
            session: flush.session.unwrap_or(0),
            flush: flush.at,
            content,
            ino,
            place: place.clone(),
            base,
            len,
            replaces,
            renamed: Vec::new(),
        };
        let pending = Arc::new(PendingContent {
            content,
            ino,
            place,
            base,
            len,
            flushed: map.clone(),
            // Looked up among all pending contents: no cached inode holds those of a replay or of an evicted inode.
            after: base.and_then(|base| self.data.contents.pending(base.content)),
            replaces,
            upload_state: tokio::sync::watch::Sender::new(UploadState::Waiting),
        });
        Ok((pending, record))
    }

    /// Tells whether a content belongs to the file's own lineage, so that the next state can continue it.
    fn is_own(&self, file: &FileInode, content: ContentRef) -> bool {
        matches!(file.node.content, Content::Bytes(own) if own.cid == content.cid)
    }

    /// Tells whether the file's current state is the only reference to a content and no pin holds it; the next state may then
    /// replace the content.
    async fn is_own_state(
        &self,
        file: &FileInode,
        content: ContentRef,
    ) -> Result<bool, StoreError> {
        if file.node.content != Content::Bytes(content) || !file.flushes.is_empty() {
            return Ok(false);
        }
        let shown: Option<i64> = self.core.index.row(&keys::count(content)).await?;
        Ok(shown == Some(1) && !self.data.pins.is_pinned(content.cid))
    }

    /// Adds to a transaction the content to upload, the dependencies on the contents it references, and the row of a new lineage.
    pub(crate) fn attach_content(&self, txn: &mut Txn, prepared: PreparedContent) {
        if let Content::Shared(content) = prepared.content {
            txn.touch(keys::count(content));
        }
        if let Some((pending, _)) = &prepared.upload {
            txn.touch(keys::count(pending.content));
            if let Some(ContentBase {
                content: parent,
                len,
            }) = pending.base
                && parent.cid != pending.content.cid
            {
                let len = pending.truncation().unwrap_or(len).min(len);
                txn.touch(keys::count(parent));
                let row = LineageRow { parent, len };
                txn.put(keys::lineage(pending.content.cid), &row);
                txn.reference(parent);
            }
        }
        txn.content = prepared.upload;
    }
}

/// Returns the content whose first `len` bytes are everything a map shows: the file is a copy of a whole file.
fn copied(map: &DirtySnapshot, len: u64) -> Option<ContentRef> {
    let mut spans = map.spans();
    let (only, None) = (spans.next()?, spans.next()) else {
        return None;
    };
    match only.source {
        Source::Reference { of, position: 0 } if only.offset == 0 && only.end() >= len => {
            Some(ContentRef::of(of))
        }
        _ => None,
    }
}
