//! Counts are set to their recount.
//!
//! Counts are merged rows: each gets what it lacks as an operand. A count that gets smaller lets garbage collection delete something, and is
//! its evidence (docs/decisions/0001-deletion-needs-evidence.md). So garbage collection is asked to look at it only where the log proves
//! that no row is missing which would be counted.

use bytes::Bytes;

use crate::meta::MetaRead;
use crate::store::check::config::CheckStep;
use crate::store::check::references::{ExtentCursor, References};
use crate::store::check::repair::put_back::LogProof;
use crate::store::check::repair::writer::RepairWriter;
use crate::store::commit::txn::Txn;
use crate::store::model::error::StoreError;
use crate::store::model::ids::UsageChange;
use crate::store::replay::faulty::FaultyKeys;
use crate::store::replay::recount::{Miscount, Recount, extent_of};
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{
    BindingRow, DentryBody, DentryRow, SegmentRow, VersionRecord, encode,
};
use crate::store::schema::tables::{
    AmountTable, BindingTable, CountTable, DentryTable, DueTable, KeptTable, LabelTimeTable,
    LabeledTable, LapseTable, RowKey, RowTable, SegmentTable, VersionTable,
};
use crate::store::schema::tally::ExtentId;

/// Sets every count to its recount. Returns the keys of those that are left as they are.
pub(super) async fn mend<F: Fn(CheckStep) + Send + Sync>(
    index: &dyn MetaRead,
    counts: &Recount,
    references: &References,
    proof: LogProof,
    writer: &mut RepairWriter<'_, F>,
) -> Result<FaultyKeys, StoreError> {
    let mut left = FaultyKeys::default();
    let mut extents = ExtentCounts {
        index,
        lengths: ExtentLengths::of(references),
        row: None,
    };
    let mut miscounts = counts.miscounts();
    while let Some(Miscount { key, by }) = miscounts.next().await? {
        if let Some(extent) = extent_of(&key) {
            let change = extents.change_of(extent, by).await?;
            let asks = proof == LogProof::Whole && by < 0;
            writer
                .change(key, |txn| change.write(txn, extent, asks))
                .await?;
            continue;
        }
        if mend_row(index, &key, by, proof, writer).await? == CountRepair::Left {
            left.add(&key);
        }
    }
    let (usage, stored) = (counts.usage(), counts.stored());
    if usage != UsageChange::default() || stored != 0 {
        writer
            .change(amounts::stored().bytes(), |txn| {
                txn.usage.bytes = txn.usage.bytes.wrapping_add(usage.bytes);
                txn.usage.files = txn.usage.files.wrapping_add(usage.files);
                // An operation has a row in any case: 0 changes nothing.
                txn.merge(amounts::stored(), &stored);
            })
            .await?;
    }
    Ok(left)
}

/// Whether a count was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CountRepair {
    Set,
    Left,
}

/// Sets the count of a content or of a label, or writes or deletes a filing.
async fn mend_row<F: Fn(CheckStep) + Send + Sync>(
    index: &dyn MetaRead,
    key: &Bytes,
    by: i64,
    proof: LogProof,
    writer: &mut RepairWriter<'_, F>,
) -> Result<CountRepair, StoreError> {
    let row = key.clone();
    match key.first_chunk::<2>().copied().unwrap_or_default() {
        CountTable::PREFIX => {
            let count: RowKey<CountTable> = RowKey::scanned(row)?;
            let dropped = keys::counted(key).filter(|_| proof == LogProof::Whole && by < 0);
            let set = writer.change(key.clone(), |txn| {
                txn.merge(count, &by);
                if let Some(content) = dropped {
                    txn.put(keys::dropped(content, txn.timestamp), &());
                }
            });
            set.await?;
        }
        AmountTable::PREFIX => {
            let amount: RowKey<AmountTable> = RowKey::scanned(row)?;
            let set = writer.change(key.clone(), |txn| txn.merge(amount, &by));
            set.await?;
        }
        BindingTable::PREFIX if by > 0 => {
            let Some(value) = binding(index, key).await? else {
                return Ok(CountRepair::Left);
            };
            let put = writer.change(key.clone(), |txn| txn.rows.put(row, encode(&value)));
            put.await?;
        }
        BindingTable::PREFIX
        | DueTable::PREFIX
        | KeptTable::PREFIX
        | LabeledTable::PREFIX
        | LabelTimeTable::PREFIX
        | LapseTable::PREFIX => {
            let set = writer.change(key.clone(), |txn| match by > 0 {
                true => txn.rows.put(row, encode(&())),
                false => txn.rows.delete(row),
            });
            set.await?;
        }
        _ => return Ok(CountRepair::Left),
    }
    Ok(CountRepair::Set)
}

