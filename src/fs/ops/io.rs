//! read and write.

use crate::fs::handle::{Access, Handle, OpenFile};
use crate::fs::past::part;
use crate::fs::{Caller, FileSystem, FsError, FsResult};
use crate::store::Ino;
use crate::sync::Arc;
use bytes::Bytes;

/// Where a write comes from, and what its writer may not keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteMode {
    /// It is from the page cache (a mapping): the kernel names any handle of the inode, and no caller.
    pub from_page_cache: bool,
    /// The writer may not keep set-id bits and capabilities.
    pub kill_privileges: bool,
}

impl FileSystem {
    /// Reads at most `len` bytes at `offset`; short only at the end.
    ///
    /// # Errors
    /// `BadHandle`; `Stale` when the version was pruned; `Unavailable`, `Corrupt` when the bytes cannot be read.
    pub async fn read(&self, _ino: u64, handle: u64, offset: u64, len: u32) -> FsResult<Bytes> {
        self.admit()?;
        self.read_handle(&self.handles.get(handle)?, offset, len)
            .await
    }

    /// Writes all of `bytes`; through an `O_APPEND` handle at the file's end, else at `offset`. Returns how many bytes.
    ///
    /// # Errors
    /// `BadHandle`; `NoSpace`, `TooLarge`.
    #[allow(
        clippy::too_many_arguments,
        reason = "the arguments are those of the system call"
    )]
    pub async fn write(
        &self,
        caller: &Caller,
        ino: u64,
        handle: u64,
        offset: u64,
        bytes: Bytes,
        how: WriteMode,
    ) -> FsResult<u32> {
        let ino = self.writable(ino)?;
        let len = u32::try_from(bytes.len()).map_err(|_| FsError::TooLarge)?;
        let open = self.writer(ino, handle, how)?;
        if how.kill_privileges {
            self.disarm(caller, &open.file.stat().await?).await?;
        }
        let done = if open.access == Access::Append && !how.from_page_cache {
            // The kernel's offset may be an old end of the file; the store finds the end under the file's lock.
            open.file.append(bytes, open.author()).await.map(drop)
        } else {
            open.file.write(offset, bytes, open.author()).await
        };
        // Also after a failure, because a part may be written.
        if how.from_page_cache {
            self.handles.mark_writers(ino);
        } else {
            open.mark_changed();
        }
        done?;
        Ok(len)
    }

    pub(crate) async fn read_handle(
        &self,
        handle: &Handle,
        offset: u64,
        len: u32,
    ) -> FsResult<Bytes> {
        match handle {
            Handle::File(open) => Ok(open.read(offset, len).await?),
            Handle::Past(open) => {
                let runs = &open.read_ahead;
                self.past().read_ahead(&open.node, runs, offset, len).await;
                self.past().read(&open.node, offset, len).await
            }
            Handle::Text(text) => Ok(part(text, offset, len)),
            Handle::Dir(_) => Err(FsError::IsDirectory),
        }
    }

    fn writer(&self, ino: Ino, handle: u64, how: WriteMode) -> FsResult<Arc<OpenFile>> {
        match self.handles.writer(handle) {
            Err(FsError::BadHandle) if how.from_page_cache => {
                self.handles.any_writer(ino).ok_or(FsError::BadHandle)
            }
            found => found,
        }
    }
}
