//! Packs flushed contents into segments, uploads the segments, and composes the range rows.
//!
//! Path: divide the spans of each content into chunks -> pack the chunks into segments as extents -> upload the segments
//! without holding a lock -> compose the range rows over those of the content's base -> publish them together with the
//! operation. A crash before the last step leaves segments that no row references, and a journal from which the next mount
//! uploads again.

use crate::backend::Lane;
use crate::cache::{Source as Staged, StagingFile};
use crate::meta::Batch;
use crate::store::data::DataStore;
use crate::store::data::chunks::{SegmentPlan, cuts, plan};
use crate::store::data::contents::{PendingContent, ResolvedExtent, UploadState};
use crate::store::data::early_moves::EarlySegment;
use crate::store::data::extent_map::{ChainRow, RANGE, next_range};
use crate::store::data::hot_chains::ComposedChain;
use crate::store::data::inline_backlog::INLINE_KEPT;
use crate::store::data::inline_compaction::CoalescedRow;
use crate::store::data::inline_run::inline_len;
use crate::store::data::range_row::NewRow;
use crate::store::data::segment::{FooterFile, SegmentBuilder};
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::ContentRef;
use crate::store::model::version::Timestamp;
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::rows::{ExtentSlice, ExtentSource, RangeRow, SegmentRow};
use crate::store::schema::tables::{RangeTable, RowKey};
use crate::sync::Arc;

/// Maximum number of inodes that the log line about a failed upload lists.
const INOS_TOLD: usize = 8;

/// A content whose bytes the bucket has, with the rows that say where. Only [`DataStore::compose`] makes one.
#[derive(Debug)]
pub(crate) struct Uploaded {
    content: Arc<PendingContent>,
    rows: Batch,
    /// Segments of early moves that the rows cite.
    early: Vec<EarlySegment>,
    chains: Vec<ComposedChain>,
}

/// Uploaded extents: the index of the content among those uploaded together, the offset in the file in bytes, the slice.
pub(crate) type UploadedExtents = Vec<(usize, u64, ExtentSlice)>;

impl DataStore {
    /// Records a failed attempt to upload contents: writes a warning, counts the failure for status output, and sets the upload state
    /// of each content. The state decides how long the uploader waits before the next attempt, and a caller of fsync gets its
    /// reason.
    pub(crate) fn upload_failed(&self, contents: &[Arc<PendingContent>], error: &StoreError) {
        self.core.health.failed(&error.to_string());
        let inos: Vec<u64> = contents.iter().take(INOS_TOLD).map(|p| p.ino.0).collect();
        tracing::warn!(files = contents.len(), ?inos, %error, "upload failed; trying again");
        for pending in contents {
            pending.upload_state.send_modify(|state| {
                let times = match state {
                    UploadState::Failed(times, _) => *times + 1,
                    _ => 1,
                };
                *state = UploadState::Failed(times, error.to_string());
            });
        }
        self.core.changed.notify_waiters();
    }

    /// Uploads the bytes of contents. Returns for each content its slices, with their offsets in the file in bytes. With
    /// `inline` no segment is uploaded: the slices hold the bytes, for the range rows.
    ///
    /// # Errors
    /// The first segment that fails ends the call: `Closed` when the writer ends, `Unavailable` when the store refuses a
    /// segment or a staging file cannot be read. While the store is out of reach, the upload is retried.
    pub(crate) async fn upload(
        self: &Arc<Self>,
        contents: &[Arc<PendingContent>],
        inline: bool,
    ) -> Result<Vec<Vec<(u64, ExtentSlice)>>, StoreError> {
        let mut pieces: Vec<Vec<(u64, ExtentSlice)>> = vec![Vec::new(); contents.len()];
        if inline {
            for (pending, pieces) in contents.iter().zip(&mut pieces) {
                for cut in cuts(pending.flushed.spans(), pending.len) {
                    let bytes = cut.bytes()?;
                    pieces.push((
                        cut.offset,
                        piece(cut.offset, ExtentSource::Inline(bytes), cut.len),
                    ));
                }
            }
            return Ok(pieces);
        }
        let links = |file: &StagingFile| self.core.backend.links(file.path());
        let plans = plan(contents, links);
        let uploads = plans.into_iter().map(|plan| {
            let (data, contents) = (Arc::clone(self), contents.to_vec());
            let task = self.core.tasks.spawn("upload", async move {
                data.upload_segment(plan, &contents).await
            });
            async move { task.await.map_err(|_| StoreError::Closed)? }
        });
        for uploaded in futures::future::try_join_all(uploads).await? {
            for (at, offset, piece) in uploaded {
                pieces[at].push((offset, piece));
            }
        }
        Ok(pieces)
    }

