//! A version of a file, a symbolic link or a special file.

use super::node::{HoldTarget, Identity, LivePlace, NodeKind, PastContent, PastFile, PastObject};
use super::reader::PastReader;
use super::shown::ShownAttrs;
use super::state::PastState;
use crate::fs::error::{FsError, FsResult};
use crate::store::{CloneSource, Ino, Kind, ReadAhead, Timestamp, Whence};
use crate::sync::Arc;
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::RangeInclusive;

/// A version of anything but a directory.
#[derive(Debug)]
pub(super) struct StateFile(pub(super) PastState);

#[async_trait]
impl PastObject for StateFile {
    /// A version is one node wherever it is found, and so are all names that a file had at a time. The link count is part of it,
    /// because the kernel keeps one link count and one content per number.
    fn identity(&self, _parent: u64, _name: &[u8]) -> Identity {
        let version = self.0.entry.version;
        let suffix = u64::from(version.suffix);
        let state = [self.0.entry.ino.0, version.timestamp.0, suffix];
        match self.0.links {
            0 | 1 => Identity::new(NodeKind::State, &state, b""),
            links => Identity::new(NodeKind::LinkedState, &state, &links.to_be_bytes()),
        }
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Child(&self.0.name)
    }

    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        self.0.attributes(past).await
    }

    async fn found_attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        Ok(self.0.found_attributes(past))
    }

    fn depends_on(&self) -> Option<Ino> {
        self.0.depends_on()
    }

    fn timestamp(&self) -> Option<Timestamp> {
        Some(self.0.entry.version.timestamp)
    }

    /// All times at which it was current: they share one node.
    fn shown_times(&self) -> Option<RangeInclusive<Timestamp>> {
        let entry = &self.0.entry;
        let end = entry.ended.map_or(u64::MAX, |end| end.0 - 1);
        Some(entry.version.timestamp..=Timestamp(end))
    }

    fn hold_target(&self) -> Option<HoldTarget> {
        Some(HoldTarget::Version {
            directory: self.0.dir,
            name: self.0.name.clone(),
            entry: Box::new(self.0.entry.as_ref().clone()),
        })
    }

    async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        self.0.xattr(past, name).await
    }

    async fn xattr_names(&self, past: &PastReader) -> FsResult<Vec<Bytes>> {
        self.0.xattr_names(past).await
    }
}

#[async_trait]
impl PastFile for StateFile {
    fn kind(&self) -> Kind {
        self.0.entry.kind
    }

    fn target(&self, past: &PastReader) -> FsResult<Bytes> {
        match self.0.entry.kind {
            Kind::Symlink => Ok(past.namespace.history().target_past(&self.0.entry)),
            _ => Err(FsError::Invalid("not a symbolic link".to_owned())),
        }
    }

    async fn open(&self, past: &PastReader) -> FsResult<PastContent> {
        let held = past.namespace.data().hold_standing(&self.0.entry).await;
        let held = held.map_err(|error| FsError::from(error).by_number())?;
        Ok(PastContent::Stored(held))
    }

    async fn read(&self, past: &PastReader, offset: u64, len: u32) -> FsResult<Bytes> {
        let history = past.namespace.history();
        let bytes = history.read_past(&self.0.entry, offset, len).await;
        bytes.map_err(|error| FsError::from(error).by_number())
    }

    async fn read_ahead(&self, past: &PastReader, runs: &Arc<ReadAhead>, offset: u64, len: u32) {
        let history = past.namespace.history();
        history
            .read_ahead_past(runs, &self.0.entry, offset, len)
            .await;
    }

    async fn seek(&self, past: &PastReader, offset: u64, whence: Whence) -> FsResult<Option<u64>> {
        let history = past.namespace.history();
        let found = history.seek_past(&self.0.entry, offset, whence).await;
        found.map_err(|error| FsError::from(error).by_number())
    }

    fn clone_source(&self, past: &PastReader) -> Option<CloneSource> {
        Some(past.namespace.tree().clone_source(&self.0.entry))
    }
}
