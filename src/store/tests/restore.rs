//! Exact restore of files and trees: random programs, links, moves, crashes, and what it costs.

use std::time::Duration;

use super::check::{log_twin, names};
use super::rng::SeededRng;
use super::undelete::{Shown, Tree, live, make, past, plant, remove};
use super::*;

/// Restores a name to what it showed at a timestamp.
pub(super) async fn restore(
    ns: &Namespace,
    directory: Ino,
    name: &[u8],
    at: Timestamp,
    added: AddedNames,
) -> Result<Restored, StoreError> {
    let then = ns.history.view().entry_at(directory, name, at).await?;
    let then = then.expect("a state at that time");
    let name = DentryRef::new(directory, name);
    ns.history.restore(name, then, at, added, &author()).await
}

/// A tree without the times of directories, which have no history.
pub(super) fn timeless(tree: Tree) -> Tree {
    let no_time = Time {
        seconds: 0,
        nanos: 0,
    };
    let without = |(path, mut shown): (String, _)| {
        let (kind, time): (&Kind, &mut Time) = shown_parts(&mut shown);
        if *kind == Kind::Directory {
            *time = no_time;
        }
        (path, shown)
    };
    tree.into_iter().map(without).collect()
}

fn shown_parts(shown: &mut Shown) -> (&Kind, &mut Time) {
    (&shown.0, &mut shown.3)
}

/// Checks that names which had one inode have one inode, and that others do not.
pub(super) async fn links(ns: &Namespace, directory: Ino) -> Vec<Vec<String>> {
    let mut groups: std::collections::BTreeMap<Ino, Vec<String>> = Default::default();
    let mut open = vec![(String::new(), directory)];
    while let Some((above, directory)) = open.pop() {
        for (name, stat) in names(ns, directory).await {
            let path = format!("{above}/{}", String::from_utf8_lossy(&name));
            match stat.kind {
                Kind::Directory => open.push((path, stat.ino)),
                _ => groups.entry(stat.ino).or_default().push(path),
            }
        }
    }
    let mut groups: Vec<_> = groups.into_values().filter(|g| g.len() > 1).collect();
    groups.iter_mut().for_each(|group| group.sort());
    groups.sort();
    groups
}

/// Checks the counters of names and of directories of each directory.
pub(super) async fn check_counters(ns: &Namespace, directory: Ino) {
    let mut open = vec![directory];
    while let Some(directory) = open.pop() {
        let found = names(ns, directory).await;
        let kinds = found.values().map(|stat| stat.kind);
        let directories = kinds.filter(|kind| *kind == Kind::Directory).count();
        let row = ns.core.index.row(&keys::inode(directory)).await.unwrap();
        let Some(rows::InodeRow::Directory(row)) = row else {
            panic!("{directory:?}: {row:?}");
        };
        let counted = (row.entries, row.directories);
        assert_eq!(counted, (found.len() as i64, directories as i64));
        let below = found.into_values();
        open.extend(below.filter(|s| s.kind == Kind::Directory).map(|s| s.ino));
    }
}

/// Lets each restore of a directory be made in steps of so many changes.
pub(super) fn in_steps(ns: &Namespace, changes: usize) {
    use std::sync::atomic::Ordering;
    let limits = &ns.history.restore_lock;
    limits.entries_max.store(0, Ordering::Relaxed);
    limits.step_max.store(changes, Ordering::Relaxed);
}

/// One random step somewhere below `top`; steps that make no sense fail and are ignored.
async fn step(ns: &Namespace, top: Ino, random: &mut SeededRng) {
    let mut directories = vec![top, ROOT];
    let mut at = 0;
    while let Some(directory) = directories.get(at).copied() {
        at += 1;
        if directory == ROOT {
            continue;
        }
        let found = names(ns, directory).await.into_values();
        directories.extend(found.filter(|s| s.kind == Kind::Directory).map(|s| s.ino));
    }
    let pick = |random: &mut SeededRng| {
        let directory = directories[random.below(directories.len())];
        (directory, vec![b"abcdef"[random.below(6)]])
    };
    let ((one, name), (other, to)) = (pick(random), pick(random));
    let tree = &ns.tree;
    match random.below(9) {
        0 | 1 => {
            let kind = tree.lookup(one, &name).await.unwrap().map(|s| s.kind);
            if kind.is_none_or(|kind| kind == Kind::File) {
                let text = vec![b'0' + random.below(10) as u8; 1 + random.below(6000)];
                save(ns, one, &name, &text).await;
            }
        }
        2 => {
            let node = new_node(Kind::Directory);
            tree.create(one, &name, node, &author()).await.ok();
        }
        3 if tree.lookup(one, &name).await.unwrap().is_some() => {
            remove(ns, one, &name).await;
        }
        4 | 5 => {
            let (from, to) = (DentryRef::new(one, &name), DentryRef::new(other, &to));
            let mode = RenameMode::Replace;
            tree.rename(from, to, mode, &author()).await.ok();
        }
        6 => {
            if let Some(stat) = tree.lookup(one, &name).await.unwrap() {
                tree.link(stat.ino, other, &to, &author()).await.ok();
            }
        }
        7 => {
            if let Some(stat) = tree.lookup(one, &name).await.unwrap() {
                let mode = Some(0o600 + random.below(64) as u32);
                let change = AttrChange {
                    mode,
                    ..AttrChange::default()
                };
                tree.set_attrs(stat.ino, change).await.ok();
            }
        }
        _ => {
            let node = NewNode {
                target: Bytes::from_static(b"there"),
                ..new_node(Kind::Symlink)
            };
            tree.create(one, &name, node, &author()).await.ok();
        }
    }
}

