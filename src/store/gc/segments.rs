//! Deletion of segments that no row references: they are marked dead, and deleted after the grace period.
//!
//! Order: the dead mark is durable -> the grace period passes -> the object is deleted -> its rows are deleted. After a
//! crash in between, the `G E` rows, which are deleted last, lead to the segment again.
//! Invariant: an extent of a dead segment is never referenced again. A new row takes its extents only from rows that
//! are shown or pinned, and those count as references.

use std::sync::atomic::Ordering;

use crate::store::commit::txn::Txn;
use crate::store::gc::Gc;
use crate::store::gc::lineage::ReviewOutcome;
use crate::store::gc::state::{DeadSegment, DueSegment, GcCycle, HalfDead};
use crate::store::model::error::StoreError;
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{MovedRow, SegmentRow};
use crate::store::schema::tables::{EmptiedTable, RowKey, SegmentTable};

/// A segment is half-dead when at least one of so many bytes of it is not referenced: all segments together then have at most 1.2 times the
/// referenced bytes.
const WASTE_PART: u64 = 6;

/// Returns the bytes of all extents of a segment that were ever referenced, and the bytes of those that still are.
pub(super) fn bytes(row: &SegmentRow) -> (u64, u64) {
    let all = row.extents.values().map(|(len, _)| u64::from(*len)).sum();
    let cited = row.extents.values().filter(|(_, citing)| *citing != 0);
    (all, cited.map(|(len, _)| u64::from(*len)).sum())
}

/// Subtracts from the stored bytes those of a segment's extents that no row cites any more; `before` of them are subtracted already.
pub(super) fn uncount(txn: &mut Txn, id: SegmentId, uncited: u64, before: i64) {
    let uncited = uncited.cast_signed();
    if uncited != before {
        amounts::store(&mut txn.rows, before - uncited);
        txn.put(amounts::uncited_bytes(id.epoch, id.sequence), &uncited);
    }
}

fn is_cited(row: &SegmentRow, offset: u32) -> bool {
    row.extents
        .get(&offset)
        .is_some_and(|(_, citing)| *citing != 0)
}

/// Tells whether a copy is still counted whose extent in the old segment no row cites any more.
fn has_uncited(row: &SegmentRow, moved: &MovedRow) -> bool {
    moved.extents.keys().any(|offset| !is_cited(row, *offset))
}

/// Takes their reference from the copies of extents that no row cites any more. Returns the relocations that are left.
fn release_copies(txn: &mut Txn, row: &SegmentRow, moved: MovedRow) -> MovedRow {
    let at = txn.timestamp;
    let mut left = MovedRow::default();
    for (offset, (epoch, sequence, to)) in moved.extents {
        if is_cited(row, offset) {
            left.extents.insert(offset, (epoch, sequence, to));
            continue;
        }
        let len = row.extents.get(&offset).map_or(0, |(len, _)| *len);
        let mut less = SegmentRow::default();
        less.extents.insert(to, (len, -1));
        txn.merge(keys::segment(epoch, sequence), &less);
        txn.put(keys::emptied(epoch, sequence, at), &());
    }
    left
}

