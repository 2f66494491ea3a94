//! Scenarios with every failpoint: after each step a crash, and a mount with the cache kept and one with the cache wiped.

use super::session::{Session, Step};
use super::*;

pub(super) const FAILPOINTS: [Option<failpoints::Failpoint>; 6] = [
    Some(failpoints::Failpoint::Pack),
    Some(failpoints::Failpoint::Upload),
    Some(failpoints::Failpoint::Commit),
    Some(failpoints::Failpoint::Flush),
    Some(failpoints::Failpoint::Log),
    None,
];

/// Runs the steps with every failpoint, with every kind of crash after each step.
async fn scenario(name: &str, steps: &[Step]) {
    for failpoints in FAILPOINTS {
        let mut session = Session::new(name, TestCluster::new(name), failpoints).await;
        for step in steps {
            let context = session.tree.context();
            assert!(
                session.apply(step).await,
                "{context}: {step:?} is no valid call"
            );
            if failpoints.is_none() {
                assert!(session.apply(&Step::Drain).await, "drain");
            }
            session.wait_for_failpoint().await;
            crashes(&session).await;
        }
        let last = session.tree.past.len();
        check::live(&session.ns, &session.tree).await;
        check::past(&session.ns, &session.tree, 0..last).await;
        assert!(session.apply(&Step::Drain).await, "drain");
        check::log_twin(&session.ns, &session.cluster).await;
        check::past(&session.ns, &session.tree, 0..last).await;
    }
}

async fn crashes(session: &Session) {
    check::live(&session.ns, &session.tree).await;
    kept(session, None).await;
    if session.failpoints.is_some() {
        kept(session, Some(failpoints::Failpoint::Pack)).await;
        kept(session, Some(failpoints::Failpoint::Commit)).await;
    }
    wiped(session).await;
}

/// A crash with the cache kept; with `again` the daemon is killed once more during the replay.
pub(super) async fn kept(session: &Session, again: Option<failpoints::Failpoint>) {
    let mut tree = session.tree.clone();
    tree.program += &format!(", crash with the cache kept, again {again:?}");
    let _context = PanicContext(tree.context());
    let mut cluster = session.cluster.fork().await;
    if again.is_some() {
        let ns = cluster.open().await;
        set_failpoint(&ns, again);
        cluster = cluster.kill(ns).await;
    }
    let ns = cluster.open().await;
    tree.recover();
    tree.name_call("crash and mount".to_owned());
    tree.step(ns.now());
    assert_eq!(
        ns.tree.pending().failures,
        [""; 0],
        "{}: failures of the replay",
        tree.context()
    );
    check::live(&ns, &tree).await;
    check::past(&ns, &tree, 0..tree.past.len()).await;
    ns.drain().await.unwrap();
    check::live(&ns, &tree).await;
    check::past(&ns, &tree, tree.past.len() - 1..tree.past.len()).await;
    check::log_twin(&ns, &cluster).await;
    assert_eq!(
        (
            ns.tree.pending().files,
            ns.tree.pending().bytes,
            ns.tree.pending().operations
        ),
        (0, 0, 0),
        "{}: pending files, bytes and operations after a drain",
        tree.context()
    );
    end(cluster, ns).await;
}

pub(super) async fn wiped(session: &Session) {
    let mut tree = session.tree.clone();
    tree.program += ", crash with the cache wiped";
    let _context = PanicContext(tree.context());
    let cluster = session.cluster.fork().await;
    cluster.wipe();
    let ns = cluster.open().await;
    if session.failpoints.is_none() {
        tree.lose_flushes();
        tree.recover();
        tree.step(ns.now());
        check::live(&ns, &tree).await;
        check::past(&ns, &tree, 0..tree.past.len()).await;
    } else {
        check::prefix(&ns, &tree).await;
    }
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    end(cluster, ns).await;
}

