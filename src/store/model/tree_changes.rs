//! What an operation changed in the live tree, for a caller that keeps parts of it.

use bytes::Bytes;

use crate::store::model::version::{Displaced, Ino};

/// What an operation changed in the live tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeChanges {
    /// Names that were added or removed, or lead to something else.
    pub names: Vec<ChangedName>,
    /// Inodes with other attributes or another content.
    pub inodes: Vec<Ino>,
    /// What lost a name.
    pub removed: Vec<Displaced>,
}

/// A name in a directory that leads to something else than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedName {
    /// The directory.
    pub directory: Ino,
    /// The name.
    pub name: Bytes,
}
