//! Undelete: of a file, of a tree, over an existing name, repeatedly.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::check::{log_twin, names, read_past};
use super::*;

/// A name's kind, mode, owner, modification time, attributes, bytes or target.
pub(super) type Shown = (Kind, u32, u32, Time, Vec<(Bytes, Bytes)>, Vec<u8>);
/// A tree by path.
pub(super) type Tree = BTreeMap<String, Shown>;

fn path(above: &str, name: &[u8]) -> String {
    format!("{above}/{}", String::from_utf8_lossy(name))
}

/// The live tree below a directory.
pub(super) async fn live(ns: &Namespace, directory: Ino) -> Tree {
    let (mut tree, mut open) = (Tree::new(), vec![(String::new(), directory)]);
    while let Some((above, directory)) = open.pop() {
        for (name, stat) in names(ns, directory).await {
            let path = path(&above, &name);
            let bytes = match stat.kind {
                Kind::Directory => {
                    open.push((path.clone(), stat.ino));
                    Vec::new()
                }
                Kind::Symlink => ns.tree.readlink(stat.ino).await.unwrap().to_vec(),
                Kind::File => content(ns, directory, &name).await.unwrap(),
                _ => Vec::new(),
            };
            let mut xattrs = Vec::new();
            for name in ns.tree.list_xattrs(stat.ino).await.unwrap() {
                let value = ns.tree.get_xattr(stat.ino, &name).await.unwrap().unwrap();
                xattrs.push((name, value));
            }
            let attrs = stat.attrs;
            let shown = (stat.kind, attrs.mode, attrs.uid, attrs.mtime, xattrs, bytes);
            tree.insert(path, shown);
        }
    }
    tree
}

/// The tree below a directory at a timestamp.
pub(super) async fn past(ns: &Namespace, directory: Ino, at: Timestamp) -> Tree {
    let (mut tree, mut open) = (Tree::new(), vec![(String::new(), directory)]);
    while let Some((above, directory)) = open.pop() {
        for (name, entry) in ns.history.view().list_at(directory, at).await.unwrap() {
            let path = path(&above, &name);
            let bytes = match entry.kind {
                Kind::Directory => {
                    open.push((path.clone(), entry.ino));
                    Vec::new()
                }
                Kind::Symlink => ns.history.target_past(&entry).to_vec(),
                _ => read_past(ns, &entry).await,
            };
            let attrs = entry.attrs;
            let shown = (
                entry.kind,
                attrs.mode,
                attrs.uid,
                attrs.mtime,
                entry.xattrs,
                bytes,
            );
            tree.insert(path, shown);
        }
    }
    tree
}

pub(super) async fn remove(ns: &Namespace, directory: Ino, name: &[u8]) {
    let stat = ns.tree.lookup(directory, name).await.unwrap().unwrap();
    if stat.kind != Kind::Directory {
        ns.tree.unlink(directory, name, &author()).await.unwrap();
        return;
    }
    for child in names(ns, stat.ino).await.into_keys() {
        Box::pin(remove(ns, stat.ino, &child)).await;
    }
    ns.tree.rmdir(directory, name, &author()).await.unwrap();
}

pub(super) async fn make(ns: &Namespace, directory: Ino, name: &[u8], kind: Kind) -> Ino {
    let node = NewNode {
        target: Bytes::from_static(b"there"),
        ..new_node(kind)
    };
    ns.tree
        .create(directory, name, node, &author())
        .await
        .unwrap()
        .ino
}

pub(super) async fn deleted(ns: &Namespace, directory: Ino) -> Vec<String> {
    let (mut all, mut found) = (ns.history.deleted(directory).await.unwrap(), Vec::new());
    while let Some((name, removed)) = all.next().await.unwrap() {
        let again = ns
            .history
            .view()
            .deleted_tree_at(directory, &name)
            .await
            .unwrap();
        assert_eq!(again, Some(removed));
        found.push(String::from_utf8_lossy(&name).into_owned());
    }
    found
}

pub(super) async fn bring(
    ns: &Namespace,
    from: (Ino, &str),
    to: (Ino, &str),
) -> Result<Stat, StoreError> {
    let from = DentryRef::new(from.0, from.1.as_bytes());
    let to = DentryRef::new(to.0, to.1.as_bytes());
    let done = ns
        .history
        .undelete(from, to, RenameMode::Replace, &author())
        .await;
    done.map(|renamed| renamed.moved)
}

async fn ops(ns: &Namespace, directory: Ino, name: &[u8]) -> Vec<Op> {
    let all = ns.history.view().versions(directory, name).await.unwrap();
    all.into_iter().map(|version| version.op).collect()
}

