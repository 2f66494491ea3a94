//! History of a name and of a directory: the versions of a name, the names that have versions, and the log of changes.
//!
//! A list of versions continues under the name's origin: through the rename or undelete that created the name. Transient names,
//! deleted versions, and ignored names that do not exist any more are in no list.

use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map};

use bytes::Bytes;

use crate::store::history::History;
use crate::store::history::as_of::{Binding, HistoricalVersion};
use crate::store::history::version_list::{Predecessor, Successor, VersionList};
use crate::store::history::view::PastView;
use crate::store::index::changed_hours::time_of;
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::ignored_names::is_ignored;
use crate::store::model::version::{EndOp, Ino, Kind, Op, PastEntry, ROOT, Retained, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::retention_keys::hour_of_row;
use crate::store::schema::rows::{DentryBody, DentryRow, ImportedRow, VersionRecord};
use crate::store::schema::tables::{ChangedHourTable, DentryTable, RowTable, VersionTable};
use crate::store::tree::move_rows::is_rewrite;
use crate::sync::Arc;

/// Largest number of renames and undeletes that a list of versions follows back.
const ORIGINS_MAX: usize = 64;

/// A row of the history of a name. A name can have very many.
enum NameRow {
    /// A version of its own.
    Version(Arc<HistoricalVersion>),
    /// That the name led to a hard-linked inode.
    Binding(Box<VersionRecord>),
}

impl NameRow {
    /// Returns what a record means for the list of versions; `None` for a transient name.
    fn of(closed: VersionRecord) -> Option<Self> {
        match closed.node {
            _ if closed.end_op == EndOp::Transient => None,
            None => Some(Self::Binding(Box::new(closed))),
            Some(_) => Some(Self::Version(Arc::new(HistoricalVersion::ended(closed)?))),
        }
    }
}

/// Tells whether a version was undeleted or restored under the name that it was removed from.
fn back(version: &HistoricalVersion, slot: &Dentry) -> bool {
    let origin = version.stamp.origin.as_ref();
    matches!(version.stamp.op, Op::Undelete | Op::Restore)
        && origin.is_none_or(|origin| (origin.directory, &origin.name) == (slot.parent, &slot.name))
}

impl History {
    /// Returns the timestamp of a live file's last version; `None` if the file has none, or its rows cannot be read.
    pub async fn last_version(&self, ino: Ino) -> Option<Timestamp> {
        let locked = self.tree.lock(ino).await.ok()?;
        locked.as_file()?.state.version()
    }
}

impl PastView {
    /// Returns the row of the version that was imported under a foreign id. The version itself may be deleted.
    pub(crate) async fn imported(&self, id: &str) -> Result<Option<ImportedRow>, StoreError> {
        self.rows.row(&keys::foreign(id.as_bytes())).await
    }

    /// Returns every version of a name, oldest first, the current one last. The list continues under the name that a rename moved
    /// the file from, and through the removal that an undelete reversed.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn versions(
        &self,
        directory: Ino,
        name: &[u8],
    ) -> Result<Vec<PastEntry>, StoreError> {
        let list = self.history(directory, name).await?.versions;
        Ok(list.into_iter().map(Arc::unwrap_or_clone).collect())
    }

    /// Returns the same list, with the other names under which older versions are stored.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn history(&self, directory: Ino, name: &[u8]) -> Result<VersionList, StoreError> {
        let mut all = self.slot_versions(directory, name, None).await?;
        let mut slot = Dentry::new(directory, Bytes::copy_from_slice(name));
        let mut predecessors = Vec::new();
        for _ in 0..ORIGINS_MAX {
            let Some(first) = all.first() else { break };
            let Some(origin) = first.stamp.origin.clone() else {
                break;
            };
            let origin = Dentry::new(origin.directory, origin.name);
            if origin == slot || !matches!(first.stamp.op, Op::Rename | Op::Undelete | Op::Restore)
            {
                break;
            }
            let mut before = self.states_before(first, &origin).await?;
            let (Some(oldest), Some(youngest)) = (before.first(), before.last()) else {
                break;
            };
            predecessors.push(Predecessor {
                directory: origin.parent,
                name: origin.name.clone(),
                began: oldest.stamp.id.timestamp..=youngest.stamp.id.timestamp,
                successor: Successor {
                    directory: slot.parent,
                    name: slot.name,
                    version: first.stamp.id,
                },
            });
            before.append(&mut all);
            (all, slot) = (before, origin);
        }
        Ok(VersionList {
            versions: all
                .into_iter()
                .map(|version| Arc::new(Arc::unwrap_or_clone(version).into_entry()))
                .collect(),
            predecessors,
        })
    }

    /// Lists the names of files that have versions, live and removed ones, in ascending order; without the ignored names that do
    /// not exist now.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn names_with_versions(&self, directory: Ino) -> Result<Vec<Bytes>, StoreError> {
        let mut names = BTreeSet::new();
        let from = keys::entries(directory);
        let rows = self.rows.scan(from.clone(), keys::after(&from), usize::MAX);
        for (key, value) in rows.await? {
            let entry: DentryRow = DentryTable::decode(&value)?;
            let name = keys::entry_name(&key);
            let has_one = match &entry.body {
                DentryBody::Own { node, .. } if node.kind == Kind::Directory => false,
                DentryBody::Own { state, .. } => state.shown_stamp().is_some(),
                DentryBody::Linked(_) => self.has_file_versions(directory, &name).await?,
            };
            if has_one {
                names.insert(name);
            }
        }
        for name in interval_tree::all(&self.rows, directory).await? {
            let is_decided = names.contains(&name) || is_ignored(&name);
            if !is_decided && self.has_file_versions(directory, &name).await? {
                names.insert(name);
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Returns the timestamps at which the entries of a directory changed, newest first, at most `limit`.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn changes(
        &self,
        directory: Ino,
        limit: usize,
    ) -> Result<Vec<Timestamp>, StoreError> {
        let from = keys::entries(directory);
        let mut timestamps = interval_tree::bounds(&self.rows, directory).await?;
        for (_, value) in self
            .rows
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?
        {
            let entry: DentryRow = DentryTable::decode(&value)?;
            match entry.body {
                DentryBody::Own { node, state } => {
                    timestamps.extend(
                        state
                            .shown(entry.ino, &node, entry.alive_since)
                            .map(|last| last.stamp.id.timestamp),
                    );
                }
                DentryBody::Linked(stamp) => {
                    timestamps.insert(stamp.id.timestamp);
                }
            }
        }
        let from = keys::histories(directory);
        for (key, _) in self
            .rows
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?
        {
            timestamps.extend(keys::trailing_id(&key).map(|id| id.timestamp));
        }
        let newest = self.newest;
        let shown = timestamps.into_iter().rev().filter(|at| *at <= newest);
        Ok(shown.take(limit).collect())
    }
}

impl PastView {
    /// Returns the ends of the hours in which something below a directory changed, newest first: of the root directory only.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn changed_hours(&self, directory: Ino) -> Result<Vec<Timestamp>, StoreError> {
        if directory != ROOT {
            return Ok(Vec::new());
        }
        let all = ChangedHourTable::all();
        let end = keys::after(&all);
        let rows = self.rows.scan(all, end, usize::MAX).await?;
        let hours = rows.iter().rev().filter_map(|(key, _)| hour_of_row(key));
        let ends = hours.map(|hour| Timestamp(time_of(hour).end.0 - 1));
        Ok(ends.filter(|end| *end <= self.newest).collect())
    }
}

