//! Recount of the index's counters: how many rows show a content, how many use an extent, files and bytes, stored bytes, what labels keep; and
//! the filings of version records, labels and holds.
//!
//! Every row adds to a sum per content, extent or filing, and a stored count is subtracted from it. A sum that is not zero at the
//! end is a wrong count.

use bytes::Bytes;

use crate::meta::{Change, RowScan};
use crate::store::model::error::StoreError;
use crate::store::model::ids::UsageChange;
use crate::store::replay::faulty::FaultyKeys;
use crate::store::replay::sorted::{MergedRows, SortedRows, Spill};
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::label_keys;
use crate::store::schema::retention_keys;
use crate::store::schema::rows::Filing;
use crate::store::schema::tables::{self, RowTable, SegmentTable, VersionTable};
use crate::store::schema::tally::{BoundRow, ExtentId, FiledRecord, RowTally};

/// Length of a `G B` key, bytes; the key of an extent's sum has the extent's offset after it.
const SEGMENT_KEY: usize = 18;

/// A recount in progress.
pub(crate) struct Recount {
    sums: SortedRows,
    bytes: i64,
    files: i64,
    stored: i64,
    has_stored: bool,
}

/// Returns the key of an extent's sum: the key of the segment's row and the offset.
fn extent_key(extent: ExtentId) -> Bytes {
    let segment = keys::segment(extent.epoch, extent.sequence);
    [&segment[..], &extent.offset.to_be_bytes()].concat().into()
}

/// The merge function of the sums: adds the operands.
fn sum(_key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
    let existing = number(existing.unwrap_or_default());
    let total = operands.iter().fold(existing, |total, operand| {
        total.wrapping_add(number(operand))
    });
    Bytes::copy_from_slice(&total.to_le_bytes())
}

fn number(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}

impl Recount {
    pub(crate) fn new(spill: Spill) -> Self {
        Self {
            sums: SortedRows::new(sum, spill),
            bytes: 0,
            files: 0,
            stored: 0,
            has_stored: false,
        }
    }

    fn add(&mut self, key: Bytes, count: i64) -> Result<(), StoreError> {
        let count = Bytes::copy_from_slice(&count.to_le_bytes());
        self.sums.add(key, Change::Merge(count))
    }

    /// Adds the contribution of a row of the index.
    pub(crate) fn row(&mut self, key: &Bytes, value: &Bytes) -> Result<(), StoreError> {
        let mut tally = RowTally::default();
        tables::count(key, value, &mut tally)?;
        self.bytes = self.bytes.wrapping_add(tally.bytes);
        self.files += tally.files;
        self.stored = self.stored.wrapping_add(tally.stored);
        self.has_stored |= tally.has_stored;
        if tally.is_unreadable {
            self.add(key.clone(), 1)?;
        }
        for (content, count) in tally.contents {
            self.add(keys::count(content).bytes(), count)?;
        }
        for FiledRecord { key, filed, bytes } in tally.records {
            for filing in retention_keys::filings(&filed, &key) {
                self.add(filing, 1)?;
            }
            if let (Filing::Label(label), Some(bytes)) = (&filed, bytes) {
                self.add(amounts::labeled_bytes(*label).bytes(), bytes.cast_signed())?;
                self.add(amounts::labeled_versions(*label).bytes(), 1)?;
            }
        }
        for (amount, counted) in tally.labeled {
            self.add(amount, counted.wrapping_neg())?;
        }
        for BoundRow { key, ino, id } in tally.bindings {
            let name = match VersionTable::has(&key) {
                true => keys::record_slot(&key),
                false => keys::dentry(&key),
            };
            let binding = name.map(|name| keys::binding(ino, id, &name).bytes());
            self.add(binding.unwrap_or(key), 1)?;
        }
        for (label, row) in tally.labels {
            match label_keys::label_rows(&label, &row) {
                Some(filings) => {
                    for filing in filings {
                        self.add(filing, 1)?;
                    }
                }
                None => self.add(label, 1)?,
            }
        }
        for (hold, until) in tally.holds {
            self.add(label_keys::lapse(until, &hold).bytes(), 1)?;
        }
        for filing in tally.filings {
            self.add(filing, -1)?;
        }
        for (extent, count) in tally.extents {
            self.add(extent_key(extent), count)?;
        }
        Ok(())
    }

    /// Returns the keys of the wrong counts; to be called after the last row.
    pub(crate) async fn finish(&self) -> Result<FaultyKeys, StoreError> {
        let mut faulty = FaultyKeys::default();
        let mut last = Bytes::new();
        let mut sums = self.miscounts();
        while let Some(Miscount { key, by: _ }) = sums.next().await? {
            let counted = match extent_of(&key) {
                Some(_) => key.slice(..SEGMENT_KEY),
                None => key,
            };
            if counted != last {
                faulty.add(&counted);
                last = counted;
            }
        }
        if self.usage() != UsageChange::default() {
            faulty.add(&keys::applied());
        }
        if self.stored() != 0 {
            faulty.add(&amounts::stored());
        }
        Ok(faulty)
    }

    /// Returns a cursor over the wrong counts of contents and extents, the wrong amounts of labels, and the filings that are missing or
    /// should not be there; to be used after the last row.
    pub(crate) fn miscounts(&self) -> Miscounts<'_> {
        Miscounts {
            sums: self.sums.rows(),
        }
    }

    /// Returns by how much the live bytes and files are more than the index says.
    pub(crate) fn usage(&self) -> UsageChange {
        UsageChange {
            bytes: self.bytes,
            files: self.files,
        }
    }

    /// Returns by how much the stored bytes are more than the index says. A namespace that was made before these amounts were kept has
    /// none until it is counted.
    pub(crate) fn stored(&self) -> i64 {
        match self.has_stored {
            true => self.stored,
            false => 0,
        }
    }
}

/// A count that differs from its recount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Miscount {
    /// The key of its row; for an extent, the key of the segment's row and the offset.
    pub(crate) key: Bytes,
    /// What the count lacks; of a filing, 1 if it is missing and -1 if it should not be there.
    pub(crate) by: i64,
}

/// A cursor over wrong counts, ascending by key.
pub(crate) struct Miscounts<'a> {
    sums: MergedRows<'a>,
}

impl Miscounts<'_> {
    /// Returns the next wrong count; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<Miscount>, StoreError> {
        while let Some((key, value)) = self.sums.next().await? {
            let by = number(&value);
            if by != 0 {
                return Ok(Some(Miscount { key, by }));
            }
        }
        Ok(None)
    }
}

/// Returns the extent of the key of an extent's sum; `None` for any other key.
pub(crate) fn extent_of(key: &[u8]) -> Option<ExtentId> {
    let (segment, offset) = key.split_at_checked(SEGMENT_KEY)?;
    let offset: [u8; 4] = offset.try_into().ok()?;
    if !SegmentTable::has(segment) {
        return None;
    }
    let (epoch, sequence) = keys::segment_of(segment)?;
    Some(ExtentId {
        epoch,
        sequence,
        offset: u32::from_be_bytes(offset),
    })
}
