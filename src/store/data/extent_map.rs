//! Contents: the range rows of a lineage, whole or as deltas, and how they resolve to slices of extents at a timestamp.
//!
//! Invariant: the bytes of a (lineage, timestamp) never change once a version has them. A later state of the lineage adds rows
//! with its own timestamp and replaces only rows that no version shows; garbage collection rearranges rows without changing
//! what versions show. A truncation row clips every row with an older timestamp.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::{ExtentSlice, ExtentSource, LineageRow, RANGE_BYTES, RangeRow};
use crate::store::schema::tables::{CutTable, RangeTable, RowTable};

/// Bytes of a content that one range row describes.
pub(crate) const RANGE: u64 = RANGE_BYTES;
/// A range's new row is written whole when its chain, the rows that it would be merged over, already has this many rows.
pub(super) const DELTAS_MAX: usize = 16;

/// A row of a range, and the shortest later truncation: the row's bytes at offsets of the file from `limit` on are hidden.
#[derive(Debug)]
pub(super) struct ChainRow {
    pub(super) content: ContentRef,
    pub(super) row: RangeRow,
    pub(super) limit: u64,
}

/// The rows of a range, newest first, down to the newest whole row.
#[derive(Debug)]
pub(super) struct RangeChain {
    pub(super) links: Vec<ChainRow>,
}

impl RangeChain {
    /// Tells whether it ends with a whole row of the lineage `cid`, and no truncation hides a part of it.
    pub(super) fn is_own(&self, cid: u64) -> bool {
        let is_own = |link: &ChainRow| link.content.cid == cid && link.limit == u64::MAX;
        let last = self.links.last();
        last.is_some_and(|last| matches!(last.row, RangeRow::Whole(_)))
            && self.links.iter().all(is_own)
    }

    /// Truncates the rows to `len` bytes of the file.
    pub(super) fn truncate(&mut self, len: u64) {
        for link in &mut self.links {
            link.limit = link.limit.min(len);
        }
    }
}

/// Returns the lowest range, from `range` on, for which the content's lineage or one that it began over may have a row; `None`
/// if there is only a hole.
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
        let parent = parent_of(rows, cid).await?;
        let Some(row) = parent.filter(|row| range.saturating_mul(RANGE) < row.len) else {
            return Ok(next);
        };
        cid = row.parent.cid;
    }
}

