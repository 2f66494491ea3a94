//! The store as its users see it: on one bucket in memory, reopened with the cache kept or wiped.

mod basics;

use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::backend::{Backend, BackendConfig};
use crate::env::SystemEnv;
use crate::sync::Arc;
use crate::task::Tasks;

/// A bucket, a cache directory, and whoever is mounted.
pub(crate) struct World {
    backend: Backend,
    cache: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(name: &str) -> Self {
        let url = format!("memory://{name}");
        Self {
            backend: Backend::open(&url, &BackendConfig::default()).unwrap(),
            cache: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) async fn open(&self) -> Namespace {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        Namespace::open(
            &self.backend,
            "default",
            config(self.cache.path().to_owned()),
            Arc::new(SystemEnv),
            tasks,
        )
        .await
        .unwrap()
    }

    /// As a machine that was lost leaves it.
    pub(crate) fn wipe(&self) {
        for entry in std::fs::read_dir(self.cache.path()).unwrap() {
            std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend.child("default")
    }
}

fn config(cache_dir: PathBuf) -> NamespaceConfig {
    NamespaceConfig {
        cache_dir,
        cache_bytes: 64 << 20,
        memory_bytes: 32 << 20,
        dirty_bytes_max: 256 << 20,
        gather: Gather::AtOnce,
        host: "testhost".to_owned(),
        owner: (0, 0),
    }
}

/// Lets the pipeline go no further than before `step`; `None` lets it go on.
pub(crate) fn halt(namespace: &Namespace, step: Option<pipeline::Step>) {
    let at = step.map_or(0, |step| step as u8);
    namespace
        .0
        .health
        .halt
        .store(at, std::sync::atomic::Ordering::SeqCst);
}

/// kill -9: the tasks stop where they are and nothing is written any more.
pub(crate) async fn kill(namespace: Namespace) {
    namespace.0.health.stop(StoreError::Closed);
    namespace.0.tasks.stop();
    namespace.0.tasks.join().await;
    for inode in namespace.0.inodes.unsettled() {
        namespace.0.inodes.settle(inode.ino);
    }
    drop(namespace);
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
    let file = match ns.lookup(dir, name).await.unwrap() {
        Some(stat) => {
            let file = ns.file(stat.ino).await.unwrap();
            file.truncate(0, &author()).await.unwrap();
            file
        }
        None => {
            ns.create_open(dir, name, new_file(), &author())
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
    if let Some(fixed) = file.fix(&author(), None).await.unwrap() {
        file.save(fixed).await.unwrap();
    }
}

pub(crate) async fn content(ns: &Namespace, dir: Ino, name: &[u8]) -> Option<Vec<u8>> {
    let stat = ns.lookup(dir, name).await.unwrap()?;
    let file = ns.file(stat.ino).await.unwrap();
    Some(file.read(0, u32::MAX).await.unwrap().to_vec())
}

pub(crate) async fn history(ns: &Namespace, dir: Ino, name: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for version in ns.versions(dir, name).await.unwrap() {
        all.push(ns.read_past(&version, 0, u32::MAX).await.unwrap().to_vec());
    }
    all
}