    /// Uploads one segment, by a hard link if the plan names a staging file and the store can link it.
    async fn upload_segment(
        self: Arc<Self>,
        plan: SegmentPlan,
        contents: &[Arc<PendingContent>],
    ) -> Result<UploadedExtents, StoreError> {
        let _permit = self
            .uploads
            .acquire()
            .await
            .map_err(|_| StoreError::Closed)?;
        if let Some(file) = &plan.file
            && let Some(uploaded) = self.link_segment(file, &plan.parts, contents).await?
        {
            return Ok(uploaded);
        }
        let id = self.new_segment();
        let owned = contents.to_vec();
        let built = self
            .core
            .tasks
            .blocking("pack", move || -> Result<_, StoreError> {
                let chunks = || plan.parts.iter().flat_map(|(_, chunks)| chunks);
                let bytes = chunks().map(|chunk| chunk.len).sum();
                let mut builder = SegmentBuilder::sized(id, bytes, chunks().count());
                let mut uploaded = Vec::new();
                for (at, cuts) in plan.parts {
                    let pending = &owned[at];
                    builder.file(footer_file(pending));
                    for cut in cuts {
                        let (ino, content, len) = (pending.ino, pending.content, cut.len as usize);
                        let read = |bytes: &mut [u8]| cut.read_into(bytes);
                        let source = builder.add_read(ino, content, cut.offset, len, read)?;
                        uploaded.push((at, cut.offset, piece(cut.offset, source, cut.len)));
                    }
                }
                Ok((builder.finish(), uploaded))
            });
        let (object, uploaded) = built.await.map_err(|_| StoreError::Closed)??;
        let key = id.key();
        let put = || {
            self.core
                .backend
                .upload(Lane::Segments, &key, object.clone())
        };
        self.persist(contents, put).await?;
        self.extents.keep(id, &object);
        Ok(uploaded)
    }

    /// Composes the range rows of a content whose bytes the bucket has. Waits until the rows of its base and of the contents it
    /// references are published.
    ///
    /// # Errors
    /// `Closed` and `Fenced` when the writer ends, `Corrupt` when a row cannot be decoded, `Unavailable` when the store refuses
    /// a segment of inline bytes. Reads of the index that fail with `Unavailable` are retried.
    pub(crate) async fn compose(
        self: &Arc<Self>,
        pending: &Arc<PendingContent>,
        mut pieces: Vec<(u64, ExtentSlice)>,
    ) -> Result<Uploaded, StoreError> {
        if let Some(before) = &pending.after {
            self.wait_uploaded(before).await?;
        }
        let uploaded = extents(pieces.iter().map(|(_, piece)| piece));
        let mut stored = 0;
        pieces.extend(self.again(pending, || self.zeros(pending)).await?);
        pieces.extend(self.again(pending, || self.cited(pending)).await?);
        let (mut rows, mut early, mut chains) = (Batch::new(), Vec::new(), Vec::new());
        let content = pending.content;
        for (range, pieces) in by_range(pieces) {
            self.count_inline(pending, range, inline_len(&pieces));
            let compose = || {
                let (index, pieces) = (&self.core.index, pieces.clone());
                async move { self.contents.new_row(index, pending, range, pieces).await }
            };
            let NewRow {
                row,
                mut replaced,
                below,
            } = self.again(pending, compose).await?;
            if self.pins.is_pinned(content.cid) {
                replaced.retain(|old| Some(old.content.timestamp) == pending.replaces);
            }
            let known = extents(row.pieces());
            let CoalescedRow { row, cited } = self.coalesce(pending, range, row).await?;
            early.extend(cited);
            let new = extents(row.pieces()).into_iter();
            let new = new.filter(|(at, _)| uploaded.contains_key(at) || !known.contains_key(at));
            stored += new.map(|(_, len)| i64::from(len)).sum::<i64>();
            self.put_range(
                &mut rows,
                keys::range(content.cid, range, content.timestamp),
                &row,
            );
            for ChainRow {
                content: old, row, ..
            } in replaced
            {
                self.cite(&mut rows, &row, -1, content.timestamp);
                keys::range(old.cid, range, old.timestamp).delete(&mut rows);
            }
            chains.extend(below.map(|below| below.under(content, range, &row)));
        }
        amounts::store(&mut rows, stored);
        if let Some(cut) = pending.truncation() {
            keys::cut(content.cid, content.timestamp).put(&mut rows, &cut);
        }
        Ok(Uploaded {
            content: Arc::clone(pending),
            rows,
            early,
            chains,
        })
    }

