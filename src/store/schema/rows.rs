//! What the rows hold, how they are encoded, and how merged rows combine.
//!
//! Every value is one format byte and a postcard body; an unknown format is refused, never guessed. Merged rows (`C I`, `G R`,
//! `G B`) use one encoding for values and operands, and their merge is associative and free of order: registers keep
//! the younger timestamp, counters add.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::store::model::error::StoreError;
use crate::store::model::ids::{BatchId, Dentry};
use crate::store::model::version::{
    Attrs, Content, ContentRef, EndOp, Ino, Kind, Retained, Stamp, Time, Timestamp, VersionId,
};

/// Format of every row this build writes.
pub(crate) const FORMAT: u8 = 1;

pub(crate) fn encode<T: Serialize>(row: &T) -> Bytes {
    // proof: to_extend into a Vec fails only where Serialize does, and our rows are plain data.
    postcard::to_extend(row, vec![FORMAT])
        .expect("rows are plain data")
        .into()
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

/// What an inode is and holds, in one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InodeState {
    pub(crate) kind: Kind,
    pub(crate) attrs: Attrs,
    pub(crate) xattrs: Vec<(Bytes, Bytes)>,
    pub(crate) content: Content,
    /// Bytes that are not holes; at most too many where holes were written and punched again.
    pub(crate) allocated: u64,
}

impl InodeState {
    /// Bytes it takes up as stat(2) and statfs(2) tell it: holes take none.
    pub(crate) fn space(&self) -> u64 {
        self.allocated.min(self.attrs.size)
    }

    /// Bytes it takes up more than `older`; negative if fewer.
    pub(crate) fn grown_from(&self, older: &Self) -> i64 {
        self.space().wrapping_sub(older.space()).cast_signed()
    }
}

/// A version that stands behind a newer, not yet released state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastVersion {
    pub(crate) ino: Ino,
    pub(crate) node: InodeState,
    pub(crate) stamp: Stamp,
    pub(crate) alive_since: Timestamp,
}

/// Where the current state of a name stands on its way to a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EntryState {
    /// It is a version.
    Version(Stamp),
    /// Created and never released: live, in no past. What a rename put it over stays visible in the past until its birth.
    Unborn { behind: Option<Box<LastVersion>> },
    /// Committed by fsync while a handle is open: durable and current; the past shows the last version.
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

/// `C D`: a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DentryRow {
    pub(crate) ino: Ino,
    /// When the name was bound to the inode.
    pub(crate) bound: Timestamp,
    /// Since when the name has existed without a gap, in versions; the far future while it has none.
    pub(crate) alive_since: Timestamp,
    pub(crate) body: DentryBody,
}

/// What lies in an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DentryBody {
    /// The only name of its inode: everything is here.
    Own { node: InodeState, state: EntryState },
    /// One of several names: attributes and content are in `C I`; the stamp is the binding's.
    Linked(Stamp),
}

/// A register: the younger timestamp wins.
pub(crate) type Register<T> = Option<(Timestamp, T)>;

pub(crate) fn younger<T>(mine: &mut Register<T>, other: Register<T>) {
    if let Some((at, value)) = other
        && mine.as_ref().is_none_or(|(since, _)| *since <= at)
    {
        *mine = Some((at, value));
    }
}

/// `C I` of a directory: everything merges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectoryRow {
    /// Parent and name.
    pub(crate) place: Register<Dentry>,
    pub(crate) generation: u64,
    pub(crate) mtime: Register<Time>,
    pub(crate) ctime: Register<Time>,
    pub(crate) atime: Register<Time>,
    /// Subdirectories.
    pub(crate) directories: i64,
    /// All names.
    pub(crate) entries: i64,
    /// The unbroken run of removals in it.
    pub(crate) removal_burst: Register<Option<Box<RemovalBurst>>>,
}

/// Removals in a directory with nothing else between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovalBurst {
    /// When the first was, also in the directories removed meanwhile.
    pub(crate) first: Timestamp,
    /// When the last was.
    pub(crate) last: Timestamp,
    /// When the names in the directory had changed last before it.
    pub(crate) mtime: Time,
}

