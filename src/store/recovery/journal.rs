//! The journal of an earlier daemon, read and decoded at a mount.

use crate::meta::{Journal, JournalToken, Recovered};
use crate::store::model::error::StoreError;
use crate::store::schema::journal_record::Record;

/// Decoded records, oldest first, each with the token that keeps its journal file.
pub(crate) type JournalRecords = Vec<(Record, JournalToken)>;

/// An open journal and the records that an earlier daemon left in it, oldest first.
#[derive(Debug)]
pub(crate) struct RecoveredJournal {
    pub(crate) journal: Journal,
    pub(crate) records: JournalRecords,
}

impl RecoveredJournal {
    /// Decodes every record. `Corrupt` if a record has a format that this build does not know.
    pub(crate) fn read(journal: Journal, recovered: Vec<Recovered>) -> Result<Self, StoreError> {
        let records = recovered
            .into_iter()
            .map(|r| Ok((Record::decode(&r.payload)?, r.token)));
        Ok(Self {
            records: records.collect::<Result<_, StoreError>>()?,
            journal,
        })
    }
}