impl Gc {
    pub(super) fn grace_ns(&self) -> u64 {
        u64::try_from(self.core.config.grace.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Tells whether an upload in flight may still cite a segment.
    fn may_be_cited(&self, id: SegmentId) -> bool {
        let first = self.data.first_in_flight();
        id.epoch == self.core.epoch && first.is_some_and(|first| first <= id.sequence)
    }

    /// Reviews a segment that lost a reference: marks it dead, selects it for deletion after the grace period, or for
    /// compaction. `asked` are the `G E` rows of the segment.
    pub(crate) async fn look_at_segment(
        &self,
        turn: &mut GcCycle,
        id: SegmentId,
        asked: &[RowKey<EmptiedTable>],
    ) -> Result<ReviewOutcome, StoreError> {
        let now = self.core.clock.now().0;
        let hastened = self.due_upto.load(Ordering::SeqCst);
        let is_due = |dead: &DeadSegment| {
            dead.since.0 <= hastened || now.saturating_sub(dead.since.0) >= self.grace_ns()
        };
        let half = turn.half.get(&id);
        if self.may_be_cited(id) || half.is_some_and(|half| half.listed == asked.len()) {
            return Ok(ReviewOutcome::Retry);
        }
        turn.half.remove(&id);
        if turn.dead.get(&id).is_some_and(|dead| !is_due(dead)) && asked.len() == 1 {
            return Ok(ReviewOutcome::Retry);
        }
        let key = keys::segment(id.epoch, id.sequence);
        if !self.commit.queue.last_on(&key, None).is_empty() {
            return Ok(ReviewOutcome::Retry);
        }
        let Some(row) = self.core.index.row(&key).await? else {
            return self.forget_asked(&key, asked, |_| {});
        };
        let moved_key = keys::moved(id.epoch, id.sequence);
        let moved: Option<MovedRow> = self.core.index.row(&moved_key).await?;
        let (all, cited) = bytes(&row);
        let before = self.uncounted(id).await?;
        let Some((since, ())) = row.dead_since else {
            return match cited {
                0 => self.mark_dead(turn, id, all, before, asked),
                _ if WASTE_PART * (all - cited) >= all && !turn.spoiled.contains(&id) => {
                    let half = HalfDead {
                        cited,
                        wasted: all - cited,
                        listed: asked.len(),
                    };
                    self.choose(turn, id, half, before, asked)
                }
                _ => self.forget_asked(&key, asked, |txn| {
                    uncount(txn, id, all - cited, before);
                }),
            };
        };
        let dead = DeadSegment { since, bytes: all };
        if !is_due(&dead) {
            turn.dead.insert(id, dead);
            // The first `G E` row stays, as in `mark_dead`.
            return match moved.filter(|moved| asked.len() > 1 && has_uncited(&row, moved)) {
                Some(moved) => self.forget_asked(&key, &asked[1..], |txn| {
                    let left = release_copies(txn, &row, moved);
                    txn.put(moved_key, &left);
                }),
                None => Ok(ReviewOutcome::Retry),
            };
        }
        turn.due.push(DueSegment {
            id,
            asked: asked.to_vec(),
            bytes: all,
            row,
            moved,
            uncounted: before,
        });
        Ok(ReviewOutcome::Retry)
    }

    /// Deletes the objects of the segments whose grace period is over, many by one request, and then their rows. Returns how many.
    pub(super) async fn delete_due(&self, turn: &mut GcCycle) -> Result<usize, StoreError> {
        let due = std::mem::take(&mut turn.due);
        let objects: Vec<String> = due.iter().map(|segment| segment.id.key()).collect();
        self.core.backend.delete_many(&objects).await?;
        let mut done = 0;
        for segment in due {
            if turn.dead.remove(&segment.id).is_some() || segment.moved.is_none() {
                self.segments.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(segment.bytes, Ordering::Relaxed);
            }
            done += usize::from(self.forget_deleted(segment)? == ReviewOutcome::Done);
        }
        Ok(done)
    }

    /// Selects a half-dead segment for compaction. It may have to wait for others, so its unreferenced bytes, of which `before` are subtracted from the stored
    /// ones, are subtracted first.
    fn choose(
        &self,
        turn: &mut GcCycle,
        id: SegmentId,
        half: HalfDead,
        before: i64,
        asked: &[RowKey<EmptiedTable>],
    ) -> Result<ReviewOutcome, StoreError> {
        if before != half.wasted.cast_signed() {
            // The first `G E` row stays, so that the next cycle finds the segment again.
            let key = keys::segment(id.epoch, id.sequence);
            return self.forget_asked(&key, &asked[1..], |txn| {
                uncount(txn, id, half.wasted, before);
            });
        }
        turn.half.insert(id, half);
        Ok(ReviewOutcome::Retry)
    }

    /// Returns how many bytes of a segment's extents are subtracted from the stored bytes.
    pub(super) async fn uncounted(&self, id: SegmentId) -> Result<i64, StoreError> {
        let key = amounts::uncited_bytes(id.epoch, id.sequence);
        Ok(self.core.index.row(&key).await?.unwrap_or(0))
    }

    /// Deletes the rows of a segment whose object is deleted. Relocations of extents that are still referenced stay;
    /// the other copies lose their reference.
    fn forget_deleted(&self, segment: DueSegment) -> Result<ReviewOutcome, StoreError> {
        let DueSegment { id, row, moved, .. } = segment;
        let key = keys::segment(id.epoch, id.sequence);
        let moved_key = keys::moved(id.epoch, id.sequence);
        self.forget_asked(&key, &segment.asked, |txn| {
            uncount(txn, id, segment.bytes, segment.uncounted);
            let left = release_copies(txn, &row, moved.unwrap_or_default());
            if left.extents.is_empty() {
                txn.delete(key.clone());
                txn.delete(moved_key);
                txn.delete(amounts::uncited_bytes(id.epoch, id.sequence));
            } else {
                txn.put(moved_key, &left);
            }
        })
    }

    /// Queues an operation that deletes the `G E` rows `asked` and makes the changes of `then`. Returns `Retry` if the
    /// segment row has a queued change.
    fn forget_asked(
        &self,
        key: &RowKey<SegmentTable>,
        asked: &[RowKey<EmptiedTable>],
        then: impl FnOnce(&mut Txn),
    ) -> Result<ReviewOutcome, StoreError> {
        let mut txn = self.gc_txn(vec![key.clone().bytes()]);
        for key in asked {
            txn.delete(key.clone());
        }
        then(&mut txn);
        let queued = self
            .commit
            .enqueue_if(txn, || !self.core.index.is_queued(key))?;
        Ok(queued.map_or(ReviewOutcome::Retry, |_| ReviewOutcome::Done))
    }

    fn mark_dead(
        &self,
        turn: &mut GcCycle,
        id: SegmentId,
        all: u64,
        before: i64,
        asked: &[RowKey<EmptiedTable>],
    ) -> Result<ReviewOutcome, StoreError> {
        let key = keys::segment(id.epoch, id.sequence);
        // The first `G E` row stays, so that a cycle after the grace period finds the segment again.
        let mut since = self.core.clock.now();
        let outcome = self.forget_asked(&key, &asked[1..], |txn| {
            since = txn.timestamp;
            let mark = SegmentRow {
                dead_since: Some((since, ())),
                ..SegmentRow::default()
            };
            txn.merge(key.clone(), &mark);
            uncount(txn, id, all, before);
        })?;
        if outcome == ReviewOutcome::Done {
            turn.dead.insert(id, DeadSegment { since, bytes: all });
        }
        Ok(outcome)
    }
}
