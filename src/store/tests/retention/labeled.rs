//! How much each label keeps: what its amounts say after runs, renames, removals and deletions, and that `check` recounts them.

use super::amounts::assert_recounted;
use super::words::{DAY, HOUR};
use super::*;
use crate::store::schema::amounts;
use crate::store::schema::rows::LabelPin;
use crate::store::schema::tables::AmountTable;
use crate::store::tests::labels::label;

/// A cluster whose policy keeps one ended version of each name, and what is younger than an hour.
async fn opened(name: &str) -> (TestCluster, Namespace) {
    opened_with(name, &["grid=off", "keep-within=1h", "keep-last=1"]).await
}

/// Prunes, recounts, and returns the number and the bytes of the versions that a label keeps.
async fn keeps(ns: &Namespace, label: &Label) -> (u64, u64) {
    prune(ns).await;
    assert_recounted(ns).await;
    let keeps = ns.history.view().label_keeps(label).await.unwrap();
    (keeps.versions, keeps.bytes)
}

/// How many rows say how much labels keep.
async fn amount_rows(ns: &Namespace) -> usize {
    ns.drain().await.unwrap();
    let (from, end) = (AmountTable::all(), keys::after(&AmountTable::all()));
    let rows = ns.core.index.snapshot().keys(from, end).await.unwrap();
    rows.iter().filter(|key| amounts::is_of_label(key)).count()
}

