//! Extents of which rows show a part only: the hidden part may be what was to be forgotten, so the shown part becomes an extent of its own.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::backend::Lane;
use crate::store::data::contents::LineageWatch;
use crate::store::data::segment::{FooterFile, SegmentBuilder};
use crate::store::forget::Forgetter;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Ino, Timestamp};
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::rows::{ExtentSlice, ExtentSource, RangeRow};
use crate::store::schema::tables::{RangeTable, RowKey, RowTable};

/// A range row with slices that hide a part of their extent.
struct PartialRow {
    key: Bytes,
    row: RangeRow,
}

/// What takes the place of a range row, and the segment with its new extents.
struct TrimmedRow {
    row: RangeRow,
    builder: SegmentBuilder,
    /// The bytes of the new extents.
    stored: u32,
}

/// Tells whether a slice shows a part of its extent only.
fn is_partial(slice: &ExtentSlice) -> bool {
    match &slice.source {
        ExtentSource::Segment { len, .. } => slice.skip > 0 || slice.len < *len,
        ExtentSource::Inline(bytes) => slice.skip > 0 || (slice.len as usize) < bytes.len(),
        ExtentSource::Zero => false,
    }
}

impl Forgetter {
    /// Replaces the extents of which the rows of these lineages show a part only. Returns whether a lineage was in use, so that it is to
    /// be looked at again.
    pub(super) async fn trim(&self, lineages: &BTreeSet<u64>) -> Result<bool, StoreError> {
        let mut is_busy = false;
        for cid in lineages {
            is_busy |= !self.trim_lineage(*cid).await?;
        }
        Ok(is_busy)
    }

    /// Replaces the partly shown extents of one lineage; returns false if it is in use.
    async fn trim_lineage(&self, cid: u64) -> Result<bool, StoreError> {
        let watch = self.data.contents.watch(cid);
        let from = keys::ranges(cid);
        let rows = self
            .core
            .index
            .scan(from.clone(), keys::after(&from), usize::MAX);
        for (key, value) in rows.await? {
            let row: RangeRow = RangeTable::decode(&value)?;
            if !row.pieces().iter().any(is_partial) {
                continue;
            }
            if !self.is_free(cid, &watch) {
                return Ok(false);
            }
            if !self.trim_row(cid, PartialRow { key, row }, &watch).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_free(&self, cid: u64, watch: &LineageWatch<'_>) -> bool {
        !self.data.pins.is_pinned(cid) && watch.is_undisturbed()
    }

    /// Replaces the partly shown extents of one row; returns false if its lineage is in use.
    async fn trim_row(
        &self,
        cid: u64,
        PartialRow { key, row }: PartialRow,
        watch: &LineageWatch<'_>,
    ) -> Result<bool, StoreError> {
        let at = keys::trailing_timestamp(&key)
            .ok_or_else(|| StoreError::Corrupt("C F key: no timestamp".to_owned()))?;
        let mut in_flight = self.data.in_flight(self.data.next_segment());
        let id = self.data.new_segment();
        let content = ContentRef { cid, timestamp: at };
        let TrimmedRow {
            row: trimmed,
            builder,
            stored,
        } = self.trimmed(&row, content, SegmentBuilder::new(id)).await?;
        let object_key = id.key();
        if stored > 0 {
            let object = builder.finish();
            let backend = &self.core.backend;
            let uploading = backend.upload(Lane::Segments, &object_key, object);
            if let Err(error) = uploading.await {
                in_flight.failed();
                return Err(error.into());
            }
        }
        let mut txn = self.gc.gc_txn(vec![keys::counts(cid)]);
        let time: Timestamp = txn.timestamp;
        self.data.cite(&mut txn.rows, &row, -1, time);
        amounts::store(&mut txn.rows, i64::from(stored));
        self.data
            .put_range(&mut txn.rows, RowKey::scanned(key)?, &trimmed);
        let queued = self
            .commit
            .enqueue_if(txn, || self.is_free(cid, watch) && watch.claim())
            .inspect_err(|_| in_flight.failed())?;
        if queued.is_none() && stored > 0 {
            // No row shows the copy; the next mount's search for uncited segments deletes it if this does not.
            in_flight.failed();
            self.core.backend.delete(&object_key).await?;
        }
        Ok(queued.is_some())
    }

    /// Returns a row that shows the same bytes, and hides none.
    async fn trimmed(
        &self,
        row: &RangeRow,
        content: ContentRef,
        mut builder: SegmentBuilder,
    ) -> Result<TrimmedRow, StoreError> {
        builder.file(FooterFile {
            ino: Ino(0),
            directory: Ino(0),
            name: Bytes::new(),
            len: 0,
        });
        let (mut pieces, mut stored) = (Vec::with_capacity(row.pieces().len()), 0_u32);
        for piece in row.pieces() {
            if !is_partial(piece) {
                pieces.push(piece.clone());
                continue;
            }
            let reading = self.data.extents.read(&piece.source, piece.skip, piece.len);
            let bytes = reading.await?;
            let source = match &piece.source {
                ExtentSource::Segment { .. } => {
                    stored += piece.len;
                    builder.add(Ino(0), content, u64::from(piece.start), &bytes)
                }
                _ => ExtentSource::Inline(Bytes::copy_from_slice(&bytes)),
            };
            pieces.push(ExtentSlice {
                skip: 0,
                source,
                ..piece.clone()
            });
        }
        let row = match row {
            RangeRow::Whole(_) => RangeRow::Whole(pieces),
            RangeRow::Delta(_) => RangeRow::Delta(pieces),
        };
        Ok(TrimmedRow {
            row,
            builder,
            stored,
        })
    }
}
