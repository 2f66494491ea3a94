//! The errors of the blob store. Each kind tells the caller what to do next.

use crate::backend::BackendError;
use crate::store::StoreError;

/// An error of the blob store.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The key is not valid; use another key.
    #[error("key {key:?}: {reason}")]
    InvalidKey {
        /// The key, with unprintable bytes replaced.
        key: String,
        /// Why the key is not valid.
        reason: &'static str,
    },
    /// An argument is not valid; the text names the argument and the reason.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The blob or the version does not exist.
    #[error("not found")]
    NotFound,
    /// The key names a directory, or a part of its path is not a directory.
    #[error("key {key:?}: {reason}")]
    Conflict {
        /// The key, with unprintable bytes replaced.
        key: String,
        /// What is in the way.
        reason: &'static str,
    },
    /// The id of an import is already in use.
    #[error("the version id {0:?} was imported already")]
    Imported(String),
    /// The source of the bytes failed; nothing was changed.
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
    /// Returns a `Conflict` error for a key.
    pub(super) fn conflict(key: &[u8], reason: &'static str) -> Self {
        Self::Conflict {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        }
    }
}
