//! Requests that are held back while the store fails: what the pipeline uploads, and everything of the index.
//!
//! One that goes out to try whether the store works again is sent once, whatever `--retries` says: the pauses are those of
//! [`super::circuit_breaker`].

use super::circuit_breaker::{HealthCheck, RequestMode, RequestPermit};
use super::counters::CountedStore;
use super::error::{BackendError, Class};
use super::limits::within;
use super::{Backend, Base, Lane, StoreKind, Tries, Trouble};
use crate::sync::Arc;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

/// Never written; whether it is there is not the question.
const READ_KEY: &str = "probe/check";

/// Written and removed while writes fail.
const WRITE_KEY: &str = "probe/write";

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
                store: super::prefixed(self.base.once().clone(), &self.prefix),
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

/// Whether an error says that the store fails; the others are answers to what was asked.
pub(super) fn is_trouble(error: &BackendError) -> bool {
    match error {
        BackendError::Denied { .. }
        | BackendError::Unavailable { .. }
        | BackendError::Invalid { .. } => true,
        BackendError::NotFound { .. }
        | BackendError::AlreadyExists { .. }
        | BackendError::Damaged { .. }
        | BackendError::Unsupported { .. } => false,
    }
}

impl Base {
    /// Waits for the permit of a request.
    pub(super) async fn acquire(self: &Arc<Self>, lane: Lane) -> RequestPermit {
        let health_check = |check| {
            let base = Arc::clone(self);
            async move { base.health_check(check).await }
        };
        self.breaker.acquire(lane, health_check).await
    }

    /// The store without retries.
    pub(super) fn once(&self) -> &CountedStore {
        self.once.get_or_init(|| {
            let opened = match &self.location.kind {
                StoreKind::Cloud(..) => self.location.open(&self.config.once()).ok(),
                StoreKind::Local(_) | StoreKind::Memory(_) | StoreKind::Given => None,
            };
            match opened {
                Some(store) => {
                    CountedStore::new(&self.location.url, store, Arc::clone(&self.tally))
                }
                None => self.counted.clone(),
            }
        })
    }

    /// Asks the store something small.
    async fn health_check(&self, check: HealthCheck) -> Result<(), BackendError> {
        let url = &self.location.url;
        let failure = |e: object_store::Error| BackendError::from_store(url, &e);
        let key = |key: &str| -> Path {
            let parts = self.location.prefix.parts();
            parts.chain(Path::from(key).parts()).collect()
        };
        within(self.config.hasty().deadline, url, async {
            if let Some(root_guard) = &self.root_guard {
                let gone = |reason| Class::Unavailable.error(url, reason);
                root_guard.verify().await.map_err(gone)?;
            }
            if let Err(error) = self.once().get(&key(READ_KEY)).await.map_err(failure)
                && is_trouble(&error)
            {
                return Err(error);
            }
            let Some(bytes) = check.write_bytes else {
                return Ok(());
            };
            if let StoreKind::Local(root) = &self.location.kind
                && let Ok(disk) = rustix::fs::statvfs(root)
                && disk.f_bavail.saturating_mul(disk.f_frsize) < bytes
            {
                return Err(Class::Unavailable.error(url, "no space left on its disk"));
            }
            let payload = PutPayload::from_static(b"rewindfs looks whether it can write");
            self.once()
                .put(&key(WRITE_KEY), payload)
                .await
                .map_err(failure)?;
            // It is overwritten the next time, if it is still there.
            self.once().delete(&key(WRITE_KEY)).await.ok();
            Ok(())
        })
        .await
    }
}
