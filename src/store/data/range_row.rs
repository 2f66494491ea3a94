//! The row that a new content writes for a range: over which rows it is merged, and which of them it replaces.
//!
//! Invariant: a row is replaced only if no version shows a content from its timestamp on, up to the new content.

use crate::store::data::contents::{ContentStore, PendingContent};
use crate::store::data::extent_map::{
    ChainRow, DELTAS_MAX, RANGE, RangeChain, chain, merge_chain, merge_slices,
};
use crate::store::data::hot_chains::RowsBelow;
use crate::store::data::inline_backlog::INLINE_KEPT;
use crate::store::index::current::{Index, StampedSnapshot};
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::ContentBase;
use crate::store::model::version::{ContentRef, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::{ExtentSlice, RangeRow};

/// A row with more slices is not written again by each following state.
const SLICES_ABSORBED: usize = 64;
/// Maximum number of contents that are looked at to find out which rows no version shows.
const CONTENTS_MAX: usize = 1024;

/// The row of a range of a new content.
#[derive(Debug)]
pub(super) struct NewRow {
    pub(super) row: RangeRow,
    /// The rows of the same lineage and range that it replaces, which the caller deletes; newest first.
    pub(super) replaced: Vec<ChainRow>,
    /// The rows below it; `None` if the next content is to read them.
    pub(super) below: Option<RowsBelow>,
}

impl NewRow {
    fn over_nothing(pieces: Vec<ExtentSlice>) -> Self {
        Self {
            row: RangeRow::Whole(pieces),
            replaced: Vec::new(),
            below: None,
        }
    }
}

impl ContentStore {
    /// Returns the row that shows `pieces` over the bytes that the base has in this range: a delta, merged with the row of the state that
    /// the content replaces if both are small; or a whole row if the base has nothing there, or its chain is long.
    ///
    /// # Errors
    /// Errors of the meta store; `Corrupt` when a row cannot be decoded.
    pub(super) async fn new_row(
        &self,
        index: &Index,
        pending: &PendingContent,
        range: u64,
        pieces: Vec<ExtentSlice>,
    ) -> Result<NewRow, StoreError> {
        let Some(ContentBase {
            content: base,
            len: base_len,
        }) = pending.base
        else {
            return Ok(NewRow::over_nothing(pieces));
        };
        let len = base_len.min(pending.truncation().unwrap_or(u64::MAX));
        if len <= range * RANGE {
            return Ok(NewRow::over_nothing(pieces));
        }
        let at = &index.stamped_snapshot(pending.content.cid);
        let mut chain = match self.hot_chains.take(base, range, at.stamp) {
            Some(known) => known,
            None => chain(&at.rows, base, range).await?,
        };
        if chain.links.len() >= DELTAS_MAX || chain.links.is_empty() {
            chain.truncate(pending.truncation().unwrap_or(base_len));
            return merged(at, pending, chain, range, pieces).await;
        }
        let is_own = chain.is_own(pending.content.cid) && pending.truncation().is_none();
        let newest = &chain.links[0];
        if !may_replace(pending, newest.content) || !is_absorbed(&newest.row, &pieces) {
            return Ok(NewRow {
                row: RangeRow::Delta(pieces),
                replaced: Vec::new(),
                below: is_own.then(|| RowsBelow::of(chain, at.stamp)),
            });
        }
        let merged = merge_slices(newest.row.pieces(), &pieces);
        let row = match newest.row {
            RangeRow::Whole(_) => RangeRow::Whole(merged),
            RangeRow::Delta(_) => RangeRow::Delta(merged),
        };
        Ok(NewRow {
            row,
            replaced: vec![chain.links.remove(0)],
            below: is_own.then(|| RowsBelow::of(chain, at.stamp)),
        })
    }
}

/// Returns the whole row that shows `pieces` of the range over a chain.
async fn merged(
    at: &StampedSnapshot,
    pending: &PendingContent,
    mut chain: RangeChain,
    range: u64,
    pieces: Vec<ExtentSlice>,
) -> Result<NewRow, StoreError> {
    let unshown = unshown(&at.rows, pending, &chain).await?;
    chain.links.insert(
        0,
        ChainRow {
            content: pending.content,
            row: RangeRow::Delta(pieces),
            limit: u64::MAX,
        },
    );
    let row = RangeRow::Whole(merge_chain(&chain, range));
    let old = chain.links.drain(1..);
    let is_unshown = |link: &ChainRow| {
        link.content.cid == pending.content.cid && unshown.contains(&link.content.timestamp)
    };
    Ok(NewRow {
        row,
        replaced: old.filter(is_unshown).collect(),
        below: Some(RowsBelow::nothing(at.stamp)),
    })
}

/// Tells whether a content replaces the row of `old`: the state that it follows, which no other row shows.
fn may_replace(pending: &PendingContent, old: ContentRef) -> bool {
    old.cid == pending.content.cid
        && pending.truncation().is_none()
        && pending.replaces == Some(old.timestamp)
}

/// Tells whether a row is written again together with the slices that follow it, rather than kept below them: each fsync of a
/// file would upload it.
fn is_absorbed(under: &RangeRow, pieces: &[ExtentSlice]) -> bool {
    let inline = under.inline_bytes() + RangeRow::Delta(pieces.to_vec()).inline_bytes();
    inline <= INLINE_KEPT as i64 && under.pieces().len() <= SLICES_ABSORBED
}

/// Returns the timestamps of the rows at the top of a chain that no version shows once the content has taken the place of the
/// state that it replaces: between each of them and the content, no content has a row that shows it.
async fn unshown(
    rows: &Snapshot,
    pending: &PendingContent,
    chain: &RangeChain,
) -> Result<Vec<Timestamp>, StoreError> {
    let cid = pending.content.cid;
    if pending.replaces.is_none() || pending.truncation().is_some() {
        return Ok(Vec::new());
    }
    let links = chain.links.iter().map(|link| link.content);
    let own = links.take_while(|content| content.cid == cid);
    let mut own: Vec<Timestamp> = own.map(|content| content.timestamp).collect();
    let Some(oldest) = own.last() else {
        return Ok(own);
    };
    let of = |timestamp| keys::count(ContentRef { cid, timestamp });
    let contents = rows
        .keys(of(*oldest).bytes(), of(pending.content.timestamp).bytes())
        .await?;
    if contents.len() > CONTENTS_MAX {
        // Garbage collection finds them: their counts are zero.
        own.retain(|at| Some(*at) == pending.replaces);
        return Ok(own);
    }
    for key in contents.iter().rev() {
        let content =
            keys::counted(key).ok_or_else(|| StoreError::Corrupt("G R key".to_owned()))?;
        if rows.row(&keys::count(content)).await?.unwrap_or(0) != 0 {
            own.retain(|at| *at > content.timestamp);
            break;
        }
    }
    Ok(own)
}
