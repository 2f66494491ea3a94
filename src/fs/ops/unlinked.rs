//! Attributes of live inodes, also of orphans that the kernel still references: a removed directory that is the working directory of
//! a process, a removed fifo that is open. The store keeps an orphan only while its content is open. Changes of the attributes of
//! the others are kept in `LiveTable` until the kernel forgets the inode.

use crate::fs::{FileSystem, FsError, FsResult};
use crate::store::{AttrChange, Ino, Stat, StoreError, XattrMode, XattrPresence, changed_xattrs};
use bytes::Bytes;

impl FileSystem {
    /// Changes attributes; returns them all.
    ///
    /// # Errors
    /// `Stale` when the inode was removed and forgotten; those of the store.
    pub(crate) async fn set_attributes(&self, ino: Ino, change: AttrChange) -> FsResult<Stat> {
        let set = self.namespace().tree().set_attrs(ino, change.clone()).await;
        self.past().changed(ino);
        match set {
            Err(StoreError::NotFound) => {
                let now = self.namespace().wall();
                let changed = self.live.with_removed(ino, |lost| {
                    change.apply(&mut lost.stat.attrs, now);
                    lost.stat.clone()
                });
                changed.ok_or(FsError::Stale)
            }
            Ok(stat) => {
                if stat.nlink == 0 {
                    self.live.with_removed(ino, |lost| lost.stat = stat.clone());
                }
                Ok(stat)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a live inode is known to have no extended attributes. Another process sets attributes of what a follower shows.
    pub(crate) fn has_no_xattrs(&self, ino: Ino) -> bool {
        !self.config().read_only && self.live.xattrs(ino) == XattrPresence::Absent
    }

    /// All extended attributes.
    ///
    /// # Errors
    /// `Stale` when the inode was removed and forgotten; those of the store.
    pub(crate) async fn xattr_names(&self, ino: Ino) -> FsResult<Vec<Bytes>> {
        if self.has_no_xattrs(ino) {
            return Ok(Vec::new());
        }
        match self.namespace().tree().list_xattrs(ino).await {
            Err(StoreError::NotFound) => {
                let names = self.live.with_removed(ino, |lost| {
                    let names = lost.xattrs.iter().map(|(name, _)| name.clone());
                    names.collect()
                });
                names.ok_or(FsError::Stale)
            }
            other => Ok(other?),
        }
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `Stale` when the inode was removed and forgotten; those of the store.
    pub(crate) async fn xattr(&self, ino: Ino, name: &[u8]) -> FsResult<Option<Bytes>> {
        if self.has_no_xattrs(ino) {
            return Ok(None);
        }
        match self.namespace().tree().get_xattr(ino, name).await {
            Err(StoreError::NotFound) => {
                let value = self.live.with_removed(ino, |lost| {
                    let found = lost.xattrs.iter().find(|(known, _)| known == name);
                    found.map(|(_, value)| value.clone())
                });
                value.ok_or(FsError::Stale)
            }
            other => Ok(other?),
        }
    }

    /// Sets an extended attribute, or removes it with `None`.
    ///
    /// # Errors
    /// `Exists`, `NoAttribute` as `mode` demands; `NoSpace`; `Stale` when the inode was removed and forgotten.
    pub(crate) async fn set_xattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: Option<Bytes>,
        mode: XattrMode,
    ) -> FsResult<()> {
        let set = self
            .namespace()
            .tree()
            .set_xattr(ino, name, value.clone(), mode);
        let set = set.await;
        self.live.xattrs_changed(ino);
        self.past().changed(ino);
        match set {
            Ok(()) | Err(StoreError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
        let now = self.namespace().wall();
        let kept = self.live.with_removed(ino, |lost| {
            lost.xattrs = changed_xattrs(&lost.xattrs, name, value, mode)?;
            lost.stat.attrs.ctime = now;
            Ok::<_, StoreError>(())
        });
        match (set, kept) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(kept)) => Ok(kept?),
            (Err(_), None) => Err(FsError::Stale),
        }
    }
}
