//! A copy out of the past: it is changed, and the versions of its source are deleted.

use super::reclaim::{end, ids, rows_of, segments, settle};
use super::*;

const LEN: usize = 20 << 20;
const CHANGED: usize = 9 << 20;

fn noise(len: usize) -> Vec<u8> {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

async fn check_copy(ns: &Namespace, states: &[&[u8]]) {
    let found = history(ns, ROOT, b"copy").await;
    assert_eq!(found.len(), states.len());
    for (found, expected) in found.iter().zip(states) {
        assert!(found == expected, "a state of the copy");
    }
    let current = content(ns, ROOT, b"copy").await.unwrap();
    assert!(current == states[states.len() - 1], "the copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_stays_readable_after_deletion_of_its_source() {
    let cluster = TestCluster::new("copies");
    let ns = cluster.open().await;
    let original = noise(LEN);
    save(&ns, ROOT, b"original", &original).await;
    save(&ns, ROOT, b"original", b"short").await;
    ns.drain().await.unwrap();
    let sent = ns.counters().bytes_up;

    let past = ns.history.view().versions(ROOT, b"original").await.unwrap();
    let source = ns.tree.clone_source(&past[0]);
    let (_, file) = ns
        .tree
        .create_open(ROOT, b"copy", new_file(), &author())
        .await
        .unwrap();
    assert_eq!(
        file.clone_range(&source, 0, 0, LEN as u64, &author())
            .await
            .unwrap(),
        LEN as u64
    );
    close(&file).await;
    drop(source);
    let change = Bytes::from(vec![1; 4096]);
    file.write(CHANGED as u64, change.clone(), &author())
        .await
        .unwrap();
    close(&file).await;
    drop(file);
    ns.drain().await.unwrap();
    let more = ns.counters().bytes_up - sent;
    assert!(more < 256 << 10, "{more} bytes for a copy and 4 KiB");
    assert_eq!(rows_of(&ns, b"CL").await, 1);

    let mut changed = original.clone();
    changed[CHANGED..CHANGED + change.len()].copy_from_slice(&change);
    ns.history
        .delete_version(ROOT, b"original", past[0].version)
        .await
        .unwrap();
    settle(&ns, &cluster).await;
    check_copy(&ns, &[&original, &changed]).await;
    let mut cluster = cluster.kill(ns).await;
    for wiped in [false, true] {
        if wiped {
            cluster.wipe();
        }
        let ns = cluster.open().await;
        check_copy(&ns, &[&original, &changed]).await;
        cluster = cluster.kill(ns).await;
    }

    // The first version of the copy is deleted; the bytes that the changed version needs stay.
    let ns = cluster.open().await;
    let states = ids(&ns, b"copy").await;
    let deleted = ns.history.delete_version(ROOT, b"copy", states[0]);
    deleted.await.unwrap();
    settle(&ns, &cluster).await;
    check_copy(&ns, &[&changed]).await;
    let deleted = ns.history.delete_version(ROOT, b"copy", states[1]);
    deleted.await.unwrap();
    settle(&ns, &cluster).await;
    assert_eq!(content(&ns, ROOT, b"copy").await, None);
    assert_eq!(rows_of(&ns, b"CL").await, 0);
    let left = segments(&cluster).await;
    assert!(left.len() <= 1, "only that of the short version: {left:?}");
    assert_eq!(content(&ns, ROOT, b"original").await.unwrap(), b"short");
    end(ns, cluster).await;
}
