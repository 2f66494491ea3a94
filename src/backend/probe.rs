//! Asks a store, before anything depends on it, whether it can be reached and whether it keeps its word.
//!
//! Invariant: a store that passes [`Backend::probe`] refuses the second of two conditional writes and answers a ranged
//! read with the range. A probe asks in sequence; a store whose conditional writes only race is not found out.

use super::base::Base;
use super::counters::CountedStore;
use super::error::{BackendError, Class, is_past_end};
use super::limits::within;
use super::location::StoreKind;
use super::{Backend, Holds, modified_ns};
use crate::env::Env;
use crate::sync::{Arc, OnceLock};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStoreExt, PutMode, PutPayload, PutResult, UpdateVersion,
};

/// What a probe learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The store's clock in nanoseconds since 1970-01-01 UTC, as of the probe; many stores round to seconds.
    pub store_time_ns: u64,
}

/// Never written; whether it is there is not the question.
const CHECK_KEY: &str = "probe/check";

const FIRST: &[u8] = b"rewindfs probe: the first write";
const SECOND: &[u8] = b"rewindfs probe: a second write";
const RANGE: std::ops::Range<u64> = 9..14;

impl Backend {
    /// Asks the store one question that every working place answers, within 8 seconds and almost without retries.
    ///
    /// # Errors
    /// `Invalid` names a missing bucket, `Denied` refused credentials, `Unavailable` a store that does not answer.
    pub async fn check(&self) -> Result<(), BackendError> {
        let hasty = self.hasty()?;
        let config = &hasty.base.config;
        let place = match &config.endpoint {
            Some(endpoint) => format!("{} at {endpoint}", self.url()),
            None => self.url().to_owned(),
        };
        let key = self.path(CHECK_KEY)?;
        within(self.base.config.hasty().deadline, &place, async {
            self.check_root().await?;
            // A read, because a listing hides the reason of its failure.
            match hasty.store.get(&key).await {
                Ok(_) => Ok(()),
                Err(e) => match BackendError::from_store(&place, &e) {
                    BackendError::NotFound { .. } => Ok(()),
                    error => Err(error),
                },
            }
        })
        .await
    }

    /// The same place by another client: the usual one would go on trying for the whole deadline.
    fn hasty(&self) -> Result<Self, BackendError> {
        match &self.base.location.kind {
            StoreKind::Cloud(..) => {
                let config = self.base.config.hasty();
                let location = self.base.location.clone();
                let store = location.open(&config)?;
                let tally = Arc::clone(&self.base.tally);
                let counted = CountedStore::new(&location.url, store, Arc::clone(&tally));
                let base = Base {
                    location,
                    config,
                    counted,
                    tally,
                    breaker: Arc::default(),
                    once: OnceLock::new(),
                    root_guard: None,
                };
                Ok(Self::at(
                    Arc::new(base),
                    self.prefix.clone(),
                    self.url.clone(),
                ))
            }
            StoreKind::Local(_) | StoreKind::Memory(_) | StoreKind::Given => Ok(self.clone()),
        }
    }

    /// Tries on an object of its own what a writer depends on, and removes it again: a second create must conflict, so
    /// must a stale update (not asked of a local directory, which has none), and a range must be a range.
    ///
    /// # Errors
    /// `Unsupported` names what the store cannot do; `Denied`, `Unavailable`.
    pub async fn probe(&self, env: &dyn Env) -> Result<Probe, BackendError> {
        let hasty = self.hasty()?;
        let key = format!("probe/{}", env.new_id().simple());
        let path = self.path(&key)?;
        let verdict = hasty.timed(&key, hasty.promises(&key, &path)).await;
        match hasty.delete(&key).await {
            Ok(()) => verdict,
            // What the probe found matters more than what it left behind.
            Err(_) if verdict.is_err() => verdict,
            Err(error) => Err(error),
        }
    }

    async fn promises(&self, key: &str, path: &Path) -> Result<Probe, BackendError> {
        let failure = |e: Error| self.failure(key, &e);
        // Not the bare request: an answer that got lost, or a retry that met its own first attempt, says nothing against
        // the store.
        self.put_new(key, Bytes::from_static(FIRST)).await?;
        let first = self.store.head(path).await.map_err(failure)?;
        let store_time_ns = modified_ns(first.last_modified.timestamp_nanos_opt());
        // What the library makes of a date that is not there.
        if store_time_ns == 0 {
            let reason = "it sends no Last-Modified header with an object, by which its clock is compared with this machine's";
            return Err(Class::Unsupported.error(self.url(), reason));
        }
        self.must_conflict(
            key,
            self.try_put(path, SECOND, PutMode::Create).await,
            "it overwrites with a conditional create (If-None-Match)",
        )?;
        if !self.is_local() {
            let stale = UpdateVersion {
                e_tag: first.e_tag,
                version: first.version,
            };
            self.must_update(key, path, stale.clone()).await?;
            self.must_conflict(
                key,
                self.try_put(path, FIRST, PutMode::Update(stale)).await,
                "it overwrites with a stale conditional update (If-Match)",
            )?;
        }
        self.must_range(key, path).await?;
        Ok(Probe { store_time_ns })
    }

    /// Replaces the first bytes by the second ones, which must succeed; read back where the answer leaves that open.
    async fn must_update(
        &self,
        key: &str,
        path: &Path,
        current: UpdateVersion,
    ) -> Result<(), BackendError> {
        let Err(error) = self.try_put(path, SECOND, PutMode::Update(current)).await else {
            return Ok(());
        };
        let told = self.failure(key, &error);
        match (self.holds(key, path, SECOND).await, told) {
            (Holds::Ours, _) => Ok(()),
            (_, BackendError::AlreadyExists { reason, .. }) => {
                let reason = format!("it refuses a conditional update (If-Match): {reason}");
                Err(Class::Unsupported.error(self.url(), reason))
            }
            (_, told) => Err(told),
        }
    }

    async fn try_put(
        &self,
        path: &Path,
        bytes: &'static [u8],
        mode: PutMode,
    ) -> Result<PutResult, Error> {
        let payload = PutPayload::from_static(bytes);
        self.store.put_opts(path, payload, mode.into()).await
    }

    fn must_conflict(
        &self,
        key: &str,
        result: Result<PutResult, Error>,
        otherwise: &str,
    ) -> Result<(), BackendError> {
        let reason = match result {
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => return Ok(()),
            Err(e) => return Err(self.failure(key, &e)),
            Ok(_) => format!("{otherwise}, so two writers would destroy each other's data"),
        };
        Err(Class::Unsupported.error(self.url(), reason))
    }

    async fn must_range(&self, key: &str, path: &Path) -> Result<(), BackendError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(RANGE)),
            ..GetOptions::default()
        };
        let read = async { self.store.get_opts(path, options).await?.bytes().await };
        let reason = match read.await {
            // Both texts begin alike.
            Ok(bytes) if bytes == FIRST[9..14] => return Ok(()),
            Ok(_) => "it answers a ranged read with other bytes".to_owned(),
            Err(e) if is_past_end(&e) => "it knows no ranged read".to_owned(),
            Err(e) => match self.failure(key, &e) {
                BackendError::Unsupported { .. } => {
                    "it answers a ranged read with the whole object".to_owned()
                }
                // The store answered all before this, so this is no passing trouble.
                BackendError::Unavailable { reason, .. } => {
                    format!("it fails on a ranged read: {reason}")
                }
                error => return Err(error),
            },
        };
        Err(Class::Unsupported.error(self.url(), reason))
    }
}
