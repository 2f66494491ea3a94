//! Inline compaction: limits the inline bytes of a range row, however many small writes are fsynced one by one.
//!
//! Adjacent inline slices are joined. When a row would have more than [`INLINE`] inline bytes, they are uploaded in a segment first,
//! together with copies of small extents right before them: a file that grows by hundreds of small appends ends up in extents
//! of full size, and each byte is copied only a few times. A row with more than [`INLINE_KEPT`](crate::store::data::inline_backlog::INLINE_KEPT) of them is written as it is, and they
//! are moved later (`gc/inline.rs`). Invariant: the row shows the same bytes before and after.

use bytes::{Bytes, BytesMut};

use crate::backend::Lane;
use crate::store::data::DataStore;
use crate::store::data::contents::PendingContent;
use crate::store::data::extent_map::RANGE;
use crate::store::data::inline_backlog::INLINE;
use crate::store::data::segment::{EXTENT, FooterFile, SegmentBuilder};
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::schema::rows::{ExtentSlice, ExtentSource, RangeRow};
use crate::sync::Arc;

/// Adjacent inline slices that could be one extent.
type InlineRun = Vec<ExtentSlice>;

impl DataStore {
    /// Returns the row to write instead of `row`: it shows the same bytes and has at most [`INLINE`] inline bytes.
    ///
    /// # Errors
    /// `Closed` when the writer ends, `Unavailable` when the store refuses the segment.
    pub(crate) async fn coalesce(
        &self,
        pending: &Arc<PendingContent>,
        range: u64,
        row: RangeRow,
    ) -> Result<RangeRow, StoreError> {
        let inline: usize = row.pieces().iter().filter_map(inline).map(Bytes::len).sum();
        if inline == 0 {
            return Ok(row);
        }
        let (pieces, whole) = match row {
            RangeRow::Whole(pieces) => (pieces, true),
            RangeRow::Delta(pieces) => (pieces, false),
        };
        let pieces = if inline as u64 <= INLINE {
            join(pieces)
        } else {
            self.move_out(pending, range, pieces).await?
        };
        Ok(if whole {
            RangeRow::Whole(pieces)
        } else {
            RangeRow::Delta(pieces)
        })
    }

