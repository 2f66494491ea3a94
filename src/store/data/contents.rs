//! The contents of a namespace: those that are being uploaded, and how a content resolves to extents.
//!
//! Invariant: every [`ContentView`] has, of each content, either its staged bytes or its range rows.

use std::collections::HashMap;

use imbl::OrdMap;
use tokio::sync::watch;

use crate::cache::DirtySnapshot;
use crate::store::data::extent_map::{RANGE, chain, merge_chain, next_range};
use crate::store::data::hot_chains::HotChains;
use crate::store::index::current::Index;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{ContentRef, Ino, Timestamp};
use crate::store::schema::rows::{ExtentSlice, ExtentSource};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, RwLock, lock, read, write};

/// How far the upload of a flushed content is.
#[derive(Clone, Debug)]
pub(crate) enum UploadState {
    /// Its bytes are in memory and in staging files only.
    Waiting,
    /// The number of attempts that failed, and the reason of the last one; the upload is retried.
    Failed(u32, String),
    /// The bucket has its bytes, and its range rows are published.
    Uploaded,
}

/// A flushed content whose range rows are not published yet, with what its bytes are read from until then.
#[derive(Debug)]
pub(crate) struct PendingContent {
    pub(crate) content: ContentRef,
    pub(crate) ino: Ino,
    /// The file's directory entry, for the footer of a segment.
    pub(crate) place: Dentry,
    /// The content that the flushed spans were written over; `None` if there was none.
    pub(crate) base: Option<ContentBase>,
    /// Length of the content, bytes.
    pub(crate) len: u64,
    /// What was written and truncated since the base.
    pub(crate) flushed: DirtySnapshot,
    /// The base, if it was being uploaded when this content was made: this content's rows are composed after those of the base
    /// are published.
    pub(crate) after: Option<Arc<Self>>,
    /// Timestamp of the state of this lineage whose rows this content replaces: an unborn or provisional state that no other
    /// row shows.
    pub(crate) replaces: Option<Timestamp>,
    pub(crate) upload_state: watch::Sender<UploadState>,
}

impl PendingContent {
    /// Tells whether its range rows are published.
    pub(crate) fn is_uploaded(&self) -> bool {
        matches!(*self.upload_state.borrow(), UploadState::Uploaded)
    }

    /// Returns the shortest length in bytes to which the file was truncated since the base; `None` without a base, and if
    /// that is not below the base's length.
    pub(crate) fn truncation(&self) -> Option<u64> {
        let ContentBase {
            content: _,
            len: base_len,
        } = self.base?;
        self.flushed.cut().filter(|cut| *cut < base_len)
    }
}

/// A part of a file with the place of its bytes.
#[derive(Clone, Debug)]
pub(crate) enum ResolvedExtent {
    /// In memory, in a staging file, or in another content that is referenced.
    Staged(crate::cache::Source),
    /// In an extent: the extent, and the number of its bytes before the part.
    Stored(ExtentSource, u32),
    /// A hole, or zeros.
    Zero,
}

/// A content, and the number of one of its ranges.
type RangeId = (ContentRef, u64);

/// The contents of a namespace: those that are being uploaded, and a cache of resolved ranges of the others.
#[derive(Debug, Default)]
pub(crate) struct ContentStore {
    /// Contents whose range rows the index does not have yet. The lock is held while a content's rows enter the index, so that
    /// a [`ContentView`] has either the content or its rows.
    pending: RwLock<OrdMap<ContentRef, Arc<PendingContent>>>,
    /// For each watched lineage, one flag per watch, which is set when a content is added.
    watched: Mutex<HashMap<u64, Vec<Arc<AtomicBool>>>>,
    /// The slices of ranges that were resolved, at most [`RESOLVED_MAX`] ranges.
    resolved: Mutex<HashMap<RangeId, Arc<Vec<ExtentSlice>>>>,
    pub(super) hot_chains: HotChains,
}

/// Maximum number of resolved ranges in the cache; the next one empties it first.
const RESOLVED_MAX: usize = 8192;

