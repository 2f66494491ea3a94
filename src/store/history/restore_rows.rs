//! The rows of a restore, from its plan. First every name that ends is closed, then names are bound, then each directory's times and
//! counters change once.
//!
//! The caller holds the locks of all inodes of the plan, the gate and the turn of restores.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::commit::txn::Txn;
use crate::store::history::History;
use crate::store::history::restore_cached::{CachedChange, lock_of};
use crate::store::history::restore_plan::{
    ChangedState, EndedName, LiveName, MadeName, MovedDirectory, RestorePlan, is_directory,
};
use crate::store::history::restore_progress::{
    MadeTree, RestoreOperation, Restored, names_of_left,
};
use crate::store::history::restore_tree::{RestoreAs, RestoreItem, RestoredNames};
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::tree_changes::{ChangedName, TreeChanges};
use crate::store::model::version::{Author, EndOp, Ino, Op, Stamp, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryLocation, DirectoryRow, EntryState, InodeRow, LastVersion,
    LinkedRow, OlderVersions,
};
use crate::store::tree::inode::LinkState;
use crate::store::tree::locked::LockedInode;
use crate::store::tree::move_rows::BindTarget;
use crate::store::tree::rename::RenameEffects;
use crate::store::tree::review::{names_of, review};
use crate::store::tree::row_writer::{NameRemoval, VersionEnd};

/// A restore that is being written.
struct RestoreWriter<'a> {
    history: &'a History,
    txn: Txn,
    locked: &'a mut [LockedInode],
    author: &'a Author,
    /// Timestamp of the restore's first operation.
    began: Timestamp,
    /// Since when replaced names have existed.
    replaced: BTreeMap<Dentry, Timestamp>,
    /// Changes of the numbers of names, and of directories among them, of live directories.
    counts: BTreeMap<Ino, (i64, i64)>,
    after: Vec<CachedChange>,
    changes: TreeChanges,
    made: BTreeSet<Ino>,
    ending: BTreeSet<Ino>,
}

impl History {
    /// Queues an operation with the changes of a plan.
    pub(super) fn restore_rows(
        &self,
        locked: &mut [LockedInode],
        operation: RestoreOperation<'_>,
        plan: RestorePlan,
    ) -> Result<MadeTree, StoreError> {
        let count = plan.len();
        let left = names_of_left(plan.left.clone());
        let RestoreOperation {
            at,
            began,
            author,
            mut dependencies,
            kept,
            progress,
        } = operation;
        dependencies.below.extend(&plan.directories);
        let mut txn = self.commit.txn(at, dependencies);
        self.put_kept(&mut txn, &kept, author);
        progress.put(&mut txn);
        let mut writer = RestoreWriter {
            history: self,
            txn,
            locked,
            author,
            began,
            replaced: BTreeMap::new(),
            counts: BTreeMap::new(),
            after: Vec::new(),
            changes: TreeChanges::default(),
            made: BTreeSet::new(),
            ending: BTreeSet::new(),
        };
        writer.write(plan)?;
        let RestoreWriter {
            txn,
            locked,
            after,
            mut changes,
            made,
            ..
        } = writer;
        let time = txn.time;
        let operation = self.commit.enqueue(txn)?;
        self.note_kept(&kept);
        for change in after {
            changes
                .removed
                .extend(self.apply_restored(locked, change, time)?);
        }
        Ok(MadeTree {
            restored: Restored {
                at: Some(at),
                count,
                changes,
                left,
            },
            directories: made.into_iter().collect(),
            operation: Some(operation),
        })
    }
}

