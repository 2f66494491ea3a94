//! Early moves: the inline bytes of a file that is fsynced again and again are uploaded before a row has too many of them.
//!
//! Without this, every sixteenth fsync of a log would find that its row has more than 64 KiB inline bytes, and wait for the upload of
//! a segment before that of the index's log. Path: `compose` counts the inline bytes of each range. After 32 KiB of them a
//! task reads the newest rows of the range and uploads their inline bytes as a segment. `coalesce` then writes slices of that segment in the
//! place of equal inline bytes.
//!
//! Invariants: a row shows the same bytes with an early move and without. A segment of a move is cited by a row, or deleted, or counted
//! as one that a failed upload left. While versions are forgotten there is no early move.

use std::time::Duration;

use crate::backend::Lane;
use crate::store::data::DataStore;
use crate::store::data::contents::PendingContent;
use crate::store::data::early_moves::{
    EarlySegment, KEPT, LineageRange, MovedSlice, PausedEarlyMoves,
};
use crate::store::data::extent_map::{RANGE, chain, merge_chain};
use crate::store::data::inline_compaction::segment_of;
use crate::store::model::error::StoreError;
use crate::sync::Arc;

/// The pause between two looks at running moves.
const PAUSE: Duration = Duration::from_millis(20);

impl DataStore {
    /// Ends early moves until the result is dropped, and deletes the segments that no row cites.
    pub(crate) async fn pause_early_moves(&self) -> PausedEarlyMoves {
        let paused = self.early_moves.pause();
        loop {
            let unused = self.early_moves.take_old(Duration::ZERO);
            self.discard(unused).await;
            if !self.early_moves.is_any_running() || self.core.tasks.is_stopped() {
                return paused;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Deletes the segments that no row has cited in time.
    pub(crate) async fn discard_old_early_moves(&self) {
        self.discard(self.early_moves.take_old(KEPT)).await;
    }

    /// Deletes segments that no row cites. Those that cannot be deleted count as left by a failed upload.
    async fn discard(&self, segments: Vec<EarlySegment>) {
        for segment in segments {
            let key = segment.id.key();
            tokio::select! {
                deleted = self.core.backend.delete(&key) => if deleted.is_ok() {
                    segment.settled();
                },
                () = self.core.tasks.stopped() => return,
            }
        }
    }

    /// Counts the inline bytes that a content adds to a range, and starts an early move if there are many.
    pub(super) fn count_inline(
        self: &Arc<Self>,
        pending: &Arc<PendingContent>,
        range: u64,
        bytes: u64,
    ) {
        let id = LineageRange::of(pending, range);
        if bytes == 0 || !self.early_moves.count(id, bytes) {
            return;
        }
        let (data, pending) = (Arc::clone(self), Arc::clone(pending));
        let work = async move {
            let moved = data.move_early(&pending, range).await;
            let segment = moved.unwrap_or_else(|error| {
                tracing::debug!(ino = pending.ino.0, %error, "inline bytes were not moved early");
                None
            });
            data.discard(data.early_moves.add_early(id, segment)).await;
            data.early_moves.end_task(id);
        };
        drop(self.core.tasks.spawn("early-move", work));
    }

    /// Uploads the inline bytes of the newest rows of a range that no earlier move has.
    async fn move_early(
        &self,
        pending: &Arc<PendingContent>,
        range: u64,
    ) -> Result<Option<EarlySegment>, StoreError> {
        self.wait_uploaded(pending).await?;
        let rows = self.core.index.snapshot();
        let chain = chain(&rows, pending.content, range).await?;
        let pieces = self
            .early_moves
            .without_moved(LineageRange::of(pending, range), merge_chain(&chain, range));
        let (_, runs) = self.long_runs(pieces).await;
        if runs.is_empty() {
            return Ok(None);
        }
        let _permit = self
            .uploads
            .acquire()
            .await
            .map_err(|_| StoreError::Closed)?;
        let mut upload = self.in_flight(self.next_segment());
        let id = self.new_segment();
        let mut builder = segment_of(pending, id);
        let mut slices = Vec::new();
        for run in runs {
            let offset = range * RANGE + u64::from(run.start);
            let source = builder.add(pending.ino, pending.content, offset, &run.bytes);
            slices.push(MovedSlice { run, source });
        }
        let object = builder.finish();
        let key = id.key();
        let uploading = self
            .core
            .backend
            .upload(Lane::Segments, &key, object.clone());
        let uploaded = tokio::select! {
            uploaded = uploading => uploaded.map_err(StoreError::from),
            () = self.core.tasks.stopped() => Err(StoreError::Closed),
        };
        if let Err(error) = uploaded {
            upload.failed();
            return Err(error);
        }
        self.extents.keep(id, &object);
        Ok(Some(EarlySegment::new(id, slices, upload)))
    }
}
