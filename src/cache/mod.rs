//! Bytes on this machine: blocks read from the bucket, and writes that are not yet there.
//!
//! This module knows no name, no version and no object store: a key is a number, and what is missing is fetched
//! by a future of the caller's. Invariant: what can be fetched again may be dropped at any time unless a token
//! holds it; what cannot (staging files) is never dropped before its owner says that the bucket has it.
//!
//! Locks, all of them std and held for a few instructions: the table entry of a running fetch, then a memory shard, then a
//! token's table entry; the disk index and a budget stand alone. A staging file's lock is held over its write, and under
//! it that of the table of open files is taken. No await under any.

use std::io;
use std::path::{Path, PathBuf};

use crate::sync::Arc;

pub(crate) mod block;
mod block_key;
pub(crate) mod budget;
pub(crate) mod dirty;
mod disk;
mod memory;
mod open;
pub(crate) mod staging;
pub(crate) mod token;

pub(crate) use block::{BlockCache, BlockCacheConfig};
pub(crate) use block_key::{BLOCK, BlockKey};
pub(crate) use budget::{Budget, BudgetPermit};
pub(crate) use dirty::{DirtyMap, DirtySnapshot, Piece, Referent, Source, Span};
pub(crate) use memory::Block;
pub(crate) use staging::{StagingDir, StagingFile};

/// Why local bytes could not be kept or had.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CacheError {
    /// The filesystem of the cache directory is full, or a quota or file size limit is reached. What was there
    /// before is unharmed; the writer is told ENOSPC.
    #[error("no space left in the cache directory for {}", path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The local filesystem failed; trying again rarely helps.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: "open", "read".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A staging file ends before bytes that were acknowledged: it was damaged from outside.
    #[error("{} ends before byte {end}", path.display())]
    Short {
        /// The staging file.
        path: PathBuf,
        /// Where the wanted bytes end in it.
        end: u64,
    },
    /// A staging file takes nothing more.
    #[error("{} is closed", path.display())]
    Closed {
        /// The staging file.
        path: PathBuf,
    },
    /// The task that fetched a block ended without an answer: it panicked, or the process is ending.
    #[error("the fetch of a block was lost")]
    Lost,
}

impl CacheError {
    /// Describes a failed system call on `path`.
    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        let full = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let source = Arc::new(source);
        if full {
            Self::NoSpace { path, source }
        } else {
            Self::Io {
                action,
                path,
                source,
            }
        }
    }
}
