//! Garbage collection on behalf of a caller that wants certain bytes gone: it waits for no share of waste and, in the end, for no
//! grace period.
//!
//! The steps are those of every cycle (`task.rs`); here they are asked for, and what they leave is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::store::data::segment::{Footer, footer};
use crate::store::gc::Gc;
use crate::store::gc::segments::bytes;
use crate::store::gc::state::{CheckpointStage, HalfDead};
use crate::store::model::error::StoreError;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{LogPlace, OlderLog, SegmentRow};
use crate::store::schema::tables::{DroppedTable, RowTable, SegmentTable};

/// How many bytes at the end of a segment are read for its footer; a longer one is read with the whole segment.
const FOOTER_READ: u64 = 256 << 10;

/// Pause before another look at a checkpoint that could not be made.
const PAUSE: Duration = Duration::from_millis(20);

/// Segments whose objects have bytes that no row shows.
#[derive(Debug, Default)]
pub(crate) struct UnshownSegments {
    /// All that wait for their deletion.
    pub(crate) dead: BTreeSet<SegmentId>,
    /// Those that have other bytes too, which rows cite.
    pub(crate) partial: BTreeMap<SegmentId, HalfDead>,
}

/// Whether the log has nothing from before a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OldLog {
    Deleted,
    /// It is kept until the segments of ended writers are judged.
    Kept,
}

impl Gc {
    /// Tells whether a content of one of the lineages waits for its review: a reader has pinned it.
    pub(crate) async fn has_unreviewed(
        &self,
        lineages: &BTreeSet<u64>,
    ) -> Result<bool, StoreError> {
        let range = DroppedTable::all()..keys::after(&DroppedTable::PREFIX);
        let mut rows = self.core.index.rows().scan(range).await?;
        while let Some((key, _)) = rows.next().await? {
            if keys::lineage_of(&key).is_some_and(|cid| lineages.contains(&cid)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the segments that are dead, and those that have bytes of the lineages which no row cites. Every segment row is read, and
    /// the footer of each segment with an uncited extent.
    pub(crate) async fn unshown_segments(
        &self,
        lineages: &BTreeSet<u64>,
    ) -> Result<UnshownSegments, StoreError> {
        let range = SegmentTable::all()..keys::after(&SegmentTable::PREFIX);
        let mut rows = self.core.index.rows().scan(range).await?;
        let mut unshown = UnshownSegments::default();
        while let Some((key, value)) = rows.next().await? {
            let row = SegmentTable::decode(&value)?;
            let Some((epoch, sequence)) = keys::segment_of(&key) else {
                return Err(StoreError::Corrupt("G B key".to_owned()));
            };
            let id = SegmentId { epoch, sequence };
            if row.dead_since.is_some() {
                unshown.dead.insert(id);
                continue;
            }
            let is_whole = row.extents.values().all(|(_, citing)| *citing != 0);
            if is_whole || !self.has_uncited_of(id, &row, lineages).await? {
                continue;
            }
            let (all, cited) = bytes(&row);
            let half = HalfDead {
                cited,
                wasted: all - cited,
                listed: 0,
            };
            unshown.partial.insert(id, half);
        }
        Ok(unshown)
    }

    /// Tells whether a segment has an extent of one of the lineages that no row cites.
    async fn has_uncited_of(
        &self,
        id: SegmentId,
        row: &SegmentRow,
        lineages: &BTreeSet<u64>,
    ) -> Result<bool, StoreError> {
        let footer = self.read_footer(id, row).await?;
        let is_cited = |offset| row.extents.get(&offset).is_some_and(|(_, n)| *n != 0);
        let mut extents = footer.extents.iter();
        Ok(
            extents
                .any(|extent| lineages.contains(&extent.content.cid) && !is_cited(extent.offset)),
        )
    }

    async fn read_footer(&self, id: SegmentId, row: &SegmentRow) -> Result<Footer, StoreError> {
        let key = id.key();
        let last = row.extents.iter().next_back();
        let end = last.map_or(0, |(offset, (len, _))| u64::from(*offset) + u64::from(*len));
        // Extents behind the last cited one are before the footer too.
        let tail = self.core.backend.get_range(&key, end..end + FOOTER_READ);
        if let Ok(footer) = footer(&tail.await?) {
            return Ok(footer);
        }
        footer(&self.core.backend.get(&key).await?)
    }

    /// Copies the cited extents of segments into new ones, and marks the segments dead.
    ///
    /// # Errors
    /// `Unavailable` if one cannot be copied; errors of the index.
    pub(crate) async fn rewrite_segments(
        &self,
        segments: BTreeMap<SegmentId, HalfDead>,
    ) -> Result<(), StoreError> {
        let ids: Vec<SegmentId> = segments.keys().copied().collect();
        let mut turn = self.turn.lock().await;
        if turn.closed {
            return Err(StoreError::Closed);
        }
        turn.half.extend(segments);
        while !turn.half.is_empty() {
            self.rewrite_half(&mut turn).await?;
        }
        match ids.iter().find(|id| turn.spoiled.contains(id)) {
            None => Ok(()),
            Some(id) => Err(StoreError::Corrupt(format!(
                "segment {} cannot be copied, see the log of the mount; `rewindfs check` tells what is damaged",
                id.key()
            ))),
        }
    }

    /// Deletes all segments that are dead now, without a grace period.
    ///
    /// # Errors
    /// As those of [`Self::reclaim`].
    pub(crate) async fn delete_dead_now(&self) -> Result<(), StoreError> {
        self.due_upto
            .fetch_max(self.core.clock.now().0, Ordering::SeqCst);
        self.reclaim().await.map(drop)
    }

    /// Makes a checkpoint of the log that begins now, and deletes what is before it.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`; a later call makes another one.
    pub(crate) async fn checkpoint_anew(&self) -> Result<OldLog, StoreError> {
        let newest: LogPlace = {
            let mut progress = self.checkpoint.lock().await;
            // The first parts of a list that is being made may have rows that are deleted now.
            if matches!(progress.stage, CheckpointStage::Listing(_)) {
                progress.stage = CheckpointStage::Idle;
            }
            let logged = self.core.index.row(&keys::logged()).await?;
            logged.unwrap_or_default()
        };
        loop {
            self.checkpoint().await?;
            let progress = self.checkpoint.lock().await;
            if progress.closed {
                return Err(StoreError::Closed);
            }
            if progress.wanted || progress.recorded.began <= newest {
                // Its rows do not become durable, or it was begun before.
                drop(progress);
                self.core.health.check()?;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let is_done = matches!(progress.stage, CheckpointStage::Idle);
            return Ok(
                match is_done && progress.recorded.older == OlderLog::Searched {
                    true => OldLog::Deleted,
                    false => OldLog::Kept,
                },
            );
        }
    }
}
