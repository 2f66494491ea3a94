//! What a restore has done so far, for its caller and for the next mount.

use bytes::Bytes;

use crate::store::commit::operation::Operation;
use crate::store::commit::txn::Txn;
use crate::store::history::restore_before::KeptBefore;
use crate::store::model::ids::Dentry;
use crate::store::model::tree_changes::TreeChanges;
use crate::store::model::version::{Author, Ino, Timestamp};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::restore_rows::SteppedRestoreRow;
use crate::store::schema::retention_keys;
use crate::store::schema::rows::LabelPin;
use crate::sync::Arc;

/// What a restore has done.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Its timestamp; `None` if nothing had to change.
    pub at: Option<Timestamp>,
    /// The number of changes.
    pub count: usize,
    /// What changed in the live tree.
    pub changes: TreeChanges,
    /// Names that stay as they are, because what they showed was forgotten, or their policy does not keep it.
    pub left: Vec<LeftName>,
}

/// A name that a restore leaves as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftName {
    /// Its directory.
    pub parent: Ino,
    /// The name.
    pub name: Bytes,
}

/// Returns the names that stay as they are.
pub(super) fn names_of_left(left: Vec<Dentry>) -> Vec<LeftName> {
    let names = left.into_iter();
    names
        .map(|Dentry { parent, name }| LeftName { parent, name })
        .collect()
}

/// What a restore has done, and the directories that it made.
#[derive(Debug)]
pub(super) struct MadeTree {
    pub(super) restored: Restored,
    pub(super) directories: Vec<Ino>,
    /// The last operation that was queued.
    pub(super) operation: Option<Arc<Operation>>,
}

impl MadeTree {
    /// Of a restore that had nothing to change.
    pub(super) fn unchanged(left: Vec<Dentry>) -> Self {
        Self {
            restored: Restored {
                at: None,
                count: 0,
                changes: TreeChanges::default(),
                left: names_of_left(left),
            },
            directories: Vec::new(),
            operation: None,
        }
    }
}

/// What an operation of a restore writes about the restore itself.
#[derive(Debug)]
pub(super) enum RestoreProgress {
    /// Nothing: it is the whole restore.
    Whole,
    /// How far the restore of this directory is.
    At(Ino, Box<SteppedRestoreRow>),
    /// That the restore of this directory is done.
    Done(Ino, LabelPin),
}

impl RestoreProgress {
    pub(super) fn put(&self, txn: &mut Txn) {
        match self {
            Self::Whole => {}
            Self::At(directory, row) => {
                txn.touch(keys::stepped_restore(*directory));
                txn.put(keys::stepped_restore(*directory), row);
            }
            Self::Done(directory, pin) => {
                txn.touch(keys::stepped_restore(*directory));
                txn.delete(keys::stepped_restore(*directory));
                // Retention decides anew about the versions that it kept for the restore.
                let at = txn.timestamp;
                txn.put(retention_keys::removed_label(*pin), &at);
            }
        }
    }
}

/// One operation of a restore.
pub(super) struct RestoreOperation<'a> {
    pub(super) at: Timestamp,
    /// Timestamp of the restore's first operation.
    pub(super) began: Timestamp,
    pub(super) author: &'a Author,
    pub(super) dependencies: Dependencies,
    /// What keeps the state before it.
    pub(super) kept: KeptBefore,
    /// How far a restore in steps is after it.
    pub(super) progress: RestoreProgress,
}
