//! The live inodes that the kernel references: the count of lookups of each, and its name.
//!
//! Invariant: a row exists exactly while the kernel holds lookups of the number. A count rises before the reply that tells the
//! kernel, and falls by FORGET, so that calls may run in any order. The root is never forgotten.

use crate::store::{Displaced, Ino, ROOT, Stat, XattrPresence};
use crate::sync::{AtomicU64, Ordering};
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
    /// Number of changes of extended attributes.
    xattr_changes: AtomicU64,
}

/// The number of changes of extended attributes before a stat was read: what the stat says of them holds while the number is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct XattrMark(u64);

/// What a FORGET leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgotten {
    /// The kernel still references the inode.
    InPart,
    /// The kernel does not reference the inode.
    Whole,
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

/// A directory's number, whether the inode has extended attributes, and the name, in one piece of memory.
#[derive(Debug)]
struct Name(Box<[u8]>);

/// The byte of a [`Name`] whose inode has no extended attributes.
const NO_XATTRS: u8 = 1;

/// The byte of a [`Name`] whose inode may have some.
const MAYBE_XATTRS: u8 = 0;

impl Name {
    fn new(parent: Ino, name: &[u8], xattrs: XattrPresence) -> Self {
        let xattrs = match xattrs {
            XattrPresence::Absent => NO_XATTRS,
            XattrPresence::Possible => MAYBE_XATTRS,
        };
        Self(
            [&parent.0.to_ne_bytes(), [xattrs].as_slice(), name]
                .concat()
                .into(),
        )
    }

    fn parts(&self) -> Option<(Ino, Bytes)> {
        let (parent, rest) = self.0.split_first_chunk()?;
        let (_, name) = rest.split_first()?;
        let parent = Ino(u64::from_ne_bytes(*parent));
        Some((parent, Bytes::copy_from_slice(name)))
    }

    fn xattrs(&self) -> XattrPresence {
        match self.0.get(size_of::<u64>()) {
            Some(&NO_XATTRS) => XattrPresence::Absent,
            _ => XattrPresence::Possible,
        }
    }

    fn set_may_have_xattrs(&mut self) {
        if let Some(known) = self.0.get_mut(size_of::<u64>()) {
            *known = MAYBE_XATTRS;
        }
    }
}

impl LiveTable {
    /// The mark to take before the stat of a lookup is read.
    pub(crate) fn xattr_mark(&self) -> XattrMark {
        XattrMark(self.xattr_changes.load(Ordering::SeqCst))
    }

    /// Counts one lookup of the inode of `stat`, found as `name` in `parent`; `mark` was taken before the stat was read.
    pub(crate) fn looked_up(&self, stat: &Stat, parent: Ino, name: &[u8], mark: XattrMark) {
        let mut row = self.rows.entry(stat.ino).or_default();
        row.lookups += 1;
        // Compared while the row is locked: a change notes itself before it looks for the row.
        let xattrs = match mark == self.xattr_mark() {
            true => stat.xattrs,
            false => XattrPresence::Possible,
        };
        row.presence = Presence::Named(Name::new(parent, name, xattrs));
    }

    /// Notes that the extended attributes of `ino` have changed; called before the change is answered.
    pub(crate) fn xattrs_changed(&self, ino: Ino) {
        self.xattr_changes.fetch_add(1, Ordering::SeqCst);
        if let Some(mut row) = self.rows.get_mut(&ino)
            && let Presence::Named(name) = &mut row.presence
        {
            name.set_may_have_xattrs();
        }
    }

    /// Whether `ino` has extended attributes, as far as this table knows.
    pub(crate) fn xattrs(&self, ino: Ino) -> XattrPresence {
        match self.rows.get(&ino).as_deref() {
            Some(LiveInode {
                presence: Presence::Named(name),
                ..
            }) => name.xattrs(),
            _ => XattrPresence::Possible,
        }
    }

    /// Counts one lookup of `ino`, found by number.
    pub(crate) fn looked_up_unnamed(&self, ino: Ino) {
        self.rows.entry(ino).or_default().lookups += 1;
    }

