//! Requests for disk space in the cache directory, and the count of full write-back passes that answer them.
//!
//! A write that finds little free space calls `DiskSpace::press`; the write-back task waits in `DiskSpace::pressure`. Passes
//! are numbered from 1, so that a waiting write can tell whether a pass that began after the write has completed.

use tokio::sync::{Notify, watch};

use crate::sync::{AtomicU64, Ordering};

/// Signals about free space on the disk of one namespace's cache directory.
#[derive(Debug, Default)]
pub(crate) struct DiskSpace {
    pressed: Notify,
    /// Number of full write-back passes begun.
    pub(crate) begun: AtomicU64,
    /// Number of the last pass that succeeded.
    pub(crate) ended: watch::Sender<u64>,
}

impl DiskSpace {
    /// Requests disk space: the write-back task is to upload all dirty bytes now.
    pub(crate) fn press(&self) {
        self.pressed.notify_one();
    }

    /// Waits until disk space has been requested since this last returned.
    pub(crate) async fn pressure(&self) {
        self.pressed.notified().await;
    }

    /// Counts the beginning of a full write-back pass and returns the number of that pass.
    pub(crate) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Records that the pass with this number succeeded.
    pub(crate) fn end(&self, pass: u64) {
        self.ended.send_replace(pass);
    }
}
