//! Whether the range rows of a lineage have changed since a caller read them: it counts the operations that change them.
//!
//! Invariant: two equal stamps of a lineage mean that no operation changed its range rows or truncations between them. Every change of a row by an operation
//! goes through [`Index::apply`](crate::store::index::current::Index::apply).

use std::collections::{BTreeSet, HashMap};

use crate::meta::Batch;
use crate::store::schema::keys;
use crate::store::schema::tables::{CutTable, RangeTable, RowTable};

/// Maximum number of lineages whose changes are counted; the next one invalidates the stamps of all others.
const COUNTED_MAX: usize = 256;

/// The state of a lineage's range rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineageStamp {
    generation: u64,
    changes: u64,
}

impl LineageStamp {
    /// The stamp after one operation more.
    pub(crate) fn next(self) -> Self {
        Self {
            changes: self.changes + 1,
            ..self
        }
    }
}

/// How many operations have changed the range rows of each lineage that a caller has asked for.
#[derive(Debug, Default)]
pub(super) struct LineageChanges {
    generation: u64,
    changes: HashMap<u64, u64>,
}

impl LineageChanges {
    /// Returns the stamp of a lineage, whose changes are counted from now on.
    pub(super) fn stamp(&mut self, cid: u64) -> LineageStamp {
        if self.changes.len() >= COUNTED_MAX && !self.changes.contains_key(&cid) {
            self.changes.clear();
            self.generation += 1;
        }
        LineageStamp {
            generation: self.generation,
            changes: *self.changes.entry(cid).or_default(),
        }
    }

    /// Counts an operation with these rows.
    pub(super) fn add(&mut self, rows: &Batch) {
        if self.changes.is_empty() {
            return;
        }
        let keys = rows.rows().iter().map(|(key, _)| key);
        let of_contents = keys.filter(|key| RangeTable::has(key) || CutTable::has(key));
        let lineages: BTreeSet<u64> = of_contents
            .filter_map(|key| keys::lineage_of(key))
            .collect();
        for cid in lineages {
            if let Some(changes) = self.changes.get_mut(&cid) {
                *changes += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::version::{ContentRef, Timestamp};

    fn changing(cids: &[u64]) -> Batch {
        let mut rows = Batch::new();
        for cid in cids {
            keys::range(*cid, 0, Timestamp(1)).delete(&mut rows);
            keys::range(*cid, 1, Timestamp(1)).delete(&mut rows);
        }
        rows
    }

    #[test]
    fn an_operation_on_range_rows_or_truncations_changes_the_stamp_once() {
        let mut lineages = LineageChanges::default();
        let before = lineages.stamp(1);
        lineages.add(&changing(&[2]));
        let timestamp = Timestamp(1);
        let mut count = Batch::new();
        keys::count(ContentRef { cid: 1, timestamp }).delete(&mut count);
        lineages.add(&count);
        assert_eq!(lineages.stamp(1), before);
        lineages.add(&changing(&[1, 2]));
        assert_eq!(lineages.stamp(1), before.next());
        let mut cut = Batch::new();
        keys::cut(1, timestamp).delete(&mut cut);
        lineages.add(&cut);
        assert_eq!(lineages.stamp(1), before.next().next());
    }

    #[test]
    fn a_stamp_from_before_the_counters_were_emptied_equals_no_later_one() {
        let mut lineages = LineageChanges::default();
        let before = lineages.stamp(1);
        for cid in 2..=COUNTED_MAX as u64 + 1 {
            lineages.stamp(cid);
        }
        lineages.add(&changing(&[1]));
        assert_ne!(lineages.stamp(1), before);
        assert_ne!(lineages.stamp(1), before.next());
    }
}
