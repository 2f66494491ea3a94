//! Upkeep: the task that removes from the bucket what nothing shows any more, a little at a time.
//!
//! Each turn goes through the lists that other operations left (`G D`: contents, `G E`: segments), never through the namespace.
//! Invariant: one turn at a time; whatever is removed was first unneeded, durably, and an object for as long as the grace
//! period lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::store::data::segment::SegmentId;
use crate::store::gc::lineage::ReviewOutcome;
use crate::store::model::error::StoreError;
use crate::store::model::version::Timestamp;
use crate::store::namespace::{Namespace, Shared};
use crate::store::schema::keys;
use crate::sync::{Arc, Mutex, lock};

/// The grace period unless another is asked for: far above the longest call, and above what a follower lags behind.
pub const GRACE: Duration = Duration::from_secs(3600);
/// Rows of a list that one turn takes up.
const TURN_MAX: usize = 512;
/// Between two turns, unless the grace period is shorter.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// When what nothing shows any more is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GcMode {
    /// By a task, as long as the namespace is open.
    #[default]
    Always,
    /// When [`Namespace::reclaim`] is called.
    OnRequest,
}

/// What has been removed since the namespace was opened, and what waits to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcCounters {
    /// Segments deleted, orphans among them.
    pub segments: u64,
    /// Their extents' bytes; of orphans the whole object's.
    pub bytes: u64,
    /// Bytes that were copied so that the rest of their segments could go.
    pub copied: u64,
    /// Segments that wait for the grace period to end.
    pub waiting_segments: u64,
    /// Their extents' bytes.
    pub waiting_bytes: u64,
    /// Segments of ended writers that nothing cites, and that wait for their time.
    pub uncited_segments: u64,
    /// The objects' bytes.
    pub uncited_bytes: u64,
}

/// A segment that is marked dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadSegment {
    pub(crate) since: Timestamp,
    pub(crate) bytes: u64,
}

/// What the task knows.
#[derive(Debug, Default)]
pub(crate) struct GcCycle {
    lineages_from: Option<Bytes>,
    segments_from: Option<Bytes>,
    pub(crate) dead: BTreeMap<SegmentId, DeadSegment>,
    /// Less than half of each is cited: bytes that are.
    pub(crate) half: BTreeMap<SegmentId, u64>,
    /// Could not be copied; they are left alone until the next mount.
    pub(crate) spoiled: BTreeSet<SegmentId>,
    pub(crate) search: crate::store::gc::uncited::SearchProgress,
    closed: bool,
}

/// Upkeep of one namespace.
#[derive(Debug, Default)]
pub(crate) struct GcState {
    turn: tokio::sync::Mutex<GcCycle>,
    uploads: Arc<Mutex<UploadsInFlight>>,
    pub(crate) segments: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) copied: AtomicU64,
    waiting: Mutex<(u64, u64)>,
    pub(super) uncited: Mutex<crate::store::gc::uncited::WaitingSegments>,
    resolved: Mutex<ResolvedSegments>,
}

/// Segments of this epoch that are cited durably, or never will be.
#[derive(Debug, Default)]
struct ResolvedSegments {
    /// All below this one.
    known: u64,
    /// What becomes known once everything up to a place in the queue is durable.
    next: Option<ResolvedWatermark>,
}

#[derive(Debug)]
struct ResolvedWatermark {
    queued: u64,
    segment: u64,
}

/// Uploads whose extents are not all cited yet.
#[derive(Debug, Default)]
struct UploadsInFlight {
    number: u64,
    /// The first segment each may have made.
    first: BTreeMap<u64, u64>,
    /// The first segment that may have been left uncited.
    left: Option<u64>,
}

/// An upload under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UploadInFlight {
    uploads: Arc<Mutex<UploadsInFlight>>,
    number: u64,
}

