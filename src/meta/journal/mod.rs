//! The local redo log: changes that were acknowledged and are not yet known to be in the bucket.
//!
//! A record is a sequence of bytes; its meaning belongs to the caller. Records are stored in numbered files of about 16 MiB.
//! A user of a record holds a [`JournalToken`] of its file, and files are deleted strictly oldest first, so that a replay
//! never finds a record without all later ones. A record survives a crash of the process once [`Journal::append`] has
//! returned. Nothing here calls fsync(2): a crash of the machine may lose the newest records.
//! Invariant: the files in the directory are numbered without a gap, and only the newest is written to.
//! Dropping the journal leaves its files in place, whichever tokens are dropped afterwards.

mod directory;
mod error;
mod files;
mod format;
mod recover;
mod snapshot;

pub(crate) use error::JournalError;
pub(crate) use files::JournalToken;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use files::loose_token;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use format::fuzz_scan;
pub(crate) use recover::Recovered;
pub(crate) use snapshot::{JournalSnapshot, is_in_use};

use crate::sync::{Arc, Ordering, lock};
use crate::task::lock_slow;
use files::JournalShared;
use recover::{Damage, OpenedJournal};
use std::path::Path;
use uuid::Uuid;

/// The size from which a file takes no further record, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// Divisor of the disk's size: a file takes at most this part of a small disk, but at least [`FILE_MIN`].
const DISK_PART: u64 = 32;

/// The lower bound of a file's size on a small disk, in bytes.
const FILE_MIN: u64 = 256 << 10;

/// The longest payload of a record, in bytes.
const PAYLOAD_MAX: usize = 1 << 30;

/// A local redo log, held by one process at a time.
#[derive(Debug)]
pub(crate) struct Journal {
    shared: Arc<JournalShared>,
    dropped: Vec<Damage>,
}

impl Journal {
    /// Opens the journal in `dir` for a namespace, and returns its records in the order in which they were appended. Creates
    /// the directory if it is missing. Removes a record that a crash cut off at the very end; [`Journal::dropped`] lists all
    /// other damage.
    ///
    /// # Errors
    /// `Busy` while another process has the journal open, `Foreign` if it was created for another namespace, `Corrupt` if a
    /// file is missing or was not written by this program, `NoSpace`, `Io`.
    pub(crate) fn open(
        dir: &Path,
        namespace: Uuid,
    ) -> Result<(Self, Vec<Recovered>), JournalError> {
        Self::open_with(dir, namespace, file_max(dir))
    }

    /// Opens the journal of a namespace in `local`, the directory with all of its local files, which becomes this user's alone.
    ///
    /// # Errors
    /// As [`Self::open`]; `Io` if another user owns `local`.
    pub(crate) fn open_in(
        local: &Path,
        namespace: Uuid,
    ) -> Result<(Self, Vec<Recovered>), JournalError> {
        directory::make_private(local)?;
        Self::open(&local.join("journal"), namespace)
    }

    /// As [`Self::open`], with files of about `file_max` bytes.
    fn open_with(
        dir: &Path,
        namespace: Uuid,
        file_max: u64,
    ) -> Result<(Self, Vec<Recovered>), JournalError> {
        let OpenedJournal {
            shared,
            records,
            damage,
        } = recover::open(dir, namespace, file_max)?;
        let dropped = damage;
        Ok((Self { shared, dropped }, records))
    }

    /// Appends a record with one write(2). Once this has returned, the record survives a crash of the process.
    ///
    /// # Errors
    /// `NoSpace`, `TooLong`, `Io`; the journal is unchanged then, and the caller may try again.
    pub(crate) fn append(&self, payload: &[u8]) -> Result<JournalToken, JournalError> {
        self.append_record(None, payload)
    }

    /// As [`Self::append`]; from now on, this record included, each new file begins with the record `head`, which no token keeps.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub(crate) fn append_with_head(
        &self,
        head: &[u8],
        payload: &[u8],
    ) -> Result<JournalToken, JournalError> {
        self.append_record(Some(head), payload)
    }

    fn append_record(
        &self,
        head: Option<&[u8]>,
        payload: &[u8],
    ) -> Result<JournalToken, JournalError> {
        let len = match u32::try_from(payload.len()) {
            Ok(len) if payload.len() <= PAYLOAD_MAX => len,
            _ => return Err(JournalError::TooLong(payload.len())),
        };
        let shared = &self.shared;
        // Dropped after the lock is released: the drop of a lease takes the lock again.
        let full;
        let mut state = lock_slow(&shared.state);
        if let Some(head) = head {
            state.head.clear();
            state.head.extend_from_slice(head);
        }
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

    /// Deletes no file from now on, whichever tokens are dropped. For a caller that does not know yet, or cannot learn any
    /// more, which records are in the bucket.
    pub(crate) fn freeze(&self) {
        self.shared.frozen.store(true, Ordering::SeqCst);
    }

    /// Ends [`Self::freeze`], and deletes the files whose last token was dropped meanwhile.
    pub(crate) fn thaw(&self) {
        self.shared.frozen.store(false, Ordering::SeqCst);
        self.shared.sweep(&mut lock(&self.shared.state));
    }

    /// Deletes the newest file too if no token needs it, so that an unmount leaves an empty journal.
    pub(crate) fn trim(&self) {
        let unneeded = {
            let mut state = lock(&self.shared.state);
            // A count of one is this lease alone; no token can be cloned from it while the lock is held.
            state
                .current
                .take_if(|current| Arc::strong_count(current) == 1)
        };
        drop(unneeded);
    }

    /// Begins a new file if the newest one has records, so that these are deleted once no token needs them. Returns the number of the file
    /// that takes the next record.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(crate) fn begin_file(&self) -> Result<u64, JournalError> {
        // Dropped after the lock is released, as in `append`.
        let full;
        let mut state = lock(&self.shared.state);
        full = match state.files.is_empty() {
            true => None,
            false => self.shared.start_file(&mut state)?,
        };
        let number = match state.files.back() {
            Some(newest) => newest.number,
            None => state.next,
        };
        drop(state);
        drop(full);
        Ok(number)
    }

    /// Returns the number of the oldest file; `None` if there is no file.
    pub(crate) fn oldest_file(&self) -> Option<u64> {
        let state = lock(&self.shared.state);
        state.files.front().map(|oldest| oldest.number)
    }

    /// Lists the damaged parts of the journal's files, as they were when it was opened.
    #[must_use]
    pub(crate) fn dropped(&self) -> &[Damage] {
        &self.dropped
    }
}

/// The size of a file, in bytes: smaller on a small disk, because only whole files are deleted.
fn file_max(dir: &Path) -> u64 {
    let disk = dir
        .ancestors()
        .find_map(|dir| rustix::fs::statvfs(dir).ok());
    let bytes = disk.map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
    FILE_MAX.min((bytes / DISK_PART).max(FILE_MIN))
}

#[cfg(test)]
mod tests;
