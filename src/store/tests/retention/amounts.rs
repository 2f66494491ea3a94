//! Live and history bytes: what they say after saves, copies, links, removals, drops and compaction, and that `check` recounts them.

use super::*;
use crate::env::Env;
use crate::store::schema::amounts;

const BIG: usize = 3 << 20;

/// Drains, collects garbage, recounts, and returns live and history bytes.
async fn counted(ns: &Namespace) -> (u64, u64) {
    ns.drain().await.unwrap();
    ns.gc.reclaim().await.unwrap();
    assert_recounted(ns).await;
    let amounts = ns.retention.amounts().await.unwrap();
    (amounts.live, amounts.history().unwrap())
}

pub(super) async fn assert_recounted(ns: &Namespace) {
    ns.drain().await.unwrap();
    let wrong = crate::store::check::wrong_counts(ns.core.index.stored().as_ref()).await;
    assert_eq!(wrong.unwrap(), Vec::<Bytes>::new(), "wrong counts");
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7) as u8 ^ seed).collect()
}

async fn write_at(ns: &Namespace, ino: Ino, offset: u64, data: &[u8]) {
    let file = ns.tree.file(ino).await.unwrap();
    let data = Bytes::copy_from_slice(data);
    file.write(offset, data, &author()).await.unwrap();
    close(&file).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_what_only_ended_versions_show() {
    let cluster = TestCluster::new("amounts");
    let ns = cluster.open().await;
    assert_eq!(counted(&ns).await, (0, 0));
    let ino = save(&ns, ROOT, b"f", &bytes(1, BIG)).await;
    assert_eq!(counted(&ns).await, (BIG as u64, 0));

    // The new version shares all extents but one with the old one.
    cluster.env.advance(60_000_000_000);
    write_at(&ns, ino, 1 << 20, &bytes(2, 256 << 10)).await;
    assert_eq!(counted(&ns).await, (BIG as u64, 256 << 10));

    // A second name shows no further bytes, and its removal ends none.
    let linked = ns.tree.link(ino, ROOT, b"g", &author()).await;
    linked.unwrap();
    assert_eq!(counted(&ns).await, (BIG as u64, 256 << 10));
    ns.tree.unlink(ROOT, b"f", &author()).await.unwrap();
    assert_eq!(counted(&ns).await, (BIG as u64, 256 << 10));
    ns.tree.unlink(ROOT, b"g", &author()).await.unwrap();
    cluster.env.advance(60_000_000_000);
    let stored = BIG as u64 + (256 << 10);
    assert_eq!(counted(&ns).await, (0, stored));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_versions_are_subtracted_once_their_segments_were_reviewed() {
    let cluster = TestCluster::new("amounts-dropped");
    let ns = cluster.open().await;
    for seed in 0..8 {
        cluster.env.advance(3600 * 1_000_000_000);
        save(&ns, ROOT, b"f", &bytes(seed, 100_000)).await;
        save(&ns, ROOT, b"small", &bytes(seed, 100)).await;
    }
    assert_eq!(counted(&ns).await, (100_100, 700_700));
    cluster.env.advance(2 * words::DAY);
    let mut policy = Policy::default();
    for word in ["keep-within=1h", "grid=off", "keep-last=2"] {
        policy.set(word).unwrap();
    }
    let set = ns.retention.set_policy(&policy, InForce::Now).await;
    set.unwrap();
    let _report = ns.retention.run(CONFIRMED).await.unwrap();
    assert_eq!(counted(&ns).await, (100_100, 200_200));
    // After the grace period the objects go, and half-dead ones have been copied.
    cluster.env.advance(words::DAY);
    assert_eq!(counted(&ns).await, (100_100, 200_200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_was_made_before_is_counted_once() {
    let cluster = TestCluster::new("amounts-old");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"f", &bytes(1, 100_000)).await;
    save(&ns, ROOT, b"f", &bytes(2, 50_000)).await;
    ns.drain().await.unwrap();
    // What a namespace without these rows looks like.
    let mut txn = ns.gc.gc_txn(vec![amounts::stored().bytes()]);
    txn.delete(amounts::stored());
    txn.delete(amounts::stored_before());
    ns.commit.enqueue(txn).unwrap();
    ns.drain().await.unwrap();
    save(&ns, ROOT, b"f", &bytes(3, 10_000)).await;
    assert_recounted(&ns).await;
    let read = async || -> Amounts { ns.retention.amounts().await.unwrap() };
    assert_eq!((read().await.live, read().await.history()), (10_000, None));
    ns.retention.count_stored().await.unwrap();
    ns.retention.count_stored().await.unwrap();
    assert_eq!(counted(&ns).await, (10_000, 150_000));
    save(&ns, ROOT, b"f", &bytes(4, 20_000)).await;
    assert_eq!(counted(&ns).await, (20_000, 160_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_live_size_of_thirty_days_is_known() {
    let cluster = TestCluster::new("amounts-peak");
    let ns = cluster.open().await;
    let now = || Timestamp(cluster.env.now());
    save(&ns, ROOT, b"f", &bytes(1, 100_000)).await;
    ns.drain().await.unwrap();
    ns.retention.note_live_peak(now()).await.unwrap();
    save(&ns, ROOT, b"f", &bytes(2, 10_000)).await;
    ns.drain().await.unwrap();
    for (days, largest) in [(1, 100_000), (28, 100_000), (2, 10_000)] {
        cluster.env.advance(days * words::DAY);
        ns.retention.note_live_peak(now()).await.unwrap();
        let found = ns.retention.live_peak(now()).await.unwrap();
        assert_eq!(found, largest, "after {days} more days");
    }
    assert_recounted(&ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_appends_that_are_moved_out_of_rows_are_counted_once() {
    let cluster = TestCluster::new("amounts-appends");
    let ns = cluster.open().await;
    let (_, file) = ns
        .tree
        .create_open(ROOT, b"log", new_file(), &author())
        .await
        .unwrap();
    for line in 0..40 {
        let text = Bytes::from(bytes(line, 900));
        file.append(text, &author()).await.unwrap();
        file.sync(&author()).await.unwrap();
        assert_recounted(&ns).await;
    }
    close(&file).await;
    assert_eq!(counted(&ns).await, (36_000, 0));
}
