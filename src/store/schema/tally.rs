//! Recount of the index's counters: how many rows show a content, how many use an extent, the bytes and files of the live
//! tree.
//!
//! A row that shows or uses something adds one; a row that stores a count subtracts it. Over all rows of an index every
//! sum is zero, or a stored count is wrong. Sums wrap around: a damaged row can have any number, and `check` must not end at it.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::store::model::version::{Content, ContentRef, Ino, ROOT, Timestamp, VersionId};
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::label_rows::{HoldRow, LabelRow};
use crate::store::schema::rows::{
    BindingRow, DentryBody, DentryRow, EntryState, ExtentSource, Filing, InodeRow, InodeState,
    LineageRow, MovedRow, OrphanRow, RangeRow, SegmentRow, VersionRecord,
};

/// An extent by the place of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ExtentId {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    /// Offset in the segment, bytes.
    pub(crate) offset: u32,
}

/// The row of a name of a hard-linked inode: a directory entry or a version record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoundRow {
    pub(crate) key: Bytes,
    pub(crate) ino: Ino,
    /// The id of the name's stamp.
    pub(crate) id: VersionId,
}

/// A version record and where it is filed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FiledRecord {
    pub(crate) key: Bytes,
    pub(crate) filed: Filing,
    /// The version's bytes without holes; `None` for the binding of a name to a hard-linked inode, which is no version.
    pub(crate) bytes: Option<u64>,
}

/// The sum over some rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowTally {
    /// Contents: one per row that shows it, minus the stored counts.
    pub(crate) contents: Vec<(ContentRef, i64)>,
    /// Extents: one per row that uses it, minus the stored counts.
    pub(crate) extents: Vec<(ExtentId, i64)>,
    /// Bytes of live files that are not holes, minus the stored sum.
    pub(crate) bytes: i64,
    /// Live inodes without the root, minus the stored number.
    pub(crate) files: i64,
    /// Version records.
    pub(crate) records: Vec<FiledRecord>,
    /// Keys of stored amounts of labels, and what they say.
    pub(crate) labeled: Vec<(Bytes, i64)>,
    /// Names that lead, or led, to hard-linked inodes; each has a further row.
    pub(crate) bindings: Vec<BoundRow>,
    /// Labels with their keys; each has further rows that lead to it.
    pub(crate) labels: Vec<(Bytes, LabelRow)>,
    /// Keys of holds, and until when each holds.
    pub(crate) holds: Vec<(Bytes, Timestamp)>,
    /// Keys of filings, of version records, labels and holds.
    pub(crate) filings: Vec<Bytes>,
    /// Bytes of extents and inline bytes, minus those that are not counted any more and the stored sums.
    pub(crate) stored: i64,
    /// The row is there without which stored bytes are not counted yet.
    pub(crate) has_stored: bool,
    /// A stored count has a key that cannot be parsed.
    pub(crate) is_unreadable: bool,
}

impl RowTally {
    fn show(&mut self, content: &Content) {
        self.contents
            .extend(content.reference().map(|content| (content, 1)));
    }

    /// Adds the current content of a live inode, and that of the version that the past shows instead.
    fn live(&mut self, node: &InodeState, state: &EntryState) {
        self.show(&node.content);
        if let Some(hidden) = state.hidden() {
            self.show(&hidden.node.content);
        }
    }

    fn file(&mut self, node: &InodeState) {
        self.bytes = self.bytes.wrapping_add(node.space().cast_signed());
        self.files = self.files.wrapping_add(1);
    }
}

pub(super) fn dentry(key: &[u8], row: DentryRow, tally: &mut RowTally) {
    match row.body {
        DentryBody::Own { node, state } => {
            tally.live(&node, &state);
            if row.ino != ROOT {
                tally.file(&node);
            }
        }
        DentryBody::Linked(stamp) => {
            tally.bindings.push(BoundRow {
                key: Bytes::copy_from_slice(key),
                ino: row.ino,
                id: stamp.id,
            });
        }
    }
}

pub(super) fn inode(_key: &[u8], row: InodeRow, tally: &mut RowTally) {
    if let InodeRow::Linked(row) = row {
        tally.live(&row.node, &row.state);
        tally.file(&row.node);
    }
}

pub(super) fn orphan(_key: &[u8], row: OrphanRow, tally: &mut RowTally) {
    tally.show(&row.node.content);
}