impl DirectoryRow {
    /// Takes in an operand: registers keep the younger timestamp, counters add.
    pub(crate) fn merge(&mut self, other: Self) {
        younger(&mut self.place, other.place);
        younger(&mut self.mtime, other.mtime);
        younger(&mut self.ctime, other.ctime);
        younger(&mut self.atime, other.atime);
        younger(&mut self.removal_burst, other.removal_burst);
        self.generation = self.generation.max(other.generation);
        self.directories += other.directories;
        self.entries += other.entries;
    }
}

/// `C I` of an inode with several names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkedRow {
    pub(crate) node: InodeState,
    pub(crate) state: EntryState,
    pub(crate) nlink: u32,
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

/// `C O`: unlinked but open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrphanRow {
    pub(crate) node: InodeState,
}

/// `H V` and `H W`: a closed version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionRecord {
    pub(crate) ino: Ino,
    pub(crate) end: Timestamp,
    pub(crate) end_op: EndOp,
    pub(crate) stamp: Stamp,
    /// `None`: the interval a name was bound to a hard-linked inode, whose states are in `H W`.
    pub(crate) node: Option<InodeState>,
    pub(crate) kept: Retained,
}

/// `H N`: where a directory hung, from the key's timestamp to `end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectoryLocation {
    pub(crate) parent: Ino,
    pub(crate) name: Bytes,
    pub(crate) end: Timestamp,
    /// For a directory that was removed: where the run of removals began that emptied it.
    pub(crate) removal_burst: Option<Timestamp>,
    /// The directory's; one that comes back has the next.
    pub(crate) generation: u64,
}

/// Where the bytes of an extent lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExtentSource {
    /// In a segment: `len` bytes at `offset`, 128 bits of whose BLAKE3 are `hash`.
    Segment {
        epoch: u64,
        sequence: u64,
        offset: u32,
        len: u32,
        hash: [u8; 16],
    },
    /// In this row.
    Inline(Bytes),
    /// Nowhere: zeros written over older bytes.
    Zero,
}

/// The part of an extent a range shows.
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

/// `C F`: a range of a lineage at a timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RangeRow {
    /// All the range has; what no piece covers is a hole.
    Whole(Vec<ExtentSlice>),
    /// Laid over the next older row.
    Delta(Vec<ExtentSlice>),
}

impl RangeRow {
    pub(crate) fn pieces(&self) -> &[ExtentSlice] {
        match self {
            Self::Whole(pieces) | Self::Delta(pieces) => pieces,
        }
    }
}

/// `C L`: the bytes a lineage began over. Where it has no row, these show, up to their length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LineageRow {
    pub(crate) parent: ContentRef,
    /// Bytes of the parent that show.
    pub(crate) len: u64,
}

/// `G B`: rows citing each extent of a segment; operands carry differences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentRow {
    /// By offset: length in bytes, citing rows.
    pub(crate) extents: BTreeMap<u32, (u32, i64)>,
    pub(crate) dead_since: Register<()>,
}

/// `H E`: an imported version, by the id it came with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImportedRow {
    pub(crate) directory: Ino,
    pub(crate) name: Bytes,
    pub(crate) version: VersionId,
}

/// `G M`: where the extents of a rewritten segment went that were cited then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MovedRow {
    /// By offset in the old segment: epoch and sequence of the new one, and the offset in it.
    pub(crate) extents: BTreeMap<u32, (u64, u64, u32)>,
}

/// `G X`: a closed version, in the queue of ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExpiryRow {
    pub(crate) id: VersionId,
    pub(crate) end_op: EndOp,
}

/// Batches of one writer epoch that are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochWatermark {
    pub(crate) epoch: u64,
    /// Every operation up to this number.
    pub(crate) upto: u64,
    /// And these beyond it.
    pub(crate) out_of_order: Vec<u64>,
    /// Ids from this one on were free when that writer came; the largest number where it is not known.
    pub(crate) first_id: u64,
}

/// A log object, by its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogPlace {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

/// `G O`: how far segments have been searched for uncited ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SearchedRow {
    /// Every segment before this one was cited, is gone, or has a `G N`.
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    /// No log object up to this one cites that segment or a later one.
    pub(crate) log: LogPlace,
}

