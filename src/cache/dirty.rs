//! The dirty map of one inode: which of its bytes are not yet in the bucket, and where they are stored until then.
//!
//! The map is an overlay over a *base*, the content the inode had when it was last rebased. It knows
//! neither the base's bytes nor any length; both are the caller's. Byte `x` of a file of length `n` is,
//! for `x < n`, in this order:
//!
//! 1. what the span covering `x` says, if there is one;
//! 2. the base's byte, if `x` is below the cut (where there is one) and below the base's length;
//! 3. zero.
//!
//! The *cut* is the lowest length the file was truncated to since the base: what a truncation took away
//! does not come back when the file grows again. Invariant: spans never overlap, none is empty, and a span
//! or a cut of an earlier fix is never folded into a later one, so that a rebase can tell them apart.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::staging::StagingFile;
use crate::sync::Arc;

/// Neighbouring spans in memory are copied together up to this many bytes, so that a program that
/// writes line by line leaves few spans; above it the copying would cost more than a span does.
const MEMORY_JOIN_MAX: u64 = 4096;

/// Where the bytes of a span lie.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// In memory; as many bytes as the span is long.
    Memory(Bytes),
    /// In a staging file, from `position` on.
    File {
        /// The file; held for as long as a span or a fixed state refers to it.
        file: Arc<StagingFile>,
        /// Where the span's first byte lies in the file, in bytes.
        position: u64,
    },
    /// Nowhere: the bytes are zero (a hole).
    Zero,
    /// In something the caller finds by this, from `position` on; it holds at least as many bytes as the span.
    Reference {
        /// What it is.
        of: Referent,
        /// Where the span's first byte lies in it, in bytes.
        position: u64,
    },
}

/// What a span refers to: numbers with a meaning to the caller only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Referent(pub(crate) u64, pub(crate) u64);

impl Source {
    /// The source of `len` bytes that begin `skip` bytes into this one.
    fn part(&self, skip: u64, len: u64) -> Self {
        match self {
            Self::Memory(bytes) => Self::Memory(bytes.slice(skip as usize..(skip + len) as usize)),
            Self::File { file, position } => Self::File {
                file: Arc::clone(file),
                position: position + skip,
            },
            Self::Zero => Self::Zero,
            Self::Reference { of, position } => Self::Reference {
                of: *of,
                position: position + skip,
            },
        }
    }
}

/// Bytes of the file that were written or punched, all by one source.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Where the span begins in the file, in bytes.
    pub(crate) offset: u64,
    /// How long it is, in bytes; never 0.
    pub(crate) len: u64,
    /// The number of the newest change in it.
    pub(crate) seq: u64,
    /// Where its bytes lie.
    pub(crate) source: Source,
}

impl Span {
    /// The offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// The part of the span inside `range`, which must overlap it.
    fn part(&self, range: &Range<u64>) -> Self {
        let offset = self.offset.max(range.start);
        let len = self.end().min(range.end) - offset;
        Self {
            offset,
            len,
            seq: self.seq,
            source: self.source.part(offset - self.offset, len),
        }
    }

    /// One span in place of two, if `next` begins where this one ends and its bytes go on likewise.
    fn joined(&self, next: &Self) -> Option<Self> {
        if self.end() != next.offset {
            return None;
        }
        let len = self.len + next.len;
        let source = match (&self.source, &next.source) {
            (Source::Zero, Source::Zero) => Source::Zero,
            (
                Source::File { file, position },
                Source::File {
                    file: next_file,
                    position: next_position,
                },
            ) if Arc::ptr_eq(file, next_file) && position + self.len == *next_position => {
                self.source.clone()
            }
            (
                Source::Reference { of, position },
                Source::Reference {
                    of: next_of,
                    position: next_position,
                },
            ) if of == next_of && position + self.len == *next_position => self.source.clone(),
            (Source::Memory(bytes), Source::Memory(next_bytes)) if len <= MEMORY_JOIN_MAX => {
                let mut both = BytesMut::with_capacity(len as usize);
                both.extend_from_slice(bytes);
                both.extend_from_slice(next_bytes);
                Source::Memory(both.freeze())
            }
            _ => return None,
        };
        Some(Self {
            offset: self.offset,
            len,
            seq: self.seq.max(next.seq),
            source,
        })
    }
}

