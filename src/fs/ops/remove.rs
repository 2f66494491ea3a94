//! unlink and rmdir.

use crate::fs::{Caller, FileSystem, FsResult};
use crate::store::{Displaced, Ino, check_label_name};

impl FileSystem {
    /// Updates the tables after a name of the directory `dir` was removed.
    fn removed(&self, dir: Ino, gone: Displaced) {
        for ino in [dir, gone.stat.ino] {
            self.past().changed(ino);
        }
        self.live.removed(gone);
    }

    /// Removes a name of something that is no directory. Processes that have it open keep it.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `NotPermitted` for the reserved name, `ReadOnly` in the past.
    pub async fn unlink(&self, caller: &Caller, parent: u64, name: &[u8]) -> FsResult<()> {
        let dir = self.writable_name(parent, name)?;
        let removed = self
            .namespace()
            .tree()
            .unlink(dir, name, &caller.author())
            .await?;
        self.removed(dir, removed);
        Ok(())
    }

    /// Removes an empty directory; in a `.versions` a label.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`, `NotPermitted` for the reserved name, `Held` for a held label, `ReadOnly` in the past.
    pub async fn rmdir(&self, caller: &Caller, parent: u64, name: &[u8]) -> FsResult<()> {
        if let Some(labels) = self.labels_in(parent)?
            && check_label_name(name).is_ok()
        {
            let history = self.namespace().history();
            return Ok(history.remove_label(labels.directory, name).await?);
        }
        let dir = self.writable_name(parent, name)?;
        let removed = self
            .namespace()
            .tree()
            .rmdir(dir, name, &caller.author())
            .await?;
        self.removed(dir, removed);
        Ok(())
    }
}
