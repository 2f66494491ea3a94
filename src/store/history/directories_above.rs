//! The directories above a directory, through all the places that it and they have had.

use std::ops::Range;

use crate::store::history::view::PastView;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Ino, ROOT, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::InodeRow;
use crate::store::schema::tables::{DirectoryLocationTable, RowTable};

/// The most directories above a directory that are looked at.
const DEPTH_MAX: usize = 4096;

/// The most directories, with times, that are returned. More are those of a damaged index, in which a directory has many places at the same
/// time.
const ABOVE_MAX: usize = 1 << 20;

/// A directory that was above another one for a time, or is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Above {
    pub(crate) directory: Ino,
    pub(crate) time: Range<Timestamp>,
    depth: usize,
}

/// Where a removed directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    Nowhere,
    /// Until it is undeleted, in the directory that it was removed from.
    WhereItWas,
}

impl Above {
    /// Returns the part of a time in which it was above; `None` if there is none.
    pub(crate) fn during(&self, time: &Range<Timestamp>) -> Option<Range<Timestamp>> {
        let common = self.time.start.max(time.start)..self.time.end.min(time.end);
        (common.start < common.end).then_some(common)
    }
}

impl PastView {
    /// Returns a directory and those that were above it at any time, each with a time for which it was; one that was there several times
    /// is returned as often. A place whose version has been dropped is not known any more.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn directories_above(
        &self,
        directory: Ino,
        removed: Removed,
    ) -> Result<Vec<Above>, StoreError> {
        let mut next = vec![Above {
            directory,
            time: Timestamp(0)..Timestamp(u64::MAX),
            depth: 0,
        }];
        let mut found = Vec::new();
        while let Some(above) = next.pop() {
            if above.directory != ROOT && above.depth < DEPTH_MAX {
                next.extend(self.parents_during(&above, removed).await?);
            }
            found.push(above);
            if found.len() + next.len() > ABOVE_MAX {
                let text = format!("directory {} has too many places", directory.0);
                return Err(StoreError::Corrupt(text));
            }
        }
        Ok(found)
    }

    /// Returns the directories that a directory was in during a time, each with its part of it.
    async fn parents_during(
        &self,
        below: &Above,
        removed: Removed,
    ) -> Result<Vec<Above>, StoreError> {
        let (mut parents, mut next) = (Vec::new(), Timestamp(u64::MAX));
        let mut add = |parent: Ino, time: Range<Timestamp>| {
            parents.extend(below.during(&time).map(|time| Above {
                directory: parent,
                time,
                depth: below.depth + 1,
            }));
        };
        // Before the former places: one that it leaves meanwhile is found in either.
        let row = self.rows.row(&keys::inode(below.directory)).await?;
        if let Some(InodeRow::Directory(row)) = row
            && let Some((since, place)) = row.place
        {
            add(place.parent, since..next);
            next = since;
        }
        let from = keys::directory_locations(below.directory);
        let rows = self.rows.scan(from.clone(), keys::after(&from), usize::MAX);
        for (key, value) in rows.await? {
            let place = DirectoryLocationTable::decode(&value)?;
            let since = keys::location_start(&key)
                .ok_or_else(|| StoreError::Corrupt("H N key: no time".to_owned()))?;
            let is_extended = removed == Removed::WhereItWas && place.removal_burst.is_some();
            let end = if is_extended { next } else { place.end };
            add(place.parent, since..end);
            next = since;
        }
        Ok(parents)
    }
}