/// The change of the count of an extent.
struct ExtentChange {
    len: u32,
    by: i64,
    /// Bytes by which the stored ones grow, because the segment's row did not have the extent.
    stored: i64,
}

impl ExtentChange {
    fn write(&self, txn: &mut Txn, extent: ExtentId, asks: bool) {
        let ExtentId {
            epoch,
            sequence,
            offset,
        } = extent;
        let mut operand = SegmentRow::default();
        operand.extents.insert(offset, (self.len, self.by));
        txn.merge(keys::segment(epoch, sequence), &operand);
        amounts::store(&mut txn.rows, self.stored);
        if asks {
            txn.put(keys::emptied(epoch, sequence, txn.timestamp), &());
        }
    }
}

/// The counts of extents as the index has them, and the lengths of those that it does not count.
struct ExtentCounts<'a> {
    index: &'a dyn MetaRead,
    lengths: ExtentLengths<'a>,
    /// The row of the last segment that was asked for; a row has an entry for each extent.
    row: Option<(SegmentId, SegmentRow)>,
}

impl ExtentCounts<'_> {
    async fn change_of(&mut self, extent: ExtentId, by: i64) -> Result<ExtentChange, StoreError> {
        let ExtentId {
            epoch, sequence, ..
        } = extent;
        let id = SegmentId { epoch, sequence };
        if self.row.as_ref().is_none_or(|(of, _)| *of != id) {
            let row = self.index.get(&keys::segment(epoch, sequence)).await?;
            let row = row.map(|row| SegmentTable::decode(&row)).transpose()?;
            self.row = Some((id, row.unwrap_or_default()));
        }
        let row = self.row.as_ref();
        let counted = row.and_then(|(_, row)| row.extents.get(&extent.offset).copied());
        Ok(match counted {
            Some((len, _)) => ExtentChange { len, by, stored: 0 },
            None => {
                let len = self.lengths.len(extent).await?;
                ExtentChange {
                    len,
                    by,
                    stored: i64::from(len),
                }
            }
        })
    }
}

/// The lengths of the extents that rows cite, ascending by place.
struct ExtentLengths<'a> {
    extents: ExtentCursor<'a>,
    head: Option<(ExtentId, u32)>,
}

impl<'a> ExtentLengths<'a> {
    fn of(references: &'a References) -> Self {
        Self {
            extents: references.extents.cursor(),
            head: None,
        }
    }

    /// Returns the length of an extent in bytes, 0 if no row cites it; later calls ask for later extents only.
    async fn len(&mut self, extent: ExtentId) -> Result<u32, StoreError> {
        while self.head.is_none_or(|(head, _)| head < extent) {
            self.head = match self.extents.next().await? {
                Some(next) => Some((next.cited, next.bytes.len)),
                None => return Ok(0),
            };
        }
        let found = self.head.filter(|(head, _)| *head == extent);
        Ok(found.map_or(0, |(_, len)| len))
    }
}

/// Returns the row that says how long a name led to a hard-linked inode; `None` if no row of the name says so.
async fn binding(index: &dyn MetaRead, key: &Bytes) -> Result<Option<BindingRow>, StoreError> {
    let Some((id, name)) = keys::bound_name(key) else {
        return Ok(None);
    };
    if let Some(row) = index.get(&keys::entry(name.parent, &name.name)).await? {
        let row: DentryRow = DentryTable::decode(&row)?;
        if matches!(&row.body, DentryBody::Linked(stamp) if stamp.id == id) {
            return Ok(Some(BindingRow { end: None }));
        }
    }
    let row = index
        .get(&keys::closed(name.parent, &name.name, id))
        .await?;
    let row: Option<VersionRecord> = row.map(|row| VersionTable::decode(&row)).transpose()?;
    Ok(row.map(|row| BindingRow { end: Some(row.end) }))
}
