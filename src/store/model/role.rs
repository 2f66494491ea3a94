//! The role of a process in a namespace: its writer, or a follower of the writer.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::meta::{MetaError, SlateFollower};
use crate::store::model::error::StoreError;
use crate::store::model::version::Timestamp;
use crate::sync::Arc;

/// Polls to wait for: one may be running since before the call and miss a newer state.
const LOOKS: u32 = 3;

/// The role of a process in a namespace.
#[derive(Debug)]
pub(crate) enum Role {
    /// The only process that writes.
    Writer,
    /// Reads what the writer, another process, commits.
    Follower(Follower),
}

/// The index as a follower reads it, and the low watermark of the newest state.
#[derive(Debug)]
pub(crate) struct Follower {
    index: Arc<SlateFollower>,
    low_watermark: AtomicU64,
}

impl Follower {
    /// Follows `index`, whose history below `low_watermark` is final.
    pub(crate) fn new(index: Arc<SlateFollower>, low_watermark: u64) -> Self {
        Self {
            index,
            low_watermark: AtomicU64::new(low_watermark),
        }
    }

    /// Raises the low watermark to that of a newer state of the index.
    pub(crate) fn raise(&self, low_watermark: u64) {
        self.low_watermark
            .fetch_max(low_watermark, Ordering::SeqCst);
    }

    /// Returns the oldest timestamp that is not final.
    pub(crate) fn low_watermark(&self) -> Timestamp {
        Timestamp(self.low_watermark.load(Ordering::SeqCst))
    }

    /// Returns the newest timestamp that is final.
    pub(crate) fn newest(&self) -> Timestamp {
        Timestamp(self.low_watermark().0.saturating_sub(1))
    }

    /// Waits until the index has been polled for a newer state.
    pub(crate) async fn look_again(&self) {
        for _ in 0..LOOKS {
            self.index.changed().await;
        }
    }

    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        match self.index.close().await {
            Ok(()) | Err(MetaError::Closed(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
