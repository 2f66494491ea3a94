//! What is newer than the log that a rebuild read: it comes back from a journal, or from the footers of segments.

use std::cell::Cell;

use super::labels::{mkdir, move_to};
use super::rebuild::{lose, open_as, rebuilt, try_open_as};
use super::*;
use crate::store::model::failpoints::STEPS;
use crate::store::schema::manifest::{Manifest, RebuildStage};

const LARGE: usize = 3 << 20;

fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

async fn wait_for_segments(cluster: &TestCluster, bytes: u64) {
    loop {
        let segments = cluster.backend().list("data").await.unwrap();
        if segments.iter().map(|segment| segment.size).sum::<u64>() >= bytes {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Writes over a part of a file.
async fn overwrite(ns: &Namespace, ino: Ino, at: usize, bytes: &[u8]) {
    let file = ns.tree.file(ino).await.unwrap();
    let bytes = Bytes::copy_from_slice(bytes);
    file.write(at as u64, bytes, &author()).await.unwrap();
    close(&file).await;
}

/// The states of files that were saved, in part after the end of the log; the writer was killed, and its index is lost.
struct Late {
    cluster: TestCluster,
    /// The last state of the file `large`, of which a part was written late.
    large: Vec<u8>,
    /// That of the file `whole`.
    whole: Vec<u8>,
}

async fn late(name: &str) -> Late {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    let mut large = noise(LARGE, 1);
    let ino = save(&ns, ROOT, b"large", &large).await;
    save(&ns, ROOT, b"whole", b"old").await;
    save(&ns, ROOT, b"unchanged", b"unchanged").await;
    save(&ns, ROOT, b"removed", b"removed").await;
    ns.tree.unlink(ROOT, b"removed", &author()).await.unwrap();
    ns.drain().await.unwrap();
    let logged = cluster.backend().list("data").await.unwrap();
    let logged: u64 = logged.iter().map(|segment| segment.size).sum();
    set_failpoint(&ns, Some(failpoints::Failpoint::Log));
    let whole = noise(200_000, 2);
    save(&ns, ROOT, b"whole", &whole).await;
    let part = noise(400_000, 3);
    overwrite(&ns, ino, 1_000_000, &part).await;
    large[1_000_000..1_400_000].copy_from_slice(&part);
    let dir = mkdir(&ns, ROOT, b"dir").await;
    save(&ns, dir, b"in a new directory", &noise(100_000, 4)).await;
    let (_, file) = ns
        .tree
        .create_open(ROOT, b"with a hole", new_file(), &author())
        .await
        .unwrap();
    let end = Bytes::from(noise(50_000, 5));
    file.write(2_000_000, end, &author()).await.unwrap();
    close(&file).await;
    drop(file);
    wait_for_segments(&cluster, logged + 750_000).await;
    let cluster = cluster.kill(ns).await;
    lose(&cluster, "meta").await;
    Late {
        cluster,
        large,
        whole,
    }
}

async fn last_op(ns: &Namespace, name: &[u8]) -> Op {
    let versions = ns.history.view().versions(ROOT, name).await.unwrap();
    versions.last().unwrap().op
}

async fn check_brought_back(ns: &Namespace, late: &Late) {
    for (name, bytes) in [(&b"large"[..], &late.large), (&b"whole"[..], &late.whole)] {
        let found = content(ns, ROOT, name).await.unwrap();
        check::same(&found, bytes, &String::from_utf8_lossy(name));
        assert_eq!(last_op(ns, name).await, Op::Recovered);
        assert_eq!(history(ns, ROOT, name).await.len(), 2);
    }
    assert_eq!(history(ns, ROOT, b"unchanged").await, [b"unchanged"]);
    assert!(content(ns, ROOT, b"removed").await.is_none());
    assert!(content(ns, ROOT, b"with a hole").await.is_none());
    let lost = ns.tree.lookup(ROOT, b"lost+found").await.unwrap().unwrap();
    let below = check::names(ns, lost.ino).await;
    let (name, stat) = below.first_key_value().unwrap();
    assert!(name.starts_with(b"directory-") && below.len() == 1);
    let found = content(ns, stat.ino, b"in a new directory").await.unwrap();
    check::same(&found, &noise(100_000, 4), "in a new directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_segments_that_are_newer_than_the_log_come_back_as_recovered_versions() {
    let late = late("rebuild-newer").await;
    let cluster = &late.cluster;
    cluster.wipe();
    let report = rebuilt(cluster, "new", OnLosses::Refuse).await.unwrap();
    assert_eq!(report.outcome, RebuildOutcome::Complete);
    assert!(
        report.newer.segments > 0 && report.newer.bytes > 750_000,
        "{report:?}"
    );
    let ns = open_as(cluster, "new").await;
    check_brought_back(&ns, &late).await;
    let told = ns.tree.pending().failures.join("\n");
    for part in ["3 files were brought back", "with a hole: not brought back"] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    leave(ns).await;
    // The second mount finds nothing to bring back.
    let ns = open_as(cluster, "new").await;
    check_brought_back(&ns, &late).await;
    assert!(ns.tree.pending().failures.is_empty());
    leave(ns).await;
    let config = CheckConfig::default();
    let checked = check_log(&cluster.backend, "new", &config, |_| {}).await;
    assert!(checked.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_the_old_namespace_comes_back_as_it_was_acknowledged() {
    let late = late("rebuild-journal").await;
    let cluster = &late.cluster;
    let report = rebuilt(cluster, "new", OnLosses::Refuse).await.unwrap();
    assert!(report.newer.segments > 0, "{report:?}");
    let ns = open_as(cluster, "new").await;
    for (name, bytes) in [(&b"large"[..], &late.large), (&b"whole"[..], &late.whole)] {
        let found = content(&ns, ROOT, name).await.unwrap();
        check::same(&found, bytes, &String::from_utf8_lossy(name));
        assert_eq!(last_op(&ns, name).await, Op::Write);
        assert_eq!(history(&ns, ROOT, name).await.len(), 2);
    }
    let dir = ns.tree.lookup(ROOT, b"dir").await.unwrap().unwrap();
    assert!(content(&ns, dir.ino, b"in a new directory").await.is_some());
    let hole = content(&ns, ROOT, b"with a hole").await.unwrap();
    assert_eq!(hole.len(), 2_050_000);
    assert!(ns.tree.lookup(ROOT, b"lost+found").await.unwrap().is_none());
    assert_eq!(ns.conflicts(), RecoveredConflicts::default());
    leave(ns).await;
    let config = CheckConfig::default();
    let checked = check_log(&cluster.backend, "new", &config, |_| {}).await;
    assert!(checked.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_ends_while_it_brings_files_back_is_repeated_by_the_next_one() {
    let late = late("rebuild-newer-crash").await;
    late.cluster.wipe();
    rebuilt(&late.cluster, "new", OnLosses::Refuse)
        .await
        .unwrap();
    for steps in 0..5 {
        let cluster = late.cluster.fork().await;
        let opened = STEPS.scope(Cell::new(steps), try_open_as(&cluster, "new"));
        let opened = opened.await;
        let cluster = match opened {
            Ok(ns) => cluster.kill(ns).await,
            // Some of the changes are committed before the crash.
            Err(_) => {
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                let left = cluster.fork().await;
                drop(cluster);
                left
            }
        };
        if steps % 2 == 0 {
            cluster.wipe();
        }
        let ns = open_as(&cluster, "new").await;
        for (name, bytes) in [(&b"large"[..], &late.large), (&b"whole"[..], &late.whole)] {
            let found = content(&ns, ROOT, name).await.unwrap();
            check::same(&found, bytes, &format!("step {steps}: {name:?}"));
            assert_eq!(history(&ns, ROOT, name).await.len(), 2, "step {steps}");
        }
        leave(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_state_of_a_file_is_never_replaced_by_an_older_one() {
    let cluster = TestCluster::new("rebuild-older");
    let ns = cluster.open().await;
    set_failpoint(&ns, Some(failpoints::Failpoint::Commit));
    save(&ns, ROOT, b"a", &noise(100_000, 1)).await;
    save(&ns, ROOT, b"b", &noise(100_000, 2)).await;
    wait_for_segments(&cluster, 200_000).await;
    // Both states are uploaded again, because the first segments are not known to be there.
    let cluster = cluster.kill(ns).await;
    let ns = cluster.open().await;
    ns.drain().await.unwrap();
    save(&ns, ROOT, b"a", b"newer").await;
    move_to(&ns, (ROOT, b"b"), (ROOT, b"moved")).await;
    leave(ns).await;
    lose(&cluster, "meta").await;
    cluster.wipe();
    rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    // As if the log had told nothing about any segment.
    let place = cluster.backend.child("new");
    let identity = Manifest::find(&place).await.unwrap().unwrap();
    let (epoch, sequence) = (0, 0);
    let from_the_first = Manifest {
        rebuild: Some(RebuildStage::Recovering { epoch, sequence }),
        ..identity
    };
    from_the_first.replace(&place).await.unwrap();
    let ns = open_as(&cluster, "new").await;
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), b"newer");
    assert!(content(&ns, ROOT, b"b").await.is_none());
    assert!(content(&ns, ROOT, b"moved").await.is_some());
    assert!(ns.tree.lookup(ROOT, b"lost+found").await.unwrap().is_none());
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_log_and_index_the_newest_bytes_of_each_file_come_back() {
    let cluster = TestCluster::new("rebuild-footers");
    let ns = cluster.open().await;
    let dir = mkdir(&ns, ROOT, b"dir").await;
    for seed in 1..=3 {
        save(&ns, dir, b"file", &noise(100_000, seed)).await;
        ns.drain().await.unwrap();
    }
    save(&ns, ROOT, b"top", &noise(50_000, 9)).await;
    leave(ns).await;
    for part in ["meta", "log"] {
        lose(&cluster, part).await;
    }
    cluster.wipe();
    let refused = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    assert_eq!(refused.outcome, RebuildOutcome::Refused);
    let report = rebuilt(&cluster, "new", OnLosses::Accept).await.unwrap();
    assert_eq!(
        (report.outcome, report.from),
        (RebuildOutcome::Complete, RebuiltFrom::Nothing)
    );
    let ns = open_as(&cluster, "new").await;
    let top = content(&ns, ROOT, b"top").await.unwrap();
    check::same(&top, &noise(50_000, 9), "top");
    let lost = ns.tree.lookup(ROOT, b"lost+found").await.unwrap().unwrap();
    let name = format!("directory-{}", dir.0);
    let below = ns.tree.lookup(lost.ino, name.as_bytes()).await.unwrap();
    let file = content(&ns, below.unwrap().ino, b"file").await.unwrap();
    check::same(&file, &noise(100_000, 3), "file");
    leave(ns).await;
}
