//! Where bytes lie: one URL, one place in a bucket, and the few requests the rooms above make of it.
//!
//! Owns the object store, its retries, the deadline of every operation and the counts. Keys are relative to the place,
//! lowercase ASCII, and made by this program; no user-chosen name is part of one.
//! Invariant: every operation ends within the deadline; a failure never reads as an absence (a bucket or directory that
//! is gone is an error, not an empty place); `put_new` succeeds for exactly one of several writers of different bytes.

mod answer;
mod base;
mod circuit_breaker;
mod cloud;
mod counters;
mod credentials;
mod error;
mod folders;
mod held;
mod limits;
mod link;
mod location;
mod mark;
mod orphans;
mod probe;
mod redact;
mod root_guard;
mod upload;
mod verify;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod tests;

pub use circuit_breaker::{Lane, Trouble};
pub use counters::Counters;
pub use error::BackendError;
pub use limits::{BackendConfig, Retry};
pub(crate) use mark::Mark;
pub use orphans::TempFileLocation;
pub use probe::Probe;

use crate::sync::{Arc, OnceLock};
use base::{Base, Tries, prefixed};
use bytes::Bytes;
use counters::{CountedStore, Tally};
use error::{Class, is_past_end, is_unknown, is_unrepeated, is_whole};
use futures::StreamExt;
use held::HeldStore;
use limits::within;
use location::{Location, StoreKind};
use object_store::path::Path;
use object_store::{
    GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use root_guard::RootGuard;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// A place in a bucket. Clones and children share the store and the counts.
#[derive(Clone)]
pub struct Backend {
    base: Arc<Base>,
    prefix: Path,
    store: Arc<dyn ObjectStore>,
    tries: Tries,
    url: String,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The key, relative to the backend that listed it.
    pub key: String,
    /// The length in bytes.
    pub size: u64,
    /// When it was written by the store's clock, in nanoseconds since 1970-01-01 UTC; many stores round to seconds.
    pub modified_ns: u64,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.url)
    }
}

impl Backend {
    /// Opens the place that `url` names: `file:///dir`, `s3://bucket/prefix`, `gs://`, `az://` or `memory://name`.
    /// Credentials come from the providers' environment variables. Nothing is asked over the network yet.
    ///
    /// # Errors
    /// `Invalid` for a wrong URL, flag or directory, `Denied` when there are no credentials.
    pub fn open(url: &str, config: &BackendConfig) -> Result<Self, BackendError> {
        let location = Location::parse(url)?;
        let store = location.open(config)?;
        let root_guard = match &location.kind {
            StoreKind::Local(root) => Some(RootGuard::new(root).map_err(|e| {
                let reason = format!("cannot open the directory: {e}");
                Class::Denied.error(&location.url, reason)
            })?),
            StoreKind::Memory(_) | StoreKind::Cloud(..) | StoreKind::Given => None,
        };
        Ok(Self::assemble(location, store, root_guard, config))
    }

    /// Works on a store that the caller brings along, shown as `url`; of `config` only the deadline matters, and
    /// how often a write of unclear fate is sent again.
    #[must_use]
    pub fn over(url: &str, store: Arc<dyn ObjectStore>, config: &BackendConfig) -> Self {
        Self::assemble(Location::given(url), store, None, config)
    }

    fn assemble(
        location: Location,
        store: Arc<dyn ObjectStore>,
        root_guard: Option<RootGuard>,
        config: &BackendConfig,
    ) -> Self {
        let tally = Arc::new(Tally::default());
        let counted = CountedStore::new(&location.url, store, Arc::clone(&tally));
        let (prefix, url) = (location.prefix.clone(), location.url.clone());
        let base = Arc::new(Base {
            location,
            config: config.clone(),
            counted,
            tally,
            breaker: Arc::default(),
            once: OnceLock::new(),
            root_guard,
        });
        Self::at(base, prefix, url)
    }

    fn at(base: Arc<Base>, prefix: Path, url: String) -> Self {
        let store = prefixed(base.counted.clone(), &prefix);
        Self {
            base,
            prefix,
            store,
            tries: Tries::AsSet,
            url,
        }
    }

