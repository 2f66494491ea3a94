//! The object store: the place in a bucket that a URL names, and requests to it.
//!
//! A [`Backend`] owns the client of the store, its retries, the deadline of every operation and the counters. Keys are
//! relative to the place and lowercase ASCII; this program generates them, and no name of a user is part of one.
//! Invariants: every operation ends within the deadline. A failure is never reported as an absence: a missing bucket or
//! directory is an error, not an empty place. Of several writers of different bytes under one key, [`Backend::put_new`]
//! succeeds for exactly one.

mod answer;
mod base;
mod bounds;
mod breaker_store;
mod circuit_breaker;
mod cloud;
mod counters;
mod credentials;
mod error;
mod folders;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod limits;
mod link;
mod location;
mod mark;
mod probe;
mod range_stream;
mod redact;
mod replacement;
mod root_guard;
mod temp_files;
mod upload;
mod verify;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use bounds::damage;
pub use circuit_breaker::{Lane, LaneFailure};
pub use counters::Counters;
pub use error::BackendError;
pub use limits::{BackendConfig, Retry};
pub(crate) use mark::Mark;
pub use probe::Probe;
pub(crate) use replacement::{ObjectState, Replaced};
pub use temp_files::TempFileLocation;

use crate::sync::{Arc, OnceLock};
use base::{Base, Tries, prefixed};
use bounds::READ_MAX;
use breaker_store::BreakerStore;
use bytes::Bytes;
use counters::{CountedStore, Tally};
use error::{Class, is_past_end, is_unknown, is_unrepeated, is_whole};
use futures::StreamExt;
use futures::stream::BoxStream;
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

/// A place in a bucket. Clones and children share the store and the counters.
#[derive(Clone)]
pub struct Backend {
    base: Arc<Base>,
    prefix: Path,
    store: Arc<dyn ObjectStore>,
    tries: Tries,
    url: String,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The key, relative to the backend that listed it.
    pub key: String,
    /// The length in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock, in nanoseconds since 1970-01-01 UTC; many stores round to seconds.
    pub modified_ns: u64,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.url)
    }
}

impl Backend {
    /// Opens the place that `url` names: `file:///dir`, `s3://bucket/prefix`, `gs://`, `az://` or `memory://name`.
    /// Credentials come from the environment variables of the provider. Sends no request.
    ///
    /// # Errors
    /// `Invalid` for a wrong URL, flag or directory, `Denied` if there are no credentials.
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

    /// Opens a place in a store of the caller; messages name it `url`. Of `config`, only the deadline and the retries of
    /// conditional writes with an unknown outcome have an effect.
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

