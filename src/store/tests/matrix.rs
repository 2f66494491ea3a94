//! Every operation with every failpoint between flush and log, and with every kind of crash after each of its calls.
//!
//! With the cache kept, everything acknowledged is there unchanged. With the cache lost, the tree is in a state that a call left, not
//! one from before the last fsync, and the past before it is complete. If another writer mounted, wrote and closed in between, its
//! tree and its past stay, and the changes acknowledged here are among the versions.

use std::collections::BTreeMap;

use super::scenarios::{FAILPOINTS, end, kept};
use super::session::{Session, Step};
use super::tree::Tree;
use super::*;

/// The live tree: directory and name, with the inode number and the content.
type Live = BTreeMap<(Ino, Vec<u8>), (Ino, Vec<u8>)>;

const SMALL: usize = 5000;
const LARGE: usize = 1_300_000;

/// The calls that make the tree in the bucket: `a` and `d/x` with text, and the directory.
const BEFORE: [Step; 6] = [
    Step::Mkdir("d"),
    Step::Create(0, "d/x"),
    Step::Append(0, 20),
    Step::Close(0),
    Step::Create(0, "a"),
    Step::Append(0, 70_000),
];

async fn matrix(steps: &[Step]) {
    let only = [failpoints::Failpoint::Pack, failpoints::Failpoint::Upload].map(Some);
    let before = FAILPOINTS.into_iter().flatten().map(Some);
    for (failpoints, only) in before.map(|h| (h, false)).chain(only.map(|h| (h, true))) {
        let mut session = Session::new("matrix", TestCluster::new("matrix"), failpoints).await;
        // Old enough that a renamed name is not transient.
        let rest = [Step::Close(0), Step::Drain, Step::Wait(20)];
        for step in BEFORE.iter().chain(&rest) {
            assert!(session.apply(step).await, "{step:?} is no valid call");
        }
        let durable = session.tree.clone();
        session.only = only;
        session.apply_failpoint();
        session.tree.program += if only {
            ", only operations that need this step are halted"
        } else {
            ""
        };
        for step in steps {
            assert!(session.apply(step).await, "{step:?} is no valid call");
            session.late |=
                open(&session.tree) && !matches!(step, Step::Open(..) | Step::Append(..));
            session.wait_for_failpoint().await;
            kept(&session, None).await;
            kept(&session, Some(failpoints::Failpoint::Upload)).await;
            wiped(&session, &durable).await;
            superseded(&session, &durable).await;
        }
        let left = std::mem::replace(&mut session.cluster, TestCluster::new("replaced"));
        drop(left.kill(session.ns.clone()).await);
    }
}

async fn wiped(session: &Session, durable: &Tree) {
    let _context = PanicContext(format!(
        "{}, crash with the cache wiped",
        session.tree.context()
    ));
    let cluster = session.cluster.fork().await;
    cluster.wipe();
    let ns = cluster.open().await;
    check_bucket_only(&ns, session, durable).await;
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    end(cluster, ns).await;
}

/// Checks a mount that has only the bucket.
async fn check_bucket_only(ns: &Namespace, session: &Session, durable: &Tree) {
    let tree = &session.tree;
    let found = live(ns).await;
    let synced = tree.synced.values().max().copied().unwrap_or(0);
    let last = match session.failpoints {
        // Everything is flushed and only the log is missing.
        Some(failpoints::Failpoint::Log) if !open(tree) => tree.live.len() - 1,
        _ => synced,
    };
    let states: Vec<Live> = (last..tree.live.len()).map(|s| modelled(tree, s)).collect();
    // Operations on names and on bytes of different files are independent.
    let some = if session.only || session.late || open(tree) {
        let names = |live: &Live| -> Vec<_> {
            live.iter().map(|(k, (ino, _))| (k.clone(), *ino)).collect()
        };
        states.iter().any(|s| names(s) == names(&found))
    } else {
        states.contains(&found)
    };
    assert!(
        some,
        "found {}, expected a state since step {last}: {}",
        describe(&found),
        states.iter().map(describe).collect::<Vec<_>>().join("; ")
    );
    check::prefix(ns, tree).await;
    check::past(ns, durable, 0..durable.past.len()).await;
}

/// Another writer works on the same bucket with an empty cache; then this writer mounts again with its own cache.
async fn superseded(session: &Session, durable: &Tree) {
    let context = format!("{}, another writer in between", session.tree.context());
    let _context = PanicContext(context);
    let cluster = session.cluster.fork().await;
    let other = TestCluster {
        backend: cluster.backend.clone(),
        cache: tempfile::tempdir().unwrap(),
        env: Arc::clone(&cluster.env),
    };
    let ns = other.open().await;
    check_bucket_only(&ns, session, durable).await;
    save(&ns, ROOT, b"a", b"a stranger's").await;
    save(&ns, ROOT, b"stranger", b"its own").await;
    let kept = live(&ns).await;
    let versions = all_versions(&ns, &kept).await;
    let now = ns.now();
    ns.close().await.unwrap();
    drop((ns, other));
    let ns = cluster.open().await;
    for drained in [false, true] {
        let found = live(&ns).await;
        assert!(
            found == kept,
            "found {}, expected {}",
            describe(&found),
            describe(&kept)
        );
        let all = all_versions(&ns, &kept).await;
        for (slot, text) in &versions {
            assert!(all.contains(&(slot.clone(), text.clone())), "{slot:?}");
        }
        let texts = all.iter().map(|(_, text)| text);
        let texts: std::collections::HashSet<&Vec<u8>> = texts.collect();
        for (slot, (id, text)) in session.tree.live.last().unwrap() {
            let file = !session.tree.is_directory(*id) && !text.is_empty();
            assert!(!file || texts.contains(&**text), "{slot:?} is lost");
        }
        check::past(&ns, durable, 0..durable.past.len()).await;
        for ((directory, name), (ino, _)) in &kept {
            let then = ns
                .history
                .view()
                .entry_at(*directory, name, now)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(then.ino, *ino);
        }
        if !drained {
            ns.drain().await.unwrap();
        }
    }
    check::log_twin(&ns, &cluster).await;
    end(cluster, ns).await;
}

