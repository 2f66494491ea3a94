//! A directory below `.versions/TIME`, and what a directory had in it at a timestamp.
//!
//! Names below are history's, not the live tree's: `.versions` is not among them.

use super::node::{Found, Identity, LivePlace, NodeKind, PastDir, PastItem, PastNames, PastObject};
use super::reader::{Lasting, PastReader};
use super::shown::ShownAttrs;
use super::state::PastState;
use super::state_file::StateFile;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Ino, Kind, PastEntry, Retained, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::RangeInclusive;

/// A directory as of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirAt {
    /// The directory.
    pub(super) dir: Ino,
    /// The timestamp.
    pub(super) at: Timestamp,
}

impl DirAt {
    /// What `name` in it was.
    ///
    /// # Errors
    /// `NotFound`; those of the store.
    pub(super) async fn lookup(self, past: &PastReader, name: &[u8]) -> FsResult<Found> {
        if name == past.versions_name {
            return Err(FsError::NotFound);
        }
        let lasting = past.lasting_at(self.at);
        let history = past.namespace.history();
        let entry = history.view().entry_at(self.dir, name, self.at).await?;
        let entry = entry.ok_or(FsError::NotFound)?;
        let name = Bytes::copy_from_slice(name);
        Ok(Found {
            item: self.item(past, name, entry).await?,
            lasting,
        })
    }

    /// The names in it.
    ///
    /// # Errors
    /// `Stale` when its history was deleted; those of the store.
    pub(super) async fn list(self, past: &PastReader) -> FsResult<PastNames> {
        let history = past.namespace.history();
        // Asked before the read: what becomes final afterwards may be another state than the one that is read.
        let lasting = Lasting::of(history.finality().is_final(self.at));
        let entries = history.view().list_at(self.dir, self.at).await;
        let entries = entries.map_err(|error| FsError::from(error).by_number())?;
        let mut names = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            if name != past.versions_name {
                let item = self.item(past, name.clone(), entry).await?;
                names.push((name, Found { item, lasting }));
            }
        }
        Ok(PastNames::Whole(names))
    }

    /// The node for what `name` was. All names of a file are one node, with as many links.
    async fn item(self, past: &PastReader, name: Bytes, entry: PastEntry) -> FsResult<PastItem> {
        // Deleting a version takes it from one name only.
        let links = match entry.shared.is_some() && entry.kept != Retained::Nothing {
            true => {
                let history = past.namespace.history();
                Some(history.view().link_count_at(entry.ino, self.at).await?)
            }
            false => None,
        };
        let kind = entry.kind;
        let state = PastState {
            dir: self.dir,
            name,
            at: self.at,
            entry: match links {
                Some(_) => entry.of_inode(),
                None => entry,
            },
            links: links.unwrap_or(1),
        };
        Ok(match kind {
            Kind::Directory => PastItem::dir(TreeDir(state)),
            _ => PastItem::file(StateFile(state)),
        })
    }
}

/// A directory inside a `TIME`, as of that time.
#[derive(Debug)]
pub(super) struct TreeDir(PastState);

impl TreeDir {
    fn dir_at(&self) -> DirAt {
        DirAt {
            dir: self.0.entry.ino,
            at: self.0.at,
        }
    }
}

#[async_trait]
impl PastObject for TreeDir {
    fn identity(&self, parent: u64, name: &[u8]) -> Identity {
        Identity::new(
            NodeKind::TreeDir,
            &[parent, self.0.entry.ino.0, self.0.at.0],
            name,
        )
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
        Some(self.0.at)
    }

    fn shown_times(&self) -> Option<RangeInclusive<Timestamp>> {
        Some(self.0.at..=self.0.at)
    }

    async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        self.0.xattr(past, name).await
    }

    async fn xattr_names(&self, past: &PastReader) -> FsResult<Vec<Bytes>> {
        self.0.xattr_names(past).await
    }
}

#[async_trait]
impl PastDir for TreeDir {
    async fn lookup(&self, past: &PastReader, _caller: &Caller, name: &[u8]) -> FsResult<Found> {
        self.dir_at().lookup(past, name).await
    }

    async fn list(&self, past: &PastReader) -> FsResult<PastNames> {
        self.dir_at().list(past).await
    }

    fn is_listed_for_good(&self, past: &PastReader) -> bool {
        past.is_final(self.0.at)
    }
}
