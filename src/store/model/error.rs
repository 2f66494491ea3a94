//! What can go wrong in the store; each kind says what the caller does next.

use std::fmt;

use crate::backend::BackendError;
use crate::cache::CacheError;
use crate::meta::{JournalError, MetaError};
use crate::sync::Arc;

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
    /// Another process uses it: name what and try later.
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
    Unavailable(Outage),
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

/// Why the bucket or the local disk did not do something: the text for people, and the object store's error where there is one.
#[derive(Debug, Clone)]
pub struct Outage {
    text: String,
    cause: Option<Arc<BackendError>>,
}

impl Outage {
    /// Returns the object store's error, which says whether the failure passes by itself.
    pub fn cause(&self) -> Option<&BackendError> {
        self.cause.as_deref()
    }
}

impl From<String> for Outage {
    fn from(text: String) -> Self {
        Self { text, cause: None }
    }
}

impl From<Arc<BackendError>> for Outage {
    fn from(error: Arc<BackendError>) -> Self {
        Self {
            text: error.to_string(),
            cause: Some(error),
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<MetaError> for StoreError {
    fn from(error: MetaError) -> Self {
        match error {
            MetaError::Fenced(_) => Self::Fenced,
            MetaError::Closed(_) => Self::Closed,
            MetaError::Corrupt(text) => Self::Corrupt(text),
            MetaError::Conflict(text) | MetaError::Unavailable(text) => {
                Self::Unavailable(text.into())
            }
        }
    }
}

impl From<BackendError> for StoreError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Damaged { .. } => Self::Corrupt(error.to_string()),
            other => Self::Unavailable(Arc::new(other).into()),
        }
    }
}

impl From<CacheError> for StoreError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::NoSpace { .. } => Self::NoSpace,
            other => Self::Unavailable(other.to_string().into()),
        }
    }
}

impl From<JournalError> for StoreError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::NoSpace { .. } => Self::NoSpace,
            JournalError::Busy { .. } => Self::Busy(error.to_string()),
            other => Self::Unavailable(other.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_request_keeps_its_kind_and_its_words() {
        let denied = BackendError::Denied {
            place: "s3://bucket/key".to_owned(),
            reason: "403".to_owned(),
        };
        let StoreError::Unavailable(outage) = StoreError::from(denied.clone()) else {
            panic!("a refused request is an outage")
        };
        assert_eq!(outage.cause(), Some(&denied));
        assert_eq!(outage.to_string(), denied.to_string());
        assert!(
            Outage::from("the log is behind".to_owned())
                .cause()
                .is_none()
        );
    }
}
