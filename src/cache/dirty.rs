//! The dirty map of an inode: which of its bytes are not in the bucket yet, and where they are stored until then.
//!
//! The map is an overlay over a *base*, the content of the inode at the last rebase. The bytes of the base and all lengths
//! belong to the caller. Byte `x` of a file of length `n`, for `x < n`, is the first of these:
//!
//! 1. the byte of the span that covers `x`, if there is one;
//! 2. the byte of the base, if `x` is below the cut (if there is one) and below the length of the base;
//! 3. zero.
//!
//! The *cut* is the lowest length to which the file was truncated since the base: truncated bytes do not reappear when the file
//! grows again. Invariant: spans never overlap and are never empty. A span or cut from before a snapshot is never joined with
//! a later one, so that a rebase can tell them apart.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::staging::StagingFile;
use crate::sync::Arc;

/// The maximal size of a span that is joined from adjacent spans in memory, in bytes. A program that writes line by line then
/// creates few spans; the copy of a larger span would cost more than a second span.
const MEMORY_JOIN_MAX: u64 = 4096;

/// Where the bytes of a span are stored.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// In memory; the length is that of the span.
    Memory(Bytes),
    /// In a staging file, from `position` on.
    File {
        /// The file; it is kept as long as a span of the map or of a snapshot refers to it.
        file: Arc<StagingFile>,
        /// The position of the span's first byte in the file, in bytes.
        position: u64,
    },
    /// Nowhere: the bytes are zero.
    Zero,
    /// In a content that the caller finds by its number, from `position` on. It has at least as many bytes as the span.
    Reference {
        /// The content.
        of: Referent,
        /// The position of the span's first byte in it, in bytes.
        position: u64,
    },
}

/// The content a span refers to: numbers whose meaning only the caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Referent(pub(crate) u64, pub(crate) u64);

impl Source {
    /// The source of the `len` bytes behind the first `skip` bytes of this one.
    fn part(&self, skip: u64, len: u64) -> Self {
        match self {
            Self::Memory(bytes) => Self::Memory(bytes.slice(skip as usize..(skip + len) as usize)),
            Self::File { file, position } => Self::File {
                file: Arc::clone(file),
                position: position.saturating_add(skip),
            },
            Self::Zero => Self::Zero,
            Self::Reference { of, position } => Self::Reference {
                of: *of,
                position: position.saturating_add(skip),
            },
        }
    }
}

/// A range of the file that was written or punched, with one source.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// The offset of the span in the file, in bytes.
    pub(crate) offset: u64,
    /// The length in bytes; never 0.
    pub(crate) len: u64,
    /// The number of the newest change in the span.
    pub(crate) seq: u64,
    /// Where its bytes are stored.
    pub(crate) source: Source,
}

impl Span {
    /// The end of the span in the file, in bytes, exclusive.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// The part of the span in `range`, which must overlap it.
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

    /// Joins two spans if `next` begins at the end of this one and its bytes follow in the same source.
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
            ) if Arc::ptr_eq(file, next_file)
                && position.checked_add(self.len) == Some(*next_position) =>
            {
                self.source.clone()
            }
            (
                Source::Reference { of, position },
                Source::Reference {
                    of: next_of,
                    position: next_position,
                },
            ) if of == next_of && position.checked_add(self.len) == Some(*next_position) => {
                self.source.clone()
            }
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

/// A part of a file, from [`DirtyMap::pieces`].
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The range in the file, in bytes; never empty.
    pub(crate) range: Range<u64>,
    /// Where its bytes are stored; `None` for bytes of the base, which are zero beyond the length of the base.
    pub(crate) source: Option<Source>,
}

/// A truncation that shortened the file.
#[derive(Clone, Copy, Debug)]
struct Truncation {
    seq: u64,
    len: u64,
}

/// The spans and cuts over a base, of a map or of a snapshot.
#[derive(Clone, Debug, Default)]
struct DirtyLayer {
    /// By offset.
    spans: BTreeMap<u64, Span>,
    /// Ascending in `seq` and in `len`, at most one between two snapshots. A cut is removed when a later one is lower. So the
    /// first is the lowest of all, and the first one after a snapshot is the lowest since that snapshot.
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

