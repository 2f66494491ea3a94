//! Compaction of half-dead segments: segments of which a sixth of the bytes or more is not referenced any more. It waits until they have 64 KiB of such bytes
//! together, because fewer are not worth the requests.
//!
//! The referenced extents are copied into a new segment, and a relocation row (`G M`) of the old segment maps each old
//! offset to the new segment and offset. Rows that reference the old segment are not rewritten.
//! The batch that adds the relocation row also marks the old segment dead, so the old object is deleted after the grace
//! period. The reference counts of the old segment stay; when a count reaches zero, the relocated copy loses its
//! reference as well.
//! Crash safety: a crash before that batch leaves a new segment without references, which the sweep for uncited
//! segments deletes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use crate::backend::Lane;
use crate::store::data::segment::{SEGMENT_MAX, SegmentBuilder, footer, hash};
use crate::store::gc::Gc;
use crate::store::gc::segments::uncount;
use crate::store::gc::state::GcCycle;
use crate::store::model::error::StoreError;
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{MovedRow, SegmentRow};

/// Minimum number of unreferenced bytes in all half-dead segments together; below this number a copy does not pay.
const REWRITE_MIN: u64 = 64 << 10;

/// Maximum number of old segments that are copied into one new segment.
const TOGETHER: usize = 16;

/// A half-dead segment to be copied, and the new places of its extents.
struct CompactionSource {
    id: SegmentId,
    row: SegmentRow,
    moved: MovedRow,
    /// Bytes of its extents that are not counted as stored any more.
    uncounted: i64,
}

impl Gc {
    /// As [`Self::rewrite_half`], if the half-dead segments have enough unreferenced bytes.
    pub(crate) async fn rewrite_wasteful(&self, turn: &mut GcCycle) -> Result<usize, StoreError> {
        match turn.wasted() >= REWRITE_MIN {
            true => self.rewrite_half(turn).await,
            false => Ok(0),
        }
    }

    /// Copies the referenced extents of half-dead segments into one new segment. Returns the number of segments copied;
    /// 0 if a copy failed.
    pub(crate) async fn rewrite_half(&self, turn: &mut GcCycle) -> Result<usize, StoreError> {
        let (mut chosen, mut bytes) = (Vec::new(), 0);
        for (id, half) in &turn.half {
            if bytes + half.cited > SEGMENT_MAX || chosen.len() == TOGETHER {
                break;
            }
            bytes += half.cited;
            chosen.push(*id);
        }
        let mut old = Vec::new();
        for id in chosen {
            turn.half.remove(&id);
            let key = keys::segment(id.epoch, id.sequence);
            let row: Option<SegmentRow> = self.core.index.row(&key).await?;
            if let Some(row) = row.filter(|row| row.dead_since.is_none()) {
                let moved = MovedRow::default();
                let uncounted = self.uncounted(id).await?;
                old.push(CompactionSource {
                    id,
                    row,
                    moved,
                    uncounted,
                });
            }
        }
        if old.is_empty() {
            return Ok(0);
        }
        let mut in_flight = self.data.in_flight(self.data.next_segment());
        let (new, copied) = match self.copy_cited(&mut old).await {
            Ok(copy) => copy,
            Err(error) => {
                tracing::warn!(%error, "cannot compact half-dead segments; they are skipped until the next mount");
                in_flight.failed();
                turn.spoiled.extend(old.iter().map(|old| old.id));
                return Ok(0);
            }
        };
        let count = old.len();
        let recorded = self.record_relocations(old);
        if recorded.inspect_err(|_| in_flight.failed())? {
            self.copied.fetch_add(copied, Ordering::Relaxed);
        } else if let Err(error) = self.core.backend.delete(&new.key()).await {
            // No row references the new segment. If this delete fails, the next writer's sweep for uncited segments
            // deletes it.
            in_flight.failed();
            return Err(error.into());
        }
        Ok(count)
    }

