//! The result of a repair.

use crate::store::check::finding::Findings;

/// What a repair did with the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogRepair {
    /// It has every batch of the index.
    #[default]
    Whole,
    /// It begins again with a list of all rows.
    BegunAnew,
}

/// The result of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Number of rows in the index.
    pub rows: u64,
    /// Bytes of extents that were fetched and verified; 0 if none were to be.
    pub verified: u64,
    /// Log objects that are missing or damaged: no replay needs them any more.
    pub log_objects: Findings,
    /// Rows that the index lacked, or that could not be read in it, and that were put back from the log.
    pub put_back: Findings,
    /// Rows of the index that the log tells otherwise, or not at all: they are kept, and the log has them now.
    pub kept: Findings,
    /// Counts that were set to their recount.
    pub recounted: Findings,
    /// Names whose rows agree now.
    pub names: Findings,
    /// Files and versions that are marked as damaged, those of earlier repairs included.
    pub damaged: Findings,
    /// Number of contents that were marked as damaged by this repair.
    pub newly_marked: u64,
    /// Number of marks that were removed, because the bytes can be read again or no version shows them any more.
    pub unmarked: u64,
    /// Number of segments and lineages that nothing needs, and that garbage collection looks at from now on.
    pub queued: u64,
    /// What could not be mended.
    pub left: Findings,
    /// What was done with the log.
    pub log: LogRepair,
}

impl RepairReport {
    /// Tells whether the repair found nothing to do.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        let done = [
            &self.put_back,
            &self.kept,
            &self.recounted,
            &self.names,
            &self.left,
        ];
        let counted = self.newly_marked + self.unmarked + self.queued;
        done.iter().all(|findings| findings.is_empty())
            && counted == 0
            && self.log == LogRepair::Whole
    }
}
