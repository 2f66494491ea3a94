//! Garbage collection of contents: deletes and merges the range rows, truncations and counts of a lineage that no row
//! shows.
//!
//! An operation that stops showing a content adds a `G D` row in the same batch. This module reads those rows and
//! reviews each lineage: which timestamps are still shown, and which rows of each range they need. A row that no shown
//! timestamp needs is deleted; a row that only a newer timestamp needs is merged into the newer row; the reference
//! counts of extents change in the same batch.
//! Invariant: no other operation rearranges a lineage during the review. The operation is queued only if, checked under
//! the queue's lock, no content was added to the lineage since its rows were read, none is queued, no reader pins
//! one, and no other review, move or trim has rearranged its rows (`LineageWatch::claim`).
//! Only durable contents are reviewed. The journal replays an operation whose content is not durable, and composes the
//! content's rows again from the rows before it: these must still be as they were when the operation was queued.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::store::commit::txn::Txn;
use crate::store::data::contents::LineageWatch;
use crate::store::data::extent_map::{RANGE, merge_slices};
use crate::store::gc::Gc;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Timestamp};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{ExtentSlice, ExtentSource, LineageRow, RangeRow};
use crate::store::schema::tables::{CutTable, DroppedTable, RangeTable, RowKey, RowTable};

/// Approximate number of range rows that one operation rearranges.
const ROWS: usize = 2048;

/// The result of reviewing a lineage or a segment that may no longer be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReviewOutcome {
    /// The review is complete; its list rows are deleted.
    Done,
    /// The item is in use or has to wait; its list rows stay for the next cycle.
    Retry,
}

/// Which timestamps of a lineage are still shown, and the truncations and parent that its rows depend on.
#[derive(Debug)]
struct LineagePlan {
    /// Timestamps that at least one row shows.
    shown: BTreeSet<Timestamp>,
    /// Contents whose count is zero.
    unshown: Vec<ContentRef>,
    cuts: BTreeMap<Timestamp, u64>,
    parent: Option<LineageRow>,
}

/// The changes to the rows of one range: rows to put, and timestamps whose rows are deleted.
#[derive(Debug, Default, PartialEq, Eq)]
struct RangeRewrite {
    put: Vec<(Timestamp, RangeRow)>,
    gone: Vec<Timestamp>,
}

impl LineagePlan {
    /// Returns the oldest shown timestamp that depends on a change made at `at`.
    fn needed_by(&self, at: Timestamp) -> Option<Timestamp> {
        self.shown.range(at..).next().copied()
    }

    /// Returns the offset in bytes at which a row written at `at` ends in the state of the timestamp `shown`: the shortest
    /// truncation between the two. No other shown timestamp is between them, so no reader needs the truncated bytes.
    fn limit(&self, at: Timestamp, shown: Timestamp) -> u64 {
        let later = (
            std::ops::Bound::Excluded(at),
            std::ops::Bound::Included(shown),
        );
        self.cuts
            .range(later)
            .map(|(_, len)| *len)
            .fold(u64::MAX, u64::min)
    }

    /// Computes the changes to one range. `rows` are ordered newest first.
    fn arrange(&self, range: u64, rows: &[(Timestamp, RangeRow)]) -> RangeRewrite {
        let mut arranged = RangeRewrite::default();
        for group in rows.chunk_by(|a, b| self.needed_by(a.0) == self.needed_by(b.0)) {
            let newest = &group[0];
            let Some(needed) = self.needed_by(newest.0) else {
                arranged.gone.extend(group.iter().map(|(at, _)| *at));
                continue;
            };
            let mut merged: Option<RangeRow> = None;
            for (at, row) in group.iter().rev() {
                let limit = self.limit(*at, needed);
                merged = Some(merge_over(merged, &clip(row, range, limit)));
            }
            if let Some(merged) = merged.filter(|merged| *merged != newest.1) {
                arranged.put.push((newest.0, merged));
            }
            arranged.gone.extend(group[1..].iter().map(|(at, _)| *at));
        }
        arranged
    }

    /// Returns the truncations that are still needed after all ranges are rearranged, by timestamp: the shortest one of
    /// each shown timestamp.
    fn cuts_left(&self) -> BTreeMap<Timestamp, u64> {
        let mut left: BTreeMap<Timestamp, (Timestamp, u64)> = BTreeMap::new();
        for (at, len) in &self.cuts {
            if let Some(group) = self.needed_by(*at) {
                let cut = left.entry(group).or_insert((*at, *len));
                cut.1 = cut.1.min(*len);
            }
        }
        if let (None, Some(oldest)) = (&self.parent, self.shown.first()) {
            // The oldest shown state has no older rows that a truncation could hide.
            left.remove(oldest);
        }
        left.into_values().collect()
    }
}

