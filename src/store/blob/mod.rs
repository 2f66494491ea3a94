//! A versioned blob store: blobs under keys, without a file system in between.
//!
//! A key is a path in the tree of a namespace: a mount of the namespace shows every blob as a file, and a [`BlobStore`]
//! shows every file as a blob. The directories of a key are created by a put; a delete removes those that are empty and
//! that a put created.
//! Invariants: a reader sees a blob completely as before a put or completely as after it. Every put creates a version.

mod composite;
mod error;
mod import;
mod key;
mod list;
mod map;
mod path;
mod read;
mod settings;
mod versions;
mod write;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::{Backend, BackendConfig};
use crate::env::{Env, SystemEnv};
use crate::store::{
    Author, CheckpointLimits, GRACE, GcMode, LeaseTimes, Linger, Namespace, NamespaceConfig, Owner,
    StoreError, Takeover, WaitProgress,
};
use crate::sync::{Arc, Mutex, Weak, lock};
use crate::task::Tasks;

pub use error::BlobError;
pub use key::KEY_MAX;
pub use list::{BlobEntry, BlobList, ListItem, ListOptions, Page};
pub use map::StoreMap;
pub use read::{BlobReader, BlobStat};
pub use versions::VersionInfo;
pub use write::PutOptions;

/// Maximum difference between the machine's clock and the bucket's: version ids contain the machine's time.
const CLOCK_MAX: Duration = Duration::from_secs(60);

/// Local resources of a blob store, and defaults for what it creates.
#[derive(Clone, Debug)]
pub struct BlobOptions {
    /// Cache directory, limits for the journal and the caches, and the owner of the root.
    pub config: NamespaceConfig,
    /// Timeouts and other settings of the bucket.
    pub backend: BackendConfig,
    /// The clock and the source of ids.
    pub env: Arc<dyn Env>,
    /// The default author of versions.
    pub author: Author,
    /// Permission bits of new blobs, as a mount shows them.
    pub mode: u32,
    /// Permission bits of directories that a put creates.
    pub directory_mode: u32,
}

impl BlobOptions {
    /// Returns options with all local files below `cache_dir`. Changes in it that are not in the bucket yet are
    /// recovered by the next store with the same directory.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            config: NamespaceConfig {
                cache_dir: cache_dir.into(),
                cache_bytes: 1 << 30,
                memory_bytes: 128 << 20,
                dirty_bytes_max: 256 << 20,
                linger: Linger::AtOnce,
                host: "library".to_owned(),
                owner: Owner::default(),
                reclaim: GcMode::Always,
                grace: GRACE,
                checkpoints: CheckpointLimits::default(),
                takeover: Takeover::Wait(WaitProgress::default()),
                lease: LeaseTimes::default(),
                backend_timeout: None,
            },
            backend: BackendConfig::default(),
            env: Arc::new(SystemEnv),
            author: Author {
                uid: 0,
                process: "library".to_owned(),
            },
            mode: 0o644,
            directory_mode: 0o755,
        }
    }
}

/// The blobs of one namespace, for which this process is the only writer. Clones share one open store.
#[derive(Clone, Debug)]
pub struct BlobStore(Arc<OpenStore>);

/// An open namespace and the state of its store.
#[derive(Debug)]
struct OpenStore {
    backend: Backend,
    name: String,
    namespace: Namespace,
    options: BlobOptions,
    tasks: Tasks,
    family: Arc<StoreRegistry>,
    /// Serializes imports and changes of settings, which read before they write.
    alone: tokio::sync::Mutex<()>,
}

impl Drop for OpenStore {
    fn drop(&mut self) {
        // No handle is left to close the store. The journal keeps what is not in the bucket, for the next store.
        self.tasks.stop();
    }
}

/// The open stores of one family by their full names. A second writer for the same namespace in this process would
/// fence the first, so the open one is shared.
#[derive(Debug, Default)]
struct StoreRegistry(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Weak<OpenStore>>>>>);

