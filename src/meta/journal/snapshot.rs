//! A journal that is only read: neither its files nor its directory are changed.

use super::directory::LOCK;
use super::error::JournalError;
use super::files::{FileLease, JournalToken, path};
use super::format::{self, JournalHeader};
use super::recover::{Damage, Recovered, numbers};
use crate::sync::{Arc, Weak};
use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use uuid::Uuid;

/// The records of a journal. As long as it exists, no other process opens the journal.
#[derive(Debug)]
pub(crate) struct JournalSnapshot {
    /// In the order of their appends. The tokens keep nothing.
    pub(crate) records: Vec<Recovered>,
    /// What could not be read.
    pub(crate) damage: Vec<Damage>,
    /// `None` in a copy of a directory without the file.
    _lock: Option<File>,
}

impl JournalSnapshot {
    /// Reads the journal in `dir` of a namespace. Bytes that are no record are left out, whole files too, and listed as damage.
    ///
    /// # Errors
    /// `Busy` while a mount uses the journal, `Foreign` if it was created for another namespace, `Corrupt` if a file is missing
    /// between others or has a format that this build does not know, `Io`.
    pub(crate) fn read(dir: &Path, namespace: Uuid) -> Result<Self, JournalError> {
        let lock = lock_existing(dir)?;
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        let numbers = numbers(dir)?;
        for number in numbers.iter().copied() {
            let path = path(dir, number);
            let bytes = std::fs::read(&path).map_err(|error| JournalError::of(&path, error))?;
            let bytes = Bytes::from(bytes);
            let lost = |position: usize, end: usize| Damage {
                file: number,
                position: position as u64,
                bytes: (end - position) as u64,
            };
            match format::read_header(&bytes, namespace) {
                JournalHeader::Ours => {}
                JournalHeader::Torn | JournalHeader::Damaged => {
                    damage.push(lost(0, bytes.len()));
                    continue;
                }
                JournalHeader::Unknown(format) => {
                    let reason =
                        format!("it has format {format}, which this version does not know");
                    return Err(JournalError::Corrupt { path, reason });
                }
                JournalHeader::Foreign(found) => {
                    return Err(JournalError::Foreign {
                        dir: dir.to_path_buf(),
                        found,
                        expected: namespace,
                    });
                }
            }
            let contents = format::scan(&bytes, number);
            damage.extend(contents.damage.iter().map(|gap| lost(gap.start, gap.end)));
            // Behind the last record of the newest file is a write that was never acknowledged.
            if contents.end < bytes.len() && numbers.last() != Some(&number) {
                damage.push(lost(contents.end, bytes.len()));
            }
            let shared = Weak::new();
            let token = JournalToken(Arc::new(FileLease {
                file: number,
                shared,
            }));
            records.extend(contents.payloads.into_iter().map(|payload| Recovered {
                payload: bytes.slice(payload),
                token: token.clone(),
            }));
        }
        Ok(Self {
            records,
            damage,
            _lock: lock,
        })
    }
}

/// Tells whether a process uses the journal in `dir`.
///
/// # Errors
/// `Io`, also if there is no such directory.
pub(crate) fn is_in_use(dir: &Path) -> Result<bool, JournalError> {
    match lock_existing(dir) {
        Ok(_lock) => Ok(false),
        Err(JournalError::Busy(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Locks the journal in an existing directory, which may be read-only.
fn lock_existing(dir: &Path) -> Result<Option<File>, JournalError> {
    let path = dir.join(LOCK);
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound && dir.is_dir() => return Ok(None),
        Err(error) => return Err(JournalError::of(&path, error)),
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(Errno::WOULDBLOCK) => Err(JournalError::Busy(dir.to_path_buf())),
        Err(error) => Err(JournalError::of(&path, error.into())),
    }
}
