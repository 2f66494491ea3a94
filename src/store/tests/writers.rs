//! A second writer: which writer is fenced, which changes are restored as `conflict` versions, and that no contents are mixed.

use std::time::Duration;

use std::cell::Cell;

use super::*;
use crate::env::Env;
use crate::store::model::failpoints::STEPS;

impl TestCluster {
    /// Another host with the same bucket.
    pub(in crate::store::tests) fn other_host(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            cache: tempfile::tempdir().unwrap(),
            env: Arc::clone(&self.env),
        }
    }

    /// Mounts with a recovery that fails after `steps` steps, and kills the daemon; `Ok` when the recovery has fewer steps.
    async fn open_and_kill(self, steps: u32) -> Result<Namespace, Self> {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let config = config(self.cache.path().to_owned());
        let env: Arc<SeededEnv> = Arc::clone(&self.env);
        let opened = STEPS.scope(
            Cell::new(steps),
            Namespace::open(&self.backend, "default", config, env, tasks.clone()),
        );
        match opened.await {
            Ok(ns) => Ok(ns),
            Err(error) => {
                assert!(matches!(error, StoreError::Closed), "{error}");
                if steps % 2 == 1 {
                    // Some queued operations are committed before the kill.
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                tasks.stop();
                tasks.join().await;
                Err(self.fork().await)
            }
        }
    }
}

/// Operation and content of each version.
async fn ops_and_contents(ns: &Namespace, dir: Ino, name: &[u8]) -> Vec<(Op, Vec<u8>)> {
    let mut all = Vec::new();
    for version in ns.history.view().versions(dir, name).await.unwrap() {
        let bytes = ns.history.read_past(&version, 0, u32::MAX).await.unwrap();
        let then = ns
            .history
            .view()
            .entry_at(dir, name, version.version.timestamp)
            .await
            .unwrap();
        let stamp = then.map(|then| then.version);
        assert_eq!(
            stamp,
            Some(version.version),
            "the entry at a version's time and the listed version"
        );
        all.push((version.op, bytes.to_vec()));
    }
    all
}

fn conflicts(all: &[(Op, Vec<u8>)]) -> Vec<Vec<u8>> {
    let marked = all.iter().filter(|(op, _)| *op == Op::Conflict);
    marked.map(|(_, bytes)| bytes.clone()).collect()
}

/// Closes, and checks that the log has every row of the index and that every count is right.
pub(super) async fn close_and_check(cluster: &TestCluster, ns: Namespace) {
    ns.close().await.unwrap();
    drop(ns);
    let audit = check_log(&cluster.backend, "default", &CheckConfig::default(), |_| {})
        .await
        .unwrap();
    assert!(audit.is_sound(), "{audit:?}");
}

/// A host with `saved` in the bucket acknowledges the changes of `work` and is killed; another host then takes the namespace and
/// makes the changes of `other`. Returns the first host.
async fn after_another_writer<A, B>(
    name: &str,
    work: impl FnOnce(Namespace) -> A,
    other: impl FnOnce(Namespace) -> B,
) -> TestCluster
where
    A: Future<Output = ()>,
    B: Future<Output = ()>,
{
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    save(&ns, ROOT, b"f", b"one").await;
    save(&ns, ROOT, b"big", &vec![b'a'; 600_000]).await;
    save(&ns, ROOT, b"small", b"small text").await;
    ns.tree
        .create(ROOT, b"d", new_node(Kind::Directory), &author())
        .await
        .unwrap();
    ns.drain().await.unwrap();
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    work(ns.clone()).await;
    let left = cluster.kill(ns).await;
    let beside = left.other_host();
    let ns = beside.open().await;
    other(ns.clone()).await;
    ns.close().await.unwrap();
    left
}

async fn dir(ns: &Namespace, parent: Ino, name: &[u8]) -> Ino {
    let (new, by) = (new_node(Kind::Directory), author());
    ns.tree.create(parent, name, new, &by).await.unwrap().ino
}

