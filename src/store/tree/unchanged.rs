//! Unchanged content: a save that changes no byte makes no version (docs/SEMANTICS.md).

use crate::cache::{DirtySnapshot, Source};
use crate::store::data::extent_map::ResolvedExtent;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{Attrs, ContentRef};
use crate::store::schema::journal_record::{BytelessFlush, Dependencies};
use crate::store::schema::keys;
use crate::store::tree::Tree;
use crate::store::tree::flush::alive;
use crate::store::tree::inode::{FileInode, FlushedState};
use crate::store::tree::locked::LockedFile;
use crate::sync::Arc;

/// States with more changed bytes than this are not compared with the last version.
const COMPARE_MAX: u64 = 64 << 20;
/// Bytes compared at once.
const COMPARE_STEP: u64 = 256 << 10;

/// States that reference more bytes of other contents than this are not compared: the bytes may have to come from the bucket.
const REFERRED_MAX: u64 = 1 << 20;

/// Counts the bytes of a state that are references to other contents.
fn referred(map: &DirtySnapshot) -> u64 {
    let refers = |source: &Source| matches!(source, Source::Reference { .. });
    map.spans()
        .filter(|span| refers(&span.source))
        .map(|span| span.len)
        .sum()
}

impl Tree {
    /// Tells whether the state has the bytes of the last version. `false` without a comparison if it would read too much.
    pub(crate) async fn is_equal(
        &self,
        leaf: &FileInode,
        map: &DirtySnapshot,
        attrs: &Attrs,
    ) -> Result<bool, StoreError> {
        if attrs.size != leaf.node.attrs.size || map.bytes() > COMPARE_MAX {
            return Ok(false);
        }
        let Some(ContentBase {
            content: base,
            len: _,
        }) = leaf.base
        else {
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
                        // A hole can be as long as a file can be: it is compared in one step, by its extents.
                        let end = piece.range.end;
                        let view = self.data.contents.view(&self.core.index);
                        let old = view.resolve(base, at, end).await?;
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

    /// Discards a state whose content equals the last version: no version is made, only the attributes change.
    pub(crate) fn forget_equal(
        &self,
        file: &mut LockedFile<'_>,
        flush: &Arc<FlushedState>,
        attrs: &Attrs,
    ) -> Result<(), StoreError> {
        let mut node = file.node.clone();
        node.attrs = attrs.clone();
        if node != file.node || flush.session.is_some() {
            let dependencies = Dependencies {
                touches: vec![keys::inode(file.ino()).bytes()],
                ..Dependencies::default()
            };
            let mut txn = self.commit.txn(flush.at, dependencies);
            txn.byteless_flush = flush.session.map(|session| BytelessFlush {
                session,
                flush: flush.at,
                base: file.base,
            });
            if let Some(Dentry {
                parent: directory,
                name,
            }) = file.place()
            {
                txn.touch(keys::entry(*directory, name));
                txn.dependencies.within.push(*directory);
            }
            self.current_rows(&mut txn, file.ino(), file, &node, &file.state, alive(file));
            self.commit.enqueue(txn)?;
            file.set_node(node);
        }
        file.rebase(&flush.map);
        if !file.is_dirty() {
            file.discard_changes();
        }
        Ok(())
    }
}
