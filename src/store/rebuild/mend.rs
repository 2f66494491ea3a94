//! Counts of rows that a lost log object leaves wrong: they are recounted and put right before the rows are written.
//!
//! Counts of contents, extents and amounts are derived from the other rows, and so are the filings of version records, labels and holds.
//! A count that lacks more than its number, because the row that it belongs to is lost, stays wrong and is reported.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::meta::{Batch, Change, RowScan};
use crate::store::model::error::StoreError;
use crate::store::model::ids::UsageChange;
use crate::store::rebuild::gather::ROWS_TOLD;
use crate::store::rebuild::report::RebuildStep;
use crate::store::replay::recount::{Miscount, Recount};
use crate::store::replay::sorted::{SortedRows, Spill};
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::merge;
use crate::store::schema::rows::{ExtentSource, SegmentRow, encode};
use crate::store::schema::tables::{
    AmountTable, BindingTable, CountTable, MovedTable, RangeTable, RowTable, SegmentTable,
};

/// Puts the counts in `rows` right. Returns what is to be added to the totals in the row `G A`.
///
/// # Errors
/// `LocalDisk` or `Unavailable` if a temporary file fails; `Corrupt` if a row cannot be decoded.
pub(super) async fn mend(
    rows: &mut SortedRows,
    spill: &Spill,
    step: &(impl Fn(RebuildStep) + Sync),
) -> Result<UsageChange, StoreError> {
    let quarter = Spill {
        memory: spill.memory / 4,
        ..spill.clone()
    };
    let mut extents = SortedRows::new(merge::merge, quarter.clone());
    let counts = recount(rows, &quarter, step, |key, value| {
        count_extents(&mut extents, key, value)
    })
    .await?;
    let mut miscounts = counts.miscounts();
    while let Some(Miscount { key, by }) = miscounts.next().await? {
        if let Some(change) = correction(&key, by) {
            rows.add(key, change)?;
        }
    }
    let mut scan = extents.rows();
    while let Some((key, value)) = scan.next().await? {
        let missing = missing_extents(SegmentTable::decode(&value)?);
        if !missing.extents.is_empty() {
            rows.add(key, Change::Merge(encode(&missing)))?;
        }
    }
    // The extents that were added to the rows of segments are stored too.
    let counts = recount(rows, &quarter, step, |_, _| Ok(())).await?;
    let mut batch = Batch::new();
    amounts::store(&mut batch, counts.stored());
    for (key, change) in batch.into_rows() {
        rows.add(key, change)?;
    }
    Ok(counts.usage())
}

async fn recount(
    rows: &mut SortedRows,
    spill: &Spill,
    step: &(impl Fn(RebuildStep) + Sync),
    mut each: impl FnMut(&Bytes, &Bytes) -> Result<(), StoreError> + Send,
) -> Result<Recount, StoreError> {
    rows.write_run()?;
    let mut counts = Recount::new(spill.clone());
    let mut scan = rows.rows();
    let mut count = 0_u64;
    while let Some((key, value)) = scan.next().await? {
        counts.row(&key, &value)?;
        each(&key, &value)?;
        count += 1;
        if count.is_multiple_of(ROWS_TOLD) {
            step(RebuildStep::Recounted(count));
        }
    }
    Ok(counts)
}

/// Returns the change that puts a sum of the recount right; `None` for one that the extents put right, or that cannot be put right.
fn correction(key: &Bytes, difference: i64) -> Option<Change> {
    if SegmentTable::has(key) {
        return None;
    }
    if CountTable::has(key) || AmountTable::has(key) {
        return Some(Change::Merge(encode(&difference)));
    }
    match difference {
        // The row of a binding has an end that is not known here.
        1.. if BindingTable::has(key) => None,
        1.. => Some(Change::Put(encode(&()))),
        _ => Some(Change::Delete),
    }
}

/// Adds to `extents`, per segment, the extents that a range row cites, and subtracts those that the row of a segment counts.
fn count_extents(extents: &mut SortedRows, key: &Bytes, value: &Bytes) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    if RangeTable::has(key) {
        let row = RangeTable::decode(value)?;
        let mut cited: BTreeMap<(u64, u64), SegmentRow> = BTreeMap::new();
        for slice in row.pieces() {
            if let ExtentSource::Segment {
                epoch,
                sequence,
                offset,
                len,
                ..
            } = slice.source
            {
                let segment = cited.entry((epoch, sequence)).or_default();
                segment.extents.insert(offset, (len, 1));
            }
        }
        for ((epoch, sequence), row) in cited {
            keys::segment(epoch, sequence).merge(&mut batch, &row);
        }
    } else if SegmentTable::has(key) {
        let counted = SegmentTable::decode(value)?.extents.into_iter();
        let counted = counted.map(|(offset, (len, count))| (offset, (len, count.wrapping_neg())));
        let row = SegmentRow {
            extents: counted.collect(),
            ..SegmentRow::default()
        };
        batch.merge(key.clone(), encode(&row));
    } else if MovedTable::has(key) {
        for (epoch, sequence, offset) in MovedTable::decode(value)?.extents.into_values() {
            // The length is that of the segment's own row, which comes first.
            let row = SegmentRow {
                extents: BTreeMap::from([(offset, (0, 1))]),
                ..SegmentRow::default()
            };
            keys::segment(epoch, sequence).merge(&mut batch, &row);
        }
    }
    for (key, change) in batch.into_rows() {
        extents.add(key, change)?;
    }
    Ok(())
}

/// Returns the extents of a segment whose count is not zero.
fn missing_extents(row: SegmentRow) -> SegmentRow {
    let extents = row.extents.into_iter();
    SegmentRow {
        extents: extents.filter(|(_, (_, count))| *count != 0).collect(),
        dead_since: None,
    }
}
