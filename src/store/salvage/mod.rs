//! Salvage: the acknowledged changes in a namespace's local directory as plain files, without the bucket.
//!
//! The path of the data: the journal is read under its lock, its records are replayed as a mount does it, and each state of a file that
//! they have is written below a new directory: `files/PATH` the newest state of a file that has a name, `older/PATH/STAMP` an earlier
//! one or that of a file that has none any more, `parts/...` the same where bytes are missing, with holes in their place. The local directory is
//! not changed. The bucket may have some of these states: only a mount can tell.

mod names;
mod output;
mod report;
mod states;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

pub use report::{SalvageReport, SalvagedFile};
pub use states::StateOrigin;

use crate::cache::StagingDir;
use crate::meta::{JournalSnapshot, Recovered};
use crate::store::model::error::StoreError;
use crate::store::salvage::output::Output;
use crate::store::salvage::states::JournalStates;
use crate::store::schema::journal_record::Record;

/// Finds the states and names in records of a journal without a directory; tells whether there is a state.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_records(records: Vec<Record>) -> bool {
    let nowhere = StagingDir::of_earlier(Path::new("/nonexistent"));
    let records = records
        .into_iter()
        .map(|record| (record, crate::meta::fuzzing::token()));
    let states = JournalStates::find(records, nowhere);
    for state in &states.states {
        let parts = states.parts(state);
        assert!(parts.iter().all(|part| part.range.start <= part.range.end));
    }
    for (_, named) in states.names.inodes() {
        let path = states.names.path(&named.place);
        let leads_outside = |name: &bytes::Bytes| {
            matches!(&name[..], b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0)
        };
        assert!(!path.iter().any(leads_outside), "{path:?}");
    }
    !states.states.is_empty()
}

/// A namespace's local directory, named by the id of the namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalDirectory {
    path: PathBuf,
    uuid: Uuid,
}

impl LocalDirectory {
    /// Finds the directories with a journal: `dir` itself, or those directly below it.
    ///
    /// # Errors
    /// Of the local disk; `NotFound` if there is none.
    pub fn find(dir: &Path) -> io::Result<Vec<Self>> {
        let dir = fs::canonicalize(dir)?;
        let mut found: Vec<Self> = Self::at(dir.clone()).into_iter().collect();
        if found.is_empty() {
            for entry in fs::read_dir(&dir)? {
                found.extend(Self::at(entry?.path()));
            }
        }
        if found.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        found.sort();
        Ok(found)
    }

    fn at(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let uuid = Uuid::parse_str(name).ok()?;
        path.join("journal").is_dir().then_some(Self { path, uuid })
    }

    /// Returns the id of the namespace.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Writes every state in the directory below `to`, which must be a new or empty directory, and calls `step` with each.
    ///
    /// # Errors
    /// `Busy` while a mount uses the directory, `Invalid` if `to` is not empty, `LocalDisk` if the journal cannot be read or `to` cannot
    /// be made. What fails later is a problem of the report.
    pub fn salvage(
        &self,
        to: &Path,
        step: impl FnMut(&SalvagedFile),
    ) -> Result<SalvageReport, StoreError> {
        let journal = self.path.join("journal");
        let snapshot = JournalSnapshot::read(&journal, self.uuid)?;
        let mut problems: Vec<String> = snapshot
            .damage
            .iter()
            .map(|damage| {
                format!(
                    "journal file {}: {} bytes at {} are not readable",
                    damage.file, damage.bytes, damage.position
                )
            })
            .collect();
        let mut unknown = 0_u64;
        let records = snapshot.records.into_iter();
        let records = records.filter_map(|Recovered { payload, token }| {
            let record = Record::decode(&payload);
            unknown += u64::from(record.is_err());
            Some((record.ok()?, token))
        });
        let staging = StagingDir::of_earlier(&self.path.join("staging"));
        let states = JournalStates::find(records, staging);
        if unknown > 0 {
            problems.push(format!(
                "{unknown} records of the journal cannot be decoded"
            ));
        }
        let mut output = Output::new(to, problems)?;
        output.write(&states, step);
        Ok(output.into_report())
    }
}