/// Returns the rows of a range that a content shows: those of its lineage, then those of the lineages it began over, down to
/// the newest whole row.
pub(super) async fn chain(
    rows: &Snapshot,
    content: ContentRef,
    range: u64,
) -> Result<RangeChain, StoreError> {
    let (mut links, mut content, mut limit) = (Vec::new(), content, u64::MAX);
    loop {
        let (mut own, whole) = own_rows(rows, content, range).await?;
        let oldest = match own.last() {
            Some(last) if whole => last.content.timestamp,
            _ => Timestamp(0),
        };
        let cuts = own_cuts(rows, content, oldest).await?;
        for link in &mut own {
            let later = cuts.iter().filter(|(at, _)| link.content.timestamp < *at);
            link.limit = later.map(|(_, len)| *len).fold(limit, u64::min);
        }
        links.append(&mut own);
        if whole {
            break;
        }
        let Some(row) = parent_of(rows, content.cid).await? else {
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

/// Returns the content that a lineage began over. Its lineage is an older one, with a lower number: an index whose rows say otherwise leads in a
/// circle.
async fn parent_of(rows: &Snapshot, cid: u64) -> Result<Option<LineageRow>, StoreError> {
    let row = rows.row(&keys::lineage(cid)).await?;
    if let Some(row) = row.as_ref().filter(|row| row.parent.cid >= cid) {
        let parent = row.parent.cid;
        return Err(StoreError::Corrupt(format!(
            "C L row: lineage {cid} began over the later lineage {parent}"
        )));
    }
    Ok(row)
}

/// Returns a range's rows of one lineage from the content's timestamp down, newest first, and whether the last one is whole.
async fn own_rows(
    rows: &Snapshot,
    content: ContentRef,
    range: u64,
) -> Result<(Vec<ChainRow>, bool), StoreError> {
    let (mut links, mut whole) = (Vec::new(), false);
    let from = keys::range(content.cid, range, content.timestamp).bytes();
    let end = keys::range_end(content.cid, range);
    // The rows behind the whole one are those that reviews have deleted or that older versions show.
    rows.scan_until(from..end, |key, value| {
        let row: RangeRow = RangeTable::decode(&value)?;
        let timestamp = keys::trailing_timestamp(&key)
            .ok_or_else(|| StoreError::Corrupt("C F key: no timestamp".to_owned()))?;
        whole = matches!(row, RangeRow::Whole(_));
        links.push(ChainRow {
            content: ContentRef {
                timestamp,
                ..content
            },
            row,
            limit: u64::MAX,
        });
        Ok(match whole {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    })
    .await?;
    Ok((links, whole))
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
        let at = keys::trailing_timestamp(&key)
            .ok_or_else(|| StoreError::Corrupt("C K key: no timestamp".to_owned()))?;
        Ok((at, CutTable::decode(&value)?))
    };
    found.into_iter().map(cut).collect()
}

/// Merges the rows of a chain into the slices that they show, ascending, without zeros.
pub(super) fn merge_chain(chain: &RangeChain, range: u64) -> Vec<ExtentSlice> {
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
            RangeRow::Delta(_) => merge_slices(&pieces, &own),
        };
    }
    pieces.retain(|p| p.source != ExtentSource::Zero);
    pieces
}

/// Returns the slices of `top` and the parts of `under` that `top` does not cover. The arguments and the result are ascending
/// and do not overlap.
pub(crate) fn merge_slices(under: &[ExtentSlice], top: &[ExtentSlice]) -> Vec<ExtentSlice> {
    let mut out = Vec::with_capacity(under.len() + top.len());
    debug_assert!(top.is_sorted_by_key(|t| t.start), "slices are ascending");
    for piece in under {
        let mut from = piece.start;
        let first = top.partition_point(|t| t.end() <= piece.start);
        for cover in top[first..].iter().take_while(|t| t.start < piece.end()) {
            out.extend(piece.clip(from, cover.start));
            from = from.max(cover.end());
        }
        out.extend(piece.clip(from, piece.end()));
    }
    out.extend(top.iter().cloned());
    out.sort_unstable_by_key(|p| p.start);
    out
}

/// Merges the slices of two rows of a range, the first over the second; a byte says how long the first is. Tells whether both can be decoded.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_slices(bytes: &[u8]) -> bool {
    let Some((len, rest)) = bytes.split_first() else {
        return false;
    };
    let (top, under) = rest.split_at(rest.len().min(usize::from(*len)));
    let (Ok(top), Ok(under)) = (RangeTable::decode(top), RangeTable::decode(under)) else {
        return false;
    };
    let content = ContentRef {
        cid: 1,
        timestamp: Timestamp(1),
    };
    let row = |row| ChainRow {
        content,
        row,
        limit: u64::from(*len) << 12,
    };
    let links = vec![row(top), row(under)];
    let merged = merge_chain(&RangeChain { links }, 0);
    let again = RangeRow::Whole(merged);
    let decoded = RangeTable::decode(&crate::store::schema::rows::encode(&again));
    assert!(decoded.is_ok_and(|decoded| decoded == again), "{again:?}");
    true
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
        assert_eq!(
            shown(&merge_slices(&under, &[piece(2, 6, b'x')])),
            "aaxxxxxxbb"
        );
        assert_eq!(
            shown(&merge_slices(
                &under,
                &[piece(1, 1, b'x'), piece(3, 1, b'y')]
            )),
            "axay..bbbb"
        );
        assert_eq!(shown(&merge_slices(&under, &[])), "aaaa..bbbb");
    }

    #[test]
    fn a_truncation_clips_older_rows_only() {
        let of = |at| ContentRef {
            cid: 1,
            timestamp: Timestamp(at),
        };
        let chain = RangeChain {
            links: vec![
                ChainRow {
                    content: of(3),
                    row: RangeRow::Delta(vec![piece(6, 2, b'n')]),
                    limit: u64::MAX,
                },
                ChainRow {
                    content: of(1),
                    row: RangeRow::Whole(vec![piece(0, 8, b'o')]),
                    limit: 4,
                },
            ],
        };
        assert_eq!(shown(&merge_chain(&chain, 0)), "oooo..nn");
        assert_eq!(shown(&merge_chain(&chain, 1)), "......nn");
    }
}