/// One stretch of a file as [`DirtyMap::pieces`] cuts it.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The stretch, in bytes of the file; never empty.
    pub(crate) range: Range<u64>,
    /// Where its bytes lie; `None` where the base shows, which is zero beyond the base's length.
    pub(crate) source: Option<Source>,
}

/// A truncation that has an effect on some base.
#[derive(Clone, Copy, Debug)]
struct Truncation {
    seq: u64,
    len: u64,
}

/// Spans and cuts over a base: what a map and its fixed states have in common.
#[derive(Clone, Debug, Default)]
struct DirtyLayer {
    /// By offset.
    spans: BTreeMap<u64, Span>,
    /// Ascending in `seq` and in `len`, at most one between two fixes. A cut that a later one reaches below
    /// is gone; the first is the lowest of all, and the first of those behind a fix the lowest since it.
    cuts: Vec<Truncation>,
    data_bytes: u64,
    memory_bytes: u64,
}

impl DirtyLayer {
    fn insert(&mut self, span: Span) {
        match &span.source {
            Source::Memory(_) => {
                self.data_bytes += span.len;
                self.memory_bytes += span.len;
            }
            Source::File { .. } => self.data_bytes += span.len,
            Source::Zero | Source::Reference { .. } => {}
        }
        self.spans.insert(span.offset, span);
    }

    fn remove(&mut self, offset: u64) -> Option<Span> {
        let span = self.spans.remove(&offset)?;
        match &span.source {
            Source::Memory(_) => {
                self.data_bytes -= span.len;
                self.memory_bytes -= span.len;
            }
            Source::File { .. } => self.data_bytes -= span.len,
            Source::Zero | Source::Reference { .. } => {}
        }
        Some(span)
    }

    /// The spans that overlap `range`, ascending; `range` must not be empty.
    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = &Span> {
        let first = self
            .spans
            .range(..range.start)
            .next_back()
            .filter(|(_, span)| span.end() > range.start)
            .map_or(range.start, |(offset, _)| *offset);
        self.spans.range(first..range.end).map(|(_, span)| span)
    }

    /// Forgets what spans say about `range`; what they say on either side of it stays.
    fn clear(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let hit: Vec<u64> = self.overlapping(range).map(|span| span.offset).collect();
        for offset in hit {
            let Some(span) = self.remove(offset) else {
                continue;
            };
            if span.offset < range.start {
                self.insert(span.part(&(span.offset..range.start)));
            }
            if span.end() > range.end {
                self.insert(span.part(&(range.end..span.end())));
            }
        }
    }

    /// Puts a span where it replaces what was there. It is joined with a neighbour only if that was also
    /// written after `fixed`: else a rebase to that fix would forget too little or too much.
    fn put(&mut self, mut span: Span, fixed: u64) {
        self.clear(&(span.offset..span.end()));
        let before = self.spans.range(..span.offset).next_back();
        let joined = before.and_then(|(_, other)| {
            let both = other.joined(&span).filter(|_| other.seq > fixed)?;
            Some((other.offset, both))
        });
        if let Some((offset, both)) = joined {
            self.remove(offset);
            span = both;
        }
        let behind = self.spans.get(&span.end());
        let joined = behind.and_then(|other| {
            let both = span.joined(other).filter(|_| other.seq > fixed)?;
            Some((other.offset, both))
        });
        if let Some((offset, both)) = joined {
            self.remove(offset);
            span = both;
        }
        self.insert(span);
    }