/// A change in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryChange {
    /// A version began.
    Stood {
        /// The name of the version.
        name: Bytes,
        /// The version.
        entry: Box<PastEntry>,
    },
    /// A name was removed, moved away, or undeleted elsewhere.
    Left {
        /// The name.
        name: Bytes,
        /// The timestamp of the change.
        at: Timestamp,
        /// Why the name ended.
        how: EndOp,
    },
}

impl DirectoryChange {
    /// Returns the timestamp of the change.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Stood { entry, .. } => entry.version.timestamp,
            Self::Left { at, .. } => *at,
        }
    }

    /// Returns the name that changed.
    pub fn name(&self) -> &Bytes {
        match self {
            Self::Stood { name, .. } | Self::Left { name, .. } => name,
        }
    }
}

impl PastView {
    /// Returns the newest `limit` changes of a directory, oldest first. Transient names are omitted, and the ignored names that do
    /// not exist now.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn change_log(
        &self,
        directory: Ino,
        limit: usize,
    ) -> Result<Vec<DirectoryChange>, StoreError> {
        let mut newest = BTreeMap::new();
        let changes = self.each_change(directory, |change| {
            let (name, is_version) = match &change {
                DirectoryChange::Stood { name, .. } => (name.clone(), true),
                DirectoryChange::Left { name, .. } => (name.clone(), false),
            };
            newest.insert((change.at(), name, is_version), change);
            if newest.len() > limit {
                newest.pop_first();
            }
        });
        changes.await?;
        let moved: BTreeSet<(Timestamp, Bytes)> = newest
            .values()
            .filter_map(moved_within(directory))
            .collect();
        let told = |change: &DirectoryChange| match change {
            DirectoryChange::Left {
                name,
                at,
                how: EndOp::RenamedTo,
            } => !moved.contains(&(*at, name.clone())),
            _ => true,
        };
        Ok(newest.into_values().filter(told).collect())
    }
}

