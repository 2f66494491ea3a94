//! Garbage collection: very many files are removed or emptied, most of their versions deleted, and then the size of the bucket
//! is measured from outside.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rewindfs::backend::{Backend, BackendConfig};
use rewindfs::env::SystemEnv;
use rewindfs::store::{
    Author, CheckpointLimits, GcMode, Kind, LeaseTimes, Linger, Namespace, NamespaceConfig,
    NewNode, Owner, PastEntry, ROOT, Takeover,
};
use rewindfs::task::Tasks;

const FILES: usize = 10_000;
const VERSIONS: usize = 3;
const LEN: usize = 24 << 10;
/// The grace period, much shorter than in use.
const GRACE: Duration = Duration::from_secs(2);
/// The time within which the bucket must have shrunk.
const PATIENCE: Duration = Duration::from_secs(240);

/// Bytes of version `version` of file `file`: no two files have any in common.
fn text(file: usize, version: usize) -> Bytes {
    let words = (0..LEN / 8).map(|word| ((file * VERSIONS + version) << 32 | word) as u64);
    words.flat_map(u64::to_le_bytes).collect()
}

fn name(file: usize) -> Vec<u8> {
    format!("f{file:05}").into_bytes()
}

/// Bytes of all files below a directory.
fn size(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            // The file was deleted since the listing.
            Err(_) => 0,
        })
        .sum()
}

fn config(cache: &Path) -> NamespaceConfig {
    NamespaceConfig {
        reclaim: GcMode::Always,
        grace: GRACE,
        checkpoints: CheckpointLimits::default(),
        takeover: Takeover::Now,
        lease: LeaseTimes::default(),
        backend_timeout: None,
        cache_dir: cache.to_owned(),
        cache_bytes: 0,
        memory_bytes: 64 << 20,
        dirty_bytes_max: 256 << 20,
        linger: Linger::AtOnce,
        host: "test".to_owned(),
        owner: Owner::default(),
    }
}

async fn save(namespace: &Namespace, file: usize, version: usize) {
    let author = Author::default();
    let name = name(file);
    let open = match namespace.tree().lookup(ROOT, &name).await.unwrap() {
        Some(stat) => {
            let open = namespace.tree().file(stat.ino).await.unwrap();
            open.truncate(0, &author).await.unwrap();
            open
        }
        None => {
            let node = NewNode {
                kind: Kind::File,
                mode: 0o644,
                uid: 0,
                gid: 0,
                rdev: 0,
                target: Bytes::new(),
                xattrs: Vec::new(),
            };
            let made = namespace
                .tree()
                .create_open(ROOT, &name, node, &author)
                .await;
            made.unwrap().1
        }
    };
    open.write(0, text(file, version), &author).await.unwrap();
    if let Some(fixed) = open.flush(&author, None).await.unwrap() {
        open.save(fixed).await.unwrap();
    }
}

/// Removes half of the files, empties the others, and deletes two of three versions of each; returns bytes still shown.
async fn empty(namespace: &Namespace) -> u64 {
    let author = Author::default();
    let mut shown = 0;
    for file in 0..FILES {
        let name = name(file);
        if file % 2 == 0 {
            namespace.tree().unlink(ROOT, &name, &author).await.unwrap();
        } else {
            let stat = namespace.tree().lookup(ROOT, &name).await.unwrap().unwrap();
            namespace
                .tree()
                .truncate(stat.ino, 0, &author)
                .await
                .unwrap();
        }
        let mut versions = namespace
            .history()
            .view()
            .versions(ROOT, &name)
            .await
            .unwrap();
        versions.retain(|version| version.attrs.size > 0);
        assert_eq!(versions.len(), VERSIONS);
        for (number, version) in versions.iter().enumerate() {
            if number == file % VERSIONS {
                shown += version.attrs.size;
                continue;
            }
            let id = version.version;
            namespace
                .history()
                .delete_version(ROOT, &name, id)
                .await
                .unwrap();
        }
    }
    shown
}

async fn check(namespace: &Namespace, file: usize) {
    let mut versions = namespace
        .history()
        .view()
        .versions(ROOT, &name(file))
        .await
        .unwrap();
    versions.retain(|version| version.attrs.size > 0);
    assert_eq!(versions.len(), 1);
    let read = namespace
        .history()
        .read_past(&versions[0], 0, u32::MAX)
        .await;
    assert!(read.unwrap() == text(file, file % VERSIONS), "file {file}");
}

/// A version that will be deleted, and an open handle on it.
async fn doomed(namespace: &Namespace) -> PastEntry {
    let versions = namespace
        .history()
        .view()
        .versions(ROOT, &name(0))
        .await
        .unwrap();
    versions[1].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_shrinks_to_the_bytes_that_versions_show() {
    let (bucket, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", bucket.path().display());
    let backend = Backend::open(&url, &BackendConfig::default()).unwrap();
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let config = config(cache.path());
    let namespace = Namespace::open(&backend, "main", config, Arc::new(SystemEnv), tasks);
    let namespace = namespace.await.unwrap();
    let start = Instant::now();
    for version in 0..VERSIONS {
        for file in 0..FILES {
            save(&namespace, file, version).await;
        }
    }
    namespace.drain().await.unwrap();
    println!(
        "saved after {:?}: {} bytes",
        start.elapsed(),
        size(bucket.path())
    );
    let reader = doomed(&namespace).await;
    let held = namespace.data().hold_standing(&reader).await.unwrap();
    let shown = empty(&namespace).await;
    namespace.drain().await.unwrap();
    println!(
        "emptied after {:?}: {} bytes",
        start.elapsed(),
        size(bucket.path())
    );
    assert_eq!(shown, (FILES * LEN) as u64);
    assert_eq!(namespace.tree().usage().bytes, 0);

    let allowed = shown + shown * 3 / 10;
    let deadline = Instant::now() + PATIENCE;
    // A copy of a half-dead segment may be in the bucket beside the segment for a moment.
    let mut smallest = size(bucket.path());
    while smallest > allowed && Instant::now() < deadline {
        let read = namespace.history().read_past(&reader, 0, u32::MAX).await;
        assert!(
            read.unwrap() == text(0, 1),
            "a version that an open handle pins"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
        smallest = smallest.min(size(bucket.path()));
    }
    let left: Vec<_> = ["data", "log", "meta"]
        .iter()
        .map(|part| (part, size(&bucket.path().join("main").join(part))))
        .collect();
    println!(
        "after {:?}: {left:?} of {allowed} allowed, {:?}",
        start.elapsed(),
        namespace.gc().reclaimed()
    );
    assert!(smallest <= allowed, "{left:?}, {allowed} allowed");
    let read = namespace.history().read_past(&reader, 0, u32::MAX).await;
    assert!(
        read.unwrap() == text(0, 1),
        "a version that an open handle pins"
    );
    drop(held);
    for file in (0..FILES).step_by(97) {
        check(&namespace, file).await;
    }
    namespace.close().await.unwrap();
}
