//! Values of the rows of the index, their encoding, and the merge of directories.
//!
//! Every value is one format byte and a postcard body; an unknown format is an error. Merged rows (`C I`, `G R`, `G B`)
//! use one encoding for values and operands. Their merge is associative and commutative: registers keep the younger
//! timestamp, counters add.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};

use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::policy::VersionSpan;
use crate::store::model::version::{
    Attrs, Content, ContentRef, EndOp, Ino, Kind, Op, Retained, Stamp, Time, Timestamp, VersionId,
};

pub(crate) use crate::store::schema::retention_rows::{
    BindingRow, Filing, LabelPin, OlderVersions, PendingPolicy,
};

/// Format of every row this build writes.
pub(crate) const FORMAT: u8 = 1;

/// Bytes of a content that one range row describes.
pub(crate) const RANGE_BYTES: u64 = 8 << 20;
/// Maximum number of bytes in one extent.
pub(crate) const EXTENT_BYTES: u64 = 256 << 10;

pub(crate) fn encode<T: Serialize>(row: &T) -> Bytes {
    encode_in(vec![FORMAT], row)
}

/// As [`encode`], for what is long: its buffer has `room` bytes from the beginning, and is not copied as it grows.
pub(crate) fn encode_long<T: Serialize>(row: &T, room: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(room + 1);
    bytes.push(FORMAT);
    encode_in(bytes, row)
}

fn encode_in<T: Serialize>(bytes: Vec<u8>, row: &T) -> Bytes {
    // proof: to_extend into a Vec fails only where Serialize does, and our rows are plain data.
    let encoded = postcard::to_extend(row, bytes).expect("rows are plain data");
    encoded.into()
}

pub(crate) fn decode<T: DeserializeOwned>(what: &str, value: &[u8]) -> Result<T, StoreError> {
    match value.split_first() {
        Some((&FORMAT, body)) => {
            postcard::from_bytes(body).map_err(|e| StoreError::Corrupt(format!("{what}: {e}")))
        }
        Some((format, _)) => Err(StoreError::Corrupt(format!(
            "{what}: format {format} is not known to this build (it knows {FORMAT}); use a newer rewindfs"
        ))),
        None => Err(StoreError::Corrupt(format!("{what}: empty value"))),
    }
}

/// One state of an inode: its kind, attributes and content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InodeState {
    pub(crate) kind: Kind,
    pub(crate) attrs: Attrs,
    pub(crate) xattrs: Vec<(Bytes, Bytes)>,
    pub(crate) content: Content,
    /// Bytes that are not holes; an upper bound where bytes were written and punched again.
    pub(crate) allocated: u64,
}

impl InodeState {
    /// Returns the bytes that stat(2) and statfs(2) count: all but holes.
    pub(crate) fn space(&self) -> u64 {
        self.allocated.min(self.attrs.size)
    }

    /// Returns by how many bytes its space is larger than that of `older`; negative if smaller.
    pub(crate) fn grown_from(&self, older: &Self) -> i64 {
        self.space().wrapping_sub(older.space()).cast_signed()
    }
}

/// The last version of a name whose current state is newer and not yet a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastVersion {
    pub(crate) ino: Ino,
    pub(crate) node: InodeState,
    pub(crate) stamp: Stamp,
    pub(crate) alive_since: Timestamp,
}

/// Whether the current state of a name is a version, and if not, which version the past shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EntryState {
    /// It is a version.
    Version(Stamp),
    /// Created, and not closed for the first time yet: the live tree shows it, the past does not. If a rename put it over
    /// an older version, the past shows that one (`behind`) until this state becomes a version.
    Unborn { behind: Option<Box<LastVersion>> },
    /// Committed while a handle is open, by fsync or write-back: durable and current; the past shows the last version.
    Provisional(Box<LastVersion>),
}

impl EntryState {
    /// Returns the version that the past shows in place of a state which is no version.
    pub(crate) fn hidden(&self) -> Option<&LastVersion> {
        match self {
            Self::Version(_) => None,
            Self::Provisional(last) => Some(last),
            Self::Unborn { behind } => behind.as_deref(),
        }
    }

