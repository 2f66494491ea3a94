//! The chains of the ranges that were written last, so that the next fsync of a log or a database does not read them again: each fsync
//! of a few bytes replaces the row of the one before it, and a scan would pass all the rows that are deleted between two that are left.
//!
//! Invariant: a chain is used only for the content that it was noted for, and only if no operation but that content's own has
//! changed the lineage's range rows since its rows were read ([`LineageStamp`]).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::store::data::extent_map::{ChainRow, RangeChain};
use crate::store::index::lineage_changes::LineageStamp;
use crate::store::model::version::ContentRef;
use crate::store::schema::rows::{ExtentSlice, ExtentSource, RangeRow};
use crate::sync::{Mutex, lock};

/// Maximum number of chains. The rows of one have some KiB of inline bytes, 64 KiB at most.
const CHAINS_MAX: usize = 32;

/// The chains that were composed last, oldest first.
#[derive(Debug, Default)]
pub(super) struct HotChains {
    chains: Mutex<VecDeque<ComposedChain>>,
}

/// A chain with the row that a content adds, to be noted once the index has that row.
#[derive(Debug)]
pub(super) struct ComposedChain {
    content: ContentRef,
    range: u64,
    chain: RangeChain,
    stamp: LineageStamp,
}

/// The rows below the new row of a range, down to a whole one.
#[derive(Debug)]
pub(super) struct RowsBelow {
    chain: RangeChain,
    /// The state of the lineage when they were read.
    stamp: LineageStamp,
}

impl RowsBelow {
    /// A chain that [is the lineage's own](RangeChain::is_own), or what is left of it.
    pub(super) fn of(chain: RangeChain, stamp: LineageStamp) -> Self {
        Self { chain, stamp }
    }

    /// Nothing: the new row is whole.
    pub(super) fn nothing(stamp: LineageStamp) -> Self {
        let chain = RangeChain { links: Vec::new() };
        Self { chain, stamp }
    }

    /// The chain with the new row of `content` on top.
    pub(super) fn under(
        mut self,
        content: ContentRef,
        range: u64,
        row: &RangeRow,
    ) -> ComposedChain {
        let top = ChainRow {
            content,
            row: detached(row),
            limit: u64::MAX,
        };
        self.chain.links.insert(0, top);
        ComposedChain {
            content,
            range,
            chain: self.chain,
            stamp: self.stamp,
        }
    }
}

/// Returns the same row with inline bytes that keep no larger buffer.
fn detached(row: &RangeRow) -> RangeRow {
    let detached = |piece: &ExtentSlice| match &piece.source {
        ExtentSource::Inline(bytes) => ExtentSlice {
            source: ExtentSource::Inline(Bytes::copy_from_slice(bytes)),
            ..*piece
        },
        ExtentSource::Segment { .. } | ExtentSource::Zero => piece.clone(),
    };
    let pieces = row.pieces().iter().map(detached).collect();
    match row {
        RangeRow::Whole(_) => RangeRow::Whole(pieces),
        RangeRow::Delta(_) => RangeRow::Delta(pieces),
    }
}

impl HotChains {
    /// Notes a chain whose new row the index has: the content's rows are one change of the lineage.
    pub(super) fn add(&self, mut composed: ComposedChain) {
        composed.stamp = composed.stamp.next();
        let mut chains = lock(&self.chains);
        if chains.len() >= CHAINS_MAX {
            chains.pop_front();
        }
        chains.push_back(composed);
    }

    /// Takes the chain of a content's range, if the lineage is still in the state `stamp`.
    pub(super) fn take(
        &self,
        content: ContentRef,
        range: u64,
        stamp: LineageStamp,
    ) -> Option<RangeChain> {
        let mut chains = lock(&self.chains);
        let is_of = |one: &ComposedChain| (one.content, one.range) == (content, range);
        let at = chains.iter().rposition(is_of)?;
        let known = chains.remove(at)?;
        (known.stamp == stamp).then_some(known.chain)
    }

    /// Forgets all chains, inline bytes among them.
    pub(super) fn clear(&self) {
        lock(&self.chains).clear();
    }
}
