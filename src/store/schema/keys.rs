//! The keys of the rows of a namespace's index: a function for each.
//!
//! | key | bytes after the prefix | read by, for | order |
//! |---|---|---|---|
//! | `C D` | directory, name | lookup, readdir | the entries of a directory are adjacent |
//! | `C I` | inode | stat of a directory or of a hard-linked file | |
//! | `C N` | inode | the name of an inode | |
//! | `C U` | inode | mount: inodes whose current state is no version | few, all scanned |
//! | `C O` | inode | mount: unlinked but open inodes | few, all scanned |
//! | `C P` | inode | mount: directories that are being restored and have no name yet | few, all scanned |
//! | `C R` | inode | mount: directories that are being restored in steps | few, all scanned |
//! | `C F` | lineage, range, ~timestamp | read: newest state first | the states of a range are adjacent |
//! | `C K` | lineage, ~timestamp | read: truncations | |
//! | `C L` | lineage | read: the content of another file that a lineage began over | |
//! | `H V` | directory, name, 00, ~timestamp, suffix | versions of a name, newest first | 00 ends the name: no name contains it |
//! | `H W` | inode, ~timestamp, suffix | versions of a hard-linked inode | |
//! | `H L` | inode, ~timestamp | how many names an inode had | one seek per timestamp |
//! | `H T` | directory, node, `S` start / `E` ~end, name | names that existed at a timestamp and do not now | see `interval_tree` |
//! | `H N` | directory, ~timestamp | the parent and name that a directory had | |
//! | `H E` | foreign id | imported versions by the id of their source | |
//! | `G Q` | | retention: the policy of the namespace | one row |
//! | `G R` | lineage, timestamp | how many rows show that content | |
//! | `G B` | segment epoch, sequence | how many rows cite each extent of a segment | |
//! | `G D` | lineage, timestamp, timestamp of the operation | gc: a row stopped showing that content | those of a lineage are adjacent |
//! | `G E` | segment epoch, sequence, timestamp | gc: a row stopped citing that segment | those of a segment are adjacent |
//! | `G i` | lineage | gc: lineages whose inline bytes are to be moved into segments | few, all scanned |
//! | `G M` | segment epoch, sequence | where the extents of a compacted segment are now | |
//! | `G N` | segment epoch, sequence | gc: segments of ended writers that no row cites | |
//! | `G O` | | gc: up to which segment the search for uncited ones has come | one row |
//! | `G L` | | the newest log object at the time of the batch | one row |
//! | `G A` | | applied watermarks of the newest writers | one row |
//! | `G W` | | applied watermarks of earlier writers | one row |
//! | `G U` | | no inode with a lower number has a `C U` row | one row |
//!
//! Ids and timestamps are big-endian u64. `~x` is the bitwise inverse, so that newer rows sort first.

use bytes::Bytes;

use crate::store::model::ids::Dentry;
use crate::store::model::version::{ContentRef, Ino, Timestamp, VersionId};
use crate::store::schema::tables::{
    AppliedTable, ArchivedWatermarkTable, BindingTable, CheckpointTable, CountTable, CutTable,
    DamagedTable, DentryTable, DirectoryLocationTable, DroppedTable, EmptiedTable, ImportedTable,
    InlineTable, InodeTable, LineageTable, LinkCountTable, LinkedVersionTable, LocationTable,
    LoggedTable, LowestProvisionalTable, MovedTable, OrphanTable, PolicyTable, ProvisionalTable,
    RangeTable, RestoredTreeTable, RowKey, RowTable, SearchedTable, SegmentTable,
    SteppedRestoreTable, UncitedTable, VersionTable,
};
use crate::store::schema::tally::word;

/// A key being put together.
pub(super) struct KeyBuilder(Vec<u8>);

impl KeyBuilder {
    /// Begins with the bytes of a prefix.
    pub(super) fn continued(prefix: &[u8]) -> Self {
        Self(prefix.to_vec())
    }