impl PastView {
    /// Passes every change of a directory's entries to `each`: names in ascending order, the versions of a name before its ends.
    /// Transient names are omitted, and the ignored names that do not exist now.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn each_change(
        &self,
        directory: Ino,
        mut each: impl FnMut(DirectoryChange) + Send,
    ) -> Result<(), StoreError> {
        let mut names = interval_tree::all(&self.rows, directory).await?;
        names.retain(|name| !is_ignored(name));
        let from = keys::entries(directory);
        let rows = self.rows.scan(from.clone(), keys::after(&from), usize::MAX);
        names.extend(rows.await?.iter().map(|(key, _)| keys::entry_name(key)));
        for name in names {
            let changes = self.slot_changes(directory, &name).await?;
            let shown = changes.into_iter().filter(|c| c.at() <= self.newest);
            shown.for_each(&mut each);
        }
        Ok(())
    }

    /// Returns the changes of one name, oldest first: its whole list of versions, which continues under the names that renames took
    /// it from, and the ends of the name itself.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn name_log(
        &self,
        directory: Ino,
        name: &Bytes,
    ) -> Result<Vec<DirectoryChange>, StoreError> {
        let mut changes = self.slot_changes(directory, name).await?;
        changes.retain(|change| matches!(change, DirectoryChange::Left { .. }));
        let versions = self.versions(directory, name).await?;
        changes.extend(versions.into_iter().map(|entry| DirectoryChange::Stood {
            name: name.clone(),
            entry: Box::new(entry),
        }));
        changes.retain(|change| change.at() <= self.newest);
        changes.sort_by_key(DirectoryChange::at);
        Ok(changes)
    }
}

/// Returns the name that a rename within `directory` took away, and the timestamp.
fn moved_within(directory: Ino) -> impl Fn(&DirectoryChange) -> Option<(Timestamp, Bytes)> {
    move |change| match change {
        DirectoryChange::Stood { entry, .. } if entry.op == Op::Rename => {
            let origin = entry.renamed_from.as_ref()?;
            (origin.directory == directory).then(|| (change.at(), origin.name.clone()))
        }
        _ => None,
    }
}

impl PastView {
    /// Returns the versions of a name, and the ends of the name.
    async fn slot_changes(
        &self,
        directory: Ino,
        name: &Bytes,
    ) -> Result<Vec<DirectoryChange>, StoreError> {
        let mut changes: Vec<DirectoryChange> = self
            .slot_versions(directory, name, None)
            .await?
            .into_iter()
            .map(|version| DirectoryChange::Stood {
                name: name.clone(),
                entry: Box::new(Arc::unwrap_or_clone(version).into_entry()),
            })
            .collect();
        let from = keys::history(directory, name);
        let end = keys::after(&from);
        let rows = self.rows.scan(from, end, usize::MAX).await?;
        for (_, value) in rows {
            let closed: VersionRecord = VersionTable::decode(&value)?;
            if matches!(
                closed.end_op,
                EndOp::Deleted | EndOp::Undeleted | EndOp::RenamedTo | EndOp::Expired
            ) {
                changes.push(DirectoryChange::Left {
                    name: name.clone(),
                    at: closed.end,
                    how: match closed.end_op {
                        EndOp::Expired => EndOp::Deleted,
                        how => how,
                    },
                });
            }
        }
        Ok(changes)
    }

