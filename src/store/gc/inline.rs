//! Moves inline bytes from range rows into segments: rows with more of them than stay there, which an fsync wrote because a
//! caller waited for one round trip instead of two.
//!
//! A row of a lineage is marked (`G i`) in the batch that writes it. A pass reads the marks, uploads the bytes of many lineages
//! in one segment, and then rewrites the rows of each lineage in one operation, if no content was added to the lineage since
//! its rows were read. A crash before that operation is durable leaves a segment without references, which the search for
//! uncited segments deletes. A lineage in use keeps its mark for a later pass.
//! Invariant: a row shows the same bytes before and after. While versions are forgotten nothing is moved, so that forgetting
//! finds the inline bytes where it saw them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::backend::Lane;
use crate::store::data::contents::LineageWatch;
use crate::store::data::early_moves::PausedEarlyMoves;
use crate::store::data::inline_backlog::INLINE_KEPT;
use crate::store::data::segment::{FooterFile, SEGMENT_MAX, SegmentBuilder};
use crate::store::gc::Gc;
use crate::store::gc::state::PausedMoves;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Ino};
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::rows::{ExtentSlice, ExtentSource, RangeRow};
use crate::store::schema::tables::{ForgottenTable, InlineTable, RangeTable, RowKey, RowTable};

/// A lineage whose rows have inline bytes to be moved.
struct InlineLineage<'a> {
    cid: u64,
    watch: LineageWatch<'a>,
    rows: Vec<InlineRow>,
    /// The inline bytes of these rows.
    bytes: u64,
}

/// A range row with inline bytes.
struct InlineRow {
    key: RowKey<RangeTable>,
    content: ContentRef,
    row: RangeRow,
}

/// The segment of a pass: the place of each slice's bytes in it. Equal bytes have one place.
struct MovedBytes {
    builder: SegmentBuilder,
    places: BTreeMap<Bytes, ExtentSource>,
}

impl MovedBytes {
    /// Adds the inline bytes of a row.
    fn add(&mut self, row: &InlineRow) {
        for slice in row.row.pieces() {
            let ExtentSource::Inline(bytes) = &slice.source else {
                continue;
            };
            if !self.places.contains_key(bytes) {
                let at = u64::from(slice.start);
                let place = self.builder.add(Ino(0), row.content, at, bytes);
                self.places.insert(bytes.clone(), place);
            }
        }
    }

    /// Returns the row with its inline bytes in the segment.
    fn moved(&self, row: &RangeRow) -> RangeRow {
        let piece = |slice: &ExtentSlice| match &slice.source {
            ExtentSource::Inline(bytes) => ExtentSlice {
                source: self.places.get(bytes).unwrap_or(&slice.source).clone(),
                ..slice.clone()
            },
            ExtentSource::Segment { .. } | ExtentSource::Zero => slice.clone(),
        };
        let pieces = row.pieces().iter().map(piece).collect();
        match row {
            RangeRow::Whole(_) => RangeRow::Whole(pieces),
            RangeRow::Delta(_) => RangeRow::Delta(pieces),
        }
    }
}

impl Gc {
    /// Keeps inline bytes where they are until the result is dropped. Returns after a pass that runs.
    pub(crate) async fn pause_inline(&self) -> (PausedMoves, PausedEarlyMoves) {
        let paused = PausedMoves::new(&self.inline_moves);
        drop(self.turn.lock().await);
        (paused, self.data.pause_early_moves().await)
    }

    /// Moves the inline bytes of marked lineages that are not in use; no cycle runs meanwhile. Returns the number of lineages.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`; a later pass moves the rest.
    pub(crate) async fn move_inline(&self) -> Result<usize, StoreError> {
        let turn = self.turn.lock().await;
        if turn.closed || self.inline_moves.are_paused() || self.is_forgetting().await? {
            return Ok(0);
        }
        self.data.inline_backlog.begin();
        let moved = self.move_marked().await;
        // What a failed pass leaves is moved by a later one.
        moved.inspect_err(|_| self.data.inline_backlog.add(0))
    }

    /// Moves the inline bytes of all marked lineages that are not in use.
    async fn move_marked(&self) -> Result<usize, StoreError> {
        let (from, end) = (InlineTable::all(), keys::after(&InlineTable::PREFIX));
        let marks = self.core.index.scan(from, end, usize::MAX).await?;
        let (mut done, mut chosen, mut bytes) = (0, Vec::new(), 0);
        for (mark, _) in &marks {
            let cid = keys::marked_inline(mark)
                .ok_or_else(|| StoreError::Corrupt("G i key".to_owned()))?;
            let Some(lineage) = self.inline_lineage(cid).await? else {
                self.data.inline_backlog.add(0);
                continue;
            };
            if bytes + lineage.bytes > SEGMENT_MAX && !chosen.is_empty() {
                done += self.move_together(std::mem::take(&mut chosen)).await?;
                bytes = 0;
            }
            bytes += lineage.bytes;
            chosen.push(lineage);
        }
        if !chosen.is_empty() {
            done += self.move_together(chosen).await?;
        }
        Ok(done)
    }

