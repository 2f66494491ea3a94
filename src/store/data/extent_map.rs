//! Contents: the range rows of a lineage, whole or as deltas, and how they resolve to slices of extents at a timestamp.
//!
//! Invariant: the bytes of a (lineage, timestamp) never change once a version has them. A later state of the lineage adds rows
//! with its own timestamp and replaces only rows that no version shows; garbage collection rearranges rows without changing what
//! versions show. A truncation row clips every row with an older timestamp.

use std::collections::HashMap;

use bytes::Bytes;
use imbl::OrdMap;
use tokio::sync::watch;

use crate::cache::DirtySnapshot;
use crate::store::index::overlay::Index;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{ContentRef, Ino, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::{ExtentSlice, ExtentSource, RangeRow};
use crate::store::schema::tables::{CutTable, RangeTable, RowTable};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, RwLock, lock, read, write};

/// Bytes of a content that one range row describes.
pub(crate) const RANGE: u64 = 8 << 20;
/// A range's new row is written whole when its chain, the rows that it would be merged over, already has this many rows.
const DELTAS_MAX: usize = 16;

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
    /// The bytes that differ from the base.
    pub(crate) flushed: DirtySnapshot,
    /// The base, if that was being uploaded too: this content's rows are composed after those of the base are published.
    pub(crate) after: Option<Arc<Self>>,
    /// Timestamp of the state of this lineage whose rows this content replaces: an unborn or provisional state that no other row
    /// shows.
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
    pub(crate) fn cut(&self) -> Option<u64> {
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

/// Tells whether a content was added to a lineage since the watch began.
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
        let pieces = Arc::new(lay(&chain, range));
        let mut resolved = lock(&self.resolved);
        if resolved.len() >= RESOLVED_MAX {
            resolved.clear();
        }
        resolved.insert((content, range), Arc::clone(&pieces));
        Ok(pieces)
    }

    /// Returns the row that shows `pieces` over the bytes that the base has in this range: a delta; or a whole row if the
    /// base has nothing there, its chain is long, or the row that this one replaces is whole. With it, the timestamp of the
    /// replaced row, which the caller deletes.
    ///
    /// # Errors
    /// Errors of the meta store; `Corrupt` when a row cannot be decoded.
    pub(crate) async fn compose(
        &self,
        rows: &Snapshot,
        pending: &PendingContent,
        range: u64,
        pieces: Vec<ExtentSlice>,
    ) -> Result<(RangeRow, Option<Timestamp>), StoreError> {
        let Some(ContentBase {
            content: base,
            len: base_len,
        }) = pending.base
        else {
            return Ok((RangeRow::Whole(pieces), None));
        };
        if base_len.min(pending.cut().unwrap_or(u64::MAX)) <= range * RANGE {
            return Ok((RangeRow::Whole(pieces), None));
        }
        let mut chain = chain(rows, base, range).await?;
        chain.cut(pending.cut().unwrap_or(base_len));
        let newest = chain.links.first().map(|link| link.at);
        let own = base.cid == pending.content.cid && pending.cut().is_none();
        let replaced = newest.filter(|at| own && Some(*at) == pending.replaces);
        if chain.links.len() >= DELTAS_MAX || chain.links.is_empty() {
            chain.links.insert(
                0,
                ChainRow {
                    at: pending.content.timestamp,
                    row: RangeRow::Delta(pieces),
                    limit: u64::MAX,
                },
            );
            return Ok((RangeRow::Whole(lay(&chain, range)), replaced));
        }
        let Some(replaced) = replaced else {
            return Ok((RangeRow::Delta(pieces), None));
        };
        let under = chain.links.remove(0);
        let merged = over(under.row.pieces(), &pieces);
        let row = match under.row {
            RangeRow::Whole(_) => RangeRow::Whole(merged),
            RangeRow::Delta(_) => RangeRow::Delta(merged),
        };
        Ok((row, Some(replaced)))
    }
}

