//! Uncited segments of ended writers: when they are deleted, and when they must be kept.

use super::reclaim::{end, rows_of, segments, settle};
use super::*;
use crate::env::Env;
use crate::meta::Batch;
use crate::store::schema::object_names::SegmentId;

const GRACE_NS: u64 = 3600 * 1_000_000_000;
const DAY_NS: u64 = 24 * GRACE_NS;

fn bytes(fill: u8) -> Vec<u8> {
    vec![fill; 10_000]
}

/// Sets the namespace's clock to the host's, because the store dates its objects by the host's clock.
async fn set_clock(cluster: &TestCluster) {
    let listed = cluster.backend().list("data").await.unwrap();
    let newest = listed.iter().map(|o| o.modified_ns).max().unwrap();
    cluster
        .env
        .advance(newest.saturating_sub(cluster.env.now()));
}

/// The cluster after a kill of a writer with one uploaded and uncommitted segment.
async fn crashed(name: &str) -> TestCluster {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", &bytes(1)).await;
    ns.drain().await.unwrap();
    set_failpoint(&ns, Some(failpoints::Failpoint::Commit));
    save(&ns, ROOT, b"b", &bytes(2)).await;
    while segments(&cluster).await.len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let cluster = cluster.kill(ns).await;
    cluster.wipe();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncited_segment_beyond_the_end_of_the_log_is_deleted_after_a_month() {
    let cluster = crashed("crash-month").await;
    let ns = cluster.open().await;
    set_clock(&cluster).await;
    ns.gc.reclaim().await.unwrap();
    assert_eq!(rows_of(&ns, b"GN").await, 1);
    settle(&ns, &cluster).await;
    assert_eq!(
        segments(&cluster).await.len(),
        2,
        "the segment is kept for 30 days"
    );
    leave(ns).await;
    // The row of the uncited segment is kept across mounts.
    let ns = cluster.open().await;
    cluster.env.advance(29 * DAY_NS);
    let waits = ns.gc.reclaim().await.unwrap();
    assert_eq!((waits.uncited_segments, waits.segments), (1, 0));
    assert_eq!(
        segments(&cluster).await.len(),
        2,
        "the segment is kept for one more day"
    );
    cluster.env.advance(DAY_NS);
    let done = ns.gc.reclaim().await.unwrap();
    assert_eq!((done.uncited_segments, done.segments), (0, 1));
    assert_eq!(segments(&cluster).await.len(), 1);
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), bytes(1));
    ns.drain().await.unwrap();
    assert_eq!(
        (rows_of(&ns, b"GN").await, rows_of(&ns, b"GO").await),
        (0, 1)
    );
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncited_segment_before_the_end_of_the_log_is_deleted_after_the_grace_period() {
    let cluster = TestCluster::new("crash-grace");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", &bytes(1)).await;
    ns.drain().await.unwrap();
    save(&ns, ROOT, b"a", &bytes(2)).await;
    let (epoch, sequence) = (ns.core.epoch, 0);
    leave(ns).await;
    let left = SegmentId { epoch, sequence }.key();
    cluster.backend().put(&left, bytes(3).into()).await.unwrap();
    let ns = cluster.open().await;
    set_clock(&cluster).await;
    ns.gc.reclaim().await.unwrap();
    assert!(
        segments(&cluster).await.contains(&left),
        "the grace period is not over"
    );
    cluster.env.advance(GRACE_NS + 1);
    let done = ns.gc.reclaim().await.unwrap();
    assert_eq!(done.segments, 1);
    assert!(!segments(&cluster).await.contains(&left));
    assert_eq!(history(&ns, ROOT, b"a").await, [bytes(1), bytes(2)]);
    ns.drain().await.unwrap();
    end(ns, cluster).await;
}

/// An index without the row of a segment that the log has.
async fn without_a_row(name: &str) -> (TestCluster, String) {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", &bytes(1)).await;
    ns.drain().await.unwrap();
    let key = segments(&cluster).await.remove(0);
    let id = SegmentId::from_key(&key).unwrap();
    let mut batch = Batch::new();
    keys::segment(id.epoch, id.sequence).delete(&mut batch);
    let _commit = ns.core.index.writer().unwrap().commit(batch).await.unwrap();
    leave(ns).await;
    (cluster, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_only_the_log_cites_is_kept() {
    let (cluster, key) = without_a_row("log-cites").await;
    let ns = cluster.open().await;
    set_clock(&cluster).await;
    for _ in 0..3 {
        cluster.env.advance(40 * DAY_NS);
        ns.gc.reclaim().await.unwrap();
    }
    assert!(segments(&cluster).await.contains(&key));
    assert_eq!(rows_of(&ns, b"GN").await, 0);
    let told = ns.tree.pending().failures.join("\n");
    assert!(
        told.contains("cited by the log and not by the index") && told.contains(&key),
        "{told}"
    );
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_segment_is_deleted_while_a_log_object_is_missing() {
    let (cluster, key) = without_a_row("log-missing").await;
    let log = cluster.backend().list("log").await.unwrap();
    let lost = &log.last().unwrap().key;
    let whole = cluster.backend().get(lost).await.unwrap();
    let ns = cluster.open().await;
    cluster.backend().delete(lost).await.unwrap();
    set_clock(&cluster).await;
    for _ in 0..3 {
        cluster.env.advance(40 * DAY_NS);
        ns.gc.reclaim().await.unwrap();
    }
    assert!(segments(&cluster).await.contains(&key));
    let told = ns.tree.pending().failures.join("\n");
    assert!(told.contains("the log cannot be searched"), "{told}");
    cluster.backend().put(lost, whole).await.unwrap();
    leave(ns).await;
}
