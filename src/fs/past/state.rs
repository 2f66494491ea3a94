//! A version that a node shows, with the question that led to it.

use super::reader::PastReader;
use super::shown::ShownAttrs;
use crate::fs::error::FsResult;
use crate::fs::set_ids::lends_rights;
use crate::store::{Ino, PastEntry, StoreError, Timestamp};
use crate::sync::Arc;
use bytes::Bytes;
use std::time::Duration;

/// A version of a name, and the question that led to it.
#[derive(Debug, Clone)]
pub(super) struct PastState {
    /// The directory asked.
    pub(super) dir: Ino,
    /// The name asked for.
    pub(super) name: Bytes,
    /// The timestamp asked for.
    pub(super) at: Timestamp,
    /// The answer.
    pub(super) entry: Arc<PastEntry>,
    /// How many names led to it then; one where only the name asked for counts.
    pub(super) links: u32,
}

impl PastState {
    /// The live inode whose attributes it shows, while it has not ended.
    pub(super) fn depends_on(&self) -> Option<Ino> {
        (!self.entry.is_over()).then_some(self.entry.ino)
    }

    /// The attributes as they were when it was found.
    pub(super) fn found_attributes(&self, past: &PastReader) -> ShownAttrs {
        self.shown(past, &self.entry)
    }

    /// The attributes as they are now.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        let entry = self.newest(past).await?;
        Ok(self.shown(past, &entry))
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        let entry = self.newest(past).await?;
        past.attribute(&entry, name).await
    }

    /// The names of the extended attributes that were set on it.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn xattr_names(&self, past: &PastReader) -> FsResult<Vec<Bytes>> {
        let entry = self.newest(past).await?;
        Ok(entry.xattrs.iter().map(|(name, _)| name.clone()).collect())
    }

    /// The attributes of `entry`, which was read just now.
    fn shown(&self, past: &PastReader, entry: &PastEntry) -> ShownAttrs {
        let ttl = match entry.is_over() {
            true => past.ttl,
            // Its attributes are the live inode's until it ends; those of a program that lends rights are never kept, as in the
            // live tree.
            false if lends_rights(entry.kind, entry.attrs.mode) || !past.is_final(self.at) => {
                Duration::ZERO
            }
            false => past.changing_ttl(),
        };
        let shown = ShownAttrs::new(entry.attrs.clone(), ttl).with_allocated(entry.allocated);
        ShownAttrs {
            links: self.links,
            ..shown
        }
    }

    /// The version with the attributes it has now: those of one that has not ended still change.
    async fn newest(&self, past: &PastReader) -> FsResult<Arc<PastEntry>> {
        if !self.entry.is_over() {
            let history = past.namespace.history();
            let again = history.view().entry_at(self.dir, &self.name, self.at).await;
            match again {
                Ok(Some(entry)) if entry.version == self.entry.version => {
                    return Ok(Arc::new(entry));
                }
                Ok(Some(entry)) if self.entry.shared.is_some() => {
                    let entry = entry.of_inode();
                    if entry.version == self.entry.version {
                        return Ok(Arc::new(entry));
                    }
                }
                Ok(_) | Err(StoreError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Arc::clone(&self.entry))
    }
}
