//! The names of a directory at one time, read as they are asked for.

use crate::fs::error::FsResult;
use crate::fs::past::{DrawnListing, ListedName, Past};
use crate::store::{DirectoryListing, Kind};
use bytes::Bytes;

/// A directory's names at one time. Offsets are positions in it.
pub(crate) struct DirSnapshot {
    names: Vec<ListedName>,
    /// Names that were not read yet. Attributes of live ones are not kept, because they may change before they are asked for.
    rest: Option<UnreadNames>,
    /// Of a directory whose names the kernel may keep: its stamp before they were read.
    stamp: Option<u64>,
}

/// Names that are read as they are asked for.
pub(crate) enum UnreadNames {
    /// Of a live directory.
    Live(DirectoryListing),
    /// Of the past.
    Past(DrawnListing),
}

impl DirSnapshot {
    /// A snapshot of `itself`, `parent` and what `rest` will give.
    pub(crate) fn new(
        itself: u64,
        parent: u64,
        listed: Vec<ListedName>,
        rest: Option<UnreadNames>,
    ) -> Self {
        let dot = |ino, name: &'static [u8]| ListedName {
            ino,
            kind: Kind::Directory,
            name: Bytes::from_static(name),
            found: None,
        };
        let mut names = Vec::with_capacity(listed.len() + 2);
        names.extend([dot(itself, b"."), dot(parent, b"..")]);
        names.extend(listed);
        Self {
            names,
            rest,
            stamp: None,
        }
    }

    /// The same, of a directory that had `stamp` before.
    pub(crate) fn stamped(self, stamp: u64) -> Self {
        Self {
            stamp: Some(stamp),
            ..self
        }
    }

    /// The stamp of the directory before the names were read; `None` where the kernel may not keep them.
    pub(crate) fn stamp(&self) -> Option<u64> {
        self.stamp
    }

    /// How many names there are, the dots included; `None` while some are not read.
    pub(crate) fn complete_len(&self) -> Option<usize> {
        self.rest.is_none().then_some(self.names.len())
    }

    /// The name at `position`; `None` after the last.
    ///
    /// # Errors
    /// Those of the store's listing.
    pub(crate) async fn at(
        &mut self,
        position: usize,
        past: &Past,
    ) -> FsResult<Option<&mut ListedName>> {
        while self.names.len() <= position {
            let next = match &mut self.rest {
                Some(UnreadNames::Live(listing)) => {
                    listing.next().await?.map(|(name, stat)| ListedName {
                        ino: stat.ino.0,
                        kind: stat.kind,
                        name,
                        found: None,
                    })
                }
                Some(UnreadNames::Past(listing)) => past.next_name(listing).await?,
                None => break,
            };
            match next {
                Some(listed) => self.names.push(listed),
                None => self.rest = None,
            }
        }
        Ok(self.names.get_mut(position))
    }
}
