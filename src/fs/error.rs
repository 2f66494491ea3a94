//! The errors of a call, in POSIX words, and the only table of errno numbers.
//!
//! Invariant: every error of the store becomes an [`FsError`] here and nowhere else, and every [`FsError`] has one errno.

use crate::store::StoreError;

/// The result of a file system call.
pub type FsResult<T> = Result<T, FsError>;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory is not allowed here.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// The operation is refused for every caller, also for a privileged one.
    #[error("operation not permitted: {0}")]
    NotPermitted(&'static str),
    /// A hold or a label protects what would be removed or changed.
    #[error("operation not permitted: {0}")]
    Held(String),
    /// The caller lacks the permission for this operation.
    #[error("permission denied")]
    AccessDenied,
    /// The past, and a mount without a writer, never change.
    #[error("read-only file system")]
    ReadOnly,
    /// A component is longer than 255 bytes.
    #[error("file name too long")]
    NameTooLong,
    /// An argument is not valid.
    #[error("invalid argument: {0}")]
    Invalid(String),
    /// A directory would become its own descendant.
    #[error("cannot move a directory into itself")]
    IntoItself,
    /// The handle is unknown or not open for this.
    #[error("bad file handle")]
    BadHandle,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// An extended attribute's value is too big.
    #[error("argument too big")]
    ArgumentTooBig,
    /// The call is supported, but not in this form.
    #[error("operation not supported")]
    NotSupported,
    /// No data or hole at or after the offset.
    #[error("no such offset")]
    NoSuchOffset,
    /// Local disk or dirty space is full.
    #[error("no space left on device")]
    NoSpace,
    /// Beyond the largest file.
    #[error("file too large")]
    TooLarge,
    /// The inode has as many names as it can.
    #[error("too many links")]
    TooManyLinks,
    /// The inode of the number was removed.
    #[error("stale file handle")]
    Stale,
    /// In use in a way that forbids this.
    #[error("resource busy: {0}")]
    Busy(String),
    /// The file is a program that runs.
    #[error("text file busy")]
    ProgramRuns,
    /// The bucket cannot be reached or refuses.
    #[error("the bucket is not available: {0}")]
    Unavailable(String),
    /// Another writer has taken the namespace over.
    #[error("fenced: another writer has the namespace")]
    Fenced,
    /// The writer's lease is over and not yet renewed: another process may have taken the namespace.
    #[error("the lease of the namespace is over")]
    LeaseOver,
    /// Bytes do not match their checksum.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The namespace is closed.
    #[error("the namespace is closed")]
    Closed,
    /// A task of the mount failed; nothing is acknowledged any more.
    #[error("the mount has failed: {0}")]
    Poisoned(String),
}

impl FsError {
    /// The errno number a caller gets, positive.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::Exists => libc::EEXIST,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::NotPermitted(_) | Self::Held(_) => libc::EPERM,
            Self::AccessDenied => libc::EACCES,
            Self::ReadOnly => libc::EROFS,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::Invalid(_) | Self::IntoItself => libc::EINVAL,
            Self::BadHandle => libc::EBADF,
            Self::NoAttribute => libc::ENODATA,
            Self::ArgumentTooBig => libc::E2BIG,
            Self::NotSupported => libc::EOPNOTSUPP,
            Self::NoSuchOffset => libc::ENXIO,
            Self::NoSpace => libc::ENOSPC,
            Self::TooLarge => libc::EFBIG,
            Self::TooManyLinks => libc::EMLINK,
            Self::Stale => libc::ESTALE,
            Self::Busy(_) => libc::EBUSY,
            Self::ProgramRuns => libc::ETXTBSY,
            // POSIX has no error for these; the log and `status` tell which one it was.
            Self::Unavailable(_)
            | Self::Fenced
            | Self::LeaseOver
            | Self::Corrupt(_)
            | Self::Closed
            | Self::Poisoned(_) => libc::EIO,
        }
    }

    /// The level to log it with: debug for what programs cause every day, error for what an operator must see.
    #[must_use]
    pub fn level(&self) -> tracing::Level {
        match self {
            Self::NoSpace | Self::TooLarge | Self::Stale | Self::Busy(_) | Self::Held(_) => {
                tracing::Level::WARN
            }
            Self::Unavailable(_) | Self::Corrupt(_) | Self::Closed | Self::Poisoned(_) => {
                tracing::Level::ERROR
            }
            // The store has said it, once; it holds for every call from then on.
            Self::Fenced
            | Self::LeaseOver
            | Self::NotFound
            | Self::Exists
            | Self::NotDirectory
            | Self::IsDirectory
            | Self::NotEmpty
            | Self::NotPermitted(_)
            | Self::AccessDenied
            | Self::ReadOnly
            | Self::NameTooLong
            | Self::Invalid(_)
            | Self::IntoItself
            | Self::BadHandle
            | Self::NoAttribute
            | Self::ArgumentTooBig
            | Self::NotSupported
            | Self::NoSuchOffset
            | Self::ProgramRuns
            | Self::TooManyLinks => tracing::Level::DEBUG,
        }
    }

    /// The error for a call that names a number and no path: an inode that was removed is stale, and the kernel looks it up again.
    pub(crate) fn by_number(self) -> Self {
        match self {
            Self::NotFound => Self::Stale,
            other => other,
        }
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound,
            StoreError::Exists => Self::Exists,
            StoreError::NotDirectory => Self::NotDirectory,
            StoreError::IsDirectory => Self::IsDirectory,
            StoreError::NotEmpty => Self::NotEmpty,
            StoreError::Invalid(why) => Self::Invalid(why),
            StoreError::IntoItself => Self::IntoItself,
            StoreError::TooManyLinks => Self::TooManyLinks,
            StoreError::TooLarge => Self::TooLarge,
            StoreError::NoSpace | StoreError::LocalDisk(_) => Self::NoSpace,
            StoreError::NoAttribute => Self::NoAttribute,
            StoreError::Stale => Self::Stale,
            StoreError::Busy(what) | StoreError::Clock(what) => Self::Busy(what),
            StoreError::Held(what) => Self::Held(what),
            StoreError::ProgramRuns(_) => Self::ProgramRuns,
            StoreError::ReadOnly => Self::ReadOnly,
            StoreError::Unavailable(why) => Self::Unavailable(why.to_string()),
            StoreError::Fenced => Self::Fenced,
            StoreError::Corrupt(what) | StoreError::Damaged(what) => Self::Corrupt(what),
            StoreError::Closed => Self::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyday_errors_are_quiet_and_lost_data_is_loud() {
        assert_eq!(FsError::NotFound.level(), tracing::Level::DEBUG);
        let fenced = FsError::from(StoreError::Fenced);
        assert_eq!(
            (fenced.errno(), fenced.level()),
            (libc::EIO, tracing::Level::DEBUG)
        );
        for loud in [StoreError::Closed, StoreError::Corrupt(String::new())] {
            let error = FsError::from(loud);
            assert_eq!(
                (error.errno(), error.level()),
                (libc::EIO, tracing::Level::ERROR)
            );
        }
    }

    #[test]
    fn a_missing_number_is_stale_and_other_errors_stay() {
        assert_eq!(FsError::NotFound.by_number().errno(), libc::ESTALE);
        assert_eq!(FsError::Exists.by_number().errno(), libc::EEXIST);
    }
}
