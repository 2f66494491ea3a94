//! The errors of the store. Each kind tells the caller what to do next.

use std::fmt;

use crate::backend::BackendError;
use crate::cache::CacheError;
use crate::meta::{JournalError, MetaError};
use crate::sync::Arc;

/// An error of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The name, inode or version does not exist.
    #[error("not found")]
    NotFound,
    /// The name exists already.
    #[error("already exists")]
    Exists,
    /// The call needs a directory.
    #[error("not a directory")]
    NotDirectory,
    /// The call does not take a directory.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// An argument is not valid; the text says which and why.
    #[error("invalid: {0}")]
    Invalid(String),
    /// A directory would be moved into itself or into a directory below it.
    #[error("a directory cannot be moved into itself")]
    IntoItself,
    /// The inode has as many names as it may.
    #[error("too many links")]
    TooManyLinks,
    /// The file would be longer than the maximum length.
    #[error("file too large")]
    TooLarge,
    /// The disk of the cache directory is full; nothing was changed.
    #[error("no space left in the cache directory")]
    NoSpace,
    /// A temporary file could not be written on the local disk; the text names the file.
    #[error("{0}")]
    LocalDisk(String),
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The version was deleted while it was being read.
    #[error("the version is gone")]
    Stale,
    /// Another process uses the object that the text names: try again later.
    #[error("busy: {0}")]
    Busy(String),
    /// A program runs from a file that would be changed: stop it first; the text names the file.
    #[error("text file busy: {0}")]
    ProgramRuns(String),
    /// A hold or a label protects what would be removed; the text names it.
    #[error("{0}")]
    Held(String),
    /// This machine's clock is too far from that of the namespace or the bucket: set it, then mount.
    #[error("{0}")]
    Clock(String),
    /// The namespace is mounted for reading.
    #[error("read-only")]
    ReadOnly,
    /// The bucket failed or did not answer in time. Acknowledged changes are kept locally and tried again.
    #[error("the bucket is not available: {0}")]
    Unavailable(Outage),
    /// Another writer has taken the namespace: stop writing, and mount again.
    #[error("another writer has taken this namespace")]
    Fenced,
    /// Bytes of the bucket or of the journal differ from what was written; the text names the object or file.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The index lacks rows that other objects prove to have existed: put the named objects back, then mount again.
    #[error("{0}")]
    Damaged(String),
    /// The namespace has been closed.
    #[error("closed")]
    Closed,
}

/// Why the bucket or the local disk failed: the text for users, and the object store's error if there is one.
#[derive(Debug, Clone)]
pub struct Outage {
    text: String,
    cause: Option<Arc<BackendError>>,
}

impl Outage {
    /// Returns the object store's error, which says whether trying again can help.
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
    fn an_outage_keeps_the_kind_and_the_text_of_the_failed_request() {
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
