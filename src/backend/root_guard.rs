//! The guard of a local backend's root directory, which detects that its disk was unmounted.
//!
//! Invariant: when the disk is not mounted, its mount point is another directory or missing; nothing is read from it or
//! written to it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sync::AtomicBool;

/// What tells a directory from another one that is at the same path later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DirectoryIdentity {
    device: u64,
    ino: u64,
}

/// A directory, identified by its device and inode number.
#[derive(Debug)]
pub(super) struct RootGuard {
    root: PathBuf,
    identity: DirectoryIdentity,
    /// Set after the disk has refused a hard link.
    pub(super) refuses_links: AtomicBool,
    // Kept open because some file systems change the number of an inode that no process has open.
    _pinned: File,
}

impl RootGuard {
    /// Guards the directory that is at `root` now.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let pinned = File::open(root)?;
        Ok(Self {
            root: root.to_owned(),
            identity: identity(&pinned.metadata()?),
            refuses_links: AtomicBool::new(false),
            _pinned: pinned,
        })
    }

    /// The path of the directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The device of the directory.
    pub(super) fn device(&self) -> u64 {
        self.identity.device
    }

    /// Checks that `root` is still that directory.
    ///
    /// # Errors
    /// Says in one line what was found instead.
    pub(super) async fn verify(&self) -> Result<(), String> {
        match tokio::fs::metadata(&self.root).await {
            Ok(found) if identity(&found) == self.identity => Ok(()),
            Ok(_) => Err("another directory took its place".to_owned()),
            Err(e) => Err(format!("the directory is gone: {e}")),
        }
    }
}

fn identity(found: &Metadata) -> DirectoryIdentity {
    DirectoryIdentity {
        device: found.dev(),
        ino: found.ino(),
    }
}
