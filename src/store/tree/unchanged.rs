//! Equal content: a save that changes no byte makes no version.

use crate::cache::{Fixed as FixedMap, Source};
use crate::store::data::extent_map::ResolvedExtent;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Attrs, ContentRef};
use crate::store::namespace::Shared;
use crate::store::schema::journal_record::{BytelessFlush, Dependencies};
use crate::store::schema::keys;
use crate::store::tree::flush::alive;
use crate::store::tree::inode::{FileInode, FlushedState, Inode};
use crate::sync::Arc;

/// Contents up to so many changed bytes are compared with the last version.
const COMPARE_MAX: u64 = 64 << 20;
/// Bytes compared at once.
const COMPARE_STEP: u64 = 256 << 10;

/// Bytes of other contents that are fetched for a comparison, at most: they may have to come from the bucket.
const REFERRED_MAX: u64 = 1 << 20;

/// Bytes of other contents in a state.
fn referred(map: &FixedMap) -> u64 {
    let refers = |source: &Source| matches!(source, Source::Reference { .. });
    map.spans()
        .filter(|span| refers(&span.source))
        .map(|span| span.len)
        .sum()
}

impl Shared {
    /// Whether the state has the bytes of the last version. Only for changes small enough to compare.
    pub(crate) async fn is_equal(
        &self,
        leaf: &FileInode,
        map: &FixedMap,
        attrs: &Attrs,
    ) -> Result<bool, StoreError> {
        if attrs.size != leaf.node.attrs.size || map.bytes() > COMPARE_MAX {
            return Ok(false);
        }
        let Some((base, _)) = leaf.base else {
            return Ok(attrs.size == 0);
        };
        if referred(map) > REFERRED_MAX {
            return Ok(false);
        }
        for piece in map.pieces(0..attrs.size) {
            let Some(source) = piece.source else { continue };
            let mut at = piece.range.start;
            while at < piece.range.end {
                let end = piece.range.end.min(at + COMPARE_STEP);
                let new = match &source {
                    Source::Zero => {
                        // As long as a file may be, so not in steps.
                        let end = piece.range.end;
                        let old = self.contents.stretches(&self.view, base, at, end).await?;
                        if !old
                            .iter()
                            .all(|(_, _, s)| matches!(s, ResolvedExtent::Zero))
                        {
                            return Ok(false);
                        }
                        break;
                    }
                    Source::Memory(bytes) => {
                        let skip = (at - piece.range.start) as usize;
                        bytes.slice(skip..skip + (end - at) as usize)
                    }
                    Source::File { file, position } => {
                        file.read_at(position + (at - piece.range.start), (end - at) as usize)?
                    }
                    Source::Reference { of, position } => {
                        let from = position + (at - piece.range.start);
                        let content = ContentRef::of(*of);
                        self.read_content(content, from, from + (end - at)).await?
                    }
                };
                if self.read_content(base, at, end).await? != new {
                    return Ok(false);
                }
                at = end;
            }
        }
        Ok(true)
    }

    /// Equal content: no version, only the times move on.
    pub(crate) fn forget_equal(
        &self,
        inode: &Arc<Inode>,
        leaf: &mut FileInode,
        fix: &Arc<FlushedState>,
        attrs: &Attrs,
    ) -> Result<(), StoreError> {
        let mut node = leaf.node.clone();
        node.attrs = attrs.clone();
        if node != leaf.node || fix.working.is_some() {
            let order = Dependencies {
                touches: vec![keys::inode(inode.ino)],
                ..Dependencies::default()
            };
            let mut draft = self.draft(fix.at, order);
            draft.settles = fix.working.map(|working| BytelessFlush {
                working,
                fix: fix.at,
                base: leaf.base,
            });
            let (state, alive_since) = (leaf.state.clone(), alive(leaf));
            if let Some((directory, name)) = leaf.place() {
                draft.order.touches.push(keys::entry(*directory, name));
                draft.order.within.push(*directory);
            }
            self.current_rows(&mut draft, (inode.ino, leaf), &node, &state, alive_since);
            self.enqueue(draft)?;
            leaf.node = node;
        }
        leaf.map.rebase(&fix.map);
        leaf.settled = Some(leaf.rest_of(&fix.map));
        if !leaf.is_dirty() {
            if let Some(working) = leaf.working.take() {
                working.finish();
            }
            leaf.permit = None;
            leaf.holds.clear();
        }
        Ok(())
    }
}
