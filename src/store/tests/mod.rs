//! The store through its public interface: on a bucket in memory, reopened with the cache kept or wiped.

mod audited;
mod backend_timeout;
mod basics;
mod blob;
mod blob_list;
mod blob_made;
mod call_costs;
mod check;
mod checkpoints;
mod copies;
mod costs;
mod damage;
mod edges;
mod fenced;
mod filing;
mod follow;
mod forget;
mod forget_saves;
mod forget_stored;
mod full;
mod held_open;
mod hostile_rows;
mod hot_chains;
mod inline;
mod labels;
mod labels_kept;
mod linked;
mod long;
mod many_rows;
mod matrix;
mod power_loss;
mod provisional_past;
mod random_programs;
mod read_ahead;
mod rebuild;
mod rebuild_losses;
mod rebuild_newer;
mod reclaim;
mod reclaim_model;
mod repairs;
mod restore;
mod restore_left;
mod restore_pruned;
mod restore_running;
mod restore_steps;
mod restore_undo;
mod retention;
mod rng;
mod scenarios;
mod session;
mod snapshots;
mod tree;
mod uncited;
mod undelete;
mod undelete_crash;
mod writers;

use std::path::PathBuf;

use bytes::Bytes;

use crate::backend::{Backend, BackendConfig};
use crate::env::SeededEnv;
use crate::store::commit::log_object;
use crate::store::model::failpoints;
use crate::store::schema::{keys, merge, rows};
use crate::store::*;
use crate::sync::Arc;
use crate::task::Tasks;

/// A bucket, a cache directory and a clock.
pub(crate) struct TestCluster {
    backend: Backend,
    cache: tempfile::TempDir,
    pub(crate) env: Arc<SeededEnv>,
}

impl TestCluster {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, Arc::new(SeededEnv::new(1)))
    }

    fn with(name: &str, env: Arc<SeededEnv>) -> Self {
        static CLUSTERS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = CLUSTERS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let url = format!("memory://{name}-{number}");
        Self {
            backend: Backend::open(&url, &BackendConfig::default()).unwrap(),
            cache: tempfile::tempdir().unwrap(),
            env,
        }
    }

    /// The same cluster on another, empty bucket.
    fn on(self, url: &str) -> Self {
        let backend = Backend::open(url, &BackendConfig::default()).unwrap();
        Self { backend, ..self }
    }

    pub(crate) async fn open(&self) -> Namespace {
        self.try_open().await.unwrap()
    }

    pub(crate) async fn try_open(&self) -> Result<Namespace, StoreError> {
        self.try_open_with(config(self.cache.path().to_owned()))
            .await
    }

    pub(crate) async fn open_with(&self, checkpoints: CheckpointLimits) -> Namespace {
        let config = config(self.cache.path().to_owned());
        let config = NamespaceConfig {
            checkpoints,
            ..config
        };
        self.try_open_with(config).await.unwrap()
    }

    async fn try_open_with(&self, config: NamespaceConfig) -> Result<Namespace, StoreError> {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let env: Arc<SeededEnv> = Arc::clone(&self.env);
        Namespace::open(&self.backend, "default", config, env, tasks).await
    }

    /// Empties the cache directory, as the loss of the machine does.
    pub(crate) fn wipe(&self) {
        for entry in std::fs::read_dir(self.cache.path()).unwrap() {
            std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend.child("default")
    }

    /// A copy of the bucket and the cache directory. Later changes of the original do not reach the copy. No upload may be in
    /// progress during the copy.
    pub(crate) async fn fork(&self) -> Self {
        let fork = Self::with("fork", Arc::clone(&self.env));
        for info in self.backend.list("").await.unwrap() {
            // The index may have deleted the object since the listing.
            if let Ok(bytes) = self.backend.get(&info.key).await {
                fork.backend.put(&info.key, bytes).await.unwrap();
            }
        }
        copy(self.cache.path(), fork.cache.path());
        fork
    }

    /// kill -9: the tasks stop, and later writes and deletions do not reach the returned cluster.
    pub(crate) async fn kill(self, namespace: Namespace) -> Self {
        namespace.core.health.stop(StoreError::Closed);
        namespace.core.tasks.stop();
        namespace.core.tasks.join().await;
        let left = self.fork().await;
        let _nobody_sees_it = namespace.core.index.writer().unwrap().close().await;
        drop(namespace);
        left
    }
}

