//! The garbage collection task: removes from the bucket, in small cycles, what no row shows or references.
//!
//! A cycle reads the lists that other operations left (`G D` for contents, `G E` for segments) and never scans the
//! namespace.
//! Invariants: one cycle runs at a time. A row is removed only after it is durably unneeded; an object is deleted only
//! after it has been unneeded for the grace period.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::store::gc::Gc;
use crate::store::gc::lineage::ReviewOutcome;
use crate::store::gc::state::{GcCycle, ListPass};
use crate::store::model::config::GcMode;
use crate::store::model::error::StoreError;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::tables::{DroppedTable, EmptiedTable, RowKey, RowTable};
use crate::sync::{Arc, lock};

/// Default grace period. It must exceed the longest request and the delay of a follower, which may still read the
/// object.
pub const GRACE: Duration = Duration::from_secs(3600);
/// Maximum number of list rows that one cycle reviews.
const TURN_MAX: usize = 512;
/// Longest pause between two cycles; a quarter of the grace period if that is shorter.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// What garbage collection removed since the namespace was opened, and what waits for deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcCounters {
    /// Segments deleted, uncited segments included.
    pub segments: u64,
    /// Bytes of the extents of deleted segments; of uncited segments, bytes of the whole object.
    pub bytes: u64,
    /// Bytes that compaction copied into new segments.
    pub copied: u64,
    /// Dead segments that wait for the end of the grace period.
    pub waiting_segments: u64,
    /// Bytes of the extents of the waiting dead segments.
    pub waiting_bytes: u64,
    /// Segments of ended writers that no row references and that wait for their deletion.
    pub uncited_segments: u64,
    /// Bytes of the objects of the waiting uncited segments.
    pub uncited_bytes: u64,
}

impl Gc {
    /// Stops garbage collection for good, after the running cycle. A checkpoint that is being made is left as it is.
    pub(crate) async fn end(&self) {
        self.ending.send_replace(true);
        self.checkpoint.lock().await.closed = true;
        self.turn.lock().await.closed = true;
        // What an outage keeps from being deleted now, the next mount finds without a reference.
        let unused = tokio::time::timeout(PAUSE_MIN * 10, self.data.pause_early_moves());
        drop(unused.await);
    }
}

impl Gc {
    /// Runs cycles until no more can be removed before time passes, and waits until their operations are durable.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`; a later cycle continues with the rest.
    pub async fn reclaim(&self) -> Result<GcCounters, StoreError> {
        loop {
            let done = self.turn().await?;
            self.commit
                .wait_all_durable(&self.commit.queue.all())
                .await?;
            let cycle = self.turn.lock().await;
            if cycle.closed || done == 0 && cycle.is_idle() {
                return Ok(self.reclaimed());
            }
        }
    }

    /// Returns what garbage collection did since the namespace was opened.
    pub fn reclaimed(&self) -> GcCounters {
        let gc = &self;
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

impl Gc {
    pub(crate) fn start_gc(self: &Arc<Self>) {
        if self.core.config.reclaim == GcMode::Always {
            drop(self.core.tasks.spawn("gc", Arc::clone(self).gc_loop()));
            let checkpoints = Arc::clone(self).checkpoint_loop();
            drop(self.core.tasks.spawn("checkpoint", checkpoints));
        }
    }

    async fn gc_loop(self: Arc<Self>) {
        let pause = (self.core.config.grace / 4).clamp(PAUSE_MIN, PAUSE_MAX);
        while !self.core.tasks.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.core.tasks.stopped() => return,
            }
            if self.core.health.check().is_err() {
                return;
            }
            if let Err(error) = self.turn().await {
                tracing::warn!(%error, "garbage collection failed; the next cycle tries again");
            }
        }
    }

    /// Runs one cycle. Returns the number of items completed; 0 means that nothing can be removed now.
    pub(crate) async fn turn(&self) -> Result<usize, StoreError> {
        let mut turn = self.turn.lock().await;
        if turn.closed {
            return Ok(0);
        }
        turn.number += 1;
        self.data.discard_old_early_moves().await;
        let mut done = self.look_at_lineages(&mut turn).await?;
        done += self.look_at_segments(&mut turn).await?;
        done += self.rewrite_wasteful(&mut turn).await?;
        done += self.look_for_uncited(&mut turn.search).await?;
        done += self.look_at_uncited(&mut turn.search).await?;
        if done > 0 {
            turn.productive = turn.number;
        }
        let bytes = turn.dead.values().map(|dead| dead.bytes).sum();
        *lock(&self.waiting) = (turn.dead.len() as u64, bytes);
        drop(turn);
        if self.data.inline_backlog.is_due() {
            done += self.move_inline().await?;
        }
        Ok(done)
    }

    async fn look_at_lineages(&self, turn: &mut GcCycle) -> Result<usize, StoreError> {
        let number = turn.number;
        let list = self.listed::<DroppedTable>(number, &mut turn.lineages);
        let list = list.await?;
        let of = |key: &RowKey<DroppedTable>| keys::counted(key).map(|content| content.cid);
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
        let number = turn.number;
        let list = self.listed::<EmptiedTable>(number, &mut turn.segments);
        let list = list.await?;
        turn.due.clear();
        let mut done = 0;
        for asked in list.chunk_by(|a, b| keys::segment_of(a) == keys::segment_of(b)) {
            if let Some((epoch, sequence)) = keys::segment_of(&asked[0]) {
                let id = SegmentId { epoch, sequence };
                let outcome = self.look_at_segment(turn, id, asked).await?;
                done += usize::from(outcome == ReviewOutcome::Done);
            }
        }
        done += self.delete_due(turn).await?;
        Ok(done)
    }

    /// Returns about `TURN_MAX` committed keys of a list. The next call continues after them and starts over at the
    /// end of the list.
    async fn listed<T: RowTable>(
        &self,
        cycle: u64,
        pass: &mut ListPass,
    ) -> Result<Vec<RowKey<T>>, StoreError> {
        let lists = &self.commit.review_lists;
        let whole = pass.next.is_none().then(|| lists.start::<T>());
        let from = whole.as_ref().map(|whole| whole.from.clone());
        let from = pass.next.clone().or(from).unwrap_or_else(T::all);
        let rows = self.core.index.rows();
        let mut scan = rows.scan(from..keys::after(&T::PREFIX)).await?;
        let (mut list, mut next) = (Vec::<RowKey<T>>::new(), None);
        while let Some((key, _)) = scan.next().await? {
            let key = Bytes::copy_from_slice(&key);
            // All rows of one lineage or segment belong to the same review.
            if list.len() >= TURN_MAX
                && list
                    .last()
                    .is_some_and(|last| last.get(..18) != key.get(..18))
            {
                next = Some(key);
                break;
            }
            list.push(RowKey::scanned(key)?);
        }
        pass.read_on(cycle, whole.is_some(), next);
        if let Some(whole) = whole {
            let first = list.first().map(|first| first.clone().bytes());
            lists.found::<T>(&whole, first.as_ref());
        }
        Ok(list)
    }
}
