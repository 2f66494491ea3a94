//! Objects of a local place that are created by a hard link to a file on the same disk, instead of a copy.
//!
//! Invariant: a link that was acknowledged survives a crash of the machine, and so do its directories, provided the caller has
//! synced the bytes before. Links are counted and bounded by the deadline like every request.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Backend;
use super::error::{BackendError, Class};
use crate::sync::Ordering;

impl Backend {
    /// Tells whether [`Self::put_linked`] may be possible for a file: the place is local, on the same disk, and has not refused
    /// a link yet.
    #[must_use]
    pub fn links(&self, file: &Path) -> bool {
        let Some(root_guard) = &self.base.root_guard else {
            return false;
        };
        !root_guard.refuses_links.load(Ordering::Relaxed)
            && std::fs::metadata(file).is_ok_and(|found| found.dev() == root_guard.device())
    }

    /// Creates an object of `len` bytes by a hard link to a file, which must not be written to afterwards. The object stays
    /// when the name of the file is removed.
    ///
    /// # Errors
    /// `Unsupported` if the two are not on one local disk, or the disk has no hard links; nothing was changed then.
    /// `AlreadyExists` if there is another object. `Denied`, `Unavailable`: the object may exist.
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

/// Links `file` as `object`, and syncs every directory from there up to `root`: another writer may just have created them.
async fn link(file: &Path, object: &Path, root: &Path) -> io::Result<()> {
    let directory = object.parent().unwrap_or(root);
    tokio::fs::create_dir_all(directory).await?;
    match tokio::fs::hard_link(file, object).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // It may be this request's own link, whose answer was lost.
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

/// Classifies the error of a hard link.
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
