//! Names and numbers that more than one floor uses: directory entries, operations, batches.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::model::version::{ContentRef, Ino};

/// The most directories above another one. A walk upward that is longer is in a circle, which the rows of a damaged index may make.
pub(crate) const DIRECTORIES_ABOVE_MAX: usize = 1 << 16;

/// A directory entry: one name in one directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Dentry {
    /// The directory.
    pub(crate) parent: Ino,
    /// The name, without `/` and NUL.
    pub(crate) name: Bytes,
}

impl Dentry {
    /// The entry `name` of `parent`.
    pub(crate) fn new(parent: Ino, name: Bytes) -> Self {
        Self { parent, name }
    }
}

/// A directory entry whose name is borrowed: an argument of an operation on names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DentryRef<'a> {
    /// The directory.
    pub parent: Ino,
    /// The name.
    pub name: &'a [u8],
}

impl<'a> DentryRef<'a> {
    /// Returns the entry `name` of `parent`.
    pub fn new(parent: Ino, name: &'a [u8]) -> Self {
        Self { parent, name }
    }

    /// Copies the name.
    pub(crate) fn to_dentry(self) -> Dentry {
        Dentry::new(self.parent, Bytes::copy_from_slice(self.name))
    }
}

/// The content that a state of a file was written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContentBase {
    /// The content.
    pub(crate) content: ContentRef,
    /// Its length, bytes.
    pub(crate) len: u64,
}

/// How an operation changes the bytes and files of the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsageChange {
    /// Bytes that are not holes.
    pub(crate) bytes: i64,
    /// Number of inodes.
    pub(crate) files: i64,
}

/// Id of an operation: the epoch of the writer that acknowledged it, and its number among that writer's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OperationId {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

/// Id of a batch: the epoch of the writer that committed it, and its number among that writer's batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct BatchId {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

impl std::fmt::Display for BatchId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "batch {} of writer epoch {}", self.number, self.epoch)
    }
}
