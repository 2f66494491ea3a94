//! fallocate, lseek, copy_file_range, statfs: space and holes.

use crate::fs::handle::{Handle, OpenFile};
use crate::fs::{Caller, FileSystem, FsError, FsResult};
use crate::store::Whence;

/// The result of statfs(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statfs {
    /// All blocks, of `frsize` bytes each.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for users without privileges.
    pub bavail: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// The best size of a read or write, in bytes.
    pub bsize: u32,
    /// The longest name, in bytes.
    pub namelen: u32,
    /// The size of a block, in bytes.
    pub frsize: u32,
}

/// A position in an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandleOffset {
    /// The number of the file.
    pub ino: u64,
    /// The handle.
    pub handle: u64,
    /// The offset, in bytes.
    pub offset: u64,
}

/// A part of one file that is copied into another.
#[derive(Debug, Clone, Copy)]
struct CopiedPart {
    /// The offset in the source.
    from: u64,
    /// The offset in the target.
    to: u64,
    /// How many bytes.
    len: u64,
}

/// The size of statfs' blocks.
const BLOCK: u64 = 4096;
/// The free space that is always reported, because a bucket has no limit: 1 PiB.
const FREE_BYTES: u64 = 1 << 50;
/// The free inodes that are always reported; some tools keep the number in 32 bits.
const FREE_FILES: u64 = 1 << 31;
/// The most bytes that one copy_file_range copies, so that its answer meets the deadline.
const COPY_BYTES_MAX: u64 = 16 << 20;
/// The bytes of a copy that are in memory at once.
const COPY_STEP: u64 = 1 << 20;

/// From this size on a part of a file is shared with the target and not copied; smaller shared parts would only fragment it.
const CLONE_BYTES_MIN: u64 = 64 << 10;
/// The most bytes that one call shares: its answer has 32 bits.
const CLONE_BYTES_MAX: u64 = 1 << 31;

impl FileSystem {
    /// Allocates space, punches a hole, or zeroes a range; `mode` is fallocate(2)'s.
    ///
    /// # Errors
    /// `NotSupported` for other modes, `BadHandle`, `ReadOnly` in the past, `NoSpace`.
    #[allow(
        clippy::too_many_arguments,
        reason = "the arguments are those of the system call"
    )]
    pub async fn fallocate(
        &self,
        caller: &Caller,
        ino: u64,
        handle: u64,
        offset: u64,
        len: u64,
        mode: i32,
    ) -> FsResult<()> {
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        const ZERO_KEEP: i32 = ZERO | KEEP;
        let target = self.writable(ino)?;
        let open = self.handles.writer(handle)?;
        if offset
            .checked_add(len)
            .is_none_or(|end| end > i64::MAX as u64)
        {
            return Err(FsError::TooLarge);
        }
        if !matches!(mode, 0 | KEEP | PUNCH | ZERO | ZERO_KEEP) {
            return Err(FsError::NotSupported);
        }
        self.drop_privileges(caller, target, Some(handle)).await?;
        let author = open.author();
        let done = match mode {
            0 | KEEP => open.file.allocate(offset, len, mode == KEEP, author).await,
            PUNCH => open.file.punch(offset, len, author).await,
            _ => open.file.zero(offset, len, mode == ZERO_KEEP, author).await,
        };
        open.mark_changed();
        Ok(done?)
    }

    /// Finds the next data or hole at or after `offset`; the kernel handles the other whences.
    ///
    /// # Errors
    /// `NoSuchOffset` after the end, `Invalid` for other whences.
    pub async fn lseek(&self, _ino: u64, handle: u64, offset: i64, whence: i32) -> FsResult<i64> {
        self.admit()?;
        let whence = match whence {
            libc::SEEK_DATA => Whence::Data,
            libc::SEEK_HOLE => Whence::Hole,
            _ => return Err(FsError::Invalid("lseek whence".to_owned())),
        };
        let offset = u64::try_from(offset).map_err(|_| FsError::NoSuchOffset)?;
        let found = match self.handles.get(handle)? {
            Handle::File(open) => open.file.seek(offset, whence).await?,
            Handle::Past(open) => self.past().seek(&open.node, offset, whence).await?,
            Handle::Text(_) => None,
            Handle::Dir(_) => return Err(FsError::IsDirectory),
        };
        let found = found.ok_or(FsError::NoSuchOffset)?;
        i64::try_from(found).map_err(|_| FsError::TooLarge)
    }

    /// Copies between two open files, also out of the past. Returns how many bytes, which may be fewer than `len`; 0 at the end of
    /// the source.
    ///
    /// # Errors
    /// As read and write, if nothing was copied before.
    pub async fn copy_file_range(
        &self,
        caller: &Caller,
        from: HandleOffset,
        to: HandleOffset,
        len: u64,
    ) -> FsResult<u64> {
        let target = self.writable(to.ino)?;
        let source = self.handles.get(from.handle)?;
        let open = self.handles.writer(to.handle)?;
        self.drop_privileges(caller, target, Some(to.handle))
            .await?;
        let part = CopiedPart {
            from: from.offset,
            to: to.offset,
            len,
        };
        if let Some(shown) = self.clone_between(&source, &open, part).await? {
            return Ok(shown);
        }
        let len = len.min(COPY_BYTES_MAX);
        let mut copied = 0;
        while copied < len {
            let step = (len - copied).min(COPY_STEP) as u32;
            let bytes = match self.read_handle(&source, from.offset + copied, step).await {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => bytes,
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error),
            };
            let moved = bytes.len() as u64;
            let done = open.file.write(to.offset + copied, bytes, open.author());
            let done = done.await;
            open.mark_changed();
            match done {
                Ok(()) => copied += moved,
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(copied)
    }

    /// Makes the target share the source's bytes, where that pays: a whole file, or a large part of one.
    async fn clone_between(
        &self,
        source: &Handle,
        open: &OpenFile,
        CopiedPart { from, to, len }: CopiedPart,
    ) -> FsResult<Option<u64>> {
        let pays = |size: u64| {
            let whole = from == 0 && to == 0 && len >= size;
            from < size && (whole || len.min(size - from) >= CLONE_BYTES_MIN)
        };
        let source = match source {
            // Checked before the source is made, because that writes back the file's unsaved bytes.
            Handle::File(file) if pays(file.file.stat().await?.attrs.size) => {
                file.file.clone_source(open.author()).await?
            }
            Handle::Past(open) => self.past().clone_source(&open.node),
            Handle::File(_) | Handle::Text(_) => None,
            Handle::Dir(_) => return Err(FsError::IsDirectory),
        };
        let Some(source) = source.filter(|source| pays(source.len())) else {
            return Ok(None);
        };
        let len = len.min(CLONE_BYTES_MAX);
        let cloned = open.file.clone_range(&source, from, to, len, open.author());
        let shown = cloned.await?;
        open.mark_changed();
        Ok(Some(shown))
    }

    /// The size of the file system: what is used, and always the same free space.
    ///
    /// # Errors
    /// Only when the mount has failed.
    pub async fn statfs(&self, _ino: u64) -> FsResult<Statfs> {
        self.admit()?;
        let usage = self.namespace().tree().usage();
        let free = FREE_BYTES / BLOCK;
        Ok(Statfs {
            blocks: free + usage.bytes.div_ceil(BLOCK),
            bfree: free,
            bavail: free,
            files: FREE_FILES + usage.files,
            ffree: FREE_FILES,
            bsize: BLOCK as u32,
            namelen: 255,
            frsize: BLOCK as u32,
        })
    }
}
