//! Amounts: how many bytes the rows of the index store, how much each label keeps, and the largest live sizes of the last days.
//!
//! `stored` is a sum that changes with the rows: a batch that adds an extent or inline bytes adds their length, the review of a
//! segment (`gc/segments.rs`) subtracts the extents that no row cites any more, once. A namespace that was made before these rows has
//! no `G a` of kind 1 until its bytes were counted.
//!
//! | key | bytes after the prefix | read by, for | order |
//! |---|---|---|---|
//! | `G a` | 0 | retention: bytes of extents and inline bytes, what changed since the amounts are kept | one row |
//! | `G a` | 1 | the bytes that were stored when that began | one row |
//! | `G a` | 2, segment epoch, sequence | gc: bytes of the segment's extents that are subtracted | |
//! | `G a` | 3, day | retention: the largest live size of that day since 1970 | few, all scanned |
//! | `G a` | 4, timestamp, directory | `label list`: bytes of the versions that are filed under that label | |
//! | `G a` | 5, timestamp, directory | their number | |

use bytes::Bytes;

use crate::meta::Batch;
use crate::store::schema::keys::KeyBuilder;
use crate::store::schema::retention_rows::LabelPin;
use crate::store::schema::tables::{AmountTable, RowKey, RowTable};
use crate::store::schema::tally::{
    AMOUNT_BASE, AMOUNT_LABEL_BYTES, AMOUNT_LABEL_VERSIONS, AMOUNT_PEAK, AMOUNT_STORED,
    AMOUNT_UNCITED, word,
};

fn of(kind: u8) -> KeyBuilder {
    KeyBuilder::new(AmountTable::PREFIX).bytes(&[kind])
}

/// The bytes that rows have stored since the amounts are kept.
pub(crate) fn stored() -> RowKey<AmountTable> {
    of(AMOUNT_STORED).row()
}

/// The bytes that were stored when the amounts were first kept; absent: they are not counted yet.
pub(crate) fn stored_before() -> RowKey<AmountTable> {
    of(AMOUNT_BASE).row()
}

/// The bytes of a segment's extents that are not counted any more, because no row cites them.
pub(crate) fn uncited_bytes(epoch: u64, sequence: u64) -> RowKey<AmountTable> {
    of(AMOUNT_UNCITED).u64(epoch).u64(sequence).row()
}

/// The largest live size on a day since 1970.
pub(crate) fn live_peak(day: u64) -> RowKey<AmountTable> {
    of(AMOUNT_PEAK).u64(day).row()
}

/// Prefix of the largest live sizes of all days.
pub(crate) fn live_peaks() -> Bytes {
    of(AMOUNT_PEAK).done()
}

/// The day in a key of a largest live size.
pub(crate) fn peak_day(key: &[u8]) -> Option<u64> {
    word(key, 3)
}

/// The bytes of the versions that are filed under a label.
pub(crate) fn labeled_bytes(label: LabelPin) -> RowKey<AmountTable> {
    of_label(AMOUNT_LABEL_BYTES, label)
}

/// How many versions are filed under a label.
pub(crate) fn labeled_versions(label: LabelPin) -> RowKey<AmountTable> {
    of_label(AMOUNT_LABEL_VERSIONS, label)
}

fn of_label(kind: u8, label: LabelPin) -> RowKey<AmountTable> {
    let key = of(kind).u64(label.timestamp.0).u64(label.directory.0);
    key.row()
}

/// Tells whether a row says how much a label keeps.
pub(crate) fn is_of_label(key: &[u8]) -> bool {
    matches!(
        key.get(2),
        Some(&(AMOUNT_LABEL_BYTES | AMOUNT_LABEL_VERSIONS))
    )
}

/// Tells whether a row belongs to the sum of the stored bytes, or is subtracted from it.
pub(crate) fn is_sum(key: &[u8]) -> bool {
    matches!(key.get(2), Some(&(AMOUNT_STORED | AMOUNT_UNCITED)))
}

/// Adds to `rows` that so many bytes more are stored.
pub(crate) fn store(rows: &mut Batch, bytes: i64) {
    if bytes != 0 {
        stored().merge(rows, &bytes);
    }
}
