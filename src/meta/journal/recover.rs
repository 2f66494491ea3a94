//! Opening a journal: the lock of its directory, its files in order, and the records in them.

use super::directory::lock_directory;
use super::error::JournalError;
use super::files::{
    FileLease, FileNeed, JournalFile, JournalShared, JournalState, JournalToken, SUFFIX, path,
};
use super::format::{self, JournalHeader};
use crate::sync::{Arc, AtomicBool, Mutex};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use uuid::Uuid;

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
        made_again: None,
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
