//! What garbage collection remembers between two cycles.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::store::model::version::Timestamp;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::SearchedRow;

/// A segment that is marked dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadSegment {
    pub(crate) since: Timestamp,
    pub(crate) bytes: u64,
}

/// What the task knows.
#[derive(Debug, Default)]
pub(crate) struct GcCycle {
    pub(crate) lineages_from: Option<Bytes>,
    pub(crate) segments_from: Option<Bytes>,
    pub(crate) dead: BTreeMap<SegmentId, DeadSegment>,
    /// Less than half of each is cited: bytes that are.
    pub(crate) half: BTreeMap<SegmentId, u64>,
    /// Could not be copied; they are left alone until the next mount.
    pub(crate) spoiled: BTreeSet<SegmentId>,
    pub(crate) search: SearchProgress,
    pub(crate) closed: bool,
}

/// How far the search has come.
#[derive(Debug, Default)]
pub(crate) struct SearchProgress {
    /// `G O`.
    pub(crate) mark: Option<SearchedRow>,
    pub(crate) past: UncitedSegments,
    /// Where the mark can go once everything up to a place in the queue is durable.
    pub(crate) next: Option<SearchMark>,
    /// When rows of uncited segments were last looked at, nanoseconds.
    pub(crate) outcome: u64,
}

/// What is known of the segments of ended writers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum UncitedSegments {
    /// They have not been listed.
    #[default]
    Unlisted,
    /// They were listed at this time, nanoseconds, and some could not be judged yet.
    Open(u64),
    /// Each is cited, gone, or has its row.
    Judged,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchMark {
    pub(crate) queued: u64,
    pub(crate) row: SearchedRow,
}

/// Uncited segments that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitingSegments {
    pub(crate) segments: u64,
    /// Bytes of the objects.
    pub(crate) bytes: u64,
}