/// One state of all contents: those that were being uploaded at one moment, and the range rows of the others at that moment.
///
/// Not for keeping, as for [`Snapshot`].
#[derive(Debug)]
pub(crate) struct ContentView<'a> {
    store: &'a ContentStore,
    pending: OrdMap<ContentRef, Arc<PendingContent>>,
    rows: Snapshot,
}

/// Tells whether a content was added to a lineage, or its rows were rearranged, since the watch began.
#[derive(Debug)]
pub(crate) struct LineageWatch<'a> {
    store: &'a ContentStore,
    cid: u64,
    disturbed: Arc<AtomicBool>,
}

impl LineageWatch<'_> {
    /// Tells whether no content was added to the lineage since the watch began, and none of it is being uploaded.
    pub(crate) fn is_undisturbed(&self) -> bool {
        let first = ContentRef {
            cid: self.cid,
            timestamp: Timestamp(0),
        };
        let last = ContentRef {
            timestamp: Timestamp(u64::MAX),
            ..first
        };
        let pending = read(&self.store.pending);
        !self.disturbed.load(Ordering::SeqCst) && pending.range(first..=last).next().is_none()
    }

    /// Disturbs the other watches of the lineage, and tells whether this one is undisturbed. Called under the queue's lock, right
    /// before an operation is queued that rearranges rows of the lineage: of two that read the same rows, one is queued.
    pub(crate) fn claim(&self) -> bool {
        let is_undisturbed = self.is_undisturbed();
        let watched = lock(&self.store.watched);
        for watch in watched.get(&self.cid).into_iter().flatten() {
            if is_undisturbed && !Arc::ptr_eq(watch, &self.disturbed) {
                watch.store(true, Ordering::SeqCst);
            }
        }
        is_undisturbed
    }
}

impl Drop for LineageWatch<'_> {
    fn drop(&mut self) {
        let mut watched = lock(&self.store.watched);
        if let Some(watches) = watched.get_mut(&self.cid) {
            watches.retain(|watch| !Arc::ptr_eq(watch, &self.disturbed));
            if watches.is_empty() {
                watched.remove(&self.cid);
            }
        }
    }
}

impl ContentStore {
    /// Adds a content that is read from its staged bytes until its rows are published.
    pub(crate) fn add(&self, pending: &Arc<PendingContent>) {
        for watch in lock(&self.watched)
            .get(&pending.content.cid)
            .into_iter()
            .flatten()
        {
            watch.store(true, Ordering::SeqCst);
        }
        write(&self.pending).insert(pending.content, Arc::clone(pending));
    }

    /// Drops the cached slices and rows of stored contents, inline bytes among them.
    pub(crate) fn drop_resolved(&self) {
        lock(&self.resolved).clear();
        self.hot_chains.clear();
    }

    /// Returns a content that is being uploaded; `None` if the index has its rows.
    pub(crate) fn pending(&self, content: ContentRef) -> Option<Arc<PendingContent>> {
        read(&self.pending).get(&content).cloned()
    }

    /// Watches a lineage for contents that are added to it.
    pub(crate) fn watch(&self, cid: u64) -> LineageWatch<'_> {
        let disturbed = Arc::new(AtomicBool::new(false));
        let mut watched = lock(&self.watched);
        watched.entry(cid).or_default().push(Arc::clone(&disturbed));
        LineageWatch {
            store: self,
            cid,
            disturbed,
        }
    }

    /// Removes a content that was not queued.
    pub(crate) fn remove(&self, content: ContentRef) {
        write(&self.pending).remove(&content);
    }

    /// Adds the rows of an uploaded content to the index by `add_rows`. Every view has either the content or its rows.
    pub(crate) fn publish(&self, content: ContentRef, add_rows: impl FnOnce()) {
        let mut pending = write(&self.pending);
        add_rows();
        pending.remove(&content);
    }

    /// Returns all contents as they are now.
    pub(crate) fn view(&self, index: &Index) -> ContentView<'_> {
        let pending = read(&self.pending);
        let rows = index.snapshot();
        ContentView {
            store: self,
            pending: pending.clone(),
            rows,
        }
    }
}

