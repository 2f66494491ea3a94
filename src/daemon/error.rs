//! Why a mount could not be made, or ended with an error.

use crate::backend::BackendError;
use crate::config::Config;
use crate::control::ControlError;
use crate::fuse::MountError;
use crate::store::StoreError;
use std::time::Duration;

/// Why a mount could not be made, or ended with an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The URL names no store, or a flag about it is wrong.
    #[error(transparent)]
    Url(BackendError),
    /// The store refuses the credentials it was shown.
    #[error("{0}; check the credentials, which come from the provider's environment variables")]
    Denied(BackendError),
    /// The store cannot be used.
    #[error(transparent)]
    Backend(BackendError),
    /// This machine's clock or the store's is wrong: set it.
    #[error("{url}: the clocks differ by more than {} s: here {here}, there {there}", .limit.as_secs())]
    Clock {
        /// The store, without secrets.
        url: String,
        /// How much is borne.
        limit: Duration,
        /// This machine's time.
        here: String,
        /// The store's time.
        there: String,
    },
    /// The store did not answer.
    #[error("{url}: no answer within {} s", .limit.as_secs())]
    NoAnswer {
        /// The store, without secrets.
        url: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The namespace cannot be opened or closed.
    #[error("namespace {name}: {source}")]
    Store {
        /// The namespace.
        name: String,
        /// Why.
        source: StoreError,
    },
    /// A namespace that is only to be read is not there: the first mount that writes makes it.
    #[error("namespace {name}: not found in {url}; a read-only mount makes none")]
    NoNamespace {
        /// The namespace.
        name: String,
        /// The store, without secrets.
        url: String,
    },
    /// The disk of the cache directory is full: free some, or name another.
    #[error(
        "cache directory {path}: no space left on its disk; free some, or give another --cache-dir"
    )]
    CacheFull {
        /// The directory.
        path: String,
    },
    /// The mountpoint cannot be used.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Commands cannot be listened for.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A signal came before the mount was made.
    #[error("stopped by a signal")]
    Stopped,
    /// Something acknowledged is not in the bucket; it lies in the cache directory, for the next mount.
    #[error("not brought to the bucket: {0}; the next mount with this cache directory will")]
    Left(String),
    /// Another writer has the namespace; what was acknowledged here and did not reach the bucket lies in the cache
    /// directory, and its next mount makes versions of it.
    #[error("another writer has taken the namespace: {0}")]
    Fenced(String),
    /// The process that served the mountpoint before has not ended: wait for it.
    #[error(
        "mountpoint {path}: process {pid}, which served it before, is still bringing files to the bucket"
    )]
    Ending {
        /// The mountpoint.
        path: String,
        /// The process.
        pid: u32,
    },
    /// The index, or what brings changes to it, had stopped for good: mount again.
    #[error("the mount had stopped: {why}; {left}")]
    HadStopped {
        /// What stopped.
        why: String,
        /// What stays in the cache directory.
        left: String,
    },
    /// A task of a mount panicked: mount again.
    #[error("{task} failed, see the log; {left}")]
    Panicked {
        /// The task.
        task: &'static str,
        /// What stays in the cache directory.
        left: String,
    },
    /// Something panicked.
    #[error("{0} failed, see the log")]
    Broken(&'static str),
}

/// Names what kept a namespace from being opened.
pub(super) fn not_opened(config: &Config, source: StoreError) -> DaemonError {
    match source {
        StoreError::NoSpace => DaemonError::CacheFull {
            path: config.store.cache_dir.display().to_string(),
        },
        StoreError::NotFound => DaemonError::NoNamespace {
            name: config.namespace.clone(),
            url: config.url.to_string(),
        },
        source => DaemonError::Store {
            name: config.namespace.clone(),
            source,
        },
    }
}

impl From<BackendError> for DaemonError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Denied { .. } => Self::Denied(error),
            error => Self::Backend(error),
        }
    }
}

impl DaemonError {
    /// Whether the user said something that can never work, which has an exit status of its own.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Url(BackendError::Invalid { .. })
                | Self::Mount(MountError::Missing(_) | MountError::NotDirectory(_))
                | Self::Store {
                    source: StoreError::Invalid(_),
                    ..
                }
        )
    }
}