    /// Tells whether versions are being forgotten, also by a call that a crash or an error has ended.
    async fn is_forgetting(&self) -> Result<bool, StoreError> {
        let (from, end) = (ForgottenTable::all(), keys::after(&ForgottenTable::PREFIX));
        Ok(!self.core.index.scan(from, end, 1).await?.is_empty())
    }

    /// Reads the rows of a marked lineage; `None` if it is in use.
    async fn inline_lineage(&self, cid: u64) -> Result<Option<InlineLineage<'_>>, StoreError> {
        let watch = self.data.contents.watch(cid);
        let last = self.commit.queue.last_on(&keys::counts(cid), None);
        // A replay of the journal composes contents again that are not durable: their rows must be as they were.
        let is_durable = last.iter().all(|o| o.content.is_none());
        if !is_durable || !self.is_left_alone(cid, &watch) {
            return Ok(None);
        }
        let from = keys::ranges(cid);
        let end = keys::after(&from);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (key, value) in self.core.index.scan(from, end, usize::MAX).await? {
            let row: RangeRow = RangeTable::decode(&value)?;
            if row.inline_bytes() <= INLINE_KEPT as i64 {
                continue;
            }
            let timestamp = keys::trailing_timestamp(&key)
                .ok_or_else(|| StoreError::Corrupt("C F key: no timestamp".to_owned()))?;
            bytes += row.inline_bytes().unsigned_abs();
            rows.push(InlineRow {
                key: RowKey::scanned(key)?,
                content: ContentRef { cid, timestamp },
                row,
            });
            if bytes >= SEGMENT_MAX / 2 {
                // The mark stays, and the next pass finds the rest.
                break;
            }
        }
        Ok(Some(InlineLineage {
            cid,
            watch,
            rows,
            bytes,
        }))
    }

    /// Uploads the inline bytes of lineages in one segment and rewrites their rows. Returns for how many of them it did.
    async fn move_together(&self, lineages: Vec<InlineLineage<'_>>) -> Result<usize, StoreError> {
        let mut in_flight = self.data.in_flight(self.data.next_segment());
        let id = self.data.new_segment();
        let mut moved = MovedBytes {
            builder: SegmentBuilder::new(id),
            places: BTreeMap::new(),
        };
        moved.builder.file(FooterFile {
            ino: Ino(0),
            directory: Ino(0),
            name: Bytes::new(),
            len: 0,
        });
        for row in lineages.iter().flat_map(|lineage| &lineage.rows) {
            moved.add(row);
        }
        if !moved.places.is_empty() {
            let object = std::mem::replace(&mut moved.builder, SegmentBuilder::new(id)).finish();
            let key = id.key();
            let uploading = self.core.backend.upload(Lane::Segments, &key, object);
            if let Err(error) = uploading.await {
                in_flight.failed();
                return Err(error.into());
            }
        }
        let (mut done, mut cited) = (0, BTreeMap::new());
        for lineage in &lineages {
            let rewritten = self.rewrite_inline(lineage, &moved, &mut cited);
            match rewritten.inspect_err(|_| in_flight.failed())? {
                true => done += 1,
                false => self.data.inline_backlog.add(0),
            }
        }
        if cited.is_empty() && !moved.places.is_empty() {
            // No row shows the copy; the next mount's search for uncited segments deletes it if this does not.
            in_flight.failed();
            self.core.backend.delete(&id.key()).await?;
        }
        Ok(done)
    }

    /// Queues the operation that rewrites the rows of a lineage; returns false if the lineage was used meanwhile. `cited` has the
    /// offsets of the segment's extents that rows cite.
    fn rewrite_inline(
        &self,
        lineage: &InlineLineage<'_>,
        moved: &MovedBytes,
        cited: &mut BTreeMap<u32, u32>,
    ) -> Result<bool, StoreError> {
        let mut txn = self.gc_txn(vec![keys::counts(lineage.cid)]);
        let mut stored = BTreeMap::new();
        for InlineRow { key, row, .. } in &lineage.rows {
            self.data.cite(&mut txn.rows, row, -1, txn.timestamp);
            let new = moved.moved(row);
            let placed = new.pieces().iter().zip(row.pieces());
            for (new, _) in placed.filter(|(new, old)| new.source != old.source) {
                if let ExtentSource::Segment { offset, len, .. } = new.source {
                    stored.insert(offset, len);
                }
            }
            self.data.put_range(&mut txn.rows, key.clone(), &new);
        }
        let first = stored
            .iter()
            .filter(|(offset, _)| !cited.contains_key(offset));
        let bytes = first.map(|(_, len)| i64::from(*len)).sum();
        amounts::store(&mut txn.rows, bytes);
        if lineage.bytes < SEGMENT_MAX / 2 {
            txn.delete(keys::inline(lineage.cid));
        } else {
            self.data.inline_backlog.add(0);
        }
        let is_free = || self.is_left_alone(lineage.cid, &lineage.watch) && lineage.watch.claim();
        let is_queued = self.commit.enqueue_if(txn, is_free)?.is_some();
        if is_queued {
            cited.extend(stored);
        }
        Ok(is_queued)
    }
}
