//! A directory as of a timestamp.

use crate::store::{Ino, Timestamp};

/// What a directory of the past shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// What was there. Once retention may drop some of it, the directory is stale.
    Exact,
    /// What is left of what was there: of each name the newest state that is kept and not newer.
    Kept,
    /// What was in a removed directory, as long as that is offered for an undelete.
    Removed,
    /// Nothing: the policy of a directory does not keep what was there.
    CutOff,
}

/// A directory as of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirAt {
    /// The directory.
    pub(super) dir: Ino,
    /// The timestamp.
    pub(super) at: Timestamp,
    /// What it shows.
    pub(super) sight: Sight,
}