/// Saves a file of `len` bytes a few times, an hour apart.
async fn save_often(cluster: &TestCluster, ns: &Namespace, name: &[u8], len: usize) {
    for seed in 1..4_u8 {
        cluster.env.advance(HOUR);
        save(ns, ROOT, name, &vec![seed; len]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_counts_the_versions_that_no_rule_of_time_keeps() {
    let (cluster, ns) = opened("labeled").await;
    save_often(&cluster, &ns, b"f", 1000).await;
    save_often(&cluster, &ns, b"g", 50).await;
    let first = label(&ns, ROOT, b"first").await;
    let second = label(&ns, ROOT, b"second").await;
    assert_eq!(keeps(&ns, &first).await, (0, 0), "all of it is current");
    save_often(&cluster, &ns, b"f", 700).await;
    save_often(&cluster, &ns, b"g", 70).await;
    let third = label(&ns, ROOT, b"third").await;
    save_often(&cluster, &ns, b"f", 10).await;
    cluster.env.advance(DAY);
    // What two labels show counts for the older one.
    assert_eq!(keeps(&ns, &first).await, (2, 1050));
    assert_eq!(keeps(&ns, &second).await, (0, 0));
    assert_eq!(keeps(&ns, &third).await, (1, 700));

    let before = ns.rows_read();
    ns.history
        .rename_label(ROOT, b"first", b"renamed")
        .await
        .unwrap();
    let read = ns.rows_read() - before;
    assert!(read < 10, "{read} rows");
    assert_eq!(keeps(&ns, &first).await, (2, 1050));

    ns.history.remove_label(ROOT, b"renamed").await.unwrap();
    assert_eq!(keeps(&ns, &first).await, (0, 0));
    assert_eq!(keeps(&ns, &second).await, (2, 1050));
    assert_eq!(amount_rows(&ns).await, 4, "of two labels");
    for name in [&b"second"[..], b"third"] {
        ns.history.remove_label(ROOT, name).await.unwrap();
    }
    prune(&ns).await;
    assert_recounted(&ns).await;
    assert_eq!(amount_rows(&ns).await, 0, "they go with the last label");
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_deleted_is_subtracted() {
    let (cluster, ns) = opened("labeled-deleted").await;
    let mut labels = Vec::new();
    for (name, len) in [(&b"v1"[..], 1000), (b"v2", 500)] {
        cluster.env.advance(HOUR);
        save(&ns, ROOT, b"f", &vec![1; len]).await;
        labels.push(label(&ns, ROOT, name).await);
    }
    save_often(&cluster, &ns, b"f", 10).await;
    cluster.env.advance(2 * HOUR);
    for (label, bytes) in labels.iter().zip([1000, 500]) {
        assert_eq!(keeps(&ns, label).await, (1, bytes));
    }
    // Between the removal of a label and the next run its version is filed under it still.
    for label in &labels {
        ns.history.remove_label(ROOT, &label.name).await.unwrap();
    }
    let mut versions = ns.history.view().versions(ROOT, b"f").await.unwrap();
    versions.sort_by_key(|version| version.version);
    let amount = async |label: &Label| {
        ns.drain().await.unwrap();
        let keeps = ns.history.view().label_keeps(label).await.unwrap();
        (keeps.versions, keeps.bytes)
    };
    // The record of the second one goes; that of the first one stays, for the name, without bytes.
    for (at, left) in [(1, (0, 0)), (0, (1, 0))] {
        let id = versions[at].version;
        ns.history.delete_version(ROOT, b"f", id).await.unwrap();
        assert_recounted(&ns).await;
        assert_eq!(amount(&labels[at]).await, left);
    }
    prune(&ns).await;
    assert_recounted(&ns).await;
    assert_eq!(amount_rows(&ns).await, 0);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_two_names_counts_once() {
    let (cluster, ns) = opened("labeled-linked").await;
    let ino = save(&ns, ROOT, b"f", &[1; 1000]).await;
    ns.tree.link(ino, ROOT, b"g", &author()).await.unwrap();
    let kept = label(&ns, ROOT, b"v").await;
    save_often(&cluster, &ns, b"f", 10).await;
    ns.tree.unlink(ROOT, b"g", &author()).await.unwrap();
    cluster.env.advance(60 * DAY);
    assert_eq!(keeps(&ns, &kept).await, (1, 1000));
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_the_time_of_a_label_leaves_its_amounts() {
    let (cluster, ns) = opened("labeled-restored").await;
    save(&ns, ROOT, b"f", &[1; 1000]).await;
    let kept = label(&ns, ROOT, b"v").await;
    save_often(&cluster, &ns, b"f", 10).await;
    cluster.env.advance(2 * HOUR);
    assert_eq!(keeps(&ns, &kept).await, (1, 1000));
    let pin = ns.history.pin_restored(LabelPin {
        timestamp: kept.timestamp,
        directory: ROOT,
    });
    ns.retention.protection().await.unwrap();
    drop(pin);
    assert_eq!(keeps(&ns, &kept).await, (1, 1000));
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_notices_that_a_label_was_removed() {
    let (_cluster, ns) = opened("labeled-removed").await;
    save(&ns, ROOT, b"f", b"1").await;
    label(&ns, ROOT, b"v").await;
    let protection = ns.retention.protection().await.unwrap();
    assert!(!ns.retention.is_outdated(&protection));
    ns.history.remove_label(ROOT, b"v").await.unwrap();
    assert!(ns.retention.is_outdated(&protection));
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_amount_of_a_label_is_found() {
    let (cluster, ns) = opened("labeled-wrong").await;
    save(&ns, ROOT, b"f", &[1; 1000]).await;
    let kept = label(&ns, ROOT, b"v").await;
    save_often(&cluster, &ns, b"f", 10).await;
    cluster.env.advance(2 * HOUR);
    assert_eq!(keeps(&ns, &kept).await, (1, 1000));
    let pin = LabelPin {
        timestamp: kept.timestamp,
        directory: kept.directory,
    };
    for key in [amounts::labeled_bytes(pin), amounts::labeled_versions(pin)] {
        let mut txn = ns.gc.gc_txn(vec![key.clone().bytes()]);
        txn.merge(key.clone(), &1);
        ns.commit.enqueue(txn).unwrap();
        ns.drain().await.unwrap();
        let stored = ns.core.index.stored();
        let wrong = crate::store::check::wrong_counts(stored.as_ref())
            .await
            .unwrap();
        assert_eq!(wrong, [key.clone().bytes()]);
        let mut txn = ns.gc.gc_txn(vec![key.clone().bytes()]);
        txn.merge(key, &-1);
        ns.commit.enqueue(txn).unwrap();
    }
    assert_recounted(&ns).await;
    leave(ns).await;
}
