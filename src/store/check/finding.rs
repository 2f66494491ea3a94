//! The findings of a check, and the mapping from row keys to the names that an operator knows: paths, versions and
//! objects.
//!
//! A path is built upwards from the directory rows of the index; where the index has no row for an inode, the inode
//! number is used instead.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::meta::MetaRead;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{Ino, ROOT, Timestamp};
use crate::store::replay::faulty::{FaultyKeys, NAMED_MAX};
use crate::store::replay::log_damage::LogDamage;
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::label_keys::{self, LabelSlot};
use crate::store::schema::object_names::object_key;
use crate::store::schema::retention_keys;
use crate::store::schema::rows::{
    DentryBody, DirectoryLocation, EntryState, InodeRow, LocationRow,
};
use crate::store::schema::tables::{
    self, DentryTable, DirectoryLocationTable, InodeTable, LabelTimeTable, LapseTable,
    LinkedVersionTable, LocationTable, RowTable,
};
use crate::store::schema::tally::RowTally;

/// Maximum number of parent directories of a path; more mean a cycle in the rows.
const DEPTH_MAX: usize = 4_096;

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The file or directory at a path below the root, or one of its versions.
    Path {
        /// Names joined by `/`, without a leading `/`; control characters and bytes that are not UTF-8 are escaped.
        path: String,
        /// The version's timestamp; `None` for the current state.
        version: Option<Timestamp>,
    },
    /// The key of an object of the namespace in the bucket.
    Object(String),
    /// A description of something without a path.
    Other(String),
}

/// One inconsistency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What the finding is about.
    pub subject: Subject,
    /// The fault.
    pub what: String,
    /// If the current state of a file is damaged: when the newest older version of it began that can be read whole, as far as is known.
    pub intact: Option<Timestamp>,
}

/// The findings of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The number of findings.
    pub count: u64,
    /// The first findings; at most 1000 are named.
    pub named: Vec<Finding>,
}

impl Findings {
    /// Tells whether there are no findings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns a finding for each faulty object of a log.
    pub(super) fn of_log(damage: &LogDamage) -> Self {
        let mut findings = Self::default();
        damage.each_object(|object| findings.add(Subject::Object(object.key), &object.what));
        findings
    }

    pub(super) fn add(&mut self, subject: Subject, what: &str) {
        self.push_named(Finding {
            subject,
            what: what.to_owned(),
            intact: None,
        });
    }

    /// Tells whether further findings are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.named.len() >= NAMED_MAX
    }

    /// Counts a finding, and keeps it unless there are enough.
    pub(super) fn push_named(&mut self, finding: Finding) {
        self.count += 1;
        if !self.is_full() {
            self.named.push(finding);
        }
    }
}

/// A file or version that shows a content.
#[derive(Clone, Debug)]
struct ContentOwner {
    directory_and_name: Option<Dentry>,
    ino: Ino,
    version: Option<Timestamp>,
}

/// Finds the names that belong to row keys.
pub(super) struct PathFinder<'a> {
    index: &'a dyn MetaRead,
    paths: BTreeMap<Ino, Option<String>>,
    owners: BTreeMap<u64, ContentOwner>,
}

impl<'a> PathFinder<'a> {
    /// Prepares for naming `faults`. The files that show the contents in question are found in one scan of the index.
    pub(super) async fn new(
        index: &'a dyn MetaRead,
        faults: [&FaultyKeys; 2],
    ) -> Result<Self, StoreError> {
        let keys = faults.iter().flat_map(|faulty| &faulty.keys);
        let wanted: BTreeSet<u64> = keys.filter_map(|key| keys::lineage_of(key)).collect();
        Ok(Self {
            index,
            paths: BTreeMap::new(),
            owners: owners(index, &wanted).await?,
        })
    }

    /// Returns findings with names for faulty rows; `what` completes the sentence from a row's description.
    pub(super) async fn findings(
        &mut self,
        faulty: FaultyKeys,
        what: impl Fn(&str) -> String,
    ) -> Result<Findings, StoreError> {
        let mut findings = Findings::default();
        for key in &faulty.keys {
            let (subject, row) = self.subject(key).await?;
            findings.add(subject, &what(row));
        }
        findings.count = faulty.count;
        Ok(findings)
    }

