//! A fenced writer, and many writers in sequence.

use std::time::Duration;

use super::writers::{close_and_check, find};
use super::*;
use crate::store::schema::applied_row::AppliedRow;

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_writer_acknowledges_no_change() {
    let cluster = TestCluster::new("fenced");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"f", b"one").await;
    ns.drain().await.unwrap();
    let file = ns.tree.file(find(&ns, ROOT, b"f").await).await.unwrap();
    let beside = cluster.other_host();
    let second = beside.open().await;
    let noticed = async {
        while !ns.is_fenced() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // It has nothing to commit, so it notices with its next heartbeat.
    let limit = Duration::from_secs(50);
    tokio::time::timeout(limit, noticed).await.unwrap();
    let fenced = |outcome: Result<(), StoreError>| {
        assert!(matches!(outcome, Err(StoreError::Fenced)), "{outcome:?}");
    };
    let text = Bytes::from_static(b"more");
    fenced(file.write(0, text, &author()).await);
    fenced(file.truncate(1, &author()).await);
    fenced(ns.tree.unlink(ROOT, b"f", &author()).await.map(drop));
    let (new, by) = (new_file(), author());
    fenced(ns.tree.create(ROOT, b"g", new, &by).await.map(drop));
    fenced(ns.drain().await);
    let pending = ns.tree.pending();
    assert_eq!((pending.files, pending.operations), (0, 0));
    assert_eq!(content(&second, ROOT, b"f").await.unwrap(), b"one");
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn applied_watermarks_survive_many_other_writers() {
    let cluster = TestCluster::new("many");
    let ns = cluster.open().await;
    set_failpoint(&ns, Some(failpoints::Failpoint::Log));
    let ino = save(&ns, ROOT, b"f", b"one").await;
    ns.tree
        .file(ino)
        .await
        .unwrap()
        .sync(&author())
        .await
        .unwrap();
    let left = cluster.kill(ns).await;
    for n in 0..40_u8 {
        let ns = left.other_host().open().await;
        save(&ns, ROOT, b"g", &[n]).await;
        ns.close().await.unwrap();
    }
    let ns = left.open().await;
    assert_eq!(ns.conflicts(), RecoveredConflicts::default());
    assert_eq!(history(&ns, ROOT, b"f").await, [b"one"]);
    assert_eq!(history(&ns, ROOT, b"g").await.len(), 40);
    save(&ns, ROOT, b"f", b"two").await;
    ns.drain().await.unwrap();
    let row: Option<AppliedRow> = ns.core.index.row(&keys::applied()).await.unwrap();
    assert!(row.is_some_and(|row| row.watermarks.len() <= 32));
    close_and_check(&left, ns).await;
}
