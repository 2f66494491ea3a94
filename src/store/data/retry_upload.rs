//! Attempts that are made again until they succeed: the same object, at growing intervals.
//!
//! Invariant: an object that is uploaded keeps its name and its bytes over all attempts, so that a store that fails gets no
//! second copy, and an answer that was lost is found out.

use std::time::Duration;

use crate::backend::{BackendError, Lane};
use crate::store::data::DataStore;
use crate::store::data::extent_map::PendingContent;
use crate::store::model::error::StoreError;
use crate::store::model::failpoints::Failpoint;
use crate::sync::Arc;

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why an attempt is not made again.
#[derive(Debug)]
pub(crate) enum UploadAborted {
    /// The store's answer would be the same.
    Refused(BackendError),
    /// The writer has ended.
    Ended(StoreError),
}

impl From<UploadAborted> for StoreError {
    fn from(undone: UploadAborted) -> Self {
        match undone {
            UploadAborted::Refused(error) => error.into(),
            UploadAborted::Ended(error) => error,
        }
    }
}

/// How long to wait after so many failed attempts.
pub(crate) fn pause(attempts: u32) -> Duration {
    let seconds = 1_u64 << attempts.saturating_sub(1).min(5);
    Duration::from_secs(seconds).min(PAUSE_MAX)
}

impl DataStore {
    /// Brings one object of `contents` to the bucket, however often it takes; every failure is told.
    pub(crate) async fn persist<F>(
        &self,
        contents: &[Arc<PendingContent>],
        attempt: impl Fn() -> F + Send + Sync,
    ) -> Result<(), UploadAborted>
    where
        F: Future<Output = Result<(), BackendError>> + Send,
    {
        let mut attempts = 0;
        loop {
            let check = || self.core.health.check();
            let failpoints = self.core.health.failpoints.pass(Failpoint::Upload, check);
            failpoints.await.map_err(UploadAborted::Ended)?;
            let outcome = tokio::select! {
                outcome = attempt() => outcome,
                () = self.core.tasks.stopped() => return Err(UploadAborted::Ended(StoreError::Closed)),
            };
            let error = match outcome {
                Ok(()) => {
                    self.core.health.moved();
                    return Ok(());
                }
                Err(
                    error @ (BackendError::AlreadyExists { .. }
                    | BackendError::NotFound { .. }
                    | BackendError::Unsupported { .. }),
                ) => return Err(UploadAborted::Refused(error)),
                Err(error) => error,
            };
            self.upload_failed(contents, &error.into());
            attempts += 1;
            // Else the next attempt is held back until it is its turn.
            if self.core.backend.trouble(Lane::Segments).is_none() {
                self.core.sleep(pause(attempts)).await;
            }
        }
    }

    /// Reads what the rows of a content need, however often it takes.
    pub(crate) async fn again<T, F>(
        &self,
        pending: &Arc<PendingContent>,
        read: impl Fn() -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        T: Send,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut attempts = 0;
        loop {
            let error = match read().await {
                Err(error @ StoreError::Unavailable(_)) => error,
                outcome => return outcome,
            };
            self.upload_failed(std::slice::from_ref(pending), &error);
            self.core.health.check()?;
            attempts += 1;
            self.core.sleep(pause(attempts)).await;
            if self.core.tasks.is_stopped() {
                return Err(StoreError::Closed);
            }
        }
    }
}
