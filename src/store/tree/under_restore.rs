//! Which directory is being restored in steps: nothing at or below it changes until it is done, but by the restore.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::model::version::Ino;

/// The directory that is being restored in steps, if one is.
#[derive(Debug, Default)]
pub(crate) struct UnderRestore {
    /// Its number; 0: none.
    directory: AtomicU64,
}

impl UnderRestore {
    pub(crate) fn directory(&self) -> Option<Ino> {
        let directory = self.directory.load(Ordering::SeqCst);
        (directory != 0).then_some(Ino(directory))
    }

    /// Refuses changes at and below a directory, also those of calls that have no lock yet.
    pub(crate) fn set(&self, directory: Ino) {
        self.directory.store(directory.0, Ordering::SeqCst);
    }

    /// Permits changes again.
    pub(crate) fn clear(&self) {
        self.directory.store(0, Ordering::SeqCst);
    }
}
