//! Who asks for room on the cache directory's disk, and how often everything has been written back since.

use tokio::sync::{Notify, watch};

use crate::sync::{AtomicU64, Ordering};

/// Room on the disk of one namespace's cache directory.
#[derive(Debug, Default)]
pub(crate) struct DiskSpace {
    pressed: Notify,
    /// How often everything was begun to be brought to the bucket.
    pub(crate) begun: AtomicU64,
    /// The last of these that ended well.
    pub(crate) ended: watch::Sender<u64>,
}

impl DiskSpace {
    /// Asks for room: what is written is to go to the bucket now.
    pub(crate) fn press(&self) {
        self.pressed.notify_one();
    }

    /// Waits until room has been asked for since the last time this returned.
    pub(crate) async fn pressure(&self) {
        self.pressed.notified().await;
    }

    /// Everything is being brought to the bucket from here on; the number of this time.
    pub(crate) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// It is there.
    pub(crate) fn end(&self, time: u64) {
        self.ended.send_replace(time);
    }
}