    /// Returns the URL of this place, without secrets.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Tells whether the place is a directory of this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.base.location.kind, StoreKind::Local(_))
    }

    /// Returns the directory of a local place; below the root of the store it may not exist yet.
    #[must_use]
    pub fn local_path(&self) -> Option<PathBuf> {
        match &self.base.location.kind {
            StoreKind::Local(root) => Some(root.join(self.prefix.as_ref())),
            StoreKind::Memory(_) | StoreKind::Cloud(..) | StoreKind::Given => None,
        }
    }

    /// Returns the place `prefix` below this one.
    #[must_use]
    pub fn child(&self, prefix: &str) -> Self {
        let prefix = Path::from(prefix);
        let url = format!("{}/{prefix}", self.url.trim_end_matches('/'));
        let prefix = self.prefix.parts().chain(prefix.parts()).collect();
        Self::at(Arc::clone(&self.base), prefix, url)
    }

    /// Returns the object store of the index: relative to this place, counted, with the retries of this backend, and behind
    /// its circuit breakers. Its operations have no deadline.
    #[must_use]
    pub(crate) fn object_store(&self) -> Arc<dyn ObjectStore> {
        let (base, prefix) = (Arc::clone(&self.base), self.prefix.clone());
        Arc::new(BreakerStore::new(base, prefix))
    }

    /// Reads the counters, which this place shares with its parents and children.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.base.tally.snapshot()
    }

    /// Writes an object, and replaces an older one with this key.
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

    /// Creates an object. If the store's answer leaves open which writer's object exists, reads it back: an object with the
    /// same bytes counts as this write.
    ///
    /// # Errors
    /// `AlreadyExists` if an object with other bytes exists; `Denied`, `Unavailable`, `Unsupported`.
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
                // The library has repeated the failures that it repeats. Others are repeated here, after a read.
                let again = attempt < attempts && (conflict || is_unrepeated(&error));
                match self.read_back(key, &path, &bytes).await {
                    ReadBack::Ours => return Ok(()),
                    ReadBack::Other => {
                        return Err(Class::AlreadyExists.error(self.name(key), error.to_string()));
                    }
                    // A conflict without an object: S3 answers 409 while another conditional write of the key is under way.
                    ReadBack::Absent | ReadBack::Failed(RetryAdvice::Again) if again => {}
                    ReadBack::Absent | ReadBack::Failed(_) => {
                        return Err(Class::Unavailable.error(self.name(key), error.to_string()));
                    }
                }
                tokio::time::sleep(self.base.config.create_pause(attempt)).await;
                attempt += 1;
            }
        })
        .await
    }

    /// Reads a whole object of at most 256 MiB.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`; `Damaged` if the object is longer.
    pub async fn get(&self, key: &str) -> Result<Bytes, BackendError> {
        self.get_at_most(key, READ_MAX).await
    }

    /// As [`Self::get`], of an object that has at most `most` bytes.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_at_most(&self, key: &str, most: u64) -> Result<Bytes, BackendError> {
        let path = self.path(key)?;
        self.timed(key, async {
            match self.fetch(&path, None, most).await {
                Ok((_, bytes)) => Ok(bytes),
                Err(e) => Err(self.absence(key, &e).await),
            }
        })
        .await
    }

    /// Reads the bytes `range` of an object; fewer or none if the object ends before.
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

    /// Lists all objects below `prefix`, which consists of whole segments of a key, in ascending order of keys. The deadline
    /// bounds the wait for each page, not the whole listing.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`, `Invalid`. A partial listing is never returned.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, BackendError> {
        self.listed(prefix, None).await
    }

    /// As [`Self::list`], but only objects whose keys come after `after`, which need not exist. Objects before it cost no
    /// request, except on a store that cannot start a listing at an offset.
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
        let listing = match &after {
            None => self.store.list(Some(&path)),
            Some(after) if self.is_local() => {
                found = self.walked(path, after).await?;
                futures::stream::empty().boxed()
            }
            Some(after) => self.store.list_with_offset(Some(&path), after),
        };
        self.each_listed(prefix, listing, |object| {
            found.push(object);
            Ok::<(), BackendError>(())
        })
        .await?;
        found.sort_unstable_by(|a: &ObjectInfo, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Gives the objects of a listing of `prefix` to `each`. The deadline bounds the wait for each page.
    async fn each_listed<E: From<BackendError> + Send>(
        &self,
        prefix: &str,
        mut listing: BoxStream<'static, Result<ObjectMeta, object_store::Error>>,
        mut each: impl FnMut(ObjectInfo) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let (path, place) = (self.path(prefix)?, self.name(prefix));
        let deadline = self.base.config.deadline;
        loop {
            let next = within(deadline, &place, async { Ok(listing.next().await) });
            let Some(object) = next.await? else {
                return Ok(());
            };
            let object = object.map_err(|e| self.failure(prefix, &e))?;
            if !object.location.prefix_matches(&path) {
                let reason = format!("the listing has {}, which is not below it", object.location);
                return Err(Class::Unavailable.error(&place, reason).into());
            }
            each(info(object))?;
        }
    }

    /// Deletes an object. Succeeds if there is none.
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

/// The number of objects that one request deletes at most: the limit of S3.
const DELETED_AT_ONCE: usize = 1000;

impl Backend {
    /// Deletes objects, a thousand by one request where the store can. Succeeds for those that do not exist.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`; some of the objects may be deleted.
    pub async fn delete_many(&self, keys: &[String]) -> Result<(), BackendError> {
        for keys in keys.chunks(DELETED_AT_ONCE) {
            self.timed(&keys[0], self.delete_chunk(keys)).await?;
        }
        Ok(())
    }

    async fn delete_chunk(&self, keys: &[String]) -> Result<(), BackendError> {
        let paths: Vec<_> = keys
            .iter()
            .map(|key| self.path(key))
            .collect::<Result<_, _>>()?;
        let mut answers = self
            .store
            .delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
        while let Some(answer) = answers.next().await {
            let Err(error) = answer else { continue };
            match self.absence(&keys[0], &error).await {
                BackendError::NotFound { .. } => {}
                error => return Err(error),
            }
        }
        Ok(())
    }
}

/// The object under a key, compared with the bytes that were to be written there.
enum ReadBack {
    /// It has these bytes.
    Ours,
    /// It has other bytes.
    Other,
    Absent,
    /// The read failed.
    Failed(RetryAdvice),
}

/// Whether another attempt may succeed after a failed read.
enum RetryAdvice {
    /// The library did not repeat this failure, and it may be over.
    Again,
    /// The library has repeated the read to its limit.
    GiveUp,
}

impl Backend {
    /// Writes an object, with its mark if the store keeps metadata.
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
            // A store of the caller may not support metadata.
            Err(e) if is_unknown(&e) => {
                let written = self.store.put_opts(path, payload, mode.into());
                written.await.map(|_| ())
            }
            written => written.map(|_| ()),
        }
    }

    /// Reads an object back whose write had an unknown outcome, and compares it with `bytes`.
    async fn read_back(&self, key: &str, path: &Path, bytes: &[u8]) -> ReadBack {
        let read = async {
            let found = self.store.get(path).await?;
            // An object of another length is another object, so its bytes are not read.
            if found.meta.size != bytes.len() as u64 {
                return Ok(ReadBack::Other);
            }
            Ok(match found.bytes().await? == *bytes {
                true => ReadBack::Ours,
                false => ReadBack::Other,
            })
        };
        match read.await {
            Ok(found) => found,
            Err(e) => match self.absence(key, &e).await {
                BackendError::NotFound { .. } => ReadBack::Absent,
                _ if is_unrepeated(&e) => ReadBack::Failed(RetryAdvice::Again),
                _ => ReadBack::Failed(RetryAdvice::GiveUp),
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
        let read = self.fetch(path, Some(GetRange::Bounded(range)), READ_MAX);
        match read.await {
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

    /// Translates the error of a read. On a local place, an object counts as absent only while the root directory exists.
    async fn absence(&self, key: &str, error: &object_store::Error) -> BackendError {
        let told = self.failure(key, error);
        match told {
            BackendError::NotFound { .. } => self.check_root().await.err().unwrap_or(told),
            other => other,
        }
    }

    /// Checks that the root of a local place is still the directory that was opened.
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

    /// The name of an object in messages.
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

/// A store's date in nanoseconds since 1970-01-01 UTC: 0 for earlier dates, the maximum for dates after 2262.
fn modified_ns(nanos: Option<i64>) -> u64 {
    nanos.map_or(u64::MAX, |n| u64::try_from(n).unwrap_or(0))
}
