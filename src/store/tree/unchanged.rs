//! Unchanged content: a save that changes no byte makes no version (docs/SEMANTICS.md).

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::cache::{DirtySnapshot, Piece, Source};
use crate::store::data::contents::ResolvedExtent;
use crate::store::data::segment;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{Attrs, ContentRef};
use crate::store::schema::journal_record::{BytelessFlush, Dependencies};
use crate::store::schema::keys;
use crate::store::schema::rows::ExtentSource;
use crate::store::tree::Tree;
use crate::store::tree::inode::{FileInode, FlushedState};
use crate::store::tree::locked::LockedFile;
use crate::sync::Arc;

/// States with more changed bytes than this are not compared with the last version.
const COMPARE_MAX: u64 = 64 << 20;
/// Bytes compared at once.
const COMPARE_STEP: u64 = 256 << 10;
/// Number of extents fetched at the same time.
const FETCHES: usize = 8;

/// States that reference more bytes of other contents than this are not compared: the bytes may have to come from the bucket.
const REFERRED_MAX: u64 = 1 << 20;

/// Counts the bytes of a state that are references to other contents.
fn referred(map: &DirtySnapshot) -> u64 {
    let refers = |source: &Source| matches!(source, Source::Reference { .. });
    map.spans()
        .filter(|span| refers(&span.source))
        .map(|span| span.len)
        .sum()
}

/// What the rows say about a run of changed bytes.
enum ExtentComparison {
    Equal,
    Different,
    /// The rows do not say it: the old bytes have to be read.
    Unknown,
}

/// Changed pieces without a gap between them.
struct ChangedRun<'a> {
    pieces: &'a [Piece],
}

impl ChangedRun<'_> {
    fn range(&self) -> Range<u64> {
        let (first, last) = (self.pieces.first(), self.pieces.last());
        first.map_or(0, |p| p.range.start)..last.map_or(0, |p| p.range.end)
    }

    /// Returns the sources of the bytes of `range`, each with the range of the file it gives and the bytes of it to skip.
    fn sources(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, u64, &Source)> {
        let overlaps =
            move |piece: &&Piece| piece.range.start < range.end && range.start < piece.range.end;
        let (from, to) = (range.start, range.end);
        self.pieces
            .iter()
            .filter(overlaps)
            .filter_map(move |piece| {
                let part = piece.range.start.max(from)..piece.range.end.min(to);
                let skip = part.start - piece.range.start;
                Some((part, skip, piece.source.as_ref()?))
            })
    }
}

impl Tree {
    /// Tells whether the state has the bytes of the last version. `false` without a comparison if it would read too much.
    ///
    /// A changed run that covers a whole extent of the last version is compared by the hash in the extent's row. Only extents
    /// that a run covers in part are fetched, after every hash was found equal.
    pub(crate) async fn is_equal(
        &self,
        leaf: &FileInode,
        map: &DirtySnapshot,
        attrs: &Attrs,
    ) -> Result<bool, StoreError> {
        if attrs.size != leaf.node.attrs.size || map.bytes() > COMPARE_MAX {
            return Ok(false);
        }
        let Some(ContentBase { content: base, .. }) = leaf.base else {
            return Ok(attrs.size == 0);
        };
        if referred(map) > REFERRED_MAX {
            return Ok(false);
        }
        let pieces = map.pieces(0..attrs.size);
        let runs = pieces.chunk_by(|a, b| a.source.is_some() == b.source.is_some());
        let changed = runs.filter(|run| run.iter().all(|piece| piece.source.is_some()));
        let view = self.data.contents.view(&self.core.index);
        let mut unknown = Vec::new();
        for pieces in changed {
            let run = ChangedRun { pieces };
            let Range { start, end } = run.range();
            let old = view.resolve(base, start, end).await?;
            for (start, end, old) in old {
                match self.compare_extent(&run, start..end, &old).await? {
                    ExtentComparison::Equal => {}
                    ExtentComparison::Different => return Ok(false),
                    ExtentComparison::Unknown => unknown.push((pieces, start..end)),
                }
                // Hashing 64 MiB takes a thread long enough to delay other calls.
                tokio::task::yield_now().await;
            }
        }
        self.is_equal_read(base, &unknown).await
    }

