//! The files of an open journal, and the tokens that keep them.
//!
//! Invariant: a file is deleted only when no token needs it and no older file is left.

use super::directory::lock_directory;
use super::error::JournalError;
use super::format;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Weak, lock};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The suffix of the names of the journal's files.
pub(super) const SUFFIX: &str = ".journal";

/// The path of the file with this number.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}{SUFFIX}"))
}

/// The size from which the buffer of a record is freed after its append, in bytes.
const BUFFER_MAX: usize = 1 << 20;

/// Keeps a journal file until the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct JournalToken(
    /// Held for its drop alone.
    #[allow(dead_code, reason = "the count of this Arc is the count of the tokens")]
    pub(super) Arc<FileLease>,
);

/// A token of no file.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn loose_token() -> JournalToken {
    JournalToken(Arc::new(FileLease {
        file: 0,
        shared: Weak::new(),
    }))
}

/// The lease of one file, shared by the tokens of its records; its drop marks the file as unneeded.
#[derive(Debug)]
pub(super) struct FileLease {
    pub(super) file: u64,
    pub(super) shared: Weak<JournalShared>,
}

impl Drop for FileLease {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.release(self.file);
        }
    }
}

/// What the journal and its tokens share.
#[derive(Debug)]
pub(super) struct JournalShared {
    pub(super) dir: PathBuf,
    pub(super) namespace: Uuid,
    pub(super) file_max: u64,
    /// Holds the flock(2) on the directory; the kernel releases it when the descriptor is closed.
    pub(super) _lock: File,
    /// A std mutex, held over one write(2) per append: tokens are dropped in code that cannot await.
    pub(super) state: Mutex<JournalState>,
    /// Set while no file may be deleted.
    pub(super) frozen: AtomicBool,
}

/// The files and the buffer of an open journal.
#[derive(Debug)]
pub(super) struct JournalState {
    /// Oldest first, numbered without a gap.
    pub(super) files: VecDeque<JournalFile>,
    pub(super) next: u64,
    /// The lease of the newest file while records are appended to it; `None` until the first append.
    pub(super) current: Option<Arc<FileLease>>,
    pub(super) buffer: Vec<u8>,
    /// The record that begins each new file; empty: none.
    pub(super) head: Vec<u8>,
    /// The lock of a directory that was made again, because the first one was deleted.
    pub(super) made_again: Option<File>,
}

/// One file of the journal.
#[derive(Debug)]
pub(super) struct JournalFile {
    pub(super) number: u64,
    pub(super) file: File,
    /// Where the last record ends. Bytes behind it are from a failed append; the next one overwrites them.
    pub(super) len: u64,
    pub(super) needed: FileNeed,
}

/// Whether a token still needs a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileNeed {
    Needed,
    Unneeded,
}

impl JournalState {
    /// Whether a record of `len` bytes needs a new file.
    pub(super) fn is_full(&self, len: u32, file_max: u64) -> bool {
        let record = format::RECORD_HEADER as u64 + u64::from(len);
        match (&self.current, self.files.back()) {
            (Some(_), Some(entry)) => {
                entry.len > format::FILE_HEADER as u64 && entry.len + record > file_max
            }
            _ => true,
        }
    }
}

impl JournalShared {
    fn path(&self, number: u64) -> PathBuf {
        path(&self.dir, number)
    }

    /// Starts the next file and returns the lease of the one before; the caller drops it after it has released the lock.
    pub(super) fn start_file(
        self: &Arc<Self>,
        state: &mut JournalState,
    ) -> Result<Option<Arc<FileLease>>, JournalError> {
        let number = state.next;
        let path = self.path(number);
        let mut options = File::options();
        // A file of this number can only be left from an earlier failed start.
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600);
        let opened = match options.open(&path) {
            // The directory was deleted under this process. It is made again, so that what is acknowledged from now on survives a crash.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::error!(path = %self.dir.display(), "the journal's directory was deleted; it is made again");
                state.made_again = Some(lock_directory(&self.dir)?);
                options.open(&path)
            }
            opened => opened,
        };
        let file = opened.map_err(|error| JournalError::of(&path, error))?;
        let mut first = format::file_header(self.namespace).to_vec();
        if let Ok(len @ 1..) = u32::try_from(state.head.len()) {
            let mut record = Vec::new();
            format::encode(&mut record, number, first.len() as u64, len, &state.head);
            first.append(&mut record);
        }
        if let Err(error) = file.write_all_at(&first, 0) {
            // If this fails too, the next start overwrites the file, and an open finds a torn header and removes it.
            drop(std::fs::remove_file(&path));
            return Err(JournalError::of(&path, error));
        }
        state.next += 1;
        state.files.push_back(JournalFile {
            number,
            file,
            len: first.len() as u64,
            needed: FileNeed::Needed,
        });
        let need = FileLease {
            file: number,
            shared: Arc::downgrade(self),
        };
        Ok(state.current.replace(Arc::new(need)))
    }

    /// Appends a record of `len` bytes to the newest file.
    pub(super) fn write_record(
        &self,
        state: &mut JournalState,
        len: u32,
        payload: &[u8],
    ) -> Result<JournalToken, JournalError> {
        let JournalState {
            files,
            current,
            buffer,
            ..
        } = state;
        let (Some(entry), Some(need)) = (files.back_mut(), current) else {
            // Unreachable: `append` has just started a file if there was none. An error costs one call, a panic the mount.
            return Err(JournalError::of(&self.dir, io::ErrorKind::Other.into()));
        };
        format::encode(buffer, entry.number, entry.len, len, payload);
        let written = entry.file.write_all_at(buffer, entry.len);
        let record = buffer.len() as u64;
        if buffer.capacity() > BUFFER_MAX {
            *buffer = Vec::new();
        }
        if let Err(error) = written {
            // Frees the space. If this fails too, the next record overwrites the bytes.
            drop(entry.file.set_len(entry.len));
            return Err(JournalError::of(&self.path(entry.number), error));
        }
        entry.len += record;
        Ok(JournalToken(Arc::clone(need)))
    }

    /// Marks a file as unneeded and deletes the files that no token needs.
    fn release(&self, number: u64) {
        let mut state = lock(&self.state);
        let mut files = state.files.iter_mut();
        if let Some(entry) = files.find(|entry| entry.number == number) {
            entry.needed = FileNeed::Unneeded;
        }
        self.sweep(&mut state);
    }

    /// Deletes the files that no token needs, oldest first, up to the first one that is needed.
    pub(super) fn sweep(&self, state: &mut JournalState) {
        if self.frozen.load(Ordering::SeqCst) {
            return;
        }
        let files = &mut state.files;
        while let Some(oldest) = files.front()
            && oldest.needed == FileNeed::Unneeded
        {
            let path = self.path(oldest.number);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // Newer files must outlive it, so they stay until a later sweep deletes it.
                    tracing::warn!(path = %path.display(), %error, "a journal file cannot be deleted");
                    return;
                }
                _ => files.pop_front(),
            };
        }
    }
}
