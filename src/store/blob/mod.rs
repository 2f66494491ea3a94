//! Blobs under keys, with every version of them: the store without a file system.
//!
//! A key is a path in the tree that a mount of the namespace shows: what a [`BlobStore`] puts a program below the mount reads,
//! and the other way round. Parts of a key are directories, made when something is put below them and removed again when
//! a delete leaves them empty, unless somebody else made them.
//! Invariant: a reader sees a blob whole, as it was before a put or after it; every put is a version of its own.

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
use crate::store::{Author, GRACE, GcMode, Linger, Namespace, NamespaceConfig, StoreError};
use crate::sync::{Arc, Mutex, Weak, lock};
use crate::task::Tasks;

pub use error::BlobError;
pub use key::KEY_MAX;
pub use list::{BlobEntry, BlobList, ListItem, ListOptions, Page};
pub use map::StoreMap;
pub use read::{BlobReader, BlobStat};
pub use versions::VersionInfo;
pub use write::PutOptions;

/// How far this machine's clock may be from the bucket's: versions are named after it.
const CLOCK_MAX: Duration = Duration::from_secs(60);

/// How a blob store uses its machine, and what it makes.
#[derive(Clone, Debug)]
pub struct BlobOptions {
    /// Where journal, staging files and cached blocks lie, how much of them there may be, who owns the root.
    pub config: NamespaceConfig,
    /// Deadlines and other settings of the bucket.
    pub backend: BackendConfig,
    /// Clock and ids.
    pub env: Arc<dyn Env>,
    /// Who writes, unless a put says otherwise.
    pub author: Author,
    /// Permission bits of new blobs, as a mount shows them.
    pub mode: u32,
    /// Permission bits of directories that keys need.
    pub directory_mode: u32,
}

impl BlobOptions {
    /// Options with everything local below `cache_dir`; what lies there and is not yet in the bucket is found again by
    /// the next store with the same directory.
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
                owner: (0, 0),
                reclaim: GcMode::Always,
                grace: GRACE,
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

/// The blobs of one namespace, which this process alone writes. Clones are the same store.
#[derive(Clone, Debug)]
pub struct BlobStore(Arc<OpenStore>);

/// An open namespace and what its store knows beside it.
#[derive(Debug)]
struct OpenStore {
    backend: Backend,
    name: String,
    namespace: Namespace,
    options: BlobOptions,
    tasks: Tasks,
    family: Arc<StoreRegistry>,
    /// Imports and changes of settings go one at a time: each looks before it writes.
    alone: tokio::sync::Mutex<()>,
}

impl Drop for OpenStore {
    fn drop(&mut self) {
        // Nobody can close it any more: what is not in the bucket is in the journal, for the next store.
        self.tasks.stop();
    }
}

/// The stores opened from one, by their whole names: a second writer in one process would only take the first one's place.
#[derive(Debug, Default)]
struct StoreRegistry(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Weak<OpenStore>>>>>);

impl StoreRegistry {
    fn place(&self, name: &str) -> Arc<tokio::sync::Mutex<Weak<OpenStore>>> {
        Arc::clone(lock(&self.0).entry(name.to_owned()).or_default())
    }
}

impl BlobStore {
    /// Opens the namespace `name` of the bucket at `url`, makes it if it is not there, and takes it from any other writer.
    /// What an earlier store with the same cache directory acknowledged is brought along. Needs a runtime.
    ///
    /// # Errors
    /// `Store`: `Invalid` for a wrong URL or name, `Unavailable` when the bucket does not answer or does not keep its word,
    /// `Busy` when another process uses the cache directory, `Clock`, `Corrupt`.
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

    /// As [`BlobStore::open`], in a bucket that was opened and probed before.
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

    /// The store of the namespace `name` below this one, `eu` or `team/eu`; a store of its own, with its own writer and
    /// history. Who asks again while it is open gets the same.
    ///
    /// # Errors
    /// As [`BlobStore::open`].
    pub async fn child(&self, name: &str) -> Result<Self, BlobError> {
        let whole = format!("{}/{name}", self.0.name);
        crate::store::check_name(&whole)?;
        let (backend, options) = (self.0.backend.clone(), self.0.options.clone());
        Self::join(backend, whole, options, Arc::clone(&self.0.family)).await
    }

    /// Whole name of the namespace.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The tree of the namespace itself, as a mount uses it.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Waits until everything put so far is in the bucket.
    ///
    /// # Errors
    /// `Store` with `Unavailable` when an attempt failed meanwhile; what is missing is kept and tried again.
    pub async fn flush(&self) -> Result<(), BlobError> {
        Ok(self.0.namespace.drain().await?)
    }

    /// Brings everything to the bucket and ends the store; calls on any clone of it fail from then on. Children are stores of
    /// their own and stay open.
    ///
    /// # Errors
    /// As [`BlobStore::flush`]; what is not in the bucket lies in the cache directory for the next store.
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
