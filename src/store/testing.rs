//! A host for tests: a bucket and an index in memory, a cache directory, and a namespace that can be killed and mounted
//! again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::{Backend, BackendConfig};
use crate::env::SeededEnv;
use crate::meta::{MemoryStore, MetaStore};
use crate::store::index::current::Index;
use crate::store::model::failpoints::Failpoint;
use crate::store::model::role::Role;
use crate::store::namespace::{NamespaceParts, open_local};
use crate::store::schema::manifest::identity;
use crate::store::schema::merge;
use crate::store::{
    CheckpointLimits, GcMode, LeaseTimes, Linger, Namespace, NamespaceConfig, Owner, StoreError,
    Takeover,
};
use crate::sync::Arc;
use crate::task::Tasks;

/// What survives a crash of the daemon: bucket, index, disk and clock.
pub(crate) struct TestHost {
    backend: Backend,
    index: MemoryStore,
    disk: tempfile::TempDir,
    /// How many daemons were killed.
    lives: usize,
    pub(crate) env: Arc<SeededEnv>,
}

impl TestHost {
    /// Makes a host with an empty bucket and an empty disk.
    pub(crate) fn new() -> Self {
        static HOSTS: AtomicU64 = AtomicU64::new(0);
        let number = HOSTS.fetch_add(1, Ordering::SeqCst);
        let url = format!("memory://host-{number}");
        Self {
            backend: Backend::open(&url, &BackendConfig::default()).unwrap(),
            index: MemoryStore::new(merge::merge),
            disk: tempfile::tempdir().unwrap(),
            lives: 0,
            env: Arc::new(SeededEnv::new(1)),
        }
    }

    /// Mounts the namespace.
    pub(crate) async fn open(&self) -> Namespace {
        let env = Arc::clone(&self.env);
        let place = self.backend.child("default");
        let identity = identity(&place, env.as_ref()).await.unwrap();
        let config = NamespaceConfig {
            cache_dir: self.cache_dir(),
            cache_bytes: 0,
            memory_bytes: 64 << 20,
            dirty_bytes_max: 64 << 20,
            linger: Linger::AtOnce,
            host: "testhost".to_owned(),
            owner: Owner::default(),
            reclaim: GcMode::OnRequest,
            grace: Duration::from_secs(3600),
            checkpoints: CheckpointLimits::default(),
            takeover: Takeover::Now,
            lease: LeaseTimes::default(),
            backend_timeout: None,
        };
        let dir = config.cache_dir.join(identity.uuid.to_string());
        let local = open_local(&dir, identity.uuid).unwrap();
        let index: Arc<dyn MetaStore> = Arc::new(self.index.reopen());
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let parts = NamespaceParts {
            config,
            env,
            tasks,
            home: identity.home(&self.backend, "default"),
            uuid: identity.uuid,
            dir,
            epoch: index.epoch(),
            role: Role::Writer,
            journal: local.journal,
            index: Index::of_writer(index).await.unwrap(),
            lease: None,
        };
        Namespace::start_writer(parts, local.records).await.unwrap()
    }

    /// Ends the daemon as `kill -9` does: its later writes and removals reach neither the disk nor the bucket, and the
    /// index keeps only what is durable.
    pub(crate) async fn kill(&mut self, namespace: Namespace) {
        let shared = &namespace;
        shared.core.health.stop(StoreError::Closed);
        shared.core.tasks.stop();
        shared.core.tasks.join().await;
        let old = self.cache_dir();
        self.lives += 1;
        std::fs::rename(old, self.cache_dir()).unwrap();
        drop(namespace);
    }

    /// Halts the namespace's pipeline before the step with this number, counted from 1; 0 removes the halt.
    pub(crate) fn set_failpoint(&self, namespace: &Namespace, step: u8) {
        let steps = [
            Failpoint::Pack,
            Failpoint::Upload,
            Failpoint::Commit,
            Failpoint::Flush,
            Failpoint::Log,
        ];
        let step = usize::from(step).checked_sub(1).map(|at| steps[at]);
        namespace.core.health.failpoints.set(step);
        namespace.core.changed.notify_waiters();
    }

    fn cache_dir(&self) -> PathBuf {
        self.disk.path().join(self.lives.to_string())
    }
}

impl Namespace {
    /// Returns how many rows were read since the namespace was opened, reads of missing rows included.
    pub(crate) fn rows_read(&self) -> u64 {
        self.core.index.rows_read()
    }

    /// Returns how many ranges of rows were searched since the namespace was opened.
    pub(crate) fn searches(&self) -> u64 {
        self.core.index.searches()
    }
}