/// A row of a range, and the shortest later truncation: the row's bytes at offsets of the file from `limit` on are hidden.
#[derive(Debug)]
struct ChainRow {
    at: Timestamp,
    row: RangeRow,
    limit: u64,
}

/// The rows of a range, newest first, down to the newest whole row.
#[derive(Debug)]
struct RangeChain {
    links: Vec<ChainRow>,
}

impl RangeChain {
    /// Truncates the rows to `len` bytes of the file.
    fn cut(&mut self, len: u64) {
        for link in &mut self.links {
            link.limit = link.limit.min(len);
        }
    }
}

/// Returns the lowest range, from `range` on, for which the content's lineage or one that it began over may have a row; `None` if
/// there is only a hole.
///
/// # Errors
/// Errors of the meta store; `Corrupt` when a row cannot be decoded.
pub(crate) async fn next_range(
    rows: &Snapshot,
    content: ContentRef,
    range: u64,
) -> Result<Option<u64>, StoreError> {
    let (mut cid, mut next) = (content.cid, None);
    loop {
        let start = keys::range(cid, range, Timestamp(u64::MAX));
        let end = keys::after(&keys::ranges(cid));
        let found = rows.first(start.bytes(), end).await?;
        let own = found.and_then(|(key, _)| keys::range_number(&key));
        next = [next, own].into_iter().flatten().min();
        let parent = rows.row(&keys::lineage(cid)).await?;
        let Some(row) = parent.filter(|row| range.saturating_mul(RANGE) < row.len) else {
            return Ok(next);
        };
        cid = row.parent.cid;
    }
}

/// Returns the rows of a range that a content shows: those of its lineage, then those of the lineages it began over, down to the
/// newest whole row.
async fn chain(rows: &Snapshot, content: ContentRef, range: u64) -> Result<RangeChain, StoreError> {
    let (mut links, mut content, mut limit) = (Vec::new(), content, u64::MAX);
    loop {
        let (mut own, whole) = own_rows(rows, content, range).await?;
        let oldest = match own.last() {
            Some(last) if whole => last.at,
            _ => Timestamp(0),
        };
        let cuts = own_cuts(rows, content, oldest).await?;
        for link in &mut own {
            let later = cuts.iter().filter(|(at, _)| link.at < *at);
            link.limit = later.map(|(_, len)| *len).fold(limit, u64::min);
        }
        links.append(&mut own);
        if whole {
            break;
        }
        let Some(row) = rows.row(&keys::lineage(content.cid)).await? else {
            break;
        };
        limit = cuts
            .iter()
            .map(|(_, len)| *len)
            .fold(limit.min(row.len), u64::min);
        if limit <= range * RANGE {
            break;
        }
        content = row.parent;
    }
    Ok(RangeChain { links })
}

/// Returns a range's rows of one lineage from the content's timestamp down, newest first, and whether the last one is whole.
async fn own_rows(
    rows: &Snapshot,
    content: ContentRef,
    range: u64,
) -> Result<(Vec<ChainRow>, bool), StoreError> {
    let mut links: Vec<ChainRow> = Vec::new();
    let mut from = keys::range(content.cid, range, content.timestamp).bytes();
    loop {
        let end = keys::range_end(content.cid, range);
        let found = rows.scan(from.clone(), end, DELTAS_MAX + 2).await?;
        let full = found.len() == DELTAS_MAX + 2;
        for (key, value) in found {
            let row: RangeRow = RangeTable::decode(&value)?;
            let at = keys::trailing_instant(&key)
                .ok_or_else(|| StoreError::Corrupt("C F key: no timestamp".to_owned()))?;
            let whole = matches!(row, RangeRow::Whole(_));
            links.push(ChainRow {
                at,
                row,
                limit: u64::MAX,
            });
            if whole {
                return Ok((links, true));
            }
            from = [&key[..], &[0]].concat().into();
        }
        if !full {
            return Ok((links, false));
        }
    }
}

