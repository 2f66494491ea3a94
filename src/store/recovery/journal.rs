//! What an earlier daemon left in the journal, decoded.

use crate::meta::{Journal, JournalToken, Recovered};
use crate::store::model::error::StoreError;
use crate::store::schema::journal_record::Record;

/// Records of a journal with the tokens that keep them, oldest first.
pub(crate) type JournalRecords = Vec<(Record, JournalToken)>;

/// A journal and the records found in it, oldest first.
#[derive(Debug)]
pub(crate) struct RecoveredJournal {
    pub(crate) journal: Journal,
    pub(crate) records: JournalRecords,
}

impl RecoveredJournal {
    /// Decodes every record; fails on a format this build does not know.
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
