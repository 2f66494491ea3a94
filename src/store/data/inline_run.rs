//! Runs of inline slices: adjacent slices of a range row whose bytes could be one extent.

use bytes::{Bytes, BytesMut};

use crate::store::data::inline_backlog::INLINE;
use crate::store::data::segment::EXTENT;
use crate::store::schema::rows::{ExtentSlice, ExtentSource};

/// Adjacent inline slices that could be one extent.
pub(super) type InlineRun = Vec<ExtentSlice>;

/// Bytes of a range that make an extent: those of an inline run, and copies of the extents right before it.
#[derive(Debug)]
pub(super) struct LongRun {
    pub(super) start: u32,
    pub(super) bytes: Bytes,
    /// The slices of the copied extents.
    pub(super) copied: Vec<ExtentSlice>,
}

/// Returns how many inline bytes slices show.
pub(super) fn inline_len(pieces: &[ExtentSlice]) -> u64 {
    let shown = pieces.iter().filter(|piece| inline(piece).is_some());
    shown.map(|piece| u64::from(piece.len)).sum()
}

/// Returns the bytes of an inline extent; `None` for other extents.
pub(super) fn inline(piece: &ExtentSlice) -> Option<&Bytes> {
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
pub(super) fn shown(run: &[ExtentSlice]) -> Bytes {
    let mut all = BytesMut::new();
    for piece in run {
        let from = piece.skip as usize;
        let bytes = inline(piece).and_then(|bytes| bytes.get(from..from + piece.len as usize));
        all.extend_from_slice(bytes.unwrap_or_default());
    }
    all.freeze()
}

/// Returns the slices that are not inline, and the inline ones as runs.
pub(super) fn inline_runs(pieces: Vec<ExtentSlice>) -> (Vec<ExtentSlice>, Vec<InlineRun>) {
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
pub(super) fn before(pieces: &[ExtentSlice], start: u32, len: usize) -> Option<usize> {
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
pub(super) fn join(pieces: Vec<ExtentSlice>) -> Vec<ExtentSlice> {
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