    /// Returns the stamp of the version that the past shows while this state is the current one; `None` where it shows none.
    pub(crate) fn shown_stamp(&self) -> Option<&Stamp> {
        match self {
            Self::Version(stamp) => Some(stamp),
            Self::Provisional(_) | Self::Unborn { .. } => self.hidden().map(|last| &last.stamp),
        }
    }

    /// Returns the version that the past shows while this state is the current one; `None` where it shows none. The arguments
    /// are those of the state's row.
    pub(crate) fn shown(
        &self,
        ino: Ino,
        node: &InodeState,
        alive_since: Timestamp,
    ) -> Option<LastVersion> {
        match self {
            Self::Version(stamp) => Some(LastVersion {
                ino,
                node: node.clone(),
                stamp: stamp.clone(),
                alive_since,
            }),
            Self::Provisional(_) | Self::Unborn { .. } => self.hidden().cloned(),
        }
    }

    /// Returns when the version began that the past shows while this state is the current one.
    pub(crate) fn version(&self) -> Option<Timestamp> {
        self.shown_stamp().map(|stamp| stamp.id.timestamp)
    }
}

/// `C D`: a directory entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DentryRow {
    pub(crate) ino: Ino,
    /// When the name was bound to the inode.
    pub(crate) bound: Timestamp,
    /// Since when the name has existed without a gap, in versions; `u64::MAX` while it has none.
    pub(crate) alive_since: Timestamp,
    pub(crate) body: DentryBody,
    pub(crate) older: OlderVersions,
}

/// The part of a directory entry that depends on how many names its inode has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DentryBody {
    /// The only name of its inode: the inode's state is in this row.
    Own { node: InodeState, state: EntryState },
    /// One of several names: the inode's state is in `C I`; the stamp says when and by whom the name was made.
    Linked(Stamp),
}

/// A value with the timestamp of its assignment; a merge keeps the younger one.
pub(crate) type Register<T> = Option<(Timestamp, T)>;

pub(crate) fn younger<T>(mine: &mut Register<T>, other: Register<T>) {
    if let Some((at, value)) = other
        && mine.as_ref().is_none_or(|(since, _)| *since <= at)
    {
        *mine = Some((at, value));
    }
}

/// `C I` of a directory: every field merges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectoryRow {
    /// Parent and name.
    pub(crate) place: Register<Dentry>,
    pub(crate) generation: u64,
    pub(crate) mtime: Register<Time>,
    pub(crate) ctime: Register<Time>,
    pub(crate) atime: Register<Time>,
    /// Number of subdirectories.
    pub(crate) directories: i64,
    /// Number of names.
    pub(crate) entries: i64,
    /// The removal burst that the last change of its names belongs to, if that was a removal.
    pub(crate) removal_burst: Register<Option<Box<RemovalBurst>>>,
    /// Set once retention keeps the last version of a removed name of the directory (`keep-removed`): an operation that creates a
    /// name looks whether it is that one.
    pub(crate) keeps_removed: Register<()>,
}

/// Removals in a directory, each at most 60 s after the one before, without another change of its names between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovalBurst {
    /// Timestamp of the first removal, those in subdirectories that were removed meanwhile included.
    pub(crate) first: Timestamp,
    /// Timestamp of the last removal.
    pub(crate) last: Timestamp,
    /// The directory's modification time before the burst.
    pub(crate) mtime: Time,
}

impl DirectoryRow {
    /// Merges an operand: registers keep the younger timestamp, counters add.
    pub(crate) fn merge(&mut self, other: Self) {
        younger(&mut self.place, other.place);
        younger(&mut self.mtime, other.mtime);
        younger(&mut self.ctime, other.ctime);
        younger(&mut self.atime, other.atime);
        younger(&mut self.removal_burst, other.removal_burst);
        younger(&mut self.keeps_removed, other.keeps_removed);
        self.generation = self.generation.max(other.generation);
        self.directories = self.directories.wrapping_add(other.directories);
        self.entries = self.entries.wrapping_add(other.entries);
    }
}