    /// Compares the part of a run that an extent of the old content covers, without reading the old content.
    async fn compare_extent(
        &self,
        run: &ChangedRun<'_>,
        range: Range<u64>,
        old: &ResolvedExtent,
    ) -> Result<ExtentComparison, StoreError> {
        let is_hole = |source: &Source| matches!(source, Source::Zero);
        let mut sources = run.sources(range.clone());
        match old {
            // A hole can be as long as a file can be: it is compared without reading it.
            ResolvedExtent::Zero if sources.all(|(_, _, source)| is_hole(source)) => {
                Ok(ExtentComparison::Equal)
            }
            ResolvedExtent::Zero => self.compare_zeros(run, range).await,
            _ if sources.any(|(_, _, source)| is_hole(source)) => Ok(ExtentComparison::Different),
            ResolvedExtent::Stored(ExtentSource::Segment { len, hash, .. }, 0)
                if u64::from(*len) == range.end - range.start =>
            {
                let new = self.new_bytes(run, range).await?;
                Ok(match segment::hash(&new) == *hash {
                    true => ExtentComparison::Equal,
                    false => ExtentComparison::Different,
                })
            }
            ResolvedExtent::Stored(..) | ResolvedExtent::Staged(_) => Ok(ExtentComparison::Unknown),
        }
    }

    /// Tells whether the bytes that replace a hole are zeros.
    async fn compare_zeros(
        &self,
        run: &ChangedRun<'_>,
        range: Range<u64>,
    ) -> Result<ExtentComparison, StoreError> {
        for (part, _, source) in run.sources(range) {
            if matches!(source, Source::Zero) {
                continue;
            }
            for step in steps(part) {
                if self
                    .new_bytes(run, step)
                    .await?
                    .iter()
                    .any(|byte| *byte != 0)
                {
                    return Ok(ExtentComparison::Different);
                }
            }
        }
        Ok(ExtentComparison::Equal)
    }

    /// Compares parts of changed runs with the old content, which is read.
    async fn is_equal_read(
        &self,
        base: ContentRef,
        parts: &[(&[Piece], Range<u64>)],
    ) -> Result<bool, StoreError> {
        let steps: Vec<(&[Piece], Range<u64>)> = parts
            .iter()
            .flat_map(|(pieces, range)| steps(range.clone()).map(|step| (*pieces, step)))
            .collect();
        for some in steps.chunks(FETCHES) {
            let compare = some.iter().map(|(pieces, range)| async move {
                let old = self.read_content(base, range.start, range.end).await?;
                let run = ChangedRun { pieces };
                let new = self.new_bytes(&run, range.clone()).await?;
                Ok::<bool, StoreError>(old == new)
            });
            let equal = futures::future::try_join_all(compare).await?;
            if equal.contains(&false) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the bytes of a part of a changed run.
    async fn new_bytes(
        &self,
        run: &ChangedRun<'_>,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let mut all = BytesMut::new();
        for (part, skip, source) in run.sources(range.clone()) {
            let len = (part.end - part.start) as usize;
            let bytes = match source {
                Source::Zero => Bytes::from(vec![0; len]),
                Source::Memory(bytes) => bytes.slice(skip as usize..skip as usize + len),
                Source::File { file, position } => file.read_at(position + skip, len)?,
                Source::Reference { of, position } => {
                    let from = position + skip;
                    let content = ContentRef::of(*of);
                    self.read_content(content, from, from + len as u64).await?
                }
            };
            if part == range {
                return Ok(bytes);
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// Discards a state whose content equals the last version: no version is made, only the attributes change.
    pub(crate) fn forget_equal(
        &self,
        file: &mut LockedFile<'_>,
        flush: &Arc<FlushedState>,
        attrs: &Attrs,
    ) -> Result<(), StoreError> {
        let mut node = file.node.clone();
        node.attrs = attrs.clone();
        if node != file.node || flush.session.is_some() {
            let dependencies = Dependencies {
                touches: vec![keys::inode(file.ino()).bytes()],
                ..Dependencies::default()
            };
            let mut txn = self.commit.txn(flush.at, dependencies);
            txn.byteless_flush = flush.session.map(|session| BytelessFlush {
                session,
                flush: flush.at,
                base: file.base,
            });
            if let Some(Dentry {
                parent: directory,
                name,
            }) = file.place()
            {
                txn.touch(keys::entry(*directory, name));
                txn.dependencies.within.push(*directory);
            }
            self.current_rows(
                &mut txn,
                file.ino(),
                file,
                &node,
                &file.state,
                file.alive_since(),
            );
            self.commit.enqueue(txn)?;
            file.set_node(node);
        }
        file.rebase(&flush.map);
        if !file.is_dirty() {
            file.discard_changes();
        }
        Ok(())
    }
}

/// Cuts a range into the parts that are compared at once.
fn steps(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    let start = move |at: u64| at..end.min(at + COMPARE_STEP);
    range.step_by(COMPARE_STEP as usize).map(start)
}
