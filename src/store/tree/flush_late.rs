//! A handle released after an fsync of its file: its state becomes the version behind the provisional one.

use crate::store::index::timestamps::Reservation;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Attrs, EndOp, Op, Stamp, VersionId};
use crate::store::namespace::Shared;
use crate::store::schema::rows::{EntryState, LastVersion};
use crate::store::tree::flush::{is_late, set_alive, settled_by};
use crate::store::tree::inode::{FileInode, FlushedState, Inode};
use crate::sync::Arc;

impl Shared {
    /// A fix released after an fsync: its state becomes the version behind the provisional one.
    pub(crate) async fn save_behind(
        &self,
        inode: &Arc<Inode>,
        leaf: &mut FileInode,
        fix: &Arc<FlushedState>,
        attrs: &Attrs,
    ) -> Result<(), StoreError> {
        let lies = (&fix.map, fix.base, fix.as_ref());
        let prepared = self
            .prepare(inode, leaf, lies, (fix.at, attrs.size))
            .await?;
        let unborn = matches!(leaf.state, EntryState::Unborn { .. });
        // The bytes keep the place of the fix in their lineage, also when the version comes too late for its instant.
        let answer = is_late(leaf, fix).then(|| self.clock.begin());
        let at = answer.as_ref().map_or(fix.at, Reservation::at);
        let id = VersionId {
            instant: at,
            suffix: self.suffix(),
        };
        let stamp = Stamp {
            id,
            op: if unborn { Op::Create } else { Op::Write },
            author: fix.author.clone(),
            host: self.config.host.clone(),
            origin: None,
        };
        let mut node = leaf.node.clone();
        node.content = prepared.content.clone();
        node.allocated = leaf.allocated(&fix.map, attrs.size);
        node.attrs = attrs.clone();
        let mut draft = self.leaf_draft(inode.ino, leaf, at).await?;
        draft.settles = settled_by(&prepared, fix);
        draft.held.journal.extend(fix.token.clone());
        draft.held.holds.clone_from(&fix.holds);
        let end_op = if unborn {
            EndOp::Replaced
        } else {
            EndOp::Superseded
        };
        let alive_since = self.close_behind(&mut draft, inode.ino, leaf, (at, end_op));
        self.count(&mut draft, &node.content, 1);
        let last = LastVersion {
            ino: inode.ino,
            node,
            stamp,
            alive_since,
        };
        let state = EntryState::Provisional(Box::new(last));
        let now = leaf.node.clone();
        self.current_rows(&mut draft, (inode.ino, leaf), &now, &state, alive_since);
        self.bring_along(&mut draft, prepared);
        self.enqueue(draft)?;
        leaf.state = state;
        set_alive(leaf, alive_since);
        Ok(())
    }
}