    /// Records a truncation to `len`.
    fn lower(&mut self, seq: u64, len: u64, fixed: u64) {
        while self.cuts.last().is_some_and(|cut| cut.len >= len) {
            self.cuts.pop();
        }
        // A lower cut since the same fix says all that this one could.
        if self.cuts.last().is_none_or(|cut| cut.seq <= fixed) {
            self.cuts.push(Truncation { seq, len });
        }
    }

    fn cut(&self) -> Option<u64> {
        self.cuts.first().map(|cut| cut.len)
    }

    /// Forgets everything up to and including change `seq`.
    fn forget(&mut self, seq: u64) {
        let old = |span: &&Span| span.seq <= seq;
        let offsets: Vec<u64> = self.spans.values().filter(old).map(|s| s.offset).collect();
        for offset in offsets {
            self.remove(offset);
        }
        self.cuts.retain(|cut| cut.seq > seq);
    }

    fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if range.is_empty() {
            return pieces;
        }
        let mut at = range.start;
        for span in self.overlapping(&range) {
            self.gap(&mut pieces, at..span.offset);
            let part = span.part(&range);
            at = part.end();
            push(&mut pieces, part.offset..at, Some(part.source));
        }
        self.gap(&mut pieces, at..range.end);
        pieces
    }

    /// Adds the pieces of a stretch that no span covers.
    fn gap(&self, pieces: &mut Vec<Piece>, gap: Range<u64>) {
        let shown = self
            .cut()
            .unwrap_or(u64::MAX)
            .clamp(gap.start, gap.end.max(gap.start));
        push(pieces, gap.start..shown, None);
        push(pieces, shown..gap.end, Some(Source::Zero));
    }
}

/// Adds a piece unless it is empty; zeros beside zeros become one piece.
fn push(pieces: &mut Vec<Piece>, range: Range<u64>, source: Option<Source>) {
    if range.is_empty() {
        return;
    }
    match (pieces.last_mut(), &source) {
        (
            Some(Piece {
                range: last,
                source: Some(Source::Zero),
            }),
            Some(Source::Zero),
        ) => last.end = range.end,
        _ => pieces.push(Piece { range, source }),
    }
}

/// The bytes of one inode that are not yet in the bucket. See the module for what a byte is.
///
/// Every change gets the next number (`seq`, from 1). [`fix`](Self::fix) remembers a state at the cost of one
/// counter; the first change after it copies the map's spans, not their bytes.
#[derive(Debug, Default)]
pub(crate) struct DirtyMap {
    layer: Arc<DirtyLayer>,
    /// The last change's number.
    seq: u64,
    /// That of the last change before the latest fix.
    fixed: u64,
}

impl DirtyMap {
    /// A map without changes: the base shows everywhere.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Puts `len` bytes at `offset`, over whatever was there, and returns the change's number. Bytes
    /// of a [`Source::Memory`] beyond `len`, and a span's part beyond the last u64, are ignored. O(log n).
    pub(crate) fn write(&mut self, offset: u64, len: u64, source: Source) -> u64 {
        self.seq += 1;
        let held = match &source {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File { .. } | Source::Zero | Source::Reference { .. } => u64::MAX,
        };
        debug_assert!(held >= len, "a source shorter than its span");
        let len = len.min(held).min(u64::MAX - offset);
        if len > 0 {
            let span = Span {
                offset,
                len,
                seq: self.seq,
                source: source.part(0, len),
            };
            Arc::make_mut(&mut self.layer).put(span, self.fixed);
        }
        self.seq
    }

    /// Makes `len` bytes at `offset` zero, and returns the change's number. The file's length is not
    /// looked at: a caller that punches beyond it must clip first.
    pub(crate) fn punch(&mut self, offset: u64, len: u64) -> u64 {
        self.write(offset, len, Source::Zero)
    }

