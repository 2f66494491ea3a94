//! Inline compaction: limits the inline bytes of a range row, however many small writes are fsynced one by one.
//!
//! Adjacent inline slices are joined. When a row would have more than [`INLINE`] inline bytes, they are uploaded in a segment first,
//! together with copies of small extents right before them: a file that grows by hundreds of small appends ends up in extents
//! of full size, and each byte is copied only a few times. A row with more than [`INLINE_KEPT`](crate::store::data::inline_backlog::INLINE_KEPT) of them is written as it is, and they
//! are moved later (`gc/inline.rs`). Invariant: the row shows the same bytes before and after.

use bytes::Bytes;

use crate::backend::Lane;
use crate::store::data::DataStore;
use crate::store::data::contents::PendingContent;
use crate::store::data::early_moves::{EarlySegment, LineageRange};
use crate::store::data::extent_map::RANGE;
use crate::store::data::inline_backlog::INLINE;
use crate::store::data::inline_run::{LongRun, before, inline_len, inline_runs, join, shown};
use crate::store::data::segment::{FooterFile, SegmentBuilder};
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{ExtentSlice, RangeRow};
use crate::sync::Arc;

/// A row with few inline bytes.
pub(super) struct CoalescedRow {
    pub(super) row: RangeRow,
    /// Segments of early moves that it cites.
    pub(super) cited: Vec<EarlySegment>,
}

impl DataStore {
    /// Returns the row to write instead of `row`: it shows the same bytes and has at most [`INLINE`] inline bytes.
    ///
    /// # Errors
    /// `Closed` when the writer ends, `Unavailable` when the store refuses the segment.
    pub(super) async fn coalesce(
        &self,
        pending: &Arc<PendingContent>,
        range: u64,
        row: RangeRow,
    ) -> Result<CoalescedRow, StoreError> {
        let mut cited = Vec::new();
        if inline_len(row.pieces()) == 0 {
            return Ok(CoalescedRow { row, cited });
        }
        let (mut pieces, whole) = match row {
            RangeRow::Whole(pieces) => (pieces, true),
            RangeRow::Delta(pieces) => (pieces, false),
        };
        if inline_len(&pieces) > INLINE {
            let id = LineageRange::of(pending, range);
            (pieces, cited) = self.early_moves.replace_in(id, pieces);
        }
        let pieces = match inline_len(&pieces) > INLINE {
            true => self.move_out(pending, range, pieces).await?,
            false => join(pieces),
        };
        let row = match whole {
            true => RangeRow::Whole(pieces),
            false => RangeRow::Delta(pieces),
        };
        Ok(CoalescedRow { row, cited })
    }

    /// Uploads all inline slices, and small extents right before them, in one segment; returns the slices of the row after
    /// that.
    async fn move_out(
        &self,
        pending: &Arc<PendingContent>,
        range: u64,
        pieces: Vec<ExtentSlice>,
    ) -> Result<Vec<ExtentSlice>, StoreError> {
        let (mut kept, moved) = self.long_runs(pieces).await;
        let _permit = self
            .uploads
            .acquire()
            .await
            .map_err(|_| StoreError::Closed)?;
        let id = self.new_segment();
        let mut builder = segment_of(pending, id);
        for LongRun { start, bytes, .. } in moved {
            let offset = range * RANGE + u64::from(start);
            let source = builder.add(pending.ino, pending.content, offset, &bytes);
            kept.push(ExtentSlice {
                start,
                len: bytes.len() as u32,
                skip: 0,
                source,
            });
        }
        let object = builder.finish();
        let key = id.key();
        let put = || {
            self.core
                .backend
                .upload(Lane::Segments, &key, object.clone())
        };
        self.persist(std::slice::from_ref(pending), put).await?;
        self.extents.keep(id, &object);
        kept.sort_unstable_by_key(|piece| piece.start);
        Ok(kept)
    }

    /// Returns the slices that stay, and the inline ones as runs, each with the small extents right before it.
    pub(super) async fn long_runs(
        &self,
        pieces: Vec<ExtentSlice>,
    ) -> (Vec<ExtentSlice>, Vec<LongRun>) {
        let (mut kept, runs) = inline_runs(pieces);
        let mut long = Vec::with_capacity(runs.len());
        for run in runs {
            let (mut start, mut bytes) = (run[0].start, shown(&run));
            let mut copied = Vec::new();
            while let Some(before) = before(&kept, start, bytes.len()) {
                // An extent that cannot be read stays where it is: copying it is optional.
                let Ok(more) = self.piece_bytes(&kept[before]).await else {
                    break;
                };
                let slice = kept.remove(before);
                start = slice.start;
                bytes = [more, bytes].concat().into();
                copied.push(slice);
            }
            long.push(LongRun {
                start,
                bytes,
                copied,
            });
        }
        (kept, long)
    }

    /// Reads the bytes that a slice shows.
    async fn piece_bytes(&self, piece: &ExtentSlice) -> Result<Bytes, StoreError> {
        self.extents
            .read(&piece.source, piece.skip, piece.len)
            .await
    }
}

/// Returns an empty segment for bytes of one content.
pub(super) fn segment_of(pending: &PendingContent, id: SegmentId) -> SegmentBuilder {
    let mut builder = SegmentBuilder::new(id);
    let Dentry {
        parent: directory,
        name,
    } = pending.place.clone();
    builder.file(FooterFile {
        ino: pending.ino,
        directory,
        name,
        len: pending.len,
    });
    builder
}
