//! Checks of a store before a mount: whether it answers, and whether it supports the requests that a writer needs.
//!
//! Invariant: a store that passes [`Backend::probe`] refuses the second of two conditional writes and answers a ranged read
//! with the range. A probe sends its requests one after the other, so it does not detect a store whose conditional writes
//! fail only when they are concurrent.

use super::base::Base;
use super::counters::CountedStore;
use super::error::{BackendError, Class, is_past_end};
use super::limits::within;
use super::location::StoreKind;
use super::{Backend, ReadBack, modified_ns};
use crate::env::Env;
use crate::sync::{Arc, OnceLock};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStoreExt, PutMode, PutPayload, PutResult, UpdateVersion,
};

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The store's clock in nanoseconds since 1970-01-01 UTC, as of the probe; many stores round to seconds.
    pub store_time_ns: u64,
}

/// The key that a check reads. It is never written; "not found" is a successful check.
const CHECK_KEY: &str = "probe/check";

const FIRST: &[u8] = b"rewindfs probe: the first write";
const SECOND: &[u8] = b"rewindfs probe: a second write";
const RANGE: std::ops::Range<u64> = 9..14;

impl Backend {
    /// Sends one read to the store, with a deadline of 8 seconds and at most one retry.
    ///
    /// # Errors
    /// `Invalid` for a missing bucket, `Denied` for refused credentials, `Unavailable` if the store does not answer.
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
            // A read, because the error of a listing hides its cause.
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

    /// The same place with another client: the usual one would retry until its deadline.
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

    /// Tests with an object of its own what a writer depends on, and deletes the object: a second create must conflict, a
    /// stale update must conflict (not on a local directory, which has no conditional update), and a ranged read must return
    /// the range.
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
            // The result of the probe matters more than the object that was not deleted.
            Err(_) if verdict.is_err() => verdict,
            Err(error) => Err(error),
        }
    }

    /// Returns the store's date in nanoseconds since 1970-01-01 UTC, as it gives it to an object that is written for this and deleted;
    /// many stores round to seconds. `None` for a local directory, which has this machine's clock.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`; `Unsupported` if the store gives objects no date.
    pub async fn date(&self, env: &dyn Env) -> Result<Option<u64>, BackendError> {
        match &self.base.location.kind {
            StoreKind::Cloud(..) | StoreKind::Given => {}
            StoreKind::Local(_) | StoreKind::Memory(_) => return Ok(None),
        }
        let key = format!("probe/{}", env.new_id().simple());
        let path = self.path(&key)?;
        self.put_new(&key, Bytes::from_static(FIRST)).await?;
        let written = self.store.head(&path).await;
        self.delete(&key).await?;
        let written = written.map_err(|error| self.failure(&key, &error))?;
        match modified_ns(written.last_modified.timestamp_nanos_opt()) {
            0 => {
                let reason = "it sends no Last-Modified header with an object, by which its clock is compared with this machine's";
                Err(Class::Unsupported.error(self.url(), reason))
            }
            date => Ok(Some(date)),
        }
    }

    async fn promises(&self, key: &str, path: &Path) -> Result<Probe, BackendError> {
        let failure = |e: Error| self.failure(key, &e);
        // With the retries of `put_new`: a lost answer, or a conflict of a retry with its own first attempt, is not a fault of
        // the store.
        self.put_new(key, Bytes::from_static(FIRST)).await?;
        let first = self.store.head(path).await.map_err(failure)?;
        let store_time_ns = modified_ns(first.last_modified.timestamp_nanos_opt());
        // The library reports a missing date as 0.
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

    /// Replaces the first bytes by the second ones, which must succeed. Reads the object back if the outcome is unknown.
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
        match (self.read_back(key, path, SECOND).await, told) {
            (ReadBack::Ours, _) => Ok(()),
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
            // Both texts begin with the same bytes.
            Ok(bytes) if bytes == FIRST[9..14] => return Ok(()),
            Ok(_) => "it answers a ranged read with other bytes".to_owned(),
            Err(e) if is_past_end(&e) => "it knows no ranged read".to_owned(),
            Err(e) => match self.failure(key, &e) {
                BackendError::Unsupported { .. } => {
                    "it answers a ranged read with the whole object".to_owned()
                }
                // The store has answered all earlier requests, so this failure is not temporary.
                BackendError::Unavailable { reason, .. } => {
                    format!("it fails on a ranged read: {reason}")
                }
                error => return Err(error),
            },
        };
        Err(Class::Unsupported.error(self.url(), reason))
    }
}