impl StoreRegistry {
    fn place(&self, name: &str) -> Arc<tokio::sync::Mutex<Weak<OpenStore>>> {
        Arc::clone(lock(&self.0).entry(name.to_owned()).or_default())
    }
}

impl BlobStore {
    /// Opens the namespace `name` of the bucket at `url`, creates it if it does not exist, and takes it from any other
    /// writer. Changes that an earlier store with the same cache directory acknowledged are recovered. Requires a Tokio
    /// runtime.
    ///
    /// # Errors
    /// `Store`: `Invalid` for a wrong URL or name, `Unavailable` if the bucket does not answer or fails its probe,
    /// `Busy` if another process uses the cache directory, `Clock` if the clocks differ too much, `Corrupt`.
    pub async fn open(url: &str, name: &str, options: BlobOptions) -> Result<Self, BlobError> {
        let backend = Backend::open(url, &options.backend)?;
        backend.check().await?;
        let there = backend.probe(options.env.as_ref()).await?.store_time_ns;
        let apart = Duration::from_nanos(options.env.now().abs_diff(there));
        if apart > CLOCK_MAX {
            let text = format!(
                "{}: its clock and this machine's are {} s apart",
                backend.url(),
                apart.as_secs()
            );
            return Err(StoreError::Clock(text).into());
        }
        Self::open_in(&backend, name, options).await
    }

    /// As [`BlobStore::open`], in a bucket that is already open and probed.
    ///
    /// # Errors
    /// As [`BlobStore::open`].
    pub async fn open_in(
        backend: &Backend,
        name: &str,
        options: BlobOptions,
    ) -> Result<Self, BlobError> {
        Self::join(backend.clone(), name.to_owned(), options, Arc::default()).await
    }

    async fn join(
        backend: Backend,
        name: String,
        options: BlobOptions,
        family: Arc<StoreRegistry>,
    ) -> Result<Self, BlobError> {
        let place = family.place(&name);
        let mut known = place.lock().await;
        if let Some(open) = known.upgrade() {
            return Ok(Self(open));
        }
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let (config, env) = (options.config.clone(), Arc::clone(&options.env));
        let opened = Namespace::open(&backend, &name, config, env, tasks.clone()).await;
        let namespace = opened.inspect_err(|_| tasks.stop())?;
        let open = Arc::new(OpenStore {
            backend,
            name,
            namespace,
            options,
            tasks,
            family,
            alone: tokio::sync::Mutex::default(),
        });
        *known = Arc::downgrade(&open);
        Ok(Self(open))
    }

    /// Opens the store of the namespace `name` below this one, for example `eu` or `team/eu`. It has its own writer and
    /// history. While it is open, further calls return the same store.
    ///
    /// # Errors
    /// As [`BlobStore::open`].
    pub async fn child(&self, name: &str) -> Result<Self, BlobError> {
        let whole = format!("{}/{name}", self.0.name);
        crate::store::check_name(&whole)?;
        let (backend, options) = (self.0.backend.clone(), self.0.options.clone());
        Self::join(backend, whole, options, Arc::clone(&self.0.family)).await
    }

    /// Returns the full name of the namespace.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the namespace, with the tree that a mount shows.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Waits until every acknowledged put is in the bucket.
    ///
    /// # Errors
    /// `Store` with `Unavailable` if the bucket fails for too long; the remaining changes are kept and tried again.
    pub async fn flush(&self) -> Result<(), BlobError> {
        Ok(self.0.namespace.drain().await?)
    }

    /// Writes everything to the bucket and closes the store; afterwards, calls on any clone fail. Child stores stay
    /// open.
    ///
    /// # Errors
    /// As [`BlobStore::flush`]; changes that are not in the bucket stay in the cache directory for the next store.
    pub async fn close(self) -> Result<(), BlobError> {
        let place = self.0.family.place(&self.0.name);
        let mut known = place.lock().await;
        let closed = self.0.namespace.close().await;
        self.0.tasks.stop();
        self.0.tasks.join().await;
        *known = Weak::new();
        Ok(closed?)
    }
}