fn clip(row: &RangeRow, range: u64, limit: u64) -> RangeRow {
    let end = limit.saturating_sub(range * RANGE).min(RANGE) as u32;
    let pieces = row.pieces().iter().filter_map(|p| p.clip(0, end)).collect();
    match row {
        RangeRow::Whole(_) => RangeRow::Whole(pieces),
        RangeRow::Delta(_) => RangeRow::Delta(pieces),
    }
}

/// Merges a row over the merged older rows of the same range.
fn merge_over(under: Option<RangeRow>, row: &RangeRow) -> RangeRow {
    let own = row.pieces();
    match (under, row) {
        (None, _) | (_, RangeRow::Whole(_)) => row.clone(),
        (Some(RangeRow::Delta(under)), RangeRow::Delta(_)) => {
            RangeRow::Delta(merge_slices(&under, own))
        }
        (Some(RangeRow::Whole(under)), RangeRow::Delta(_)) => {
            let mut pieces: Vec<ExtentSlice> = merge_slices(&under, own);
            pieces.retain(|p| p.source != ExtentSource::Zero);
            RangeRow::Whole(pieces)
        }
    }
}

impl Gc {
    /// Returns an empty operation of garbage collection, which changes rows and no file, name or version. It is ordered after
    /// every queued operation that touches the same keys. Its timestamp need not stay reserved: no version has it.
    pub(crate) fn gc_txn(&self, touches: Vec<Bytes>) -> Txn {
        let dependencies = Dependencies {
            touches,
            ..Dependencies::default()
        };
        self.commit.txn(self.core.clock.begin().at(), dependencies)
    }

    /// Tells whether no reader pins a content of the watched lineage and no content was added or queued since the watch
    /// began.
    pub(super) fn is_left_alone(&self, cid: u64, watch: &LineageWatch<'_>) -> bool {
        !self.data.pins.is_pinned(cid) && watch.is_undisturbed()
    }

    /// Deletes and merges the rows of a lineage that no shown timestamp needs. `asked` are the `G D` rows of the
    /// lineage; they are deleted with the last operation.
    pub(crate) async fn reclaim_lineage(
        &self,
        cid: u64,
        asked: &[RowKey<DroppedTable>],
    ) -> Result<ReviewOutcome, StoreError> {
        let watch = self.data.contents.watch(cid);
        let last = self.commit.queue.last_on(&keys::counts(cid), None);
        let is_durable = last.iter().all(|o| o.content.is_none());
        if !is_durable || !self.is_left_alone(cid, &watch) {
            return Ok(ReviewOutcome::Retry);
        }
        let plan = self.plan(cid).await?;
        let touches = || -> Vec<Bytes> {
            let counts = plan
                .unshown
                .iter()
                .map(|content| keys::count(*content).bytes());
            counts.chain([keys::counts(cid)]).collect()
        };
        let mut from = keys::ranges(cid);
        let mut txn = self.gc_txn(touches());
        loop {
            let (ranges, next) = self.some_ranges(cid, from).await?;
            for (range, rows) in ranges {
                self.arrange_range(&mut txn, cid, range, &rows, &plan);
            }
            let Some(next) = next else { break };
            from = next;
            if !txn.rows.is_empty() {
                let full = std::mem::replace(&mut txn, self.gc_txn(touches()));
                let queued = self
                    .commit
                    .enqueue_if(full, || self.is_left_alone(cid, &watch) && watch.claim())?;
                if queued.is_none() {
                    return Ok(ReviewOutcome::Retry);
                }
            }
        }
        self.finish_lineage(&mut txn, cid, &plan);
        for key in asked {
            txn.delete(key.clone());
        }
        let queued = self
            .commit
            .enqueue_if(txn, || self.is_left_alone(cid, &watch) && watch.claim())?;
        Ok(queued.map_or(ReviewOutcome::Retry, |_| ReviewOutcome::Done))
    }

