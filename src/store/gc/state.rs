//! State that garbage collection keeps in memory between two cycles. All of it can be rebuilt from the rows of the
//! index.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::store::model::version::Timestamp;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::SearchedRow;

/// A segment that is marked dead and waits for the end of the grace period.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadSegment {
    pub(crate) since: Timestamp,
    pub(crate) bytes: u64,
}

/// The state of the garbage collection task.
#[derive(Debug, Default)]
pub(crate) struct GcCycle {
    /// Where the next cycle continues in the `G D` rows; `None`: at their beginning.
    pub(crate) lineages_from: Option<Bytes>,
    /// Where the next cycle continues in the `G E` rows; `None`: at their beginning.
    pub(crate) segments_from: Option<Bytes>,
    /// Dead segments whose grace period is not over.
    pub(crate) dead: BTreeMap<SegmentId, DeadSegment>,
    /// Segments selected for compaction, with their referenced bytes.
    pub(crate) half: BTreeMap<SegmentId, u64>,
    /// Segments that could not be copied; they are not compacted until the next mount.
    pub(crate) spoiled: BTreeSet<SegmentId>,
    pub(crate) search: SearchProgress,
    /// No further cycle runs, because the namespace is being closed.
    pub(crate) closed: bool,
}

/// Progress of the search for uncited segments.
#[derive(Debug, Default)]
pub(crate) struct SearchProgress {
    /// The search position, row `G O`; `None` until it is read.
    pub(crate) mark: Option<SearchedRow>,
    pub(crate) past: UncitedSegments,
    /// The next search position; it is written when all operations queued before it are durable.
    pub(crate) next: Option<SearchMark>,
    /// Time of the last review of the `G N` rows, in nanoseconds; 0 before the first.
    pub(crate) last_review: u64,
}

/// What is known about the segments of ended writers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum UncitedSegments {
    /// The segments have not been listed.
    #[default]
    Unlisted,
    /// The segments were listed at this time, in nanoseconds; some uploads are too recent to be judged.
    Open(u64),
    /// Every segment is referenced, deleted, or recorded as uncited in a `G N` row.
    Judged,
}

/// A search watermark that is not written yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchMark {
    /// Order of the newest operation in the queue when the mark was made.
    pub(crate) queued: u64,
    pub(crate) row: SearchedRow,
}

/// The uncited segments that wait for their deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitingSegments {
    pub(crate) segments: u64,
    /// Total size of the objects, in bytes.
    pub(crate) bytes: u64,
}
