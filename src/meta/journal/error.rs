//! Why a journal refuses.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use uuid::Uuid;

/// Why the journal refused.
#[derive(Debug, Error)]
pub(crate) enum JournalError {
    /// Another process (or mount) works with this directory.
    #[error("the cache directory {} is in use by another mount", .0.display())]
    Busy(PathBuf),
    /// The directory belongs to another namespace.
    #[error("the cache directory {} belongs to namespace {found}, not to {expected}", .dir.display())]
    Foreign {
        /// The journal's directory.
        dir: PathBuf,
        /// The namespace it was written for.
        found: Uuid,
        /// The namespace that was asked for.
        expected: Uuid,
    },
    /// A file is not what this program writes; what it holds is left as it is.
    #[error("journal file {}: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk is full. Nothing was appended and the journal works on.
    #[error("no space left for the journal in {}", .0.display())]
    NoSpace(PathBuf),
    /// A payload is longer than 1 GiB.
    #[error("a journal record of {0} bytes is too long")]
    TooLong(usize),
    /// The local disk failed.
    #[error("journal {}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
}

impl JournalError {
    /// Makes the error of a failed system call on `path`.
    pub(super) fn of(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace(path.to_path_buf())
            }
            _ => Self::Io {
                path: path.to_path_buf(),
                source,
            },
        }
    }
}
