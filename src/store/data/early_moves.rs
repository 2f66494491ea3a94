//! The state of early moves: which ranges are hot, and which segments wait for a row that cites them.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::store::data::contents::PendingContent;
use crate::store::data::in_flight::UploadInFlight;
use crate::store::data::inline_backlog::INLINE;
use crate::store::data::inline_run::{LongRun, inline, shown};
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{ExtentSlice, ExtentSource};
use crate::sync::{Arc, Mutex, lock};

/// So many inline bytes of a range are moved early.
const EARLY: u64 = INLINE / 2;
/// They are moved if they were written within this time: a file that is fsynced rarely can wait for its upload.
const HOT: Duration = Duration::from_secs(10);
/// How long a move waits for the row that cites it.
pub(super) const KEPT: Duration = Duration::from_secs(30);
/// The number of writes since the last move from which a file counts as fsynced again and again.
const WRITES: u32 = 4;
/// Maximum number of ranges whose bytes are counted.
const RANGES: usize = 64;

/// The early moves of a namespace.
#[derive(Debug, Default)]
pub(crate) struct EarlyMoves {
    table: Arc<Mutex<EarlyTable>>,
}

/// While it exists, no inline bytes are moved early.
#[derive(Debug)]
pub(crate) struct PausedEarlyMoves(Arc<Mutex<EarlyTable>>);

impl Drop for PausedEarlyMoves {
    fn drop(&mut self) {
        lock(&self.0).paused -= 1;
    }
}

#[derive(Debug, Default)]
struct EarlyTable {
    ranges: HashMap<LineageRange, HotRange>,
    /// How many callers have paused the moves.
    paused: usize,
}

/// A range of a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LineageRange {
    cid: u64,
    range: u64,
}

impl LineageRange {
    /// The range with the number `range` of a content's lineage.
    pub(super) fn of(pending: &PendingContent, range: u64) -> Self {
        let cid = pending.content.cid;
        Self { cid, range }
    }
}

/// A range of a lineage to which inline bytes are written.
#[derive(Debug)]
struct HotRange {
    /// Inline bytes that were written since the last move, and since when.
    bytes: u64,
    writes: u32,
    since: Instant,
    task: TaskState,
    moved: Vec<EarlySegment>,
}

impl HotRange {
    /// Tells whether the state is more than what a next write would begin with.
    fn is_needed(&self) -> bool {
        self.task == TaskState::Running || !self.moved.is_empty() || self.since.elapsed() < HOT
    }

    fn restart(&mut self) {
        (self.bytes, self.writes, self.since) = (0, 0, Instant::now());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskState {
    Idle,
    Running,
}

/// A segment with inline bytes that no row cites yet.
#[derive(Debug)]
pub(crate) struct EarlySegment {
    pub(super) id: SegmentId,
    slices: Vec<MovedSlice>,
    since: Instant,
    /// `None` once it is settled what becomes of the segment.
    upload: Option<UploadInFlight>,
}

/// Bytes of a range, and their place in the segment.
#[derive(Debug)]
pub(super) struct MovedSlice {
    pub(super) run: LongRun,
    pub(super) source: ExtentSource,
}

impl Drop for EarlySegment {
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            upload.failed();
        }
    }
}

impl EarlySegment {
    /// A segment that the bucket has. `upload` stays in flight until the segment is cited or deleted.
    pub(super) fn new(id: SegmentId, slices: Vec<MovedSlice>, upload: UploadInFlight) -> Self {
        Self {
            id,
            slices,
            since: Instant::now(),
            upload: Some(upload),
        }
    }

    /// Notes that a queued operation cites it, or that it is deleted.
    pub(crate) fn settled(mut self) {
        drop(self.upload.take());
    }

    /// Tells whether one of the slices shows bytes of the segment.
    fn is_in(&self, pieces: &[ExtentSlice]) -> bool {
        let mut sources = pieces.iter().map(|piece| &piece.source);
        sources.any(|source| {
            matches!(source, ExtentSource::Segment { epoch, sequence, .. }
                if (*epoch, *sequence) == (self.id.epoch, self.id.sequence))
        })
    }

    /// Returns the slices with those replaced that show the same bytes as the segment.
    fn replace(&self, pieces: Vec<ExtentSlice>) -> Vec<ExtentSlice> {
        let mut out = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let equal = self.slices.iter().find_map(|slice| {
                let (from, to) = slice.equal(&piece)?;
                Some((slice, from, to))
            });
            let Some((slice, from, to)) = equal else {
                out.push(piece);
                continue;
            };
            out.extend(piece.clip(0, from));
            out.push(ExtentSlice {
                start: from,
                len: to - from,
                skip: from - slice.run.start,
                source: slice.source.clone(),
            });
            out.extend(piece.clip(to, u32::MAX));
        }
        joined(out)
    }
}

impl MovedSlice {
    /// Returns where in the range a slice and this one show the same bytes: a copied extent, or the part of inline bytes that both have.
    fn equal(&self, piece: &ExtentSlice) -> Option<(u32, u32)> {
        let run = &self.run;
        if inline(piece).is_none() {
            let is_copied = run.copied.contains(piece);
            return is_copied.then_some((piece.start, piece.end()));
        }
        let end = run.start + run.bytes.len() as u32;
        let (from, to) = (piece.start.max(run.start), piece.end().min(end));
        if from >= to {
            return None;
        }
        let bytes = shown(std::slice::from_ref(piece));
        let part =
            |of: &Bytes, start: u32| of.slice((from - start) as usize..(to - start) as usize);
        (part(&bytes, piece.start) == part(&run.bytes, run.start)).then_some((from, to))
    }
}