    /// Gives the rows of an uploaded content to `publish`, which shows them to readers; the content's bytes are read through
    /// the rows from then on.
    pub(crate) fn publish(&self, uploaded: Uploaded, publish: impl FnOnce(Batch)) {
        let Uploaded {
            content,
            rows,
            early,
            chains,
        } = uploaded;
        self.contents.publish(content.content, || publish(rows));
        for chain in chains {
            self.contents.hot_chains.add(chain);
        }
        early.into_iter().for_each(EarlySegment::settled);
        content.upload_state.send_replace(UploadState::Uploaded);
        // At once, and not after the whole group: another content of the group may wait for the bucket for long.
        self.core.changed.notify_waiters();
    }

    /// Returns the zero spans of a content (punched holes) as slices of zeros, only in ranges that may have rows to be hidden.
    async fn zeros(&self, pending: &PendingContent) -> Result<Vec<(u64, ExtentSlice)>, StoreError> {
        let mut out = Vec::new();
        let under = [Some(pending.content), pending.base.map(|base| base.content)];
        let rows = self.core.index.snapshot();
        for span in pending.flushed.spans() {
            let (mut at, end) = (span.offset, span.end().min(pending.len));
            while matches!(span.source, Staged::Zero) && at < end {
                let range = at / RANGE;
                let mut hidden = None;
                for content in under.into_iter().flatten() {
                    let next = next_range(&rows, content, range).await?;
                    hidden = [hidden, next].into_iter().flatten().min();
                }
                let Some(hidden) = hidden else { break };
                at = at.max(hidden.saturating_mul(RANGE));
                let next = end.min((at / RANGE + 1).saturating_mul(RANGE));
                if at < next {
                    out.push((at, piece(at, ExtentSource::Zero, next - at)));
                }
                at = at.max(next);
            }
        }
        Ok(out)
    }

    /// Returns the bytes that a content references in other contents, as slices of the extents of those.
    async fn cited(&self, pending: &PendingContent) -> Result<Vec<(u64, ExtentSlice)>, StoreError> {
        let mut out = Vec::new();
        for span in pending.flushed.spans() {
            let Staged::Reference { of, position } = span.source else {
                continue;
            };
            let content = ContentRef::of(of);
            // A content references only contents that were queued before it, so no two contents wait for each other.
            if let Some(before) = self.contents.pending(content) {
                self.wait_uploaded(&before).await?;
            }
            let end = span.end().min(pending.len);
            let to = position + end.saturating_sub(span.offset);
            let view = self.contents.view(&self.core.index);
            for (from, to, stretch) in view.resolve(content, position, to).await? {
                let (source, skip) = match stretch {
                    ResolvedExtent::Zero => (ExtentSource::Zero, 0),
                    ResolvedExtent::Stored(source, skip) => (source, skip),
                    ResolvedExtent::Staged(_) => {
                        let text = format!("a referenced content is not uploaded: {content:?}");
                        return Err(StoreError::Corrupt(text));
                    }
                };
                let start = span.offset + (from - position);
                out.extend(split(start, to - from, &source, skip));
            }
        }
        Ok(out)
    }