/// `G N`: a segment of an ended writer that nothing cites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UncitedRow {
    pub(crate) first_seen: Timestamp,
    /// Length of the object.
    pub(crate) bytes: u64,
    /// How long it waits.
    pub(crate) wait: UncitedWait,
    /// The log objects behind the first place, up to the second, could cite it, and do not.
    pub(crate) log: (LogPlace, LogPlace),
}

/// How long an uncited segment waits before it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum UncitedWait {
    /// The grace period: its writer's log goes beyond it.
    Grace,
    /// 30 days: its writer's log ends before it, so an index that lost its last minute could have cited it.
    Month,
}

/// `G A`: what the namespace has applied, and its counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppliedRow {
    pub(crate) watermarks: Vec<EpochWatermark>,
    /// Epoch and number of the newest batch.
    pub(crate) batch: BatchId,
    /// The newest batch of the writer before that batch's; with it a gap between batches shows.
    pub(crate) before: BatchId,
    /// Next inode, lineage and staging number.
    pub(crate) next_id: u64,
    /// No timestamp at or below it is given again.
    pub(crate) clock: u64,
    /// The oldest timestamp that was not committed when this was.
    pub(crate) low_watermark: u64,
    pub(crate) bytes: i64,
    pub(crate) files: i64,
}

impl AppliedRow {
    /// Makes the next batch of the writer of `epoch` the newest; its number.
    pub(crate) fn next_batch(&mut self, epoch: u64) -> u64 {
        let number = match self.batch.epoch == epoch {
            true => self.batch.number + 1,
            false => {
                self.before = self.batch;
                1
            }
        };
        self.batch = BatchId { epoch, number };
        number
    }

    /// Whether its newest batch comes right after that of `older`.
    pub(crate) fn follows(&self, older: &Self) -> bool {
        let BatchId { epoch, number } = self.batch;
        match epoch == older.batch.epoch {
            true => number == older.batch.number + 1,
            false => epoch > older.batch.epoch && number == 1 && self.before == older.batch,
        }
    }

    pub(crate) fn contains(&self, epoch: u64, number: u64) -> bool {
        self.watermarks
            .iter()
            .any(|m| m.epoch == epoch && (number <= m.upto || m.out_of_order.contains(&number)))
    }

    /// Adds the watermark of a writer that begins. Later writers find it: that the epoch existed, and which ids the writer may have used.
    pub(crate) fn begin(&mut self, epoch: u64) {
        let first_id = self.next_id.max(2);
        self.mark(epoch).first_id = first_id;
    }

    fn mark(&mut self, epoch: u64) -> &mut EpochWatermark {
        // The newest is last, and mostly meant.
        let at = match self.watermarks.iter().rposition(|m| m.epoch == epoch) {
            Some(at) => at,
            None => {
                self.watermarks.push(EpochWatermark {
                    epoch,
                    upto: 0,
                    out_of_order: Vec::new(),
                    first_id: u64::MAX,
                });
                self.watermarks.len() - 1
            }
        };
        &mut self.watermarks[at]
    }

    pub(crate) fn add(&mut self, epoch: u64, number: u64) {
        let mark = self.mark(epoch);
        mark.out_of_order.push(number);
        mark.out_of_order.sort_unstable();
        while mark
            .out_of_order
            .first()
            .is_some_and(|n| *n <= mark.upto + 1)
        {
            mark.upto = mark.upto.max(mark.out_of_order.remove(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_format_is_refused_with_its_number() {
        let mut value = encode(&5_i64).to_vec();
        value[0] = 9;
        let error = decode::<i64>("G R", &value).unwrap_err().to_string();
        assert!(error.contains("format 9"), "{error}");
    }

    #[test]
    fn applied_numbers_close_up() {
        let mut applied = AppliedRow::default();
        for n in [1, 3, 4, 2, 7] {
            applied.add(5, n);
        }
        assert_eq!(
            applied.watermarks,
            [EpochWatermark {
                epoch: 5,
                upto: 4,
                out_of_order: vec![7],
                first_id: u64::MAX
            }]
        );
        assert!(applied.contains(5, 3) && applied.contains(5, 7) && !applied.contains(5, 6));
        assert!(!applied.contains(4, 1));
    }
}