/// Joins neighbouring slices of one extent.
fn joined(pieces: Vec<ExtentSlice>) -> Vec<ExtentSlice> {
    let mut out: Vec<ExtentSlice> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match out.last_mut() {
            Some(last)
                if matches!(piece.source, ExtentSource::Segment { .. })
                    && last.source == piece.source
                    && last.end() == piece.start
                    && last.skip + last.len == piece.skip =>
            {
                last.len += piece.len;
            }
            _ => out.push(piece),
        }
    }
    out
}

impl EarlyMoves {
    /// Counts inline bytes that a row of the range has more than the one before it; tells whether a move is due.
    pub(super) fn count(&self, range: LineageRange, bytes: u64) -> bool {
        let mut table = lock(&self.table);
        if table.paused > 0 {
            return false;
        }
        if table.ranges.len() >= RANGES && !table.ranges.contains_key(&range) {
            table.ranges.retain(|_, hot| hot.is_needed());
            if table.ranges.len() >= RANGES {
                return false;
            }
        }
        let hot = table.ranges.entry(range).or_insert_with(|| HotRange {
            bytes: 0,
            writes: 0,
            since: Instant::now(),
            task: TaskState::Idle,
            moved: Vec::new(),
        });
        if hot.since.elapsed() >= HOT {
            hot.restart();
        }
        hot.bytes += bytes;
        hot.writes += 1;
        if hot.bytes < EARLY || hot.writes < WRITES || hot.task == TaskState::Running {
            return false;
        }
        hot.restart();
        hot.task = TaskState::Running;
        true
    }

    /// Replaces inline bytes of a row that has too many of them by slices of segments that an early move has uploaded. Also returns the
    /// segments that the row cites now.
    pub(super) fn replace_in(
        &self,
        range: LineageRange,
        mut pieces: Vec<ExtentSlice>,
    ) -> (Vec<ExtentSlice>, Vec<EarlySegment>) {
        let mut table = lock(&self.table);
        let Some(hot) = table.ranges.get_mut(&range) else {
            return (pieces, Vec::new());
        };
        for segment in &hot.moved {
            pieces = segment.replace(pieces);
        }
        // A later move may have copied the bytes of an earlier one.
        let moved = std::mem::take(&mut hot.moved).into_iter();
        let (cited, unused) = moved.partition(|segment| segment.is_in(&pieces));
        hot.moved = unused;
        (pieces, cited)
    }

    /// Returns the slices with those replaced whose bytes an earlier move has.
    pub(super) fn without_moved(
        &self,
        range: LineageRange,
        mut pieces: Vec<ExtentSlice>,
    ) -> Vec<ExtentSlice> {
        let table = lock(&self.table);
        let moved = table.ranges.get(&range).map_or(&[][..], |hot| &hot.moved);
        for segment in moved {
            pieces = segment.replace(pieces);
        }
        pieces
    }

    /// Ends early moves until the result is dropped; those that are running go on.
    pub(super) fn pause(&self) -> PausedEarlyMoves {
        lock(&self.table).paused += 1;
        PausedEarlyMoves(Arc::clone(&self.table))
    }

    /// Tells whether a move is running.
    pub(super) fn is_any_running(&self) -> bool {
        let table = lock(&self.table);
        let mut ranges = table.ranges.values();
        ranges.any(|hot| hot.task == TaskState::Running)
    }

    /// Notes the segment that the task of a range made, if it made one; it waits for a row. Returns segments that are not going to be cited.
    pub(super) fn add_early(
        &self,
        range: LineageRange,
        segment: Option<EarlySegment>,
    ) -> Vec<EarlySegment> {
        let mut table = lock(&self.table);
        let paused = table.paused > 0;
        let Some(hot) = table.ranges.get_mut(&range) else {
            return segment.into_iter().collect();
        };
        hot.moved.extend(segment);
        let is_over = |one: &EarlySegment| paused || one.since.elapsed() >= KEPT;
        let all = std::mem::take(&mut hot.moved);
        let (over, kept) = all.into_iter().partition(is_over);
        hot.moved = kept;
        over
    }

    /// Ends the task of a range, after what it left was deleted.
    pub(super) fn end_task(&self, range: LineageRange) {
        if let Some(hot) = lock(&self.table).ranges.get_mut(&range) {
            hot.task = TaskState::Idle;
        }
    }

    /// Takes the segments that no row has cited in time.
    pub(super) fn take_old(&self, age: Duration) -> Vec<EarlySegment> {
        let mut table = lock(&self.table);
        let mut old = Vec::new();
        for hot in table.ranges.values_mut() {
            let all = std::mem::take(&mut hot.moved);
            let (over, kept) = all
                .into_iter()
                .partition(|one: &EarlySegment| one.since.elapsed() >= age);
            hot.moved = kept;
            old.extend::<Vec<EarlySegment>>(over);
        }
        table.ranges.retain(|_, hot| hot.is_needed());
        old
    }
}
