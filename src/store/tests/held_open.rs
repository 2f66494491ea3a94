//! States that were flushed become versions while their handle stays open, as after fork(2); then nothing keeps the journal.

use std::time::Duration;

use super::reclaim::end;
use super::*;

/// A file that a program has open: it wrote `first`, a child that it forked closed the file, and it called fsync(2).
async fn held(ns: &Namespace) -> (Arc<File>, PendingFlush) {
    let author = author();
    let made = ns.tree.create_open(ROOT, b"held", new_file(), &author);
    let file = made.await.unwrap().1;
    let first = Bytes::from_static(b"first ");
    file.append(first, &author).await.unwrap();
    let flushed = file.flush(&author, None).await.unwrap().unwrap();
    file.sync(&author).await.unwrap();
    (file, flushed)
}

/// Tells whether the journal has a file from before this call once everything is durable.
async fn keeps_journal(ns: &Namespace) -> bool {
    let begun = ns.core.journal.begin_file().unwrap();
    ns.drain().await.unwrap();
    ns.core.journal.oldest_file().is_some_and(|at| at < begun)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_whose_handle_stays_open_becomes_a_version_and_frees_the_journal() {
    let cluster = TestCluster::new("held-open");
    let ns = cluster.open().await;
    let (file, flushed) = held(&ns).await;
    assert!(keeps_journal(&ns).await, "the state is no version yet");
    ns.tree.save_held(Duration::from_secs(60)).await.unwrap();
    assert!(keeps_journal(&ns).await, "it is not that old");
    ns.tree.save_held(Duration::ZERO).await.unwrap();
    assert_eq!(history(&ns, ROOT, b"held").await, [b"first "]);
    assert!(!keeps_journal(&ns).await);

    // The next close of the handle does not replace it: it is a version.
    let second = Bytes::from_static(b"second");
    file.append(second, &author()).await.unwrap();
    let flushed = file.flush(&author(), Some(flushed)).await.unwrap();
    file.save(flushed.unwrap()).await.unwrap();
    let versions = [&b"first "[..], b"first second"];
    assert_eq!(history(&ns, ROOT, b"held").await, versions);
    drop(file);
    let cluster = cluster.kill(ns).await;
    let ns = cluster.open().await;
    assert_eq!(history(&ns, ROOT, b"held").await, versions);
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_a_later_close_of_the_handle_follows_is_there_after_a_crash() {
    let cluster = TestCluster::new("held-crash");
    let ns = cluster.open().await;
    let (file, flushed) = held(&ns).await;
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    ns.tree.save_held(Duration::ZERO).await.unwrap();
    let second = Bytes::from_static(b"second");
    file.append(second, &author()).await.unwrap();
    file.flush(&author(), Some(flushed)).await.unwrap();
    drop(file);
    let cluster = cluster.kill(ns).await;
    let ns = cluster.open().await;
    let versions = [&b"first "[..], b"first second"];
    assert_eq!(history(&ns, ROOT, b"held").await, versions);
    end(ns, cluster).await;
}
