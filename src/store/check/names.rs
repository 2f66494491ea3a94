//! Agreement of the rows that names are made of: entries of directories (`C D`), inodes (`C I`) and locations (`C N`).
//!
//! Every row adds what it says to a record of its inode; the records are judged after the last row. While a directory is restored in
//! several batches (`C P`, `C R`), entries have no directory yet, and nothing is judged.
//!
//! The location of a hard-linked inode is not judged: it may be a name that the inode had.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::meta::{Change, RowScan};
use crate::store::check::references::{packed, unpacked};
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{Ino, Kind, ROOT};
use crate::store::replay::sorted::{MergedRows, SortedRows, Spill};
use crate::store::schema::keys;
use crate::store::schema::rows::{DentryBody, InodeRow};
use crate::store::schema::tables::{
    DentryTable, InodeTable, LocationTable, RestoredTreeTable, RowTable, SteppedRestoreTable,
};

/// An entry that is the only name of its inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OwnEntry {
    place: Dentry,
    is_directory: bool,
}

/// The row of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DirectorySays {
    place: Option<Dentry>,
    entries: i64,
    directories: i64,
}

/// What the rows say about one inode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct InodeFacts {
    /// Entries that are its only name: one, if all is well.
    own: Vec<OwnEntry>,
    /// Number of entries that are one of several names.
    linked: u32,
    location: Option<Dentry>,
    directory: Option<DirectorySays>,
    /// Number of names that its row says it has.
    nlink: Option<u32>,
    /// Number of entries in it, and of directories among them.
    entries: i64,
    directories: i64,
}

impl InodeFacts {
    fn merge(&mut self, other: Self) {
        self.own.extend(other.own);
        self.linked = self.linked.saturating_add(other.linked);
        self.location = other.location.or(self.location.take());
        self.directory = other.directory.or(self.directory.take());
        self.nlink = other.nlink.or(self.nlink);
        self.entries = self.entries.wrapping_add(other.entries);
        self.directories = self.directories.wrapping_add(other.directories);
    }
}

fn merge(_key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
    let mut all: InodeFacts = existing.map(unpacked).unwrap_or_default();
    for operand in operands {
        all.merge(unpacked(operand));
    }
    packed(&all)
}

/// What is wrong with the names of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameFault {
    /// The entry is the only name of its inode, and the inode has another place, or none.
    Misplaced { entry: Dentry },
    /// The entry leads to a directory without attributes, or whose own row has another place.
    MisplacedDirectory { entry: Dentry },
    /// Several entries are the only name of one inode.
    Doubled,
    /// The inode has a row, and no entry leads to it.
    Nameless,
    /// The inode has a place, where no entry leads to it.
    StrayPlace,
    /// The entries lead to a hard-linked inode without a row.
    Rowless,
    /// The inode has this number of names, and its row says another one.
    LinkCount { names: u32 },
    /// The directory has so many entries and directories more than its row says.
    EntryCount { entries: i64, directories: i64 },
}

impl NameFault {
    /// The fault, for a person, behind the inode's path.
    pub(super) fn text(&self) -> &'static str {
        match self {
            Self::Misplaced { .. } => "the row that says where its inode is does not name it",
            Self::MisplacedDirectory { .. } => {
                "the directory's own row is missing or names another place"
            }
            Self::Doubled => "several names lead to its inode, and each is said to be the only one",
            Self::Nameless => "no name leads to it",
            Self::StrayPlace => "the index says where it is, and no name leads to it",
            Self::Rowless => "its attributes are missing",
            Self::LinkCount { .. } => "its number of names is wrong",
            Self::EntryCount { .. } => "its number of entries is wrong",
        }
    }
}

/// The rows of names of an index.
#[derive(Debug)]
pub(crate) struct NameRows {
    facts: SortedRows,
    /// Whether a directory is being restored in several batches.
    is_unfinished: bool,
}

impl NameRows {
    pub(crate) fn new(spill: Spill) -> Self {
        Self {
            facts: SortedRows::new(merge, spill),
            is_unfinished: false,
        }
    }

    fn tell(&mut self, ino: Ino, tell: impl FnOnce(&mut InodeFacts)) -> Result<(), StoreError> {
        let mut facts = InodeFacts::default();
        tell(&mut facts);
        let key = Bytes::copy_from_slice(&ino.0.to_be_bytes());
        self.facts.add(key, Change::Merge(packed(&facts)))
    }

