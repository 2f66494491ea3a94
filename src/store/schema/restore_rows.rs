//! The value of the row of a restore that is made in steps.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::model::ids::Dentry;
use crate::store::model::version::{Author, Ino, Time, Timestamp};

/// A restore that is made in steps, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SteppedRestoreRow {
    /// The number that the restored directory had at the restored time; its own is in the key.
    pub(crate) former: Ino,
    /// The restored time.
    pub(crate) at: Timestamp,
    /// Timestamp of the first step. The state before the restore is the one just before it.
    pub(crate) began: Timestamp,
    /// Whether names that were added since stay.
    pub(crate) keeps_new: bool,
    pub(crate) author: Author,
    /// What the walk does.
    pub(crate) phase: RestorePhase,
    /// Whether names of hard-linked files were left to their phase.
    pub(crate) has_links: bool,
    /// The directories from the restored one down to the one that the walk is in.
    pub(crate) walk: Vec<RestoreFrame>,
    /// The number of changes until now.
    pub(crate) count: u64,
    /// Names that stay as they are, as far as the walk has come to them, because what they showed is not kept.
    pub(crate) left: Vec<Dentry>,
}

/// What a walk of a stepped restore does. The phases follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RestorePhase {
    /// Every directory of then gets its place, and every name but those of hard-linked files its state.
    Place,
    /// Names that were one inode are one again.
    Link,
    /// What was not there then is removed.
    Remove,
}

/// A directory that a walk of a stepped restore is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestoreFrame {
    /// The number that it had then; `None` for one that was not there, which is removed.
    pub(crate) former: Option<Ino>,
    /// Its number now.
    pub(crate) number: Ino,
    /// Its modification time of then, if the restore has made it.
    pub(crate) mtime: Option<Time>,
    /// The name up to which the walk has seen it.
    pub(crate) after: Option<Bytes>,
}
