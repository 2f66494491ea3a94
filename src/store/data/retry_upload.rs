//! Retries: an upload, or a read of the index for one, is repeated at growing intervals until it succeeds.
//!
//! Invariant: every attempt uploads the same bytes under the same name. A store that fails gets no second copy of the object,
//! and if only the response of an attempt was lost, the next attempt finds the object there and succeeds.

use std::time::Duration;

use crate::backend::{BackendError, Lane};
use crate::store::data::DataStore;
use crate::store::data::contents::{PendingContent, UploadState};
use crate::store::model::error::StoreError;
use crate::store::model::failpoints::Failpoint;
use crate::sync::Arc;

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why an upload is not retried.
#[derive(Debug)]
pub(crate) enum UploadAborted {
    /// The store would return the same error again.
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

/// Returns how long to wait after `attempts` failed attempts: 1 s, then twice as long each time, at most [`PAUSE_MAX`].
pub(crate) fn pause(attempts: u32) -> Duration {
    let seconds = 1_u64 << attempts.saturating_sub(1).min(5);
    Duration::from_secs(seconds).min(PAUSE_MAX)
}

impl DataStore {
    /// Waits until the rows of a content are published.
    pub(super) async fn wait_uploaded(&self, before: &PendingContent) -> Result<(), StoreError> {
        let mut state = before.upload_state.subscribe();
        tokio::select! {
            done = state.wait_for(|s| matches!(s, UploadState::Uploaded)) => {
                done.map_err(|_| StoreError::Closed)?;
                Ok(())
            }
            // Once the tasks are stopped, no task uploads it any more.
            () = self.core.tasks.stopped() => Err(StoreError::Closed),
        }
    }

    /// Uploads one object with bytes of `contents` by `attempt`, which is repeated until it succeeds. Every failure is recorded
    /// for `contents`.
    ///
    /// # Errors
    /// `Refused` with `AlreadyExists`, `NotFound` or `Unsupported`, which no retry changes; `Ended` when the writer ends.
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
            // While the circuit breaker is open, no pause is needed: the next attempt waits inside the backend for its permit.
            if self.core.backend.lane_failure(Lane::Segments).is_none() {
                self.core.sleep(pause(attempts)).await;
            }
        }
    }

    /// Reads from the index what the rows of a content need, by `read`, which is repeated until the index answers. Every
    /// failure is recorded for the content.
    ///
    /// # Errors
    /// Any error of `read` except `Unavailable`; `Fenced` and `Closed` when the writer ends.
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
