//! What a restore leaves as it is because what it showed is not kept: forgotten versions, and directories by their policy.

use std::time::Duration;

use super::check::log_twin;
use super::labels::{mkdir, move_to};
use super::restore::{check_counters, in_steps, restore, timeless};
use super::restore_steps::{halted, restored};
use super::undelete::{live, remove};
use super::*;

const HOUR: u64 = 3600 * 1_000_000_000;

/// A restored tree with a directory in the middle that keeps only an hour; returns the time to go back to.
async fn limited_tree(cluster: &TestCluster, ns: &Namespace) -> Timestamp {
    let top = mkdir(ns, ROOT, b"top").await;
    let build = mkdir(ns, top, b"build").await;
    let policy = Policy::of_directory("keep-within=1h grid=off keep-last=0").unwrap();
    let set = ns.retention.set_directory_policy(build, Some(policy));
    set.await.unwrap();
    let all = [
        (top, &b"a"[..]),
        (build, b"o"),
        (top, b"c"),
        (top, b"d"),
        (top, b"e"),
    ];
    for (directory, name) in all {
        save(ns, directory, name, b"then").await;
    }
    cluster.env.advance(HOUR);
    let at = ns.now();
    cluster.env.advance(HOUR);
    for (directory, name) in all {
        save(ns, directory, name, b"now").await;
    }
    cluster.env.advance(3 * HOUR);
    ns.drain().await.unwrap();
    let brake = Brake::Released;
    let grace = Duration::ZERO;
    let run = ns.retention.run(RunOptions { grace, brake }).await;
    assert!(run.unwrap().dropped.versions > 0);
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mount_that_completes_a_restore_names_what_was_left_before_the_crash_too() {
    let mut halts = 0;
    for steps in 1..100 {
        let cluster = TestCluster::new("restore-left");
        let ns = cluster.open().await;
        let at = limited_tree(&cluster, &ns).await;
        in_steps(&ns, 1);
        if !halted(&ns, at, steps).await {
            assert_eq!(ns.history.completed_restore(), None);
            leave(ns).await;
            break;
        }
        halts += 1;
        let left = cluster.kill(ns).await;
        let ns = left.open().await;
        in_steps(&ns, 1);
        restored(&ns).await;
        let mut done = None;
        for _ in 0..600 {
            done = ns.history.completed_restore();
            if done.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A crash after the last step left nothing to complete.
        let Some(done) = done else {
            break;
        };
        assert_eq!((done.path.as_str(), done.at), ("/top", at));
        assert_eq!(done.left, ["/top/build"], "a crash after {steps} steps");
        let top = ns.tree.lookup(ROOT, b"top").await.unwrap().unwrap().ino;
        let build = ns.tree.lookup(top, b"build").await.unwrap().unwrap().ino;
        assert_eq!(content(&ns, top, b"e").await.unwrap(), b"then");
        assert_eq!(content(&ns, build, b"o").await.unwrap(), b"now");
        leave(ns).await;
    }
    assert!(halts > 2, "{halts}");
}

/// Deletes the version that a name showed at a time.
async fn forget(ns: &Namespace, directory: Ino, name: &[u8], at: Timestamp) {
    let then = ns.history.view().entry_at(directory, name, at).await;
    let id = then.unwrap().unwrap().version;
    let deleted = ns.history.delete_version(directory, name, id);
    deleted.await.unwrap();
}

/// Makes a tree in which versions of one time are forgotten: of names that are other files now, or directories, or nothing, or are in a
/// directory that was removed. Returns the tree, and the time.
async fn tree_with_forgotten(ns: &Namespace) -> (Ino, Timestamp) {
    let top = mkdir(ns, ROOT, b"top").await;
    let sub = mkdir(ns, top, b"sub").await;
    for name in [&b".env"[..], b"dir", b"file", b"gone", b"one"] {
        save(ns, top, name, b"then").await;
    }
    for name in [&b"secret"[..], b"plain"] {
        save(ns, sub, name, b"then").await;
    }
    let one = ns.tree.lookup(top, b"one").await.unwrap().unwrap().ino;
    ns.tree.link(one, top, b"two", &author()).await.unwrap();
    let at = ns.now();
    for name in [&b".env"[..], b"file", b"added"] {
        save(ns, top, name, b"now").await;
    }
    save(ns, sub, b"secret", b"now").await;
    for name in [&b"dir"[..], b"gone"] {
        remove(ns, top, name).await;
    }
    for (directory, name) in [
        (top, &b".env"[..]),
        (top, b"dir"),
        (top, b"gone"),
        // The other name keeps the state.
        (top, b"one"),
        (sub, b"secret"),
    ] {
        forget(ns, directory, name, at).await;
    }
    save(ns, top, b"two", b"now").await;
    remove(ns, top, b"sub").await;
    let dir = mkdir(ns, top, b"dir").await;
    save(ns, dir, b"in", b"now").await;
    ns.drain().await.unwrap();
    (top, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_names_are_left_as_they_are_and_named_in_one_operation_and_in_steps() {
    for steps in [None, Some(1), Some(3), Some(100)] {
        let cluster = TestCluster::new("restore-forgotten");
        let ns = cluster.open().await;
        let (top, at) = tree_with_forgotten(&ns).await;
        let before = timeless(live(&ns, top).await);
        if let Some(steps) = steps {
            in_steps(&ns, steps);
        }
        let done = restore(&ns, ROOT, b"top", at, AddedNames::Remove).await;
        let done = done.unwrap();
        let sub = ns.tree.lookup(top, b"sub").await.unwrap().unwrap().ino;
        let left = done.left.iter();
        let mut left: Vec<_> = left.map(|left| (left.parent, &left.name[..])).collect();
        left.sort();
        let mut expected = vec![(sub, &b"secret"[..])];
        expected.extend([&b".env"[..], b"dir", b"gone", b"one"].map(|name| (top, name)));
        expected.sort();
        assert_eq!(left, expected, "{steps:?}");
        let shown = live(&ns, top).await;
        let shown: Vec<_> = shown
            .iter()
            .map(|(path, shown)| (path.as_str(), shown.5.as_slice()))
            .collect();
        let expected = [
            ("/.env", &b"now"[..]),
            ("/dir", b""),
            ("/dir/in", b"now"),
            ("/file", b"then"),
            ("/sub", b""),
            ("/sub/plain", b"then"),
            ("/two", b"then"),
        ];
        assert_eq!(shown, expected, "{steps:?}");
        check_counters(&ns, top).await;
        let undo = Timestamp(done.at.unwrap().0 - 1);
        let undone = restore(&ns, ROOT, b"top", undo, AddedNames::Remove).await;
        assert_eq!(undone.unwrap().left, []);
        assert_eq!(timeless(live(&ns, top).await), before, "{steps:?}");
        // Of the file alone there is nothing to go back to.
        let alone = restore(&ns, top, b".env", at, AddedNames::Remove).await;
        assert!(matches!(alone, Err(StoreError::Invalid(_))), "{alone:?}");
        ns.drain().await.unwrap();
        log_twin(&ns, &cluster).await;
        leave(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_place_of_a_directory_that_is_not_kept_stays() {
    for steps in [None, Some(1)] {
        let cluster = TestCluster::new("restore-left-file");
        let ns = cluster.open().await;
        let at = limited_tree(&cluster, &ns).await;
        let top = ns.tree.lookup(ROOT, b"top").await.unwrap().unwrap().ino;
        move_to(&ns, (top, b"build"), (ROOT, b"away")).await;
        save(&ns, top, b"build", b"a file").await;
        if let Some(steps) = steps {
            in_steps(&ns, steps);
        }
        let done = restore(&ns, ROOT, b"top", at, AddedNames::Remove).await;
        let left = done.unwrap().left;
        assert_eq!((left.len(), &left[0].name[..]), (1, &b"build"[..]));
        assert_eq!(content(&ns, top, b"build").await.unwrap(), b"a file");
        assert_eq!(content(&ns, top, b"a").await.unwrap(), b"then");
        leave(ns).await;
    }
}
