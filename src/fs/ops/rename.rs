//! rename, and the undelete that a rename out of `@deleted` is. The store refuses to move a directory below
//! itself.

use crate::fs::past::is_past;
use crate::fs::{Caller, FileSystem, FsError, FsResult, Node};
use crate::store::{DentryRef, Displaced, Ino, RenameMode, Renamed, Stat, check_label_name};

/// A name in the directory that has this number.
#[derive(Clone, Copy)]
struct ChildName<'a> {
    parent: u64,
    name: &'a [u8],
}

impl FileSystem {
    /// Moves a name; `flags` are renameat2(2)'s.
    ///
    /// # Errors
    /// `NotFound`, `Exists` with `RENAME_NOREPLACE`, `NotEmpty`, `IsDirectory`, `NotDirectory`, `IntoItself`, `Invalid`
    /// for other flags, `NotPermitted` for the reserved name, `ReadOnly` from or into the past, except out of
    /// `@deleted`, and of a label in its `.versions`.
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
        if parent == new_parent
            && let Some(labels) = self.labels_in(parent)?
            && check_label_name(name).is_ok()
        {
            return self
                .rename_label(labels.directory, name, new_name, flags)
                .await;
        }
        if is_past(parent) && !is_past(new_parent) {
            let removed = ChildName { parent, name };
            let restored = ChildName {
                parent: new_parent,
                name: new_name,
            };
            return self.undelete(caller, removed, restored, flags).await;
        }
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
            .namespace()
            .tree()
            .rename(
                DentryRef::new(from, name),
                DentryRef::new(to, new_name),
                mode,
                &author,
            )
            .await?;
        self.renamed([from, to], &moved, replaced.as_ref());
        self.live.moved(moved.ino, to, new_name);
        match (replaced, mode) {
            (Some(other), RenameMode::Exchange) => self.live.moved(other.stat.ino, from, name),
            (Some(gone), RenameMode::Replace | RenameMode::NoReplace) => self.live.removed(gone),
            (None, _) => {}
        }
        Ok(())
    }

    /// Makes the kernel forget attributes of the past that a rename changed.
    fn renamed(&self, directories: [Ino; 2], moved: &Stat, replaced: Option<&Displaced>) {
        let replaced = replaced.map(|gone| gone.stat.ino);
        for ino in [Some(moved.ino), replaced]
            .into_iter()
            .flatten()
            .chain(directories)
        {
            self.past().changed(ino);
        }
    }

    /// A rename out of `@deleted` restores the removed name.
    async fn undelete(
        &self,
        caller: &Caller,
        removed: ChildName<'_>,
        restored: ChildName<'_>,
        flags: u32,
    ) -> FsResult<()> {
        let (name, new_name) = (removed.name, restored.name);
        let Node::Past(node) = self.node(removed.parent)? else {
            return Err(FsError::Stale);
        };
        let from = self
            .past()
            .removed_names_of(&node)
            .ok_or(FsError::ReadOnly)?;
        let to = self.writable_name(restored.parent, new_name)?;
        let mode = match flags {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            libc::RENAME_EXCHANGE => return Err(FsError::ReadOnly),
            _ => return Err(FsError::Invalid("rename flags".to_owned())),
        };
        let author = caller.author();
        let Renamed { moved, replaced } = self
            .namespace()
            .history()
            .undelete(
                DentryRef::new(from, name),
                DentryRef::new(to, new_name),
                mode,
                &author,
            )
            .await?;
        self.renamed([from, to], &moved, replaced.as_ref());
        self.live.moved(moved.ino, to, new_name);
        if let Some(gone) = replaced {
            self.live.removed(gone);
        }
        Ok(())
    }
}