    /// Returns the versions of the entry `origin` that precede `first`, which was moved from there; oldest first.
    async fn states_before(
        &self,
        first: &HistoricalVersion,
        origin: &Dentry,
    ) -> Result<Vec<Arc<HistoricalVersion>>, StoreError> {
        let start = first.stamp.id.timestamp;
        let mut before = self
            .slot_versions(origin.parent, &origin.name, Some(start))
            .await?;
        if matches!(first.stamp.op, Op::Undelete | Op::Restore) {
            // The source may be in a tree that was restored elsewhere: states after the undeleted one continue there, not here.
            let content = first.node.content.reference();
            let same =
                |version: &Arc<HistoricalVersion>| version.node.content.reference() == content;
            before.truncate(before.iter().rposition(same).map_or(0, |at| at + 1));
        } else if before.last().and_then(|last| last.ended) != Some(start) {
            return Ok(Vec::new());
        }
        let gap = before.windows(2).rposition(|pair| {
            let began = pair[1].stamp.id.timestamp;
            let follows = pair[0].ended.is_some_and(|ended| is_rewrite(ended, began));
            !follows && !back(&pair[1], origin)
        });
        before.drain(..gap.map_or(0, |at| at + 1));
        Ok(before)
    }

    /// Returns every version of one directory entry that began before `until`, oldest first.
    async fn slot_versions(
        &self,
        directory: Ino,
        name: &[u8],
        until: Option<Timestamp>,
    ) -> Result<Vec<Arc<HistoricalVersion>>, StoreError> {
        let current = self.entry(directory, name).await?;
        let from = keys::history(directory, name);
        let end = keys::after(&from);
        let mut rows = Vec::new();
        let keep = |_, value: Bytes| {
            rows.extend(NameRow::of(VersionTable::decode(&value)?));
            Ok(())
        };
        self.rows.scan_each(from..end, keep).await?;
        let mut all = Vec::with_capacity(rows.len() + 1);
        let mut linked: HashMap<Ino, Vec<HistoricalVersion>> = HashMap::new();
        for row in rows.into_iter().rev() {
            match row {
                NameRow::Version(version) => all.push(version),
                NameRow::Binding(closed) => {
                    let binding = Binding::ended(&closed);
                    // The states of an inode are read once, even if the name was bound to it several times.
                    let states = match linked.entry(closed.ino) {
                        hash_map::Entry::Occupied(known) => known.into_mut(),
                        hash_map::Entry::Vacant(place) => {
                            place.insert(self.linked_states(closed.ino).await?)
                        }
                    };
                    let shown = states.iter().filter_map(|s| binding.shows(s.clone()));
                    all.extend(shown.map(Arc::new));
                }
            }
        }
        match current.map(|entry| (entry.ino, entry.alive_since, entry.body)) {
            Some((ino, alive_since, DentryBody::Own { node, state })) => {
                all.extend(
                    state
                        .shown(ino, &node, alive_since)
                        .map(|last| Arc::new(HistoricalVersion::of(last, None))),
                );
            }
            Some((ino, _, DentryBody::Linked(bound))) => {
                let states = self.linked_states(ino).await?;
                let binding = Binding::live(ino, &bound);
                let shown = states.into_iter().filter_map(|s| binding.shows(s));
                all.extend(shown.map(Arc::new));
            }
            None => {}
        }
        // A deleted version is in no list, although its name is still shown at timestamps within its time.
        all.retain(|s| s.kept != Retained::Nothing);
        if let Some(until) = until {
            all.retain(|s| s.stamp.id.timestamp < until);
        }
        all.sort_by_key(|s| s.stamp.id);
        all.dedup_by_key(|s| s.stamp.id);
        Ok(all)
    }
}
