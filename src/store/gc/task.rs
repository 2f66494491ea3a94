//! Upkeep: the task that removes from the bucket what nothing shows any more, a little at a time.
//!
//! Each turn goes through the lists that other operations left (`G D`: contents, `G E`: segments), never through the namespace.
//! Invariant: one turn at a time; whatever is removed was first unneeded, durably, and an object for as long as the grace
//! period lasts.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::store::gc::Gc;
use crate::store::gc::lineage::ReviewOutcome;
use crate::store::gc::state::GcCycle;
use crate::store::model::config::GcMode;
use crate::store::model::error::StoreError;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::tables::{DroppedTable, EmptiedTable, RowTable};
use crate::sync::{Arc, lock};

/// The grace period unless another is asked for: far above the longest call, and above what a follower lags behind.
pub const GRACE: Duration = Duration::from_secs(3600);
/// Rows of a list that one turn takes up.
const TURN_MAX: usize = 512;
/// Between two turns, unless the grace period is shorter.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(100);

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

impl Gc {
    /// Ends for good; waits for the turn under way.
    pub(crate) async fn end(&self) {
        self.turn.lock().await.closed = true;
    }
}

impl Gc {
    /// Removes what can be removed now: contents that nothing shows, segments whose grace period is over, orphans. Returns when
    /// nothing more can be done before time passes.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`; what is left is taken up again.
    pub async fn reclaim(&self) -> Result<GcCounters, StoreError> {
        loop {
            let done = self.turn().await?;
            self.commit.bring(&self.commit.queue.all()).await?;
            if done == 0 {
                return Ok(self.reclaimed());
            }
        }
    }

    /// What upkeep has done since the namespace was opened.
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
            drop(self.core.tasks.spawn("upkeep", Arc::clone(self).gc_loop()));
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
                tracing::warn!(%error, "upkeep failed; trying again");
            }
        }
    }

    /// One turn; how much it has done.
    pub(crate) async fn turn(&self) -> Result<usize, StoreError> {
        let mut turn = self.turn.lock().await;
        if turn.closed {
            return Ok(0);
        }
        let mut done = self.look_at_lineages(&mut turn).await?;
        done += self.look_at_segments(&mut turn).await?;
        done += self.rewrite_half(&mut turn).await?;
        done += self.look_for_uncited(&mut turn.search).await?;
        done += self.look_at_uncited(&mut turn.search).await?;
        let bytes = turn.dead.values().map(|dead| dead.bytes).sum();
        *lock(&self.waiting) = (turn.dead.len() as u64, bytes);
        Ok(done)
    }

    async fn look_at_lineages(&self, turn: &mut GcCycle) -> Result<usize, StoreError> {
        let list = self
            .listed(&DroppedTable::PREFIX, &mut turn.lineages_from)
            .await?;
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
        let list = self
            .listed(&EmptiedTable::PREFIX, &mut turn.segments_from)
            .await?;
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
        let mut scan = self
            .core
            .index
            .rows()
            .scan(start..keys::after(prefix))
            .await?;
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
