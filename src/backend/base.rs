//! The state that all places of one store share: its client, its settings, its counters and its circuit breakers.

use super::circuit_breaker::{CircuitBreaker, HealthCheck, Lane, RequestPermit};
use super::counters::{CountedStore, Tally};
use super::error::{BackendError, Class};
use super::limits::{BackendConfig, within};
use super::location::{Location, StoreKind};
use super::root_guard::RootGuard;
use crate::sync::{Arc, OnceLock};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStoreExt, PutPayload};

/// The key that a health check reads. It is never written; "not found" is a successful check.
const READ_KEY: &str = "probe/check";

/// The key that a health check writes and deletes while writes fail.
const WRITE_KEY: &str = "probe/write";

/// How often a conditional write with an unknown outcome is sent.
#[derive(Clone, Copy)]
pub(super) enum Tries {
    /// As often as the settings allow.
    AsSet,
    /// Once: the caller sends it again later.
    One,
}

/// The state that a backend shares with its children.
pub(super) struct Base {
    pub(super) location: Location,
    pub(super) config: BackendConfig,
    pub(super) counted: CountedStore,
    pub(super) tally: Arc<Tally>,
    pub(super) breaker: Arc<CircuitBreaker>,
    /// A client that sends each request once; created at its first use.
    pub(super) once: OnceLock<CountedStore>,
    /// `None` unless the store is a directory of this machine.
    pub(super) root_guard: Option<RootGuard>,
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

    /// The client that sends each request once.
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

    /// Reads a small object, and writes one if writes failed.
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
                && is_store_failure(&error)
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
            // If this fails, the next check overwrites the object.
            self.once().delete(&key(WRITE_KEY)).await.ok();
            Ok(())
        })
        .await
    }
}

/// Tells whether an error means that the store failed; the other errors are answers to the request.
pub(super) fn is_store_failure(error: &BackendError) -> bool {
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

/// A client whose keys are relative to `prefix`.
pub(super) fn prefixed(store: CountedStore, prefix: &Path) -> Arc<PrefixStore<CountedStore>> {
    Arc::new(PrefixStore::new(store, prefix.clone()))
}