/// Makes a tree with directories, files of several versions, links, special files and attributes, all one hour old.
pub(super) async fn plant(cluster: &TestCluster, ns: &Namespace) -> Ino {
    let top = make(ns, ROOT, b"top", Kind::Directory).await;
    for number in 0..3u8 {
        let inner = make(ns, top, &[b'd', b'0' + number], Kind::Directory).await;
        for file in 0..4u8 {
            let name = [b'f', b'0' + file];
            save(ns, inner, &name, b"first").await;
            save(ns, inner, &name, &vec![file; 1000 * usize::from(file)]).await;
        }
        make(ns, inner, b"empty", Kind::Directory).await;
    }
    make(ns, top, b"link", Kind::Symlink).await;
    make(ns, top, b"pipe", Kind::Fifo).await;
    let one = save(ns, top, b"one", b"two names").await;
    ns.tree.link(one, top, b"other", &author()).await.unwrap();
    let value = Some(Bytes::from_static(b"value"));
    ns.tree
        .set_xattr(one, b"user.x", value, XattrMode::Any)
        .await
        .unwrap();
    let change = AttrChange {
        mode: Some(0o2751),
        mtime: Some(Time {
            seconds: 77,
            nanos: 5,
        }),
        ..AttrChange::default()
    };
    ns.tree.set_attrs(top, change.clone()).await.unwrap();
    let inner = ns.tree.lookup(top, b"d1").await.unwrap().unwrap().ino;
    ns.tree.set_attrs(inner, change).await.unwrap();
    cluster.env.advance(3_600_000_000_000);
    top
}

#[tokio::test]
async fn a_removed_file_is_restored_under_another_name_with_its_history() {
    let cluster = TestCluster::new("undelete-file");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", b"one").await;
    let old = save(&ns, ROOT, b"a", b"two").await;
    let version = ns.now();
    ns.tree.unlink(ROOT, b"a", &author()).await.unwrap();
    let between = ns.now();
    assert_eq!(deleted(&ns, ROOT).await, ["a"]);
    let usage = ns.tree.usage();
    let back = bring(&ns, (ROOT, "a"), (ROOT, "b")).await.unwrap();
    assert_ne!(back.ino, old);
    assert_eq!(content(&ns, ROOT, b"b").await.unwrap(), b"two");
    assert_eq!(ns.tree.usage().files, usage.files + 1);
    assert_eq!(ns.tree.usage().bytes, usage.bytes + 3);
    assert_eq!(deleted(&ns, ROOT).await, [""; 0]);
    assert_eq!(
        history(&ns, ROOT, b"b").await,
        [&b"one"[..], b"two", b"two"]
    );
    assert_eq!(
        ops(&ns, ROOT, b"b").await,
        [Op::Create, Op::Write, Op::Undelete]
    );
    assert_eq!(history(&ns, ROOT, b"a").await.len(), 2);
    let last = ns
        .history
        .view()
        .versions(ROOT, b"b")
        .await
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(&last.renamed_from.unwrap().name[..], b"a");
    for (name, at, there) in [
        (b"a", version, true),
        (b"a", between, false),
        (b"b", between, false),
    ] {
        let found = ns.history.view().entry_at(ROOT, name, at).await.unwrap();
        assert_eq!(found.is_some(), there, "{name:?} at {at:?}");
    }
    assert!(matches!(
        bring(&ns, (ROOT, "a"), (ROOT, "c")).await,
        Err(StoreError::NotFound)
    ));
    save(&ns, ROOT, b"b", b"three").await;
    ns.tree
        .rename(
            DentryRef::new(ROOT, b"b"),
            DentryRef::new(ROOT, b"c"),
            RenameMode::Replace,
            &author(),
        )
        .await
        .unwrap();
    assert_eq!(
        history(&ns, ROOT, b"c").await,
        [&b"one"[..], b"two", b"two", b"three", b"three"]
    );
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
}

#[tokio::test]
async fn a_removed_file_is_restored_under_its_own_name_repeatedly() {
    let cluster = TestCluster::new("undelete-again");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", b"one").await;
    let mut gaps = Vec::new();
    for _ in 0..3 {
        ns.tree.unlink(ROOT, b"a", &author()).await.unwrap();
        gaps.push(ns.now());
        bring(&ns, (ROOT, "a"), (ROOT, "a")).await.unwrap();
    }
    assert_eq!(history(&ns, ROOT, b"a").await, [b"one"; 4]);
    ns.tree.unlink(ROOT, b"a", &author()).await.unwrap();
    bring(&ns, (ROOT, "a"), (ROOT, "b")).await.unwrap();
    assert_eq!(history(&ns, ROOT, b"b").await, [b"one"; 5]);
    for gap in gaps {
        assert!(
            ns.history
                .view()
                .entry_at(ROOT, b"a", gap)
                .await
                .unwrap()
                .is_none()
        );
    }
    assert_eq!(deleted(&ns, ROOT).await, [""; 0]);
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
}