    /// The spans that overlap `range`, in ascending order; `range` must not be empty.
    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = &Span> {
        let first = self
            .spans
            .range(..range.start)
            .next_back()
            .filter(|(_, span)| span.end() > range.start)
            .map_or(range.start, |(offset, _)| *offset);
        self.spans.range(first..range.end).map(|(_, span)| span)
    }

    /// Removes `range` from all spans.
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

    /// Adds a span in place of what its range had before. Joins it with an adjacent span only if that one was also written after
    /// the change `snapshotted`: otherwise a rebase to that snapshot would remove too little or too much.
    fn put(&mut self, mut span: Span, snapshotted: u64) {
        self.clear(&(span.offset..span.end()));
        let before = self.spans.range(..span.offset).next_back();
        let joined = before.and_then(|(_, other)| {
            let both = other.joined(&span).filter(|_| other.seq > snapshotted)?;
            Some((other.offset, both))
        });
        if let Some((offset, both)) = joined {
            self.remove(offset);
            span = both;
        }
        let behind = self.spans.get(&span.end());
        let joined = behind.and_then(|other| {
            let both = span.joined(other).filter(|_| other.seq > snapshotted)?;
            Some((other.offset, both))
        });
        if let Some((offset, both)) = joined {
            self.remove(offset);
            span = both;
        }
        self.insert(span);
    }

    /// Records a truncation to `len`.
    fn lower(&mut self, seq: u64, len: u64, snapshotted: u64) {
        while self.cuts.last().is_some_and(|cut| cut.len >= len) {
            self.cuts.pop();
        }
        // A lower cut since the same snapshot makes this one redundant.
        if self.cuts.last().is_none_or(|cut| cut.seq <= snapshotted) {
            self.cuts.push(Truncation { seq, len });
        }
    }

    fn cut(&self) -> Option<u64> {
        self.cuts.first().map(|cut| cut.len)
    }

    /// Removes all changes up to and including number `seq`.
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

    /// Adds the pieces of a range without spans.
    fn gap(&self, pieces: &mut Vec<Piece>, gap: Range<u64>) {
        let shown = self
            .cut()
            .unwrap_or(u64::MAX)
            .clamp(gap.start, gap.end.max(gap.start));
        push(pieces, gap.start..shown, None);
        push(pieces, shown..gap.end, Some(Source::Zero));
    }
}

/// Adds a piece unless it is empty; joins adjacent zeros.
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

/// The bytes of one inode that are not in the bucket yet. The documentation of the module defines the value of a byte.
///
/// Every change gets the next number (`seq`, from 1). A snapshot ([`fix`](Self::fix)) costs a counter; the first change after
/// it copies the spans of the map, not their bytes.
#[derive(Debug, Default)]
pub(crate) struct DirtyMap {
    layer: Arc<DirtyLayer>,
    /// The number of the last change.
    seq: u64,
    /// The number of the last change before the latest snapshot.
    snapshotted: u64,
}

impl DirtyMap {
    /// Creates a map without changes.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Writes `len` bytes at `offset`, and returns the number of the change. Ignores bytes of a [`Source::Memory`] beyond `len`,
    /// and bytes beyond the offset 2^64 - 1. O(log n).
    pub(crate) fn write(&mut self, offset: u64, len: u64, source: Source) -> u64 {
        self.seq += 1;
        let available = match &source {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File { .. } | Source::Zero | Source::Reference { .. } => u64::MAX,
        };
        debug_assert!(available >= len, "a source shorter than its span");
        let len = len.min(available).min(u64::MAX - offset);
        if len > 0 {
            let span = Span {
                offset,
                len,
                seq: self.seq,
                source: source.part(0, len),
            };
            Arc::make_mut(&mut self.layer).put(span, self.snapshotted);
        }
        self.seq
    }

    /// Sets `len` bytes at `offset` to zero, and returns the number of the change. Does not know the length of the file: the
    /// caller limits the range to it.
    pub(crate) fn punch(&mut self, offset: u64, len: u64) -> u64 {
        self.write(offset, len, Source::Zero)
    }

