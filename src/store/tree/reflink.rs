//! Copies that move no bytes: a range of one content shown in another file.
//!
//! Path: the source's state, fixed or of the past, is held -> a record in the journal and a span that refers to it -> at the
//! save either the whole content is shown as it is, or range rows cite the same extents. A crash in between finds the
//! record, and the source's rows still there: nothing is dropped before the journal is played.

use crate::cache::Source;
use crate::store::data::pins::Pin;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Author, ContentRef, PastEntry};
use crate::store::schema::journal_record::Record;
use crate::store::tree::Tree;
use crate::store::tree::file::{File, LEN_MAX};
use crate::store::tree::inode::LinkState;
use crate::sync::Arc;

/// A state whose bytes can be shown elsewhere; it stays readable while this is held.
#[derive(Clone, Debug)]
pub struct CloneSource {
    content: Option<(ContentRef, Arc<Pin>)>,
    len: u64,
}

impl CloneSource {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Its content, held; `None` where all of it is a hole.
    pub(crate) fn content(&self) -> Option<&(ContentRef, Arc<Pin>)> {
        self.content.as_ref()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Tree {
    /// A state of the past as a source.
    pub fn clone_source(&self, entry: &PastEntry) -> CloneSource {
        let pins = &self.data.pins;
        let content = entry.content.reference();
        CloneSource {
            content: content.map(|content| (content, Arc::new(pins.pin(content)))),
            len: entry.attrs.size,
        }
    }
}

impl File {
    /// The present state as a source; unsealed writes are brought on their way first. `None` for a file without a name.
    ///
    /// # Errors
    /// `NoSpace`, `NotFound`.
    pub async fn clone_source(&self, author: &Author) -> Result<Option<CloneSource>, StoreError> {
        let mut locked = self.lock().await?;
        self.tree.write_back(&mut locked, author).await?;
        let file = locked.file().ok_or(StoreError::IsDirectory)?;
        if file.link_state == LinkState::Unlinked {
            return Ok(None);
        }
        let content = file.base.map(|(content, _)| content);
        Ok(Some(CloneSource {
            content: content.map(|content| (content, Arc::new(self.tree.data.pins.pin(content)))),
            len: file.attrs.size,
        }))
    }

    /// Shows `len` bytes of a source from `from` on at `to`; returns how many, fewer only at the source's end. No bytes move.
    ///
    /// # Errors
    /// As [`File::write`].
    pub async fn clone_range(
        &self,
        source: &CloneSource,
        (from, to, len): (u64, u64, u64),
        author: &Author,
    ) -> Result<u64, StoreError> {
        self.tree.core.health.check()?;
        let len = len.min(source.len.saturating_sub(from));
        let Some((content, pin)) = source.content.as_ref().filter(|_| len > 0) else {
            return self.clone_nothing(len, to, author).await;
        };
        let end = to
            .checked_add(len)
            .filter(|end| *end <= LEN_MAX)
            .ok_or(StoreError::TooLarge)?;
        self.tree.room_for_names().await;
        let mut locked = self.lock().await?;
        let file = locked.file().ok_or(StoreError::IsDirectory)?;
        let session = self.tree.session(self.inode.ino, file, author)?.id;
        let _covered = self.tree.core.append(&Record::Refer {
            session,
            offset: to,
            len,
            content: *content,
            position: from,
        })?;
        let of = content.referent();
        file.map
            .write(to, len, Source::Reference { of, position: from });
        file.holds.push(Arc::clone(pin));
        file.attrs.size = file.attrs.size.max(end);
        self.tree.dirtied(&self.inode, file, None);
        Ok(len)
    }

    /// A source without content is a hole as long as it is.
    async fn clone_nothing(&self, len: u64, to: u64, author: &Author) -> Result<u64, StoreError> {
        if len > 0 {
            self.zero(to, len, false, author).await?;
        }
        Ok(len)
    }
}
