//! Opening a journal: the lock of its directory, its files in order, and the records in them.

use super::error::JournalError;
use super::files::{
    FileLease, FileNeed, JournalFile, JournalShared, JournalState, JournalToken, SUFFIX, path,
};
use super::format::{self, JournalHeader};
use crate::sync::{Arc, AtomicBool, Mutex};
use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use uuid::Uuid;

/// The name of the file in the directory whose flock(2) is the journal's lock.
pub(super) const LOCK: &str = "LOCK";

/// A record of an earlier process.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The bytes that were appended. All records of one file share their memory.
    pub(crate) payload: Bytes,
    /// Keeps the record's file.
    pub(crate) token: JournalToken,
}

/// Bytes of a journal file that were written as records and are not readable as such any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The number of the file.
    pub(crate) file: u64,
    /// Where the damage starts, in bytes.
    pub(crate) position: u64,
    /// How long it is, in bytes.
    pub(crate) bytes: u64,
}

/// A journal that was opened, and what an earlier process left in it.
pub(super) struct OpenedJournal {
    pub(super) shared: Arc<JournalShared>,
    /// In the order of their appends.
    pub(super) records: Vec<Recovered>,
    pub(super) damage: Vec<Damage>,
}

/// Opens a journal whose files take about `file_max` bytes.
pub(super) fn open(
    dir: &Path,
    namespace: Uuid,
    file_max: u64,
) -> Result<OpenedJournal, JournalError> {
    let lock = lock_directory(dir)?;
    let numbers = numbers(dir)?;
    let mut found = RecoveredFiles::default();
    for number in &numbers {
        let newest = Some(number) == numbers.last();
        found.read(dir, *number, namespace, newest)?;
    }
    let next = found.files.back().map_or(1, |entry| entry.number + 1);
    let state = JournalState {
        files: found.files,
        next,
        current: None,
        buffer: Vec::new(),
        head: Vec::new(),
    };
    let shared = Arc::new(JournalShared {
        dir: dir.to_path_buf(),
        namespace,
        file_max,
        _lock: lock,
        state: Mutex::new(state),
        frozen: AtomicBool::new(false),
    });
    let records = found.records.into_iter();
    let records = records.flat_map(|records| records.with_tokens(&shared));
    Ok(OpenedJournal {
        records: records.collect(),
        damage: found.damage,
        shared,
    })
}

/// Creates the directory and locks it.
fn lock_directory(dir: &Path) -> Result<File, JournalError> {
    make_private(dir)?;
    let path = dir.join(LOCK);
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| JournalError::of(&path, error))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(JournalError::Busy(dir.to_path_buf())),
        Err(error) => Err(JournalError::of(&path, error.into())),
    }
}

/// Creates a directory for this user alone, or checks that it is this user's and takes the rights of others away. Another user may have made
/// it before, in a place where every user may.
pub(super) fn make_private(dir: &Path) -> Result<(), JournalError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let owned = made.and_then(|()| {
        let found = std::fs::symlink_metadata(dir)?;
        let (owner, me) = (found.uid(), rustix::process::geteuid().as_raw());
        if !found.is_dir() || owner != me {
            let text = format!(
                "it is no directory of user {me}, but belongs to user {owner}: name another cache directory, or change the owner"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if found.mode() & 0o077 != 0 {
            std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        }
        Ok(())
    });
    owned.map_err(|error| JournalError::of(dir, error))
}

/// Lists the journal's files, oldest first.
pub(super) fn numbers(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let failed = |error| JournalError::of(dir, error);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        numbers.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
    }
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 {
            return Err(JournalError::Corrupt {
                path: path(dir, pair[0] + 1),
                reason: "it is missing, though older and newer ones are there".to_owned(),
            });
        }
    }
    Ok(numbers)
}

/// The files that an open has read so far, with their records and their damage.
#[derive(Default)]
struct RecoveredFiles {
    files: VecDeque<JournalFile>,
    records: Vec<FileRecords>,
    damage: Vec<Damage>,
}

impl RecoveredFiles {
    fn read(
        &mut self,
        dir: &Path,
        number: u64,
        namespace: Uuid,
        newest: bool,
    ) -> Result<(), JournalError> {
        let path = path(dir, number);
        let bytes = std::fs::read(&path).map_err(|error| JournalError::of(&path, error))?;
        let bytes = Bytes::from(bytes);
        let corrupt = |reason| JournalError::Corrupt {
            path: path.clone(),
            reason,
        };
        match format::read_header(&bytes, namespace) {
            JournalHeader::Ours => self.read_records(&path, number, bytes, newest),
            JournalHeader::Torn if newest => {
                tracing::info!(path = %path.display(), "removed an empty journal file that a crash left");
                std::fs::remove_file(&path).map_err(|error| JournalError::of(&path, error))
            }
            JournalHeader::Torn => Err(corrupt("its head is missing".to_owned())),
            JournalHeader::Damaged => Err(corrupt("its head is not that of a journal".to_owned())),
            JournalHeader::Unknown(format) => Err(corrupt(format!(
                "it has format {format}, which this version does not know"
            ))),
            JournalHeader::Foreign(found) => Err(JournalError::Foreign {
                dir: dir.to_path_buf(),
                found,
                expected: namespace,
            }),
        }
    }

    fn read_records(
        &mut self,
        path: &Path,
        number: u64,
        bytes: Bytes,
        newest: bool,
    ) -> Result<(), JournalError> {
        let contents = format::scan(&bytes, number);
        let mut damage = contents.damage;
        let mut len = bytes.len();
        let failed = |error| JournalError::of(path, error);
        let file = File::options().read(true).write(true).open(path);
        let file = file.map_err(failed)?;
        if contents.end < len && newest {
            // Bytes behind the last good record of the newest file are from a write that was never acknowledged.
            let cut = len - contents.end;
            tracing::warn!(path = %path.display(), bytes = cut, "cut off an unfinished journal record");
            file.set_len(contents.end as u64).map_err(failed)?;
            len = contents.end;
        } else if contents.end < len {
            damage.push(contents.end..len);
        }
        for lost in damage {
            let (position, bytes) = (lost.start as u64, lost.len() as u64);
            tracing::error!(path = %path.display(), position, bytes, "journal records are damaged");
            self.damage.push(Damage {
                file: number,
                position,
                bytes,
            });
        }
        self.files.push_back(JournalFile {
            number,
            file,
            len: len as u64,
            needed: FileNeed::Needed,
        });
        self.records.push(FileRecords {
            number,
            payloads: contents.payloads,
            bytes,
        });
        Ok(())
    }
}

/// The good records of one file.
struct FileRecords {
    number: u64,
    payloads: Vec<std::ops::Range<usize>>,
    bytes: Bytes,
}

impl FileRecords {
    /// Gives each record a token. A file without records is released at once.
    fn with_tokens(self, shared: &Arc<JournalShared>) -> Vec<Recovered> {
        let need = Arc::new(FileLease {
            file: self.number,
            shared: Arc::downgrade(shared),
        });
        let record = |payload: std::ops::Range<usize>| Recovered {
            payload: self.bytes.slice(payload),
            token: JournalToken(Arc::clone(&need)),
        };
        self.payloads.iter().cloned().map(record).collect()
    }
}