    /// Adds what a row of the index says.
    pub(crate) fn row(&mut self, key: &Bytes, value: &Bytes) -> Result<(), StoreError> {
        match key.first_chunk::<2>().copied().unwrap_or_default() {
            DentryTable::PREFIX => self.entry(key, value)?,
            InodeTable::PREFIX => {
                let Some(ino) = keys::leading_ino(key) else {
                    return Ok(());
                };
                let row = InodeTable::decode(value)?;
                self.tell(ino, |facts| match row {
                    InodeRow::Directory(row) => {
                        facts.directory = Some(DirectorySays {
                            place: row.place.map(|(_, place)| place),
                            entries: row.entries,
                            directories: row.directories,
                        });
                    }
                    InodeRow::Linked(row) => facts.nlink = Some(row.nlink),
                })?;
            }
            LocationTable::PREFIX => {
                if let Some(ino) = keys::leading_ino(key) {
                    let row = LocationTable::decode(value)?;
                    let place = Dentry::new(row.directory, row.name);
                    self.tell(ino, |facts| facts.location = Some(place))?;
                }
            }
            RestoredTreeTable::PREFIX | SteppedRestoreTable::PREFIX => self.is_unfinished = true,
            _ => {}
        }
        Ok(())
    }

    fn entry(&mut self, key: &Bytes, value: &Bytes) -> Result<(), StoreError> {
        let Some(place) = keys::dentry(key) else {
            return Ok(());
        };
        let row = DentryTable::decode(value)?;
        let (parent, mut is_directory) = (place.parent, false);
        match row.body {
            DentryBody::Own { node, .. } => {
                is_directory = node.kind == Kind::Directory;
                let own = OwnEntry {
                    place,
                    is_directory,
                };
                self.tell(row.ino, |facts| facts.own.push(own))?;
            }
            DentryBody::Linked(_) => self.tell(row.ino, |facts| facts.linked = 1)?,
        }
        if row.ino == ROOT {
            return Ok(());
        }
        self.tell(parent, |facts| {
            facts.entries = 1;
            facts.directories = i64::from(is_directory);
        })
    }

    /// Returns a cursor over what is wrong; to be used after the last row.
    pub(crate) fn faults(&self) -> NameFaults<'_> {
        NameFaults {
            facts: (!self.is_unfinished).then(|| self.facts.rows()),
            found: Vec::new(),
        }
    }
}

/// An inode, and what is wrong with its names.
pub(crate) type FaultyInode = (Ino, NameFault);

/// A cursor over what is wrong, ascending by inode.
pub(crate) struct NameFaults<'a> {
    /// `None` if nothing is judged.
    facts: Option<MergedRows<'a>>,
    /// Faults of the last inode, in reverse order.
    found: Vec<FaultyInode>,
}

impl NameFaults<'_> {
    /// Returns the next fault; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<FaultyInode>, StoreError> {
        loop {
            if let Some(fault) = self.found.pop() {
                return Ok(Some(fault));
            }
            let Some(facts) = &mut self.facts else {
                return Ok(None);
            };
            let Some((key, value)) = facts.next().await? else {
                return Ok(None);
            };
            let ino: Option<[u8; 8]> = (*key).try_into().ok();
            if let Some(ino) = ino.map(|raw| Ino(u64::from_be_bytes(raw))) {
                let faults = judge(ino, unpacked(&value)).into_iter().rev();
                self.found = faults.map(|fault| (ino, fault)).collect();
            }
        }
    }
}

fn judge(ino: Ino, facts: InodeFacts) -> Vec<NameFault> {
    let mut faults = Vec::new();
    let place = facts.directory.as_ref().map(|says| &says.place);
    match &facts.own[..] {
        [] if facts.linked > 0 => match facts.nlink {
            None => faults.push(NameFault::Rowless),
            Some(nlink) if nlink != facts.linked => {
                let names = facts.linked;
                faults.push(NameFault::LinkCount { names });
            }
            Some(_) => {}
        },
        [] if facts.directory.is_some() || facts.nlink.is_some() => {
            faults.push(NameFault::Nameless);
        }
        [] if facts.location.is_some() => faults.push(NameFault::StrayPlace),
        [] => {}
        [only] if only.is_directory => {
            if place.is_none_or(|place| place.as_ref() != Some(&only.place)) {
                let entry = only.place.clone();
                faults.push(NameFault::MisplacedDirectory { entry });
            }
        }
        [only] => {
            if facts.location.as_ref() != Some(&only.place) {
                let entry = only.place.clone();
                faults.push(NameFault::Misplaced { entry });
            }
        }
        [_, _, ..] => faults.push(NameFault::Doubled),
    }
    // Entries of a directory without a row are counted as well: the row, once it is there again, gets their number.
    let says = facts.directory.as_ref();
    let (entries, directories) = (
        facts
            .entries
            .wrapping_sub(says.map_or(0, |says| says.entries)),
        facts
            .directories
            .wrapping_sub(says.map_or(0, |says| says.directories)),
    );
    if (entries, directories) != (0, 0) && ino != Ino(0) {
        faults.push(NameFault::EntryCount {
            entries,
            directories,
        });
    }
    faults
}
