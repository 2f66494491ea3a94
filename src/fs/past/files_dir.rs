//! `.versions/@files`: the names in a directory that have versions.

use super::history_dir::HistoryDir;
use super::node::{Found, Identity, LivePlace, NodeKind, PastDir, PastItem, PastNames, PastObject};
use super::reader::{Lasting, PastReader};
use super::shown::ShownAttrs;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::Ino;
use async_trait::async_trait;
use bytes::Bytes;

/// `@files` of a live directory.
#[derive(Debug)]
pub(super) struct FilesDir(pub(super) Ino);

#[async_trait]
impl PastObject for FilesDir {
    fn identity(&self, _parent: u64, _name: &[u8]) -> Identity {
        Identity::new(NodeKind::FilesDir, &[self.0.0], b"")
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Directory(self.0)
    }

    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        past.mirrored(self.0).await
    }

    fn depends_on(&self) -> Option<Ino> {
        Some(self.0)
    }

    async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        past.access_list(self.0, name).await
    }
}

#[async_trait]
impl PastDir for FilesDir {
    async fn lookup(&self, past: &PastReader, _caller: &Caller, name: &[u8]) -> FsResult<Found> {
        HistoryDir::find(past, self.0, name).await
    }

    async fn list(&self, past: &PastReader) -> FsResult<PastNames> {
        past.settle_now().await;
        let names = past
            .namespace
            .history()
            .view()
            .names_with_versions(self.0)
            .await;
        let names = names.map_err(|error| FsError::from(error).by_number())?;
        let histories = names.into_iter().map(|name| {
            let found = Found {
                item: PastItem::dir(HistoryDir::new(self.0, name.clone())),
                lasting: Lasting::Passing,
            };
            (name, found)
        });
        Ok(PastNames::Whole(histories.collect()))
    }

    /// A lookup tells how long the kernel may keep the name of a history.
    fn looks_up_again(&self) -> bool {
        true
    }
}
