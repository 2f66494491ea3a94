//! Undelete of trees in one batch and in several, with a crash after each step.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::check::{log_twin, names};
use super::undelete::{bring, live, make, past, plant, remove};
use super::*;
use crate::store::schema::tables::{RestoredTreeTable, RowTable};

/// Checks the cluster after a crash with the cache kept and with the cache wiped.
async fn crashed(cluster: &TestCluster) -> Vec<(&'static str, TestCluster)> {
    let kept = cluster.fork().await;
    let wiped = cluster.fork().await;
    wiped.wipe();
    vec![("kept", kept), ("wiped", wiped)]
}

async fn end(ns: Namespace) {
    ns.core.health.stop(StoreError::Closed);
    ns.core.tasks.stop();
    ns.core.index.writer().unwrap().close().await.unwrap();
}

async fn rest() {
    tokio::time::sleep(Duration::from_millis(80)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_the_tree_removed_or_restored() {
    let halts = [
        Some(failpoints::Failpoint::Pack),
        Some(failpoints::Failpoint::Commit),
        Some(failpoints::Failpoint::Flush),
        None,
    ];
    for (halted, entries_max) in halts.into_iter().flat_map(|h| [(h, 1000), (h, 3)]) {
        println!("halted {halted:?}, batches of {entries_max}");
        let cluster = TestCluster::new("undelete-crash");
        let ns = cluster.open().await;
        ns.history
            .restore_lock
            .entries_max
            .store(entries_max, Ordering::Relaxed);
        plant(&cluster, &ns).await;
        let (before, version) = (live(&ns, ROOT).await, ns.now());
        set_failpoint(&ns, halted);
        remove(&ns, ROOT, b"top").await;
        bring(&ns, (ROOT, "top"), (ROOT, "top")).await.unwrap();
        assert_eq!(live(&ns, ROOT).await, before);
        if halted.is_none() {
            ns.drain().await.unwrap();
        }
        rest().await;
        for (cache, left) in crashed(&cluster).await {
            let ns = left.open().await;
            if cache == "kept" || halted.is_none() {
                assert_eq!(live(&ns, ROOT).await, before, "{cache}");
                assert_eq!(past(&ns, ROOT, version).await, before, "{cache}");
            }
            ns.drain().await.unwrap();
            log_twin(&ns, &left).await;
            end(ns).await;
        }
        end(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_last_batch_restores_nothing() {
    let cluster = TestCluster::new("undelete-pending");
    let ns = cluster.open().await;
    let top = plant(&cluster, &ns).await;
    let before = live(&ns, ROOT).await;
    remove(&ns, ROOT, b"top").await;
    ns.drain().await.unwrap();
    let removed = ns
        .history
        .view()
        .deleted_tree_at(ROOT, b"top")
        .await
        .unwrap()
        .unwrap();
    let usage = ns.tree.usage();
    let gathered = ns
        .history
        .gather_tree(removed.entry.ino, removed.at, 3, &author())
        .await
        .unwrap();
    assert!(gathered.ahead.is_some());
    assert!(ns.tree.usage().files > usage.files);
    assert!(ns.tree.lookup(ROOT, b"top").await.unwrap().is_none());
    drop(gathered);
    for drained in [false, true] {
        if drained {
            ns.drain().await.unwrap();
        }
        rest().await;
        for (cache, left) in crashed(&cluster).await {
            println!("drained {drained}, {cache}");
            let ns = left.open().await;
            assert_eq!(ns.tree.usage(), usage);
            assert_eq!(names(&ns, ROOT).await.len(), 0);
            ns.drain().await.unwrap();
            log_twin(&ns, &left).await;
            let rows = ns.core.index.scan(
                RestoredTreeTable::all(),
                keys::after(&RestoredTreeTable::PREFIX),
                9,
            );
            assert!(rows.await.unwrap().is_empty());
            let back = bring(&ns, (ROOT, "top"), (ROOT, "top")).await.unwrap();
            assert_eq!((back.ino, back.generation), (top, 1));
            assert_eq!(live(&ns, ROOT).await, before);
            ns.drain().await.unwrap();
            log_twin(&ns, &left).await;
            end(ns).await;
        }
    }
    let back = bring(&ns, (ROOT, "top"), (ROOT, "top")).await.unwrap();
    assert_eq!((back.ino, back.generation), (top, 1));
    assert_eq!(live(&ns, ROOT).await, before);
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
    end(ns).await;
}

/// Removes and restores a wide and a deep directory of `entries` names, and compares the tree before and after.
async fn many(entries: usize, entries_max: usize) {
    let cluster = TestCluster::new("undelete-many");
    let ns = cluster.open().await;
    ns.history
        .restore_lock
        .entries_max
        .store(entries_max, Ordering::Relaxed);
    let top = make(&ns, ROOT, b"top", Kind::Directory).await;
    let mut below = Vec::new();
    for number in 0..entries / 1000 {
        let name = format!("d{number:03}");
        let directory = make(&ns, top, name.as_bytes(), Kind::Directory).await;
        for file in 0..999 {
            let name = format!("f{file:03}");
            make(&ns, directory, name.as_bytes(), Kind::Symlink).await;
        }
        below.push(directory);
    }
    let usage = ns.tree.usage();
    remove(&ns, ROOT, b"top").await;
    bring(&ns, (ROOT, "top"), (ROOT, "back")).await.unwrap();
    assert_eq!(ns.tree.usage(), usage);
    for directory in &below {
        assert_eq!(names(&ns, *directory).await.len(), 999);
    }
    ns.drain().await.unwrap();
    drop(ns);
    cluster.wipe();
    let ns = cluster.open().await;
    assert_eq!(ns.tree.usage(), usage);
    for directory in below {
        assert_eq!(names(&ns, directory).await.len(), 999);
    }
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_entries_are_restored_in_one_batch() {
    many(10_000, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_entries_than_a_batch_are_restored_atomically() {
    let long = std::env::var_os("REWINDFS_TEST_LONG").is_some();
    let (entries, entries_max) = if long {
        (200_000, 100_000)
    } else {
        (5_000, 1_500)
    };
    many(entries, entries_max).await;
}