    /// Gives back `count` lookups; tells whether some are left.
    pub(crate) fn forget(&self, ino: Ino, count: u64) -> Forgotten {
        if let Row::Occupied(mut row) = self.rows.entry(ino) {
            let left = row.get().lookups.saturating_sub(count);
            row.get_mut().lookups = left;
            if left == 0 {
                row.remove();
                self.opened.remove(&ino);
                return Forgotten::Whole;
            }
        }
        Forgotten::InPart
    }

    /// Remembers that `ino` is called `name` in `parent` now.
    pub(crate) fn moved(&self, ino: Ino, parent: Ino, name: &[u8]) {
        if let Some(mut row) = self.rows.get_mut(&ino) {
            let xattrs = match &row.presence {
                Presence::Named(old) => old.xattrs(),
                Presence::Unnamed | Presence::Removed(_) => XattrPresence::Possible,
            };
            row.presence = Presence::Named(Name::new(parent, name, xattrs));
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

    /// The inodes that the kernel references, without the root.
    pub(crate) fn referenced(&self) -> Vec<Ino> {
        self.rows.iter().map(|row| *row.key()).collect()
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
        // The row is locked until then, so that a FORGET of the inode waits. The kernel holds the root without a lookup.
        let row = self.rows.get(&ino);
        (row.is_some() || ino == ROOT)
            && self.opened.insert(ino, content_stamp) == Some(content_stamp)
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

    fn look_up(table: &LiveTable, name: &[u8]) {
        table.looked_up(&file_stat(5), Ino(1), name, table.xattr_mark());
    }

    /// Attributes of a file without extended attributes.
    fn bare() -> Stat {
        Stat {
            xattrs: XattrPresence::Absent,
            ..file_stat(5)
        }
    }

    #[test]
    fn a_row_is_kept_while_lookups_are_counted() {
        let table = LiveTable::default();
        look_up(&table, b"a");
        look_up(&table, b"b");
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
        look_up(&table, b"a");
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
        look_up(&table, b"a");
        assert!(!table.opened(Ino(5), 1));
        assert!(table.opened(Ino(5), 1));
        assert!(!table.opened(Ino(5), 2));
        assert!(table.opened(Ino(5), 2));
    }

    #[test]
    fn an_inode_without_extended_attributes_is_known_until_they_change() {
        let table = LiveTable::default();
        assert_eq!(table.xattrs(Ino(5)), XattrPresence::Possible, "no row");
        table.looked_up(&bare(), Ino(1), b"a", table.xattr_mark());
        assert_eq!(table.xattrs(Ino(5)), XattrPresence::Absent);
        table.moved(Ino(5), Ino(1), b"b");
        assert_eq!(table.xattrs(Ino(5)), XattrPresence::Absent, "moved");
        table.xattrs_changed(Ino(5));
        assert_eq!(table.xattrs(Ino(5)), XattrPresence::Possible, "changed");
        table.looked_up(&bare(), Ino(1), b"b", table.xattr_mark());
        assert_eq!(table.xattrs(Ino(5)), XattrPresence::Absent, "read again");
        assert_eq!(
            table.name_of(Ino(5)),
            Some((Ino(1), Bytes::from_static(b"b")))
        );
    }

    #[test]
    fn a_stat_that_was_read_before_a_change_says_nothing_about_extended_attributes() {
        let table = LiveTable::default();
        let mark = table.xattr_mark();
        table.xattrs_changed(Ino(5));
        table.looked_up(&bare(), Ino(1), b"a", mark);
        assert_eq!(table.xattrs(Ino(5)), XattrPresence::Possible);
    }

    #[test]
    fn a_removed_inode_may_have_extended_attributes() {
        let table = LiveTable::default();
        table.looked_up(&bare(), Ino(1), b"a", table.xattr_mark());
        let (stat, xattrs) = (bare(), Vec::new());
        table.removed(Displaced { stat, xattrs });
        assert_eq!(table.xattrs(Ino(5)), XattrPresence::Possible);
    }
}