    /// Adds to `rows` a range row of a new state, or a range row in the place of one whose reference counts the caller removes.
    /// Its lineage is marked if the row has inline bytes that are to be moved into a segment.
    pub(crate) fn put_range(&self, rows: &mut Batch, key: RowKey<RangeTable>, row: &RangeRow) {
        let at = keys::trailing_timestamp(&key).unwrap_or(Timestamp(0));
        self.cite(rows, row, 1, at);
        if let Some(cid) = keys::lineage_of(&key)
            && row.inline_bytes() > INLINE_KEPT as i64
        {
            keys::inline(cid).put(rows, &());
            self.inline_backlog.add(row.inline_bytes());
        }
        key.put(rows, row);
    }

    /// Adds to `rows` the change of the reference count of each extent that `row` cites, by `by`: 1 for a new range row, -1 for
    /// a deleted one. If `by` is negative, also adds a `G E` row for each segment, so that garbage collection reviews it; `at`
    /// is the timestamp of the operation or content.
    pub(crate) fn cite(&self, rows: &mut Batch, row: &RangeRow, by: i64, at: Timestamp) {
        let mut cited: std::collections::BTreeMap<(u64, u64), SegmentRow> =
            std::collections::BTreeMap::new();
        amounts::store(rows, by * row.inline_bytes());
        for piece in row.pieces() {
            if let ExtentSource::Segment {
                epoch,
                sequence,
                offset,
                len,
                ..
            } = &piece.source
            {
                cited
                    .entry((*epoch, *sequence))
                    .or_default()
                    .extents
                    .insert(*offset, (*len, by));
            }
        }
        for ((epoch, sequence), row) in cited {
            keys::segment(epoch, sequence).merge(rows, &row);
            if by < 0 {
                keys::emptied(epoch, sequence, at).put(rows, &());
            }
        }
    }
}

/// Returns the extents that slices show, by segment epoch, sequence and offset, with their lengths in bytes.
fn extents<'a>(
    pieces: impl IntoIterator<Item = &'a ExtentSlice>,
) -> std::collections::BTreeMap<(u64, u64, u32), u32> {
    let place = |piece: &ExtentSlice| match piece.source {
        ExtentSource::Segment {
            epoch,
            sequence,
            offset,
            len,
            ..
        } => Some(((epoch, sequence, offset), len)),
        ExtentSource::Inline(_) | ExtentSource::Zero => None,
    };
    pieces.into_iter().filter_map(place).collect()
}

/// Returns the footer entry of a content's file.
pub(crate) fn footer_file(pending: &PendingContent) -> FooterFile {
    let Dentry {
        parent: directory,
        name,
    } = pending.place.clone();
    FooterFile {
        ino: pending.ino,
        directory,
        name,
        len: pending.len,
    }
}

/// Returns the slice at `offset` of the file that shows the first `len` bytes of an extent.
pub(crate) fn piece(offset: u64, source: ExtentSource, len: u64) -> ExtentSlice {
    ExtentSlice {
        start: (offset % RANGE) as u32,
        len: len as u32,
        skip: 0,
        source,
    }
}

/// Returns the slices that show `len` bytes of an extent, after its first `skip` bytes, at `start` of the file: one per range.
fn split(start: u64, len: u64, source: &ExtentSource, skip: u32) -> Vec<(u64, ExtentSlice)> {
    let (mut at, end) = (start, start + len);
    let mut out = Vec::new();
    while at < end {
        let next = end.min((at / RANGE + 1) * RANGE);
        let mut part = piece(at, source.clone(), next - at);
        part.skip = skip + (at - start) as u32;
        if let ExtentSource::Inline(bytes) = source {
            let from = part.skip as usize;
            part.source = ExtentSource::Inline(bytes.slice(from..from + part.len as usize));
            part.skip = 0;
        }
        if *source == ExtentSource::Zero {
            part.skip = 0;
        }
        out.push((at, part));
        at = next;
    }
    out
}

/// Groups slices, given with their offsets in the file, by range; ascending in each.
fn by_range(pieces: Vec<(u64, ExtentSlice)>) -> std::collections::BTreeMap<u64, Vec<ExtentSlice>> {
    let mut ranges: std::collections::BTreeMap<u64, Vec<ExtentSlice>> =
        std::collections::BTreeMap::new();
    for (offset, piece) in pieces {
        ranges.entry(offset / RANGE).or_default().push(piece);
    }
    for pieces in ranges.values_mut() {
        pieces.sort_unstable_by_key(|p| p.start);
    }
    ranges
}