pub(super) fn version(key: &[u8], row: VersionRecord, tally: &mut RowTally) {
    let record = Bytes::copy_from_slice(key);
    match &row.node {
        Some(node) => tally.show(&node.content),
        None => {
            tally.bindings.push(BoundRow {
                key: record.clone(),
                ino: row.ino,
                id: row.stamp.id,
            });
        }
    }
    tally.records.push(FiledRecord {
        key: record,
        bytes: row.version_bytes(),
        filed: row.filed,
    });
}

/// A name of a hard-linked inode has such a row beside its own.
pub(super) fn binding(key: &[u8], _row: BindingRow, tally: &mut RowTally) {
    tally.filings.push(Bytes::copy_from_slice(key));
}

pub(super) fn filing(key: &[u8], (): (), tally: &mut RowTally) {
    tally.filings.push(Bytes::copy_from_slice(key));
}

pub(super) fn label(key: &[u8], row: LabelRow, tally: &mut RowTally) {
    tally.labels.push((Bytes::copy_from_slice(key), row));
}

pub(super) fn hold(key: &[u8], row: HoldRow, tally: &mut RowTally) {
    tally.holds.push((Bytes::copy_from_slice(key), row.until));
}

pub(super) fn lineage(_key: &[u8], row: LineageRow, tally: &mut RowTally) {
    tally.contents.push((row.parent, 1));
}

/// Counts each extent of a range row once, even if several slices show parts of it.
pub(super) fn range(_key: &[u8], row: RangeRow, tally: &mut RowTally) {
    let mut extents = BTreeSet::new();
    for slice in row.pieces() {
        if let ExtentSource::Segment {
            epoch,
            sequence,
            offset,
            ..
        } = slice.source
        {
            extents.insert(ExtentId {
                epoch,
                sequence,
                offset,
            });
        }
    }
    tally
        .extents
        .extend(extents.into_iter().map(|extent| (extent, 1)));
    tally.stored = tally.stored.wrapping_add(row.inline_bytes());
}

/// Kinds of `G a` rows.
pub(crate) const AMOUNT_STORED: u8 = 0;
pub(crate) const AMOUNT_BASE: u8 = 1;
pub(crate) const AMOUNT_UNCITED: u8 = 2;
pub(crate) const AMOUNT_PEAK: u8 = 3;
pub(crate) const AMOUNT_LABEL_BYTES: u8 = 4;
pub(crate) const AMOUNT_LABEL_VERSIONS: u8 = 5;

pub(super) fn amount(key: &[u8], bytes: i64, tally: &mut RowTally) {
    match key.get(2).copied() {
        Some(kind @ (AMOUNT_STORED | AMOUNT_BASE | AMOUNT_UNCITED)) => {
            tally.stored = tally.stored.wrapping_sub(bytes);
            tally.has_stored |= kind == AMOUNT_BASE;
        }
        Some(AMOUNT_LABEL_BYTES | AMOUNT_LABEL_VERSIONS) => {
            tally.labeled.push((Bytes::copy_from_slice(key), bytes));
        }
        Some(AMOUNT_PEAK) => {}
        Some(_) | None => tally.is_unreadable = true,
    }
}

pub(super) fn moved(_key: &[u8], row: MovedRow, tally: &mut RowTally) {
    let targets = row.extents.into_values();
    let extents = targets.map(|(epoch, sequence, offset)| ExtentId {
        epoch,
        sequence,
        offset,
    });
    tally.extents.extend(extents.map(|extent| (extent, 1)));
}

pub(super) fn content_count(key: &[u8], count: i64, tally: &mut RowTally) {
    let (Some(cid), Some(timestamp)) = (word(key, 2), word(key, 10).map(Timestamp)) else {
        tally.is_unreadable = true;
        return;
    };
    tally
        .contents
        .push((ContentRef { cid, timestamp }, count.wrapping_neg()));
}

pub(super) fn segment_count(key: &[u8], row: SegmentRow, tally: &mut RowTally) {
    let (Some(epoch), Some(sequence)) = (word(key, 2), word(key, 10)) else {
        tally.is_unreadable = true;
        return;
    };
    for (offset, (len, users)) in row.extents {
        tally.stored = tally.stored.wrapping_add(i64::from(len));
        let extent = ExtentId {
            epoch,
            sequence,
            offset,
        };
        tally.extents.push((extent, users.wrapping_neg()));
    }
}

pub(super) fn applied(_key: &[u8], row: AppliedRow, tally: &mut RowTally) {
    tally.bytes = tally.bytes.wrapping_sub(row.bytes);
    tally.files = tally.files.wrapping_sub(row.files);
}

/// Returns the big-endian number at byte `at` of a key.
pub(super) fn word(key: &[u8], at: usize) -> Option<u64> {
    let raw: [u8; 8] = key.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_be_bytes(raw))
}
