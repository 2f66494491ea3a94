//! Recount of the counts in the index: how many rows show a content, how many rows reference an extent, and the bytes
//! and files of the namespace.
//!
//! Each row that shows a content or references an extent adds one to a sum, and each stored count is subtracted from
//! its sum. A sum that is not zero at the end is a wrong count.

use bytes::Bytes;

use crate::meta::{Change, RowScan};
use crate::store::check::faulty::FaultyKeys;
use crate::store::check::sorted::{SortedRows, Spill};
use crate::store::model::error::StoreError;
use crate::store::model::version::{Content, ROOT};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    AppliedRow, DentryBody, DentryRow, EntryState, ExtentSource, InodeRow, InodeState, LineageRow,
    MovedRow, OrphanRow, RangeRow, SegmentRow, VersionRecord,
};
use crate::store::schema::tables::{
    AppliedTable, CountTable, DentryTable, InodeTable, LineageTable, MovedTable, OrphanTable,
    RangeTable, RowTable, SegmentTable, VersionTable,
};

/// Length in bytes of the key of a segment row. A sum per extent has this key and the offset of the extent.
const SEGMENT_KEY: usize = 18;

/// A recount in progress.
pub(crate) struct Recount {
    sums: SortedRows,
    bytes: i64,
    files: i64,
}

/// An extent of a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ExtentId {
    epoch: u64,
    sequence: u64,
    offset: u32,
}

impl ExtentId {
    fn key(self) -> Bytes {
        let segment = keys::segment(self.epoch, self.sequence);
        [&segment[..], &self.offset.to_be_bytes()].concat().into()
    }
}

/// The merge function of the sums: adds two numbers.
fn sum(_key: &[u8], existing: Option<&[u8]>, operand: &[u8]) -> Bytes {
    let total = number(existing.unwrap_or_default()).wrapping_add(number(operand));
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
        }
    }

    fn add(&mut self, key: Bytes, count: i64) -> Result<(), StoreError> {
        let count = Bytes::copy_from_slice(&count.to_le_bytes());
        self.sums.add(key, Change::Merge(count))
    }

    /// Adds one row of the index to the recount.
    pub(crate) fn row(&mut self, key: &Bytes, value: &Bytes) -> Result<(), StoreError> {
        match key.get(..2) {
            Some(b"CL") => {
                let row: LineageRow = LineageTable::decode(value)?;
                self.add(keys::count(row.parent).bytes(), 1)
            }
            Some(b"CF") => self.range(&RangeTable::decode(value)?),
            Some(b"GM") => {
                let row: MovedRow = MovedTable::decode(value)?;
                for (epoch, sequence, offset) in row.extents.into_values() {
                    let extent = ExtentId {
                        epoch,
                        sequence,
                        offset,
                    };
                    self.add(extent.key(), 1)?;
                }
                Ok(())
            }
            Some(b"GR") => {
                let count: i64 = CountTable::decode(value)?;
                self.add(Bytes::copy_from_slice(key), -count)
            }
            Some(b"GB") => {
                let row: SegmentRow = SegmentTable::decode(value)?;
                for (offset, (_, citing)) in row.extents {
                    let key = [&key[..], &offset.to_be_bytes()].concat().into();
                    self.add(key, -citing)?;
                }
                Ok(())
            }
            Some(b"GA") => {
                let row: AppliedRow = AppliedTable::decode(value)?;
                self.bytes = self.bytes.wrapping_sub(row.bytes);
                self.files -= row.files;
                Ok(())
            }
            Some(table) => {
                if let Some(bytes) = taken(table, value)? {
                    self.bytes = self.bytes.wrapping_add(bytes);
                    self.files += 1;
                }
                for content in shown(table, value)? {
                    if let Some(content) = content.reference() {
                        self.add(keys::count(content).bytes(), 1)?;
                    }
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Counts each extent once per range row, because the index counts range rows and not slices.
    fn range(&mut self, row: &RangeRow) -> Result<(), StoreError> {
        let mut extents = std::collections::BTreeSet::new();
        for piece in row.pieces() {
            if let ExtentSource::Segment {
                epoch,
                sequence,
                offset,
                ..
            } = piece.source
            {
                extents.insert(ExtentId {
                    epoch,
                    sequence,
                    offset,
                });
            }
        }
        for extent in extents {
            self.add(extent.key(), 1)?;
        }
        Ok(())
    }

    /// Returns the keys of wrong counts. To be called after the last row.
    pub(crate) async fn finish(self) -> Result<FaultyKeys, StoreError> {
        let mut faulty = FaultyKeys::default();
        let mut last = Bytes::new();
        let mut sums = self.sums.rows();
        while let Some((key, value)) = sums.next().await? {
            let counted = match SegmentTable::has(&key) {
                true => key.slice(..SEGMENT_KEY.min(key.len())),
                false => key,
            };
            if number(&value) != 0 && counted != last {
                faulty.add(&counted);
                last = counted;
            }
        }
        if (self.bytes, self.files) != (0, 0) {
            faulty.add(&keys::applied());
        }
        Ok(faulty)
    }
}

/// Returns the bytes of the live inode whose state is in this row. The root is not counted, because it exists before
/// the first count.
fn taken(table: &[u8], value: &Bytes) -> Result<Option<i64>, StoreError> {
    let node = match table {
        b"CD" => match DentryTable::decode(value)? {
            DentryRow {
                ino,
                body: DentryBody::Own { node, .. },
                ..
            } if ino != ROOT => node,
            _ => return Ok(None),
        },
        b"CI" => match InodeTable::decode(value)? {
            InodeRow::Linked(row) => row.node,
            InodeRow::Directory(_) => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(node.space().cast_signed()))
}

/// Returns the contents that a row shows.
pub(super) fn shown(table: &[u8], value: &Bytes) -> Result<Vec<Content>, StoreError> {
    let current = |node: InodeState, state: EntryState| {
        let behind = match state {
            EntryState::Version(_) => None,
            EntryState::Unborn { behind } => behind.map(|last| last.node.content),
            EntryState::Provisional(last) => Some(last.node.content),
        };
        [Some(node.content), behind].into_iter().flatten().collect()
    };
    Ok(match table {
        b"CD" => match DentryTable::decode(value)?.body {
            DentryBody::Own { node, state } => current(node, state),
            DentryBody::Linked(_) => Vec::new(),
        },
        b"CI" => match InodeTable::decode(value)? {
            InodeRow::Linked(row) => current(row.node, row.state),
            InodeRow::Directory(_) => Vec::new(),
        },
        b"CO" => {
            let orphan: OrphanRow = OrphanTable::decode(value)?;
            vec![orphan.node.content]
        }
        b"HV" | b"HW" => {
            let closed: VersionRecord = VersionTable::decode(value)?;
            closed.node.map(|node| node.content).into_iter().collect()
        }
        _ => Vec::new(),
    })
}