pub(super) async fn find(ns: &Namespace, parent: Ino, name: &[u8]) -> Ino {
    ns.tree.lookup(parent, name).await.unwrap().unwrap().ino
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_saves_are_restored_as_conflict_versions() {
    let left = after_another_writer(
        "behind",
        |ns| async move {
            save(&ns, ROOT, b"f", b"two").await;
            save(&ns, ROOT, b"f", b"three").await;
        },
        |ns| async move {
            save(&ns, ROOT, b"f", b"other").await;
        },
    )
    .await;
    let before = Env::now(left.env.as_ref());
    let ns = left.open().await;
    assert_eq!(
        content(&ns, ROOT, b"f").await.as_deref(),
        Some(&b"other"[..])
    );
    let all = ops_and_contents(&ns, ROOT, b"f").await;
    assert_eq!(
        all,
        [
            (Op::Create, b"one".to_vec()),
            (Op::Write, b"other".to_vec()),
            (Op::Conflict, b"two".to_vec()),
            (Op::Conflict, b"three".to_vec()),
            (Op::Restore, b"other".to_vec()),
        ]
    );
    for version in ns.history.view().versions(ROOT, b"f").await.unwrap() {
        let late = matches!(version.op, Op::Conflict | Op::Restore);
        assert_eq!(late, version.version.timestamp.0 > before, "{version:?}");
        assert_eq!(version.author, author());
    }
    let told = ns.conflicts();
    assert_eq!((told.versions, told.places), (2, vec!["f".to_owned()]));
    close_and_check(&left, ns).await;
    let ns = left.open().await;
    assert_eq!(ns.conflicts(), RecoveredConflicts::default());
    assert_eq!(history(&ns, ROOT, b"f").await.len(), 5);
    close_and_check(&left, ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_two_writers_into_one_large_file_are_not_mixed() {
    let at = |offset: u64, byte: u8| {
        move |ns: Namespace| async move {
            let file = ns.tree.file(find(&ns, ROOT, b"big").await).await.unwrap();
            let bytes = Bytes::from(vec![byte; 100_000]);
            file.write(offset, bytes, &author()).await.unwrap();
            close(&file).await;
        }
    };
    let left = after_another_writer(
        "large",
        |ns| async move {
            at(50_000, b'x')(ns.clone()).await;
            at(400_000, b'y')(ns).await;
        },
        at(300_000, b'o'),
    )
    .await;
    let ns = left.open().await;
    let lay = |parts: &[(usize, u8)]| {
        let mut bytes = vec![b'a'; 600_000];
        for (offset, byte) in parts {
            bytes[*offset..offset + 100_000].fill(*byte);
        }
        bytes
    };
    let expected = [
        (Op::Create, lay(&[])),
        (Op::Write, lay(&[(300_000, b'o')])),
        (Op::Conflict, lay(&[(50_000, b'x')])),
        (Op::Conflict, lay(&[(50_000, b'x'), (400_000, b'y')])),
        (Op::Restore, lay(&[(300_000, b'o')])),
    ];
    let all = ops_and_contents(&ns, ROOT, b"big").await;
    assert_eq!(all.len(), expected.len());
    for ((op, found), (expected_op, bytes)) in all.iter().zip(&expected) {
        assert_eq!(op, expected_op);
        check::same(found, bytes, "a version of the large file");
    }
    close_and_check(&left, ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_inode_numbers_of_two_writers_do_not_collide() {
    let left = after_another_writer(
        "numbers",
        |ns| async move {
            let new = dir(&ns, ROOT, b"new").await;
            let below = dir(&ns, new, b"below").await;
            save(&ns, below, b"a", b"text of a").await;
            save(&ns, ROOT, b"fresh", b"fresh text").await;
            let link = NewNode {
                target: Bytes::from_static(b"f"),
                ..new_node(Kind::Symlink)
            };
            ns.tree
                .create(ROOT, b"link", link, &author())
                .await
                .unwrap();
        },
        |ns| async move {
            // Both writers give the same inode numbers to different inodes.
            for n in 0..4 {
                save(&ns, ROOT, format!("other{n}").as_bytes(), b"other").await;
                dir(&ns, ROOT, format!("otherdir{n}").as_bytes()).await;
            }
        },
    )
    .await;
    let ns = left.open().await;
    let names = check::names(&ns, ROOT).await;
    assert_eq!(names.len(), 4 + 8, "{:?}", names.keys());
    for n in 0..4 {
        let name = format!("other{n}");
        assert_eq!(content(&ns, ROOT, name.as_bytes()).await.unwrap(), b"other");
        assert_eq!(ops_and_contents(&ns, ROOT, name.as_bytes()).await.len(), 1);
    }
    let single = |text: &[u8]| vec![(Op::Conflict, text.to_vec())];
    assert_eq!(
        ops_and_contents(&ns, ROOT, b"fresh").await,
        single(b"fresh text")
    );
    let a = ops_and_contents(&ns, ROOT, b"new%2Fbelow%2Fa").await;
    assert_eq!(a, single(b"text of a"));
    let links = ns.history.view().versions(ROOT, b"link").await.unwrap();
    assert_eq!(ns.history.target_past(&links[0]), Bytes::from_static(b"f"));
    let listed = ns.history.view().names_with_versions(ROOT).await.unwrap();
    for name in [&b"fresh"[..], b"link", b"new%2Fbelow%2Fa"] {
        assert!(listed.iter().any(|found| found == name), "{listed:?}");
    }
    let told = ns.conflicts();
    assert_eq!((told.versions, told.dropped), (3, 4), "{told:?}");
    // The restored names are removed names: a rename out of `@deleted` restores them with their history.
    assert_eq!(
        removed_names(&ns, ROOT).await,
        ["fresh", "link", "new%2Fbelow%2Fa"]
    );
    let (from, to) = (
        DentryRef::new(ROOT, b"new%2Fbelow%2Fa"),
        DentryRef::new(ROOT, b"back"),
    );
    let (mode, by) = (RenameMode::Replace, author());
    ns.history.undelete(from, to, mode, &by).await.unwrap();
    assert_eq!(content(&ns, ROOT, b"back").await.unwrap(), b"text of a");
    let joined = ns.history.view().versions(ROOT, b"back").await.unwrap();
    assert_eq!(joined.first().map(|version| version.op), Some(Op::Conflict));
    assert_eq!(removed_names(&ns, ROOT).await, ["fresh", "link"]);
    close_and_check(&left, ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_other_writer_removed_replaced_or_linked_keep_their_versions() {
    let left = after_another_writer(
        "removed",
        |ns| async move {
            let d = find(&ns, ROOT, b"d").await;
            save(&ns, ROOT, b"f", b"two").await;
            save(&ns, d, b"inside", b"inside text").await;
            save(&ns, ROOT, b"big", b"short").await;
            save(&ns, ROOT, b"dir", b"was a file").await;
            save(&ns, ROOT, b"small", b"once").await;
            save(&ns, ROOT, b"small", b"and again").await;
        },
        |ns| async move {
            let (from, to) = (
                DentryRef::new(ROOT, b"small"),
                DentryRef::new(ROOT, b"elsewhere"),
            );
            let (mode, by) = (RenameMode::Replace, author());
            ns.tree.rename(from, to, mode, &by).await.unwrap();
            ns.tree.unlink(ROOT, b"f", &author()).await.unwrap();
            ns.tree.rmdir(ROOT, b"d", &author()).await.unwrap();
            dir(&ns, ROOT, b"dir").await;
            let big = find(&ns, ROOT, b"big").await;
            ns.tree.link(big, ROOT, b"linked", &author()).await.unwrap();
        },
    )
    .await;
    let ns = left.open().await;
    let marked = |all: Vec<(Op, Vec<u8>)>| conflicts(&all);
    assert_eq!(content(&ns, ROOT, b"f").await, None);
    assert_eq!(marked(ops_and_contents(&ns, ROOT, b"f").await), [b"two"]);
    assert_eq!(
        marked(ops_and_contents(&ns, ROOT, b"d%2Finside").await),
        [b"inside text"]
    );
    assert_eq!(
        marked(ops_and_contents(&ns, ROOT, b"dir.conflict").await),
        [b"was a file"]
    );
    assert_eq!(
        marked(ops_and_contents(&ns, ROOT, b"small").await),
        [&b"once"[..], b"and again"]
    );
    assert_eq!(
        removed_names(&ns, ROOT).await,
        ["d", "d%2Finside", "dir.conflict", "f", "small"]
    );
    let big = ops_and_contents(&ns, ROOT, b"big").await;
    assert_eq!(conflicts(&big), [b"short"]);
    assert_eq!(big.last().unwrap().1, vec![b'a'; 600_000]);
    let linked = find(&ns, ROOT, b"linked").await;
    assert_eq!(find(&ns, ROOT, b"big").await, linked);
    assert_eq!(ops_and_contents(&ns, ROOT, b"linked").await.len(), 1);
    close_and_check(&left, ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_restored_under_the_last_name_of_its_file() {
    let left = after_another_writer(
        "renamed",
        |ns| async move {
            save(&ns, ROOT, b"f", b"under f").await;
            save(&ns, ROOT, b"tmp", b"saved by rename").await;
            ns.tree
                .rename(
                    DentryRef::new(ROOT, b"tmp"),
                    DentryRef::new(ROOT, b"f"),
                    RenameMode::Replace,
                    &author(),
                )
                .await
                .unwrap();
            ns.tree.unlink(ROOT, b"big", &author()).await.unwrap();
        },
        |ns| async move {
            save(&ns, ROOT, b"f", b"other").await;
        },
    )
    .await;
    let ns = left.open().await;
    let all = ops_and_contents(&ns, ROOT, b"f").await;
    assert_eq!(conflicts(&all), [&b"under f"[..], b"saved by rename"]);
    assert_eq!(content(&ns, ROOT, b"f").await.unwrap(), b"other");
    assert_eq!(ops_and_contents(&ns, ROOT, b"tmp").await, []);
    assert_eq!(content(&ns, ROOT, b"big").await.unwrap().len(), 600_000);
    close_and_check(&left, ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_of_a_hard_linked_file_is_restored_under_one_of_its_names() {
    let left = after_another_writer(
        "linked",
        |ns| async move {
            let f = find(&ns, ROOT, b"f").await;
            ns.tree.link(f, ROOT, b"second", &author()).await.unwrap();
            save(&ns, ROOT, b"second", b"through the second").await;
            ns.tree.unlink(ROOT, b"f", &author()).await.unwrap();
            save(&ns, ROOT, b"second", b"once more").await;
        },
        other_f,
    )
    .await;
    let ns = left.open().await;
    let mut found = conflicts(&ops_and_contents(&ns, ROOT, b"f").await);
    found.extend(conflicts(&ops_and_contents(&ns, ROOT, b"second").await));
    assert_eq!(found, [&b"through the second"[..], b"once more"]);
    assert_eq!(content(&ns, ROOT, b"f").await.unwrap(), b"other");
    assert_eq!(content(&ns, ROOT, b"second").await, None);
    close_and_check(&left, ns).await;
}

/// Every kind of unsaved bytes: flushed and not released, written after an fsync, never flushed, unlinked while open.
async fn leave_open(ns: Namespace) {
    let open = async |name: &[u8]| ns.tree.file(find(&ns, ROOT, name).await).await.unwrap();
    let append = async |file: &File, text: &'static [u8]| {
        let text = Bytes::from_static(text);
        file.append(text, &author()).await.unwrap();
    };
    let f = open(b"f").await;
    append(&f, b" fixed").await;
    f.flush(&author(), None).await.unwrap();
    append(&f, b" open").await;
    let (_, gone) = ns
        .tree
        .create_open(ROOT, b"gone", new_file(), &author())
        .await
        .unwrap();
    append(&gone, b"unwanted text").await;
    ns.tree.unlink(ROOT, b"gone", &author()).await.unwrap();
    let (_, new) = ns
        .tree
        .create_open(ROOT, b"new", new_file(), &author())
        .await
        .unwrap();
    append(&new, b"first").await;
    ns.tree.write_back_all(None).await.unwrap();
    append(&new, b" second").await;
    let (_, late) = ns
        .tree
        .create_open(ROOT, b"late", new_file(), &author())
        .await
        .unwrap();
    append(&late, b"only provisional").await;
    ns.tree.write_back_all(None).await.unwrap();
    let d = find(&ns, ROOT, b"d").await;
    let (_, never) = ns
        .tree
        .create_open(d, b"never", new_file(), &author())
        .await
        .unwrap();
    append(&never, b"never fixed").await;
    let flushed = never.flush(&author(), None).await.unwrap();
    assert!(flushed.is_some());
    append(&never, b" nor synced").await;
    let big = open(b"big").await;
    big.write(599_990, Bytes::from(vec![b'z'; 20]), &author())
        .await
        .unwrap();
    save(&ns, ROOT, b"saved", b"saved text").await;
    // Copies that refer to bytes of a superseded file, and of a file in the bucket.
    for (name, save_it) in [(&b"copied"[..], true), (b"copying", false)] {
        let (_, copy) = ns
            .tree
            .create_open(ROOT, name, new_file(), &author())
            .await
            .unwrap();
        for source in [&b"saved"[..], b"small"] {
            let source = open(source).await;
            let source = source.clone_source(&author()).await.unwrap().unwrap();
            let end = copy.stat().await.unwrap().attrs.size;
            copy.clone_range(&source, 0, end, 100, &author())
                .await
                .unwrap();
        }
        append(&copy, b"!").await;
        if save_it {
            close(&copy).await;
        }
    }
}

async fn other_f(ns: Namespace) {
    save(&ns, ROOT, b"f", b"other").await;
    save(&ns, ROOT, b"mine", b"mine").await;
}

async fn check_open(ns: &Namespace) {
    let marked = async |name: &[u8]| conflicts(&ops_and_contents(ns, ROOT, name).await);
    let mut f = marked(b"f").await;
    f.sort();
    assert_eq!(f, [&b"one fixed"[..], b"one fixed open"]);
    assert_eq!(marked(b"new").await, [b"first second"]);
    assert_eq!(marked(b"late").await, [b"only provisional"]);
    assert_eq!(marked(b"saved").await, [b"saved text"]);
    let d = find(ns, ROOT, b"d").await;
    let never = conflicts(&ops_and_contents(ns, d, b"never").await);
    assert_eq!(never, [&b"never fixed"[..], b"never fixed nor synced"]);
    let big = [&vec![b'a'; 599_990][..], &[b'z'; 20]].concat();
    assert!(marked(b"big").await == [big]);
    for copy in [&b"copied"[..], b"copying"] {
        assert_eq!(marked(copy).await, [b"saved textsmall text!"]);
    }
    assert_eq!(marked(b"gone").await, Vec::<Vec<u8>>::new());
    assert_eq!(content(ns, ROOT, b"f").await.unwrap(), b"other");
    assert_eq!(content(ns, ROOT, b"mine").await.unwrap(), b"mine");
    let names: Vec<_> = check::names(ns, ROOT).await.into_keys().collect();
    assert_eq!(names, [&b"big"[..], b"d", b"f", b"mine", b"small"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unsaved_writes_are_restored_as_conflicts() {
    let left = after_another_writer("unsaved", leave_open, other_f).await;
    let ns = left.open().await;
    check_open(&ns).await;
    close_and_check(&left, ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_anywhere_in_the_recovery_is_recovered_by_the_next_mount() {
    let start = after_another_writer("again", leave_open, other_f).await;
    let mut steps = 0;
    loop {
        let mut cluster = start.fork().await;
        // The recovery is killed twice at this step and once at the next, and then completes.
        let mut through = None;
        for steps in [steps, steps + 1] {
            match cluster.open_and_kill(steps).await {
                Ok(ns) => {
                    through = Some(ns);
                    cluster = start.fork().await;
                    break;
                }
                Err(left) => cluster = left,
            }
        }
        if let Some(ns) = through {
            check_open(&ns).await;
            ns.close().await.unwrap();
            break;
        }
        let ns = cluster.open().await;
        check_open(&ns).await;
        close_and_check(&cluster, ns).await;
        steps += 1;
    }
    assert!(steps > 10, "{steps} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_superseded_loses_no_data() {
    let start = after_another_writer("twice", leave_open, other_f).await;
    for steps in 0..20 {
        let cluster = start.fork().await;
        let Err(left) = cluster.open_and_kill(steps).await else {
            panic!("fewer than {steps} steps");
        };
        let beside = left.other_host();
        let ns = beside.open().await;
        save(&ns, ROOT, b"third", b"third").await;
        ns.close().await.unwrap();
        let ns = left.open().await;
        check_marked(&ns).await;
        close_and_check(&left, ns).await;
    }
}

/// As [`check_open`], after a third writer.
async fn check_marked(ns: &Namespace) {
    for (name, texts) in [
        (&b"f"[..], &[&b"one fixed"[..], b"one fixed open"][..]),
        (b"new", &[b"first second"]),
        (b"late", &[b"only provisional"]),
        (b"saved", &[b"saved text"]),
        (b"copied", &[b"saved textsmall text!"]),
        (b"copying", &[b"saved textsmall text!"]),
    ] {
        let mut found = conflicts(&ops_and_contents(ns, ROOT, name).await);
        found.sort();
        assert_eq!(found, texts);
    }
    let big = conflicts(&ops_and_contents(ns, ROOT, b"big").await);
    assert!(big == [[&vec![b'a'; 599_990][..], &[b'z'; 20]].concat()]);
    assert_eq!(content(ns, ROOT, b"f").await.unwrap(), b"other");
    assert_eq!(content(ns, ROOT, b"third").await.unwrap(), b"third");
}