#[tokio::test]
async fn renamed_and_recreated_names_are_not_listed_as_removed() {
    let cluster = TestCluster::new("undelete-renamed");
    let ns = cluster.open().await;
    for name in [&b"moved"[..], b"young", b"again", b"gone"] {
        save(&ns, ROOT, name, name).await;
    }
    cluster.env.advance(60_000_000_000);
    for (from, to) in [(b"moved", b"MOVED"), (b"young", b"YOUNG")] {
        ns.tree
            .rename(
                DentryRef::new(ROOT, from),
                DentryRef::new(ROOT, to),
                RenameMode::Replace,
                &author(),
            )
            .await
            .unwrap();
    }
    ns.tree.unlink(ROOT, b"again", &author()).await.unwrap();
    ns.tree.unlink(ROOT, b"gone", &author()).await.unwrap();
    save(&ns, ROOT, b"again", b"new").await;
    let unborn = ns
        .tree
        .create_open(ROOT, b"unborn", new_file(), &author())
        .await;
    drop(unborn);
    ns.tree.unlink(ROOT, b"unborn", &author()).await.unwrap();
    assert_eq!(deleted(&ns, ROOT).await, ["gone"]);
    for name in ["moved", "again", "never"] {
        assert!(matches!(
            bring(&ns, (ROOT, name), (ROOT, "x")).await,
            Err(StoreError::NotFound)
        ));
    }
}

#[tokio::test]
async fn a_removed_tree_is_restored_and_keeps_its_past() {
    let cluster = TestCluster::new("undelete-tree");
    let ns = cluster.open().await;
    let top = plant(&cluster, &ns).await;
    let inner = ns.tree.lookup(top, b"d1").await.unwrap().unwrap();
    let (before, version, usage) = (live(&ns, ROOT).await, ns.now(), ns.tree.usage());
    remove(&ns, ROOT, b"top").await;
    let between = ns.now();
    let removed = ns
        .history
        .view()
        .deleted_tree_at(ROOT, b"top")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(deleted(&ns, ROOT).await, ["top"]);
    let shown = past(&ns, removed.entry.ino, removed.at).await;
    let below = |tree: &Tree| -> Tree {
        let inside = tree.iter().filter_map(|(path, shown)| {
            let path = path.strip_prefix("/top/")?;
            Some((format!("/{path}"), shown.clone()))
        });
        inside.collect()
    };
    assert_eq!(shown, below(&before));
    cluster.env.advance(60_000_000_000);
    let back = bring(&ns, (ROOT, "top"), (ROOT, "back")).await.unwrap();
    let renamed: Tree = before
        .iter()
        .map(|(path, shown)| (path.replacen("/top", "/back", 1), shown.clone()))
        .collect();
    assert_eq!(live(&ns, ROOT).await, renamed);
    assert_eq!(
        ns.tree.usage().bytes,
        usage.bytes + 9,
        "two names are two files"
    );
    assert_eq!((back.ino, back.generation), (top, 1));
    let again = ns.tree.lookup(top, b"d1").await.unwrap().unwrap();
    assert_eq!((again.ino, again.generation), (inner.ino, 1));
    assert_eq!(again.nlink, inner.nlink);
    assert_eq!(past(&ns, ROOT, version).await, before);
    assert_eq!(past(&ns, ROOT, between).await, Tree::new());
    assert_eq!(past(&ns, ROOT, ns.now()).await, renamed);
    assert_eq!(
        ops(&ns, inner.ino, b"f2").await,
        [Op::Create, Op::Write, Op::Undelete]
    );
    assert_eq!(
        ns.history.view().directory_at(top, between).await.unwrap(),
        None,
        "the directory did not exist then"
    );
    save(&ns, inner.ino, b"f2", b"changed").await;
    save(&ns, inner.ino, b"new", b"made").await;
    remove(&ns, ROOT, b"back").await;
    let back = bring(&ns, (ROOT, "back"), (ROOT, "top")).await.unwrap();
    assert_eq!((back.ino, back.generation), (top, 2));
    assert_eq!(content(&ns, inner.ino, b"f2").await.unwrap(), b"changed");
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
    assert_eq!(past(&ns, ROOT, version).await, before);
}

