//! What a restore leaves for its undo, under a policy that keeps next to nothing.

use std::time::Duration;

use super::check::log_twin;
use super::restore::{restore, timeless};
use super::undelete::{Tree, live, make, plant, remove};
use super::*;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// Prunes everything that the shortest policy lets go.
pub(super) async fn prune(ns: &Namespace) {
    let mut policy = Policy::default();
    for word in [
        "keep-within=1s",
        "grid=off",
        "keep-last=0",
        "keep-removed=off",
    ] {
        policy.set(word).unwrap();
    }
    let set = ns.retention.set_policy(&policy, InForce::Now).await;
    set.unwrap();
    ns.drain().await.unwrap();
    let options = RunOptions {
        grace: Duration::ZERO,
        brake: Brake::Released,
    };
    ns.retention.run(options).await.unwrap();
}

/// A tree that was changed in every way, and what it was like before.
pub(super) struct ChangedTree {
    pub(super) top: Ino,
    pub(super) at: Timestamp,
    pub(super) then: Tree,
    pub(super) now: Tree,
}

pub(super) async fn changed_tree(cluster: &TestCluster, ns: &Namespace) -> ChangedTree {
    let top = plant(cluster, ns).await;
    let (at, then) = (ns.now(), timeless(live(ns, top).await));
    let inner = ns.tree.lookup(top, b"d0").await.unwrap().unwrap().ino;
    let (from, to) = (DentryRef::new(top, b"d0"), DentryRef::new(top, b"moved"));
    let mode = RenameMode::Replace;
    ns.tree.rename(from, to, mode, &author()).await.unwrap();
    save(ns, inner, b"f1", b"changed").await;
    save(ns, inner, b"new", b"added").await;
    save(ns, top, b"one", b"both changed").await;
    remove(ns, top, b"d1").await;
    let change = AttrChange {
        mode: Some(0o711),
        ..AttrChange::default()
    };
    ns.tree.set_attrs(top, change).await.unwrap();
    cluster.env.advance(20 * SECOND);
    let now = timeless(live(ns, top).await);
    ChangedTree { top, at, then, now }
}

async fn label_names(ns: &Namespace, directory: Ino) -> Vec<String> {
    let labels = ns.history.view().labels(directory).await.unwrap();
    let names = labels.iter().map(|label| label.name.escape_ascii());
    names.map(|name| name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_tree_is_restored_back_after_a_prune_by_a_short_policy() {
    let cluster = TestCluster::new("restore-undo");
    let ns = cluster.open().await;
    let ChangedTree { top, at, then, now } = changed_tree(&cluster, &ns).await;
    let restored = restore(&ns, ROOT, b"top", at, AddedNames::Remove).await;
    let before = Timestamp(restored.unwrap().at.unwrap().0 - 1);
    assert_eq!(timeless(live(&ns, top).await), then);
    let labels = ns.history.view().labels(top).await.unwrap();
    assert_eq!(labels.len(), 1);
    assert_eq!(labels[0].timestamp, before);
    assert_eq!(labels[0].expires, Some(Timestamp(before.0 + 1 + 30 * DAY)));
    cluster.env.advance(29 * DAY);
    prune(&ns).await;
    let exact = ns.history.exact_time(top, before).await.unwrap();
    assert_eq!(exact, Some(before));
    let undone = restore(&ns, ROOT, b"top", before, AddedNames::Remove).await;
    assert!(undone.unwrap().at.is_some());
    assert_eq!(timeless(live(&ns, top).await), now);
    assert_eq!(label_names(&ns, top).await.len(), 2, "the undo has its own");
    let mode = ns.tree.stat(top).await.unwrap().attrs.mode;
    assert_eq!(mode & 0o777, 0o711, "the directory's own mode");
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
    // A month after the restore its label goes, and then what it kept.
    cluster.env.advance(2 * DAY);
    prune(&ns).await;
    assert_eq!(label_names(&ns, top).await.len(), 1);
    assert_ne!(
        ns.history.exact_time(top, before).await.unwrap(),
        Some(before)
    );
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_file_is_restored_back_after_a_prune_by_a_short_policy() {
    for linked in [false, true] {
        let cluster = TestCluster::new("restore-undo-file");
        let ns = cluster.open().await;
        let ino = save(&ns, ROOT, b"f", b"first").await;
        if linked {
            ns.tree.link(ino, ROOT, b"other", &author()).await.unwrap();
        }
        let at = ns.now();
        save(&ns, ROOT, b"f", b"second").await;
        cluster.env.advance(20 * SECOND);
        let restored = restore(&ns, ROOT, b"f", at, AddedNames::Remove).await;
        let before = Timestamp(restored.unwrap().at.unwrap().0 - 1);
        assert_eq!(content(&ns, ROOT, b"f").await.unwrap(), b"first");
        cluster.env.advance(29 * DAY);
        prune(&ns).await;
        restore(&ns, ROOT, b"f", before, AddedNames::Remove)
            .await
            .unwrap();
        assert_eq!(content(&ns, ROOT, b"f").await.unwrap(), b"second");
        // The held version goes a month after the restore; the one that the undo replaced is held for a month from then.
        cluster.env.advance(2 * DAY);
        prune(&ns).await;
        let holds = ns.history.view().all_holds(ns.now()).await.unwrap();
        assert_eq!(holds.len(), 1, "{holds:?}");
        ns.drain().await.unwrap();
        log_twin(&ns, &cluster).await;
        leave(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_within_a_second_have_labels_of_different_names_that_can_be_removed() {
    let cluster = TestCluster::new("restore-labels");
    let ns = cluster.open().await;
    let top = make(&ns, ROOT, b"top", Kind::Directory).await;
    save(&ns, top, b"f", b"first").await;
    let first = ns.now();
    save(&ns, top, b"f", b"second").await;
    let second = ns.now();
    for at in [first, second, second] {
        restore(&ns, ROOT, b"top", at, AddedNames::Remove)
            .await
            .unwrap();
    }
    let names = label_names(&ns, top).await;
    // The last one had nothing to change.
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("before-restore-20"), "{names:?}");
    assert_eq!(names[1], format!("{}-2", names[0]));
    for name in names {
        ns.history.remove_label(top, name.as_bytes()).await.unwrap();
    }
    assert!(label_names(&ns, top).await.is_empty());
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_a_restore_replaces_by_a_file_comes_back_after_a_prune() {
    let cluster = TestCluster::new("restore-undo-kind");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"name", b"a file").await;
    let at = ns.now();
    remove(&ns, ROOT, b"name").await;
    let directory = make(&ns, ROOT, b"name", Kind::Directory).await;
    save(&ns, directory, b"f", b"inside").await;
    cluster.env.advance(20 * SECOND);
    let restored = restore(&ns, ROOT, b"name", at, AddedNames::Remove).await;
    let before = Timestamp(restored.unwrap().at.unwrap().0 - 1);
    assert_eq!(content(&ns, ROOT, b"name").await.unwrap(), b"a file");
    cluster.env.advance(29 * DAY);
    prune(&ns).await;
    let exact = ns.history.exact_time(directory, before).await.unwrap();
    assert_eq!(exact, Some(before));
    restore(&ns, ROOT, b"name", before, AddedNames::Remove)
        .await
        .unwrap();
    let back = ns.tree.lookup(ROOT, b"name").await.unwrap().unwrap().ino;
    assert_eq!(content(&ns, back, b"f").await.unwrap(), b"inside");
    leave(ns).await;
}