    /// Returns the state that the row at `key` shows, as a file or as a version of it that began at `version`.
    pub(super) async fn shown_by(
        &mut self,
        key: &Bytes,
        version: Option<Timestamp>,
    ) -> Result<Subject, StoreError> {
        let first = keys::leading_ino(key).unwrap_or(Ino(0));
        match key.first_chunk::<2>() {
            Some(b"CD") => {
                let name = Bytes::copy_from_slice(&keys::entry_name(key));
                self.named(first, &name, version).await
            }
            Some(b"HV") => self.version(key).await,
            _ => self.inode(first, version).await,
        }
    }

    /// Returns the file or directory with an inode number.
    pub(super) async fn of_inode(&mut self, ino: Ino) -> Result<Subject, StoreError> {
        self.inode(ino, None).await
    }

    /// Returns what a row is about, and a description of the row.
    async fn subject(&mut self, key: &Bytes) -> Result<(Subject, &'static str), StoreError> {
        let first = keys::leading_ino(key).unwrap_or(Ino(0));
        Ok(match key.get(..2).unwrap_or_default() {
            b"CD" => {
                let name = keys::dentry(key)
                    .map(|entry| entry.name)
                    .unwrap_or_default();
                (self.named(first, &name, None).await?, "its name")
            }
            b"CI" => (self.inode(first, None).await?, "its attributes"),
            b"CN" => (self.inode(first, None).await?, "where its inode is"),
            b"CU" => (self.inode(first, None).await?, "its mark as unfinished"),
            b"CO" => (
                self.inode(first, None).await?,
                "its mark as removed while open",
            ),
            b"CP" => (
                self.inode(first, None).await?,
                "its mark as being undeleted",
            ),
            b"CR" => (self.inode(first, None).await?, "how far its restore is"),
            b"CF" => (self.content(key).await?, "where its bytes are"),
            b"CK" => (self.content(key).await?, "a truncation"),
            b"CL" => (self.content(key).await?, "what it was copied from"),
            b"GR" => (self.content(key).await?, "how many versions show it"),
            b"Gx" => (self.content(key).await?, "its mark as damaged"),
            b"GD" => (
                self.content(key).await?,
                "that a version no longer shows it",
            ),
            b"HB" | b"HL" => (self.inode(first, None).await?, "which names it had"),
            b"HV" => (self.version(key).await?, "the version"),
            b"HW" => {
                let version = keys::trailing_id(key).map(|id| id.timestamp);
                (self.inode(first, version).await?, "the version")
            }
            b"HT" => {
                let name = keys::interval_name(key);
                let subject = self.named(first, &name, None).await?;
                (subject, "when its name was there")
            }
            b"HN" => (self.inode(first, None).await?, "where the directory was"),
            b"HE" => (other("a version that was imported"), "its id"),
            b"GX" => {
                let subject = match retention_keys::due_record(key) {
                    Some(record) => self.record(&record).await?,
                    None => other("a version"),
                };
                (subject, "until when the version is kept")
            }
            b"GS" | b"GT" | b"GH" | b"GY" => self.label(key).await?,
            b"Ga" if amounts::is_of_label(key) => {
                (other("the namespace"), "how much a label keeps")
            }
            b"GB" => (segment(key), "how many files use its parts"),
            b"GE" => (segment(key), "that a file no longer uses it"),
            b"GN" => (segment(key), "that no file uses it"),
            b"GM" => (segment(key), "where its parts were moved"),
            table => match of_namespace(table) {
                Some(what) => (other("the namespace"), what),
                None => (other(&key.escape_ascii().to_string()), "a row"),
            },
        })
    }