#[tokio::test]
async fn an_inode_number_in_use_is_not_given_to_a_restored_file() {
    let cluster = TestCluster::new("undelete-taken");
    let ns = cluster.open().await;
    let top = make(&ns, ROOT, b"top", Kind::Directory).await;
    let inner = make(&ns, top, b"inner", Kind::Directory).await;
    save(&ns, inner, b"f", b"one").await;
    save(&ns, inner, b"f", b"two").await;
    ns.tree.unlink(inner, b"f", &author()).await.unwrap();
    ns.tree.rmdir(top, b"inner", &author()).await.unwrap();
    bring(&ns, (top, "inner"), (ROOT, "elsewhere"))
        .await
        .unwrap();
    save(&ns, inner, b"f", b"three").await;
    cluster.env.advance(10_000_000_000);
    ns.tree.rmdir(ROOT, b"top", &author()).await.unwrap();
    let back = bring(&ns, (ROOT, "top"), (ROOT, "top")).await.unwrap();
    assert_eq!(back.ino, top);
    let copy = ns.tree.lookup(top, b"inner").await.unwrap().unwrap();
    assert_ne!(copy.ino, inner);
    assert_eq!(content(&ns, copy.ino, b"f").await.unwrap(), b"two");
    assert_eq!(content(&ns, inner, b"f").await.unwrap(), b"three");
    assert_eq!(
        history(&ns, copy.ino, b"f").await,
        [&b"one"[..], b"two", b"two", b"two"],
        "the history ends with the last state that has the copy's bytes"
    );
    assert_eq!(
        history(&ns, inner, b"f").await,
        [&b"one"[..], b"two", b"two", b"three"]
    );
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
}

#[tokio::test]
async fn an_undelete_treats_its_target_as_rename_does() {
    let cluster = TestCluster::new("undelete-over");
    let ns = cluster.open().await;
    for name in [b"file", b"held"] {
        save(&ns, ROOT, name, name).await;
    }
    let directory = make(&ns, ROOT, b"dir", Kind::Directory).await;
    save(&ns, directory, b"x", b"x").await;
    remove(&ns, ROOT, b"file").await;
    let full = make(&ns, ROOT, b"full", Kind::Directory).await;
    save(&ns, full, b"y", b"y").await;
    let gone = make(&ns, ROOT, b"gone", Kind::Directory).await;
    make(&ns, gone, b"z", Kind::Directory).await;
    remove(&ns, ROOT, b"gone").await;
    let max = &ns.history.restore_lock.entries_max;
    for entries_max in [100, 0] {
        max.store(entries_max, Ordering::Relaxed);
        for (from, to, error) in [
            ("file", "full", "is a directory"),
            ("gone", "held", "not a directory"),
            ("gone", "full", "directory not empty"),
        ] {
            let found = bring(&ns, (ROOT, from), (ROOT, to)).await.unwrap_err();
            assert_eq!(found.to_string(), error);
        }
    }
    let kept = ns
        .history
        .undelete(
            DentryRef::new(ROOT, b"file"),
            DentryRef::new(ROOT, b"held"),
            RenameMode::NoReplace,
            &author(),
        )
        .await;
    assert!(matches!(kept, Err(StoreError::Exists)));
    let version = ns.now();
    let replaced = ns
        .history
        .undelete(
            DentryRef::new(ROOT, b"file"),
            DentryRef::new(ROOT, b"held"),
            RenameMode::Replace,
            &author(),
        )
        .await
        .unwrap()
        .replaced
        .unwrap();
    assert_eq!(replaced.stat.nlink, 0);
    assert_eq!(history(&ns, ROOT, b"held").await, [b"held", b"file"]);
    let then = ns
        .history
        .view()
        .entry_at(ROOT, b"held", version)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read_past(&ns, &then).await, b"held");
    ns.tree.unlink(full, b"y", &author()).await.unwrap();
    bring(&ns, (ROOT, "gone"), (ROOT, "full")).await.unwrap();
    assert_eq!(names(&ns, gone).await.len(), 1);
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
}

#[tokio::test]
async fn one_of_two_removed_links_is_restored_as_a_separate_file() {
    let cluster = TestCluster::new("undelete-linked");
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"a", b"one").await;
    ns.tree.link(ino, ROOT, b"b", &author()).await.unwrap();
    ns.tree.unlink(ROOT, b"a", &author()).await.unwrap();
    save(&ns, ROOT, b"b", b"two").await;
    assert_eq!(deleted(&ns, ROOT).await, ["a"]);
    let back = bring(&ns, (ROOT, "a"), (ROOT, "a")).await.unwrap();
    assert_ne!(back.ino, ino);
    assert_eq!((back.nlink, back.attrs.size), (1, 3));
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), b"one");
    assert_eq!(content(&ns, ROOT, b"b").await.unwrap(), b"two");
    ns.drain().await.unwrap();
    log_twin(&ns, &cluster).await;
}

