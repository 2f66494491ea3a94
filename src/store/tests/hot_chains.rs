//! The rows of a range that is written again and again are known from the last fsync, and read again after another operation changed them.

use super::forget::secret;
use super::inline::{append_synced, is_there_after_a_crash, new_open};
use super::reclaim::segments;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn fsyncs_of_one_file_do_not_search_for_its_rows() {
    let cluster = TestCluster::new("hot-searches");
    let ns = cluster.open().await;
    let file = new_open(&ns, b"log").await;
    let mut all = Vec::new();
    for number in 1..=100 {
        if number == 3 {
            ns.drain().await.unwrap();
        }
        let before = ns.searches();
        let line = secret(100, number);
        append_synced(&file, &line).await;
        all.extend(line);
        let searches = ns.searches() - before;
        assert!(number < 3 || searches == 0, "{searches} in fsync {number}");
    }
    is_there_after_a_crash(cluster, ns, file, b"log", &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_moved_between_two_fsyncs_are_read_again() {
    let cluster = TestCluster::new("hot-moved");
    let ns = cluster.open().await;
    let file = new_open(&ns, b"log").await;
    let (mut all, mut moved) = (Vec::new(), 0);
    for number in 1..=60 {
        let page = secret(20_000, number);
        append_synced(&file, &page).await;
        all.extend(page);
        if number % 4 == 0 {
            ns.drain().await.unwrap();
            moved += ns.gc.move_inline().await.unwrap();
        }
        if number % 16 == 0 {
            ns.gc.reclaim().await.unwrap();
        }
    }
    assert!(moved > 5, "{moved} moves between fsyncs");
    assert!(!segments(&cluster).await.is_empty());
    is_there_after_a_crash(cluster, ns, file, b"log", &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_between_two_fsyncs_hides_the_bytes_behind_it() {
    let cluster = TestCluster::new("hot-cut");
    let ns = cluster.open().await;
    let file = new_open(&ns, b"log").await;
    let mut all = Vec::new();
    for number in 1..=50_u64 {
        let line = secret(3_000, number);
        append_synced(&file, &line).await;
        all.extend(line);
        if number % 5 == 0 {
            let len = all.len() - 4_500;
            file.truncate(len as u64, &author()).await.unwrap();
            file.sync(&author()).await.unwrap();
            all.truncate(len);
        }
        if number % 9 == 0 {
            let at = all.len() + 2_000;
            file.write(at as u64, Bytes::from_static(b"behind a hole"), &author())
                .await
                .unwrap();
            file.sync(&author()).await.unwrap();
            all.resize(at, 0);
            all.extend(b"behind a hole");
        }
    }
    is_there_after_a_crash(cluster, ns, file, b"log", &all).await;
}
