//! Restore of a removed directory tree: collects the tree as it was, and writes the rows that make it live again.
//!
//! A directory keeps its inode number, with the next generation, unless a live inode has that number: the history of the names in
//! it is stored under the number and continues. Every other inode gets a new number and shares the historical content.
//!
//! Invariant: a large tree is written in several batches below a directory that no name leads to, listed in row `C P`; a mount
//! deletes what a crash left there.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::store::commit::txn::Txn;
use crate::store::history::History;
use crate::store::index::timestamps::Reservation;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{
    Author, Content, Ino, Kind, Op, Origin, PastEntry, Stamp, Time, Timestamp,
};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryRow, EntryState, InodeRow, InodeState, OlderVersions,
};
use crate::store::schema::tables::{DentryTable, RestoredTreeTable, RowKey, RowTable};
use crate::store::tree::review::review;

/// Largest number of entries of a pending tree that are deleted in one batch.
const SWEEP_MAX: usize = 10_000;

/// One directory entry to restore.
pub(crate) struct RestoreItem {
    /// The restored directory entry.
    pub(crate) slot: Dentry,
    /// The original directory entry, if it was another one.
    pub(crate) origin: Option<Origin>,
    pub(crate) entry: PastEntry,
    pub(crate) what: RestoreAs,
}

/// What kind of inode an entry is restored as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RestoreAs {
    /// A new inode that is not a directory.
    Leaf,
    /// A directory; `since` is the timestamp of the batches already enqueued below it, if any.
    Directory {
        number: DirectoryNumber,
        names: RestoredNames,
        since: Option<Timestamp>,
    },
}

/// The inode number and generation that a directory is restored with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectoryNumber {
    pub(crate) ino: Ino,
    pub(crate) generation: u64,
}

/// The numbers of names and of subdirectories that a directory is restored with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RestoredNames {
    entries: i64,
    directories: i64,
}

impl RestoredNames {
    pub(super) fn new(entries: i64, directories: i64) -> Self {
        Self {
            entries,
            directories,
        }
    }
}

/// A directory tree being restored.
pub(crate) struct RestoreTree {
    top: DirectoryNumber,
    /// Counts of the top directory.
    pub(crate) names: RestoredNames,
    /// Every directory of the tree, the top one first.
    pub(crate) directories: Vec<Ino>,
    /// Every other inode of the tree that is already in a batch.
    pub(crate) sent: Vec<Ino>,
    /// Entries that are in no batch yet.
    pub(crate) items: Vec<RestoreItem>,
    /// Timestamp reservation held from the first early batch on; all rows of the early batches have its timestamp.
    pub(crate) ahead: Option<Reservation>,
}

impl RestoreTree {
    pub(crate) fn top(&self) -> DirectoryNumber {
        self.top
    }
}

impl RestoreItem {
    pub(super) fn node(&self, now: Time) -> InodeState {
        let entry = &self.entry;
        let mut attrs = entry.attrs.clone();
        attrs.ctime = now;
        let content = match &entry.content {
            Content::Bytes(content) | Content::Shared(content) => Content::Shared(*content),
            other => other.clone(),
        };
        InodeState {
            kind: entry.kind,
            attrs,
            xattrs: entry.xattrs.clone(),
            content,
            allocated: entry.allocated,
        }
    }
}

