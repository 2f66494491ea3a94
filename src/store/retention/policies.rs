//! By which policy a version is judged: that of the namespace, limited by those of the directories that it was below when it ended.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use crate::store::index::directory_policies::DirectoryPolicies;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::policy::Policy;
use crate::store::model::version::{Ino, ROOT, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::InodeRow;
use crate::store::schema::tables::{DirectoryLocationTable, RowTable};

/// The most directories above a directory that are looked at.
const DEPTH_MAX: usize = 4096;
/// How many places of directories a run remembers, at most.
const REMEMBERED_MAX: usize = 65_536;

/// A directory that a directory was in for a time.
#[derive(Clone, Debug)]
struct Place {
    time: Range<Timestamp>,
    parent: Ino,
}

/// The policies by which one run judges.
#[derive(Debug)]
pub(super) struct PolicyReader<'a> {
    namespace: &'a Policy,
    directories: DirectoryPolicies,
    /// Where directories were, as far as it was looked up.
    places: HashMap<Ino, Vec<Place>>,
    remembered: usize,
}

impl<'a> PolicyReader<'a> {
    pub(super) fn new(namespace: &'a Policy, directories: DirectoryPolicies) -> Self {
        Self {
            namespace,
            directories,
            places: HashMap::new(),
            remembered: 0,
        }
    }

    /// The policy of the namespace.
    pub(super) fn namespace(&self) -> &'a Policy {
        self.namespace
    }

    /// Tells whether no directory has or had a policy.
    pub(super) fn is_one(&self) -> bool {
        self.directories.is_empty()
    }

    /// Returns the policy for versions that ended at a time in a directory.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(super) async fn at(
        &mut self,
        rows: &Snapshot,
        directory: Ino,
        at: Timestamp,
    ) -> Result<Cow<'a, Policy>, StoreError> {
        let mut policy = Cow::Borrowed(self.namespace);
        if self.directories.is_empty() {
            return Ok(policy);
        }
        let mut directory = directory;
        for _ in 0..DEPTH_MAX {
            if let Some(own) = self.directories.at(directory, at) {
                policy = Cow::Owned(policy.limited_by(own));
            }
            match self.parent_at(rows, directory, at).await? {
                Some(parent) => directory = parent,
                None => break,
            }
        }
        Ok(policy)
    }

    /// Returns a policy that keeps no version longer than any of the directories that it may have been in.
    pub(super) fn shortest(&self) -> Cow<'a, Policy> {
        match self.directories.is_empty() {
            true => Cow::Borrowed(self.namespace),
            false => Cow::Owned(self.directories.shortest_ever(self.namespace)),
        }
    }

    /// Returns the policy for the removal of a directory itself: for what `keep-removed` keeps of its tree its own counts too.
    ///
    /// # Errors
    /// As those of [`Self::at`].
    pub(super) async fn at_removal(
        &mut self,
        rows: &Snapshot,
        directory: Ino,
        removed: &RemovedFrom,
    ) -> Result<Cow<'a, Policy>, StoreError> {
        let policy = self.at(rows, removed.parent, removed.at).await?;
        // It had its policy up to its removal.
        let before = Timestamp(removed.at.0.saturating_sub(1));
        Ok(match self.directories.at(directory, before) {
            Some(own) => Cow::Owned(policy.limited_by(own)),
            None => policy,
        })
    }

    /// Returns the directory that a directory was in at a time; `None` for the root directory, and if it did not exist then.
    async fn parent_at(
        &mut self,
        rows: &Snapshot,
        directory: Ino,
        at: Timestamp,
    ) -> Result<Option<Ino>, StoreError> {
        if directory == ROOT {
            return Ok(None);
        }
        let known = self.places.get(&directory).into_iter().flatten();
        let mut known = known.filter(|place| place.time.contains(&at));
        if let Some(place) = known.next() {
            return Ok(Some(place.parent));
        }
        let Some(place) = place_at(rows, directory, at).await? else {
            return Ok(None);
        };
        if self.remembered >= REMEMBERED_MAX {
            self.places.clear();
            self.remembered = 0;
        }
        self.remembered += 1;
        let parent = place.parent;
        self.places.entry(directory).or_default().push(place);
        Ok(Some(parent))
    }
}

/// Where and when a directory was removed.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemovedFrom {
    pub(super) parent: Ino,
    pub(super) at: Timestamp,
}

async fn place_at(
    rows: &Snapshot,
    directory: Ino,
    at: Timestamp,
) -> Result<Option<Place>, StoreError> {
    if let Some(InodeRow::Directory(row)) = rows.row(&keys::inode(directory)).await?
        && let Some((since, place)) = row.place.filter(|(since, _)| *since <= at)
    {
        return Ok(Some(Place {
            time: since..Timestamp(u64::MAX),
            parent: place.parent,
        }));
    }
    let from = keys::directory_location(directory, at).bytes();
    let end = keys::after(&keys::directory_locations(directory));
    let Some((key, value)) = rows.first(from, end).await? else {
        return Ok(None);
    };
    let place = DirectoryLocationTable::decode(&value)?;
    let since = keys::location_start(&key)
        .ok_or_else(|| StoreError::Corrupt("H N key: no time".to_owned()))?;
    Ok((at <= place.end).then_some(Place {
        // A directory is removed, and its last names with it, in one instant.
        time: since..place.end,
        parent: place.parent,
    }))
}
