//! rename. The store looks, locks and looks again; a directory never lands below itself there.

use crate::fs::{Caller, FileSystem, FsError, FsResult};
use crate::store::{RenameMode, Renamed};

impl FileSystem {
    /// Moves a name; `flags` are renameat2(2)'s.
    ///
    /// # Errors
    /// `NotFound`, `Exists` with `RENAME_NOREPLACE`, `NotEmpty`, `IsDirectory`, `NotDirectory`, `IntoItself`, `Invalid`
    /// for other flags, `NotPermitted` for the reserved name, `ReadOnly` from or into the past.
    #[allow(
        clippy::too_many_arguments,
        reason = "the arguments are those of the system call"
    )]
    pub async fn rename(
        &self,
        caller: &Caller,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: u32,
    ) -> FsResult<()> {
        let from = self.writable_name(parent, name)?;
        let to = self.writable_name(new_parent, new_name)?;
        let mode = match flags {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            libc::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(FsError::Invalid("rename flags".to_owned())),
        };
        let author = caller.author();
        let Renamed { moved, replaced } = self
            .namespace
            .rename((from, name), (to, new_name), mode, &author)
            .await?;
        self.live.moved(moved.ino, to, new_name);
        match (replaced, mode) {
            (Some(other), RenameMode::Exchange) => self.live.moved(other.ino, from, name),
            (Some(gone), RenameMode::Replace | RenameMode::NoReplace) => self.live.removed(gone),
            (None, _) => {}
        }
        Ok(())
    }
}
