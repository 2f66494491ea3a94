//! link: a further name for an inode.

use crate::fs::{Caller, Entry, FileSystem, FsResult};

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
        let stat = self
            .namespace
            .link(ino, dir, name, &caller.author())
            .await?;
        Ok(self.live_entry(dir, name, stat))
    }
}
