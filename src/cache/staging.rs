//! Staging files: local files with written bytes that are kept until the bucket has them.
//!
//! A staging file is append-only: a written byte never changes, so spans and snapshots refer to it without a lock. A closed
//! file accepts no more bytes; with a footer, its inode may become an object of a local bucket by a hard link. Invariant: a
//! file stays on disk until [`StagingFile::finished`] was called, also across a crash or an unmount, so that a later mount
//! finds it. After that call, the last drop deletes the file.
//!
//! Only the most recently used files are open; the others are opened again by their paths. All calls access the local file
//! system and block the thread.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::CacheError;
use super::open::OpenFiles;
use crate::sync::{Arc, Mutex, lock};

/// The free space that writes leave on the disk, in bytes: the upload of acknowledged bytes needs some, and their staging files
/// are deleted only after it.
const RESERVE: u64 = 4 << 20;

/// The divisor of the size of a small disk that gives its reserve.
const RESERVE_PART: u64 = 16;

/// The directory of a namespace's staging files, which are named by their ids.
#[derive(Clone, Debug)]
pub(crate) struct StagingDir {
    path: PathBuf,
    open: Arc<OpenFiles>,
}

/// Creates a directory for this user alone, unless it is there.
fn make_private(path: &Path) -> Result<(), CacheError> {
    let mut private = DirBuilder::new();
    let made = private.recursive(true).mode(0o700).create(path);
    made.map_err(|e| CacheError::io("create", path, e))
}

impl StagingDir {
    /// Opens the directory, and creates it for this user alone if it is missing; files in it stay. The caller ensures that only one process
    /// uses it. The files have the permissions that the process gives, because one may become an object of a local bucket.
    pub(crate) fn open(path: &Path) -> Result<Self, CacheError> {
        Self::open_with(path, OpenFiles::within_limit())
    }

    /// The directory of another process's staging files, of which nothing is created or changed.
    pub(crate) fn of_earlier(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            open: Arc::new(OpenFiles::within_limit()),
        }
    }

    fn open_with(path: &Path, open: OpenFiles) -> Result<Self, CacheError> {
        make_private(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            open: Arc::new(open),
        })
    }

    /// Creates an empty file, and the directory if it was deleted. Fails with [`CacheError::Io`] if there is a file with this id.
    pub(crate) fn create(&self, id: u64) -> Result<StagingFile, CacheError> {
        let path = self.file_path(id);
        let create = || {
            let mut how = OpenOptions::new();
            how.read(true).write(true).create_new(true).open(&path)
        };
        let made = match create() {
            // The directory was deleted under this process.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_private(&self.path)?;
                create()
            }
            made => made,
        };
        let made = made.map_err(|e| CacheError::io("create", &path, e))?;
        self.open.keep(id, made);
        Ok(self.file(id, path, 0, StagingPhase::Open))
    }

    /// Opens a file of an earlier process, only for reads, because its inode may be an object of the bucket.
    pub(crate) fn reopen(&self, id: u64) -> Result<StagingFile, CacheError> {
        let path = self.file_path(id);
        let file = self.open.get(id, || File::open(&path));
        let file = file.map_err(|e| CacheError::io("open", &path, e))?;
        let meta = file.metadata();
        let len = meta.map_err(|e| CacheError::io("stat", &path, e))?.len();
        Ok(self.file(id, path, len, StagingPhase::Found))
    }

    fn file(&self, id: u64, path: PathBuf, len: u64, stage: StagingPhase) -> StagingFile {
        let state = StagingState {
            len,
            stage,
            retention: FileRetention::Kept,
        };
        StagingFile {
            id,
            path,
            open: Arc::clone(&self.open),
            state: Mutex::new(state),
        }
    }

    /// The bytes that can be written after `len` more bytes without use of the reserve. Fails with [`CacheError::NoSpace`] if
    /// the disk has no room for `len` bytes.
    pub(crate) fn room(&self, len: u64) -> Result<u64, CacheError> {
        let Some(FreeSpace { bytes, reserve }) = self.free() else {
            // The write itself fails if the disk is full.
            return Ok(u64::MAX);
        };
        if let Some(left) = bytes.checked_sub(len.saturating_add(reserve)) {
            return Ok(left);
        }
        let full = ErrorKind::StorageFull.into();
        Err(CacheError::io("write to", &self.path, full))
    }

    /// Tells whether more than half of the reserve is used.
    pub(crate) fn is_scarce(&self) -> bool {
        self.free()
            .is_some_and(|FreeSpace { bytes, reserve }| bytes < reserve / 2)
    }

    /// The free space of the disk; `None` if statvfs(2) fails.
    fn free(&self) -> Option<FreeSpace> {
        let disk = rustix::fs::statvfs(&self.path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Some(FreeSpace {
            bytes: bytes(disk.f_bavail),
            reserve: RESERVE.min(bytes(disk.f_blocks) / RESERVE_PART),
        })
    }

    /// Deletes the staging files whose ids are not in `keep`, and returns their number. Other files stay.
    pub(crate) fn sweep(&self, keep: &HashSet<u64>) -> Result<usize, CacheError> {
        let mut removed = 0;
        let failed = |e| CacheError::io("list", &self.path, e);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let id = entry.file_name().to_str().and_then(parse_name);
            if id.is_some_and(|id| !keep.contains(&id)) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|e| CacheError::io("remove", &path, e))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn file_path(&self, id: u64) -> PathBuf {
        self.path.join(format!("{id:016x}"))
    }
}