pub(super) async fn end(cluster: TestCluster, ns: Namespace) {
    ns.core.health.stop(StoreError::Closed);
    ns.core.tasks.stop();
    ns.core.index.writer().unwrap().close().await.unwrap();
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_appends_with_an_fsync_between() {
    use Step::*;
    scenario(
        "append",
        &[
            Create(0, "a"),
            Append(0, 10),
            Sync(0),
            Append(0, 20),
            Append(0, 5000),
            Close(0),
        ],
    )
    .await;
    scenario(
        "append-to-old",
        &[
            Create(0, "a"),
            Append(0, 10),
            Close(0),
            Open(0, "a"),
            Append(0, 7),
            Sync(0),
            Append(0, 9),
            Sync(0),
            Append(0, 3),
            Close(0),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_save_after_a_later_fsync() {
    use Step::*;
    scenario(
        "behind",
        &[
            Create(0, "a"),
            Append(0, 10),
            Close(0),
            Open(0, "a"),
            Open(1, "a"),
            Append(0, 7),
            Flush(0),
            Append(1, 9),
            Sync(1),
            Close(1),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_saves_by_rename() {
    use Step::*;
    let mut steps = Vec::new();
    for age in [0, 20] {
        steps.extend([
            Create(0, "doc.tmp"),
            Append(0, 10 + age as usize),
            Close(0),
            Rename("doc.tmp", "doc", RenameMode::Replace),
            Wait(age),
        ]);
    }
    // Some programs rename before the close, with or without an fsync.
    steps.extend([
        Create(0, "doc.tmp"),
        Append(0, 5),
        Sync(0),
        Flush(0),
        Rename("doc.tmp", "doc", RenameMode::Replace),
    ]);
    steps.extend([
        Close(0),
        Create(1, "doc.tmp"),
        Append(1, 3),
        Rename("doc.tmp", "doc", RenameMode::Replace),
        Close(1),
    ]);
    scenario("rename", &steps).await;
}

/// vim and Emacs rename the old state to a backup and write the name anew.
#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_saves_that_rename_the_old_state_away() {
    use Step::*;
    let mut steps = vec![Create(0, "doc"), Append(0, 9), Close(0)];
    for (wait, backup) in [(0, "doc~"), (0, "doc~"), (20, "doc.bak"), (3, "1.tmp")] {
        steps.extend([
            Wait(wait),
            Rename("doc", backup, RenameMode::Replace),
            Create(0, "doc"),
            Append(0, 10 + wait as usize),
            Sync(0),
            Close(0),
        ]);
    }
    steps.extend([Unlink("doc~"), Rename("doc", "last", RenameMode::Replace)]);
    scenario("backup", &steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_truncations_of_a_long_file() {
    use Step::*;
    const M: usize = 1 << 20;
    let steps = [
        Create(0, "big"),
        Append(0, 20 * M),
        Close(0),
        TruncatePath("big", 9 * M + 77),
        TruncatePath("big", 18 * M),
        Open(0, "big"),
        Write(0, 17 * M, 5000),
        Punch(0, 3 * M - 5, M),
        Sync(0),
        Truncate(0, 5 * M),
        Close(0),
    ];
    scenario("cut", &steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_hard_link_and_the_removal_of_its_first_name() {
    use Step::*;
    let steps = [
        Mkdir("d"),
        Create(0, "d/a"),
        Append(0, 10),
        Close(0),
        Wait(20),
        Link("d/a", "b"),
        Open(0, "b"),
        Append(0, 5),
        Close(0),
        Unlink("d/a"),
        Rmdir("d"),
        Open(0, "b"),
        Append(0, 3),
        Sync(0),
        Append(0, 2),
        Close(0),
        Unlink("b"),
    ];
    scenario("link", &steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_directory_moved_removed_and_created_again() {
    use Step::*;
    let steps = [
        Mkdir("d"),
        Create(0, "d/f"),
        Append(0, 10),
        Close(0),
        Rename("d", "e", RenameMode::Replace),
        Create(0, "e/f"),
        Open(0, "e/f"),
        Append(0, 5),
        Close(0),
        Mkdir("d"),
        Unlink("e/f"),
        Rmdir("e"),
        Mkdir("e"),
        Create(0, "e/f"),
        Append(0, 4),
        Close(0),
        Rename("d", "e/d", RenameMode::NoReplace),
    ];
    scenario("dirs", &steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_state_is_saved_after_its_staging_file_was_deleted() {
    use Step::*;
    for failpoints in FAILPOINTS {
        let mut session = Session::new("staged", TestCluster::new("staged"), failpoints).await;
        for step in [
            Create(0, "e"),
            Write(0, 13, 19),
            Flush(0),
            Append(0, 262_152),
            Drain,
            Release(0),
        ] {
            assert!(session.apply(&step).await, "{step:?} is no valid call");
        }
        session.wait_for_failpoint().await;
        session.crash().await;
        check::live(&session.ns, &session.tree).await;
        check::past(&session.ns, &session.tree, 0..session.tree.past.len()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_change_of_a_copied_file() {
    use Step::*;
    const ALL: (usize, usize, usize) = (0, 0, usize::MAX >> 8);
    scenario(
        "copied-and-changed",
        &[
            Create(0, "a"),
            Write(0, 16, 65_543),
            Copy(0, "a", ALL),
            Copy(0, "a", (12, 65_539, 15)),
            Truncate(0, 4096),
        ],
    )
    .await;
    scenario(
        "shown-and-changed",
        &[
            Create(0, "a"),
            Write(0, 16, 65_543),
            Flush(0),
            Unlink("a"),
            Create(1, "b"),
            CopyPast(1, "a", 0, ALL),
            Close(1),
            Open(1, "b"),
            Truncate(1, 4096),
            Close(1),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_late_save_after_a_shorter_state() {
    use Step::*;
    let steps = [
        Create(0, "a"),
        Append(0, 40),
        Close(0),
        Open(0, "a"),
        Open(1, "a"),
        Write(0, 9_000_000, 70_000),
        Write(0, 5_000, 5_000),
        Flush(0),
        Truncate(1, 8_000),
        Punch(1, 5_000, 1_000),
        Sync(1),
        Release(0),
        Truncate(1, 9_100_000),
        Close(1),
    ];
    scenario("saved-behind", &steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_late_save_without_bytes() {
    use Step::*;
    const ALL: (usize, usize, usize) = (0, 0, usize::MAX >> 8);
    scenario(
        "copied-behind",
        &[
            Create(1, "a"),
            Sync(1),
            Append(1, 19),
            Copy(1, "a", ALL),
            Flush(1),
            Rewrite(1),
            Sync(1),
            Release(1),
        ],
    )
    .await;
    let steps = [
        Create(1, "a"),
        Flush(1),
        Open(0, "a"),
        Append(0, 19),
        Sync(0),
        Release(1),
        Close(0),
    ];
    scenario("empty-behind", &steps).await;
}

/// A program forks: the child closes its copy of the descriptor, the parent writes, fsyncs and closes.
#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_close_after_an_fsync_after_an_earlier_close_of_the_handle() {
    use Step::*;
    let start = [Create(0, "a"), Append(0, 10), Close(0), Open(0, "a")];
    let fsynced = [Append(0, 7), Flush(0), Append(0, 9), Sync(0)];
    let rest: [&[Step]; 3] = [
        &[Close(0)],
        &[Flush(0), Append(0, 5), Sync(0), Close(0)],
        &[
            Append(0, 3),
            Flush(0),
            Open(1, "a"),
            Append(1, 4),
            Sync(1),
            Close(0),
            Close(1),
        ],
    ];
    for rest in rest {
        let mut steps = [start.as_slice(), fsynced.as_slice()].concat();
        steps.extend_from_slice(rest);
        scenario("forked", &steps).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_truncated_copy_that_is_extended() {
    use Step::*;
    const ALL: (usize, usize, usize) = (0, 0, usize::MAX >> 8);
    scenario(
        "shown-in-part",
        &[
            Create(0, "a"),
            Append(0, 5000),
            Close(0),
            Create(1, "b"),
            Copy(1, "a", ALL),
            Truncate(1, 6),
            Close(1),
            TruncatePath("b", 4097),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_around_a_late_state_of_holes() {
    use Step::*;
    let steps = [
        Create(2, "a"),
        Close(2),
        Open(2, "a"),
        Truncate(2, 16),
        Flush(2),
        Write(2, 3, 262_152),
        Append(2, 16),
        Sync(2),
    ];
    scenario("holes-behind", &steps).await;
}
