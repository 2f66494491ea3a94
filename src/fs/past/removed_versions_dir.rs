//! `.versions` of a removed directory: its labels. They outlive the directory; its times are those of the directory above.

use super::label_dir::LabelDir;
use super::node::{Found, Identity, LivePlace, NodeKind, PastDir, PastItem, PastNames, PastObject};
use super::reader::{Lasting, PastReader};
use super::shown::ShownAttrs;
use super::state::PastState;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Attrs, Ino, check_label_name};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// The permission bit of a directory's owner to change it.
const OWNER_WRITES: u32 = 0o200;
/// The permission bits, and the bit that lets only the owner of a file take its name away.
const GUARDS: u32 = 0o1777;

/// `.versions` of a directory that was removed, or is below a removed one.
#[derive(Debug)]
pub(super) struct RemovedVersionsDir(PastState);

impl RemovedVersionsDir {
    fn dir(&self) -> Ino {
        self.0.entry.ino
    }
}

/// The node of `.versions` of the removed directory that has this last state.
#[allow(
    clippy::unnecessary_wraps,
    reason = "one of the functions that find the `.versions` of a directory of the past"
)]
pub(super) fn found(state: &PastState) -> Option<Found> {
    Some(Found {
        item: PastItem::dir(RemovedVersionsDir(state.clone())),
        lasting: Lasting::Passing,
    })
}

#[async_trait]
impl PastObject for RemovedVersionsDir {
    fn identity(&self, parent: u64, name: &[u8]) -> Identity {
        Identity::new(
            NodeKind::RemovedVersionsDir,
            &[parent, self.dir().0, self.0.at.0],
            name,
        )
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Nowhere
    }

    /// Open to the users to whom the directory was open, with its owner's write bit, so that the owner can remove its labels.
    async fn attributes(&self, _past: &PastReader) -> FsResult<ShownAttrs> {
        let last = self.0.entry.attrs.clone();
        let attrs = Attrs {
            mode: last.mode & GUARDS | OWNER_WRITES,
            size: 0,
            ..last
        };
        Ok(ShownAttrs::new(attrs, Duration::ZERO))
    }
}

#[async_trait]
impl PastDir for RemovedVersionsDir {
    async fn lookup(&self, past: &PastReader, _caller: &Caller, name: &[u8]) -> FsResult<Found> {
        match check_label_name(name) {
            Ok(()) => LabelDir::find(past, self.dir(), name).await,
            Err(_) => Err(FsError::NotFound),
        }
    }

    async fn list(&self, past: &PastReader) -> FsResult<PastNames> {
        let labels: Vec<(Bytes, Found)> = LabelDir::list(past, self.dir()).await?;
        Ok(PastNames::Whole(labels))
    }

    fn looks_up_again(&self) -> bool {
        true
    }

    fn labels_of(&self) -> Option<Ino> {
        Some(self.dir())
    }
}