impl History {
    /// Collects the removed tree of `directory` as it was at `at`. Whenever more than `entries_max` entries are collected, they
    /// are enqueued as an early batch.
    pub(crate) async fn gather_tree(
        &self,
        directory: Ino,
        at: Timestamp,
        entries_max: usize,
        author: &Author,
    ) -> Result<RestoreTree, StoreError> {
        let history = self;
        let top = history.number_of(directory).await?;
        let mut tree = RestoreTree {
            top,
            names: RestoredNames::default(),
            directories: Vec::new(),
            sent: Vec::new(),
            items: Vec::new(),
            ahead: None,
        };
        let mut open: Vec<(Ino, DirectoryNumber, Option<RestoreItem>)> =
            vec![(directory, top, None)];
        while let Some((old, number, item)) = open.pop() {
            let listed = self.view().list_at(old, at).await?;
            let is_directory = |(_, e): &&(Bytes, PastEntry)| e.kind == Kind::Directory;
            let names = RestoredNames {
                entries: listed.len() as i64,
                directories: listed.iter().filter(is_directory).count() as i64,
            };
            tree.directories.push(number.ino);
            match item {
                None => tree.names = names,
                Some(item) => tree.items.push(RestoreItem {
                    what: RestoreAs::Directory {
                        number,
                        names,
                        since: None,
                    },
                    ..item
                }),
            }
            for (name, entry) in listed {
                let origin = (old != number.ino).then(|| Origin {
                    directory: old,
                    name: name.clone(),
                });
                let (old_child, is_directory) = (entry.ino, entry.kind == Kind::Directory);
                let item = RestoreItem {
                    slot: Dentry::new(number.ino, name),
                    origin,
                    entry,
                    what: RestoreAs::Leaf,
                };
                if is_directory {
                    let child = history.number_of(old_child).await?;
                    open.push((old_child, child, Some(item)));
                } else {
                    tree.items.push(item);
                }
                if tree.items.len() > entries_max {
                    history.send_ahead(&mut tree, author)?;
                }
            }
        }
        Ok(tree)
    }
}

impl History {
    /// Returns the number a directory is restored with: its own and the next generation, or a new one if a live inode has it.
    pub(super) async fn number_of(&self, directory: Ino) -> Result<DirectoryNumber, StoreError> {
        let fresh = |ino| DirectoryNumber { ino, generation: 0 };
        if self
            .core
            .index
            .get(&keys::inode(directory))
            .await?
            .is_some()
        {
            return Ok(fresh(Ino(self.core.new_id())));
        }
        Ok(match self.view().last_location(directory).await? {
            Some(directory_location) => DirectoryNumber {
                ino: directory,
                generation: directory_location.generation + 1,
            },
            None => fresh(Ino(self.core.new_id())),
        })
    }

    /// Enqueues the collected entries as an early batch, below a directory that no name leads to.
    fn send_ahead(&self, tree: &mut RestoreTree, author: &Author) -> Result<(), StoreError> {
        let at = tree
            .ahead
            .get_or_insert_with(|| self.core.clock.begin())
            .at();
        let top = tree.top.ino;
        let dependencies = Dependencies {
            touches: vec![keys::pending(top).bytes(), keys::inode(top).bytes()],
            ..Dependencies::default()
        };
        let mut txn = self.commit.txn(at, dependencies);
        txn.put(keys::pending(top), &());
        let made: BTreeSet<Ino> = tree.items.iter().map(|item| item.slot.parent).collect();
        txn.dependencies.makes.extend(made);
        for item in tree.items.drain(..) {
            let ino = self.item_rows(&mut txn, &item, author);
            if let RestoreAs::Leaf = item.what {
                tree.sent.push(ino);
            }
        }
        self.commit.enqueue(txn)?;
        Ok(())
    }

    /// Writes the rows that make an entry live again; returns its inode number.
    pub(crate) fn item_rows(&self, txn: &mut Txn, item: &RestoreItem, author: &Author) -> Ino {
        let at = txn.timestamp;
        let stamp = self
            .tree
            .stamp(at, Op::Undelete, author, item.origin.clone());
        review(txn, &item.slot, OlderVersions::Held);
        self.back_rows(txn, item, stamp, at)
    }

