//! `.versions/@deleted`: the removed names of a directory. A file shows its last content, a directory its last tree.
//!
//! A rename out of it is an undelete. So the kernel keeps no name here: a rename takes a kept name along.

use super::node::{
    DrawnNames, Found, Identity, LivePlace, NodeKind, PastDir, PastItem, PastNames, PastObject,
};
use super::reader::{Lasting, PastReader};
use super::removed_dir::RemovedDir;
use super::shown::ShownAttrs;
use super::state::PastState;
use super::state_file::StateFile;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Ino, Kind, RemovedName, RemovedNames};
use crate::sync::Arc;
use async_trait::async_trait;
use bytes::Bytes;

/// `@deleted` of a live directory.
#[derive(Debug)]
pub(super) struct DeletedDir(pub(super) Ino);

/// The removed names of a directory, read as they are asked for.
struct RemovedListing {
    dir: Ino,
    names: RemovedNames,
}

#[async_trait]
impl DrawnNames for RemovedListing {
    async fn next(&mut self) -> FsResult<Option<(Bytes, Found)>> {
        let next = self.names.next().await?;
        Ok(next.map(|(name, removed)| (name.clone(), found(self.dir, name, removed))))
    }
}

#[async_trait]
impl PastObject for DeletedDir {
    fn identity(&self, _parent: u64, _name: &[u8]) -> Identity {
        Identity::new(NodeKind::DeletedDir, &[self.0.0], b"")
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Directory(self.0)
    }

    /// Those of the live directory, its sticky bit included: only the owner of a file takes its name away, also by an undelete.
    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        let live = past.live_dir(self.0).await?;
        Ok(ShownAttrs::mirror_with_sticky(&live, past.changing_ttl()))
    }

    fn depends_on(&self) -> Option<Ino> {
        Some(self.0)
    }

    async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        past.access_list(self.0, name).await
    }
}

#[async_trait]
impl PastDir for DeletedDir {
    async fn lookup(&self, past: &PastReader, _caller: &Caller, name: &[u8]) -> FsResult<Found> {
        let view = past.namespace.history().view();
        let removed = view.deleted_tree_at(self.0, name).await;
        let removed = removed?.ok_or(FsError::NotFound)?;
        Ok(found(self.0, Bytes::copy_from_slice(name), removed))
    }

    async fn list(&self, past: &PastReader) -> FsResult<PastNames> {
        // A directory that is removed itself is stale, and not empty.
        past.live_dir(self.0).await?;
        past.settle_now().await;
        let names = past.namespace.history().deleted(self.0).await;
        let names = names.map_err(|error| FsError::from(error).by_number())?;
        let dir = self.0;
        Ok(PastNames::Drawn(Box::new(RemovedListing { dir, names })))
    }

    fn removed_names_of(&self) -> Option<Ino> {
        Some(self.0)
    }
}

/// The node of the removed name `name` of the live directory `dir`.
fn found(dir: Ino, name: Bytes, removed: RemovedName) -> Found {
    let kind = removed.entry.kind;
    let state = PastState {
        dir,
        name,
        at: removed.at,
        entry: Arc::new(removed.entry),
        links: 1,
    };
    Found {
        item: match kind {
            Kind::Directory => PastItem::dir(RemovedDir(state)),
            _ => PastItem::file(StateFile(state)),
        },
        lasting: Lasting::Passing,
    }
}
