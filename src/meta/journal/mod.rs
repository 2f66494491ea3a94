//! The local redo log: what was acknowledged and is not yet known to be in the bucket.
//!
//! It knows bytes in their order, not what they mean. Records are stored in numbered files of about 16 MiB; a user of a
//! record holds a [`JournalToken`] on its file, and files are deleted strictly oldest first, so that no record is ever
//! found again without all later ones. A record survives the death of the process when [`Journal::append`] returned,
//! and the death of the machine after [`Journal::sync`].
//! Invariant: the files in the directory are numbered without a gap, and all but the newest are closed for writing.
//! Dropping the journal leaves the files as a crash would, whatever happens to the tokens afterwards.

mod format;
mod recover;

use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Weak, lock};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;
use uuid::Uuid;

/// A file that has this many bytes takes no further record.
const FILE_MAX: u64 = 16 << 20;

/// On a small disk it is one part of so many, but not less than this.
const DISK_PART: u64 = 32;
const FILE_MIN: u64 = 256 << 10;

/// The longest payload of a record, in bytes.
const PAYLOAD_MAX: usize = 1 << 30;

/// A buffer for records that grew beyond this is not kept.
const BUFFER_MAX: usize = 1 << 20;

/// Why the journal refused.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Another process (or mount) works with this directory.
    #[error("the cache directory {} is in use by another mount", .0.display())]
    Busy(PathBuf),
    /// The directory belongs to another namespace.
    #[error("the cache directory {} belongs to namespace {found}, not to {expected}", .dir.display())]
    Foreign {
        /// The journal's directory.
        dir: PathBuf,
        /// The namespace it was written for.
        found: Uuid,
        /// The namespace that was asked for.
        expected: Uuid,
    },
    /// A file is not what this program writes; what it holds is left as it is.
    #[error("journal file {}: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk is full. Nothing was appended and the journal works on.
    #[error("no space left for the journal in {}", .0.display())]
    NoSpace(PathBuf),
    /// A payload is longer than 1 GiB.
    #[error("a journal record of {0} bytes is too long")]
    TooLong(usize),
    /// The local disk failed.
    #[error("journal {}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
}

impl JournalError {
    fn of(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace(path.to_path_buf())
            }
            _ => Self::Io {
                path: path.to_path_buf(),
                source,
            },
        }
    }
}

/// A record found at opening.
#[derive(Debug)]
pub struct Recovered {
    /// What was appended. All records of one file share their memory.
    pub payload: Bytes,
    /// Keeps the record's file.
    pub token: JournalToken,
    /// The number of its file.
    pub file: u64,
    /// Where in the file the record starts, in bytes.
    pub position: u64,
}

/// Bytes of a journal file that were written as records and are none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The number of the file.
    pub file: u64,
    /// Where the damage starts, in bytes.
    pub position: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// Keeps a journal file: cloning adds one that needs it, dropping takes one away.
#[derive(Debug, Clone)]
pub struct JournalToken(
    /// Held for its drop alone.
    #[allow(dead_code, reason = "the count of this Arc is the count of the tokens")]
    Arc<FileLease>,
);

/// The need for one file; the last drop lets the file go.
#[derive(Debug)]
struct FileLease {
    file: u64,
    shared: Weak<JournalShared>,
}

impl Drop for FileLease {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.let_go(self.file);
        }
    }
}

/// A local redo log, held by one process at a time.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<JournalShared>,
    dropped: Vec<Damage>,
}

#[derive(Debug)]
struct JournalShared {
    dir: PathBuf,
    namespace: Uuid,
    file_max: u64,
    /// The lock on the directory goes with this descriptor.
    _lock: File,
    /// A std mutex: appends are one short write each, and tokens are dropped anywhere.
    state: Mutex<JournalState>,
    /// Raised while nothing may be deleted, whatever is dropped.
    frozen: AtomicBool,
}

