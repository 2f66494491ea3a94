//! Rare interleavings that the scenarios and the random programs reach only by chance.

use super::*;
use crate::meta::MetaStore;
use crate::store::schema::applied_row::AppliedRow;

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_fsync_after_the_commit_still_waits_for_the_flush() {
    let cluster = TestCluster::new("fsync");
    let ns = cluster.open().await;
    ns.drain().await.unwrap();
    set_failpoint(&ns, Some(failpoints::Failpoint::Flush));
    let ino = save(&ns, ROOT, b"a", b"text").await;
    until(|| ns.commit.queue.oldest_without(&[]).is_none()).await;
    let file = ns.tree.file(ino).await.unwrap();
    file.sync(&author()).await.unwrap();
    drop(file);
    let cluster = cluster.kill(ns).await;
    cluster.wipe();
    let ns = cluster.open().await;
    assert_eq!(
        content(&ns, ROOT, b"a").await.as_deref(),
        Some(&b"text"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn staging_files_are_deleted_after_their_upload() {
    let cluster = TestCluster::new("staging");
    let ns = cluster.open().await;
    for text in [vec![b'a'; 300_000], vec![b'b'; 200_000]] {
        save(&ns, ROOT, b"big", &text).await;
    }
    let staged = || {
        let mut found = Vec::new();
        let mut open = vec![cluster.cache.path().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.parent().unwrap().ends_with("staging") {
                    found.push(path);
                }
            }
        }
        found
    };
    assert!(!staged().is_empty());
    ns.drain().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(staged(), Vec::<PathBuf>::new());
    assert_eq!(
        content(&ns, ROOT, b"big").await.unwrap(),
        vec![b'b'; 200_000]
    );
    ns.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_release_does_not_change_the_final_past() {
    let cluster = TestCluster::new("late");
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"a", b"one").await;
    let (first, second) = (
        ns.tree.file(ino).await.unwrap(),
        ns.tree.file(ino).await.unwrap(),
    );
    first
        .append(Bytes::from_static(b"two"), &author())
        .await
        .unwrap();
    let flushed = first.flush(&author(), None).await.unwrap().unwrap();
    second
        .append(Bytes::from_static(b"three"), &author())
        .await
        .unwrap();
    ns.drain().await.unwrap();
    let moment = ns.now();
    cluster.env.advance(1_000_000);
    assert!(ns.history.is_final(moment));
    let then = ns
        .history
        .view()
        .entry_at(ROOT, b"a", moment)
        .await
        .unwrap()
        .unwrap();
    first.save(flushed).await.unwrap();
    assert_eq!(
        ns.history
            .view()
            .entry_at(ROOT, b"a", moment)
            .await
            .unwrap()
            .unwrap()
            .version,
        then.version
    );
    close(&second).await;
    assert_eq!(
        history(&ns, ROOT, b"a").await,
        [&b"one"[..], b"onetwo", b"onetwothree"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_removes_orphans_of_a_crash() {
    let cluster = TestCluster::new("orphan");
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"a", b"one").await;
    let file = ns.tree.file(ino).await.unwrap();
    file.append(Bytes::from_static(b"two"), &author())
        .await
        .unwrap();
    ns.tree.unlink(ROOT, b"a", &author()).await.unwrap();
    drop(file);
    let cluster = cluster.kill(ns).await;
    let ns = cluster.open().await;
    ns.drain().await.unwrap();
    assert_eq!(content(&ns, ROOT, b"a").await, None);
    assert_eq!(history(&ns, ROOT, b"a").await, [b"one"]);
    let pending = ns.tree.pending();
    assert_eq!(
        (pending.files, pending.bytes, pending.operations),
        (0, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_linked_file_outlives_the_directory_of_its_first_name() {
    let cluster = TestCluster::new("linked");
    let ns = cluster.open().await;
    let directory = |name: &'static [u8]| {
        let ns = ns.clone();
        async move {
            ns.tree
                .create(ROOT, name, new_node(Kind::Directory), &author())
                .await
                .unwrap()
                .ino
        }
    };
    let (first, _other) = (directory(b"d").await, directory(b"e").await);
    let ino = save(&ns, first, b"a", b"one").await;
    ns.tree.link(ino, ROOT, b"b", &author()).await.unwrap();
    ns.tree.unlink(first, b"a", &author()).await.unwrap();
    ns.tree.rmdir(ROOT, b"d", &author()).await.unwrap();
    set_failpoint(&ns, Some(failpoints::Failpoint::Commit));
    ns.tree
        .rename(
            DentryRef::new(ROOT, b"e"),
            DentryRef::new(ROOT, b"f"),
            RenameMode::Replace,
            &author(),
        )
        .await
        .unwrap();
    save(&ns, ROOT, b"b", b"more").await;
    let cluster = cluster.kill(ns).await;
    let ns = cluster.open().await;
    assert_eq!(
        content(&ns, ROOT, b"b").await.as_deref(),
        Some(&b"more"[..])
    );
    assert_eq!(history(&ns, ROOT, b"b").await, [&b"one"[..], b"more"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_before_an_fsync_of_a_new_file_keeps_both_states() {
    let cluster = TestCluster::new("flushed");
    let ns = cluster.open().await;
    let (_, file) = ns
        .tree
        .create_open(ROOT, b"a", new_file(), &author())
        .await
        .unwrap();
    file.write(2, Bytes::from_static(b"one"), &author())
        .await
        .unwrap();
    let flushed = file.flush(&author(), None).await.unwrap().unwrap();
    file.append(Bytes::from_static(b"two"), &author())
        .await
        .unwrap();
    ns.drain().await.unwrap();
    file.save(flushed).await.unwrap();
    assert_eq!(history(&ns, ROOT, b"a").await, [b"\0\0one"]);
    ns.drain().await.unwrap();
    assert_eq!(history(&ns, ROOT, b"a").await, [b"\0\0one"]);
    close(&file).await;
    assert_eq!(
        history(&ns, ROOT, b"a").await,
        [&b"\0\0one"[..], b"\0\0onetwo"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_refused_by_the_journal_stays_in_the_dirty_budget() {
    let cluster = TestCluster::new("refused");
    let ns = cluster.open().await;
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    let (_, file) = ns
        .tree
        .create_open(ROOT, b"a", new_file(), &author())
        .await
        .unwrap();
    let text = Bytes::from(vec![b'x'; 100_000]);
    file.write(0, text, &author()).await.unwrap();
    let flushed = file.flush(&author(), None).await.unwrap().unwrap();
    ns.core.health.stop(StoreError::NoSpace);
    assert!(matches!(file.save(flushed).await, Err(StoreError::NoSpace)));
    assert_eq!(ns.data.budget.used(), 100_000);
    drop(file);
    let _left = cluster.kill(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_task_fails_every_waiting_call() {
    let cluster = TestCluster::new("panic");
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"a", b"one").await;
    ns.drain().await.unwrap();
    set_failpoint(&ns, Some(failpoints::Failpoint::Commit));
    save(&ns, ROOT, b"a", b"two").await;
    let draining = tokio::spawn({
        let ns = ns.clone();
        async move { ns.drain().await }
    });
    let planted = ns.core.tasks.spawn("planted", async { panic!("planted") });
    assert!(planted.await.is_err());
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(30), draining).await;
    let outcome = outcome.unwrap().unwrap();
    assert!(
        matches!(&outcome, Err(StoreError::Unavailable(why)) if why.to_string().contains("planted")),
        "{outcome:?}"
    );
    let file = ns.tree.file(ino).await.unwrap();
    let refused = file.write(0, Bytes::from_static(b"x"), &author()).await;
    assert!(refused.is_err());
    let cluster = cluster.kill(ns).await;
    let ns = cluster.open().await;
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), b"two");
    ns.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_recounted_from_the_rows() {
    let cluster = TestCluster::new("df");
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"a", &[1; 10_000]).await;
    let file = ns.tree.file(ino).await.unwrap();
    file.truncate(1 << 62, &author()).await.unwrap();
    file.write(1 << 61, vec![2; 4096].into(), &author())
        .await
        .unwrap();
    close(&file).await;
    let target = NewNode {
        target: Bytes::from_static(b"a"),
        ..new_node(Kind::Symlink)
    };
    ns.tree
        .create(ROOT, b"link", target, &author())
        .await
        .unwrap();
    ns.drain().await.unwrap();
    let holes_count_nothing = Usage {
        bytes: 14_096,
        files: 2,
    };
    assert_eq!(ns.tree.usage(), holes_count_nothing);
    file.truncate(5000, &author()).await.unwrap();
    close(&file).await;
    ns.drain().await.unwrap();
    assert_eq!(ns.tree.usage().bytes, 5000);
    drop(file);
    let cluster = cluster.kill(ns).await;
    cluster.wipe();
    let ns = cluster.open().await;
    assert_eq!(ns.tree.usage().bytes, 5000);
    check::log_twin(&ns, &cluster).await;
    ns.tree.unlink(ROOT, b"a", &author()).await.unwrap();
    ns.drain().await.unwrap();
    assert_eq!(ns.tree.usage(), Usage { bytes: 0, files: 1 });
    ns.close().await.unwrap();
}

#[tokio::test]
async fn check_names_a_wrong_count_of_files() {
    let index = crate::meta::MemoryStore::new(merge::merge);
    let mut batch = crate::meta::Batch::new();
    let wrong = AppliedRow {
        files: 1,
        ..AppliedRow::default()
    };
    keys::applied().put(&mut batch, &wrong);
    let _commit = index.commit(batch).await.unwrap();
    assert_eq!(
        crate::store::check::wrong_counts(&index).await.unwrap(),
        ["GA"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_content_is_committed_while_another_one_of_its_group_waits() {
    let cluster = TestCluster::new("group");
    let ns = cluster.open().await;
    let pack = failpoints::Failpoint::Pack;
    ns.core.health.failpoints.set_only(pack);
    save(&ns, ROOT, b"free", &[1; 100_000]).await;
    let ino = save(&ns, ROOT, b"waits", &[2; 100_000]).await;
    let file = ns.tree.file(ino).await.unwrap();
    let changed = Bytes::from_static(b"over the first content");
    file.write(50_000, changed, &author()).await.unwrap();
    close(&file).await;
    let queued = ns.commit.queue.not_uploaded();
    let [free, _first, second] = &queued[..] else {
        panic!("{} contents are queued", queued.len());
    };
    // No commit or flush of another operation wakes the commit task from here on.
    until(|| ns.commit.queue.all().len() == queued.len()).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    // The second content is composed over the first one, which is not uploaded.
    let group = vec![Arc::clone(free), Arc::clone(second)];
    let upload = tokio::spawn(Arc::clone(&ns.commit).upload_group(group, false));
    let committed = until(|| free.is_committed());
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(20), committed).await;
    assert!(in_time.is_ok(), "not committed");
    assert!(!upload.is_finished());
    set_failpoint(&ns, None);
    upload.await.unwrap();
    ns.drain().await.unwrap();
    leave(ns).await;
}
