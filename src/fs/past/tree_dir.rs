//! A directory below `.versions/TIME`, and what a directory had in it at a timestamp.
//!
//! Names below are history's, not the live tree's: `.versions` is not among them.

use super::dir_at::{DirAt, Sight};
use super::node::{Found, Identity, LivePlace, NodeKind, PastDir, PastItem, PastNames, PastObject};
use super::reader::{Lasting, PastReader};
use super::shown::ShownAttrs;
use super::state::PastState;
use super::state_file::StateFile;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Ino, Kind, PastEntry, Retained, Timestamp};
use crate::sync::Arc;
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::RangeInclusive;

/// Finds the `.versions` of a directory of the past; `None` if it has none.
pub(super) type FindVersions = fn(&PastState) -> Option<Found>;

/// Finds the `.versions` of a directory below a TIME: it has none.
pub(super) fn no_versions(_directory: &PastState) -> Option<Found> {
    None
}

impl DirAt {
    /// What `name` in it was. A directory has the `.versions` that `versions` finds.
    ///
    /// # Errors
    /// `NotFound`, also where the policy of a directory does not keep what was there; those of the store.
    pub(super) async fn lookup(
        self,
        past: &PastReader,
        name: &[u8],
        versions: FindVersions,
    ) -> FsResult<Found> {
        if name == past.versions_name {
            return Err(FsError::NotFound);
        }
        let lasting = past.lasting_of(self);
        let history = past.namespace.history();
        let entry = history.view().entry_at(self.dir, name, self.at).await?;
        // After the read: what it has read was there if the horizon still is below the time.
        past.check_sight(self).await?;
        let entry = entry.ok_or(FsError::NotFound)?;
        let name = Bytes::copy_from_slice(name);
        Ok(Found {
            item: self.item(past, name, entry, versions).await?,
            lasting,
        })
    }

    /// The names in it. Directories have the `.versions` that `versions` finds.
    ///
    /// # Errors
    /// `Stale` when its history was deleted or is not kept; those of the store.
    pub(super) async fn list(
        self,
        past: &PastReader,
        versions: FindVersions,
    ) -> FsResult<PastNames> {
        let history = past.namespace.history();
        // Asked before the read: what becomes final afterwards may be another state than the one that is read.
        let is_final = history.finality().is_final(self.at);
        let lasting = Lasting::of(is_final && self.sight == Sight::Exact);
        let entries = history.view().list_at(self.dir, self.at).await;
        let entries = entries.map_err(|error| FsError::from(error).by_number())?;
        match past.check_sight(self).await {
            Err(FsError::NotFound) => return Err(FsError::Stale),
            checked => checked?,
        }
        let mut names = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            if name != past.versions_name {
                let item = self.item(past, name.clone(), entry, versions).await?;
                names.push((name, Found { item, lasting }));
            }
        }
        Ok(PastNames::Whole(names))
    }

    /// The node for what `name` was. All names of a file are one node, with as many links.
    async fn item(
        self,
        past: &PastReader,
        name: Bytes,
        entry: PastEntry,
        versions: FindVersions,
    ) -> FsResult<PastItem> {
        // Deleting a version takes it from one name only.
        let links = match entry.shared.is_some() && entry.kept != Retained::Nothing {
            true => {
                let history = past.namespace.history();
                Some(history.view().link_count_at(entry.ino, self.at).await?)
            }
            false => None,
        };
        let (kind, ino) = (entry.kind, entry.ino);
        let state = PastState {
            dir: self.dir,
            name,
            at: self.at,
            entry: Arc::new(match links {
                Some(_) => entry.of_inode(),
                None => entry,
            }),
            links: links.unwrap_or(1),
        };
        Ok(match kind {
            Kind::Directory => PastItem::dir(TreeDir {
                state,
                versions,
                sight: past.sight_below(self, ino).await?,
            }),
            _ => PastItem::file(StateFile(state)),
        })
    }
}

/// A directory inside a `TIME` or a removed directory, as of that time.
#[derive(Debug)]
pub(super) struct TreeDir {
    state: PastState,
    versions: FindVersions,
    sight: Sight,
}

impl TreeDir {
    fn dir_at(&self) -> DirAt {
        DirAt {
            dir: self.state.entry.ino,
            at: self.state.at,
            sight: self.sight,
        }
    }
}

#[async_trait]
impl PastObject for TreeDir {
    fn identity(&self, parent: u64, name: &[u8]) -> Identity {
        let numbers = [parent, self.state.entry.ino.0, self.state.at.0, 1];
        // A directory that is not kept any more is another node than it was: that one is stale.
        let numbers = match self.sight {
            Sight::CutOff => &numbers[..],
            Sight::Exact | Sight::Kept | Sight::Removed => &numbers[..3],
        };
        Identity::new(NodeKind::TreeDir, numbers, name)
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Child(&self.state.name)
    }

    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        // One that is not kept any more is still a name in the directory above.
        if self.sight != Sight::CutOff {
            past.check_sight(self.dir_at()).await?;
        }
        self.state.attributes(past).await
    }

    async fn found_attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        Ok(self.state.found_attributes(past))
    }

    fn depends_on(&self) -> Option<Ino> {
        self.state.depends_on()
    }

    fn timestamp(&self) -> Option<Timestamp> {
        Some(self.state.at)
    }

    fn shown_times(&self) -> Option<RangeInclusive<Timestamp>> {
        Some(self.state.at..=self.state.at)
    }

    async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        self.state.xattr(past, name).await
    }

    async fn xattr_names(&self, past: &PastReader) -> FsResult<Vec<Bytes>> {
        self.state.xattr_names(past).await
    }
}

#[async_trait]
impl PastDir for TreeDir {
    async fn lookup(&self, past: &PastReader, _caller: &Caller, name: &[u8]) -> FsResult<Found> {
        if name == past.versions_name {
            return (self.versions)(&self.state).ok_or(FsError::NotFound);
        }
        self.dir_at().lookup(past, name, self.versions).await
    }

    async fn check_open(&self, past: &PastReader) -> FsResult<()> {
        past.check_sight(self.dir_at()).await
    }

    async fn list(&self, past: &PastReader) -> FsResult<PastNames> {
        self.dir_at().list(past, self.versions).await
    }

    fn is_listed_for_good(&self, past: &PastReader) -> bool {
        past.lasting_of(self.dir_at()) == Lasting::Final
    }
}
