//! Where the lists begin that garbage collection reads: the rows `G D` and `G E`.
//!
//! Garbage collection deletes the rows that it has reviewed from the beginning of a list on, and the engine passes over each deleted row
//! until it removes it, which may take hours. A cycle that began where the table begins would pass over all of them, every few seconds.
//! Invariant: no committed row of a list has a key before the list's beginning.

use bytes::Bytes;

use crate::meta::{Batch, Change};
use crate::store::schema::keys;
use crate::store::schema::tables::{DroppedTable, EmptiedTable, RowTable};
use crate::sync::{Mutex, lock};

/// The beginnings of both lists.
#[derive(Debug)]
pub(crate) struct ReviewLists {
    lineages: Mutex<ListStart>,
    segments: Mutex<ListStart>,
}

#[derive(Debug)]
struct ListStart {
    from: Bytes,
    /// How many commits have added a row.
    added: u64,
}

/// The beginning of a list before a scan.
#[derive(Clone, Debug)]
pub(crate) struct ScanStart {
    pub(crate) from: Bytes,
    added: u64,
}

/// The first row of each list that a batch adds.
#[derive(Debug)]
pub(crate) struct AddedReviews {
    lineages: Option<Bytes>,
    segments: Option<Bytes>,
}

impl AddedReviews {
    /// Returns what a batch adds.
    pub(crate) fn of(batch: &Batch) -> Self {
        let first = |has: fn(&[u8]) -> bool| {
            let rows = batch.rows().iter();
            let put = rows.filter(|(key, change)| has(key) && matches!(change, Change::Put(_)));
            put.map(|(key, _)| key).min().cloned()
        };
        Self {
            lineages: first(DroppedTable::has),
            segments: first(EmptiedTable::has),
        }
    }
}

impl Default for ReviewLists {
    fn default() -> Self {
        let start = |from| Mutex::new(ListStart { from, added: 0 });
        Self {
            lineages: start(DroppedTable::all()),
            segments: start(EmptiedTable::all()),
        }
    }
}

impl ReviewLists {
    fn list<T: RowTable>(&self) -> &Mutex<ListStart> {
        match DroppedTable::has(&T::PREFIX) {
            true => &self.lineages,
            false => &self.segments,
        }
    }

    /// Notes what a batch has added. Called after the commit.
    pub(crate) fn added(&self, added: AddedReviews) {
        for (list, key) in [
            (&self.lineages, added.lineages),
            (&self.segments, added.segments),
        ] {
            if let Some(key) = key {
                let mut list = lock(list);
                list.added += 1;
                if key < list.from {
                    list.from = key;
                }
            }
        }
    }

    /// Returns where a scan of a list begins that is to find every row.
    pub(crate) fn start<T: RowTable>(&self) -> ScanStart {
        let list = lock(self.list::<T>());
        ScanStart {
            from: list.from.clone(),
            added: list.added,
        }
    }

    /// Notes the first row that a scan from `start` on has found; `None` if it found none. Without effect if a row was added since.
    pub(crate) fn found<T: RowTable>(&self, start: &ScanStart, first: Option<&Bytes>) {
        let mut list = lock(self.list::<T>());
        if list.added == start.added {
            list.from = first.cloned().unwrap_or_else(|| keys::after(&T::all()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::version::{ContentRef, Timestamp};

    fn row(cid: u64) -> Bytes {
        let timestamp = Timestamp(1);
        keys::dropped(ContentRef { cid, timestamp }, timestamp).bytes()
    }

    fn add(lists: &ReviewLists, cids: &[u64]) {
        let mut batch = Batch::new();
        for cid in cids {
            batch.put(row(*cid), Bytes::new());
        }
        lists.added(AddedReviews::of(&batch));
    }

    #[test]
    fn a_list_begins_at_its_first_row_whenever_that_is_added() {
        let lists = ReviewLists::default();
        let start = lists.start::<DroppedTable>();
        assert_eq!(start.from, DroppedTable::all());
        add(&lists, &[9, 7, 8]);
        // The scan may have begun before the rows were there.
        lists.found::<DroppedTable>(&start, None);
        let start = lists.start::<DroppedTable>();
        assert_eq!(start.from, DroppedTable::all());
        lists.found::<DroppedTable>(&start, Some(&row(7)));
        assert_eq!(lists.start::<DroppedTable>().from, row(7));
        add(&lists, &[5]);
        assert_eq!(lists.start::<DroppedTable>().from, row(5));
        add(&lists, &[6]);
        let start = lists.start::<DroppedTable>();
        assert_eq!(start.from, row(5));
        lists.found::<DroppedTable>(&start, None);
        let end = keys::after(&DroppedTable::all());
        assert_eq!(lists.start::<DroppedTable>().from, end);
        assert_eq!(
            lists.start::<EmptiedTable>().from,
            EmptiedTable::all(),
            "the other list"
        );
        add(&lists, &[3]);
        assert_eq!(lists.start::<DroppedTable>().from, row(3));
    }

    #[test]
    fn a_deleted_row_does_not_begin_a_list() {
        let lists = ReviewLists::default();
        lists.found::<DroppedTable>(&lists.start::<DroppedTable>(), None);
        let mut batch = Batch::new();
        batch.delete(row(4));
        lists.added(AddedReviews::of(&batch));
        let end = keys::after(&DroppedTable::all());
        assert_eq!(lists.start::<DroppedTable>().from, end);
    }
}
