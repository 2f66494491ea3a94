//! A removed directory in `.versions/@deleted`, as it was just before it was emptied.

use super::dir_at::{DirAt, Sight};
use super::node::{Found, Identity, LivePlace, NodeKind, PastDir, PastNames, PastObject};
use super::reader::PastReader;
use super::removed_versions_dir;
use super::shown::ShownAttrs;
use super::state::PastState;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Attrs, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// The permission bit of a directory's owner to change it.
const OWNER_WRITES: u32 = 0o200;

/// A removed directory with its last tree.
#[derive(Debug)]
pub(super) struct RemovedDir(pub(super) PastState);

impl RemovedDir {
    fn dir_at(&self) -> DirAt {
        DirAt {
            dir: self.0.entry.ino,
            at: self.0.at,
            sight: Sight::Removed,
        }
    }
}

#[async_trait]
impl PastObject for RemovedDir {
    fn identity(&self, parent: u64, name: &[u8]) -> Identity {
        Identity::new(
            NodeKind::RemovedDir,
            &[parent, self.0.entry.ino.0, self.0.at.0],
            name,
        )
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Child(&self.0.name)
    }

    /// Its last attributes with its owner's write bit, without which the kernel refuses the rename that is an undelete. The
    /// kernel keeps none of them, because the node can be renamed out.
    async fn attributes(&self, _past: &PastReader) -> FsResult<ShownAttrs> {
        let last = self.0.entry.attrs.clone();
        let attrs = Attrs {
            mode: last.mode | OWNER_WRITES,
            ..last
        };
        Ok(ShownAttrs::new(attrs, Duration::ZERO))
    }

    fn timestamp(&self) -> Option<Timestamp> {
        Some(self.0.at)
    }

    async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        self.0.xattr(past, name).await
    }

    async fn xattr_names(&self, past: &PastReader) -> FsResult<Vec<Bytes>> {
        self.0.xattr_names(past).await
    }
}

#[async_trait]
impl PastDir for RemovedDir {
    async fn lookup(&self, past: &PastReader, _caller: &Caller, name: &[u8]) -> FsResult<Found> {
        match name == past.versions_name {
            true => removed_versions_dir::found(&self.0).ok_or(FsError::NotFound),
            false => {
                let versions = removed_versions_dir::found;
                self.dir_at().lookup(past, name, versions).await
            }
        }
    }

    async fn list(&self, past: &PastReader) -> FsResult<PastNames> {
        self.dir_at().list(past, removed_versions_dir::found).await
    }
}