/// Prints what was being done when a test panics, so that the message of an `unwrap` names the operation.
pub(crate) struct PanicContext(pub(crate) String);

impl Drop for PanicContext {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed at: {}", self.0);
        }
    }
}

/// Closes a namespace; the same cache directory can be opened again.
pub(crate) async fn leave(ns: Namespace) {
    ns.close().await.unwrap();
    ns.core.tasks.join().await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // The block cache has no data of its own.
        if entry.file_name() == "blocks" {
            continue;
        }
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}

fn config(cache_dir: PathBuf) -> NamespaceConfig {
    NamespaceConfig {
        cache_dir,
        // No block cache on disk: what a test reads comes from the bucket.
        cache_bytes: 0,
        memory_bytes: 128 << 20,
        dirty_bytes_max: 256 << 20,
        linger: Linger::For(std::time::Duration::from_millis(1)),
        host: "testhost".to_owned(),
        owner: Owner::default(),
        reclaim: GcMode::OnRequest,
        grace: std::time::Duration::from_secs(3600),
        checkpoints: CheckpointLimits {
            // A list of all rows has several parts.
            part_bytes: 1 << 10,
            ..CheckpointLimits::default()
        },
        takeover: Takeover::Now,
        lease: LeaseTimes::default(),
        backend_timeout: None,
    }
}

/// Stops the pipeline before `step`; `None` lets it continue.
pub(crate) fn set_failpoint(namespace: &Namespace, step: Option<failpoints::Failpoint>) {
    namespace.core.health.failpoints.set(step);
    namespace.core.changed.notify_waiters();
}

pub(crate) fn author() -> Author {
    Author {
        uid: 7,
        process: "test".to_owned(),
    }
}

pub(crate) fn new_file() -> NewNode {
    new_node(Kind::File)
}

pub(crate) fn new_node(kind: Kind) -> NewNode {
    NewNode {
        kind,
        mode: 0o644,
        uid: 7,
        gid: 8,
        rdev: 0,
        target: Bytes::new(),
        xattrs: Vec::new(),
    }
}

/// What `echo TEXT > NAME` does.
pub(crate) async fn save(ns: &Namespace, dir: Ino, name: &[u8], text: &[u8]) -> Ino {
    let file = match ns.tree.lookup(dir, name).await.unwrap() {
        Some(stat) => {
            let file = ns.tree.file(stat.ino).await.unwrap();
            file.truncate(0, &author()).await.unwrap();
            file
        }
        None => {
            ns.tree
                .create_open(dir, name, new_file(), &author())
                .await
                .unwrap()
                .1
        }
    };
    file.write(0, Bytes::copy_from_slice(text), &author())
        .await
        .unwrap();
    close(&file).await;
    file.ino()
}

/// FLUSH and RELEASE of a handle that wrote.
pub(crate) async fn close(file: &File) {
    if let Some(flushed) = file.flush(&author(), None).await.unwrap() {
        file.save(flushed).await.unwrap();
    }
}

pub(crate) async fn content(ns: &Namespace, dir: Ino, name: &[u8]) -> Option<Vec<u8>> {
    let stat = ns.tree.lookup(dir, name).await.unwrap()?;
    let file = ns.tree.file(stat.ino).await.unwrap();
    Some(file.read(0, u32::MAX).await.unwrap().to_vec())
}

pub(crate) async fn history(ns: &Namespace, dir: Ino, name: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for version in ns.history.view().versions(dir, name).await.unwrap() {
        all.push(
            ns.history
                .read_past(&version, 0, u32::MAX)
                .await
                .unwrap()
                .to_vec(),
        );
    }
    all
}

/// The names that `@deleted` of a directory lists; checks that a lookup finds each.
pub(crate) async fn removed_names(ns: &Namespace, dir: Ino) -> Vec<String> {
    let (mut names, mut listing) = (Vec::new(), ns.history.deleted(dir).await.unwrap());
    while let Some((name, listed)) = listing.next().await.unwrap() {
        let found = ns.history.view().deleted_tree_at(dir, &name).await.unwrap();
        assert_eq!(found, Some(listed), "{name:?}");
        names.push(String::from_utf8(name.to_vec()).unwrap());
    }
    names
}
