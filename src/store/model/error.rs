//! What can go wrong in the store; each kind says what the caller does next.

use crate::backend::BackendError;
use crate::cache::CacheError;
use crate::meta::{JournalError, MetaError};

/// A failure of the blob store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The name, inode or version is not there: tell the user.
    #[error("not found")]
    NotFound,
    /// The name is taken: tell the user.
    #[error("already exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Something else than a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// The call makes no sense; the text says why.
    #[error("invalid: {0}")]
    Invalid(String),
    /// A directory would be moved into itself.
    #[error("a directory cannot be moved into itself")]
    IntoItself,
    /// The inode has as many names as it may.
    #[error("too many links")]
    TooManyLinks,
    /// Beyond the largest file length.
    #[error("file too large")]
    TooLarge,
    /// The local disk is full; nothing was changed.
    #[error("no space left in the cache directory")]
    NoSpace,
    /// The local disk did not take a temporary file; the text names it.
    #[error("{0}")]
    LocalDisk(String),
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The version has been removed while it was read.
    #[error("the version is gone")]
    Stale,
    /// Somebody else has it: name what and try later.
    #[error("busy: {0}")]
    Busy(String),
    /// This machine's clock is far behind the namespace's: set it, then mount.
    #[error("{0}")]
    Clock(String),
    /// The namespace is mounted for reading.
    #[error("read-only")]
    ReadOnly,
    /// The bucket did not do it in time; what was acknowledged is kept here and tried again.
    #[error("the bucket is not available: {0}")]
    Unavailable(String),
    /// Another writer has taken the namespace: stop writing, mount again.
    #[error("another writer has taken this namespace")]
    Fenced,
    /// Bytes of the bucket or of the journal are not what was written; the text names them.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The index of the namespace lacks what other objects prove: put the named objects back, then mount again.
    #[error("{0}")]
    Damaged(String),
    /// The namespace has been closed.
    #[error("closed")]
    Closed,
}

impl From<MetaError> for StoreError {
    fn from(error: MetaError) -> Self {
        match error {
            MetaError::Fenced(_) => Self::Fenced,
            MetaError::Closed(_) => Self::Closed,
            MetaError::Corrupt(text) => Self::Corrupt(text),
            MetaError::Conflict(text) | MetaError::Unavailable(text) => Self::Unavailable(text),
        }
    }
}

impl From<BackendError> for StoreError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Damaged { .. } => Self::Corrupt(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<CacheError> for StoreError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::NoSpace { .. } => Self::NoSpace,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<JournalError> for StoreError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::NoSpace { .. } => Self::NoSpace,
            JournalError::Busy { .. } => Self::Busy(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