/// The free space of a disk and the reserve, in bytes.
struct FreeSpace {
    bytes: u64,
    reserve: u64,
}

/// The id in the name of a staging file; `None` for other names.
fn parse_name(name: &str) -> Option<u64> {
    let id = u64::from_str_radix(name, 16).ok()?;
    (name == format!("{id:016x}")).then_some(id)
}

/// Tells whether a name is that of a staging file.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn is_name(name: &str) -> bool {
    parse_name(name).is_some()
}

/// Whether the last drop deletes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileRetention {
    Kept,
    Removed,
}

/// The phase of a file, which decides what may be written.
#[derive(Debug)]
enum StagingPhase {
    /// Bytes may be appended.
    Open,
    /// No bytes may be appended; a footer may be written.
    Closed,
    /// The file is closed and has this footer behind its bytes.
    WithFooter(Bytes),
    /// The file was written by an earlier process and is read-only.
    Found,
}

#[derive(Debug)]
struct StagingState {
    /// The number of appended bytes, without a footer.
    len: u64,
    stage: StagingPhase,
    retention: FileRetention,
}

/// A local append-only file with written bytes. Spans share it as an `Arc`.
#[derive(Debug)]
pub(crate) struct StagingFile {
    id: u64,
    path: PathBuf,
    open: Arc<OpenFiles>,
    /// Held over a write(2), so that appends are sequential and a failed one can be truncated.
    state: Mutex<StagingState>,
}

impl StagingFile {
    /// Returns the descriptor; that of a file of an earlier process is read-only.
    fn descriptor(&self, stage: &StagingPhase) -> Result<Arc<File>, CacheError> {
        let write = !matches!(stage, StagingPhase::Found);
        let open = || OpenOptions::new().read(true).write(write).open(&self.path);
        let file = self.open.get(self.id, open);
        file.map_err(|e| CacheError::io("open", &self.path, e))
    }