/// Returns the truncations of one lineage after `oldest` and up to the content's timestamp, with their lengths in bytes.
async fn own_cuts(
    rows: &Snapshot,
    content: ContentRef,
    oldest: Timestamp,
) -> Result<Vec<(Timestamp, u64)>, StoreError> {
    let from = keys::cut(content.cid, content.timestamp).bytes();
    let found = rows
        .scan(from, keys::cut(content.cid, oldest).bytes(), usize::MAX)
        .await?;
    let cut = |(key, value): (Bytes, Bytes)| {
        let at = keys::trailing_instant(&key)
            .ok_or_else(|| StoreError::Corrupt("C K key: no timestamp".to_owned()))?;
        Ok((at, CutTable::decode(&value)?))
    };
    found.into_iter().map(cut).collect()
}

/// Merges the rows of a chain into the slices that they show, ascending, without zeros.
fn lay(chain: &RangeChain, range: u64) -> Vec<ExtentSlice> {
    let origin = range * RANGE;
    let mut pieces: Vec<ExtentSlice> = Vec::new();
    for link in chain.links.iter().rev() {
        let end = link.limit.saturating_sub(origin).min(RANGE) as u32;
        let own: Vec<ExtentSlice> = link
            .row
            .pieces()
            .iter()
            .filter_map(|p| p.clip(0, end))
            .collect();
        pieces = match link.row {
            RangeRow::Whole(_) => own,
            RangeRow::Delta(_) => over(&pieces, &own),
        };
    }
    pieces.retain(|p| p.source != ExtentSource::Zero);
    pieces
}

/// Returns the slices of `top` and the parts of `under` that `top` does not cover. The arguments and the result are ascending and
/// do not overlap.
pub(crate) fn over(under: &[ExtentSlice], top: &[ExtentSlice]) -> Vec<ExtentSlice> {
    let mut out = Vec::with_capacity(under.len() + top.len());
    for piece in under {
        let mut from = piece.start;
        for cover in top
            .iter()
            .filter(|t| t.end() > piece.start && t.start < piece.end())
        {
            out.extend(piece.clip(from, cover.start));
            from = from.max(cover.end());
        }
        out.extend(piece.clip(from, piece.end()));
    }
    out.extend(top.iter().cloned());
    out.sort_unstable_by_key(|p| p.start);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u32, len: u32, byte: u8) -> ExtentSlice {
        ExtentSlice {
            start,
            len,
            skip: 0,
            source: ExtentSource::Inline(Bytes::from(vec![byte; len as usize])),
        }
    }

    fn shown(pieces: &[ExtentSlice]) -> String {
        let mut text = String::new();
        for p in pieces {
            let ExtentSource::Inline(bytes) = &p.source else {
                continue;
            };
            while text.len() < p.start as usize {
                text.push('.');
            }
            text.extend(
                bytes[p.skip as usize..(p.skip + p.len) as usize]
                    .iter()
                    .map(|b| *b as char),
            );
        }
        text
    }

    #[test]
    fn a_delta_hides_only_what_it_covers() {
        let under = [piece(0, 4, b'a'), piece(6, 4, b'b')];
        assert_eq!(shown(&over(&under, &[piece(2, 6, b'x')])), "aaxxxxxxbb");
        assert_eq!(
            shown(&over(&under, &[piece(1, 1, b'x'), piece(3, 1, b'y')])),
            "axay..bbbb"
        );
        assert_eq!(shown(&over(&under, &[])), "aaaa..bbbb");
    }

    #[test]
    fn a_truncation_clips_older_rows_only() {
        let chain = RangeChain {
            links: vec![
                ChainRow {
                    at: Timestamp(3),
                    row: RangeRow::Delta(vec![piece(6, 2, b'n')]),
                    limit: u64::MAX,
                },
                ChainRow {
                    at: Timestamp(1),
                    row: RangeRow::Whole(vec![piece(0, 8, b'o')]),
                    limit: 4,
                },
            ],
        };
        assert_eq!(shown(&lay(&chain, 0)), "oooo..nn");
        assert_eq!(shown(&lay(&chain, 1)), "......nn");
    }
}
