//! What `rewindfs stats` tells about a namespace.

use std::collections::HashMap;

use bytes::Bytes;

use crate::store::history::horizons::Horizons;
use crate::store::history::view::PastView;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::role::Role;
use crate::store::model::version::{Ino, ROOT};
use crate::store::retention::Retention;
use crate::store::retention::amounts::Amounts;
use crate::store::retention::brake::EndedPages;
use crate::store::retention::report::{HistoryState, PrunedName, RetentionReport};
use crate::store::schema::keys;
use crate::store::schema::rows::LocationRow;
use crate::store::tree::version_record::VersionRows;
use crate::sync::lock;

/// Nanoseconds of a day, and the shortest time from which requests per day are told.
const DAY: u128 = 86_400 * 1_000_000_000;
const TELL_FROM: u64 = 60 * 1_000_000_000;
/// Longest path that is followed upwards.
const DEPTH_MAX: usize = 4096;

/// Which names are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamesBelow {
    /// All below a directory.
    Directory(Ino),
    /// One.
    Name {
        /// Its directory.
        directory: Ino,
        /// The name in it.
        name: Bytes,
    },
}

/// The sizes of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSizes {
    /// Live and stored bytes.
    pub amounts: Amounts,
    /// Bytes of the objects of the index.
    pub index: u64,
    /// Requests to the store per day since the mount; `None` where no mount of a writer knows, or after less than a minute.
    pub requests: Option<u64>,
}

impl Retention {
    /// Returns the sizes of the namespace. Lists the objects of the index.
    ///
    /// # Errors
    /// Errors of the index and the store.
    pub async fn sizes(&self) -> Result<StoreSizes, StoreError> {
        let objects = self.core.home.index.list("meta").await?;
        Ok(StoreSizes {
            amounts: self.amounts().await?,
            index: objects.iter().map(|object| object.size).sum(),
            requests: self.requests_per_day(),
        })
    }

    /// Returns what was last known about the history; `None` before the first look.
    pub fn history_state(&self) -> Option<HistoryState> {
        lock(&self.state).clone()
    }

    /// Looks at the history for a status.
    pub(crate) async fn look(&self, stopped: Option<String>) -> Result<(), StoreError> {
        let size = self.history_size().await?;
        let state = HistoryState {
            bytes: self.amounts().await?.history(),
            max: size.map(|size| size.max),
            shortened: self.cap().await?.map(|cap| cap.since),
            waiting: self.waiting_drops().await?,
            stopped,
        };
        *lock(&self.state) = Some(state);
        Ok(())
    }

    fn requests_per_day(&self) -> Option<u64> {
        let elapsed = self.core.env.now().saturating_sub(self.opened);
        let is_told = matches!(self.core.role, Role::Writer) && elapsed >= TELL_FROM;
        let counters = self.core.backend.counters();
        let all = counters.put + counters.get + counters.list + counters.delete + counters.head;
        let per_day = u128::from(all) * DAY / u128::from(elapsed.max(1));
        is_told.then(|| u64::try_from(per_day).unwrap_or(u64::MAX))
    }

    /// Returns the oldest exact times.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn horizons(&self) -> Result<Horizons, StoreError> {
        Horizons::read(&self.core.index.snapshot()).await
    }

    /// Returns the twenty names with the most bytes in versions that have ended. Looks at every such version.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn largest_names(&self, below: &NamesBelow) -> Result<Vec<PrunedName>, StoreError> {
        let view = self.history.view();
        let mut known = HashMap::new();
        let mut pages = EndedPages::new(self.core.index.snapshot());
        let mut names = RetentionReport::default();
        while let Some(versions) = pages.next().await? {
            for version in versions {
                let Some(node) = &version.record.node else {
                    continue;
                };
                let bytes = node.space();
                let name = match version.list {
                    VersionRows::Of(name) => Some(name),
                    VersionRows::Linked(ino) => self.name_of(ino).await?,
                };
                let Some(name) = name.filter(|_| bytes > 0) else {
                    continue;
                };
                let is_counted = match below {
                    NamesBelow::Name {
                        directory,
                        name: only,
                    } => name.parent == *directory && name.name == *only,
                    NamesBelow::Directory(ROOT) => true,
                    NamesBelow::Directory(directory) => {
                        is_below(&view, name.parent, *directory, &mut known).await?
                    }
                };
                if is_counted {
                    names.drop_of(Some(&name), bytes);
                }
            }
        }
        Ok(names.largest())
    }

    /// Returns a name of a hard-linked inode that has one.
    async fn name_of(&self, ino: Ino) -> Result<Option<Dentry>, StoreError> {
        let row: Option<LocationRow> = self.core.index.row(&keys::place(ino)).await?;
        Ok(row.map(|row| Dentry::new(row.directory, row.name)))
    }
}

/// Tells whether a directory is another one or below it, or was when it was removed.
async fn is_below(
    view: &PastView,
    directory: Ino,
    above: Ino,
    known: &mut HashMap<Ino, bool>,
) -> Result<bool, StoreError> {
    let (mut at, mut passed) = (directory, Vec::new());
    let is_below = loop {
        if at == above {
            break true;
        }
        if let Some(known) = known.get(&at) {
            break *known;
        }
        if at == ROOT || passed.len() == DEPTH_MAX {
            break false;
        }
        passed.push(at);
        match view.where_now(at).await? {
            Some(place) => at = place.parent,
            None => break false,
        }
    };
    known.extend(passed.into_iter().map(|passed| (passed, is_below)));
    Ok(is_below)
}
