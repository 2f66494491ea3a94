//! Keeps hold of the directory of a local backend, so that a missing disk is noticed.
//!
//! Invariant: below an unmounted disk there is another directory, or none; it is neither believed nor filled.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sync::AtomicBool;

/// A directory, known by device and inode.
#[derive(Debug)]
pub(super) struct RootGuard {
    root: PathBuf,
    identity: (u64, u64),
    /// It lies on a disk that does not link, or not from where it was asked to.
    pub(super) refuses_links: AtomicBool,
    // Held open because some file systems give an inode another number once no process has it open.
    _pinned: File,
}

impl RootGuard {
    /// Remembers the directory that is `root` now.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let pinned = File::open(root)?;
        Ok(Self {
            root: root.to_owned(),
            identity: identity(&pinned.metadata()?),
            refuses_links: AtomicBool::new(false),
            _pinned: pinned,
        })
    }

    /// Where the directory is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The device it lies on.
    pub(super) fn device(&self) -> u64 {
        self.identity.0
    }

    /// Makes sure that `root` is still that directory; says in one line what is there instead.
    pub(super) async fn verify(&self) -> Result<(), String> {
        match tokio::fs::metadata(&self.root).await {
            Ok(found) if identity(&found) == self.identity => Ok(()),
            Ok(_) => Err("another directory took its place".to_owned()),
            Err(e) => Err(format!("the directory is gone: {e}")),
        }
    }
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}
