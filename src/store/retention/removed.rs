//! Names and directories that were removed: until when their last versions are kept for an undelete.

use std::collections::HashMap;
use std::ops::Range;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::policy::{HOUR, Term};
use crate::store::model::version::{EndOp, Ino, Timestamp, VersionId};
use crate::store::retention::policies::{PolicyReader, RemovedFrom};
use crate::store::retention::shown::{NameAfter, ShownVersion, existed_since};
use crate::store::schema::keys;
use crate::store::schema::rows::DirectoryLocation;
use crate::store::schema::tables::{DirectoryLocationTable, RowTable};
use crate::store::tree::version_record::VersionRows;

/// How many directories are remembered, at most.
const REMEMBERED_MAX: usize = 65_536;

/// What is known about a removed directory.
#[derive(Clone, Copy, Debug)]
struct RemovedDirectory {
    /// The directory that it was removed from.
    parent: Ino,
    /// Timestamp of the first removal of the burst that emptied it.
    first: Timestamp,
    /// Until when its tree is offered for an undelete; 0 if it is not.
    until: Timestamp,
}

/// Tells until when versions of removed names are kept.
pub(super) struct RemovedReader {
    now: Timestamp,
    /// Directories that were looked up in one snapshot; `None`: it exists.
    directories: HashMap<Ino, Option<RemovedDirectory>>,
}

impl RemovedReader {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            directories: HashMap::new(),
        }
    }

    /// Forgets what was looked up, because a newer snapshot is read from now on.
    pub(super) fn renew(&mut self) {
        self.directories.clear();
    }

    /// Returns until when a version is kept as the last one of a removed name, or in the tree of a removed directory.
    pub(super) async fn until(
        &mut self,
        rows: &Snapshot,
        policies: &mut PolicyReader<'_>,
        version: &ShownVersion,
    ) -> Result<Option<Timestamp>, StoreError> {
        let NameAfter::Ended(end) = &version.after else {
            return Ok(None);
        };
        // The last state of the name is gone: an older one, which is extended over its time, is not kept for it.
        if end.op == EndOp::Expired || version.own_end != version.time.end {
            return Ok(None);
        }
        if policies.namespace().removed == Term::Off
            || !is_last(rows, &version.name, end.id).await?
        {
            return Ok(None);
        }
        let Range {
            start: began,
            end: ended,
        } = version.time;
        let mut until = None;
        if ended.0.saturating_sub(end.existed_since.0) >= HOUR {
            let removed = RemovedFrom {
                parent: version.name.parent,
                at: version.own_end,
            };
            let last = match version.directory {
                Some(directory) => last_location(rows, directory).await?,
                None => None,
            };
            // One that was undeleted since has a later location.
            let last = last.filter(|last| last.end == version.own_end);
            let burst = last.and_then(|last| last.removal_burst);
            until = match version.directory.zip(burst) {
                Some((directory, burst)) => {
                    let policy = policies.at_removal(rows, directory, &removed);
                    policy.await?.removed_until(burst)
                }
                None => {
                    let policy = policies.at(rows, removed.parent, removed.at);
                    policy.await?.removed_until(ended)
                }
            };
        }
        let mut directory = version.name.parent;
        while let Some(removed) = self.directory(rows, policies, directory).await? {
            let is_in_tree = began < removed.first && removed.first <= ended;
            if is_in_tree && removed.until > self.now {
                until = until.max(Some(removed.until));
                break;
            }
            directory = removed.parent;
        }
        Ok(until)
    }

    /// Returns what is known about a removed directory; `None` if the directory exists, or was never known.
    async fn directory(
        &mut self,
        rows: &Snapshot,
        policies: &mut PolicyReader<'_>,
        directory: Ino,
    ) -> Result<Option<RemovedDirectory>, StoreError> {
        if let Some(known) = self.directories.get(&directory) {
            return Ok(*known);
        }
        let found = match rows.get(&keys::inode(directory)).await? {
            Some(_) => None,
            None => read(rows, policies, directory).await?,
        };
        if self.directories.len() >= REMEMBERED_MAX {
            self.directories.clear();
        }
        self.directories.insert(directory, found);
        Ok(found)
    }
}

/// Returns what is known about a directory that does not exist.
async fn read(
    rows: &Snapshot,
    policies: &mut PolicyReader<'_>,
    directory: Ino,
) -> Result<Option<RemovedDirectory>, StoreError> {
    let Some(place) = last_location(rows, directory).await? else {
        return Ok(None);
    };
    let mut removed = RemovedDirectory {
        parent: place.parent,
        first: place.removal_burst.unwrap_or(place.end),
        until: Timestamp(0),
    };
    let slot = Dentry::new(place.parent, place.name);
    let list = VersionRows::Of(slot.clone());
    let newest = list.newest_at(rows, Timestamp(u64::MAX)).await?;
    let record = newest.filter(|newest| {
        let life = newest.end.0.saturating_sub(existed_since(newest).0);
        newest.ino == directory && newest.end_op == EndOp::Deleted && life >= HOUR
    });
    let entry = keys::entry(slot.parent, &slot.name);
    if record.is_some() && rows.get(&entry).await?.is_none() {
        let from = RemovedFrom {
            parent: place.parent,
            at: place.end,
        };
        let policy = policies.at_removal(rows, directory, &from).await?;
        let until = policy.removed_until(removed.first);
        removed.until = until.unwrap_or(Timestamp(0));
    }
    Ok(Some(removed))
}

/// Tells whether a name does not exist now, and its record with this id is the newest one.
async fn is_last(rows: &Snapshot, slot: &Dentry, id: VersionId) -> Result<bool, StoreError> {
    let entry = keys::entry(slot.parent, &slot.name);
    if rows.get(&entry).await?.is_some() {
        return Ok(false);
    }
    let list = VersionRows::Of(slot.clone());
    let newest = list.newest_at(rows, Timestamp(u64::MAX)).await?;
    Ok(newest.is_some_and(|newest| newest.stamp.id == id))
}

async fn last_location(
    rows: &Snapshot,
    directory: Ino,
) -> Result<Option<DirectoryLocation>, StoreError> {
    let from = keys::directory_locations(directory);
    let found = rows.first(from.clone(), keys::after(&from)).await?;
    found
        .map(|(_, value)| DirectoryLocationTable::decode(&value))
        .transpose()
}
