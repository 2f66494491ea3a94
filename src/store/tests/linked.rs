//! Large staging files that become segments of a local bucket by a hard link.

use std::time::Duration;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;
use crate::store::data::segment::{footer, hash};

const LEN: usize = 20 << 20;

fn text(seed: u8) -> Vec<u8> {
    (0..LEN).map(|at| (at / 4099) as u8 ^ seed).collect()
}

/// A cluster whose bucket is a directory on `disk`.
fn local(disk: &tempfile::TempDir) -> TestCluster {
    let mut cluster = TestCluster::new("linked");
    let url = format!("file://{}/bucket", disk.path().display());
    cluster.backend = Backend::open(&url, &BackendConfig::default()).unwrap();
    cluster
}

fn inodes(below: &Path, part: &str) -> BTreeSet<u64> {
    let (mut found, mut open) = (BTreeSet::new(), vec![below.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.components().any(|c| c.as_os_str() == part) {
                found.insert(std::fs::metadata(path).unwrap().ino());
            }
        }
    }
    found
}

/// Writes 128 KiB at a time, as the kernel does.
async fn write(ns: &Namespace, name: &[u8], text: &[u8]) {
    let (_, file) = ns
        .tree
        .create_open(ROOT, name, new_file(), &author())
        .await
        .unwrap();
    for (at, part) in text.chunks(128 << 10).enumerate() {
        let offset = (at as u64) * (128 << 10);
        let part = Bytes::copy_from_slice(part);
        file.write(offset, part, &author()).await.unwrap();
    }
    close(&file).await;
}

/// kill -9; the directories are kept.
async fn stop(ns: Namespace) {
    ns.core.health.stop(StoreError::Closed);
    ns.core.tasks.stop();
    ns.core.tasks.join().await;
    let _nobody_sees_it = ns.core.index.writer().unwrap().close().await;
}

async fn sound(cluster: &TestCluster, name: &[u8], text: &[u8]) {
    cluster.wipe();
    let ns = cluster.open().await;
    assert!(content(&ns, ROOT, name).await.as_deref() == Some(text));
    ns.close().await.unwrap();
    for object in cluster.backend().list("data").await.unwrap() {
        let bytes = cluster.backend().get(&object.key).await.unwrap();
        let mut end = 0;
        for extent in footer(&bytes).unwrap().extents {
            assert_eq!(extent.offset as usize, end);
            end += extent.len as usize;
            assert_eq!(hash(&bytes[extent.offset as usize..end]), extent.hash);
        }
    }
    let audit = check_log(&cluster.backend, "default", &CheckConfig::default(), |_| {})
        .await
        .unwrap();
    assert!(audit.is_sound(), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_staging_file_is_hard_linked_into_a_local_bucket() {
    let disk = tempfile::tempdir().unwrap();
    let cluster = local(&disk);
    let ns = cluster.open().await;
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    write(&ns, b"big", &text(1)).await;
    let staged = inodes(cluster.cache.path(), "staging");
    assert_eq!(staged.len(), 3);
    set_failpoint(&ns, None);
    ns.drain().await.unwrap();
    assert_eq!(inodes(disk.path(), "data"), staged);
    // Later writes go to another staging file.
    let ino = ns.tree.lookup(ROOT, b"big").await.unwrap().unwrap().ino;
    let file = ns.tree.file(ino).await.unwrap();
    let more = Bytes::from(vec![7; 3 << 20]);
    file.write(1 << 20, more, &author()).await.unwrap();
    close(&file).await;
    drop(file);
    let mut now = text(1);
    now[1 << 20..4 << 20].fill(7);
    ns.drain().await.unwrap();
    assert_eq!(inodes(disk.path(), "data").len(), 4);
    assert!(history(&ns, ROOT, b"big").await.contains(&text(1)));
    ns.close().await.unwrap();
    sound(&cluster, b"big", &now).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_around_the_hard_link_loses_no_data() {
    use failpoints::Failpoint;
    for step in [Failpoint::Pack, Failpoint::Upload, Failpoint::Commit] {
        let disk = tempfile::tempdir().unwrap();
        let cluster = local(&disk);
        let ns = cluster.open().await;
        ns.drain().await.unwrap();
        set_failpoint(&ns, Some(step));
        write(&ns, b"big", &text(2)).await;
        let staged = inodes(cluster.cache.path(), "staging");
        if step == Failpoint::Commit {
            for _ in 0..2000 {
                if inodes(disk.path(), "data") == staged {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(inodes(disk.path(), "data"), staged);
        }
        stop(ns).await;
        let ns = cluster.open().await;
        assert!(
            content(&ns, ROOT, b"big").await == Some(text(2)),
            "{step:?}"
        );
        let file = ns.tree.lookup(ROOT, b"big").await.unwrap().unwrap().ino;
        let file = ns.tree.file(file).await.unwrap();
        let end = Bytes::from_static(b"the end");
        file.append(end, &author()).await.unwrap();
        close(&file).await;
        drop(file);
        ns.close().await.unwrap();
        let now = [&text(2)[..], b"the end"].concat();
        sound(&cluster, b"big", &now).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_refuses_hard_links_gets_copies() {
    let disk = tempfile::tempdir().unwrap();
    let cluster = local(&disk);
    let foreign = Path::new("/proc/self/status");
    assert!(cluster.backend.put_linked("k", foreign, 1).await.is_err());
    let ns = cluster.open().await;
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    write(&ns, b"big", &text(3)).await;
    let staged = inodes(cluster.cache.path(), "staging");
    set_failpoint(&ns, None);
    ns.close().await.unwrap();
    let objects = inodes(disk.path(), "data");
    assert!(objects.len() >= 3 && objects.is_disjoint(&staged));
    sound(&cluster, b"big", &text(3)).await;
}