/// `C I` of an inode with several names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkedRow {
    pub(crate) node: InodeState,
    pub(crate) state: EntryState,
    pub(crate) nlink: u32,
    /// Whether retention keeps versions because the inode has names.
    pub(crate) older: OlderVersions,
}

/// `C I`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InodeRow {
    Directory(DirectoryRow),
    Linked(Box<LinkedRow>),
}

/// `C N`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocationRow {
    pub(crate) directory: Ino,
    pub(crate) name: Bytes,
}

/// `C O`: an inode that is unlinked but open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrphanRow {
    pub(crate) node: InodeState,
}

/// `H V` and `H W`: a version that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionRecord {
    pub(crate) ino: Ino,
    pub(crate) end: Timestamp,
    pub(crate) end_op: EndOp,
    pub(crate) stamp: Stamp,
    /// `None`: the record says that the name led to a hard-linked inode; the states of the inode are in `H W`.
    pub(crate) node: Option<InodeState>,
    pub(crate) kept: Retained,
    /// Since when the name had existed without a gap when the version ended.
    pub(crate) alive_since: Timestamp,
    /// The name that a rename moved the inode to, if one ended the version.
    pub(crate) moved_to: Option<Dentry>,
    /// The version's own end, where `end` is that of a later version whose place it took.
    pub(crate) own_end: Option<Timestamp>,
    /// When the record was written, if that was later than the version's end: for an import.
    pub(crate) recorded: Option<Timestamp>,
    pub(crate) filed: Filing,
}

impl VersionRecord {
    /// Returns when the version ended, before it took the place of later versions.
    pub(crate) fn own_end(&self) -> Timestamp {
        self.own_end.unwrap_or(self.end)
    }

    /// Returns the version's bytes without holes; `None` for the binding of a name to a hard-linked inode, which is no version.
    pub(crate) fn version_bytes(&self) -> Option<u64> {
        self.node.as_ref().map(InodeState::space)
    }

    /// Returns what the rules of time of a retention policy look at.
    pub(crate) fn span(&self) -> VersionSpan {
        let conflict = (self.stamp.op == Op::Conflict).then(|| self.own_end());
        VersionSpan {
            start: self.stamp.id.timestamp,
            end: self.own_end(),
            arrived: self.recorded.or(conflict),
        }
    }
}

/// `H N`: the parent and name that a directory had, from the key's timestamp to `end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectoryLocation {
    pub(crate) parent: Ino,
    pub(crate) name: Bytes,
    pub(crate) end: Timestamp,
    /// For a directory that was removed: the first timestamp of the removal burst that emptied it.
    pub(crate) removal_burst: Option<Timestamp>,
    /// The generation of the directory; an undelete gives it the next one.
    pub(crate) generation: u64,
}

/// Where the bytes of an extent are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExtentSource {
    /// In a segment: `len` bytes at `offset`; `hash` is the first 128 bits of their BLAKE3.
    Segment {
        epoch: u64,
        sequence: u64,
        offset: u32,
        len: u32,
        hash: [u8; 16],
    },
    /// In this row.
    Inline(Bytes),
    /// Zeros that were written over older bytes; nothing is stored.
    Zero,
}

/// A part of an extent that a range shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExtentSlice {
    /// Where it begins in the range, bytes.
    pub(crate) start: u32,
    /// How many bytes it shows.
    pub(crate) len: u32,
    /// Bytes of the extent before the first shown one.
    pub(crate) skip: u32,
    pub(crate) source: ExtentSource,
}

