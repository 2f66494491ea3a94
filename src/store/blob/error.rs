//! What can go wrong with blobs; each kind says what the caller does next.

use crate::backend::BackendError;
use crate::store::StoreError;

/// A failure of a blob store.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The key can never be one: use another.
    #[error("key {key:?}: {reason}")]
    InvalidKey {
        /// The key, printable.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An argument makes no sense; the text says which and why.
    #[error("invalid: {0}")]
    Invalid(String),
    /// There is no such blob, or no such version of it.
    #[error("not found")]
    NotFound,
    /// A directory has the name, or something that is no directory is on the way to it.
    #[error("key {key:?}: {reason}")]
    Conflict {
        /// The key, printable.
        key: String,
        /// What is in the way.
        reason: &'static str,
    },
    /// The id of an import is taken.
    #[error("the version id {0:?} was imported already")]
    Imported(String),
    /// The bytes to be stored could not be read; nothing was changed.
    #[error("the source of the bytes: {0}")]
    Source(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<BackendError> for BlobError {
    fn from(error: BackendError) -> Self {
        Self::Store(error.into())
    }
}

impl BlobError {
    /// Makes the error that says what is in the way of a key.
    pub(super) fn conflict(key: &[u8], reason: &'static str) -> Self {
        Self::Conflict {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        }
    }
}