    /// Changes the file's length from `old_len` to `new_len` bytes, and returns the change's number. Spans
    /// beyond `new_len` are forgotten; if the file shrinks, neither they nor the base come back when it
    /// grows again.
    pub(crate) fn truncate(&mut self, new_len: u64, old_len: u64) -> u64 {
        self.seq += 1;
        let beyond = self.layer.spans.values().next_back();
        if beyond.is_some_and(|span| span.end() > new_len) {
            Arc::make_mut(&mut self.layer).clear(&(new_len..u64::MAX));
        }
        if new_len < old_len {
            Arc::make_mut(&mut self.layer).lower(self.seq, new_len, self.fixed);
        }
        self.seq
    }

    /// Cuts `range` into pieces: ascending, without gaps or overlaps, covering exactly `range`. The
    /// file's length is not looked at. A piece without source lies wholly below the cut.
    pub(crate) fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        self.layer.pieces(range)
    }

    /// How many bytes spans hold in memory and in staging files; holes and references count nothing.
    pub(crate) fn bytes(&self) -> u64 {
        self.layer.data_bytes
    }

    /// How many bytes spans hold in memory. A part of a longer write keeps all of it allocated.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.layer.memory_bytes
    }

    /// The number of the last change; 0 before the first.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Remembers the present state. Fixes are cumulative: until one is rebased, the next contains its
    /// spans too, where nothing has replaced them.
    pub(crate) fn fix(&mut self) -> DirtySnapshot {
        self.fixed = self.seq;
        DirtySnapshot {
            layer: Arc::clone(&self.layer),
            seq: self.seq,
        }
    }

    /// Makes the state of `fixed`, one of this map's, the base: forgets every change up to it. From now on
    /// the caller's base is that state's content, and its length the length the file had then. Changes nothing
    /// if a later fix was rebased before.
    pub(crate) fn rebase(&mut self, fixed: &DirtySnapshot) {
        if fixed.seq == self.seq {
            self.layer = Arc::default();
        } else {
            Arc::make_mut(&mut self.layer).forget(fixed.seq);
        }
    }
}

/// A state of a [`DirtyMap`] as it was at its fix; what happens to the map later does not show in it.
///
/// It may be laid over the base of its fix or over the content of any earlier fix since that base: the
/// bytes are the same. (Where it has no span and no cut, nothing was changed since the base.)
#[derive(Clone, Debug)]
pub(crate) struct DirtySnapshot {
    layer: Arc<DirtyLayer>,
    seq: u64,
}

impl DirtySnapshot {
    /// The number of the last change it contains; 0 if there was none.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The spans, ascending by offset.
    pub(crate) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.layer.spans.values()
    }

    /// The lowest length the file was truncated to between the base and the fix, in bytes.
    pub(crate) fn cut(&self) -> Option<u64> {
        self.layer.cut()
    }

    /// How many bytes its spans hold in memory and in staging files.
    pub(crate) fn bytes(&self) -> u64 {
        self.layer.data_bytes
    }

    /// As [`DirtyMap::pieces`], for this state.
    pub(crate) fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        self.layer.pieces(range)
    }

    /// The same state with its references renamed; those that lead nowhere are zeros.
    #[must_use]
    pub(crate) fn referring(&self, rename: impl Fn(Referent) -> Option<Referent>) -> Self {
        let mut layer = DirtyLayer::clone(&self.layer);
        for span in layer.spans.values_mut() {
            if let Source::Reference { of, position } = span.source {
                let renamed = rename(of).map(|of| Source::Reference { of, position });
                span.source = renamed.unwrap_or(Source::Zero);
            }
        }
        Self {
            layer: Arc::new(layer),
            seq: self.seq,
        }
    }

    /// Only what changed after `earlier`, a fix of the same map: the same state, over the content of `earlier`.
    #[must_use]
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut layer = DirtyLayer::clone(&self.layer);
        layer.forget(earlier.seq);
        Self {
            layer: Arc::new(layer),
            seq: self.seq,
        }
    }
}

#[cfg(test)]
#[path = "dirty_tests.rs"]
mod tests;
