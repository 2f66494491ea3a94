//! link: a further name for an inode.

use crate::fs::{Caller, Entry, FileSystem, FsError, FsResult};
use crate::store::StoreError;

impl FileSystem {
    /// Gives `ino` a further name and counts one lookup of it.
    ///
    /// # Errors
    /// `Exists`, `TooManyLinks`, `NotPermitted` for directories and the reserved name, `ReadOnly` from or into the past.
    pub async fn link(
        &self,
        caller: &Caller,
        ino: u64,
        parent: u64,
        name: &[u8],
    ) -> FsResult<Entry> {
        let dir = self.writable_name(parent, name)?;
        let ino = self.writable(ino)?;
        let author = caller.author();
        let mark = self.live.xattr_mark();
        let linked = self.namespace().tree().link(ino, dir, name, &author);
        let stat = linked.await.map_err(|error| match error {
            StoreError::IsDirectory => FsError::NotPermitted("a directory has one name"),
            error => error.into(),
        })?;
        self.past().changed(ino);
        Ok(self.made_entry(dir, name, stat, mark))
    }
}
