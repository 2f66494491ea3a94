//! The keys of the rows of labels and holds: a function for each.
//!
//! | key | bytes after the prefix | read by, for | order |
//! |---|---|---|---|
//! | `G S` | directory, label | the labels of a directory | those of a directory are adjacent |
//! | `G T` | timestamp, directory, label | retention: the labels that show a span of time | by what they show |
//! | `G H` | inode, ~timestamp, suffix | retention: whether a version is held | |
//! | `G Y` | time, key of a `G S` or `G H` | expired labels and ended holds | the oldest first |

use bytes::Bytes;

use crate::store::model::version::{Ino, Timestamp, VersionId};
use crate::store::schema::keys::{KeyBuilder, trailing_id};
use crate::store::schema::label_rows::LabelRow;
use crate::store::schema::tables::{
    HoldTable, LabelTable, LabelTimeTable, LapseTable, RowKey, RowTable,
};
use crate::store::schema::tally::word;

/// The place of a label: its directory and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LabelSlot {
    pub(crate) directory: Ino,
    pub(crate) name: Bytes,
}

/// A label and what it shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LabelPoint {
    /// The timestamp as of which it shows its directory. Two labels of one directory show different timestamps.
    pub(crate) timestamp: Timestamp,
    pub(crate) slot: LabelSlot,
}

pub(crate) fn label(directory: Ino, name: &[u8]) -> RowKey<LabelTable> {
    KeyBuilder::new(LabelTable::PREFIX)
        .u64(directory.0)
        .bytes(name)
        .row()
}

/// Prefix of all labels of a directory.
pub(crate) fn labels(directory: Ino) -> Bytes {
    KeyBuilder::new(LabelTable::PREFIX).u64(directory.0).done()
}

/// The directory and the name of a `G S` key.
pub(crate) fn label_slot(key: &Bytes) -> Option<LabelSlot> {
    if !LabelTable::has(key) {
        return None;
    }
    Some(LabelSlot {
        directory: Ino(word(key, 2)?),
        name: key.slice(10..),
    })
}

pub(crate) fn label_time(
    timestamp: Timestamp,
    directory: Ino,
    name: &[u8],
) -> RowKey<LabelTimeTable> {
    KeyBuilder::new(LabelTimeTable::PREFIX)
        .u64(timestamp.0)
        .u64(directory.0)
        .bytes(name)
        .row()
}

/// Where a scan of the labels begins that show `timestamp` or a later one.
pub(crate) fn label_times(timestamp: Timestamp) -> Bytes {
    KeyBuilder::new(LabelTimeTable::PREFIX)
        .u64(timestamp.0)
        .done()
}

/// The label of a `G T` key.
pub(crate) fn timed_label(key: &Bytes) -> Option<LabelPoint> {
    Some(LabelPoint {
        timestamp: Timestamp(word(key, 2)?),
        slot: LabelSlot {
            directory: Ino(word(key, 10)?),
            name: key.slice(18..),
        },
    })
}

pub(crate) fn hold(ino: Ino, id: VersionId) -> RowKey<HoldTable> {
    KeyBuilder::new(HoldTable::PREFIX)
        .u64(ino.0)
        .u64(!id.timestamp.0)
        .u32(id.suffix)
        .row()
}

/// Prefix of all holds on versions of an inode.
pub(crate) fn holds(ino: Ino) -> Bytes {
    KeyBuilder::new(HoldTable::PREFIX).u64(ino.0).done()
}

/// The inode and the version of a `G H` key.
pub(crate) fn held_version(key: &[u8]) -> Option<(Ino, VersionId)> {
    if !HoldTable::has(key) {
        return None;
    }
    Some((Ino(word(key, 2)?), trailing_id(key)?))
}

/// The row of a label or a hold in the order in which they lapse; `row` is the key of the label or the hold.
pub(crate) fn lapse(at: Timestamp, row: &[u8]) -> RowKey<LapseTable> {
    KeyBuilder::new(LapseTable::PREFIX)
        .u64(at.0)
        .bytes(row)
        .row()
}

/// The end of the keys of what has lapsed at `now`, exclusive.
pub(crate) fn lapsed_end(now: Timestamp) -> Bytes {
    KeyBuilder::new(LapseTable::PREFIX)
        .u64(now.0.saturating_add(1))
        .done()
}

/// The key of the label or the hold that a `G Y` key is for.
pub(crate) fn lapsing_row(key: &Bytes) -> Option<Bytes> {
    (key.len() > 10).then(|| key.slice(10..))
}

/// The rows that lead to a label: its place in the order of what it shows, and where it lapses in that order. `None` for a key that is
/// no label's.
pub(crate) fn label_rows(key: &Bytes, row: &LabelRow) -> Option<Vec<Bytes>> {
    let slot = label_slot(key)?;
    let time = label_time(row.timestamp, slot.directory, &slot.name).bytes();
    let lapses = row.lapses().map(|at| lapse(at, key).bytes());
    Some([time].into_iter().chain(lapses).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        let slot = LabelSlot {
            directory: Ino(7),
            name: Bytes::from_static(b"before upgrade"),
        };
        let key = label(slot.directory, &slot.name).bytes();
        assert_eq!(label_slot(&key), Some(slot.clone()));
        let lapsing = lapse(Timestamp(9), &key).bytes();
        assert_eq!(lapsing_row(&lapsing), Some(key));
        let timed = label_time(Timestamp(5), slot.directory, &slot.name).bytes();
        let point = LabelPoint {
            timestamp: Timestamp(5),
            slot,
        };
        assert_eq!(timed_label(&timed), Some(point));
        let id = VersionId {
            timestamp: Timestamp(3),
            suffix: 4,
        };
        let key = hold(Ino(8), id).bytes();
        assert_eq!(held_version(&key), Some((Ino(8), id)));
        assert_eq!(label_slot(&key), None);
    }

    #[test]
    fn what_has_lapsed_is_before_the_end_and_the_oldest_is_first() {
        let at = |time| lapse(Timestamp(time), b"GSx").bytes();
        assert!(at(8) < at(9) && at(9) < lapsed_end(Timestamp(9)));
        assert!(at(10) >= lapsed_end(Timestamp(9)));
    }
}