/// Whether written bytes exist that no flush or fsync covers.
fn open(tree: &Tree) -> bool {
    (0..tree.nodes.len()).any(|id| !tree.is_directory(id) && tree.is_dirty(id))
}

async fn live(ns: &Namespace) -> Live {
    let (mut all, mut open) = (Live::new(), vec![ROOT]);
    while let Some(directory) = open.pop() {
        for (name, stat) in check::names(ns, directory).await {
            let mut text = Vec::new();
            if stat.kind == Kind::Directory {
                open.push(stat.ino);
            } else {
                let file = ns.tree.file(stat.ino).await.unwrap();
                text = file.read(0, u32::MAX).await.unwrap().to_vec();
                assert_eq!(text.len() as u64, stat.attrs.size);
            }
            all.insert((directory, name), (stat.ino, text));
        }
    }
    all
}

fn modelled(tree: &Tree, step: usize) -> Live {
    let ino = |id: usize| tree.nodes[id].ino;
    let entries = tree.live[step].iter();
    entries
        .map(|((directory, name), (id, text))| {
            ((ino(*directory), name.clone()), (ino(*id), text.to_vec()))
        })
        .collect()
}

fn describe(live: &Live) -> String {
    let names = live.iter().map(|((directory, name), (ino, text))| {
        let name = String::from_utf8_lossy(name);
        let ends = text.first().zip(text.last());
        format!("{}/{name}={}:{}{ends:?}", directory.0, ino.0, text.len())
    });
    names.collect::<Vec<_>>().join(" ")
}

/// Every version of every name in every directory.
async fn all_versions(ns: &Namespace, live: &Live) -> Vec<((Ino, Vec<u8>), Vec<u8>)> {
    let mut directories = vec![ROOT];
    for ((_, _), (ino, _)) in live {
        if ns.tree.stat(*ino).await.unwrap().kind == Kind::Directory {
            directories.push(*ino);
        }
    }
    let mut all = Vec::new();
    for directory in directories {
        for name in ns
            .history
            .view()
            .names_with_versions(directory)
            .await
            .unwrap()
        {
            for version in ns.history.view().versions(directory, &name).await.unwrap() {
                let text = check::read_past(ns, &version).await;
                all.push(((directory, name.to_vec()), text));
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_rename_over_another_file() {
    use Step::*;
    for len in [SMALL, LARGE] {
        let over = Rename("t", "a", RenameMode::Replace);
        matrix(&[Create(0, "t"), Append(0, len), Close(0), over]).await;
    }
    // The handle is released after the rename.
    let over = Rename("t", "a", RenameMode::Replace);
    matrix(&[Create(0, "t"), Append(0, SMALL), Flush(0), over, Close(0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_rename_to_a_new_name() {
    use Step::*;
    for len in [SMALL, LARGE] {
        let away = Rename("a", "d/n", RenameMode::NoReplace);
        matrix(&[Open(0, "a"), Append(0, len), Close(0), away]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_rename_of_a_directory() {
    use Step::*;
    let away = Rename("d", "e", RenameMode::NoReplace);
    matrix(&[Open(0, "d/x"), Append(0, SMALL), Close(0), away]).await;
    let away = Rename("d", "e", RenameMode::NoReplace);
    matrix(&[Open(0, "d/x"), Append(0, LARGE), away, Close(0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_link() {
    use Step::*;
    for len in [SMALL, LARGE] {
        matrix(&[Open(0, "a"), Append(0, len), Close(0), Link("a", "d/l")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_an_unlink() {
    use Step::*;
    for len in [SMALL, LARGE] {
        matrix(&[Open(0, "a"), Append(0, len), Close(0), Unlink("a")]).await;
    }
    matrix(&[Open(0, "a"), Append(0, SMALL), Unlink("a"), Close(0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_truncation() {
    use Step::*;
    for len in [SMALL, LARGE] {
        matrix(&[Open(0, "a"), Append(0, len), Close(0), TruncatePath("a", 7)]).await;
    }
    matrix(&[Open(0, "a"), Truncate(0, 65_000), Append(0, 10), Close(0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_write_with_an_fsync() {
    use Step::*;
    for len in [SMALL, LARGE] {
        matrix(&[
            Open(0, "a"),
            Append(0, len),
            Sync(0),
            Append(0, 100),
            Close(0),
        ])
        .await;
        matrix(&[
            Open(0, "a"),
            Append(0, len),
            SyncBegun(0),
            Append(0, 100),
            Flush(0),
        ])
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_close_without_writes_before_it() {
    use Step::*;
    for len in [SMALL, LARGE] {
        matrix(&[
            Open(0, "a"),
            Append(0, len),
            Sync(0),
            Flush(0),
            Open(1, "a"),
            Append(1, 100),
            Flush(1),
        ])
        .await;
    }
    matrix(&[
        Create(0, "empty"),
        Flush(0),
        Open(1, "empty"),
        Append(1, 100),
        Flush(1),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_write_without_an_fsync() {
    use Step::*;
    for len in [SMALL, LARGE] {
        matrix(&[
            Open(0, "a"),
            Write(0, 3, len),
            Flush(0),
            Append(0, 100),
            Close(0),
        ])
        .await;
    }
}
