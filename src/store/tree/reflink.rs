//! Reflinks: a range of one content becomes visible in another file without copying bytes.
//!
//! The source state (current or historical) is pinned. The write session gets a journal record and a span that references the
//! source. At the save, the file either shares the whole content or gets range rows that reference the same extents.
//!
//! Invariant: a replay finds the source's rows, because no content is deleted before the journal has been replayed.

use crate::cache::Source;
use crate::store::data::pins::Pin;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Author, ContentRef, PastEntry};
use crate::store::schema::journal_record::Record;
use crate::store::tree::Tree;
use crate::store::tree::file::{File, LEN_MAX};
use crate::store::tree::inode::LinkState;
use crate::sync::Arc;

/// A state whose content can be referenced from another file; the content stays readable while this value exists.
#[derive(Clone, Debug)]
pub struct CloneSource {
    content: Option<(ContentRef, Arc<Pin>)>,
    len: u64,
}

impl CloneSource {
    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns the pinned content; `None` for a source that is a single hole.
    pub(crate) fn content(&self) -> Option<&(ContentRef, Arc<Pin>)> {
        self.content.as_ref()
    }

    /// Tells whether the source has length 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Tree {
    /// Returns a historical state as a source.
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
    /// Returns the present state as a source, after writing back unsaved writes. `None` for a file without a name.
    ///
    /// # Errors
    /// `NoSpace`, `NotFound`.
    pub async fn clone_source(&self, author: &Author) -> Result<Option<CloneSource>, StoreError> {
        let mut locked = self.lock().await?;
        self.tree.write_back(&mut locked, author).await?;
        let file = locked.as_file().ok_or(StoreError::IsDirectory)?;
        if file.link_state == LinkState::Unlinked {
            return Ok(None);
        }
        let content = file.base.map(|base| base.content);
        Ok(Some(CloneSource {
            content: content.map(|content| (content, Arc::new(self.tree.data.pins.pin(content)))),
            len: file.attrs.size,
        }))
    }

    /// References `len` bytes of a source, from `from` on, at offset `to`; no byte is copied. Returns the number of bytes, which
    /// is less than `len` only at the source's end.
    ///
    /// # Errors
    /// As for [`File::write`].
    pub async fn clone_range(
        &self,
        source: &CloneSource,
        from: u64,
        to: u64,
        len: u64,
        author: &Author,
    ) -> Result<u64, StoreError> {
        self.tree.core.health.check()?;
        let len = len.min(source.len.saturating_sub(from));
        let Some((content, pin)) = source.content.as_ref().filter(|_| len > 0) else {
            return self.clone_nothing(len, to, author).await;
        };
        to.checked_add(len)
            .filter(|end| *end <= LEN_MAX)
            .ok_or(StoreError::TooLarge)?;
        self.tree.room_for_names().await;
        let mut locked = self.lock_to_change().await?;
        let mut file = locked.file().ok_or(StoreError::IsDirectory)?;
        let session = self.tree.session(&mut file, author)?;
        let _covered = self.tree.core.append(&Record::Refer {
            session,
            offset: to,
            len,
            content: *content,
            position: from,
        })?;
        let of = content.referent();
        let source = Source::Reference { of, position: from };
        file.refer(to, len, source, pin);
        self.tree.dirtied(&mut file);
        Ok(len)
    }

    /// Clones a source without content: the range becomes a hole.
    async fn clone_nothing(&self, len: u64, to: u64, author: &Author) -> Result<u64, StoreError> {
        if len > 0 {
            self.zero(to, len, false, author).await?;
        }
        Ok(len)
    }
}
