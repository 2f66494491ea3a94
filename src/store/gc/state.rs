//! State that garbage collection keeps in memory between two cycles. All of it can be rebuilt from the rows of the
//! index.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::store::model::version::Timestamp;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{CheckpointRow, LogPlace, MovedRow, SearchedRow, SegmentRow};
use crate::store::schema::tables::{EmptiedTable, RowKey};
use crate::sync::Arc;

/// A segment that is marked dead and waits for the end of the grace period.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadSegment {
    pub(crate) since: Timestamp,
    pub(crate) bytes: u64,
}

/// A dead segment whose grace period is over, and what its rows said.
#[derive(Clone, Debug)]
pub(crate) struct DueSegment {
    pub(crate) id: SegmentId,
    /// Its `G E` rows.
    pub(crate) asked: Vec<RowKey<EmptiedTable>>,
    /// Bytes of all its extents.
    pub(crate) bytes: u64,
    pub(crate) row: SegmentRow,
    pub(crate) moved: Option<MovedRow>,
    /// Bytes of its extents that are subtracted from the stored bytes already.
    pub(crate) uncounted: i64,
}

/// A segment to be compacted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HalfDead {
    /// Bytes of its extents that are still referenced.
    pub(crate) cited: u64,
    /// Bytes of its extents that are not.
    pub(crate) wasted: u64,
    /// How many `G E` rows it had; with more of them it has lost further references.
    pub(crate) listed: usize,
}

/// How far a list is read, a part in each cycle, from its beginning to its end and then again.
#[derive(Debug, Default)]
pub(crate) struct ListPass {
    /// Where the next cycle continues; `None`: at the beginning.
    pub(crate) next: Option<Bytes>,
    /// The cycle that began the current pass.
    began: u64,
    /// The cycle that began the last pass that reached the end; 0: none did.
    completed: u64,
}

impl ListPass {
    /// Notes that a cycle has read a part from the beginning of the list on, or behind the one before, up to `next`.
    pub(crate) fn read_on(&mut self, cycle: u64, from_beginning: bool, next: Option<Bytes>) {
        if from_beginning {
            self.began = cycle;
        }
        if next.is_none() {
            self.completed = self.began;
        }
        self.next = next;
    }

    /// Tells whether the whole list was read in cycles after `cycle`.
    fn is_read_since(&self, cycle: u64) -> bool {
        self.completed > cycle
    }
}

/// The state of the garbage collection task.
#[derive(Debug, Default)]
pub(crate) struct GcCycle {
    /// Number of the cycle, counted from 1.
    pub(crate) number: u64,
    /// The last cycle that completed an item.
    pub(crate) productive: u64,
    /// The `G D` rows.
    pub(crate) lineages: ListPass,
    /// The `G E` rows.
    pub(crate) segments: ListPass,
    /// Dead segments whose grace period is not over.
    pub(crate) dead: BTreeMap<SegmentId, DeadSegment>,
    /// Dead segments that this cycle deletes.
    pub(crate) due: Vec<DueSegment>,
    /// Segments to be compacted, once they have enough unreferenced bytes together.
    pub(crate) half: BTreeMap<SegmentId, HalfDead>,
    /// Segments that could not be copied; they are not compacted until the next mount.
    pub(crate) spoiled: BTreeSet<SegmentId>,
    pub(crate) search: SearchProgress,
    /// No further cycle runs, because the namespace is being closed.
    pub(crate) closed: bool,
}

impl GcCycle {
    /// Returns the unreferenced bytes of the segments to be compacted.
    pub(crate) fn wasted(&self) -> u64 {
        self.half.values().map(|half| half.wasted).sum()
    }

    /// Tells whether every listed item was reviewed since the last one that was completed: nothing more can be done before time passes.
    pub(crate) fn is_idle(&self) -> bool {
        self.lineages.is_read_since(self.productive) && self.segments.is_read_since(self.productive)
    }
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
    /// As `Judged`, but the log references segments that the index does not: the index has lost rows, which only the log still has.
    LogOnly,
}

/// The checkpoint that is being made, and what is known about the log.
#[derive(Debug, Default)]
pub(crate) struct CheckpointProgress {
    pub(crate) stage: CheckpointStage,
    /// The newest checkpoint that the index names, row `G K`.
    pub(crate) recorded: CheckpointRow,
    /// Size of the log objects behind that checkpoint when they were listed, less what this process had added by then, in bytes.
    pub(crate) weight: i64,
    /// A checkpoint is to be made whatever the size of the log is.
    pub(crate) wanted: bool,
    /// No further step runs, because the namespace is being closed.
    pub(crate) closed: bool,
}

/// How far a checkpoint is.
#[derive(Clone, Debug, Default)]
pub(crate) enum CheckpointStage {
    /// The log has not been listed.
    #[default]
    Unlisted,
    /// The log before the recorded checkpoint is to be searched for segments that the index lacks.
    Searching,
    /// Log objects before the recorded checkpoint are to be deleted: these, newest first; `None` before they are listed.
    Trimming(Option<Vec<LogPlace>>),
    /// Nothing is to be done until the log has grown.
    Idle,
    /// Parts of the list are logged.
    Listing(PartialList),
    /// The list is complete in the log and not named by the index.
    Ended(CheckpointRow),
    /// The operation that writes this row is queued.
    Recording(CheckpointRow),
}

/// A list of all rows of which some parts are logged.
#[derive(Clone, Debug)]
pub(crate) struct PartialList {
    /// The first object of the list; `None` before it is logged.
    pub(crate) began: Option<LogPlace>,
    /// Every row with a key below this one is logged.
    pub(crate) covers: Bytes,
    /// Length of the logged objects in bytes.
    pub(crate) bytes: u64,
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

/// How many callers have paused the moves.
#[derive(Debug, Default)]
pub(crate) struct InlineMoves {
    paused: AtomicUsize,
}

/// While it exists, no inline bytes are moved.
#[derive(Debug)]
pub(crate) struct PausedMoves(Arc<InlineMoves>);

impl InlineMoves {
    pub(crate) fn are_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst) > 0
    }
}

impl PausedMoves {
    pub(crate) fn new(moves: &Arc<InlineMoves>) -> Self {
        moves.paused.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(moves))
    }
}

impl Drop for PausedMoves {
    fn drop(&mut self) {
        self.0.paused.fetch_sub(1, Ordering::SeqCst);
    }
}