    /// Returns what a row of a label or a hold is about, and its description.
    async fn label(&mut self, key: &Bytes) -> Result<(Subject, &'static str), StoreError> {
        let row = match LapseTable::has(key) {
            true => label_keys::lapsing_row(key).unwrap_or_default(),
            false => key.clone(),
        };
        let label = match LabelTimeTable::has(key) {
            true => label_keys::timed_label(key).map(|point| point.slot),
            false => label_keys::label_slot(&row),
        };
        Ok(match (label, label_keys::held_version(&row)) {
            (Some(LabelSlot { directory, name }), _) => {
                (self.named(directory, &name, None).await?, "a label")
            }
            (None, Some((ino, id))) => {
                let version = Some(id.timestamp);
                (self.inode(ino, version).await?, "a hold")
            }
            (None, None) => (other("a label"), "a label"),
        })
    }

    /// Returns the version of a version record's key.
    async fn record(&mut self, key: &Bytes) -> Result<Subject, StoreError> {
        let version = keys::trailing_id(key).map(|id| id.timestamp);
        match LinkedVersionTable::has(key) {
            true => match keys::leading_ino(key) {
                Some(ino) => self.inode(ino, version).await,
                None => Ok(other("a version")),
            },
            false => self.version(key).await,
        }
    }

    async fn version(&mut self, key: &Bytes) -> Result<Subject, StoreError> {
        let version = keys::trailing_id(key).map(|id| id.timestamp);
        match keys::record_slot(key) {
            Some(Dentry {
                parent: directory,
                name,
            }) => self.named(directory, &name, version).await,
            None => Ok(other("a version")),
        }
    }

    /// Returns the file that shows the content of a row.
    async fn content(&mut self, key: &[u8]) -> Result<Subject, StoreError> {
        let cid = keys::lineage_of(key).unwrap_or(0);
        let Some(owner) = self.owners.get(&cid).cloned() else {
            return Ok(other(&format!("content {cid}, which no file shows")));
        };
        match owner.directory_and_name {
            Some(Dentry {
                parent: directory,
                name,
            }) => self.named(directory, &name, owner.version).await,
            None => self.inode(owner.ino, owner.version).await,
        }
    }

    async fn named(
        &mut self,
        directory: Ino,
        name: &[u8],
        version: Option<Timestamp>,
    ) -> Result<Subject, StoreError> {
        let path = self.path(directory).await?;
        let path = join(&path.unwrap_or_else(|| unnamed(directory)), name);
        Ok(Subject::Path { path, version })
    }

    async fn inode(&mut self, ino: Ino, version: Option<Timestamp>) -> Result<Subject, StoreError> {
        if let Some(path) = self.path(ino).await? {
            return Ok(Subject::Path { path, version });
        }
        match self.index.get(&keys::place(ino)).await? {
            Some(row) => {
                let place: LocationRow = LocationTable::decode(&row)?;
                self.named(place.directory, &place.name, version).await
            }
            None => Ok(other(&unnamed(ino))),
        }
    }

    /// Returns the path of a directory, the last one if the directory no longer exists. `None` if the index has no
    /// parent of it.
    async fn path(&mut self, directory: Ino) -> Result<Option<String>, StoreError> {
        let (mut ino, mut names) = (directory, Vec::new());
        let above = loop {
            if ino == ROOT {
                break Some(String::new());
            }
            if let Some(known) = self.paths.get(&ino) {
                break known.clone();
            }
            match self.parent(ino).await? {
                Some(Dentry { parent, name }) if names.len() < DEPTH_MAX => {
                    names.push(name);
                    ino = parent;
                }
                // No parent is known at all: the caller has to name the inode.
                _ if names.is_empty() => break None,
                _ => break Some(unnamed(ino)),
            }
        };
        let below = names.iter().rev();
        let path = above.map(|above| below.fold(above, |path, name| join(&path, name)));
        self.paths.insert(directory, path.clone());
        Ok(path)
    }

    async fn parent(&self, directory: Ino) -> Result<Option<Dentry>, StoreError> {
        if let Some(row) = self.index.get(&keys::inode(directory)).await?
            && let InodeRow::Directory(row) = InodeTable::decode(&row)?
            && let Some((_, place)) = row.place
        {
            return Ok(Some(place));
        }
        let start = keys::directory_locations(directory);
        let end = keys::after(&start);
        let mut newest = self.index.scan(start..end).await?;
        match newest.next().await? {
            Some((_, row)) => {
                let directory_location: DirectoryLocation = DirectoryLocationTable::decode(&row)?;
                Ok(Some(Dentry::new(
                    directory_location.parent,
                    directory_location.name,
                )))
            }
            None => Ok(None),
        }
    }
}

