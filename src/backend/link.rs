//! Objects that a local place takes over from the same disk by hard link, instead of a copy.
//!
//! Invariant: a link that was answered survives the machine, and so do the directories it lies in; the bytes must have been
//! on the disk before. A request like every other: counted, bounded by the deadline.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Backend;
use super::error::{BackendError, Class};
use crate::sync::Ordering;

impl Backend {
    /// Tells whether a file of this machine may become an object by [`Self::put_linked`]: the place is local, on the same
    /// disk, and has not refused one.
    #[must_use]
    pub fn links(&self, file: &Path) -> bool {
        let Some(root_guard) = &self.base.root_guard else {
            return false;
        };
        !root_guard.refuses_links.load(Ordering::Relaxed)
            && std::fs::metadata(file).is_ok_and(|found| found.dev() == root_guard.device())
    }

    /// Makes an object of `len` bytes by a hard link to a file, which must not be written to afterwards. The object stays when the
    /// file's name goes.
    ///
    /// # Errors
    /// `Unsupported` if the two are not on one local disk, or it knows no links: nothing was done, the bytes can be put.
    /// `AlreadyExists` if another object is there; `Denied`, `Unavailable`: the object may be there.
    pub async fn put_linked(&self, key: &str, file: &Path, len: u64) -> Result<(), BackendError> {
        self.path(key)?;
        let (Some(place), Some(root_guard)) = (self.local_path(), &self.base.root_guard) else {
            return Err(Class::Unsupported.error(self.name(key), "not a local place"));
        };
        let linked = self.timed(key, async {
            self.check_root().await?;
            let Err(error) = link(file, &place.join(key), root_guard.root()).await else {
                return Ok(());
            };
            let class = class(&error);
            if matches!(class, Class::Unsupported) {
                root_guard.refuses_links.store(true, Ordering::Relaxed);
            }
            Err(class.error(self.name(key), error.to_string()))
        });
        let linked = linked.await;
        self.base.tally.linked(len, &linked);
        linked
    }
}

/// Links `file` as `object`, and syncs every directory from there up to `root`: others may just have made them.
async fn link(file: &Path, object: &Path, root: &Path) -> io::Result<()> {
    let directory = object.parent().unwrap_or(root);
    tokio::fs::create_dir_all(directory).await?;
    match tokio::fs::hard_link(file, object).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // Our own, if an answer was lost.
            let (ours, there) = (
                tokio::fs::metadata(file).await?,
                tokio::fs::metadata(object).await?,
            );
            if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
                return Err(error);
            }
        }
        done => done?,
    }
    let mut directory: Option<PathBuf> = Some(directory.to_owned());
    while let Some(path) = directory.filter(|path| path.starts_with(root)) {
        tokio::fs::File::open(&path).await?.sync_all().await?;
        directory = path.parent().map(Path::to_owned);
    }
    Ok(())
}

/// What a failed link means for the caller.
fn class(error: &io::Error) -> Class {
    use rustix::io::Errno;
    let told = error.raw_os_error().map(Errno::from_raw_os_error);
    match told {
        Some(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => {
            Class::Unsupported
        }
        Some(Errno::EXIST) => Class::AlreadyExists,
        Some(Errno::ACCESS | Errno::ROFS) => Class::Denied,
        _ => Class::Unavailable,
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
