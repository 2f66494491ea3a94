//! The id of a cache directory, and the epochs that it wrote: a writer that opens a namespace recognizes its own last opening by them.

use crate::store::model::error::StoreError;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const NAME: &str = "writer";

/// How many epochs are kept. The object in the bucket may have the last one, or the one before it if the machine stopped between the two writes.
const EPOCHS: usize = 2;

/// The file `writer` in the directory of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WriterIdentity {
    /// The id of the cache directory.
    pub(crate) id: Uuid,
    /// The epochs of its last writers, newest first.
    epochs: Vec<u64>,
}

impl WriterIdentity {
    /// Makes the identity of a new cache directory.
    pub(crate) fn new(id: Uuid) -> Self {
        Self {
            id,
            epochs: Vec::new(),
        }
    }

    /// Reads the file in `dir`; `None` if there is none, or one that cannot be used.
    ///
    /// # Errors
    /// `Unavailable` if the disk fails.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, StoreError> {
        match std::fs::read(path(dir)) {
            // A file that a crash left empty costs a wait, like a new directory.
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(dir, &error)),
        }
    }

    /// Writes the file in `dir`, which exists then as a whole or as before.
    ///
    /// # Errors
    /// `NoSpace`, `Unavailable` if the disk fails.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        // proof: the identity is plain data with string keys.
        let text = serde_json::to_vec(self).expect("an identity is plain data");
        let written = || -> std::io::Result<()> {
            let new = dir.join(format!("{NAME}.new"));
            let mut options = File::options();
            let file = options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = file.open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, path(dir))?;
            File::open(dir)?.sync_all()
        };
        written().map_err(|error| failed(dir, &error))
    }

    /// Notes that a writer with this cache directory has the epoch.
    pub(crate) fn note(&mut self, epoch: u64) {
        self.epochs.insert(0, epoch);
        self.epochs.truncate(EPOCHS);
    }

    /// Returns the newest epoch; 0 before the first.
    pub(crate) fn epoch(&self) -> u64 {
        self.epochs.first().copied().unwrap_or(0)
    }

    /// Tells whether a writer with this id and epoch worked with this cache directory. The caller holds the directory's lock, so it has ended.
    pub(crate) fn is_own(&self, id: Uuid, epoch: u64) -> bool {
        let is_first = epoch == 0 && self.epochs.is_empty();
        self.id == id && (is_first || self.epochs.contains(&epoch))
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

fn failed(dir: &Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::NoSpace,
        _ => StoreError::Unavailable(format!("{}: {error}", path(dir).display()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_kept_and_knows_its_last_two_epochs() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(WriterIdentity::read(dir.path()).unwrap(), None);
        let id = Uuid::from_u128(7);
        let mut identity = WriterIdentity::new(id);
        assert!(identity.is_own(id, 0) && !identity.is_own(Uuid::from_u128(8), 0));
        for epoch in [3, 5, 6] {
            identity.note(epoch);
        }
        identity.write(dir.path()).unwrap();
        let read = WriterIdentity::read(dir.path()).unwrap().unwrap();
        assert_eq!((read.epoch(), &read), (6, &identity));
        assert!(read.is_own(id, 6) && read.is_own(id, 5));
        assert!(!read.is_own(id, 3) && !read.is_own(id, 7));
        std::fs::write(dir.path().join(NAME), b"{").unwrap();
        assert_eq!(WriterIdentity::read(dir.path()).unwrap(), None);
    }
}
