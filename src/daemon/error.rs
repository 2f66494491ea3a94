//! The errors of a mount, from its start to its end.

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
    /// The store refuses the credentials.
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
        /// The largest difference that is allowed.
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
        /// How long the daemon waited.
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
    /// A read-only mount names a namespace that does not exist: the first mount that writes creates it.
    #[error("namespace {name}: not found in {url}; a read-only mount creates none")]
    NoNamespace {
        /// The namespace.
        name: String,
        /// The store, without secrets.
        url: String,
    },
    /// The time of `--at` has no tree to show: give another.
    #[error("--at {time}: {why}")]
    NotShown {
        /// The time, as the user wrote it.
        time: String,
        /// Why not.
        why: String,
    },
    /// The disk of the cache directory is full: free some space, or use another directory.
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
    /// The control socket cannot be opened.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A signal was received before the mount was made.
    #[error("stopped by a signal")]
    Stopped,
    /// Acknowledged changes are not in the bucket; they are in the cache directory, and the next mount uploads them.
    #[error("not uploaded: {0}; the next mount with this cache directory uploads it")]
    Left(String),
    /// Another writer has the namespace; acknowledged changes that are not in the bucket are in the cache directory, and the
    /// next mount with it makes conflict versions of their contents.
    #[error("another writer has taken the namespace: {0}")]
    Fenced(String),
    /// The process that served the mountpoint before has not ended: wait for its end.
    #[error("mountpoint {path}: process {pid}, which served it before, is still uploading files")]
    Ending {
        /// The mountpoint.
        path: String,
        /// The process.
        pid: u32,
    },
    /// The index, or a task that commits to it, has stopped for good: mount again.
    #[error("the mount had stopped: {why}; {left}")]
    HadStopped {
        /// What stopped.
        why: String,
        /// The changes that stay in the cache directory.
        left: String,
    },
    /// A task of a mount panicked: mount again.
    #[error("{task} failed, see the log; {left}")]
    Panicked {
        /// The task.
        task: &'static str,
        /// The changes that stay in the cache directory.
        left: String,
    },
    /// A part outside the tasks of the mount panicked or ended.
    #[error("{0} failed, see the log")]
    Broken(&'static str),
}

/// Turns the error of opening a namespace into one that names the cache directory, the store or the namespace.
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
    /// Whether the command line can never work, which has its own exit status.
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
