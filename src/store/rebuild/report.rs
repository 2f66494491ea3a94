//! What a rebuild reports: its progress, what the new namespace has, and what is lost.

use uuid::Uuid;

use crate::store::replay::log_damage::LogDamage;
use crate::store::replay::log_replay::LogGap;

/// Maximum number of objects of one kind that are named.
const NAMED_MAX: usize = 1_000;

/// The progress of a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildStep {
    /// Some of the log objects are read.
    Log {
        /// Number of objects read.
        read: usize,
        /// Number of objects known so far.
        all: usize,
    },
    /// So many rows of the old index are read.
    Index(u64),
    /// So many rows are recounted, because the log has gaps.
    Recounted(u64),
    /// So many rows are written.
    Written(u64),
    /// So many rows are verified.
    Verified(u64),
}

/// Where the rows of the new index come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuiltFrom {
    /// The log.
    Log,
    /// The old index, which has at least what the log has.
    Index,
    /// The old index, and the batches of the log that it lacks.
    IndexAndLog,
    /// Neither: no log object and no index can be read.
    Nothing,
}

/// Where the id of the new namespace comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UuidOrigin {
    /// It is that of the old namespace.
    Kept,
    /// It is in a `namespace.json` whose checksum does not match.
    Damaged,
    /// It is new, because `namespace.json` is lost. No cache directory belongs to it.
    New,
}

/// How a call of rebuild ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildOutcome {
    /// The new namespace is complete and has taken the place of the old one.
    Complete,
    /// Something is lost, and that was not accepted: the old namespace is as it was.
    Refused,
}

/// An object that is lost, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostObject {
    /// Its key, relative to the namespace.
    pub key: String,
    /// The reason; it completes a sentence that begins with the key.
    pub what: String,
}

/// A time whose changes are lost as far as lost log objects had them, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostTime {
    /// The last change before it that is known; `None` if there is none.
    pub after_ns: Option<u64>,
    /// The first change behind it that is known; `None` if there is none.
    pub until_ns: Option<u64>,
}

/// What the new namespace lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildLosses {
    /// Number of log objects whose batches are lost.
    pub log_objects: u64,
    /// The first of them; at most 1000.
    pub named_log_objects: Vec<LostObject>,
    /// The times that these objects cover.
    pub times: Vec<LostTime>,
    /// Number of segments that files need and that are missing.
    pub segments: u64,
    /// The keys of the first of them; at most 1000.
    pub named_segments: Vec<String>,
}

impl RebuildLosses {
    /// Tells whether nothing is lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.log_objects == 0 && self.times.is_empty() && self.segments == 0
    }

    pub(super) fn add_log(&mut self, damage: &LogDamage, gaps: &[LogGap]) {
        damage.each_object(|object| {
            self.log_objects += 1;
            if self.named_log_objects.len() < NAMED_MAX {
                self.named_log_objects.push(LostObject {
                    key: object.key,
                    what: object.what,
                });
            }
        });
        self.times.extend(gaps.iter().map(|gap| LostTime {
            after_ns: gap.after,
            until_ns: gap.until,
        }));
    }

    pub(super) fn add_segment(&mut self, key: String) {
        self.segments += 1;
        if self.named_segments.len() < NAMED_MAX {
            self.named_segments.push(key);
        }
    }
}

/// Segments that are newer than the log and that no row cites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewerSegments {
    /// Their number.
    pub segments: u64,
    /// Their length together, in bytes.
    pub bytes: u64,
}

/// The result of a rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuildReport {
    /// How it ended.
    pub outcome: RebuildOutcome,
    /// Where the rows come from.
    pub from: RebuiltFrom,
    /// The id of the new namespace.
    pub uuid: Uuid,
    /// Where the id comes from.
    pub uuid_origin: UuidOrigin,
    /// Number of log objects read.
    pub log_objects: usize,
    /// Number of rows written.
    pub rows: u64,
    /// Number of live inodes.
    pub files: u64,
    /// Bytes of live files, without holes.
    pub bytes: u64,
    /// Number of versions that have ended and are kept.
    pub versions: u64,
    /// Number of labels.
    pub labels: u64,
    /// Number of counts that differ from a recount. Nothing is lost by them.
    pub wrong_counts: u64,
    /// What is lost.
    pub losses: RebuildLosses,
    /// What the first mount brings back.
    pub newer: NewerSegments,
}
