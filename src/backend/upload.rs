//! Requests that are held back while the store fails: what the pipeline uploads, and everything of the index.
//!
//! One that goes out to try whether the store works again is sent once, whatever `--retries` says: the pauses are those of
//! [`super::circuit_breaker`].

use super::Backend;
use super::base::{Tries, is_trouble, prefixed};
use super::circuit_breaker::{Lane, RequestMode, RequestPermit, Trouble};
use super::error::BackendError;
use super::location::StoreKind;
use bytes::Bytes;

/// What S3 says of credentials that will not be valid again by themselves.
const OVER: [&str; 3] = ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken"];

impl Backend {
    /// As [`Backend::put_new`], once the store works, or when it is this request's permit to find out. The wait has no limit.
    ///
    /// # Errors
    /// As [`Backend::put_new`].
    pub async fn upload(&self, lane: Lane, key: &str, bytes: Bytes) -> Result<(), BackendError> {
        let permit = self.base.acquire(lane).await;
        let len = bytes.len() as u64;
        let uploaded = self.by(permit.mode).put_new(key, bytes).await;
        permit.ended(&uploaded, len);
        uploaded
    }

    /// As [`Backend::put_linked`], in the same mode.
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
        permit.ended(&linked, len);
        linked
    }

    /// The kinds of requests that fail at present and are held back, with the last reason of each.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.base.breaker.troubles()
    }

    /// Why requests of `lane` are held back, if they are.
    #[must_use]
    pub fn trouble(&self, lane: Lane) -> Option<Trouble> {
        self.troubles()
            .into_iter()
            .find(|trouble| trouble.lane == lane)
    }

    /// Whether requests fail for a reason that no retry mends: the credentials are those this process was started with, and the
    /// store says that they are over.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let StoreKind::Cloud(cloud, _) = &self.base.location.kind else {
            return false;
        };
        let over = |trouble: &Trouble| match &trouble.error {
            BackendError::Denied { reason, .. } => OVER.iter().any(|code| reason.contains(code)),
            _ => false,
        };
        cloud.has_fixed_credentials() && self.troubles().iter().any(over)
    }

    /// Counts failures: of requests that are held back when they fail, and of the questions asked meanwhile.
    #[must_use]
    pub fn setbacks(&self) -> u64 {
        self.base.breaker.setbacks()
    }

    /// The same place, asked as a permit says.
    fn by(&self, mode: RequestMode) -> Self {
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
    /// The request ended so; it had so many bytes to send.
    fn ended<T>(self, outcome: &Result<T, BackendError>, bytes: u64) {
        match outcome {
            Err(error) if is_trouble(error) => self.failed(error, bytes),
            _ => self.succeeded(),
        }
    }
}
