//! The names that the operations of a journal gave, as far as they tell.

use std::collections::HashMap;

use bytes::Bytes;

use crate::meta::{Batch, Change};
use crate::store::model::ids::Dentry;
use crate::store::model::version::{Attrs, Content, Ino, Kind, ROOT};
use crate::store::schema::keys;
use crate::store::schema::rows::{DentryBody, DentryRow, EntryState};
use crate::store::schema::tables::{DentryTable, RowTable};

/// The number of directories of a path; a longer one is a cycle of a damaged journal.
const DEPTH_MAX: usize = 4096;

/// What the newest operation says of an inode.
#[derive(Clone, Debug)]
pub(super) struct NamedInode {
    pub(super) place: Dentry,
    /// Its kind, attributes and content; `None` for one of several names, whose inode has them elsewhere.
    pub(super) own: Option<OwnState>,
}

/// The state in a directory entry's row.
#[derive(Clone, Debug)]
pub(super) struct OwnState {
    pub(super) kind: Kind,
    pub(super) attrs: Attrs,
    pub(super) content: Content,
}

/// The last name of each inode that an operation named, and the inodes that lost theirs.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    named: HashMap<Ino, NamedInode>,
    /// Of entries that operations changed: the inode, `None` after a removal.
    entries: HashMap<(Ino, Bytes), Option<Ino>>,
    /// The content of the newest version of each file that an operation made.
    versions: HashMap<Ino, Content>,
}

impl NameTable {
    /// Applies the rows of an operation; rows that cannot be decoded name nothing. Returns the files of which they make
    /// a version with another content.
    pub(super) fn apply(&mut self, rows: &Batch) -> Vec<Ino> {
        let mut changed = Vec::new();
        let names = rows.rows().iter().filter(|(key, _)| DentryTable::has(key));
        for (key, change) in names {
            let Some(place) = keys::dentry(key) else {
                continue;
            };
            match change {
                Change::Put(value) => {
                    if let Ok(row) = DentryTable::decode(value) {
                        changed.extend(self.put(place, row));
                    }
                }
                Change::Delete => {
                    self.entries.insert((place.parent, place.name), None);
                }
                Change::Merge(_) => {}
            }
        }
        changed
    }

    /// Names an inode. Returns it if it is a file, and this a version with another content than the last.
    fn put(&mut self, place: Dentry, row: DentryRow) -> Option<Ino> {
        let mut is_changed = false;
        let own = match row.body {
            DentryBody::Own { node, state } => {
                if node.kind == Kind::File && matches!(state, EntryState::Version(_)) {
                    let before = self.versions.insert(row.ino, node.content.clone());
                    is_changed = before.as_ref() != Some(&node.content);
                }
                Some(OwnState {
                    kind: node.kind,
                    attrs: node.attrs,
                    content: node.content,
                })
            }
            DentryBody::Linked(_) => None,
        };
        let entry = (place.parent, place.name.clone());
        self.entries.insert(entry, Some(row.ino));
        self.named.insert(row.ino, NamedInode { place, own });
        is_changed.then_some(row.ino)
    }

    /// Every inode that an operation named and that still has that name.
    pub(super) fn inodes(&self) -> impl Iterator<Item = (Ino, &NamedInode)> {
        let named = self.named.iter().map(|(ino, named)| (*ino, named));
        named.filter(|(ino, named)| self.leads(&named.place, *ino))
    }

    /// The name of an inode; `before` is the one it had when its bytes were written. `None` if it has none any more.
    pub(super) fn place(&self, ino: Ino, before: Option<&Dentry>) -> Option<Dentry> {
        let newest = self.named.get(&ino).map(|named| &named.place);
        let place = newest.or(before)?;
        self.leads(place, ino).then(|| place.clone())
    }

    /// What the newest operation says of an inode's attributes.
    pub(super) fn own(&self, ino: Ino) -> Option<&OwnState> {
        self.named.get(&ino)?.own.as_ref()
    }

    /// Tells whether an entry leads to an inode, as far as is known.
    fn leads(&self, place: &Dentry, ino: Ino) -> bool {
        let known = self.entries.get(&(place.parent, place.name.clone()));
        known.is_none_or(|inode| *inode == Some(ino))
    }

    /// The components of a path from the root of the namespace. It begins with `directory-NUMBER` where the journal does not tell the name of
    /// a directory, and has such a word in the place of a name that is none.
    pub(super) fn path(&self, place: &Dentry) -> Vec<Bytes> {
        let mut path = vec![component(&place.name)];
        let mut at = place.parent;
        while at != ROOT {
            let known = self.named.get(&at);
            let Some(above) = known.filter(|_| path.len() < DEPTH_MAX) else {
                path.push(format!("directory-{}", at.0).into());
                break;
            };
            path.push(component(&above.place.name));
            at = above.place.parent;
        }
        path.reverse();
        path
    }
}

/// A name as one component of a local path: the journal of a hostile bucket or disk names nothing outside.
fn component(name: &Bytes) -> Bytes {
    let is_name = !matches!(&name[..], b"" | b"." | b"..")
        && name.len() <= 255
        && !name.iter().any(|byte| matches!(byte, b'/' | 0));
    match is_name {
        true => name.clone(),
        false => "name-that-is-none".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dentry(parent: u64, name: &'static [u8]) -> Dentry {
        Dentry::new(Ino(parent), Bytes::from_static(name))
    }

    fn named(table: &mut NameTable, ino: u64, place: Dentry) {
        let entry = (place.parent, place.name.clone());
        table.entries.insert(entry, Some(Ino(ino)));
        table
            .named
            .insert(Ino(ino), NamedInode { place, own: None });
    }

    #[test]
    fn a_path_has_the_names_that_are_known_and_nothing_leads_outside() {
        let mut table = NameTable::default();
        named(&mut table, 7, dentry(ROOT.0, b"a"));
        named(&mut table, 8, dentry(7, b".."));
        assert_eq!(table.path(&dentry(7, b"f")), ["a", "f"]);
        let hostile = ["a", "name-that-is-none", "name-that-is-none"];
        assert_eq!(table.path(&dentry(8, b"x/y")), hostile);
        assert_eq!(table.path(&dentry(99, b"f")), ["directory-99", "f"]);
        named(&mut table, 20, dentry(21, b"p"));
        named(&mut table, 21, dentry(20, b"q"));
        let cycle = table.path(&dentry(21, b"f"));
        assert_eq!(cycle.len(), DEPTH_MAX + 1);
        assert!(cycle[0].starts_with(b"directory-"));
    }

    #[test]
    fn a_name_that_was_given_to_another_inode_or_removed_is_lost() {
        let mut table = NameTable::default();
        let place = dentry(1, b"f");
        assert_eq!(table.place(Ino(5), Some(&place)), Some(place.clone()));
        named(&mut table, 5, place.clone());
        assert_eq!(table.place(Ino(5), None), Some(place.clone()));
        named(&mut table, 6, place.clone());
        assert_eq!(table.place(Ino(5), Some(&place)), None);
        table.entries.insert((Ino(1), place.name.clone()), None);
        assert_eq!(table.place(Ino(6), None), None);
        assert_eq!(table.inodes().count(), 0);
    }
}