    /// Tells the URL of this place, without secrets.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Tells whether the bytes lie in a directory of this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.base.location.kind, StoreKind::Local(_))
    }

    /// Tells the directory of a local place; it may not exist yet below the root.
    #[must_use]
    pub fn local_path(&self) -> Option<PathBuf> {
        match &self.base.location.kind {
            StoreKind::Local(root) => Some(root.join(self.prefix.as_ref())),
            StoreKind::Memory(_) | StoreKind::Cloud(..) | StoreKind::Given => None,
        }
    }

    /// Makes the place `prefix` below this one.
    #[must_use]
    pub fn child(&self, prefix: &str) -> Self {
        let prefix = Path::from(prefix);
        let url = format!("{}/{prefix}", self.url.trim_end_matches('/'));
        let prefix = self.prefix.parts().chain(prefix.parts()).collect();
        Self::at(Arc::clone(&self.base), prefix, url)
    }

    /// Hands out the store itself, counted and relative to this place, for the index. It has the retries of this
    /// backend, but no deadline around an operation, and holds requests back while the store fails.
    #[must_use]
    pub(crate) fn object_store(&self) -> Arc<dyn ObjectStore> {
        let (base, prefix) = (Arc::clone(&self.base), self.prefix.clone());
        Arc::new(HeldStore::new(base, prefix))
    }

    /// Reads the counts of this backend, its parents and children.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.base.tally.snapshot()
    }

    /// Writes an object, over an older one if there is one.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`; after `Unavailable` the object may have been written.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), BackendError> {
        let path = self.path(key)?;
        self.timed(key, async {
            self.check_root().await?;
            match self.write(&path, &bytes, PutMode::Overwrite).await {
                Ok(()) => Ok(()),
                Err(e) => Err(self.failure(key, &e)),
            }
        })
        .await
    }

    /// Writes an object that must not be there yet. When the store's answer leaves open whose object is there, it is
    /// read back: equal bytes are our own write.
    ///
    /// # Errors
    /// `AlreadyExists` if an object with other bytes is there; `Denied`, `Unavailable`, `Unsupported`.
    pub async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), BackendError> {
        let path = self.path(key)?;
        self.timed(key, async {
            self.check_root().await?;
            let attempts = match self.tries {
                Tries::AsSet => self.base.config.create_attempts(),
                Tries::One => 1,
            };
            let mut attempt = 1;
            loop {
                let error = match self.write(&path, &bytes, PutMode::Create).await {
                    Ok(()) => return Ok(()),
                    Err(e) => e,
                };
                let told = self.failure(key, &error);
                let conflict = matches!(told, BackendError::AlreadyExists { .. });
                if !conflict && !told.is_retryable() {
                    return Err(told);
                }
                // What the library repeats has been repeated; sending again is for what it cannot judge.
                let again = attempt < attempts && (conflict || is_unrepeated(&error));
                match self.holds(key, &path, &bytes).await {
                    Holds::Ours => return Ok(()),
                    Holds::Other => {
                        return Err(Class::AlreadyExists.error(self.name(key), error.to_string()));
                    }
                    // A conflict with nothing to show for it is one that was going on: S3 says 409.
                    Holds::Nothing | Holds::Unread { passing: true } if again => {}
                    Holds::Nothing | Holds::Unread { .. } => {
                        return Err(Class::Unavailable.error(self.name(key), error.to_string()));
                    }
                }
                tokio::time::sleep(self.base.config.create_pause(attempt)).await;
                attempt += 1;
            }
        })
        .await
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`.
    pub async fn get(&self, key: &str) -> Result<Bytes, BackendError> {
        let path = self.path(key)?;
        self.timed(key, async {
            match self.fetch(&path, None).await {
                Ok((_, bytes)) => Ok(bytes),
                Err(e) => Err(self.absence(key, &e).await),
            }
        })
        .await
    }

    /// Reads the bytes `range` of an object; fewer, down to none, where the object ends.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`; `Unsupported` if the store ignores ranges.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        let path = self.path(key)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.timed(key, self.fetch_range(key, &path, range)).await
    }

    /// Lists every object below `prefix`, itself whole segments of a key, sorted by key. The deadline bounds the wait
    /// for the next object, not the whole listing.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`, `Invalid`; never a part of the listing.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, BackendError> {
        self.listed(prefix, None).await
    }

    /// As [`Self::list`], only what comes after the key `after`, which need not be there. What comes before costs nothing,
    /// except on a store that cannot begin behind a key.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<Vec<ObjectInfo>, BackendError> {
        let after = self.path(after)?;
        self.listed(prefix, Some(after)).await
    }

    async fn listed(
        &self,
        prefix: &str,
        after: Option<Path>,
    ) -> Result<Vec<ObjectInfo>, BackendError> {
        let path = self.path(prefix)?;
        let place = self.name(prefix);
        let deadline = self.base.config.deadline;
        within(deadline, &place, self.check_root()).await?;
        let mut found = Vec::new();
        let listed = path.clone();
        let mut listing = match &after {
            None => self.store.list(Some(&path)),
            Some(after) if self.is_local() => {
                found = self.walked(path, after).await?;
                futures::stream::empty().boxed()
            }
            Some(after) => self.store.list_with_offset(Some(&path), after),
        };
        let next = async |listing: &mut futures::stream::BoxStream<'static, _>| {
            within(deadline, &place, async { Ok(listing.next().await) }).await
        };
        while let Some(object) = next(&mut listing).await? {
            let object = object.map_err(|e| self.failure(prefix, &e))?;
            if !object.location.prefix_matches(&listed) {
                let reason = format!("the listing has {}, which lies elsewhere", object.location);
                return Err(Class::Unavailable.error(&place, reason));
            }
            found.push(info(object));
        }
        found.sort_unstable_by(|a: &ObjectInfo, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Deletes an object; one that is not there is deleted already.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`.
    pub async fn delete(&self, key: &str) -> Result<(), BackendError> {
        let path = self.path(key)?;
        self.timed(key, async {
            let Err(e) = self.store.delete(&path).await else {
                return Ok(());
            };
            match self.absence(key, &e).await {
                BackendError::NotFound { .. } => Ok(()),
                error => Err(error),
            }
        })
        .await
    }
}

/// What lies under a key, compared with what was to be written there.
enum Holds {
    Ours,
    Other,
    Nothing,
    /// It cannot be learnt; `passing`: for a reason that the library does not wait for, but that may be gone.
    Unread {
        passing: bool,
    },
}

impl Backend {
    /// Writes an object with its mark, where the store keeps metadata.
    async fn write(
        &self,
        path: &Path,
        bytes: &Bytes,
        mode: PutMode,
    ) -> Result<(), object_store::Error> {
        let payload = PutPayload::from_bytes(bytes.clone());
        if self.is_local() {
            let written = self.store.put_opts(path, payload, mode.into());
            return written.await.map(|_| ());
        }
        let mut options = PutOptions::from(mode.clone());
        let mark = Mark::text(path, &payload);
        options.attributes.insert(Mark::name(), mark.into());
        match self.store.put_opts(path, payload.clone(), options).await {
            // A store that the caller brought along need not know metadata.
            Err(e) if is_unknown(&e) => {
                let written = self.store.put_opts(path, payload, mode.into());
                written.await.map(|_| ())
            }
            written => written.map(|_| ()),
        }
    }

    /// Reads back what a write of unclear fate left behind.
    async fn holds(&self, key: &str, path: &Path, bytes: &[u8]) -> Holds {
        let read = async {
            let found = self.store.get(path).await?;
            // Another length is another object; its bytes need not travel.
            if found.meta.size != bytes.len() as u64 {
                return Ok(Holds::Other);
            }
            Ok(match found.bytes().await? == *bytes {
                true => Holds::Ours,
                false => Holds::Other,
            })
        };
        match read.await {
            Ok(holds) => holds,
            Err(e) => match self.absence(key, &e).await {
                BackendError::NotFound { .. } => Holds::Nothing,
                _ => Holds::Unread {
                    passing: is_unrepeated(&e),
                },
            },
        }
    }

    async fn fetch_range(
        &self,
        key: &str,
        path: &Path,
        range: Range<u64>,
    ) -> Result<Bytes, BackendError> {
        let start = range.start;
        match self.fetch(path, Some(GetRange::Bounded(range))).await {
            Ok((_, bytes)) => Ok(bytes),
            Err(e) if is_past_end(&e) => Ok(Bytes::new()),
            Err(e) if is_whole(&e) && self.size(key, path).await? <= start => Ok(Bytes::new()),
            Err(e) => Err(self.absence(key, &e).await),
        }
    }

    async fn size(&self, key: &str, path: &Path) -> Result<u64, BackendError> {
        match self.store.head(path).await {
            Ok(meta) => Ok(meta.size),
            Err(e) => Err(self.absence(key, &e).await),
        }
    }

    /// Translates an error of a read: on a local place an object is absent only while the directory is there.
    async fn absence(&self, key: &str, error: &object_store::Error) -> BackendError {
        let told = self.failure(key, error);
        match told {
            BackendError::NotFound { .. } => self.check_root().await.err().unwrap_or(told),
            other => other,
        }
    }

    /// Makes sure that a local place is still the directory that was opened.
    async fn check_root(&self) -> Result<(), BackendError> {
        match &self.base.root_guard {
            Some(root_guard) => root_guard
                .verify()
                .await
                .map_err(|reason| Class::Unavailable.error(&self.url, reason)),
            None => Ok(()),
        }
    }

    fn failure(&self, key: &str, error: &object_store::Error) -> BackendError {
        BackendError::from_store(self.name(key), error)
    }

    /// Bounds `operation` on `key` by the deadline.
    async fn timed<T>(
        &self,
        key: &str,
        operation: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        within(self.base.config.deadline, &self.name(key), operation).await
    }

    /// Names an object in messages.
    fn name(&self, key: &str) -> String {
        match key {
            "" => self.url.clone(),
            key => format!("{}/{key}", self.url.trim_end_matches('/')),
        }
    }

    fn path(&self, key: &str) -> Result<Path, BackendError> {
        Path::parse(key).map_err(|e| Class::Invalid.error(self.name(key), e.to_string()))
    }
}

fn info(object: ObjectMeta) -> ObjectInfo {
    ObjectInfo {
        key: object.location.into(),
        size: object.size,
        modified_ns: modified_ns(object.last_modified.timestamp_nanos_opt()),
    }
}

/// Brings a store's date to ours; before 1970 is 1970, and nanoseconds end in 2262.
fn modified_ns(nanos: Option<i64>) -> u64 {
    nanos.map_or(u64::MAX, |n| u64::try_from(n).unwrap_or(0))
}