impl ExtentSlice {
    /// Tells whether it lies in a range and shows bytes that its extent has.
    fn is_possible(&self) -> bool {
        let (start, len) = (u64::from(self.start), u64::from(self.len));
        let extent = match &self.source {
            ExtentSource::Segment { len, .. } if u64::from(*len) > EXTENT_BYTES => return false,
            ExtentSource::Segment { len, .. } => u64::from(*len),
            ExtentSource::Inline(bytes) => bytes.len() as u64,
            ExtentSource::Zero => RANGE_BYTES,
        };
        u64::from(self.skip) + len <= extent && start + len <= RANGE_BYTES
    }

    pub(crate) fn end(&self) -> u32 {
        self.start + self.len
    }

    /// The part within `from..to`, or `None`.
    pub(crate) fn clip(&self, from: u32, to: u32) -> Option<Self> {
        let (start, end) = (self.start.max(from), self.end().min(to));
        (start < end).then(|| Self {
            start,
            len: end - start,
            skip: self.skip + (start - self.start),
            source: self.source.clone(),
        })
    }
}

/// `C F`: a range of a lineage at a timestamp. Its slices are ascending, do not overlap, and show bytes that their extents have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RangeRow {
    /// All extents of the range; a byte that none covers is a hole.
    #[serde(deserialize_with = "possible_slices")]
    Whole(Vec<ExtentSlice>),
    /// Extents that hide those of the next older row.
    #[serde(deserialize_with = "possible_slices")]
    Delta(Vec<ExtentSlice>),
}

/// Decodes the slices of a range row. Offsets and lengths that cannot be are an error, so that no reader has to check them.
fn possible_slices<'de, D: Deserializer<'de>>(row: D) -> Result<Vec<ExtentSlice>, D::Error> {
    let slices = Vec::<ExtentSlice>::deserialize(row)?;
    let mut end = 0;
    for slice in &slices {
        if u64::from(slice.start) < end || !slice.is_possible() {
            let start = slice.start;
            return Err(D::Error::custom(format!("an impossible slice at {start}")));
        }
        end = u64::from(slice.start) + u64::from(slice.len);
    }
    Ok(slices)
}

impl RangeRow {
    pub(crate) fn pieces(&self) -> &[ExtentSlice] {
        match self {
            Self::Whole(pieces) | Self::Delta(pieces) => pieces,
        }
    }

    /// Returns how many bytes are stored in this row.
    pub(crate) fn inline_bytes(&self) -> i64 {
        let inline = self.pieces().iter().map(|piece| match &piece.source {
            ExtentSource::Inline(bytes) => bytes.len() as i64,
            ExtentSource::Segment { .. } | ExtentSource::Zero => 0,
        });
        inline.sum()
    }
}

/// `C L`: the content a lineage began over. Where the lineage has no row for a range, or only deltas, the parent's bytes
/// show below them, up to `len`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LineageRow {
    pub(crate) parent: ContentRef,
    /// How many bytes of the parent show, from its start.
    pub(crate) len: u64,
}

/// `G B`: how many rows cite each extent of a segment; operands are differences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentRow {
    /// By offset: length in bytes, citing rows.
    pub(crate) extents: BTreeMap<u32, (u32, i64)>,
    pub(crate) dead_since: Register<()>,
}

/// `H E`: an imported version, by its id in the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImportedRow {
    pub(crate) directory: Ino,
    pub(crate) name: Bytes,
    pub(crate) version: VersionId,
}

/// `G M`: where the extents of a compacted segment are now; only those that were cited when it was compacted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MovedRow {
    /// By offset in the old segment: epoch and sequence of the new one, and the offset in it.
    pub(crate) extents: BTreeMap<u32, (u64, u64, u32)>,
}

/// A log object, by its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogPlace {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

/// `G x`: a content with bytes that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DamagedRow {
    /// When it was marked.
    pub(crate) found: Timestamp,
    /// How many of its bytes cannot be read.
    pub(crate) bytes: u64,
    pub(crate) loss: Loss,
}

/// Why bytes of a content cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Loss {
    /// Their segment is missing, or ends before them.
    Missing,
    /// The bytes of the segment do not match their hash.
    Changed,
}

