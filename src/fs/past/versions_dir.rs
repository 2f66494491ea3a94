//! `.versions` itself: which name leads where, the labels, and a screenful of times.
//!
//! The first character decides: a digit or `-` is a time, `@` one of the virtual folders and files or SMB's name of a time, a letter or
//! `_` a label.

use super::change_log::ChangeLog;
use super::deleted_dir::DeletedDir;
use super::dir_at::{DirAt, Sight};
use super::files_dir::FilesDir;
use super::help_file::HelpFile;
use super::label_dir::LabelDir;
use super::node::{Found, Identity, LivePlace, NodeKind, PastDir, PastItem, PastNames, PastObject};
use super::reader::{Lasting, PastReader};
use super::shown::ShownAttrs;
use super::stamp::{self, Precision};
use super::thin::thin_with_below;
use super::time_dir::TimeDir;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Ino, Timestamp, check_label_name};
use async_trait::async_trait;
use bytes::Bytes;

/// The name of the histories by name.
const FILES: &[u8] = b"@files";
/// The name of the removed names.
const DELETED: &[u8] = b"@deleted";
/// The name of the list of changes.
const LOG: &[u8] = b"@log";
/// The name of the usage text.
const HELP: &[u8] = b"@help";

/// `.versions` of a live directory.
#[derive(Debug)]
pub(super) struct VersionsDir(pub(super) Ino);

impl VersionsDir {
    /// The virtual folder or file that has this name.
    fn special(&self, name: &[u8]) -> Option<Found> {
        let (item, lasting) = match name {
            FILES => (PastItem::dir(FilesDir(self.0)), Lasting::Final),
            // A rename out of it takes the lifetime of the kernel's entries along: the kernel keeps nothing on the way.
            DELETED => (PastItem::dir(DeletedDir(self.0)), Lasting::Passing),
            LOG => (PastItem::file(ChangeLog(self.0)), Lasting::Final),
            HELP => (PastItem::file(HelpFile), Lasting::Final),
            _ => return None,
        };
        Some(Found { item, lasting })
    }
}

#[async_trait]
impl PastObject for VersionsDir {
    fn identity(&self, _parent: u64, _name: &[u8]) -> Identity {
        Identity::new(NodeKind::VersionsDir, &[self.0.0], b"")
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Directory(self.0)
    }

    /// Those of the live directory, its sticky bit included: only its owner takes labels away then.
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
impl PastDir for VersionsDir {
    async fn lookup(&self, past: &PastReader, caller: &Caller, name: &[u8]) -> FsResult<Found> {
        match self.special(name) {
            Some(found) => Ok(found),
            None if check_label_name(name).is_ok() => LabelDir::find(past, self.0, name).await,
            None => TimeDir::find(past, caller, self.0, name).await,
        }
    }

    /// The virtual folders and files, the labels, and the times at which the directory's entries changed, in the root directory also the ends of hours
    /// in which anything below did, newest first, thinned with age, one a
    /// second at most. The stamp of a second without its milliseconds, which is all that SMB knows of it, leads to the same state.
    async fn list(&self, past: &PastReader) -> FsResult<PastNames> {
        let now = past.namespace.now();
        past.namespace.history().settle(now).await;
        let view = past.namespace.history().view();
        let failed = |error| FsError::from(error).by_number();
        let changes = view.changes(self.0, usize::MAX).await.map_err(failed)?;
        let below = view.changed_hours(self.0).await.map_err(failed)?;
        let horizons = past.horizons(self.0).await?;
        // A change at a time that is not exact any more is found at the first exact one after it.
        let exact = |times: Vec<Timestamp>| {
            let exact = times.into_iter().map(|at| horizons.exact_from(at));
            let mut exact: Vec<_> = exact.filter(|at| *at <= now).collect();
            exact.dedup();
            exact
        };
        let shown = thin_with_below(&exact(changes), &exact(below), now);
        let special = [DELETED, FILES, HELP, LOG].into_iter().filter_map(|name| {
            let found = self.special(name)?;
            Some((Bytes::from_static(name), found))
        });
        let times = shown.iter().filter_map(|at| {
            let name = stamp::print(*at, Precision::Millis);
            // A printed time reads back, and none of them is in the future.
            let at = stamp::parse_printed(name.as_bytes())?.last.min(now);
            let item = PastItem::dir(TimeDir {
                then: DirAt {
                    dir: self.0,
                    at,
                    sight: Sight::Exact,
                },
                asked: self.0,
            });
            let lasting = Lasting::Passing;
            Some((Bytes::from(name), Found { item, lasting }))
        });
        let labels = LabelDir::list(past, self.0).await?;
        Ok(PastNames::Whole(
            special.chain(labels).chain(times).collect(),
        ))
    }

    fn labels_of(&self) -> Option<Ino> {
        Some(self.0)
    }

    /// The period of a printed time may still run, so that a lookup resolves it.
    fn looks_up_again(&self) -> bool {
        true
    }
}
