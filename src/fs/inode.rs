//! The live inodes that the kernel references: the count of lookups of each, and its name.
//!
//! Invariant: a row exists exactly while the kernel holds lookups of the number. A count rises before the reply that tells the
//! kernel, and falls by FORGET, so that calls may run in any order. The root is never forgotten.

use crate::store::{Displaced, Ino, Stat};
use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Row;

/// The table; shared by all calls.
#[derive(Debug, Default)]
pub(crate) struct LiveTable {
    // Leaf locks: no row is held across an await or a call out of this file.
    rows: DashMap<Ino, LiveInode>,
    /// The contents the kernel's page cache may hold, as of the last open; only of inodes that have a row.
    opened: DashMap<Ino, u64>,
}

/// One inode that the kernel references. The kernel may reference millions, so that every byte of a row counts.
#[derive(Debug, Default)]
struct LiveInode {
    lookups: u64,
    presence: Presence,
}

/// The place of an inode in the tree.
#[derive(Debug, Default)]
enum Presence {
    /// Not known by name (found by number).
    #[default]
    Unnamed,
    /// Last seen under this name.
    Named(Name),
    /// Its last name was removed; its attributes, with the changes since.
    Removed(Box<Displaced>),
}

/// A directory's number and a name in it, in one piece of memory.
#[derive(Debug)]
struct Name(Box<[u8]>);

impl Name {
    fn new(parent: Ino, name: &[u8]) -> Self {
        Self([&parent.0.to_ne_bytes(), name].concat().into())
    }

    fn parts(&self) -> Option<(Ino, Bytes)> {
        let (parent, name) = self.0.split_first_chunk()?;
        let parent = Ino(u64::from_ne_bytes(*parent));
        Some((parent, Bytes::copy_from_slice(name)))
    }
}

impl LiveTable {
    /// Counts one lookup of `ino`, found as `name` in `parent`.
    pub(crate) fn looked_up(&self, ino: Ino, parent: Ino, name: &[u8]) {
        let mut row = self.rows.entry(ino).or_default();
        row.lookups += 1;
        row.presence = Presence::Named(Name::new(parent, name));
    }

    /// Counts one lookup of `ino`, found by number.
    pub(crate) fn looked_up_unnamed(&self, ino: Ino) {
        self.rows.entry(ino).or_default().lookups += 1;
    }

    /// Gives back `count` lookups.
    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        if let Row::Occupied(mut row) = self.rows.entry(ino) {
            let left = row.get().lookups.saturating_sub(count);
            row.get_mut().lookups = left;
            if left == 0 {
                row.remove();
                self.opened.remove(&ino);
            }
        }
    }

    /// Remembers that `ino` is called `name` in `parent` now.
    pub(crate) fn moved(&self, ino: Ino, parent: Ino, name: &[u8]) {
        if let Some(mut row) = self.rows.get_mut(&ino) {
            row.presence = Presence::Named(Name::new(parent, name));
        }
    }

    /// Notes that a name was removed. If it was the last name, keeps the attributes for processes that still have the inode open.
    pub(crate) fn removed(&self, lost: Displaced) {
        if let Some(mut row) = self.rows.get_mut(&lost.stat.ino) {
            row.presence = if lost.stat.nlink == 0 {
                Presence::Removed(Box::new(lost))
            } else {
                Presence::Unnamed
            };
        }
    }

    /// A name of `ino`.
    pub(crate) fn name_of(&self, ino: Ino) -> Option<(Ino, Bytes)> {
        match &self.rows.get(&ino)?.presence {
            Presence::Named(name) => name.parts(),
            Presence::Unnamed | Presence::Removed(_) => None,
        }
    }

    /// Returns the last attributes of an unlinked inode that the kernel still references.
    pub(crate) fn last_attributes(&self, ino: Ino) -> Option<Stat> {
        match &self.rows.get(&ino)?.presence {
            Presence::Removed(lost) => Some(lost.stat.clone()),
            Presence::Unnamed | Presence::Named(_) => None,
        }
    }

    /// Reads or changes the attributes that are kept of an inode without a name.
    pub(crate) fn with_removed<T>(
        &self,
        ino: Ino,
        how: impl FnOnce(&mut Displaced) -> T,
    ) -> Option<T> {
        match &mut self.rows.get_mut(&ino)?.presence {
            Presence::Removed(lost) => Some(how(lost)),
            Presence::Unnamed | Presence::Named(_) => None,
        }
    }

    /// Notes an open that sees `content_stamp`; tells whether the last one saw the same, so that the kernel may keep
    /// its pages.
    pub(crate) fn opened(&self, ino: Ino, content_stamp: u64) -> bool {
        // The row is locked until then, so that a FORGET of the inode waits.
        let row = self.rows.get(&ino);
        row.is_some() && self.opened.insert(ino, content_stamp) == Some(content_stamp)
    }

    /// How many inodes the kernel holds.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::testing::file_stat;

    #[test]
    fn a_row_is_kept_while_lookups_are_counted() {
        let table = LiveTable::default();
        table.looked_up(Ino(5), Ino(1), b"a");
        table.looked_up(Ino(5), Ino(1), b"b");
        table.forget(Ino(5), 1);
        assert_eq!(
            table.name_of(Ino(5)),
            Some((Ino(1), Bytes::from_static(b"b")))
        );
        table.forget(Ino(5), 1);
        assert_eq!(table.len(), 0);
        // A FORGET of an unknown number, or one too many, changes nothing.
        table.forget(Ino(5), 7);
        table.moved(Ino(5), Ino(1), b"c");
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_last_attributes_stay_for_who_holds_it() {
        let table = LiveTable::default();
        table.looked_up(Ino(5), Ino(1), b"a");
        let mut lost = Displaced {
            stat: file_stat(5),
            xattrs: Vec::new(),
        };
        table.removed(lost.clone());
        assert!(table.last_attributes(Ino(5)).is_none() && table.name_of(Ino(5)).is_none());
        lost.stat.nlink = 0;
        table.removed(lost);
        assert_eq!(table.last_attributes(Ino(5)).unwrap().nlink, 0);
        table.forget(Ino(5), 1);
        assert!(table.last_attributes(Ino(5)).is_none());
    }

    #[test]
    fn pages_are_kept_only_over_the_same_content() {
        let table = LiveTable::default();
        assert!(!table.opened(Ino(5), 1), "not held: nothing is remembered");
        table.looked_up(Ino(5), Ino(1), b"a");
        assert!(!table.opened(Ino(5), 1));
        assert!(table.opened(Ino(5), 1));
        assert!(!table.opened(Ino(5), 2));
        assert!(table.opened(Ino(5), 2));
    }
}