impl ContentView<'_> {
    /// Resolves `from..to` of a content, in bytes, to extents, ascending and without gaps.
    ///
    /// # Errors
    /// Errors of the meta store; `Corrupt` when a row cannot be decoded.
    pub(crate) async fn resolve(
        &self,
        content: ContentRef,
        from: u64,
        to: u64,
    ) -> Result<Vec<(u64, u64, ResolvedExtent)>, StoreError> {
        let mut out = Vec::new();
        let mut open = vec![(content, from, to, u64::MAX)];
        while let Some((content, from, to, limit)) = open.pop() {
            let shown = to.min(limit.max(from));
            if shown < to {
                out.push((shown, to, ResolvedExtent::Zero));
            }
            if from >= shown {
                continue;
            }
            let Some(pending) = self.pending.get(&content) else {
                self.stored(content, from, shown, &mut out).await?;
                continue;
            };
            for piece in pending.flushed.pieces(from..shown) {
                let (start, end) = (piece.range.start, piece.range.end);
                match (piece.source, pending.base) {
                    (Some(crate::cache::Source::Zero), _) | (None, None) => {
                        out.push((start, end, ResolvedExtent::Zero));
                    }
                    (Some(source), _) => out.push((start, end, ResolvedExtent::Staged(source))),
                    (None, Some(ContentBase { content: base, len })) => {
                        open.push((base, start, end, len));
                    }
                }
            }
        }
        out.sort_unstable_by_key(|(start, ..)| *start);
        Ok(out)
    }

    /// Adds to `out` the extents of `from..to`, in bytes, of a content that is not being uploaded.
    async fn stored(
        &self,
        content: ContentRef,
        from: u64,
        to: u64,
        out: &mut Vec<(u64, u64, ResolvedExtent)>,
    ) -> Result<(), StoreError> {
        let mut at = from;
        while at < to {
            let range = at / RANGE;
            let origin = range * RANGE;
            let end = to.min(origin + RANGE);
            for piece in self.store.pieces(&self.rows, content, range).await?.iter() {
                let wanted = ((at - origin) as u32, (end - origin) as u32);
                let Some(part) = piece.clip(wanted.0, wanted.1) else {
                    continue;
                };
                let start = origin + u64::from(part.start);
                if at < start {
                    out.push((at, start, ResolvedExtent::Zero));
                }
                at = start + u64::from(part.len);
                out.push((
                    start,
                    at,
                    match part.source {
                        ExtentSource::Zero => ResolvedExtent::Zero,
                        source => ResolvedExtent::Stored(source, part.skip),
                    },
                ));
            }
            let mut next = end;
            if at == origin && end < to {
                // A hole may be long: skip to the next range that may have a row.
                let behind = next_range(&self.rows, content, range + 1).await?;
                next = behind.map_or(to, |range| to.min(range.saturating_mul(RANGE)));
            }
            if at < next {
                out.push((at, next, ResolvedExtent::Zero));
            }
            at = next;
        }
        Ok(())
    }
}

impl ContentStore {
    /// Returns the slices of one range of an uploaded content, ascending; what no slice covers is a hole.
    ///
    /// # Errors
    /// Errors of the meta store; `Corrupt` when a row cannot be decoded.
    pub(crate) async fn pieces(
        &self,
        rows: &Snapshot,
        content: ContentRef,
        range: u64,
    ) -> Result<Arc<Vec<ExtentSlice>>, StoreError> {
        if let Some(known) = lock(&self.resolved).get(&(content, range)) {
            return Ok(Arc::clone(known));
        }
        let chain = chain(rows, content, range).await?;
        let pieces = Arc::new(merge_chain(&chain, range));
        let mut resolved = lock(&self.resolved);
        if resolved.len() >= RESOLVED_MAX {
            resolved.clear();
        }
        resolved.insert((content, range), Arc::clone(&pieces));
        Ok(pieces)
    }
}