    /// Writes the rows of an entry with the given stamp; `alive_since` is the timestamp since which its name exists.
    /// Returns its inode number.
    pub(crate) fn back_rows(
        &self,
        txn: &mut Txn,
        item: &RestoreItem,
        stamp: Stamp,
        alive_since: Timestamp,
    ) -> Ino {
        let at = txn.timestamp;
        self.tree.note_change(txn, at);
        let node = item.node(txn.time);
        txn.usage.files += 1;
        let ino = match item.what {
            RestoreAs::Leaf => {
                let ino = Ino(self.core.new_id());
                self.tree.put_location(txn, ino, &item.slot);
                if let Some(content) = node.content.reference() {
                    txn.touch(keys::count(content));
                }
                txn.reference_content(&node.content);
                let space = node.space().cast_signed();
                txn.usage.bytes = txn.usage.bytes.wrapping_add(space);
                ino
            }
            RestoreAs::Directory {
                number,
                names,
                since,
            } => {
                txn.dependencies.makes.push(number.ino);
                let row = DirectoryRow {
                    place: Some((since.unwrap_or(at), item.slot.clone())),
                    generation: number.generation,
                    mtime: Some((at, node.attrs.mtime)),
                    ctime: Some((at, node.attrs.ctime)),
                    atime: Some((at, node.attrs.atime)),
                    directories: names.directories,
                    entries: names.entries,
                    removal_burst: Some((at, None)),
                    keeps_removed: Some((at, ())),
                };
                txn.merge(keys::inode(number.ino), &InodeRow::Directory(row));
                number.ino
            }
        };
        txn.touch(keys::inode(ino));
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
        let key = keys::entry(item.slot.parent, &item.slot.name);
        txn.put(key, &entry);
        ino
    }

    /// Deletes what a crash left of trees that were being restored.
    pub(crate) async fn sweep_pending(&self) -> Result<(), StoreError> {
        let from = RestoredTreeTable::all();
        let rows = self
            .core
            .index
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?;
        for top in rows.iter().filter_map(|(key, _)| keys::trailing_ino(key)) {
            self.sweep_tree(top).await?;
        }
        Ok(())
    }

    /// Deletes what a failed attempt left of a tree.
    pub(crate) async fn sweep_left(&self, top: Ino) -> Result<(), StoreError> {
        match self.core.index.get(&keys::pending(top)).await? {
            Some(_) => self.sweep_tree(top).await,
            None => Ok(()),
        }
    }

    /// Deletes a tree that no name leads to, subdirectories before their parents.
    pub(crate) async fn sweep_tree(&self, top: Ino) -> Result<(), StoreError> {
        let (mut directories, mut next) = (vec![top], 0);
        // In a damaged index a directory may be below itself.
        let mut seen = BTreeSet::from([top]);
        while let Some(directory) = directories.get(next).copied() {
            next += 1;
            let from = keys::entries(directory);
            let rows = self
                .core
                .index
                .scan(from.clone(), keys::after(&from), usize::MAX)
                .await?;
            for (_, value) in rows {
                let entry: DentryRow = DentryTable::decode(&value)?;
                if matches!(&entry.body, DentryBody::Own { node, .. } if node.kind == Kind::Directory)
                    && seen.insert(entry.ino)
                {
                    directories.push(entry.ino);
                }
            }
        }
        let dependencies = || Dependencies {
            touches: vec![keys::pending(top).bytes(), keys::inode(top).bytes()],
            ..Dependencies::default()
        };
        for directory in directories.into_iter().rev() {
            let from = keys::entries(directory);
            loop {
                let end = keys::after(&from);
                let rows = self.core.index.scan(from.clone(), end, SWEEP_MAX).await?;
                if rows.is_empty() {
                    break;
                }
                let answer = self.core.clock.begin();
                let mut txn = self.commit.txn(answer.at(), dependencies());
                txn.dependencies.makes.push(directory);
                for (key, value) in rows {
                    let entry = DentryTable::decode(&value)?;
                    self.sweep_entry(&mut txn, RowKey::scanned(key)?, &entry);
                }
                self.commit.enqueue(txn)?;
            }
        }
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(answer.at(), dependencies());
        txn.delete(keys::pending(top));
        self.commit.enqueue(txn)?;
        Ok(())
    }

    fn sweep_entry(&self, txn: &mut Txn, key: RowKey<DentryTable>, entry: &DentryRow) {
        txn.delete(key);
        txn.usage.files -= 1;
        let DentryBody::Own { node, .. } = &entry.body else {
            return;
        };
        if node.kind == Kind::Directory {
            txn.dependencies.removes.push(entry.ino);
            txn.delete(keys::inode(entry.ino));
            return;
        }
        txn.delete(keys::place(entry.ino));
        txn.unreference_content(&node.content);
        let space = node.space().cast_signed();
        txn.usage.bytes = txn.usage.bytes.wrapping_sub(space);
    }
}
