//! The verbs and their arguments, as a command sends them to a daemon.

use serde::{Deserialize, Serialize};

use super::path::TimedPath;

/// A verb that reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum ReadVerb {
    /// The states of a file, oldest first; with a time, those that began up to it.
    Versions {
        /// The file.
        path: TimedPath,
    },
    /// The entries of a directory in ascending order of names, or the one of a file.
    Ls {
        /// The directory or file.
        path: TimedPath,
    },
}
