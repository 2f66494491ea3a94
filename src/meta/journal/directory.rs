//! The directory of a journal: this user's alone, and locked by one process.

use super::error::JournalError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The name of the file in the directory whose flock(2) is the journal's lock.
pub(super) const LOCK: &str = "LOCK";

/// Creates the directory and locks it.
pub(super) fn lock_directory(dir: &Path) -> Result<File, JournalError> {
    make_private(dir)?;
    let path = dir.join(LOCK);
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| JournalError::of(&path, error))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(JournalError::Busy(dir.to_path_buf())),
        Err(error) => Err(JournalError::of(&path, error.into())),
    }
}

/// Creates a directory for this user alone, or checks that it is this user's and takes the rights of others away. Another user may have made
/// it before, in a place where every user may.
pub(super) fn make_private(dir: &Path) -> Result<(), JournalError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let owned = made.and_then(|()| {
        let found = std::fs::symlink_metadata(dir)?;
        let (owner, me) = (found.uid(), rustix::process::geteuid().as_raw());
        if !found.is_dir() || owner != me {
            let text = format!(
                "it is no directory of user {me}, but belongs to user {owner}: name another cache directory, or change the owner"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if found.mode() & 0o077 != 0 {
            std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        }
        Ok(())
    });
    owned.map_err(|error| JournalError::of(dir, error))
}