/// `G K`: the newest checkpoint of the log: a complete list of all rows. No replay needs a log object before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckpointRow {
    /// The first object of the list.
    pub(crate) began: LogPlace,
    /// The object that completes it.
    pub(crate) ended: LogPlace,
    /// Length of all objects of the list, in bytes.
    pub(crate) bytes: u64,
    pub(crate) older: OlderLog,
}

/// What is known about the log objects before a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OlderLog {
    /// They may cite segments that the index does not.
    #[default]
    Unsearched,
    /// They were searched for such segments and cite none: they are deleted.
    Searched,
}

/// `G O`: how far segments have been searched for uncited ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SearchedRow {
    /// Every segment before this one was cited, is deleted, or has a `G N` row.
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    /// No log object up to this one cites that segment or a later one.
    pub(crate) log: LogPlace,
}

/// `G N`: a segment of an ended writer that neither a row nor the log cites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UncitedRow {
    pub(crate) first_seen: Timestamp,
    /// Length of the object in bytes.
    pub(crate) bytes: u64,
    /// How long it waits.
    pub(crate) wait: UncitedWait,
    /// The log objects that could cite it, and do not: those after the first place, up to the second.
    pub(crate) log: (LogPlace, LogPlace),
}

/// How long an uncited segment waits before it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum UncitedWait {
    /// The grace period: the writer's log covers batches after the segment, so it is known that none cites it.
    Grace,
    /// 30 days: the writer's log ends before the segment, so an index that lost its last minute could have cited it.
    Month,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(start: u32, len: u32, skip: u32, source: ExtentSource) -> ExtentSlice {
        ExtentSlice {
            start,
            len,
            skip,
            source,
        }
    }

    #[test]
    fn a_range_row_whose_slices_cannot_be_is_refused() {
        let inline = || ExtentSource::Inline(Bytes::from_static(b"four"));
        let stored = |len| ExtentSource::Segment {
            epoch: 1,
            sequence: 1,
            offset: u32::MAX,
            len,
            hash: [0; 16],
        };
        let (range, extent) = (RANGE_BYTES as u32, EXTENT_BYTES as u32);
        let possible = [
            vec![],
            vec![slice(0, 4, 0, inline()), slice(4, 3, 1, inline())],
            vec![slice(range - extent, extent, 0, stored(extent))],
            vec![slice(0, range, 0, ExtentSource::Zero)],
        ];
        let impossible = [
            vec![slice(0, 4, 1, inline())],
            vec![slice(0, 2, u32::MAX, inline())],
            vec![slice(0, 4, 0, inline()), slice(3, 1, 0, inline())],
            vec![slice(5, 1, 0, inline()), slice(0, 1, 0, inline())],
            vec![slice(range - 1, 4, 0, inline())],
            vec![slice(u32::MAX, 4, 0, inline())],
            vec![slice(0, 1, 0, stored(extent + 1))],
            vec![slice(0, u32::MAX, 0, stored(u32::MAX))],
            vec![slice(0, 8, extent - 4, stored(extent))],
            vec![slice(1, range, 0, ExtentSource::Zero)],
            vec![slice(0, 1, range, ExtentSource::Zero)],
        ];
        let decoded = |row: RangeRow| decode::<RangeRow>("C F", &encode(&row));
        for (slices, is_possible) in possible
            .into_iter()
            .map(|slices| (slices, true))
            .chain(impossible.into_iter().map(|slices| (slices, false)))
        {
            for row in [RangeRow::Whole(slices.clone()), RangeRow::Delta(slices)] {
                let found = decoded(row.clone());
                match is_possible {
                    true => assert_eq!(found.unwrap(), row),
                    false => assert!(matches!(found, Err(StoreError::Corrupt(_))), "{row:?}"),
                }
            }
        }
    }

    #[test]
    fn an_unknown_format_is_refused_with_its_number() {
        let mut value = encode(&5_i64).to_vec();
        value[0] = 9;
        let error = decode::<i64>("G R", &value).unwrap_err().to_string();
        assert!(error.contains("format 9"), "{error}");
    }
}