#[derive(Debug)]
struct JournalState {
    /// Oldest first, numbered without a gap.
    files: VecDeque<JournalFile>,
    next: u64,
    /// What keeps the newest file while it is written; `None` until the first append.
    current: Option<Arc<FileLease>>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct JournalFile {
    number: u64,
    file: Arc<File>,
    /// Where the last record ends; bytes beyond are of a failed append and will be written over.
    len: u64,
    /// Up to where `sync` has brought the file to the disk.
    synced: u64,
    /// When this process first had the file.
    since: Instant,
    needed: FileLeases,
}

/// Whether a token still needs a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileLeases {
    Yes,
    No,
}

impl Journal {
    /// Opens the journal in `dir` for a namespace, creating the directory, and gives its records in the order of their
    /// appends. A record that a crash cut off at the very end is removed; other damage is told by [`Journal::dropped`].
    ///
    /// # Errors
    /// `Busy` while another process has it, `Foreign` when it was made for another namespace, `Corrupt` for files of
    /// another make or a missing one, `NoSpace`, `Io`.
    pub fn open(dir: &Path, namespace: Uuid) -> Result<(Self, Vec<Recovered>), JournalError> {
        recover::open(dir, namespace, file_max(dir))
    }

    /// Appends a record with one write. When this returns, the record survives the death of the process.
    ///
    /// # Errors
    /// `NoSpace`, `TooLong`, `Io`; the journal is as before then, and may be tried again.
    pub fn append(&self, payload: &[u8]) -> Result<JournalToken, JournalError> {
        let len = match u32::try_from(payload.len()) {
            Ok(len) if payload.len() <= PAYLOAD_MAX => len,
            _ => return Err(JournalError::TooLong(payload.len())),
        };
        let shared = &self.shared;
        // Dropped after the lock is released: letting a file go takes the lock again.
        let full;
        let mut state = lock(&shared.state);
        full = if state.is_full(len, shared.file_max) {
            shared.start_file(&mut state)?
        } else {
            None
        };
        let token = shared.write_record(&mut state, len, payload);
        drop(state);
        drop(full);
        token
    }

    /// Brings every record appended so far to the disk.
    ///
    /// # Errors
    /// `Io`: what the disk holds is unknown then.
    pub fn sync(&self) -> Result<(), JournalError> {
        let unsynced: Vec<_> = {
            let state = lock(&self.shared.state);
            let unsynced = state.files.iter().filter(|entry| entry.synced < entry.len);
            unsynced
                .map(|entry| (entry.number, Arc::clone(&entry.file), entry.len))
                .collect()
        };
        if unsynced.is_empty() {
            return Ok(());
        }
        for (number, file, len) in unsynced {
            file.sync_data()
                .map_err(|error| JournalError::of(&self.shared.path(number), error))?;
            let mut state = lock(&self.shared.state);
            if let Some(entry) = state.files.iter_mut().find(|entry| entry.number == number) {
                entry.synced = entry.synced.max(len);
            }
        }
        let dir = &self.shared.dir;
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| JournalError::of(dir, error))
    }

    /// Keeps every file from now on, whatever tokens are dropped: its owner does not know yet, or will never know, what
    /// the bucket has.
    pub fn freeze(&self) {
        self.shared.frozen.store(true, Ordering::SeqCst);
    }

    /// Deletes again what no token needs, and what none needed meanwhile.
    pub fn thaw(&self) {
        self.shared.frozen.store(false, Ordering::SeqCst);
        self.shared.sweep(&mut lock(&self.shared.state));
    }

    /// Deletes the newest file too if no token needs it, so that a clean end leaves an empty journal.
    pub fn trim(&self) {
        let unneeded = {
            let mut state = lock(&self.shared.state);
            // A count of one is our own; no token can be cloned from it meanwhile.
            state
                .current
                .take_if(|current| Arc::strong_count(current) == 1)
        };
        drop(unneeded);
    }

    /// Tells how many bytes the journal's files have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let state = lock(&self.shared.state);
        state.files.iter().map(|entry| entry.len).sum()
    }

    /// Tells how long the oldest file has been kept; for files of an earlier process, since this one opened them.
    #[must_use]
    pub fn oldest_age(&self) -> Option<Duration> {
        let state = lock(&self.shared.state);
        state.files.front().map(|entry| entry.since.elapsed())
    }

    /// Tells which records were lost to damage, found when the journal was opened.
    #[must_use]
    pub fn dropped(&self) -> &[Damage] {
        &self.dropped
    }
}

