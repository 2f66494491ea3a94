//! `.versions/LABEL`: a directory as of the timestamp that a label names.

use super::attributes;
use super::dir_at::{DirAt, Sight};
use super::node::{
    Found, HoldTarget, Identity, LivePlace, NodeKind, PastDir, PastItem, PastNames, PastObject,
};
use super::reader::{Lasting, PastReader};
use super::shown::ShownAttrs;
use super::time_dir::TimeDir;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Ino, Label, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::RangeInclusive;

/// A directory as of a label.
#[derive(Debug)]
pub(super) struct LabelDir {
    tree: TimeDir,
    label: Label,
}

impl LabelDir {
    /// The label `name` that `.versions` of the directory `dir` shows.
    ///
    /// # Errors
    /// `NotFound`; those of the store.
    pub(super) async fn find(past: &PastReader, dir: Ino, name: &[u8]) -> FsResult<Found> {
        let label = past.namespace.history().view().label(dir, name).await?;
        Ok(Self::found(dir, label.ok_or(FsError::NotFound)?))
    }

    /// The labels that `.versions` of the directory `dir` shows, with their names.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn list(past: &PastReader, dir: Ino) -> FsResult<Vec<(Bytes, Found)>> {
        let labels = past.namespace.history().view().labels(dir).await?;
        let found = labels.into_iter();
        Ok(found
            .map(|label| (label.name.clone(), Self::found(dir, label)))
            .collect())
    }

    /// The node of a label. A label can be renamed and removed, so the kernel asks for its name each time.
    fn found(asked: Ino, label: Label) -> Found {
        let then = DirAt {
            dir: label.directory,
            at: label.timestamp,
            sight: Sight::Exact,
        };
        let tree = TimeDir { then, asked };
        Found {
            item: PastItem::dir(Self { tree, label }),
            lasting: Lasting::Passing,
        }
    }
}

#[async_trait]
impl PastObject for LabelDir {
    fn identity(&self, parent: u64, name: &[u8]) -> Identity {
        let DirAt { dir, at, .. } = self.tree.then;
        Identity::new(NodeKind::LabelDir, &[parent, dir.0, at.0], name)
    }

    fn live_place(&self) -> LivePlace<'_> {
        self.tree.live_place()
    }

    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        self.tree.attributes(past).await
    }

    fn depends_on(&self) -> Option<Ino> {
        self.tree.depends_on()
    }

    fn timestamp(&self) -> Option<Timestamp> {
        self.tree.timestamp()
    }

    fn shown_times(&self) -> Option<RangeInclusive<Timestamp>> {
        self.tree.shown_times()
    }

    fn hold_target(&self) -> Option<HoldTarget> {
        Some(HoldTarget::Label {
            directory: self.label.directory,
            name: self.label.name.clone(),
        })
    }

    /// What the label says about itself, as it is now; else what was set on the directory.
    async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        if !attributes::is_ours(name) {
            return self.tree.xattr(past, name).await;
        }
        let Label {
            directory,
            name: own,
            ..
        } = &self.label;
        let now = past.namespace.history().view().label(*directory, own).await;
        let now = now?.filter(|now| now.timestamp == self.label.timestamp);
        Ok(attributes::of_label(
            now.as_ref().unwrap_or(&self.label),
            name,
        ))
    }
}

#[async_trait]
impl PastDir for LabelDir {
    async fn lookup(&self, past: &PastReader, caller: &Caller, name: &[u8]) -> FsResult<Found> {
        self.tree.lookup(past, caller, name).await
    }

    async fn list(&self, past: &PastReader) -> FsResult<PastNames> {
        PastDir::list(&self.tree, past).await
    }

    fn is_listed_for_good(&self, past: &PastReader) -> bool {
        self.tree.is_listed_for_good(past)
    }
}
