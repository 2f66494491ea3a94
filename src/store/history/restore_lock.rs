//! The lock that serialises the undelete of directories.

/// Serialises undeletes of directories: two concurrent ones could restore a directory under the same inode number.
#[derive(Debug)]
pub(crate) struct RestoreLock {
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Largest number of entries that are restored in one batch.
    pub(crate) entries_max: std::sync::atomic::AtomicUsize,
}

/// Default of `RestoreLock::entries_max`; only tests set another value.
const ENTRIES_MAX: usize = 100_000;

impl Default for RestoreLock {
    fn default() -> Self {
        Self {
            turn: tokio::sync::Mutex::new(()),
            entries_max: ENTRIES_MAX.into(),
        }
    }
}