    /// Appends `bytes`, and returns the position of the first one. The bytes then survive a crash of the process, but not of the
    /// machine. A failure leaves the file unchanged: [`CacheError::NoSpace`] if the disk is full, [`CacheError::Closed`] if the
    /// file is closed.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<u64, CacheError> {
        let mut state = lock(&self.state);
        if !matches!(state.stage, StagingPhase::Open) {
            let path = self.path.clone();
            return Err(CacheError::Closed { path });
        }
        let position = state.len;
        let file = self.descriptor(&state.stage)?;
        if let Err(error) = file.write_all_at(bytes, position) {
            // Bytes of the failed write are beyond `len` and will be overwritten; the truncation frees their space.
            if let Err(error) = file.set_len(position) {
                tracing::warn!(path = %self.path.display(), %error, "cannot truncate a staging file");
            }
            return Err(CacheError::io("append to", &self.path, error));
        }
        state.len += bytes.len() as u64;
        Ok(position)
    }

    /// Closes the file for appends.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        if matches!(state.stage, StagingPhase::Open) {
            state.stage = StagingPhase::Closed;
        }
    }

    /// Tells whether this process wrote and closed the file, and it has exactly `len` bytes.
    pub(crate) fn is_whole(&self, len: u64) -> bool {
        let state = lock(&self.state);
        state.len == len
            && matches!(
                state.stage,
                StagingPhase::Closed | StagingPhase::WithFooter(_)
            )
    }

    /// Writes a footer behind the bytes, and syncs the file to disk. May be repeated with the same footer. Fails with
    /// [`CacheError::Closed`] for another footer, because the inode may already be an object of the bucket.
    pub(crate) fn foot(&self, footer: &Bytes) -> Result<(), CacheError> {
        let mut state = lock(&self.state);
        let may = match &state.stage {
            StagingPhase::Closed => true,
            StagingPhase::WithFooter(first) => first == footer,
            StagingPhase::Open | StagingPhase::Found => false,
        };
        if !may {
            let path = self.path.clone();
            return Err(CacheError::Closed { path });
        }
        let file = self.descriptor(&state.stage)?;
        state.stage = StagingPhase::WithFooter(footer.clone());
        let write = || {
            file.write_all_at(footer, state.len)?;
            // A failed append may have left bytes behind the footer.
            file.set_len(state.len + footer.len() as u64)?;
            file.sync_all()
        };
        write().map_err(|e| CacheError::io("sync", &self.path, e))
    }

    /// Reads exactly `len` bytes from `position` on. Fails with [`CacheError::Short`] if the file ends before.
    pub(crate) fn read_at(&self, position: u64, len: usize) -> Result<Bytes, CacheError> {
        // Before the allocation, so that a damaged journal record cannot cause a huge one.
        let file = self.readable(position, len)?;
        let mut buffer = vec![0; len];
        self.read_exact(&file, position, &mut buffer)?;
        Ok(Bytes::from(buffer))
    }

    /// Fills `buffer` with the bytes from `position` on. Fails with [`CacheError::Short`] if the file ends before.
    pub(crate) fn read_into(&self, position: u64, buffer: &mut [u8]) -> Result<(), CacheError> {
        let file = self.readable(position, buffer.len())?;
        self.read_exact(&file, position, buffer)
    }

    /// Returns the open file, if it has `len` bytes from `position` on.
    fn readable(&self, position: u64, len: usize) -> Result<Arc<File>, CacheError> {
        let state = lock(&self.state);
        if position.saturating_add(len as u64) > state.len {
            return Err(self.short(position, len));
        }
        self.descriptor(&state.stage)
    }

    fn read_exact(&self, file: &File, position: u64, buffer: &mut [u8]) -> Result<(), CacheError> {
        let read = file.read_exact_at(buffer, position);
        read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.short(position, buffer.len()),
            _ => CacheError::io("read", &self.path, error),
        })
    }

    fn short(&self, position: u64, len: usize) -> CacheError {
        CacheError::Short {
            path: self.path.clone(),
            end: position.saturating_add(len as u64),
        }
    }

    /// The number of appended bytes, also those of an earlier process.
    pub(crate) fn len(&self) -> u64 {
        lock(&self.state).len
    }

    /// The id of the file.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The path of the file, for a hard link into a local bucket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Records that the bucket has the bytes: the last drop deletes the file. It can be read until then.
    pub(crate) fn finished(&self) {
        lock(&self.state).retention = FileRetention::Removed;
    }
}

