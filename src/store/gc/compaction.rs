//! Segments of which less than half is cited: what is goes into a new one, and `G M` says where. Citing rows never change.
//!
//! The old segment is marked dead in the batch that lays `G M` and goes the way of all dead ones; its counts stay, and with the last
//! of them the copy loses its own. A crash before that batch leaves an orphan.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::backend::Lane;
use crate::store::data::segment::{SEGMENT_MAX, SegmentBuilder, footer, hash};
use crate::store::gc::Gc;
use crate::store::gc::state::GcCycle;
use crate::store::model::error::StoreError;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{MovedRow, SegmentRow};

/// Old segments copied together, at most.
const TOGETHER: usize = 16;

/// A segment to be rewritten.
struct CompactionSource {
    id: SegmentId,
    row: SegmentRow,
    moved: MovedRow,
}

impl Gc {
    /// Copies what is cited of half-dead segments into a new one; how many of them.
    pub(crate) async fn rewrite_half(&self, turn: &mut GcCycle) -> Result<usize, StoreError> {
        let (mut chosen, mut bytes) = (Vec::new(), 0);
        for (id, cited) in &turn.half {
            if bytes + cited > SEGMENT_MAX || chosen.len() == TOGETHER {
                break;
            }
            bytes += cited;
            chosen.push(*id);
        }
        let mut old = Vec::new();
        for id in chosen {
            turn.half.remove(&id);
            let key = keys::segment(id.epoch, id.sequence);
            let row: Option<SegmentRow> = self.core.index.row(&key).await?;
            if let Some(row) = row.filter(|row| row.dead_since.is_none()) {
                let moved = MovedRow::default();
                old.push(CompactionSource { id, row, moved });
            }
        }
        if old.is_empty() {
            return Ok(0);
        }
        let mut in_flight = self.data.in_flight(self.data.next_segment());
        let (new, copied) = match self.copy_cited(&mut old).await {
            Ok(copy) => copy,
            Err(error) => {
                tracing::warn!(%error, "half-dead segments stay as they are");
                in_flight.failed();
                turn.spoiled.extend(old.iter().map(|old| old.id));
                return Ok(0);
            }
        };
        let count = old.len();
        if self.record_relocations(old)? {
            self.copied.fetch_add(copied, Ordering::Relaxed);
        } else if let Err(error) = self.core.backend.delete(&new.key()).await {
            // Nothing cites it; the next writer sweeps it.
            in_flight.failed();
            return Err(error.into());
        }
        Ok(count)
    }

    /// Uploads a segment with the cited extents of old ones, and notes in them where each went; with it the bytes of extents.
    async fn copy_cited(
        &self,
        old: &mut [CompactionSource],
    ) -> Result<(SegmentId, u64), StoreError> {
        let id = self.data.new_segment();
        let mut builder = SegmentBuilder::new(id);
        let mut copied = 0;
        for segment in old {
            let object = self.core.backend.get(&segment.id.key()).await?;
            let listed = footer(&object)?;
            let cited: BTreeMap<u32, u32> = segment
                .row
                .extents
                .iter()
                .filter(|(_, (_, citing))| *citing != 0)
                .map(|(offset, (len, _))| (*offset, *len))
                .collect();
            for extent in &listed.extents {
                if !cited.contains_key(&extent.offset) {
                    continue;
                }
                let from = extent.offset as usize;
                let bytes = object.slice(from..from + extent.len as usize);
                if hash(&bytes) != extent.hash {
                    return Err(StoreError::Corrupt(format!(
                        "extent at {from} of segment {} does not match its hash",
                        segment.id.key()
                    )));
                }
                copied += bytes.len() as u64;
                let place = (extent.ino, extent.content, extent.file_offset);
                let to = builder.copy(place, &bytes, extent.hash);
                let to = (id.epoch, id.sequence, to);
                segment.moved.extents.insert(extent.offset, to);
            }
            if segment.moved.extents.len() != cited.len() {
                return Err(StoreError::Corrupt(format!(
                    "segment {} does not list all of its extents",
                    segment.id.key()
                )));
            }
            let inos: Vec<_> = cited.keys().collect();
            let wanted = listed.extents.iter().filter(|e| inos.contains(&&e.offset));
            let inos: std::collections::BTreeSet<_> = wanted.map(|e| e.ino).collect();
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

    /// Lays the rows of a copy, unless what is cited of the old ones is changing.
    fn record_relocations(&self, old: Vec<CompactionSource>) -> Result<bool, StoreError> {
        let of = |id: SegmentId| keys::segment(id.epoch, id.sequence);
        let mut touches: Vec<_> = old.iter().map(|old| of(old.id).bytes()).collect();
        let watched = touches.clone();
        let targets = old.iter().flat_map(|old| old.moved.extents.values());
        let new = targets.map(|(epoch, sequence, _)| keys::segment(*epoch, *sequence).bytes());
        touches.extend(new.collect::<std::collections::BTreeSet<_>>());
        let mut txn = self.gc_txn(touches);
        let at = txn.timestamp;
        for CompactionSource { id, row, moved } in old {
            for (offset, (epoch, sequence, to)) in &moved.extents {
                let len = row.extents.get(offset).map_or(0, |(len, _)| *len);
                let mut cites = SegmentRow::default();
                cites.extents.insert(*to, (len, 1));
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
            // Whatever stopped citing it meanwhile, it is looked at again.
            let asked = keys::emptied(id.epoch, id.sequence, at);
            txn.put(asked, &());
        }
        let queued = self.commit.enqueue_if(txn, || {
            watched.iter().all(|key| !self.core.index.is_queued(key))
        })?;
        Ok(queued.is_some())
    }
}
