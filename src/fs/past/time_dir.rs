//! `.versions/TIME`: a directory as of a timestamp.

use super::dir_at::{DirAt, Sight};
use super::node::{Found, Identity, LivePlace, NodeKind, PastDir, PastItem, PastNames, PastObject};
use super::reader::{Lasting, PastReader};
use super::resolved_times::ResolvedTime;
use super::shown::ShownAttrs;
use super::stamp::{TimeName, TimeStability};
use super::tree_dir::no_versions;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Ino, ROOT, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A directory as of a timestamp, asked for through a live directory.
#[derive(Debug)]
pub(super) struct TimeDir {
    /// The directory that was in its place then, and the timestamp.
    pub(super) then: DirAt,
    /// The live directory whose `.versions` was asked.
    pub(super) asked: Ino,
}

impl TimeDir {
    /// The root directory as of `at`.
    pub(super) fn root(at: Timestamp) -> Self {
        Self {
            then: DirAt {
                dir: ROOT,
                at,
                sight: Sight::Exact,
            },
            asked: ROOT,
        }
    }

    /// What the time `name` means to `caller` in `.versions` of the live directory `dir`.
    ///
    /// # Errors
    /// `NotFound` when the name is no time, or the directory did not exist then; those of the store.
    pub(super) async fn find(
        past: &PastReader,
        caller: &Caller,
        dir: Ino,
        name: &[u8],
    ) -> FsResult<Found> {
        let time = TimeName::parse(name).ok_or(FsError::NotFound)?;
        let present = || past.namespace.now();
        let answer = past.times.resolve(time, caller, present);
        let answer = answer.ok_or(FsError::NotFound)?;
        let found = Self::find_resolved(past, &answer, dir).await;
        match &found {
            Ok(_) => past.times.found(&answer),
            Err(_) => past.times.missed(&answer),
        }
        found
    }

    async fn find_resolved(past: &PastReader, answer: &ResolvedTime, dir: Ino) -> FsResult<Found> {
        let at = answer.at;
        let lasting = match answer.stability {
            TimeStability::Constant => past.lasting_at(at),
            TimeStability::Moving => Lasting::Passing,
        };
        // A release that is due belongs to the answer.
        past.namespace.history().settle(at).await;
        let then = past
            .namespace
            .history()
            .view()
            .directory_at(dir, at)
            .await?;
        let then = then.ok_or(FsError::NotFound)?;
        let sight = past.sight(then, at).await?;
        if sight == Sight::CutOff || sight == Sight::Kept && past.is_before_all(then, at).await? {
            return Err(FsError::NotFound);
        }
        Ok(Found {
            item: PastItem::dir(Self {
                then: DirAt {
                    dir: then,
                    at,
                    sight,
                },
                asked: dir,
            }),
            lasting: match then == dir && sight == Sight::Exact {
                true => lasting,
                // Found by the path that leads to `dir` now: after a rename the same name means another directory. What is left of
                // a thinned time changes with every run of retention.
                false => Lasting::Passing,
            },
        })
    }

    /// Whether it shows the same directory as the one that was asked.
    fn is_of_asked(&self) -> bool {
        self.then.dir == self.asked
    }
}

#[async_trait]
impl PastObject for TimeDir {
    fn identity(&self, parent: u64, name: &[u8]) -> Identity {
        let DirAt { dir, at, sight } = self.then;
        let numbers = [parent, dir.0, at.0, 1];
        // A time that is exact no more is another node than it was: that one is stale.
        let numbers = match sight {
            Sight::Exact => &numbers[..3],
            Sight::Kept | Sight::Removed | Sight::CutOff => &numbers[..],
        };
        Identity::new(NodeKind::TimeDir, numbers, name)
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Directory(self.asked)
    }

    /// The attributes that the directory had then. Where its history does not say, those of the live directory, which guards the
    /// way to its past.
    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        past.check_sight(self.then).await?;
        let DirAt { dir, at, .. } = self.then;
        let ttl = match self.is_of_asked() && past.is_final(at) {
            true => past.changing_ttl(),
            false => Duration::ZERO,
        };
        let attrs = match past
            .namespace
            .history()
            .view()
            .directory_entry_at(dir, at)
            .await?
        {
            Some(entry) => entry.attrs,
            None => past.live_dir(self.asked).await?.attrs,
        };
        Ok(ShownAttrs::new(attrs, ttl))
    }

    fn depends_on(&self) -> Option<Ino> {
        self.is_of_asked().then_some(self.asked)
    }

    fn timestamp(&self) -> Option<Timestamp> {
        Some(self.then.at)
    }

    fn shown_times(&self) -> Option<RangeInclusive<Timestamp>> {
        Some(self.then.at..=self.then.at)
    }

    async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        let DirAt { dir, at, .. } = self.then;
        match past
            .namespace
            .history()
            .view()
            .directory_entry_at(dir, at)
            .await?
        {
            Some(entry) => past.attribute(&entry, name).await,
            None => past.access_list(self.asked, name).await,
        }
    }
}

#[async_trait]
impl PastDir for TimeDir {
    async fn lookup(&self, past: &PastReader, _caller: &Caller, name: &[u8]) -> FsResult<Found> {
        self.then.lookup(past, name, no_versions).await
    }

    async fn check_open(&self, past: &PastReader) -> FsResult<()> {
        past.check_sight(self.then).await
    }

    async fn list(&self, past: &PastReader) -> FsResult<PastNames> {
        self.then.list(past, no_versions).await
    }

    fn is_listed_for_good(&self, past: &PastReader) -> bool {
        past.lasting_of(self.then) == Lasting::Final
    }
}
