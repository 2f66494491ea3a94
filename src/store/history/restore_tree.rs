//! A removed tree on its way back: what it was, entry by entry, and the rows that make it live again.
//!
//! Directories keep their numbers where nothing live bears them, with the next generation, so that what stands in their names
//! goes on there; everything else gets new numbers and shares the bytes of then. Beyond a bound the rows go in several batches,
//! below a directory that no name leads to and that `C P` tells of; a mount sweeps what a crash leaves of it.

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
    DentryBody, DentryRow, DirectoryRow, EntryState, InodeRow, InodeState,
};
use crate::store::schema::tables::{DentryTable, RestoredTreeTable, RowTable};

/// Entries of a pending tree that are swept in one batch.
const SWEEP_MAX: usize = 10_000;

/// One entry on its way back.
pub(crate) struct RestoreItem {
    /// Where it comes to stand.
    pub(crate) slot: Dentry,
    /// Where it stood, if that was elsewhere.
    pub(crate) origin: Option<Origin>,
    pub(crate) entry: PastEntry,
    pub(crate) what: RestoreAs,
}

/// As what an entry comes back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RestoreAs {
    /// As a new inode.
    Leaf,
    /// As a directory; it stands since the first rows in it do.
    Directory {
        number: DirectoryNumber,
        names: RestoredNames,
        since: Option<Timestamp>,
    },
}

/// Under which number a directory comes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectoryNumber {
    pub(crate) ino: Ino,
    pub(crate) generation: u64,
}

/// How many names a directory comes back with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RestoredNames {
    entries: i64,
    directories: i64,
}

/// A tree on its way back.
pub(crate) struct RestoreTree {
    top: DirectoryNumber,
    /// Of the top directory.
    pub(crate) names: RestoredNames,
    /// Every directory in it, the top one first.
    pub(crate) directories: Vec<Ino>,
    /// Everything else in it that is in a batch.
    pub(crate) sent: Vec<Ino>,
    /// What is in no batch yet.
    pub(crate) items: Vec<RestoreItem>,
    /// Held from the first batch that went ahead; all of its rows have that timestamp.
    pub(crate) ahead: Option<Reservation>,
}

impl RestoreTree {
    pub(crate) fn top(&self) -> DirectoryNumber {
        self.top
    }
}

impl RestoreItem {
    fn node(&self, now: Time) -> InodeState {
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
    /// Walks the removed tree of `directory` as it was at `at`; whatever is beyond `entries_max` goes ahead in batches.
    pub(crate) async fn gather_tree(
        &self,
        (directory, at): (Ino, Timestamp),
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
            let listed = self.list_at(old, at).await?;
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
    /// The number a directory comes back with: its own and the next generation, or a new one while something live bears it.
    async fn number_of(&self, directory: Ino) -> Result<DirectoryNumber, StoreError> {
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
        Ok(match self.last_location(directory).await? {
            Some(directory_location) => DirectoryNumber {
                ino: directory,
                generation: directory_location.generation + 1,
            },
            None => fresh(Ino(self.core.new_id())),
        })
    }

    /// Queues what has been gathered, below a directory that no name leads to.
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

    /// The rows by which an entry is live again; returns its number.
    pub(crate) fn item_rows(&self, txn: &mut Txn, item: &RestoreItem, author: &Author) -> Ino {
        let at = txn.timestamp;
        let stamp = self
            .tree
            .stamp(at, Op::Undelete, author, item.origin.clone());
        self.back_rows(txn, item, stamp, at)
    }

    /// The rows of an entry with its stamp and the timestamp since which its name exists; returns its number.
    pub(crate) fn back_rows(
        &self,
        txn: &mut Txn,
        item: &RestoreItem,
        stamp: Stamp,
        alive_since: Timestamp,
    ) -> Ino {
        let at = txn.timestamp;
        let node = item.node(txn.time);
        txn.usage.1 += 1;
        let ino = match item.what {
            RestoreAs::Leaf => {
                let ino = Ino(self.core.new_id());
                self.tree.put_location(txn, ino, &item.slot);
                if let Some(content) = node.content.reference() {
                    txn.touch(keys::count(content));
                }
                txn.reference_content(&node.content);
                let space = node.space().cast_signed();
                txn.usage.0 = txn.usage.0.wrapping_add(space);
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
        };
        let key = keys::entry(item.slot.parent, &item.slot.name);
        txn.put(key, &entry);
        ino
    }

    /// Takes away what a crash left of trees that were on their way back.
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

    /// Takes away what an attempt that failed left of a tree.
    pub(crate) async fn sweep_left(&self, top: Ino) -> Result<(), StoreError> {
        match self.core.index.get(&keys::pending(top)).await? {
            Some(_) => self.sweep_tree(top).await,
            None => Ok(()),
        }
    }

    /// Takes away a tree that no name leads to, from below.
    pub(crate) async fn sweep_tree(&self, top: Ino) -> Result<(), StoreError> {
        let mut directories = vec![top];
        let mut next = 0;
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
                    self.sweep_entry(&mut txn, key, &DentryTable::decode(&value)?);
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

    fn sweep_entry(&self, txn: &mut Txn, key: Bytes, entry: &DentryRow) {
        txn.rows.delete(key);
        txn.usage.1 -= 1;
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
        txn.usage.0 = txn.usage.0.wrapping_sub(space);
    }
}