impl UploadInFlight {
    /// What it has uploaded so far may stay uncited.
    pub(crate) fn failed(&mut self) {
        let mut uploads = lock(&self.uploads);
        let first = uploads.first.get(&self.number).copied();
        uploads.left = match (uploads.left, first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

impl Drop for UploadInFlight {
    fn drop(&mut self) {
        lock(&self.uploads).first.remove(&self.number);
    }
}

impl GcState {
    /// An upload begins; its segments have this sequence or a later one.
    pub(crate) fn in_flight(&self, first: u64) -> UploadInFlight {
        let mut uploads = lock(&self.uploads);
        uploads.number += 1;
        let number = uploads.number;
        uploads.first.insert(number, first);
        UploadInFlight {
            uploads: Arc::clone(&self.uploads),
            number,
        }
    }

    /// The first segment of this epoch that an upload under way may have made.
    pub(crate) fn first_in_flight(&self) -> Option<u64> {
        lock(&self.uploads).first.values().min().copied()
    }

    /// The first segment of this epoch that is or may stay uncited.
    pub(crate) fn first_uncited(&self) -> Option<u64> {
        let left = lock(&self.uploads).left;
        self.first_in_flight().into_iter().chain(left).min()
    }

    /// Ends for good; waits for the turn under way.
    pub(crate) async fn end(&self) {
        self.turn.lock().await.closed = true;
    }
}

impl Namespace {
    /// Removes what can be removed now: contents that nothing shows, segments whose grace period is over, orphans. Returns when
    /// nothing more can be done before time passes.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`; what is left is taken up again.
    pub async fn reclaim(&self) -> Result<GcCounters, StoreError> {
        loop {
            let done = self.0.turn().await?;
            self.0.bring(&self.0.queue.all()).await?;
            if done == 0 {
                return Ok(self.reclaimed());
            }
        }
    }

    /// What upkeep has done since the namespace was opened.
    pub fn reclaimed(&self) -> GcCounters {
        let gc = &self.0.gc;
        let (waiting_segments, waiting_bytes) = *lock(&gc.waiting);
        let uncited = *lock(&gc.uncited);
        GcCounters {
            segments: gc.segments.load(Ordering::Relaxed),
            bytes: gc.bytes.load(Ordering::Relaxed),
            copied: gc.copied.load(Ordering::Relaxed),
            waiting_segments,
            waiting_bytes,
            uncited_segments: uncited.segments,
            uncited_bytes: uncited.bytes,
        }
    }
}

impl Shared {
    /// The first segment of this epoch that no queued operation cites, and that an upload may still bring.
    pub(super) fn first_unresolved(&self) -> u64 {
        // In this order: an upload that begins in between has a segment at or above the first number.
        let next = self.next_segment();
        self.gc
            .first_uncited()
            .map_or(next, |first| first.min(next))
    }

    /// Every segment of this epoch below it is cited by a durable batch, or never will be.
    pub(crate) fn resolved_segments(&self) -> u64 {
        let mut resolved = lock(&self.gc.resolved);
        let next = resolved.next.get_or_insert_with(|| {
            let segment = self.first_unresolved();
            let queued = self.queue.newest();
            ResolvedWatermark { queued, segment }
        });
        if self.queue.is_durable(next.queued) {
            resolved.known = next.segment;
            resolved.next = None;
        }
        resolved.known
    }

    pub(crate) fn start_gc(self: &Arc<Self>) {
        if self.config.reclaim == GcMode::Always {
            drop(self.tasks.spawn("upkeep", Arc::clone(self).gc_loop()));
        }
    }

    async fn gc_loop(self: Arc<Self>) {
        let pause = (self.config.grace / 4).clamp(PAUSE_MIN, PAUSE_MAX);
        while !self.tasks.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.tasks.stopped() => return,
            }
            if self.health.check().is_err() {
                return;
            }
            if let Err(error) = self.turn().await {
                tracing::warn!(%error, "upkeep failed; trying again");
            }
        }
    }

    /// One turn; how much it has done.
    pub(crate) async fn turn(&self) -> Result<usize, StoreError> {
        let mut turn = self.gc.turn.lock().await;
        if turn.closed {
            return Ok(0);
        }
        let mut done = self.look_at_lineages(&mut turn).await?;
        done += self.look_at_segments(&mut turn).await?;
        done += self.rewrite_half(&mut turn).await?;
        done += self.look_for_uncited(&mut turn.search).await?;
        done += self.look_at_uncited(&mut turn.search).await?;
        let bytes = turn.dead.values().map(|dead| dead.bytes).sum();
        *lock(&self.gc.waiting) = (turn.dead.len() as u64, bytes);
        Ok(done)
    }

    async fn look_at_lineages(&self, turn: &mut GcCycle) -> Result<usize, StoreError> {
        let list = self.listed(&keys::DROPPED, &mut turn.lineages_from).await?;
        let of = |key: &Bytes| keys::counted(key).map(|content| content.cid);
        let mut done = 0;
        for asked in list.chunk_by(|a, b| of(a) == of(b)) {
            if let Some(cid) = of(&asked[0]) {
                let outcome = self.reclaim_lineage(cid, asked).await?;
                done += usize::from(outcome == ReviewOutcome::Done);
            }
        }
        Ok(done)
    }

    async fn look_at_segments(&self, turn: &mut GcCycle) -> Result<usize, StoreError> {
        let list = self.listed(&keys::EMPTIED, &mut turn.segments_from).await?;
        let mut done = 0;
        for asked in list.chunk_by(|a, b| keys::segment_of(a) == keys::segment_of(b)) {
            if let Some((epoch, sequence)) = keys::segment_of(&asked[0]) {
                let id = SegmentId { epoch, sequence };
                let outcome = self.look_at_segment(turn, id, asked).await?;
                done += usize::from(outcome == ReviewOutcome::Done);
            }
        }
        Ok(done)
    }

    /// Some keys of a list, as the index has them; the next call goes on behind them, in the end from the beginning.
    async fn listed(
        &self,
        prefix: &[u8],
        from: &mut Option<Bytes>,
    ) -> Result<Vec<Bytes>, StoreError> {
        let start = from
            .take()
            .unwrap_or_else(|| Bytes::copy_from_slice(prefix));
        let mut scan = self.index.rows().scan(start..keys::after(prefix)).await?;
        let mut list: Vec<Bytes> = Vec::new();
        while let Some((key, _)) = scan.next().await? {
            let key = Bytes::copy_from_slice(&key);
            // All that was asked of one lineage or segment is looked at together.
            if list.len() >= TURN_MAX && list.last().is_some_and(|last| last[..18] != key[..18]) {
                *from = Some(key);
                break;
            }
            list.push(key);
        }
        Ok(list)
    }
}