/// Restores random trees; with `steps` in steps of so many changes.
pub(super) async fn random_program(seed: u64, steps: Option<usize>) {
    let _context = PanicContext(format!("seed {seed}, steps {steps:?}"));
    let mut random = SeededRng(seed);
    let cluster = TestCluster::new("restore-random");
    let ns = cluster.open().await;
    if let Some(steps) = steps {
        in_steps(&ns, steps);
    }
    let top = make(&ns, ROOT, b"top", Kind::Directory).await;
    let mut times = Vec::new();
    for number in 0..60 {
        step(&ns, top, &mut random).await;
        if ns.tree.lookup(ROOT, b"top").await.unwrap().map(|s| s.ino) != Some(top) {
            return;
        }
        if number % 6 == 0 {
            cluster.env.advance(11_000_000_000);
            times.push((ns.now(), links(&ns, top).await));
        }
        if number % 10 != 9 {
            continue;
        }
        let (at, linked) = times[random.below(times.len())].clone();
        let wanted = timeless(past(&ns, top, at).await);
        let before = timeless(live(&ns, top).await);
        let outside: Vec<_> = live(&ns, ROOT)
            .await
            .into_iter()
            .filter(|(path, _)| !path.starts_with("/top"))
            .collect();
        let restored = restore(&ns, ROOT, b"top", at, AddedNames::Remove)
            .await
            .unwrap();
        assert_eq!(timeless(live(&ns, top).await), wanted, "restored {at:?}");
        assert_eq!(links(&ns, top).await, linked, "links of {at:?}");
        check_counters(&ns, top).await;
        let now: Vec<_> = live(&ns, ROOT)
            .await
            .into_iter()
            .filter(|(path, _)| !path.starts_with("/top"))
            .collect();
        assert_eq!(now, outside, "outside");
        let Some(done) = restored.at else { continue };
        let last = Timestamp(done.0 - 1);
        assert_eq!(
            timeless(past(&ns, top, last).await),
            before,
            "the past before it"
        );
        assert_eq!(
            timeless(past(&ns, top, at).await),
            wanted,
            "the restored past"
        );
        if random.below(2) == 0 {
            restore(&ns, ROOT, b"top", last, AddedNames::Remove)
                .await
                .unwrap();
            assert_eq!(timeless(live(&ns, top).await), before, "undone");
        }
    }
    ns.drain().await.unwrap();
    let tree = live(&ns, ROOT).await;
    log_twin(&ns, &cluster).await;
    leave(ns).await;
    let ns = cluster.open().await;
    assert_eq!(live(&ns, ROOT).await, tree, "after a remount");
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_trees_are_restored_exactly_and_restores_are_undone() {
    let seeds = rng::number("REWINDFS_TEST_SEEDS").unwrap_or(40);
    let first = rng::number("REWINDFS_TEST_SEED").unwrap_or(1);
    for seed in first..first + seeds {
        random_program(seed, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_comes_back_with_moved_directories_links_and_attributes() {
    let cluster = TestCluster::new("restore-tree");
    let ns = cluster.open().await;
    let top = plant(&cluster, &ns).await;
    let (at, then, linked) = (ns.now(), live(&ns, top).await, links(&ns, top).await);
    assert_eq!(linked, [["/one", "/other"]]);
    let inner = ns.tree.lookup(top, b"d0").await.unwrap().unwrap().ino;
    let mode = RenameMode::Replace;
    let (from, to) = (DentryRef::new(top, b"d0"), DentryRef::new(top, b"moved"));
    ns.tree.rename(from, to, mode, &author()).await.unwrap();
    let out = ns.tree.lookup(top, b"d2").await.unwrap().unwrap().ino;
    let (from, to) = (DentryRef::new(top, b"d2"), DentryRef::new(ROOT, b"out"));
    ns.tree.rename(from, to, mode, &author()).await.unwrap();
    save(&ns, inner, b"f1", b"changed").await;
    save(&ns, inner, b"new", b"added").await;
    save(&ns, top, b"one", b"both changed").await;
    remove(&ns, top, b"d1").await;
    let (before, outside) = (live(&ns, top).await, live(&ns, out).await);
    let usage = ns.tree.usage();
    let restored = restore(&ns, ROOT, b"top", at, AddedNames::Remove)
        .await
        .unwrap();
    let done = restored.at.unwrap();
    assert_eq!(timeless(live(&ns, top).await), timeless(then.clone()));
    assert_eq!(links(&ns, top).await, linked);
    let back = ns.tree.lookup(top, b"d0").await.unwrap().unwrap().ino;
    assert_eq!(back, inner, "a directory that was moved inside goes back");
    assert_eq!(
        live(&ns, out).await,
        outside,
        "one that was moved out stays"
    );
    assert_ne!(ns.tree.usage(), usage);
    assert_eq!(
        past(&ns, top, Timestamp(done.0 - 1)).await.len(),
        before.len()
    );
    // What is there already is not changed again.
    let again = restore(&ns, ROOT, b"top", at, AddedNames::Remove)
        .await
        .unwrap();
    assert_eq!((again.at, again.count), (None, 0));
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_the_tree_before_or_after_a_restore() {
    let halts = [
        Some(failpoints::Failpoint::Pack),
        Some(failpoints::Failpoint::Commit),
        Some(failpoints::Failpoint::Flush),
        None,
    ];
    for halted in halts {
        let cluster = TestCluster::new("restore-crash");
        let ns = cluster.open().await;
        let top = plant(&cluster, &ns).await;
        let (at, then) = (ns.now(), timeless(live(&ns, top).await));
        for name in [&b"d1"[..], b"link"] {
            remove(&ns, top, name).await;
        }
        save(&ns, top, b"one", b"changed").await;
        save(&ns, top, b"added", b"added").await;
        ns.drain().await.unwrap();
        let before = timeless(live(&ns, top).await);
        set_failpoint(&ns, halted);
        restore(&ns, ROOT, b"top", at, AddedNames::Remove)
            .await
            .unwrap();
        if halted.is_none() {
            ns.drain().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(80)).await;
        let (kept, wiped) = (cluster.fork().await, cluster.fork().await);
        wiped.wipe();
        for (cache, left) in [("kept", kept), ("wiped", wiped)] {
            let ns = left.open().await;
            let now = timeless(live(&ns, top).await);
            match cache == "kept" || halted.is_none() {
                true => assert_eq!(now, then, "{halted:?} {cache}"),
                false => assert!(now == then || now == before, "{halted:?} {cache}: {now:?}"),
            }
            ns.drain().await.unwrap();
            log_twin(&ns, &left).await;
            leave(ns).await;
        }
        ns.core.health.stop(StoreError::Closed);
        ns.core.tasks.stop();
        ns.core.index.writer().unwrap().close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_changed_files_are_restored_without_a_segment() {
    let cluster = TestCluster::new("restore-cost");
    let ns = cluster.open().await;
    let top = make(&ns, ROOT, b"top", Kind::Directory).await;
    let files = 10_000;
    for number in 0..files {
        save(&ns, top, format!("f{number}").as_bytes(), b"first").await;
    }
    let at = ns.now();
    for number in 0..files {
        save(&ns, top, format!("f{number}").as_bytes(), b"second!").await;
    }
    ns.drain().await.unwrap();
    let segments = ns.core.backend.list("data").await.unwrap().len();
    let counters = ns.counters();
    let restored = restore(&ns, ROOT, b"top", at, AddedNames::Remove)
        .await
        .unwrap();
    ns.drain().await.unwrap();
    assert_eq!(restored.count, files);
    let after = ns.counters();
    let requests = |c: &crate::backend::Counters| c.put + c.get + c.list + c.delete + c.head;
    let used = requests(&after) - requests(&counters);
    assert!(used <= 200, "{used} requests");
    assert_eq!(ns.core.backend.list("data").await.unwrap().len(), segments);
    assert_eq!(content(&ns, top, b"f77").await.unwrap(), b"first");
    leave(ns).await;
}

#[tokio::test]
async fn unsaved_writes_and_too_many_changes_are_refused() {
    let cluster = TestCluster::new("restore-refused");
    let ns = cluster.open().await;
    let top = make(&ns, ROOT, b"top", Kind::Directory).await;
    let inner = make(&ns, top, b"in", Kind::Directory).await;
    let ino = save(&ns, inner, b"f", b"first").await;
    let at = ns.now();
    save(&ns, inner, b"f", b"second").await;
    let file = ns.tree.file(ino).await.unwrap();
    let bytes = Bytes::from_static(b"open");
    file.write(0, bytes, &author()).await.unwrap();
    let refused = restore(&ns, ROOT, b"top", at, AddedNames::Remove).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("top/in/f has writes"), "{message}");
    close(&file).await;
    let most = &ns.history.restore_lock.entries_max;
    most.store(0, std::sync::atomic::Ordering::Relaxed);
    let refused = restore(&ns, inner, b"f", at, AddedNames::Remove).await;
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("1 changes; one operation makes at most 0"),
        "{message}"
    );
    most.store(1, std::sync::atomic::Ordering::Relaxed);
    restore(&ns, ROOT, b"top", at, AddedNames::Remove)
        .await
        .unwrap();
    assert_eq!(content(&ns, inner, b"f").await.unwrap(), b"first");
    leave(ns).await;
}