    /// Changes the length of the file from `old_len` to `new_len` bytes, and returns the number of the change. Removes spans
    /// beyond `new_len`. If the file shrinks, bytes beyond `new_len`, also those of the base, are zero when it grows again.
    pub(crate) fn truncate(&mut self, new_len: u64, old_len: u64) -> u64 {
        self.seq += 1;
        let beyond = self.layer.spans.values().next_back();
        if beyond.is_some_and(|span| span.end() > new_len) {
            Arc::make_mut(&mut self.layer).clear(&(new_len..u64::MAX));
        }
        if new_len < old_len {
            Arc::make_mut(&mut self.layer).lower(self.seq, new_len, self.snapshotted);
        }
        self.seq
    }

    /// Divides `range` into pieces: ascending, without gaps or overlaps, covering exactly `range`. Does not know the length of
    /// the file. A piece without a source is below the cut.
    pub(crate) fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        self.layer.pieces(range)
    }

    /// The bytes of spans in memory and in staging files; holes and references are not counted.
    pub(crate) fn bytes(&self) -> u64 {
        self.layer.data_bytes
    }

    /// The bytes of spans in memory. A part of a longer write keeps the whole write allocated.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.layer.memory_bytes
    }

    /// The number of the last change; 0 before the first.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Takes a snapshot of the map. Until a rebase, a later snapshot also has the spans of an earlier one, except where a
    /// change has replaced them.
    pub(crate) fn fix(&mut self) -> DirtySnapshot {
        self.snapshotted = self.seq;
        DirtySnapshot {
            layer: Arc::clone(&self.layer),
            seq: self.seq,
        }
    }

    /// Makes `snapshot`, which is one of this map, the base: removes all changes up to it. From now on, the base is the content
    /// of the snapshot, and its length is the length of the file at that time. Changes nothing if a later snapshot was rebased
    /// before.
    pub(crate) fn rebase(&mut self, snapshot: &DirtySnapshot) {
        if snapshot.seq == self.seq {
            self.layer = Arc::default();
        } else {
            Arc::make_mut(&mut self.layer).forget(snapshot.seq);
        }
    }

    /// Takes back all changes after `snapshot`, which is one of this map; `base` is the snapshot of the last rebase, if there was one. If it
    /// is the later one of the two, the map has no changes afterwards.
    pub(crate) fn revert(&mut self, snapshot: &DirtySnapshot, base: Option<&DirtySnapshot>) {
        let based = base.map_or(0, |base| base.seq);
        let mut layer = DirtyLayer::clone(&snapshot.layer);
        layer.forget(based);
        self.layer = Arc::new(layer);
        self.seq = snapshot.seq.max(based);
        self.snapshotted = self.seq;
    }
}

/// A state of a [`DirtyMap`], which later changes of the map do not alter.
///
/// It may be applied to the base at the time of the snapshot, or to the content of any earlier snapshot since that base: the
/// bytes are the same, because nothing was changed since the base where the snapshot has no span and no cut.
#[derive(Clone, Debug)]
pub(crate) struct DirtySnapshot {
    layer: Arc<DirtyLayer>,
    seq: u64,
}

impl DirtySnapshot {
    /// The number of the last change in the snapshot; 0 if there was none.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The spans, ascending by offset.
    pub(crate) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.layer.spans.values()
    }

    /// The lowest length to which the file was truncated between the base and the snapshot, in bytes.
    pub(crate) fn cut(&self) -> Option<u64> {
        self.layer.cut()
    }

    /// The bytes of its spans in memory and in staging files.
    pub(crate) fn bytes(&self) -> u64 {
        self.layer.data_bytes
    }

    /// As [`DirtyMap::pieces`], for this state.
    pub(crate) fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        self.layer.pieces(range)
    }

    /// The same state with other referents; a reference for which `rename` returns `None` becomes zeros.
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

    /// The same state as changes of the content of `earlier`, a snapshot of the same map.
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