impl RestoreWriter<'_> {
    fn write(&mut self, mut plan: RestorePlan) -> Result<(), StoreError> {
        let ended = std::mem::take(&mut plan.ended);
        self.end_names(ended)?;
        for moved in &plan.moved {
            let from = &moved.from.slot;
            self.txn.delete(keys::entry(from.parent, &from.name));
        }
        for moved in &plan.moved {
            self.move_directory(moved)?;
        }
        for changed in &plan.states {
            self.change_state(changed)?;
        }
        for changed in &plan.attributes {
            let row = self.next_version(changed)?;
            let LiveName { slot, row: old } = &changed.name;
            self.set_attributes(slot, row, old.ino, changed)?;
        }
        for made in std::mem::take(&mut plan.made) {
            self.make(made, &plan);
        }
        for names in std::mem::take(&mut plan.links) {
            self.make_linked(&names);
        }
        self.touch_directories(&plan);
        Ok(())
    }

    fn stamp(&self, made: &MadeName) -> Stamp {
        let (at, tree) = (self.txn.timestamp, &self.history.tree);
        tree.stamp(at, Op::Restore, self.author, made.origin.clone())
    }

    /// Counts a change of the names of a directory.
    fn count(&mut self, slot: &Dentry, entries: i64, is_directory: bool) {
        let counts = self.counts.entry(slot.parent).or_default();
        counts.0 += entries;
        counts.1 += entries * i64::from(is_directory);
        let name = ChangedName {
            directory: slot.parent,
            name: slot.name.clone(),
        };
        self.changes.names.push(name);
    }

    /// Since when a name exists that gets another inode.
    fn alive_since(&self, slot: &Dentry) -> Timestamp {
        let at = self.txn.timestamp;
        self.replaced.get(slot).map_or(at, |since| *since.min(&at))
    }

    fn end_names(&mut self, ended: Vec<EndedName>) -> Result<(), StoreError> {
        let mut linked: BTreeMap<Ino, Vec<EndedName>> = BTreeMap::new();
        for ended in ended {
            let LiveName { slot, row } = &ended.name;
            self.txn.delete(keys::entry(slot.parent, &slot.name));
            self.txn.touch(keys::entry(slot.parent, &slot.name));
            self.txn.touch(keys::inode(row.ino));
            self.count(slot, -1, is_directory(row));
            if ended.is_replaced {
                self.replaced.insert(slot.clone(), row.alive_since);
            }
            if is_directory(row) {
                self.end_directory(&ended)?;
            } else if matches!(row.body, DentryBody::Linked(_)) {
                linked.entry(row.ino).or_default().push(ended);
            } else {
                let lock = lock_of(self.locked, row.ino)?;
                let file = lock.as_file().ok_or(StoreError::IsDirectory)?;
                let removal = NameRemoval {
                    dentry: slot,
                    entry: row,
                    cause: ended.cause(),
                    is_pinned: lock.inode.is_pinned(),
                };
                let tree = &self.history.tree;
                let link_state = tree.detach(&mut self.txn, row.ino, file, removal);
                let ino = row.ino;
                let out = RenameEffects::Out { ino, link_state };
                self.after.push(CachedChange::Effect(out));
            }
        }
        for (ino, names) in linked {
            self.end_links(ino, names)?;
        }
        Ok(())
    }

    /// Ends several names of a hard-linked inode.
    fn end_links(&mut self, ino: Ino, mut names: Vec<EndedName>) -> Result<(), StoreError> {
        let (at, tree) = (self.txn.timestamp, &self.history.tree);
        let lock = lock_of(self.locked, ino)?;
        let file = lock.as_file().ok_or(StoreError::IsDirectory)?;
        let LinkState::HardLinked {
            place,
            nlink,
            older,
        } = file.link_state.clone()
        else {
            return Err(StoreError::Corrupt(format!(
                "inode {} has names of a hard-linked one",
                ino.0
            )));
        };
        let ends = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let left = nlink.saturating_sub(ends);
        // The last name takes the inode with it.
        let last = if left == 0 { names.pop() } else { None };
        for ended in &names {
            let LiveName { slot, row } = &ended.name;
            let DentryBody::Linked(stamp) = &row.body else {
                continue;
            };
            let (since, end) = (row.alive_since.min(at), ended.end(at));
            review(&mut self.txn, slot, OlderVersions::Held);
            review(&mut self.txn, &names_of(ino), older);
            tree.unbind(&mut self.txn, slot, ino, stamp, since, end);
            if !ended.is_replaced {
                let rows = &mut self.txn.rows;
                interval_tree::add_removed(rows, slot.parent, &slot.name, since..at);
            }
        }
        let link_state = match &last {
            Some(ended) => {
                let removal = NameRemoval {
                    dentry: &ended.name.slot,
                    entry: &ended.name.row,
                    cause: ended.cause(),
                    is_pinned: lock.inode.is_pinned(),
                };
                tree.detach_last_link(&mut self.txn, ino, file, removal)
            }
            None => {
                tree.count_links(&mut self.txn, ino, left);
                let mut node = file.node.clone();
                node.attrs.ctime = self.txn.time;
                let row = LinkedRow {
                    node,
                    state: file.state.clone(),
                    nlink: left,
                    older,
                };
                self.txn
                    .put(keys::inode(ino), &InodeRow::Linked(Box::new(row)));
                LinkState::HardLinked {
                    place,
                    nlink: left,
                    older,
                }
            }
        };
        let out = RenameEffects::Out { ino, link_state };
        self.after.push(CachedChange::Effect(out));
        Ok(())
    }

    /// Ends the name of a directory, whose own names end too or move.
    fn end_directory(&mut self, ended: &EndedName) -> Result<(), StoreError> {
        let (at, tree) = (self.txn.timestamp, &self.history.tree);
        let LiveName { slot, row } = &ended.name;
        let ino = row.ino;
        self.txn.dependencies.removes.push(ino);
        self.ending.insert(ino);
        self.txn.usage.files -= 1;
        let lock = lock_of(self.locked, ino)?;
        let directory = lock.as_directory().ok_or(StoreError::NotDirectory)?;
        if let DentryBody::Own {
            state: EntryState::Version(stamp),
            ..
        } = &row.body
        {
            let last = LastVersion {
                ino,
                node: directory.node_now(ino),
                stamp: stamp.clone(),
                alive_since: row.alive_since,
            };
            tree.close(&mut self.txn, slot, &last, ended.end(at));
            if !ended.is_replaced {
                let rows = &mut self.txn.rows;
                interval_tree::add_removed(rows, slot.parent, &slot.name, row.alive_since..at);
            }
        }
        self.txn.delete(keys::inode(ino));
        let place = directory.row.place.as_ref();
        let since = place.map_or(at, |(since, _)| *since);
        let location = DirectoryLocation {
            parent: slot.parent,
            name: slot.name.clone(),
            end: at,
            // Its tree is the one before the restore.
            removal_burst: Some(self.began),
            generation: directory.row.generation,
        };
        self.txn
            .put(keys::directory_location(ino, since), &location);
        self.after
            .push(CachedChange::Effect(RenameEffects::Gone(ino)));
        Ok(())
    }

    fn move_directory(&mut self, moved: &MovedDirectory) -> Result<(), StoreError> {
        let (from, to) = (&moved.from, &moved.to.slot);
        let (ino, at) = (from.row.ino, self.txn.timestamp);
        let mut stamp = self.stamp(&moved.to);
        stamp.origin = Some(crate::store::model::version::Origin {
            directory: from.slot.parent,
            name: from.slot.name.clone(),
        });
        let alive_since = self.alive_since(to);
        let arrival = BindTarget {
            dentry: to.clone(),
            at,
            alive_since: Some(alive_since),
            behind: None,
            stamp: stamp.clone(),
            exchanged: false,
        };
        let lock = lock_of(self.locked, ino)?;
        let directory = lock.as_directory().ok_or(StoreError::NotDirectory)?;
        let tree = &self.history.tree;
        let row = tree.move_directory(&mut self.txn, &from.row, &from.slot, directory, &arrival);
        let node = directory.node_now(ino);
        for slot in [&from.slot, to] {
            self.txn.touch(keys::entry(slot.parent, &slot.name));
        }
        self.txn.touch(keys::inode(ino));
        self.count(&from.slot, -1, true);
        self.count(to, 1, true);
        self.changes.inodes.push(ino);
        let effect = RenameEffects::Directory {
            ino,
            place: to.clone(),
            row,
        };
        self.after.push(CachedChange::Effect(effect));
        let entry = DentryRow {
            ino,
            bound: at,
            alive_since,
            body: DentryBody::Own {
                node,
                state: EntryState::Version(stamp),
            },
            older: OlderVersions::NotHeld,
        };
        let changed = ChangedState {
            name: from.clone(),
            entry: moved.to.entry.clone(),
        };
        self.set_attributes(to, entry, ino, &changed)
    }

    /// Ends the version of a directory whose attributes change, so that the past before the restore shows them. Returns the entry with
    /// the next version.
    fn next_version(&mut self, changed: &ChangedState) -> Result<DentryRow, StoreError> {
        let LiveName { slot, row } = &changed.name;
        let (ino, at) = (row.ino, self.txn.timestamp);
        let stamp = self.stamp(&MadeName {
            slot: slot.clone(),
            origin: None,
            entry: changed.entry.clone(),
            number: None,
        });
        let lock = lock_of(self.locked, ino)?;
        let directory = lock.as_directory().ok_or(StoreError::NotDirectory)?;
        let node = directory.node_now(ino);
        if let DentryBody::Own {
            state: EntryState::Version(old),
            ..
        } = &row.body
        {
            let last = LastVersion {
                ino,
                node: node.clone(),
                stamp: old.clone(),
                alive_since: row.alive_since,
            };
            let end = VersionEnd::new(at, EndOp::Superseded);
            self.history.tree.close(&mut self.txn, slot, &last, end);
        }
        Ok(DentryRow {
            body: DentryBody::Own {
                node,
                state: EntryState::Version(stamp),
            },
            ..row.clone()
        })
    }

    /// Gives a directory the mode, owner and extended attributes of then.
    fn set_attributes(
        &mut self,
        slot: &Dentry,
        row: DentryRow,
        ino: Ino,
        changed: &ChangedState,
    ) -> Result<(), StoreError> {
        let at = self.txn.timestamp;
        let lock = lock_of(self.locked, ino)?;
        let directory = lock.as_directory().ok_or(StoreError::NotDirectory)?;
        let DentryBody::Own { state, .. } = row.body else {
            return Err(StoreError::Corrupt(
                "a directory whose entry is a hard link".to_owned(),
            ));
        };
        let mut node = directory.node_now(ino);
        let (attrs, then) = (&mut node.attrs, &changed.entry.attrs);
        (attrs.mode, attrs.uid, attrs.gid) = (then.mode, then.uid, then.gid);
        attrs.ctime = self.txn.time;
        node.xattrs = changed.entry.xattrs.clone();
        let body = DentryBody::Own {
            node: node.clone(),
            state,
        };
        let key = keys::entry(slot.parent, &slot.name);
        self.txn.put(key, &DentryRow { body, ..row });
        let times = DirectoryRow {
            ctime: Some((at, self.txn.time)),
            ..DirectoryRow::default()
        };
        self.txn
            .merge(keys::inode(ino), &InodeRow::Directory(times.clone()));
        self.txn.touch(keys::entry(slot.parent, &slot.name));
        self.txn.touch(keys::inode(ino));
        self.changes.inodes.push(ino);
        self.after.push(CachedChange::Attributes(ino, node, times));
        Ok(())
    }

    /// Makes a state of then the next version of a live inode.
    fn change_state(&mut self, changed: &ChangedState) -> Result<(), StoreError> {
        let LiveName { slot, row } = &changed.name;
        let ino = row.ino;
        let made = MadeName {
            slot: slot.clone(),
            origin: None,
            entry: changed.entry.clone(),
            number: None,
        };
        let stamp = self.stamp(&made);
        let node = item(made, RestoreAs::Leaf).node(self.txn.time);
        let lock = lock_of(self.locked, ino)?;
        let file = lock.as_file().ok_or(StoreError::IsDirectory)?;
        if !matches!(file.state, EntryState::Version(_)) || file.is_dirty() {
            return Err(StoreError::Busy(format!(
                "{} has writes that are no version yet; close it first",
                slot.name.escape_ascii()
            )));
        }
        if let Some(content) = node.content.reference() {
            self.txn.touch(keys::count(content));
        }
        self.txn.touch(keys::entry(slot.parent, &slot.name));
        self.txn.touch(keys::inode(ino));
        let grown = node.grown_from(&file.node);
        self.txn.usage.bytes = self.txn.usage.bytes.wrapping_add(grown);
        let tree = &self.history.tree;
        tree.version_rows(&mut self.txn, ino, file, &node, &stamp);
        self.changes.inodes.push(ino);
        let state = EntryState::Version(stamp);
        self.after.push(CachedChange::State(ino, node, state));
        Ok(())
    }

    /// Makes a name with an inode of its own.
    fn make(&mut self, made: MadeName, plan: &RestorePlan) {
        review(&mut self.txn, &made.slot, OlderVersions::Held);
        let slot = made.slot.clone();
        let (stamp, alive_since) = (self.stamp(&made), self.alive_since(&slot));
        self.count(&slot, 1, made.number.is_some());
        self.txn.touch(keys::entry(slot.parent, &slot.name));
        let what = match made.number {
            None => RestoreAs::Leaf,
            Some(number) => {
                self.made.insert(number.ino);
                let counts = plan.counts.get(&number.ino);
                let (entries, directories) = counts.copied().unwrap_or_default();
                RestoreAs::Directory {
                    number,
                    names: RestoredNames::new(entries, directories),
                    since: None,
                }
            }
        };
        let item = item(made, what);
        let txn = &mut self.txn;
        self.history.back_rows(txn, &item, stamp, alive_since);
    }

    /// Makes several names of one new inode.
    fn make_linked(&mut self, names: &[MadeName]) {
        let Some(first) = names.first() else {
            return;
        };
        let (at, ino) = (self.txn.timestamp, Ino(self.history.core.new_id()));
        let node = item(first.clone(), RestoreAs::Leaf).node(self.txn.time);
        let tree = &self.history.tree;
        tree.put_location(&mut self.txn, ino, &first.slot);
        if let Some(content) = node.content.reference() {
            self.txn.touch(keys::count(content));
        }
        self.txn.reference_content(&node.content);
        self.txn.usage.files += 1;
        let space = node.space().cast_signed();
        self.txn.usage.bytes = self.txn.usage.bytes.wrapping_add(space);
        let nlink = u32::try_from(names.len()).unwrap_or(u32::MAX);
        tree.count_links(&mut self.txn, ino, nlink);
        let row = LinkedRow {
            node,
            state: EntryState::Version(self.stamp(first)),
            nlink,
            older: OlderVersions::NotHeld,
        };
        self.txn
            .put(keys::inode(ino), &InodeRow::Linked(Box::new(row)));
        self.txn.touch(keys::inode(ino));
        for made in names {
            let slot = &made.slot;
            let stamp = self.stamp(made);
            tree.begin_binding(&mut self.txn, ino, stamp.id, slot);
            let entry = DentryRow {
                ino,
                bound: at,
                alive_since: self.alive_since(slot),
                body: DentryBody::Linked(stamp),
                older: OlderVersions::NotHeld,
            };
            review(&mut self.txn, slot, OlderVersions::Held);
            self.txn.put(keys::entry(slot.parent, &slot.name), &entry);
            self.txn.touch(keys::entry(slot.parent, &slot.name));
            self.count(slot, 1, false);
        }
    }

    /// Changes times and counters of the live directories whose names changed.
    fn touch_directories(&mut self, plan: &RestorePlan) {
        let at = self.txn.timestamp;
        for (directory, (entries, directories)) in std::mem::take(&mut self.counts) {
            self.txn.dependencies.within.push(directory);
            // The rows of a directory that is made have its counters, and one that ends has none.
            let is_ending = self.ending.contains(&directory);
            if self.made.contains(&directory) || is_ending {
                continue;
            }
            let mtime = plan.times.get(&directory).copied();
            let change = DirectoryRow {
                mtime: Some((at, mtime.unwrap_or(self.txn.time))),
                ctime: Some((at, self.txn.time)),
                entries,
                directories,
                removal_burst: Some((at, None)),
                ..DirectoryRow::default()
            };
            let row = InodeRow::Directory(change.clone());
            self.txn.merge(keys::inode(directory), &row);
            self.changes.inodes.push(directory);
            self.after.push(CachedChange::Merge(directory, change));
        }
        let changed = plan.states.iter().map(|changed| changed.name.slot.parent);
        self.txn.dependencies.within.extend(changed);
        self.txn.dependencies.within.sort_unstable();
        self.txn.dependencies.within.dedup();
    }
}

fn item(made: MadeName, what: RestoreAs) -> RestoreItem {
    RestoreItem {
        slot: made.slot,
        origin: made.origin,
        entry: made.entry,
        what,
    }
}