    /// Uploads all inline slices, and small extents right before them, in one segment; returns the slices of the row after
    /// that.
    async fn move_out(
        &self,
        pending: &Arc<PendingContent>,
        range: u64,
        pieces: Vec<ExtentSlice>,
    ) -> Result<Vec<ExtentSlice>, StoreError> {
        let (mut kept, runs) = inline_runs(pieces);
        let mut moved: Vec<(u32, Bytes)> = Vec::with_capacity(runs.len());
        for run in runs {
            let (mut start, mut bytes) = (run[0].start, shown(&run));
            while let Some(before) = before(&kept, start, bytes.len()) {
                // An extent that cannot be read stays where it is: copying it is optional.
                let Ok(more) = self.piece_bytes(&kept[before]).await else {
                    break;
                };
                start = kept.remove(before).start;
                bytes = [more, bytes].concat().into();
            }
            moved.push((start, bytes));
        }
        let _permit = self
            .uploads
            .acquire()
            .await
            .map_err(|_| StoreError::Closed)?;
        let id = self.new_segment();
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
        for (start, bytes) in moved {
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

    /// Reads the bytes that a slice shows.
    async fn piece_bytes(&self, piece: &ExtentSlice) -> Result<Bytes, StoreError> {
        self.extents
            .read(&piece.source, piece.skip, piece.len)
            .await
    }
}

/// Returns the bytes of an inline extent; `None` for other extents.
fn inline(piece: &ExtentSlice) -> Option<&Bytes> {
    match &piece.source {
        ExtentSource::Inline(bytes) => Some(bytes),
        ExtentSource::Segment { .. } | ExtentSource::Zero => None,
    }
}

/// Tells whether `from..to` of a range could be one extent: no multiple of [`EXTENT`] bytes is strictly between.
fn fits(from: u32, to: u32) -> bool {
    u64::from(from) / EXTENT == (u64::from(to) - 1) / EXTENT
}

/// Concatenates the bytes that inline slices show.
fn shown(run: &[ExtentSlice]) -> Bytes {
    let mut all = BytesMut::new();
    for piece in run {
        let from = piece.skip as usize;
        let bytes = inline(piece).and_then(|bytes| bytes.get(from..from + piece.len as usize));
        all.extend_from_slice(bytes.unwrap_or_default());
    }
    all.freeze()
}

/// Returns the slices that are not inline, and the inline ones as runs.
fn inline_runs(pieces: Vec<ExtentSlice>) -> (Vec<ExtentSlice>, Vec<InlineRun>) {
    let (mut others, mut runs): (Vec<ExtentSlice>, Vec<InlineRun>) = (Vec::new(), Vec::new());
    for piece in pieces {
        if inline(&piece).is_none() {
            others.push(piece);
            continue;
        }
        match runs.last_mut() {
            Some(run)
                if run[run.len() - 1].end() == piece.start && fits(run[0].start, piece.end()) =>
            {
                run.push(piece);
            }
            _ => runs.push(vec![piece]),
        }
    }
    (others, runs)
}

/// Returns the index of the slice that ends at `start`, if it is stored in a segment, could be one extent together with the
/// `len` bytes that follow, and is not longer than they are. The last condition makes the new extent at least twice as long as
/// the copied one, so that a byte is copied once per doubling.
fn before(pieces: &[ExtentSlice], start: u32, len: usize) -> Option<usize> {
    let at = pieces
        .partition_point(|piece| piece.start < start)
        .checked_sub(1)?;
    let piece = &pieces[at];
    let joins = matches!(piece.source, ExtentSource::Segment { .. })
        && piece.end() == start
        && piece.len as usize <= len
        && fits(piece.start, start + len as u32);
    joins.then_some(at)
}

/// Joins adjacent inline slices, up to [`INLINE`] bytes each.
fn join(pieces: Vec<ExtentSlice>) -> Vec<ExtentSlice> {
    let (mut all, runs) = inline_runs(pieces);
    for run in runs {
        let mut parts: Vec<InlineRun> = Vec::new();
        for piece in run {
            match parts.last_mut() {
                Some(part) if u64::from(piece.end() - part[0].start) <= INLINE => part.push(piece),
                _ => parts.push(vec![piece]),
            }
        }
        for part in parts {
            let bytes = shown(&part);
            all.push(ExtentSlice {
                start: part[0].start,
                len: bytes.len() as u32,
                skip: 0,
                source: ExtentSource::Inline(bytes),
            });
        }
    }
    all.sort_unstable_by_key(|piece| piece.start);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(start: u32, skip: u32, bytes: &'static [u8]) -> ExtentSlice {
        ExtentSlice {
            start,
            len: bytes.len() as u32 - skip,
            skip,
            source: ExtentSource::Inline(Bytes::from_static(bytes)),
        }
    }

    fn stored(start: u32, len: u32) -> ExtentSlice {
        ExtentSlice {
            start,
            len,
            skip: 0,
            source: ExtentSource::Segment {
                epoch: 1,
                sequence: 1,
                offset: 0,
                len,
                hash: [0; 16],
            },
        }
    }

    #[test]
    fn adjacent_inline_slices_are_joined() {
        let joined = join(vec![
            text(0, 0, b"ab"),
            text(2, 1, b"xcd"),
            stored(4, 2),
            text(6, 0, b"e"),
            text(8, 0, b"f"),
        ]);
        assert_eq!(
            joined,
            [
                text(0, 0, b"abcd"),
                stored(4, 2),
                text(6, 0, b"e"),
                text(8, 0, b"f"),
            ]
        );
    }

    #[test]
    fn a_run_ends_at_the_end_of_an_extent_and_a_joined_slice_at_its_maximum() {
        let border = EXTENT as u32;
        let (_, runs) = inline_runs(vec![text(border - 2, 0, b"ab"), text(border, 0, b"cd")]);
        assert_eq!(runs.len(), 2);
        static LONG: [u8; 40_000] = [7; 40_000];
        let joined = join(vec![text(0, 0, &LONG), text(40_000, 0, &LONG)]);
        assert_eq!(joined.len(), 2);
    }

    #[test]
    fn an_extent_is_copied_only_if_it_is_adjacent_and_not_longer() {
        let pieces = [stored(0, 100), stored(100, 50), stored(200, 10)];
        assert_eq!(before(&pieces, 150, 50), Some(1));
        assert_eq!(before(&pieces, 150, 49), None);
        assert_eq!(before(&pieces, 100, 100), Some(0));
        assert_eq!(before(&pieces, 180, 100), None, "there is a gap");
        let border = EXTENT as u32;
        assert_eq!(before(&[stored(border - 9, 9)], border, 100), None);
    }
}