    /// Uploads a new segment with the referenced extents of `old` and records in each `moved` row where its extents
    /// went. Returns the new segment and the number of bytes copied. `Corrupt` if an extent does not match its hash or
    /// is missing from the footer of its segment.
    async fn copy_cited(
        &self,
        old: &mut [CompactionSource],
    ) -> Result<(SegmentId, u64), StoreError> {
        let id = self.data.new_segment();
        let extents = || old.iter().flat_map(|old| old.row.extents.values());
        let cited = || extents().filter(|(_, citing)| *citing != 0);
        let bytes = cited().map(|(len, _)| u64::from(*len)).sum();
        let mut builder = SegmentBuilder::sized(id, bytes, cited().count());
        let mut copied = 0;
        for segment in old {
            let object = self.core.backend.get(&segment.id.key()).await?;
            let listed = footer(&object)?;
            let rows = segment.row.extents.iter();
            let cited: BTreeSet<(u32, u32)> = rows
                .filter(|(_, (_, citing))| *citing != 0)
                .map(|(offset, (len, _))| (*offset, *len))
                .collect();
            let mut inos = BTreeSet::new();
            for extent in &listed.extents {
                // A footer may list an extent again.
                let moved = &segment.moved.extents;
                if !cited.contains(&(extent.offset, extent.len))
                    || moved.contains_key(&extent.offset)
                {
                    continue;
                }
                inos.insert(extent.ino);
                let from = extent.offset as usize;
                // A footer may name bytes that the object does not have.
                let bytes = object.get(from..from + extent.len as usize);
                let bytes = bytes.filter(|bytes| hash(bytes) == extent.hash);
                let bytes = bytes.ok_or_else(|| {
                    let key = segment.id.key();
                    StoreError::Corrupt(format!(
                        "extent at {from} of segment {key} does not match its hash"
                    ))
                })?;
                copied += bytes.len() as u64;
                let to = builder.copy(extent, bytes);
                let to = (id.epoch, id.sequence, to);
                segment.moved.extents.insert(extent.offset, to);
            }
            if segment.moved.extents.len() != cited.len() {
                return Err(StoreError::Corrupt(format!(
                    "segment {} does not list all of its extents",
                    segment.id.key()
                )));
            }
            for file in listed.files {
                if inos.contains(&file.ino) {
                    builder.file(file);
                }
            }
        }
        let segment = builder.finish();
        self.core
            .backend
            .upload(Lane::Segments, &id.key(), segment)
            .await?;
        Ok((id, copied))
    }

    /// Queues the operation that records the relocations. Returns false, and queues nothing, if a queued operation
    /// changes the row of an old segment: the reference counts read before would be out of date.
    fn record_relocations(&self, old: Vec<CompactionSource>) -> Result<bool, StoreError> {
        let of = |id: SegmentId| keys::segment(id.epoch, id.sequence);
        let mut touches: Vec<_> = old.iter().map(|old| of(old.id).bytes()).collect();
        let watched = touches.clone();
        let targets = old.iter().flat_map(|old| old.moved.extents.values());
        let new = targets.map(|(epoch, sequence, _)| keys::segment(*epoch, *sequence).bytes());
        touches.extend(new.collect::<BTreeSet<_>>());
        let mut txn = self.gc_txn(touches);
        let at = txn.timestamp;
        for source in old {
            let CompactionSource {
                id,
                row,
                moved,
                uncounted,
            } = source;
            // The copies are stored from now on, and the old object waits for its deletion.
            let all = row.extents.values().map(|(len, _)| u64::from(*len)).sum();
            uncount(&mut txn, id, all, uncounted);
            for (offset, (epoch, sequence, to)) in &moved.extents {
                let len = row.extents.get(offset).map_or(0, |(len, _)| *len);
                let mut cites = SegmentRow::default();
                cites.extents.insert(*to, (len, 1));
                amounts::store(&mut txn.rows, i64::from(len));
                let new = keys::segment(*epoch, *sequence);
                txn.merge(new, &cites);
            }
            let mark = SegmentRow {
                dead_since: Some((at, ())),
                ..SegmentRow::default()
            };
            txn.merge(of(id), &mark);
            let moved_key = keys::moved(id.epoch, id.sequence);
            txn.put(moved_key, &moved);
            // References may have been dropped during the copy; this row makes the next cycle review the segment.
            let asked = keys::emptied(id.epoch, id.sequence, at);
            txn.put(asked, &());
        }
        let queued = self.commit.enqueue_if(txn, || {
            watched.iter().all(|key| !self.core.index.is_queued(key))
        })?;
        Ok(queued.is_some())
    }
}