#[tokio::test]
async fn a_time_before_a_directory_was_recreated_shows_the_earlier_directory() {
    let cluster = TestCluster::new("undelete-same-path");
    let ns = cluster.open().await;
    let first = make(&ns, ROOT, b"dist", Kind::Directory).await;
    let inner = make(&ns, first, b"sub", Kind::Directory).await;
    save(&ns, inner, b"f", b"old").await;
    let old = ns.now();
    cluster.env.advance(1_000_000_000);
    remove(&ns, ROOT, b"dist").await;
    let between = ns.now();
    let second = make(&ns, ROOT, b"dist", Kind::Directory).await;
    let new_inner = make(&ns, second, b"sub", Kind::Directory).await;
    save(&ns, new_inner, b"f", b"new").await;
    let asked = async |directory, at| ns.history.view().directory_at(directory, at).await.unwrap();
    assert_eq!(asked(second, old).await, Some(first));
    assert_eq!(asked(new_inner, old).await, Some(inner));
    assert_eq!(asked(second, between).await, None);
    assert_eq!(asked(new_inner, between).await, None);
    ns.tree
        .rename(
            DentryRef::new(ROOT, b"dist"),
            DentryRef::new(ROOT, b"new"),
            RenameMode::Replace,
            &author(),
        )
        .await
        .unwrap();
    assert_eq!(
        asked(second, old).await,
        None,
        "no directory had the name new"
    );
    assert_eq!(asked(second, ns.now()).await, Some(second));
    assert_eq!(
        deleted(&ns, ROOT).await,
        [""; 0],
        "the last directory named dist was moved away"
    );
}

#[tokio::test]
async fn history_continues_through_renames_and_undeletes_across_directories() {
    let cluster = TestCluster::new("undelete-chain");
    let ns = cluster.open().await;
    let one = make(&ns, ROOT, b"one", Kind::Directory).await;
    let two = make(&ns, ROOT, b"two", Kind::Directory).await;
    let rename = async |from, to| {
        cluster.env.advance(20_000_000_000);
        ns.tree
            .rename(from, to, RenameMode::Replace, &author())
            .await
            .unwrap();
    };
    save(&ns, ROOT, b"report", b"1").await;
    rename(
        DentryRef::new(ROOT, b"report"),
        DentryRef::new(one, b"draft"),
    )
    .await;
    save(&ns, one, b"draft", b"2").await;
    rename(DentryRef::new(one, b"draft"), DentryRef::new(two, b"final")).await;
    save(&ns, two, b"final", b"3").await;
    remove(&ns, two, b"final").await;
    bring(&ns, (two, "final"), (ROOT, "back")).await.unwrap();
    rename(DentryRef::new(ROOT, b"back"), DentryRef::new(one, b"last")).await;
    let texts = [b"1", b"1", b"2", b"2", b"3", b"3", b"3"];
    assert_eq!(history(&ns, one, b"last").await, texts);
    let from: Vec<_> = ns.history.view().versions(one, b"last").await.unwrap();
    let from = from.iter().filter_map(|v| v.renamed_from.as_ref());
    let from: Vec<_> = from.map(|origin| origin.name.clone()).collect();
    assert_eq!(from, ["report", "draft", "final", "back"]);
}

#[tokio::test]
async fn an_fsync_in_a_restored_tree_makes_the_whole_tree_durable() {
    for entries_max in [1000, 3] {
        let cluster = TestCluster::new("undelete-sync");
        let ns = cluster.open().await;
        ns.history
            .restore_lock
            .entries_max
            .store(entries_max, Ordering::Relaxed);
        let top = plant(&cluster, &ns).await;
        let before = live(&ns, ROOT).await;
        remove(&ns, ROOT, b"top").await;
        ns.drain().await.unwrap();
        bring(&ns, (ROOT, "top"), (ROOT, "top")).await.unwrap();
        let inner = ns.tree.lookup(top, b"d0").await.unwrap().unwrap().ino;
        let found = ns.tree.lookup(inner, b"f3").await.unwrap().unwrap();
        let file = ns.tree.file(found.ino).await.unwrap();
        file.sync(&author()).await.unwrap();
        let left = cluster.fork().await;
        left.wipe();
        let ns = left.open().await;
        assert_eq!(live(&ns, ROOT).await, before);
    }
}