impl Drop for StagingFile {
    fn drop(&mut self) {
        self.open.close(self.id);
        if lock(&self.state).retention == FileRetention::Kept {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot delete a staging file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    fn dir() -> (tempfile::TempDir, StagingDir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = StagingDir::open(&temp.path().join("staging")).unwrap();
        (temp, dir)
    }

    #[test]
    fn appends_are_consecutive() {
        let (_temp, dir) = dir();
        let file = dir.create(7).unwrap();
        assert_eq!(file.append(b"hello ").unwrap(), 0);
        assert_eq!(file.append(b"world").unwrap(), 6);
        assert_eq!(file.len(), 11);
        assert_eq!(&file.read_at(4, 4).unwrap()[..], b"o wo");
        assert!(file.read_at(11, 0).unwrap().is_empty());
    }

    #[test]
    fn more_files_than_may_be_open_are_written_and_read() {
        let temp = tempfile::tempdir().unwrap();
        let one = OpenFiles::at_most(NonZeroUsize::MIN);
        let dir = StagingDir::open_with(temp.path(), one).unwrap();
        let files: Vec<_> = (0..8).map(|id| dir.create(id).unwrap()).collect();
        for (position, text) in [(0, b"ab"), (2, b"cd")] {
            for file in &files {
                assert_eq!(file.append(text).unwrap(), position);
            }
        }
        let left = dir.reopen(0).unwrap();
        for file in files.iter().chain([&left]) {
            assert_eq!(&file.read_at(1, 2).unwrap()[..], b"bc");
        }
        for file in files {
            file.finished();
            drop(file);
        }
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn concurrent_appends_do_not_mix() {
        let (_temp, dir) = dir();
        let file = Arc::new(dir.create(1).unwrap());
        let places: Vec<(u8, u64)> = std::thread::scope(|scope| {
            let write = |byte: u8| {
                let file = Arc::clone(&file);
                scope.spawn(move || {
                    let append = || (byte, file.append(&[byte; 100]).unwrap());
                    std::iter::repeat_with(append).take(50).collect::<Vec<_>>()
                })
            };
            let threads: Vec<_> = (1..=4).map(write).collect();
            threads
                .into_iter()
                .flat_map(|t| t.join().unwrap())
                .collect()
        });
        assert_eq!(file.len(), 4 * 50 * 100);
        for (byte, position) in places {
            assert_eq!(&file.read_at(position, 100).unwrap()[..], &[byte; 100]);
        }
    }

    #[test]
    fn an_unfinished_file_is_kept_and_can_be_reopened() {
        let (_temp, dir) = dir();
        let file = dir.create(7).unwrap();
        file.append(b"kept").unwrap();
        assert!(dir.create(7).is_err());
        drop(file);
        assert!(dir.create(7).is_err());
        let file = dir.reopen(7).unwrap();
        assert_eq!(&file.read_at(0, 4).unwrap()[..], b"kept");
        let closed = |result| matches!(result, Err(CacheError::Closed { .. }));
        assert!(closed(file.append(b"!").map(drop)));
        file.close();
        assert!(!file.is_whole(4));
        assert!(closed(file.foot(&Bytes::from_static(b"foot"))));
        assert!(matches!(dir.reopen(8), Err(CacheError::Io { .. })));
    }

    #[test]
    fn a_closed_file_takes_one_footer_and_no_bytes() {
        let (_temp, dir) = dir();
        let file = dir.create(7).unwrap();
        file.append(b"bytes").unwrap();
        let closed = |result| matches!(result, Err(CacheError::Closed { .. }));
        let footer = Bytes::from_static(b"foot");
        assert!(closed(file.foot(&footer)));
        assert!(!file.is_whole(5));
        file.close();
        assert!(file.is_whole(5) && !file.is_whole(4));
        assert!(closed(file.append(b"!").map(drop)));
        // Bytes of a failed append that could not be truncated.
        fs::write(file.path(), b"bytesand more of them").unwrap();
        for _ in 0..2 {
            file.foot(&footer).unwrap();
            assert_eq!(fs::read(file.path()).unwrap(), b"bytesfoot");
        }
        assert!(closed(file.foot(&Bytes::from_static(b"hand"))));
        assert!(file.is_whole(5) && file.len() == 5);
        assert!(matches!(file.read_at(5, 1), Err(CacheError::Short { .. })));
    }

    #[test]
    fn a_finished_file_is_deleted_with_its_last_reference() {
        let (_temp, dir) = dir();
        let file = Arc::new(dir.create(7).unwrap());
        file.append(b"x").unwrap();
        let other = Arc::clone(&file);
        file.finished();
        drop(file);
        assert_eq!(&other.read_at(0, 1).unwrap()[..], b"x");
        let path = other.path().to_path_buf();
        assert!(path.exists());
        drop(other);
        assert!(!path.exists());
    }

    #[test]
    fn reading_beyond_the_end_is_an_error_and_no_allocation() {
        let (_temp, dir) = dir();
        let file = dir.create(7).unwrap();
        file.append(b"abc").unwrap();
        let short = |result| matches!(result, Err(CacheError::Short { .. }));
        assert!(short(file.read_at(1, 3)));
        assert!(short(file.read_at(u64::MAX, 2)));
        assert!(short(file.read_at(0, usize::MAX)));
        // Truncated by another program.
        OpenOptions::new()
            .write(true)
            .open(file.path())
            .unwrap()
            .set_len(1)
            .unwrap();
        assert!(short(file.read_at(0, 3)));
    }

    #[test]
    fn a_sweep_deletes_staging_files_that_are_not_to_be_kept() {
        let (_temp, dir) = dir();
        for id in [1, 2, u64::MAX] {
            dir.create(id).unwrap();
        }
        fs::write(dir.path.join("README"), "").unwrap();
        fs::write(dir.path.join("+000000000000003"), "").unwrap();
        assert_eq!(dir.sweep(&HashSet::from([2])).unwrap(), 2);
        let left = fs::read_dir(&dir.path).unwrap().count();
        assert_eq!(left, 3);
        assert!(dir.reopen(2).is_ok());
    }

    #[test]
    fn a_full_disk_is_no_space_and_leaves_the_file_as_it_was() {
        // /dev/full takes every write as a full disk does.
        let (_temp, dir) = dir();
        let file = dir.file(1, PathBuf::from("/dev/full"), 5, StagingPhase::Open);
        assert!(matches!(file.append(b"x"), Err(CacheError::NoSpace { .. })));
        assert_eq!(file.len(), 5);
    }
}
