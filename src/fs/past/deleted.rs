//! `.versions/@deleted/NAME`: every removed name that is not there again. A file shows its last content, a directory its last
//! tree, as it was just before it was emptied.
//!
//! A rename out of it is an undelete. So the kernel keeps no name here (a rename takes a kept name along), and directories show
//! their owner's write bit, without which it would refuse the rename before asking.

use super::node::{PastKind, PastState};
use super::{Found, Lasting, Listing, Past};
use crate::fs::error::{FsError, FsResult};
use crate::fs::handle::ListedName;
use crate::store::{Attrs, Ino, Kind, RemovedName, RemovedNames};
use bytes::Bytes;

/// The permission bits of a directory's owner to change it.
const OWNER_WRITES: u32 = 0o200;

/// The removed names of a directory, as they are drawn.
pub(crate) struct DeletedNames {
    dir: Ino,
    number: u64,
    names: RemovedNames,
}

impl Past {
    /// What the removed name `name` of the live directory `dir` showed last.
    pub(super) async fn find_deleted(&self, dir: Ino, name: &[u8]) -> FsResult<Found> {
        let removed = self
            .namespace
            .history()
            .view()
            .deleted_tree_at(dir, name)
            .await?;
        Ok(Found {
            what: removed_node(dir, name, removed.ok_or(FsError::NotFound)?),
            lasting: Lasting::Passing,
        })
    }

    /// The removed names of the live directory `dir`, drawn as they are read; `number` is the node's that shows them.
    pub(super) async fn list_deleted(&self, dir: Ino, number: u64) -> FsResult<Listing> {
        // A directory that is gone itself has nothing to show: never an empty list.
        self.live_dir(dir).await?;
        self.namespace.history().settle(self.namespace.now()).await;
        let names = self.namespace.history().deleted(dir).await;
        let names = names.map_err(|error| FsError::from(error).by_number())?;
        Ok(Listing::Drawn(DeletedNames { dir, number, names }))
    }

    /// The next name of a listing.
    pub(crate) async fn next_deleted(
        &self,
        drawn: &mut DeletedNames,
    ) -> FsResult<Option<ListedName>> {
        let Some((name, removed)) = drawn.names.next().await? else {
            return Ok(None);
        };
        let found = Found {
            what: removed_node(drawn.dir, &name, removed),
            lasting: Lasting::Passing,
        };
        Ok(Some(self.listed(drawn.number, name, found)))
    }
}

/// The attributes a removed directory shows.
pub(super) fn open_to_owner(attrs: Attrs) -> Attrs {
    Attrs {
        mode: attrs.mode | OWNER_WRITES,
        ..attrs
    }
}

fn removed_node(dir: Ino, name: &[u8], removed: RemovedName) -> PastKind {
    let seen = Box::new(PastState {
        dir,
        name: Bytes::copy_from_slice(name),
        at: removed.at,
        entry: removed.entry,
        links: 1,
    });
    match seen.entry.kind {
        Kind::Directory => PastKind::Gone(seen),
        _ => PastKind::State(seen),
    }
}
