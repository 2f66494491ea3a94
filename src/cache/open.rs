//! A limited number of open files: there may be more staging files than the process may have open.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;

use lru::LruCache;
use rustix::process::{Resource, getrlimit};

use crate::sync::{Arc, Mutex, lock};

/// The divisor of the process's limit of open files: sockets, the journal and a local bucket need the rest.
const PART: u64 = 8;

/// The minimal number of open files.
const LEAST: usize = 16;

/// The maximal number of open files: to open a file again takes microseconds.
const MOST: usize = 4096;

/// The most recently used files, by their ids. The others are closed, and opened again at their next use.
///
/// The lock is held for a few instructions, never over a system call.
#[derive(Debug)]
pub(super) struct OpenFiles(Mutex<LruCache<u64, Arc<File>>>);

impl OpenFiles {
    /// A table whose size follows from the process's limit of open files, `RLIMIT_NOFILE` of getrlimit(2).
    pub(super) fn within_limit() -> Self {
        let part = getrlimit(Resource::Nofile)
            .current
            .map(|limit| limit / PART);
        let part = part.and_then(|part| usize::try_from(part).ok());
        let most = part.unwrap_or(MOST).clamp(LEAST, MOST);
        Self::at_most(NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN))
    }

    /// A table of at most `count` open files.
    pub(super) fn at_most(count: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::new(count)))
    }

    /// Returns the file with this id; opens it with `open` if it is closed.
    pub(super) fn get(
        &self,
        id: u64,
        open: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Arc<File>> {
        if let Some(file) = lock(&self.0).get(&id) {
            return Ok(Arc::clone(file));
        }
        Ok(self.keep(id, open()?))
    }

    /// Adds a file that was just opened.
    pub(super) fn keep(&self, id: u64, file: File) -> Arc<File> {
        let file = Arc::new(file);
        // The evicted file is dropped outside the lock; it is closed when its last user drops it.
        let _another = lock(&self.0).push(id, Arc::clone(&file));
        file
    }

    /// Closes a file, if it is open.
    pub(super) fn close(&self, id: u64) {
        let _closed = lock(&self.0).pop(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_recently_used_files_stay_open() {
        let files = OpenFiles::at_most(NonZeroUsize::new(2).unwrap());
        let opened = std::cell::RefCell::new(Vec::new());
        let get = |id: u64| {
            let file = files.get(id, || {
                opened.borrow_mut().push(id);
                File::open("/dev/null")
            });
            file.unwrap()
        };
        let first = get(1);
        for id in [2, 1, 3, 1] {
            drop(get(id));
        }
        assert!(Arc::ptr_eq(&first, &get(1)));
        drop(get(2));
        files.close(1);
        drop(get(1));
        assert_eq!(*opened.borrow(), [1, 2, 3, 2, 1]);
    }

    #[test]
    fn a_file_that_could_not_be_opened_is_opened_at_its_next_use() {
        let files = OpenFiles::within_limit();
        let missing = files.get(1, || Err(io::ErrorKind::NotFound.into()));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(files.get(1, || File::open("/dev/null")).is_ok());
    }
}
