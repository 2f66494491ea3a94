//! One restoring of a directory at a time.

/// Turns of restoring a directory, one at a time: two could take the same number.
#[derive(Debug)]
pub(crate) struct RestoreLock {
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Entries that come back in one batch.
    pub(crate) entries_max: std::sync::atomic::AtomicUsize,
}

/// The same for the whole life of a namespace, but for tests.
const ENTRIES_MAX: usize = 100_000;

impl Default for RestoreLock {
    fn default() -> Self {
        Self {
            turn: tokio::sync::Mutex::new(()),
            entries_max: ENTRIES_MAX.into(),
        }
    }
}
