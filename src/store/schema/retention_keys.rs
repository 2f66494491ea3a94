//! The keys of the rows of retention: a function for each.
//!
//! | key | bytes after the prefix | read by, for | order |
//! |---|---|---|---|
//! | `G X` | due time, key of the version record | retention: versions that have ended, in the order in which the rules of time stop keeping them | |
//! | `G F` | directory, name, 00, key of the version record | retention: versions that are kept because of a name | those of a name are adjacent |
//! | `G Z` | directory, name | retention: names whose versions in `G F` are to be reviewed | |
//! | `G P` | timestamp, directory, key of the version record | retention: versions that a label keeps | those of a label are adjacent |
//! | `G J` | timestamp, directory | retention: removed labels whose versions in `G P` are to be reviewed | |
//! | `G I` | tier | `.versions`: the oldest exact times | few, all scanned |
//! | `G C` | | retention: a stricter policy that is not in force yet | one row |
//! | `G h` | hour since 1970 | `.versions` of the root directory: hours in which names changed | few, all scanned |
//! | `G q` | directory | `.versions`, retention: policies of directories | few, all scanned |
//! | `G d` | | retention: the policy to which `history-max` has shortened that of the user | one row |
//! | `G b` | | retention: drops that wait for a confirmation | one row |
//! | `G V` | | retention: how far the versions are filed by a new policy | one row |

use bytes::Bytes;

use crate::store::model::ids::Dentry;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::keys::{KeyBuilder, leading_ino, record_slot};
use crate::store::schema::retention_rows::{Filing, LabelPin};
use crate::store::schema::tables::{
    CapTable, ChangedHourTable, DirectoryPolicyTable, DueTable, HorizonTable, KeptTable,
    LabeledTable, PendingPolicyTable, RefileTable, RemovedLabelTable, ReviewTable, RowKey,
    RowTable, WaitingTable,
};
use crate::store::schema::tally::word;

/// Returns the key of the version record that a `G X` key is for.
pub(crate) fn due_record(key: &Bytes) -> Option<Bytes> {
    (key.len() > 10).then(|| key.slice(10..))
}

/// The row of a version record in the order of due times; `record` is the record's key.
pub(crate) fn due(at: Timestamp, record: &[u8]) -> RowKey<DueTable> {
    KeyBuilder::new(DueTable::PREFIX)
        .u64(at.0)
        .bytes(record)
        .row()
}

/// The row of a version record that is kept because of a name; `record` is the record's key.
pub(crate) fn kept(name: &Dentry, record: &[u8]) -> RowKey<KeptTable> {
    KeyBuilder::continued(&kept_of(name)).bytes(record).row()
}

/// Prefix of the rows of all version records that are kept because of a name.
pub(crate) fn kept_of(name: &Dentry) -> Bytes {
    KeyBuilder::new(KeptTable::PREFIX)
        .u64(name.parent.0)
        .bytes(&name.name)
        .bytes(&[0])
        .done()
}

/// Stands for all names of a hard-linked inode where versions are kept because of names: the empty name in a directory with the
/// inode's number. No directory has that number, and no name is empty.
pub(crate) fn names_of(ino: Ino) -> Dentry {
    Dentry::new(ino, Bytes::new())
}

/// The row that lists a name for review.
pub(crate) fn review(name: &Dentry) -> RowKey<ReviewTable> {
    KeyBuilder::new(ReviewTable::PREFIX)
        .u64(name.parent.0)
        .bytes(&name.name)
        .row()
}

/// The name in a `G Z` key.
pub(crate) fn reviewed(key: &Bytes) -> Option<Dentry> {
    Some(Dentry::new(Ino(word(key, 2)?), key.slice(10..)))
}

/// The row of a version record that a label keeps; `record` is the record's key.
pub(crate) fn labeled(label: LabelPin, record: &[u8]) -> RowKey<LabeledTable> {
    KeyBuilder::continued(&labeled_by(label))
        .bytes(record)
        .row()
}

/// Prefix of the rows of all version records that a label keeps.
pub(crate) fn labeled_by(label: LabelPin) -> Bytes {
    KeyBuilder::new(LabeledTable::PREFIX)
        .u64(label.timestamp.0)
        .u64(label.directory.0)
        .done()
}

/// Returns the key of the version record that a `G P` key is for.
pub(crate) fn labeled_record(key: &Bytes) -> Option<Bytes> {
    (key.len() > 18).then(|| key.slice(18..))
}

/// The row that lists a removed label for review.
pub(crate) fn removed_label(label: LabelPin) -> RowKey<RemovedLabelTable> {
    KeyBuilder::new(RemovedLabelTable::PREFIX)
        .u64(label.timestamp.0)
        .u64(label.directory.0)
        .row()
}

/// What the label of a `G J` key showed.
pub(crate) fn label_place(key: &[u8]) -> Option<LabelPin> {
    Some(LabelPin {
        timestamp: Timestamp(word(key, 2)?),
        directory: Ino(word(key, 10)?),
    })
}

/// The oldest exact time of a tier.
pub(crate) fn horizon(tier: u8) -> RowKey<HorizonTable> {
    KeyBuilder::new(HorizonTable::PREFIX).bytes(&[tier]).row()
}

pub(crate) fn pending_policy() -> RowKey<PendingPolicyTable> {
    RowKey::new(PendingPolicyTable::all())
}

/// The policy to which `history-max` has shortened that of the user.
pub(crate) fn cap() -> RowKey<CapTable> {
    RowKey::new(CapTable::all())
}

/// The drops that wait for a confirmation.
pub(crate) fn waiting_drops() -> RowKey<WaitingTable> {
    RowKey::new(WaitingTable::all())
}

pub(crate) fn refiled() -> RowKey<RefileTable> {
    RowKey::new(RefileTable::all())
}

/// The keys under which a version record is filed. `record` is the record's key.
pub(crate) fn filings(filed: &Filing, record: &Bytes) -> Vec<Bytes> {
    match filed {
        Filing::Nowhere => Vec::new(),
        Filing::Due(at) => vec![due(*at, record).bytes()],
        Filing::Last(name) => vec![kept(name, record).bytes()],
        Filing::Label(label) => vec![labeled(*label, record).bytes()],
        Filing::Until(at) => {
            let linked = || leading_ino(record).map(names_of);
            let own = record_slot(record).or_else(linked);
            let own = own.map(|name| kept(&name, record).bytes());
            let until = due(*at, record).bytes();
            own.into_iter().chain([until]).collect()
        }
        Filing::Removed(at, name) => {
            vec![due(*at, record).bytes(), kept(name, record).bytes()]
        }
    }
}

/// The row of the policies of a directory.
pub(crate) fn directory_policy(directory: Ino) -> RowKey<DirectoryPolicyTable> {
    KeyBuilder::new(DirectoryPolicyTable::PREFIX)
        .u64(directory.0)
        .row()
}

/// The row of an hour since 1970 in which a name changed.
pub(crate) fn changed_hour(hour: u64) -> RowKey<ChangedHourTable> {
    KeyBuilder::new(ChangedHourTable::PREFIX).u64(hour).row()
}

/// Returns the hour of such a row.
pub(crate) fn hour_of_row(key: &[u8]) -> Option<u64> {
    word(key, 2)
}
