//! Late flush: a handle is released after an fsync of its file.
//!
//! The fsync committed a later state as provisional. The released state becomes the version that precedes the provisional state,
//! and the provisional state stays the current one.

use crate::store::index::timestamps::Reservation;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Attrs, EndOp, Op, Stamp, VersionId};
use crate::store::schema::rows::{EntryState, LastVersion};
use crate::store::tree::Tree;
use crate::store::tree::flush::{byteless_flush, is_late};
use crate::store::tree::flush_content::ContentChange;
use crate::store::tree::inode::FlushedState;
use crate::store::tree::locked::LockedFile;
use crate::store::tree::row_writer::VersionEnd;
use crate::sync::Arc;

impl Tree {
    /// Saves a flushed state as the version that precedes the provisional state in the queue.
    pub(crate) async fn save_behind(
        &self,
        file: &mut LockedFile<'_>,
        flush: &Arc<FlushedState>,
        attrs: &Attrs,
    ) -> Result<(), StoreError> {
        let change = ContentChange {
            map: &flush.map,
            base: flush.base,
            flush,
            at: flush.at,
            len: attrs.size,
        };
        let prepared = self.prepare(file.ino(), file, change).await?;
        let unborn = matches!(file.state, EntryState::Unborn { .. });
        // The content keeps the timestamp of the flush within its lineage, even when the version itself gets a later timestamp.
        let answer = is_late(file, flush).then(|| self.core.clock.begin());
        let at = answer.as_ref().map_or(flush.at, Reservation::at);
        let id = VersionId {
            timestamp: at,
            suffix: self.suffix(),
        };
        let stamp = Stamp {
            id,
            op: if unborn { Op::Create } else { Op::Write },
            author: flush.author.clone(),
            host: self.core.config.host.clone(),
            origin: None,
        };
        let mut node = file.node.clone();
        node.content = prepared.content.clone();
        node.allocated = file.allocated(&flush.map, attrs.size);
        node.attrs = attrs.clone();
        let mut txn = self.file_txn(file.ino(), file, at).await?;
        txn.byteless_flush = byteless_flush(&prepared, flush);
        txn.held.journal.extend(flush.token.clone());
        txn.held.holds.clone_from(&flush.holds);
        let end_op = if unborn {
            EndOp::Replaced
        } else {
            EndOp::Superseded
        };
        let alive_since =
            self.close_behind(&mut txn, file.ino(), file, VersionEnd::new(at, end_op));
        txn.reference_content(&node.content);
        let last = LastVersion {
            ino: file.ino(),
            node,
            stamp,
            alive_since,
        };
        let state = EntryState::Provisional(Box::new(last));
        self.current_rows(&mut txn, file.ino(), file, &file.node, &state, alive_since);
        self.attach_content(&mut txn, prepared);
        self.commit.enqueue(txn)?;
        file.set_state(state);
        file.set_alive_since(alive_since);
        Ok(())
    }
}
