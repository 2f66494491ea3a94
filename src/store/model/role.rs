//! What a process is to a namespace: its writer, or a follower of the writer.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::meta::{MetaError, SlateFollower};
use crate::store::model::error::StoreError;
use crate::store::model::version::Timestamp;
use crate::sync::Arc;

/// The one that is under way may have begun too early, and each takes a while.
const LOOKS: u32 = 3;

/// What a process is to a namespace.
#[derive(Debug)]
pub(crate) enum Role {
    /// It alone writes.
    Writer,
    /// It shows what another one writes.
    Follower(Follower),
}

/// What a follower knows of the writer.
#[derive(Debug)]
pub(crate) struct Follower {
    index: Arc<SlateFollower>,
    low_watermark: AtomicU64,
}

impl Follower {
    /// Follows `index`, final below `low_watermark`.
    pub(crate) fn new(index: Arc<SlateFollower>, low_watermark: u64) -> Self {
        Self {
            index,
            low_watermark: AtomicU64::new(low_watermark),
        }
    }

    /// Takes note of a newer state of the index.
    pub(crate) fn raise(&self, low_watermark: u64) {
        self.low_watermark
            .fetch_max(low_watermark, Ordering::SeqCst);
    }

    /// The oldest timestamp that is not final.
    pub(crate) fn low_watermark(&self) -> Timestamp {
        Timestamp(self.low_watermark.load(Ordering::SeqCst))
    }

    /// The newest timestamp that is final.
    pub(crate) fn newest(&self) -> Timestamp {
        Timestamp(self.low_watermark().0.saturating_sub(1))
    }

    /// Waits until the bucket has been asked for a newer state, if it answers.
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
