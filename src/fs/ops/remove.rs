//! unlink and rmdir.

use crate::fs::{Caller, FileSystem, FsResult};

impl FileSystem {
    /// Removes a name of something that is no directory. Who has it open keeps it.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `NotPermitted` for the reserved name, `ReadOnly` in the past.
    pub async fn unlink(&self, caller: &Caller, parent: u64, name: &[u8]) -> FsResult<()> {
        let dir = self.writable_name(parent, name)?;
        let removed = self.namespace.unlink(dir, name, &caller.author()).await?;
        self.live.removed(removed);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`, `NotPermitted` for the reserved name, `ReadOnly` in the past.
    pub async fn rmdir(&self, caller: &Caller, parent: u64, name: &[u8]) -> FsResult<()> {
        let dir = self.writable_name(parent, name)?;
        let removed = self.namespace.rmdir(dir, name, &caller.author()).await?;
        self.live.removed(removed);
        Ok(())
    }
}