/// Describes the rows of a table that are about the namespace as a whole; `None` for another table.
fn of_namespace(table: &[u8]) -> Option<&'static str> {
    Some(match table {
        b"GA" => "its size and its applied operations",
        b"GC" | b"GQ" | b"GV" | b"Gd" | b"Gh" | b"Gq" => "its retention policy",
        b"GF" | b"GP" => "what keeps a version",
        b"GI" => "which times are kept whole",
        b"GJ" | b"GZ" => "which versions are to be reviewed",
        b"GK" => "its newest checkpoint of the log",
        b"GL" => "its newest log object",
        b"GO" => "how far segments were searched",
        b"GU" => "its lowest unfinished inode",
        b"GW" => "the applied operations of earlier writers",
        b"Ga" => "how much it stores",
        b"Gb" => "which drops wait for a confirmation",
        b"Gf" => "which versions are being forgotten",
        _ => return None,
    })
}

fn other(what: &str) -> Subject {
    Subject::Other(what.to_owned())
}

fn unnamed(ino: Ino) -> String {
    format!("inode {}", ino.0)
}

fn segment(key: &[u8]) -> Subject {
    match keys::segment_of(key) {
        Some((epoch, sequence)) => Subject::Object(object_key("data", epoch, sequence)),
        None => other("a segment"),
    }
}

/// Appends a name to a path, with unprintable characters escaped.
fn join(path: &str, name: &[u8]) -> String {
    let mut joined = path.to_owned();
    if !joined.is_empty() {
        joined.push('/');
    }
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character.is_control() {
                true => joined.extend(character.escape_default()),
                false => joined.push(character),
            }
        }
        joined.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    joined
}

/// Finds a file that shows a content of each lineage in `wanted`; current states are preferred to versions.
async fn owners(
    index: &dyn MetaRead,
    wanted: &BTreeSet<u64>,
) -> Result<BTreeMap<u64, ContentOwner>, StoreError> {
    let mut owners = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(owners);
    }
    for table in [b"CD", b"CI", b"CO", b"HV", b"HW"] {
        let start = Bytes::copy_from_slice(table);
        let mut rows = index.scan(start.clone()..keys::after(&start)).await?;
        while let Some((key, value)) = rows.next().await? {
            let mut tally = RowTally::default();
            tables::count(&key, &value, &mut tally)?;
            for (content, _) in tally.contents {
                if wanted.contains(&content.cid) && !owners.contains_key(&content.cid) {
                    owners.insert(content.cid, owner(table, &key, &value)?);
                }
            }
            if owners.len() == wanted.len() {
                return Ok(owners);
            }
        }
    }
    Ok(owners)
}

fn owner(table: &[u8], key: &Bytes, value: &Bytes) -> Result<ContentOwner, StoreError> {
    let first = keys::leading_ino(key).unwrap_or(Ino(0));
    let (directory_and_name, version) = match table {
        b"CD" => {
            let name = Bytes::copy_from_slice(&keys::entry_name(key));
            let version = match DentryTable::decode(value)?.body {
                DentryBody::Own {
                    state: EntryState::Version(stamp),
                    ..
                } => Some(stamp.id.timestamp),
                DentryBody::Own { .. } | DentryBody::Linked(_) => None,
            };
            (Some(Dentry::new(first, name)), version)
        }
        b"HV" => {
            let named = keys::record_slot(key)
                .map(|at| Dentry::new(at.parent, Bytes::copy_from_slice(&at.name)));
            (named, keys::trailing_id(key).map(|id| id.timestamp))
        }
        b"HW" => (None, keys::trailing_id(key).map(|id| id.timestamp)),
        _ => (None, None),
    };
    Ok(ContentOwner {
        directory_and_name,
        ino: first,
        version,
    })
}
