//! Names of directories that stay because something protected is reached through them.

use super::words::{DAY, HOUR, SECOND};
use super::*;
use crate::store::tests::labels::{label, mkdir, move_to};

/// A cluster whose policy keeps an hour of history, and removed names for a month.
async fn opened(name: &str) -> (TestCluster, Namespace) {
    opened_with(name, &["grid=off", "keep-within=1h", "keep-removed=30d"]).await
}

async fn rmdir(ns: &Namespace, parent: Ino, name: &[u8]) {
    ns.tree.rmdir(parent, name, &author()).await.unwrap();
}

/// Prunes, and returns the names that have a version that ended.
async fn names(ns: &Namespace) -> Vec<String> {
    prune(ns).await;
    let all = recorded(ns).await.into_iter();
    all.map(|((_, name), _, _)| name).collect()
}

/// Makes `outer` and `inner` with a file, and moves `inner` into `outer`, which was moved before to `moved`.
async fn moved_into(cluster: &TestCluster, ns: &Namespace) -> (Ino, Ino) {
    let outer = mkdir(ns, ROOT, b"outer").await;
    let inner = mkdir(ns, ROOT, b"inner").await;
    save(ns, inner, b"f", b"1").await;
    cluster.env.advance(DAY);
    move_to(ns, (ROOT, b"outer"), (ROOT, b"moved")).await;
    cluster.env.advance(DAY);
    (outer, inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_keeps_the_names_of_a_directory_that_its_own_came_into_later() {
    let (cluster, ns) = opened("leading-hold").await;
    let (outer, inner) = moved_into(&cluster, &ns).await;
    let versions = ns.history.view().versions(inner, b"f").await.unwrap();
    let until = Timestamp(ns.now().0 + 90 * DAY);
    let (name, who) = (DentryRef::new(inner, b"f"), author());
    let held = ns.history.hold_version(name, &versions[0], until, &who);
    held.await.unwrap();
    move_to(&ns, (ROOT, b"inner"), (outer, b"in")).await;
    cluster.env.advance(DAY);
    ns.tree.unlink(inner, b"f", &who).await.unwrap();
    rmdir(&ns, outer, b"in").await;
    rmdir(&ns, ROOT, b"moved").await;
    cluster.env.advance(60 * DAY);
    // When it was still `outer`, nothing held was in it.
    assert_eq!(names(&ns).await, ["inner", "moved", "in", "f"]);
    cluster.env.advance(31 * DAY);
    assert_eq!(names(&ns).await, [""; 0]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_is_reached_through_every_directory_that_its_own_was_removed_in() {
    let (cluster, ns) = opened("leading-label").await;
    let (outer, inner) = moved_into(&cluster, &ns).await;
    label(&ns, inner, b"v").await;
    move_to(&ns, (ROOT, b"inner"), (outer, b"in")).await;
    cluster.env.advance(HOUR);
    ns.tree.unlink(inner, b"f", &author()).await.unwrap();
    rmdir(&ns, outer, b"in").await;
    // The labeled directory is not below it any more, and found through its new name all the same.
    cluster.env.advance(HOUR);
    move_to(&ns, (ROOT, b"moved"), (ROOT, b"again")).await;
    cluster.env.advance(2 * HOUR);
    rmdir(&ns, ROOT, b"again").await;
    cluster.env.advance(60 * DAY);
    assert_eq!(names(&ns).await, ["again", "inner", "moved", "in", "f"]);
    ns.history.remove_label(inner, b"v").await.unwrap();
    assert_eq!(names(&ns).await, [""; 0]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_below_a_directory_with_a_short_policy_go_when_that_policy_says() {
    let (cluster, ns) = opened("leading-policy").await;
    let short = mkdir(&ns, ROOT, b"short").await;
    let policy = Policy::of_directory("keep-removed=5d").unwrap();
    let set = ns.retention.set_directory_policy(short, Some(policy));
    set.await.unwrap();
    save(&ns, short, b"f", b"1").await;
    cluster.env.advance(DAY);
    ns.tree.unlink(short, b"f", &author()).await.unwrap();
    cluster.env.advance(SECOND);
    rmdir(&ns, ROOT, b"short").await;
    // Past every exact time, but not past the policy of the removed directory.
    cluster.env.advance(3 * DAY);
    assert_eq!(names(&ns).await, ["short", "f"]);
    // Its name stays, to say so, for as long as the namespace keeps removed names.
    cluster.env.advance(3 * DAY);
    assert_eq!(names(&ns).await, ["short"]);
    cluster.env.advance(30 * DAY);
    assert_eq!(names(&ns).await, [""; 0]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_removal_of_an_undeleted_directory_counts_from_its_own_time() {
    let (cluster, ns) = opened("leading-undeleted").await;
    mkdir(&ns, ROOT, b"first").await;
    cluster.env.advance(DAY);
    rmdir(&ns, ROOT, b"first").await;
    cluster.env.advance(DAY);
    let (old, new) = (
        DentryRef::new(ROOT, b"first"),
        DentryRef::new(ROOT, b"then"),
    );
    let (history, who) = (&ns.history, author());
    let back = history.undelete(old, new, RenameMode::NoReplace, &who);
    back.await.unwrap();
    cluster.env.advance(20 * DAY);
    rmdir(&ns, ROOT, b"then").await;
    cluster.env.advance(8 * DAY);
    assert_eq!(names(&ns).await, ["first", "then"]);
    cluster.env.advance(2 * DAY);
    assert_eq!(names(&ns).await, ["then"]);
    cluster.env.advance(20 * DAY);
    assert_eq!(names(&ns).await, [""; 0]);
    leave(ns).await;
}
