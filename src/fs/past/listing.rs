//! What a directory of the past lists, and what each name of a listing leads to without looking it up again.
//!
//! A listing keeps what it read: a reader that asks for attributes together with names (READDIRPLUS) costs no second look at the
//! history. Only a state that has not ended is read again, because its attributes still change.

use super::node::{PastKind, PastNode};
use super::{DeletedNames, Found, Lasting, Past};
use crate::fs::error::{FsError, FsResult};
use crate::fs::handle::ListedName;
use crate::fs::{Caller, Entry};
use crate::store::Timestamp;
use crate::sync::Arc;
use bytes::Bytes;

/// What a printed stamp means at most, nanoseconds.
const MILLISECOND: u64 = 1_000_000;

/// The names in a node.
pub(crate) enum Listing {
    /// All of them.
    Whole(Vec<ListedName>),
    /// As they are asked for.
    Drawn(DeletedNames),
}

impl Past {
    /// The names in `node`.
    ///
    /// # Errors
    /// `NotDirectory`; `Stale` when what it showed was pruned: never an empty list.
    pub(crate) async fn list(&self, node: &PastNode) -> FsResult<Listing> {
        // Before anything is read: what becomes final afterwards may be another state than the one read.
        let finality = self.namespace.history().finality();
        let names = match node.what() {
            PastKind::Versions(dir) => self.list_versions(*dir).await?,
            PastKind::Time { dir, at, .. } => self.list_tree(*dir, *at).await?,
            PastKind::Tree(seen) | PastKind::Gone(seen) => {
                self.list_tree(seen.entry.ino, seen.at).await?
            }
            PastKind::Files(dir) => self.list_files(*dir).await?,
            PastKind::History(dir, slot) => self.list_history(node, *dir, slot).await?,
            PastKind::Deleted(dir) => return self.list_deleted(*dir, node.number()).await,
            _ => return Err(FsError::NotDirectory),
        };
        let listed = names.into_iter().map(|(name, what)| {
            let lasting = match (node.what(), &what) {
                (PastKind::History(..), PastKind::State(seen)) => {
                    let last = Timestamp(seen.at.0.saturating_add(MILLISECOND));
                    Lasting::of(finality.is_listed_for_good(last))
                }
                (_, PastKind::State(seen) | PastKind::Tree(seen)) => {
                    Lasting::of(finality.is_final(seen.at))
                }
                _ => Lasting::Passing,
            };
            self.listed(node.number(), name, Found { what, lasting })
        });
        Ok(Listing::Whole(listed.collect()))
    }

    /// A name of the node `parent` and what was found there.
    pub(super) fn listed(&self, parent: u64, name: Bytes, found: Found) -> ListedName {
        ListedName {
            ino: self.nodes.number(parent, &name, &found.what),
            kind: found.what.kind(),
            found: Some(found),
            name,
        }
    }

    /// Counts one lookup of what a listing of `node` found under `name`.
    ///
    /// # Errors
    /// `NotFound`, `Stale` when it has gone since.
    pub(crate) async fn enter(
        &self,
        caller: &Caller,
        node: &Arc<PastNode>,
        name: &[u8],
        found: Found,
    ) -> FsResult<Entry> {
        // A printed time may have a period that still runs, and a name's history comes and goes.
        if matches!(node.what(), PastKind::Versions(_) | PastKind::Files(_)) {
            return self.lookup(caller, node, name).await;
        }
        let changes = self.dependents.changes();
        let entry_ttl = self.ttl_of(found.lasting);
        let node = self.nodes.enter(node.number(), name, found.what);
        let entry = self.entry(&node, entry_ttl).await?;
        Ok(self.unless_changed(changes, entry))
    }
}