/// How long a file gets: on a small disk less, because it is let go as a whole.
fn file_max(dir: &Path) -> u64 {
    let disk = dir
        .ancestors()
        .find_map(|dir| rustix::fs::statvfs(dir).ok());
    let bytes = disk.map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
    FILE_MAX.min((bytes / DISK_PART).max(FILE_MIN))
}

impl JournalState {
    fn is_full(&self, len: u32, file_max: u64) -> bool {
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
        recover::path(&self.dir, number)
    }

    /// Starts the next file and gives what kept the one before; drop it without the lock.
    fn start_file(
        self: &Arc<Self>,
        state: &mut JournalState,
    ) -> Result<Option<Arc<FileLease>>, JournalError> {
        let number = state.next;
        let path = self.path(number);
        let mut options = File::options();
        // A file of this number can only be what an earlier failed start left.
        let opened = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        let file = opened.map_err(|error| JournalError::of(&path, error))?;
        if let Err(error) = file.write_all_at(&format::file_header(self.namespace), 0) {
            // If this fails too, the next start writes over it, and an open takes it for torn.
            drop(std::fs::remove_file(&path));
            return Err(JournalError::of(&path, error));
        }
        state.next += 1;
        state.files.push_back(JournalFile {
            number,
            file: Arc::new(file),
            len: format::FILE_HEADER as u64,
            synced: 0,
            since: Instant::now(),
            needed: FileLeases::Yes,
        });
        let need = FileLease {
            file: number,
            shared: Arc::downgrade(self),
        };
        Ok(state.current.replace(Arc::new(need)))
    }

    fn write_record(
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
            // `append` has just made sure of both; an error costs one call, a panic would cost the mount.
            return Err(JournalError::of(&self.dir, io::ErrorKind::Other.into()));
        };
        format::encode(buffer, entry.number, entry.len, len, payload);
        let written = entry.file.write_all_at(buffer, entry.len);
        let record = buffer.len() as u64;
        if buffer.capacity() > BUFFER_MAX {
            *buffer = Vec::new();
        }
        if let Err(error) = written {
            // Gives the space back; if this fails too, the next record is written over what is there.
            drop(entry.file.set_len(entry.len));
            return Err(JournalError::of(&self.path(entry.number), error));
        }
        entry.len += record;
        Ok(JournalToken(Arc::clone(need)))
    }

    /// Marks a file as not needed and deletes what may go.
    fn let_go(&self, number: u64) {
        let mut state = lock(&self.state);
        let mut files = state.files.iter_mut();
        if let Some(entry) = files.find(|entry| entry.number == number) {
            entry.needed = FileLeases::No;
        }
        self.sweep(&mut state);
    }

    /// Deletes what may go, oldest first.
    fn sweep(&self, state: &mut JournalState) {
        if self.frozen.load(Ordering::SeqCst) {
            return;
        }
        let files = &mut state.files;
        while let Some(oldest) = files.front()
            && oldest.needed == FileLeases::No
        {
            let path = self.path(oldest.number);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // Newer files must outlive it, so they wait until a later try succeeds.
                    tracing::warn!(path = %path.display(), %error, "a journal file cannot be deleted");
                    return;
                }
                _ => files.pop_front(),
            };
        }
    }
}

#[cfg(test)]
mod tests;
