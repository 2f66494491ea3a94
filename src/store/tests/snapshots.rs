//! Readers beside a writer: what one call returns is of one moment.

use tokio::task::JoinHandle;

use super::reclaim::settle;
use super::*;
use crate::sync::{AtomicBool, Ordering};

/// Length of the file that is read, bytes: several extents.
const LEN: usize = 600_000;
/// Saves of the writer.
const SAVES: u8 = 120;

/// Spawns tasks that repeat `check` while `is_done` is false; each returns how often.
fn repeat<F, C>(readers: usize, is_done: &Arc<AtomicBool>, check: C) -> Vec<JoinHandle<u32>>
where
    C: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let reader = |_| {
        let (is_done, check) = (Arc::clone(is_done), check.clone());
        tokio::spawn(async move {
            let mut times = 0;
            while !is_done.load(Ordering::SeqCst) {
                check().await;
                times += 1;
                tokio::task::yield_now().await;
            }
            times
        })
    };
    (0..readers).map(reader).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_returns_the_bytes_of_one_moment_while_saves_are_uploaded_and_collected() {
    let cluster = TestCluster::new("one-moment");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"f", &vec![0; LEN]).await;
    let ino = ns.tree.lookup(ROOT, b"f").await.unwrap().unwrap().ino;
    let file = ns.tree.file(ino).await.unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let readers = repeat(3, &is_done, {
        let file = Arc::clone(&file);
        move || {
            let file = Arc::clone(&file);
            async move {
                let bytes = file.read(0, u32::MAX).await.unwrap();
                assert_eq!(bytes.len(), LEN);
                let other = bytes.iter().position(|byte| *byte != bytes[0]);
                assert_eq!(other, None, "bytes of two saves in one read");
            }
        }
    });
    for number in 1..=SAVES {
        let bytes = Bytes::from(vec![number; LEN]);
        file.write(0, bytes, &author()).await.unwrap();
        close(&file).await;
        match number % 8 {
            3 => file.sync(&author()).await.unwrap(),
            7 => {
                let versions = ns.history.view().versions(ROOT, b"f").await.unwrap();
                for version in &versions[..versions.len() - 1] {
                    let id = version.version;
                    ns.history.delete_version(ROOT, b"f", id).await.unwrap();
                }
                let _collected = settle(&ns, &cluster).await;
            }
            _ => {}
        }
    }
    is_done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    drop(file);
    assert_eq!(content(&ns, ROOT, b"f").await.unwrap(), vec![SAVES; LEN]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_answers_of_one_view_agree_while_versions_are_made_and_committed() {
    let cluster = TestCluster::new("one-view");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"f", b"0").await;
    let is_done = Arc::new(AtomicBool::new(false));
    let readers = repeat(3, &is_done, {
        let ns = ns.clone();
        move || {
            let past = ns.history.view();
            async move {
                let versions = past.versions(ROOT, b"f").await.unwrap();
                for pair in versions.windows(2) {
                    assert_eq!(pair[0].ended, Some(pair[1].version.timestamp));
                }
                let last = versions.last().unwrap();
                assert_eq!(last.ended, None);
                for version in [last, &versions[versions.len() / 2], &versions[0]] {
                    let at = version.version.timestamp;
                    let then = past.entry_at(ROOT, b"f", at).await.unwrap();
                    assert_eq!(then.as_ref(), Some(version));
                    let found = past.file_version(ROOT, b"f", at..=at).await.unwrap();
                    assert_eq!(found.as_ref(), Some(version));
                }
                let newest = past.newest_file_versions(ROOT, b"f", 1).await.unwrap();
                assert_eq!(newest.last(), Some(last));
            }
        }
    });
    for number in 1..=SAVES {
        save(&ns, ROOT, b"f", &[number; 9]).await;
        if number % 8 == 0 {
            ns.drain().await.unwrap();
        }
    }
    is_done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    let versions = ns.history.view().versions(ROOT, b"f").await.unwrap();
    assert_eq!(versions.len(), usize::from(SAVES) + 1);
    leave(ns).await;
}