    async fn plan(&self, cid: u64) -> Result<LineagePlan, StoreError> {
        let (mut shown, mut unshown) = (BTreeSet::new(), Vec::new());
        let from = keys::counts(cid);
        for key in self
            .core
            .index
            .keys(from.clone(), keys::after(&from))
            .await?
        {
            let Some(content) = keys::counted(&key) else {
                return Err(StoreError::Corrupt("G R key".to_owned()));
            };
            match self.core.index.row(&keys::count(content)).await? {
                Some(0) => unshown.push(content),
                Some(_) => {
                    shown.insert(content.timestamp);
                }
                None => {}
            }
        }
        let from = keys::cuts(cid);
        let mut cuts = BTreeMap::new();
        let rows = self
            .core
            .index
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?;
        for (key, value) in rows {
            let at = keys::trailing_timestamp(&key)
                .ok_or_else(|| StoreError::Corrupt("C K key".to_owned()))?;
            cuts.insert(at, CutTable::decode(&value)?);
        }
        let parent = self.core.index.row(&keys::lineage(cid)).await?;
        Ok(LineagePlan {
            shown,
            unshown,
            cuts,
            parent,
        })
    }

    /// Returns complete ranges of a lineage with their rows, newest first, and the key at which the next call
    /// continues. About `ROWS` rows are read; a single range is never split.
    #[allow(clippy::type_complexity, reason = "used here only")]
    async fn some_ranges(
        &self,
        cid: u64,
        from: Bytes,
    ) -> Result<(BTreeMap<u64, Vec<(Timestamp, RangeRow)>>, Option<Bytes>), StoreError> {
        let end = keys::after(&keys::ranges(cid));
        let mut rows = self.core.index.scan(from.clone(), end, ROWS).await?;
        let number = |key: &Bytes| keys::range_number(key);
        let mut next = None;
        if rows.len() == ROWS {
            let last = rows.last().and_then(|(key, _)| number(key));
            let first = rows.first().and_then(|(key, _)| number(key));
            let last = last.ok_or_else(|| StoreError::Corrupt("C F key".to_owned()))?;
            if first == Some(last) {
                let end = keys::range_end(cid, last);
                rows = self.core.index.scan(from, end.clone(), usize::MAX).await?;
                next = Some(end);
            } else {
                rows.retain(|(key, _)| number(key) != Some(last));
                next = Some(keys::range(cid, last, Timestamp(u64::MAX)).bytes());
            }
        }
        let mut ranges: BTreeMap<u64, Vec<(Timestamp, RangeRow)>> = BTreeMap::new();
        for (key, value) in rows {
            let (Some(range), Some(at)) = (number(&key), keys::trailing_timestamp(&key)) else {
                return Err(StoreError::Corrupt("C F key".to_owned()));
            };
            let row = RangeTable::decode(&value)?;
            ranges.entry(range).or_default().push((at, row));
        }
        Ok((ranges, next))
    }

    fn arrange_range(
        &self,
        txn: &mut Txn,
        cid: u64,
        range: u64,
        rows: &[(Timestamp, RangeRow)],
        plan: &LineagePlan,
    ) {
        let (at, arranged) = (txn.timestamp, plan.arrange(range, rows));
        for (timestamp, row) in arranged.put {
            let old = rows.iter().find(|(at, _)| *at == timestamp);
            if let Some((_, old)) = old {
                self.data.cite(&mut txn.rows, old, -1, at);
            }
            let key = keys::range(cid, range, timestamp);
            self.data.put_range(&mut txn.rows, key, &row);
        }
        for timestamp in arranged.gone {
            let old = rows.iter().find(|(at, _)| *at == timestamp);
            if let Some((_, old)) = old {
                self.data.cite(&mut txn.rows, old, -1, at);
            }
            txn.delete(keys::range(cid, range, timestamp));
        }
    }

    /// Updates truncations and counts; deletes the lineage row with the last content of the lineage.
    fn finish_lineage(&self, txn: &mut Txn, cid: u64, plan: &LineagePlan) {
        let left = plan.cuts_left();
        for (at, len) in &plan.cuts {
            match left.get(at) {
                None => txn.delete(keys::cut(cid, *at)),
                Some(now) if now != len => txn.put(keys::cut(cid, *at), now),
                Some(_) => {}
            }
        }
        for content in &plan.unshown {
            txn.delete(keys::count(*content));
        }
        if plan.shown.is_empty()
            && let Some(row) = &plan.parent
        {
            txn.delete(keys::lineage(cid));
            txn.unreference(row.parent);
        }
    }
}
