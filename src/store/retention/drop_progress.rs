//! What drops left: which record of a list is the one before the next record that is dropped.
//!
//! A run drops the versions of a name from the oldest one on. A search of the index for the record before one of them would pass over the
//! rows of all that were dropped between the two, which the engine removes later: over more rows with each drop.
//! Invariant: what an entry says holds as long as its list has no new record that ended at `end`. A record is written when its version
//! ends, at a timestamp that is later than every one before it, also where the version is imported; so there is none.

use std::collections::HashMap;

use crate::store::model::version::{Timestamp, VersionId};
use crate::store::tree::version_record::VersionRows;

/// Lists that are remembered. A list that is not is searched.
const LISTS: usize = 10_000;

/// The last drop of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastDrop {
    /// When the dropped version ended.
    end: Timestamp,
    older: OlderRecord,
}

/// The record before a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OlderRecord {
    /// There is none: nothing is left of the time before the version.
    Nothing,
    /// This one, if it ends where the version begins.
    Extended(VersionId),
}

/// The last drop of each list of records.
#[derive(Debug, Default)]
pub(crate) struct DropProgress {
    lists: HashMap<VersionRows, LastDrop>,
}

impl DropProgress {
    /// Returns the record before the version of a list that begins at `start`; `None` if it is to be searched for.
    pub(super) fn older(&self, list: &VersionRows, start: Timestamp) -> Option<OlderRecord> {
        let last = self.lists.get(list).filter(|last| last.end == start)?;
        Some(last.older)
    }

    /// Notes that a version of a list that ended at `end` was dropped, and the record before it extended.
    pub(super) fn note(&mut self, list: &VersionRows, end: Timestamp, older: OlderRecord) {
        if self.lists.len() >= LISTS && !self.lists.contains_key(list) {
            self.lists.clear();
        }
        self.lists.insert(list.clone(), LastDrop { end, older });
    }

    /// Forgets all lists.
    pub(super) fn clear(&mut self) {
        self.lists.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::version::Ino;

    #[test]
    fn a_list_is_remembered_until_too_many_others_are() {
        let mut progress = DropProgress::default();
        let list = |number| VersionRows::Linked(Ino(number));
        for number in 0..LISTS as u64 {
            progress.note(&list(number), Timestamp(number), OlderRecord::Nothing);
        }
        let found = progress.older(&list(3), Timestamp(3));
        assert_eq!(found, Some(OlderRecord::Nothing));
        assert_eq!(progress.older(&list(3), Timestamp(4)), None);
        progress.note(&list(3), Timestamp(4), OlderRecord::Nothing);
        assert!(progress.older(&list(4), Timestamp(4)).is_some());
        progress.note(&list(LISTS as u64), Timestamp(1), OlderRecord::Nothing);
        assert_eq!(progress.lists.len(), 1);
    }
}
