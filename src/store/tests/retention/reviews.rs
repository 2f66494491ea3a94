//! Versions that something else than time keeps, when that changes: after crashes, and in reports.

use super::words::{DAY, HOUR};
use super::*;
use crate::store::tests::labels::{label, try_label};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

async fn policy(ns: &Namespace, words: &[&str]) {
    let mut policy = Policy::default();
    for word in words {
        policy.set(word).unwrap();
    }
    let set = ns.retention.set_policy(&policy, InForce::Now).await;
    set.unwrap();
}

async fn rename(ns: &Namespace, from: &[u8], to: &[u8]) {
    let (from, to) = (DentryRef::new(ROOT, from), DentryRef::new(ROOT, to));
    let author = author();
    let renamed = ns.tree.rename(from, to, RenameMode::Replace, &author);
    renamed.await.unwrap();
}

async fn texts(ns: &Namespace, name: &[u8]) -> Vec<String> {
    let all = history(ns, ROOT, name).await.into_iter();
    all.map(|text| String::from_utf8(text).unwrap()).collect()
}

const LAST_ONLY: [&str; 5] = [
    "keep-within=1s",
    "keep-hourly=off",
    "keep-daily=off",
    "keep-weekly=off",
    "keep-removed=off",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_a_verdict_is_durable_lists_the_versions_of_a_removed_label_again() {
    let cluster = TestCluster::new("retention-overtaken");
    let ns = cluster.open().await;
    policy(&ns, &LAST_ONLY).await;
    policy(&ns, &["grid=off", "keep-within=1s", "keep-last=0"]).await;
    save(&ns, ROOT, b"a", b"1").await;
    ns.drain().await.unwrap();
    label(&ns, ROOT, b"mine").await;
    cluster.env.advance(MINUTE);
    save(&ns, ROOT, b"a", b"2").await;
    cluster.env.advance(MINUTE);
    assert_eq!(prune(&ns).await.kept[&KeptBy::Label].versions, 1);
    ns.history.remove_label(ROOT, b"mine").await.unwrap();
    // The next save of the file waits for its upload, and what changes the file's older versions waits for the save.
    ns.core
        .health
        .failpoints
        .set_only(failpoints::Failpoint::Upload);
    save(&ns, ROOT, b"a", &vec![7; 1 << 20]).await;
    let report = ns.retention.run(DROP).await.unwrap();
    assert_eq!(report.dropped.versions, 1);
    // What depends on nothing is committed meanwhile.
    let node = new_node(Kind::Directory);
    let made = ns.tree.create(ROOT, b"other", node, &author()).await;
    made.unwrap();
    ns.core.changed.notify_waiters();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cluster = cluster.kill(ns).await;
    cluster.wipe();
    let ns = cluster.open().await;
    assert_eq!(texts(&ns, b"a").await, ["1", "2"], "the save is lost");
    assert_eq!(prune(&ns).await.dropped.versions, 1);
    assert_eq!(texts(&ns, b"a").await, ["2"]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_directory_stays_while_a_version_below_it_is_held() {
    let cluster = TestCluster::new("retention-held-below");
    let ns = cluster.open().await;
    policy(&ns, &["grid=off", "keep-within=1s", "keep-removed=1d"]).await;
    let mut directory = ROOT;
    for name in [b"d", b"e"] {
        let node = new_node(Kind::Directory);
        let made = ns.tree.create(directory, name, node, &author()).await;
        directory = made.unwrap().ino;
    }
    cluster.env.advance(2 * HOUR);
    save(&ns, directory, b"f", b"held").await;
    let version = ns.history.view().versions(directory, b"f").await.unwrap();
    let until = Timestamp(ns.now().0 + 100 * DAY);
    let (name, who) = (DentryRef::new(directory, b"f"), author());
    let held = ns.history.hold_version(name, &version[0], until, &who);
    held.await.unwrap();
    cluster.env.advance(MINUTE);
    let there = ns.now();
    ns.tree.unlink(directory, b"f", &author()).await.unwrap();
    let d = ns.tree.lookup(ROOT, b"d").await.unwrap().unwrap().ino;
    ns.tree.rmdir(d, b"e", &author()).await.unwrap();
    ns.tree.rmdir(ROOT, b"d", &author()).await.unwrap();
    cluster.env.advance(50 * DAY);
    assert_eq!(prune(&ns).await.dropped.versions, 0);
    let view = ns.history.view();
    let shown = view.entry_at(ROOT, b"d", there).await.unwrap().unwrap();
    let shown = view.entry_at(shown.ino, b"e", there).await.unwrap();
    let shown = view.entry_at(shown.unwrap().ino, b"f", there).await;
    assert_eq!(shown.unwrap().unwrap().version, version[0].version);
    cluster.env.advance(51 * DAY);
    assert_eq!(prune(&ns).await.dropped.versions, 3);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_renamed_shortly_before_its_removal_is_offered_for_thirty_days() {
    let cluster = TestCluster::new("retention-renamed-tree");
    let ns = cluster.open().await;
    let node = new_node(Kind::Directory);
    let made = ns.tree.create(ROOT, b"p", node, &author()).await.unwrap();
    save(&ns, made.ino, b"f", b"f").await;
    cluster.env.advance(40 * DAY);
    rename(&ns, b"p", b"old").await;
    cluster.env.advance(5 * MINUTE);
    ns.tree.unlink(made.ino, b"f", &author()).await.unwrap();
    ns.tree.rmdir(ROOT, b"old", &author()).await.unwrap();
    for _ in 0..29 {
        cluster.env.advance(DAY);
        prune(&ns).await;
        assert_eq!(removed_names(&ns, ROOT).await, ["old"]);
    }
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_of_a_name_goes_on_over_versions_that_a_user_deleted() {
    let cluster = TestCluster::new("retention-deleted-line");
    let ns = cluster.open().await;
    policy(&ns, &["grid=off", "keep-within=1s", "keep-last=3"]).await;
    save(&ns, ROOT, b"a", b"1").await;
    cluster.env.advance(MINUTE);
    save(&ns, ROOT, b"a", b"2").await;
    cluster.env.advance(MINUTE);
    rename(&ns, b"a", b"b").await;
    cluster.env.advance(MINUTE);
    save(&ns, ROOT, b"b", b"3").await;
    // The last version before the rename, and the first one after it.
    let view = ns.history.view();
    let of_a = view.versions(ROOT, b"a").await.unwrap();
    ns.history
        .delete_version(ROOT, b"a", of_a[1].version)
        .await
        .unwrap();
    let of_b = view.versions(ROOT, b"b").await.unwrap();
    let moved = of_b
        .iter()
        .find(|version| version.ended.is_some() && version.renamed_from.is_some());
    ns.history
        .delete_version(ROOT, b"b", moved.unwrap().version)
        .await
        .unwrap();
    cluster.env.advance(DAY);
    prune(&ns).await;
    save(&ns, ROOT, b"b", b"4").await;
    cluster.env.advance(DAY);
    prune(&ns).await;
    assert_eq!(texts(&ns, b"b").await, ["3", "4"]);
    assert_eq!(texts(&ns, b"a").await, ["1"]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_what_the_run_then_drops() {
    let cluster = TestCluster::new("retention-dry");
    let ns = cluster.open().await;
    policy(
        &ns,
        &[
            "grid=off",
            "keep-within=1h",
            "keep-last=0",
            "keep-removed=2d",
        ],
    )
    .await;
    save(&ns, ROOT, b"removed", b"1").await;
    save(&ns, ROOT, b"labeled", b"1").await;
    ns.drain().await.unwrap();
    let expires = Timestamp(ns.now().0 + DAY);
    try_label(&ns, ROOT, b"short", Some(expires)).await.unwrap();
    cluster.env.advance(2 * HOUR);
    ns.tree.unlink(ROOT, b"removed", &author()).await.unwrap();
    save(&ns, ROOT, b"labeled", b"2").await;
    cluster.env.advance(30 * HOUR);
    let report = prune(&ns).await;
    assert_eq!(report.kept[&KeptBy::Removed].versions, 1, "{report:?}");
    save(&ns, ROOT, b"removed", b"2").await;
    cluster.env.advance(3 * DAY);
    ns.drain().await.unwrap();
    let dry = ns.retention.dry_run().await.unwrap();
    let run = ns.retention.run(DROP).await.unwrap();
    assert_eq!(dry, run);
    assert_eq!(run.dropped.versions, 1);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_is_not_kept_as_the_last_one_of_a_name_that_a_rename_ended() {
    let cluster = TestCluster::new("retention-moved-last");
    let ns = cluster.open().await;
    let short = ["keep-within=1s", "grid=off", "keep-last=0"];
    policy(&ns, &[&short[..], &["keep-removed=1d"]].concat()).await;
    save(&ns, ROOT, b"f", b"1").await;
    ns.drain().await.unwrap();
    label(&ns, ROOT, b"mine").await;
    cluster.env.advance(HOUR);
    save(&ns, ROOT, b"f", b"2").await;
    cluster.env.advance(HOUR);
    rename(&ns, b"f", b"g").await;
    cluster.env.advance(2 * DAY);
    prune(&ns).await;
    assert_eq!(texts(&ns, b"f").await, ["1"]);
    policy(&ns, &[&short[..], &["keep-removed=30d"]].concat()).await;
    ns.history.remove_label(ROOT, b"mine").await.unwrap();
    prune(&ns).await;
    assert_eq!(texts(&ns, b"f").await, [""; 0]);
    leave(ns).await;
}
