//! The result of a check.

use crate::store::check::finding::Findings;
use crate::store::check::orphans::Orphans;

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Number of log objects read.
    pub objects: usize,
    /// Number of rows in the index.
    pub rows: u64,
    /// Number of segments in the bucket.
    pub segments: u64,
    /// Bytes of extents that were fetched and verified; 0 if none were to be.
    pub verified: u64,
    /// Log objects that are missing or damaged. Their batches are then absent from the comparison.
    pub damaged: Findings,
    /// Rows that differ, or exist on one side only.
    pub differing: Findings,
    /// Counts that differ from the recount.
    pub miscounted: Findings,
    /// Names whose rows do not agree.
    pub disagreeing: Findings,
    /// Files and versions with bytes that cannot be read, and that are not marked as damaged.
    pub lost: Findings,
    /// Files and versions that are marked as damaged.
    pub marked: Findings,
    /// Whether there is more damage than is named and counted.
    pub more_lost: MoreDamage,
    /// What nothing needs any more; no damage.
    pub orphans: Orphans,
}

/// Whether a check has met a limit of the damage that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MoreDamage {
    /// All damage is in the report.
    #[default]
    None,
    /// More extents or contents are lost than are kept in memory.
    NotNamed,
}

impl CheckReport {
    /// Tells whether the check found no fault. Versions that are marked as damaged, and orphans, are none.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let faults = [
            &self.damaged,
            &self.differing,
            &self.miscounted,
            &self.disagreeing,
            &self.lost,
        ];
        faults.iter().all(|findings| findings.is_empty()) && self.more_lost == MoreDamage::None
    }
}
