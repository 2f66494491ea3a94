//! Bytes on this machine: cached blocks of the bucket, and written bytes that the bucket does not have yet.
//!
//! The cache knows no names, versions or object stores: keys are numbers, and the caller passes the future that fetches a
//! missing block. Invariant: a cached block may be evicted at any time unless a token pins it; a staging file is never deleted
//! before its owner reports that the bucket has its bytes.
//!
//! Locks are std locks, held for a few instructions, in this order: the table entry of a running fetch, a shard of the memory
//! cache, the table entry of a token. The locks of the disk index and of a budget are leaves. A staging file's lock is held
//! over its write(2), and the lock of the table of open files is taken under it. No lock is held across an await.

use std::io;
use std::path::{Path, PathBuf};

use crate::sync::Arc;

pub(crate) mod block;
mod block_key;
pub(crate) mod budget;
pub(crate) mod dirty;
mod disk;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod memory;
mod open;
pub(crate) mod staging;
pub(crate) mod token;

pub(crate) use block::{BlockCache, BlockCacheConfig, BlockReservation};
pub(crate) use block_key::{BLOCK, BlockKey};
pub(crate) use budget::{Budget, BudgetPermit};
pub(crate) use dirty::{DirtyMap, DirtySnapshot, Piece, Referent, Source, Span};
pub(crate) use memory::Block;
pub(crate) use staging::{StagingDir, StagingFile};

/// Why local bytes could not be written or read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CacheError {
    /// The file system of the cache directory is full, or a quota or file size limit is reached. Nothing was changed; the
    /// caller of write(2) gets ENOSPC.
    #[error("no space left in the cache directory for {}", path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The local file system failed; another attempt rarely succeeds.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The action that failed: "open", "read".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A staging file ends before bytes that were acknowledged: another program has truncated it.
    #[error("{} ends before byte {end}", path.display())]
    Short {
        /// The staging file.
        path: PathBuf,
        /// The end of the requested bytes in the file.
        end: u64,
    },
    /// A staging file is closed for appends.
    #[error("{} is closed", path.display())]
    Closed {
        /// The staging file.
        path: PathBuf,
    },
    /// The task that fetched a block ended without a result: it panicked, or the process is shutting down.
    #[error("the fetch of a block was lost")]
    Lost,
}

impl CacheError {
    /// Tells whether the bytes of a staging file are not there, rather than that they cannot be read now.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Short { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::NoSpace { .. } | Self::Closed { .. } | Self::Lost => false,
        }
    }

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
