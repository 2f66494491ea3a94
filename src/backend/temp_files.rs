//! Removes the temporary files of unfinished writes to a `file://` place. The library writes an object under its name and
//! `#NUMBER`, and renames the file when it is complete; a crash leaves the temporary file.
//!
//! Temporary files are never listed or read; they only take space. They are searched only where a crash can leave them, so
//! that a store with many objects is not walked.

use super::Backend;
use super::error::BackendError;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// The age from which a temporary file is removed. The request that wrote it ended after a minute at most.
const TEMP_FILE_AGE: Duration = Duration::from_secs(3600);

/// Where temporary files may be below a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TempFileLocation {
    /// In the directory of this prefix, not below it.
    Directory(&'static str),
    /// In the directory of this prefix and in all directories below it.
    Tree(&'static str),
    /// Below this prefix, where keys ascend: all directories of the given number of levels, and below those the last two
    /// directories of each level. Two, because several writes are under way at the same time.
    Newest(&'static str, usize),
}

/// Which directories inside a directory are visited.
#[derive(Debug, Clone, Copy)]
enum Visit {
    None,
    All,
    /// All for this number of levels, then the last two of each level.
    Last(usize),
}

impl Backend {
    /// Removes temporary files that are older than an hour, and returns their number. `now_ns` is the current time in
    /// nanoseconds since 1970-01-01 UTC. Does nothing on a store that is not a local directory.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; the next call removes the rest.
    pub async fn sweep_temp_files(
        &self,
        now_ns: u64,
        locations: &[TempFileLocation],
    ) -> Result<usize, BackendError> {
        let Some(root) = self.local_path() else {
            return Ok(0);
        };
        let before = Duration::from_nanos(now_ns).saturating_sub(TEMP_FILE_AGE);
        let mut removed = 0;
        for location in locations {
            let (prefix, visit) = match *location {
                TempFileLocation::Directory(prefix) => (prefix, Visit::None),
                TempFileLocation::Tree(prefix) => (prefix, Visit::All),
                TempFileLocation::Newest(prefix, levels) => (prefix, Visit::Last(levels)),
            };
            let mut open = vec![(root.join(prefix), visit)];
            while let Some((directory, visit)) = open.pop() {
                let swept = sweep(&directory, before).await.map_err(|e| {
                    let error = object_store::Error::Generic {
                        store: "LocalFileSystem",
                        source: Box::new(e),
                    };
                    BackendError::from_store(directory.display().to_string(), &error)
                })?;
                removed += swept.removed;
                open.extend(visit.inside(swept.directories));
            }
        }
        Ok(removed)
    }
}

impl Visit {
    /// Chooses which of the directories inside a directory to visit, and what to visit inside those.
    fn inside(self, mut directories: Vec<PathBuf>) -> Vec<(PathBuf, Self)> {
        let (next, kept) = match self {
            Self::None => (self, 0),
            Self::All => (self, directories.len()),
            Self::Last(0) => (self, 2),
            Self::Last(levels) => (Self::Last(levels - 1), directories.len()),
        };
        directories.sort_unstable();
        let from = directories.len().saturating_sub(kept);
        directories.drain(..from);
        directories.into_iter().map(|found| (found, next)).collect()
    }
}

/// What was found in one directory.
#[derive(Default)]
struct Swept {
    removed: usize,
    directories: Vec<PathBuf>,
}

/// Removes from one directory the files of unfinished writes that were last written `before`, which is since 1970.
async fn sweep(directory: &Path, before: Duration) -> io::Result<Swept> {
    let mut swept = Swept::default();
    let mut entries = match tokio::fs::read_dir(directory).await {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(swept),
        Err(e) => return Err(e),
    };
    while let Some(entry) = entries.next_entry().await? {
        let kind = entry.file_type().await?;
        if kind.is_dir() {
            swept.directories.push(entry.path());
        } else if kind.is_file() && entry.file_name().to_str().is_some_and(is_unfinished) {
            match remove_old(&entry, before).await {
                Ok(old) => swept.removed += usize::from(old),
                // Its writer has just finished.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(swept)
}

/// Removes a file that was last written before `before`; tells whether it did.
async fn remove_old(entry: &tokio::fs::DirEntry, before: Duration) -> io::Result<bool> {
    let written = entry.metadata().await?.modified()?;
    // A date before 1970 counts as 1970.
    let written = written.duration_since(UNIX_EPOCH).unwrap_or_default();
    if written >= before {
        return Ok(false);
    }
    tokio::fs::remove_file(entry.path()).await?;
    Ok(true)
}

/// Tells whether a name is that of a temporary file. The library omits such names from listings by the same rule.
fn is_unfinished(name: &str) -> bool {
    name.split_once('#').is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}