    pub(super) fn new(prefix: [u8; 2]) -> Self {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(&prefix);
        Self(bytes)
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn done(self) -> Bytes {
        self.0.into()
    }

    pub(super) fn row<T: RowTable>(self) -> RowKey<T> {
        RowKey::new(self.done())
    }
}

pub(crate) fn entry(directory: Ino, name: &[u8]) -> RowKey<DentryTable> {
    KeyBuilder::new(DentryTable::PREFIX)
        .u64(directory.0)
        .bytes(name)
        .row()
}

/// Prefix of all entries of a directory.
pub(crate) fn entries(directory: Ino) -> Bytes {
    KeyBuilder::new(DentryTable::PREFIX).u64(directory.0).done()
}

/// The directory entry of a `C D` key.
pub(crate) fn dentry(key: &Bytes) -> Option<Dentry> {
    Some(Dentry::new(Ino(word(key, 2)?), entry_name(key)))
}

/// The name at the end of a `C D` key.
pub(crate) fn entry_name(key: &Bytes) -> Bytes {
    key.slice(10.min(key.len())..)
}

/// Returns the first number of a key of a table whose keys begin with an inode.
pub(crate) fn leading_ino(key: &[u8]) -> Option<Ino> {
    word(key, 2).map(Ino)
}

/// Returns the lineage of a `C F`, `C K`, `C L`, `G R`, `G D` or `G x` key; `None` for a key of another table.
pub(crate) fn lineage_of(key: &[u8]) -> Option<u64> {
    let has_lineage = RangeTable::has(key)
        || CutTable::has(key)
        || LineageTable::has(key)
        || CountTable::has(key)
        || DroppedTable::has(key)
        || DamagedTable::has(key);
    has_lineage.then(|| word(key, 2))?
}

pub(crate) fn inode(ino: Ino) -> RowKey<InodeTable> {
    KeyBuilder::new(InodeTable::PREFIX).u64(ino.0).row()
}

pub(crate) fn place(ino: Ino) -> RowKey<LocationTable> {
    KeyBuilder::new(LocationTable::PREFIX).u64(ino.0).row()
}

pub(crate) fn provisional(ino: Ino) -> RowKey<ProvisionalTable> {
    KeyBuilder::new(ProvisionalTable::PREFIX).u64(ino.0).row()
}

pub(crate) fn orphan(ino: Ino) -> RowKey<OrphanTable> {
    KeyBuilder::new(OrphanTable::PREFIX).u64(ino.0).row()
}

/// The row of a directory that is being restored in steps.
pub(crate) fn stepped_restore(directory: Ino) -> RowKey<SteppedRestoreTable> {
    KeyBuilder::new(SteppedRestoreTable::PREFIX)
        .u64(directory.0)
        .row()
}

/// The row of a directory that is restored in several batches; the last batch deletes the row.
pub(crate) fn pending(directory: Ino) -> RowKey<RestoredTreeTable> {
    KeyBuilder::new(RestoredTreeTable::PREFIX)
        .u64(directory.0)
        .row()
}

/// The inode at the end of a `C U`, `C O` or `C P` key.
pub(crate) fn trailing_ino(key: &[u8]) -> Option<Ino> {
    let raw: [u8; 8] = key.get(2..)?.try_into().ok()?;
    Some(Ino(u64::from_be_bytes(raw)))
}

pub(crate) fn range(cid: u64, range: u64, timestamp: Timestamp) -> RowKey<RangeTable> {
    KeyBuilder::new(RangeTable::PREFIX)
        .u64(cid)
        .u64(range)
        .u64(!timestamp.0)
        .row()
}

/// The end of the keys of one range of a lineage, exclusive.
pub(crate) fn range_end(cid: u64, range: u64) -> Bytes {
    after(
        &KeyBuilder::new(RangeTable::PREFIX)
            .u64(cid)
            .u64(range)
            .done(),
    )
}

/// Prefix of all range rows of a lineage.
pub(crate) fn ranges(cid: u64) -> Bytes {
    KeyBuilder::new(RangeTable::PREFIX).u64(cid).done()
}

/// The range number of a `C F` key.
pub(crate) fn range_number(key: &[u8]) -> Option<u64> {
    word(key, 10)
}

/// Prefix of all truncations of a lineage.
pub(crate) fn cuts(cid: u64) -> Bytes {
    KeyBuilder::new(CutTable::PREFIX).u64(cid).done()
}

/// The row of the content that a lineage began over.
pub(crate) fn lineage(cid: u64) -> RowKey<LineageTable> {
    KeyBuilder::new(LineageTable::PREFIX).u64(cid).row()
}

pub(crate) fn cut(cid: u64, timestamp: Timestamp) -> RowKey<CutTable> {
    KeyBuilder::new(CutTable::PREFIX)
        .u64(cid)
        .u64(!timestamp.0)
        .row()
}

/// The timestamp at the end of a `C F` or `C K` key.
pub(crate) fn trailing_timestamp(key: &[u8]) -> Option<Timestamp> {
    let raw: [u8; 8] = key.get(key.len().checked_sub(8)?..)?.try_into().ok()?;
    Some(Timestamp(!u64::from_be_bytes(raw)))
}

/// Prefix of all version records of a name.
pub(crate) fn history(directory: Ino, name: &[u8]) -> Bytes {
    KeyBuilder::new(VersionTable::PREFIX)
        .u64(directory.0)
        .bytes(name)
        .bytes(&[0])
        .done()
}

/// Where a scan of a name's version records begins that skips versions newer than `timestamp`.
pub(crate) fn history_at(directory: Ino, name: &[u8], timestamp: Timestamp) -> Bytes {
    KeyBuilder::new(VersionTable::PREFIX)
        .u64(directory.0)
        .bytes(name)
        .bytes(&[0])
        .u64(!timestamp.0)
        .done()
}

pub(crate) fn closed(directory: Ino, name: &[u8], id: VersionId) -> RowKey<VersionTable> {
    KeyBuilder::new(VersionTable::PREFIX)
        .u64(directory.0)
        .bytes(name)
        .bytes(&[0])
        .u64(!id.timestamp.0)
        .u32(id.suffix)
        .row()
}

/// The version id at the end of an `H V` or `H W` key.
pub(crate) fn trailing_id(key: &[u8]) -> Option<VersionId> {
    let tail = key.get(key.len().checked_sub(12)?..)?;
    let timestamp: [u8; 8] = tail[..8].try_into().ok()?;
    let suffix: [u8; 4] = tail[8..].try_into().ok()?;
    Some(VersionId {
        timestamp: Timestamp(!u64::from_be_bytes(timestamp)),
        suffix: u32::from_be_bytes(suffix),
    })
}

/// The directory and name inside an `H V` key.
pub(crate) fn record_slot(key: &Bytes) -> Option<Dentry> {
    let directory = u64::from_be_bytes(key.get(2..10)?.try_into().ok()?);
    let end = key.len().checked_sub(13)?;
    (end >= 10).then(|| Dentry::new(Ino(directory), key.slice(10..end)))
}

/// Prefix of all version records of a directory's names.
pub(crate) fn histories(directory: Ino) -> Bytes {
    KeyBuilder::new(VersionTable::PREFIX)
        .u64(directory.0)
        .done()
}

pub(crate) fn linked_history(ino: Ino) -> Bytes {
    KeyBuilder::new(LinkedVersionTable::PREFIX)
        .u64(ino.0)
        .done()
}

/// Where a scan of a hard-linked inode's version records begins that skips versions newer than `timestamp`.
pub(crate) fn linked_history_at(ino: Ino, timestamp: Timestamp) -> Bytes {
    KeyBuilder::new(LinkedVersionTable::PREFIX)
        .u64(ino.0)
        .u64(!timestamp.0)
        .done()
}

/// Prefix of the names that a hard-linked inode has or had, the youngest first.
pub(crate) fn bindings(ino: Ino) -> Bytes {
    KeyBuilder::new(BindingTable::PREFIX).u64(ino.0).done()
}

/// The row of a name of a hard-linked inode; `id` is that of the name's stamp.
pub(crate) fn binding(ino: Ino, id: VersionId, name: &Dentry) -> RowKey<BindingTable> {
    KeyBuilder::new(BindingTable::PREFIX)
        .u64(ino.0)
        .u64(!id.timestamp.0)
        .u32(id.suffix)
        .u64(name.parent.0)
        .bytes(&name.name)
        .row()
}

/// The id and the name inside an `H B` key.
pub(crate) fn bound_name(key: &Bytes) -> Option<(VersionId, Dentry)> {
    let suffix = key.get(18..22)?.try_into().ok()?;
    let id = VersionId {
        timestamp: Timestamp(!word(key, 10)?),
        suffix: u32::from_be_bytes(suffix),
    };
    let parent = Ino(word(key, 22)?);
    Some((id, Dentry::new(parent, key.slice(30..))))
}

/// Prefix of the link counts of an inode, newest first.
pub(crate) fn link_counts(ino: Ino) -> Bytes {
    KeyBuilder::new(LinkCountTable::PREFIX).u64(ino.0).done()
}

/// The row of an inode's link count from `timestamp` on; also where a scan begins that skips newer counts.
pub(crate) fn link_count(ino: Ino, timestamp: Timestamp) -> RowKey<LinkCountTable> {
    KeyBuilder::new(LinkCountTable::PREFIX)
        .u64(ino.0)
        .u64(!timestamp.0)
        .row()
}

pub(crate) fn linked_closed(ino: Ino, id: VersionId) -> RowKey<LinkedVersionTable> {
    KeyBuilder::new(LinkedVersionTable::PREFIX)
        .u64(ino.0)
        .u64(!id.timestamp.0)
        .u32(id.suffix)
        .row()
}

pub(crate) fn interval_start(directory: Ino, node: u64, start: Timestamp, name: &[u8]) -> Bytes {
    KeyBuilder::new(*b"HT")
        .u64(directory.0)
        .u64(node)
        .bytes(b"S")
        .u64(start.0)
        .bytes(name)
        .done()
}

pub(crate) fn interval_end(directory: Ino, node: u64, end: Timestamp, name: &[u8]) -> Bytes {
    KeyBuilder::new(*b"HT")
        .u64(directory.0)
        .u64(node)
        .bytes(b"E")
        .u64(!end.0)
        .bytes(name)
        .done()
}

/// Prefix of the list `S` (by start) or `E` (by end, newest first) of a node of the interval tree.
pub(crate) fn interval_list(directory: Ino, node: u64, list: u8) -> Bytes {
    KeyBuilder::new(*b"HT")
        .u64(directory.0)
        .u64(node)
        .bytes(&[list])
        .done()
}

pub(crate) fn intervals(directory: Ino) -> Bytes {
    KeyBuilder::new(*b"HT").u64(directory.0).done()
}

/// The name inside an `H T` key.
pub(crate) fn interval_name(key: &Bytes) -> Bytes {
    key.slice(27.min(key.len())..)
}

pub(crate) fn directory_location(
    directory: Ino,
    start: Timestamp,
) -> RowKey<DirectoryLocationTable> {
    KeyBuilder::new(DirectoryLocationTable::PREFIX)
        .u64(directory.0)
        .u64(!start.0)
        .row()
}

pub(crate) fn directory_locations(directory: Ino) -> Bytes {
    KeyBuilder::new(DirectoryLocationTable::PREFIX)
        .u64(directory.0)
        .done()
}

/// Returns since when a directory was at the location of an `H N` key.
pub(crate) fn location_start(key: &[u8]) -> Option<Timestamp> {
    let start = key.get(10..)?.first_chunk::<8>()?;
    Some(Timestamp(!u64::from_be_bytes(*start)))
}

pub(crate) fn foreign(id: &[u8]) -> RowKey<ImportedTable> {
    KeyBuilder::new(ImportedTable::PREFIX).bytes(id).row()
}

pub(crate) fn policy() -> RowKey<PolicyTable> {
    RowKey::new(PolicyTable::all())
}

pub(crate) fn count(content: ContentRef) -> RowKey<CountTable> {
    KeyBuilder::new(CountTable::PREFIX)
        .u64(content.cid)
        .u64(content.timestamp.0)
        .row()
}

/// Prefix of all counts of a lineage. Operations that add or remove its range rows have this key in their dependencies.
pub(crate) fn counts(cid: u64) -> Bytes {
    KeyBuilder::new(CountTable::PREFIX).u64(cid).done()
}

/// The content of a `G R`, `G D` or `G x` key.
pub(crate) fn counted(key: &[u8]) -> Option<ContentRef> {
    Some(ContentRef {
        cid: word(key, 2)?,
        timestamp: Timestamp(word(key, 10)?),
    })
}

pub(crate) fn dropped(content: ContentRef, at: Timestamp) -> RowKey<DroppedTable> {
    KeyBuilder::new(DroppedTable::PREFIX)
        .u64(content.cid)
        .u64(content.timestamp.0)
        .u64(at.0)
        .row()
}

pub(crate) fn emptied(epoch: u64, sequence: u64, at: Timestamp) -> RowKey<EmptiedTable> {
    KeyBuilder::new(EmptiedTable::PREFIX)
        .u64(epoch)
        .u64(sequence)
        .u64(at.0)
        .row()
}

/// The mark of a lineage whose inline bytes are to be moved into a segment.
pub(crate) fn inline(cid: u64) -> RowKey<InlineTable> {
    KeyBuilder::new(InlineTable::PREFIX).u64(cid).row()
}

/// The lineage of a `G i` key.
pub(crate) fn marked_inline(key: &[u8]) -> Option<u64> {
    InlineTable::has(key).then(|| word(key, 2))?
}

pub(crate) fn moved(epoch: u64, sequence: u64) -> RowKey<MovedTable> {
    KeyBuilder::new(MovedTable::PREFIX)
        .u64(epoch)
        .u64(sequence)
        .row()
}

pub(crate) fn uncited(epoch: u64, sequence: u64) -> RowKey<UncitedTable> {
    KeyBuilder::new(UncitedTable::PREFIX)
        .u64(epoch)
        .u64(sequence)
        .row()
}

/// Epoch and sequence of a `G B`, `G E`, `G M` or `G N` key.
pub(crate) fn segment_of(key: &[u8]) -> Option<(u64, u64)> {
    Some((word(key, 2)?, word(key, 10)?))
}

pub(crate) fn searched() -> RowKey<SearchedTable> {
    RowKey::new(SearchedTable::all())
}

pub(crate) fn segment(epoch: u64, sequence: u64) -> RowKey<SegmentTable> {
    KeyBuilder::new(SegmentTable::PREFIX)
        .u64(epoch)
        .u64(sequence)
        .row()
}

pub(crate) fn lowest_provisional() -> RowKey<LowestProvisionalTable> {
    RowKey::new(LowestProvisionalTable::all())
}

/// The newest log object.
pub(crate) fn logged() -> RowKey<LoggedTable> {
    RowKey::new(LoggedTable::all())
}

/// The newest checkpoint of the log.
pub(crate) fn checkpoint() -> RowKey<CheckpointTable> {
    RowKey::new(CheckpointTable::all())
}

/// The watermarks of earlier writers that are not in `G A`.
pub(crate) fn archived_watermarks() -> RowKey<ArchivedWatermarkTable> {
    RowKey::new(ArchivedWatermarkTable::all())
}

pub(crate) fn applied() -> RowKey<AppliedTable> {
    RowKey::new(AppliedTable::all())
}

/// The end of all keys that begin with `prefix`, exclusive.
pub(crate) fn after(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[u8::MAX; 9])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_of_a_name_sort_first_and_names_do_not_mix() {
        let id = |i| VersionId {
            timestamp: Timestamp(i),
            suffix: 7,
        };
        let key = |name: &[u8], i| closed(ROOT_DIR, name, id(i)).bytes();
        let (old, new) = (key(b"a", 5), key(b"a", 9));
        assert!(new < old);
        assert!(history(ROOT_DIR, b"a") < new && old < after(&history(ROOT_DIR, b"a")));
        let longer = closed(ROOT_DIR, b"a\x01", id(9)).bytes();
        assert!(longer > after(&history(ROOT_DIR, b"a")) || longer < history(ROOT_DIR, b"a"));
        assert_eq!(trailing_id(&old), Some(id(5)));
        assert!(
            history_at(ROOT_DIR, b"a", Timestamp(7)) <= old
                && history_at(ROOT_DIR, b"a", Timestamp(7)) > new
        );
    }

    const ROOT_DIR: Ino = Ino(1);

    #[test]
    fn a_range_scan_starts_at_the_newest_state_not_after_the_timestamp() {
        let at = |i| range(3, 0, Timestamp(i)).bytes();
        assert!(at(9) < at(5));
        assert!(
            at(5) < range_end(3, 0) && range_end(3, 0) <= range(3, 1, Timestamp(u64::MAX)).bytes()
        );
        assert_eq!(trailing_timestamp(&at(5)), Some(Timestamp(5)));
    }

    #[test]
    fn the_name_is_read_from_an_interval_key() {
        assert_eq!(
            &interval_name(&interval_start(ROOT_DIR, 4, Timestamp(9), b"gone"))[..],
            b"gone"
        );
        assert_eq!(
            &interval_name(&interval_end(ROOT_DIR, 4, Timestamp(9), b"gone"))[..],
            b"gone"
        );
    }

    #[test]
    fn the_end_of_a_prefix_drops_trailing_ff_bytes() {
        assert_eq!(&after(b"C\xff\xff")[..], b"D");
    }
}
