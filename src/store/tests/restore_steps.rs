//! Restores in steps: compared with what was there, crashed between any two steps, and what others may do meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::check::{log_twin, names as names_of};
use super::restore::{in_steps, links, random_program, restore, timeless};
use super::restore_undo::{ChangedTree, changed_tree, prune};
use super::undelete::{Tree, live, make, past};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn random_trees_are_restored_exactly_in_steps_and_restores_are_undone() {
    let seeds = rng::number("REWINDFS_TEST_SEEDS").unwrap_or(40);
    let first = rng::number("REWINDFS_TEST_SEED").unwrap_or(1);
    for seed in first..first + seeds {
        random_program(seed, Some(1 + seed as usize % 4)).await;
    }
}

/// Waits until no directory is being restored in steps.
pub(super) async fn restored(ns: &Namespace) {
    let done = async {
        while ns.tree.under_restore.directory().is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), done).await;
    waited.expect("the restore goes on");
}

/// Begins a restore that halts after so many steps; `false` if it ended before.
pub(super) async fn halted(ns: &Namespace, at: Timestamp, steps: usize) -> bool {
    let halt_after = &ns.history.restore_lock.halt_after;
    halt_after.store(steps, Ordering::SeqCst);
    let task = tokio::spawn({
        let ns = ns.clone();
        async move { restore(&ns, ROOT, b"top", at, AddedNames::Remove).await }
    });
    loop {
        if halt_after.load(Ordering::SeqCst) == 0 {
            return true;
        }
        if task.is_finished() {
            task.await.unwrap().unwrap();
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_finishes_a_restore_that_a_crash_left_between_any_two_steps() {
    let mut halts = 0;
    for steps in 1..100 {
        let cluster = TestCluster::new("restore-steps-crash");
        let ns = cluster.open().await;
        let ChangedTree { top, at, then, now } = changed_tree(&cluster, &ns).await;
        in_steps(&ns, 2);
        ns.drain().await.unwrap();
        let is_halted = halted(&ns, at, steps).await;
        let kept = cluster.fork().await;
        ns.drain().await.unwrap();
        let wiped = cluster.fork().await;
        wiped.wipe();
        for (cache, left) in [("kept", kept), ("wiped", wiped)] {
            let ns = left.open().await;
            in_steps(&ns, 2);
            restored(&ns).await;
            assert_eq!(timeless(live(&ns, top).await), then, "{steps} {cache}");
            let labels = ns.history.view().labels(top).await.unwrap();
            assert_eq!(labels.len(), 1, "{steps} {cache}");
            let before = labels[0].timestamp;
            restore(&ns, ROOT, b"top", before, AddedNames::Remove)
                .await
                .unwrap();
            assert_eq!(timeless(live(&ns, top).await), now, "{steps} {cache}");
            ns.drain().await.unwrap();
            log_twin(&ns, &left).await;
            leave(ns).await;
        }
        ns.core.health.stop(StoreError::Closed);
        ns.core.tasks.stop();
        ns.core.index.writer().unwrap().close().await.unwrap();
        if !is_halted {
            break;
        }
        halts += 1;
    }
    assert!((5..90).contains(&halts), "{halts} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_directory_is_restored_in_steps() {
    let cluster = TestCluster::new("restore-steps-root");
    let ns = cluster.open().await;
    let ChangedTree { at, now, .. } = changed_tree(&cluster, &ns).await;
    let changed = timeless(live(&ns, ROOT).await);
    assert!(changed.len() > now.len());
    let then = timeless(past(&ns, ROOT, at).await);
    in_steps(&ns, 2);
    for (time, wanted) in [(Some(at), &then), (None, &changed)] {
        let labels = ns.history.view().labels(ROOT).await.unwrap();
        let at = time.unwrap_or_else(|| labels[0].timestamp);
        let entry = ns.history.view().directory_entry_at(ROOT, at).await;
        let (name, who) = (DentryRef::new(Ino(0), b""), author());
        let entry = entry.unwrap().unwrap();
        let restored = ns
            .history
            .restore(name, entry, at, AddedNames::Remove, &who);
        assert!(restored.await.unwrap().count > 2);
        assert_eq!(&timeless(live(&ns, ROOT).await), wanted);
    }
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_changes_in_a_directory_that_is_restored_in_steps() {
    let cluster = TestCluster::new("restore-steps-busy");
    let ns = cluster.open().await;
    let outside = save(&ns, ROOT, b"outside", b"x").await;
    let ChangedTree { top, at, then, .. } = changed_tree(&cluster, &ns).await;
    save(&ns, top, b"late", b"late").await;
    let first = save(&ns, ROOT, b"elsewhere", b"linked").await;
    ns.tree.link(first, top, b"z", &author()).await.unwrap();
    in_steps(&ns, 2);
    assert!(halted(&ns, at, 1).await);
    let (tree, who) = (&ns.tree, author());
    let moved = tree.lookup(top, b"d2").await.unwrap().unwrap().ino;
    let file = tree.lookup(top, b"late").await.unwrap().unwrap().ino;
    for directory in [top, moved] {
        let made = tree.create(directory, b"made", new_file(), &who).await;
        refused(made);
    }
    refused(tree.link(outside, top, b"linked", &who).await);
    refused(tree.link(file, ROOT, b"linked", &who).await);
    refused(tree.unlink(top, b"late", &who).await);
    refused(tree.rmdir(ROOT, b"top", &who).await);
    refused(tree.set_attrs(file, AttrChange::default()).await);
    let value = Some(Bytes::from_static(b"v"));
    refused(tree.set_xattr(top, b"user.x", value, XattrMode::Any).await);
    let (late, out) = (DentryRef::new(top, b"late"), DentryRef::new(ROOT, b"out"));
    refused(tree.rename(late, out, RenameMode::Replace, &who).await);
    let (outer, into) = (
        DentryRef::new(ROOT, b"outside"),
        DentryRef::new(top, b"into"),
    );
    refused(tree.rename(outer, into, RenameMode::Replace, &who).await);
    let (whole, away) = (DentryRef::new(ROOT, b"top"), DentryRef::new(ROOT, b"away"));
    refused(tree.rename(whole, away, RenameMode::Replace, &who).await);
    let open = tree.file(file).await.unwrap();
    refused(open.write(0, Bytes::from_static(b"w"), &who).await);
    refused(open.truncate(0, &who).await);
    refused(tree.truncate(file, 0, &who).await);
    refused(tree.check_writable(file).await);
    // A file with names inside and outside is busy under each.
    let elsewhere = tree.lookup(ROOT, b"elsewhere").await.unwrap().unwrap().ino;
    let open = tree.file(elsewhere).await.unwrap();
    refused(open.write(0, Bytes::from_static(b"w"), &who).await);
    // Reads, and everything elsewhere, go on.
    assert_eq!(content(&ns, top, b"late").await.unwrap(), b"late");
    save(&ns, ROOT, b"outside", b"y").await;
    make(&ns, ROOT, b"beside", Kind::Directory).await;
    let left = cluster.kill(ns).await;
    let ns = left.open().await;
    restored(&ns).await;
    assert_eq!(timeless(live(&ns, top).await), then);
    save(&ns, top, b"after", b"after").await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_between_two_steps_leaves_what_the_restore_needs() {
    let cluster = TestCluster::new("restore-steps-prune");
    let ns = cluster.open().await;
    let ChangedTree { top, at, then, now } = changed_tree(&cluster, &ns).await;
    in_steps(&ns, 1);
    assert!(halted(&ns, at, 2).await);
    cluster.env.advance(86_400_000_000_000);
    prune(&ns).await;
    let left = cluster.kill(ns).await;
    let ns = left.open().await;
    in_steps(&ns, 1);
    restored(&ns).await;
    assert_eq!(timeless(live(&ns, top).await), then);
    prune(&ns).await;
    let exact = ns.history.exact_time(top, at).await.unwrap();
    assert_ne!(exact, Some(at), "it is not kept any longer");
    let before = ns.history.view().labels(top).await.unwrap()[0].timestamp;
    restore(&ns, ROOT, b"top", before, AddedNames::Remove)
        .await
        .unwrap();
    assert_eq!(timeless(live(&ns, top).await), now);
    leave(ns).await;
}

/// A tree with the ranks of its times instead of them: the tasks of a store read the clock too, and each reading advances it.
fn ranked(mut tree: Tree) -> Tree {
    let times: BTreeSet<Time> = tree.values().map(|shown| shown.3).collect();
    for shown in tree.values_mut() {
        shown.3 = Time {
            seconds: times.range(..shown.3).count() as i64,
            nanos: 0,
        };
    }
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_leave_what_one_operation_leaves() {
    let mut trees = Vec::new();
    for steps in [None, Some(1), Some(3), Some(100)] {
        for added in [AddedNames::Remove, AddedNames::Keep] {
            let cluster = TestCluster::new("restore-steps-same");
            let ns = cluster.open().await;
            let ChangedTree { top, at, .. } = changed_tree(&cluster, &ns).await;
            if let Some(steps) = steps {
                in_steps(&ns, steps);
            }
            let inner = ns.tree.lookup(top, b"moved").await.unwrap().unwrap().ino;
            let done = restore(&ns, ROOT, b"top", at, added).await.unwrap();
            let mut shown = live(&ns, top).await;
            // A directory that is made again has its times of then, one that exists those of the restore.
            shown.retain(|path, _| !["/d0", "/d2"].contains(&path.as_str()));
            let back = ns.tree.lookup(top, b"d0").await.unwrap().unwrap().ino;
            assert_eq!(back, inner, "a directory that was moved inside goes back");
            let removed = removed_names(&ns, inner).await;
            let usage = ns.tree.usage();
            trees.push((
                added == AddedNames::Keep,
                (
                    ranked(shown),
                    links(&ns, top).await,
                    done.count,
                    removed,
                    usage,
                ),
            ));
            ns.drain().await.unwrap();
            log_twin(&ns, &cluster).await;
            leave(ns).await;
        }
    }
    for keeps in [false, true] {
        let same: Vec<_> = trees.iter().filter(|(kept, _)| *kept == keeps).collect();
        for tree in &same {
            assert_eq!(tree, &same[0]);
        }
    }
}

/// Memory that the process has used at most, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() << 10
}

/// Restores a tree, and prints what it takes.
async fn measured(ns: &Namespace, at: Timestamp) -> usize {
    let (memory, began) = (peak(), std::time::Instant::now());
    let restored = restore(ns, ROOT, b"top", at, AddedNames::Remove).await;
    let count = restored.unwrap().count;
    println!(
        "{count} changes: {} s; peak memory {} MiB, before {} MiB",
        began.elapsed().as_secs(),
        peak() >> 20,
        memory >> 20
    );
    count
}

/// Makes a directory of 10,000 names and so many copies of it, removes the copies by a restore, and restores them. Ten copies are more
/// than one operation takes; of fewer, one operation takes half.
async fn large_tree(copies: usize) {
    let bucket = tempfile::tempdir().unwrap();
    let url = format!("file://{}", bucket.path().display());
    let cluster = TestCluster {
        backend: Backend::open(&url, &BackendConfig::default()).unwrap(),
        ..TestCluster::new("restore-steps-large")
    };
    let ns = cluster.open().await;
    let most = &ns.history.restore_lock.entries_max;
    let changes = most.load(Ordering::Relaxed).min(copies * 10_000 / 2);
    most.store(10_001, Ordering::Relaxed);
    let top = make(&ns, ROOT, b"top", Kind::Directory).await;
    let base = make(&ns, ROOT, b"base", Kind::Directory).await;
    let (names, who) = (10_000, author());
    for number in 0..names {
        let name = format!("name{number}");
        let node = new_node(Kind::Symlink);
        let made = ns.tree.create(base, name.as_bytes(), node, &who).await;
        made.unwrap();
    }
    cluster.env.advance(3_600_000_000_000);
    let empty = ns.now();
    for number in 0..copies {
        let name = format!("d{number}");
        let view = ns.history.view();
        let then = view.entry_at(ROOT, b"base", empty).await.unwrap().unwrap();
        let (from, to) = (
            DentryRef::new(ROOT, b"base"),
            DentryRef::new(top, name.as_bytes()),
        );
        let copied = ns.history.restore_as(Some(from), to, then, empty, &who);
        assert_eq!(copied.await.unwrap().count, names + 1);
        ns.drain().await.unwrap();
    }
    cluster.env.advance(3_600_000_000_000);
    most.store(changes, Ordering::Relaxed);
    let full = ns.now();
    let first = ns.tree.lookup(top, b"d0").await.unwrap().unwrap().ino;
    assert_eq!(measured(&ns, empty).await, copies * (names + 1));
    assert!(names_of(&ns, top).await.is_empty());
    assert_eq!(measured(&ns, full).await, copies * (names + 1));
    assert_eq!(names_of(&ns, top).await.len(), copies);
    let back = ns.tree.lookup(top, b"d0").await.unwrap().unwrap().ino;
    assert_eq!(back, first, "a removed directory keeps its number");
    for number in [0, copies - 1] {
        let name = format!("d{number}");
        let back = ns.tree.lookup(top, name.as_bytes()).await.unwrap().unwrap();
        assert_eq!(names_of(&ns, back.ino).await.len(), names);
    }
    assert_eq!(
        ns.tree.usage().files as usize,
        2 + (copies + 1) * names + copies
    );
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_with_more_changes_than_one_operation_takes_is_restored_in_steps() {
    let long = rng::number("REWINDFS_TEST_LONG").map_or(1, |_| 100);
    large_tree(rng::number("REWINDFS_TEST_COPIES").unwrap_or(long) as usize).await;
}
