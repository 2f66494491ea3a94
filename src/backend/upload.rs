//! Uploads behind the circuit breakers, and the state of the breakers.
//!
//! A trial request is sent once, whatever `--retries` says: [`super::circuit_breaker`] decides when the next one is sent.

use super::Backend;
use super::base::{Tries, is_store_failure, prefixed};
use super::circuit_breaker::{Lane, LaneFailure, RequestMode, RequestPermit};
use super::error::BackendError;
use super::location::StoreKind;
use bytes::Bytes;

/// The codes of S3 for credentials that cannot become valid again.
const INVALID_CREDENTIALS: [&str; 3] = ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken"];

impl Backend {
    /// As [`Backend::put_new`], after the breaker of `lane` has admitted the request. The wait for it has no limit.
    ///
    /// # Errors
    /// As [`Backend::put_new`].
    pub async fn upload(&self, lane: Lane, key: &str, bytes: Bytes) -> Result<(), BackendError> {
        let permit = self.base.acquire(lane).await;
        let len = bytes.len() as u64;
        let uploaded = self.with_mode(permit.mode).put_new(key, bytes).await;
        permit.report(&uploaded, len);
        uploaded
    }

    /// As [`Backend::put_linked`], after the breaker of `lane` has admitted the request. The wait for it has no limit.
    ///
    /// # Errors
    /// As [`Backend::put_linked`].
    pub async fn upload_linked(
        &self,
        lane: Lane,
        key: &str,
        file: &std::path::Path,
        len: u64,
    ) -> Result<(), BackendError> {
        let permit = self.base.acquire(lane).await;
        let linked = self.put_linked(key, file, len).await;
        permit.report(&linked, len);
        linked
    }

    /// Lists the lanes whose breakers are open, with the last error of each.
    #[must_use]
    pub fn lane_failures(&self) -> Vec<LaneFailure> {
        self.base.breaker.lane_failures()
    }

    /// Tells why the breaker of `lane` is open; `None` while it is closed.
    #[must_use]
    pub fn lane_failure(&self, lane: Lane) -> Option<LaneFailure> {
        self.lane_failures()
            .into_iter()
            .find(|failure| failure.lane == lane)
    }

    /// Tells whether no retry can succeed: the store says that the credentials have expired or are invalid, and they are
    /// variables of the environment, which cannot change while this process runs.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let StoreKind::Cloud(cloud, _) = &self.base.location.kind else {
            return false;
        };
        let over = |failure: &LaneFailure| match &failure.error {
            BackendError::Denied { reason, .. } => {
                INVALID_CREDENTIALS.iter().any(|code| reason.contains(code))
            }
            _ => false,
        };
        cloud.has_fixed_credentials() && self.lane_failures().iter().any(over)
    }

    /// Counts the failures of requests behind a circuit breaker and of health checks, since the store was opened.
    #[must_use]
    pub fn failed_requests(&self) -> u64 {
        self.base.breaker.failed_requests()
    }

    /// The same place, with the retries that `mode` allows.
    fn with_mode(&self, mode: RequestMode) -> Self {
        match mode {
            RequestMode::Normal => self.clone(),
            RequestMode::Trial => Self {
                store: prefixed(self.base.once().clone(), &self.prefix),
                tries: Tries::One,
                ..self.clone()
            },
        }
    }
}

impl RequestPermit {
    /// Reports the outcome of a request that had `bytes` bytes to send.
    fn report<T>(self, outcome: &Result<T, BackendError>, bytes: u64) {
        match outcome {
            Err(error) if is_store_failure(error) => self.failed(error, bytes),
            _ => self.succeeded(),
        }
    }
}
