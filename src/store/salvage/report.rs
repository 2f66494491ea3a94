//! What a salvage has written.

use std::ops::Range;
use std::path::PathBuf;

use crate::store::model::version::{Author, Ino, Timestamp};
use crate::store::salvage::states::StateOrigin;

/// A state that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvagedFile {
    /// Where it was written.
    pub to: PathBuf,
    /// Its inode.
    pub ino: Ino,
    /// When it was made; `None` for what was written to a file that was still open.
    pub at: Option<Timestamp>,
    /// How it came about.
    pub origin: StateOrigin,
    /// Who made it.
    pub author: Author,
    /// Its length, bytes.
    pub len: u64,
    /// The parts that are not on this machine, as offsets in bytes.
    pub missing: Vec<Range<u64>>,
}

/// What was found in a local directory.
#[derive(Debug, Default)]
pub struct SalvageReport {
    /// The states, in the order in which they were written.
    pub files: Vec<SalvagedFile>,
    /// What could not be read or written.
    pub problems: Vec<String>,
}
