//! Deletion of versions, and garbage collection of their rows and segments.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::store::schema::tables::{DroppedTable, RowTable};

const GRACE_NS: u64 = 3600 * 1_000_000_000;

pub(crate) async fn ids(ns: &Namespace, name: &[u8]) -> Vec<VersionId> {
    let all = ns.history.view().versions(ROOT, name).await.unwrap();
    all.into_iter().map(|v| v.version).collect()
}

fn bytes(fill: u8, len: usize) -> Vec<u8> {
    vec![fill; len]
}

/// Collects all garbage, with the grace period over.
pub(crate) async fn settle(ns: &Namespace, cluster: &TestCluster) -> GcCounters {
    ns.drain().await.unwrap();
    drop(ns.data.pause_early_moves().await);
    wait_for_uploads(ns).await;
    let mut last = ns.gc.reclaim().await.unwrap();
    for _ in 0..4 {
        cluster.env.advance(GRACE_NS + 1);
        last = ns.gc.reclaim().await.unwrap();
    }
    ns.drain().await.unwrap();
    last
}

/// Waits until no upload holds back the collection: a task that uploaded a segment may end a moment after the bucket has everything.
pub(crate) async fn wait_for_uploads(ns: &Namespace) {
    let waiting = async {
        while ns.data.first_in_flight().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waited.expect("an upload that nothing ends holds back the collection");
}

/// Segments in the bucket.
pub(crate) async fn segments(cluster: &TestCluster) -> Vec<String> {
    let all = cluster.backend().list("data").await.unwrap();
    all.into_iter().map(|object| object.key).collect()
}

/// The number of rows of a table.
pub(crate) async fn rows_of(ns: &Namespace, table: &'static [u8; 2]) -> usize {
    let range = Bytes::from_static(table)..keys::after(table);
    let mut scan = ns.core.index.rows().scan(range).await.unwrap();
    let mut count = 0;
    while scan.next().await.unwrap().is_some() {
        count += 1;
    }
    count
}

pub(crate) async fn end(ns: Namespace, cluster: TestCluster) {
    check::log_twin(&ns, &cluster).await;
    let _left = cluster.kill(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_deletion_of_a_version_the_older_one_covers_its_time() {
    let cluster = TestCluster::new("thin");
    let ns = cluster.open().await;
    for text in [&b"one"[..], b"two", b"three"] {
        save(&ns, ROOT, b"a", text).await;
    }
    let before = ids(&ns, b"a").await;
    let at = before[1].timestamp;
    ns.history
        .delete_version(ROOT, b"a", before[1])
        .await
        .unwrap();
    assert_eq!(history(&ns, ROOT, b"a").await, [&b"one"[..], b"three"]);
    let then = ns
        .history
        .view()
        .entry_at(ROOT, b"a", at)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((then.version, then.kept), (before[0], Retained::Thinned));
    assert_eq!(check::read_past(&ns, &then).await, b"one");
    ns.history
        .delete_version(ROOT, b"a", before[0])
        .await
        .unwrap();
    assert_eq!(history(&ns, ROOT, b"a").await, [&b"three"[..]]);
    for at in [before[0].timestamp, at] {
        let then = ns
            .history
            .view()
            .entry_at(ROOT, b"a", at)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((then.kept, then.attrs.size), (Retained::Nothing, 3));
        let read = ns.history.read_past(&then, 0, 9).await;
        assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
        let names = ns.history.view().list_at(ROOT, at).await.unwrap();
        assert_eq!(names.len(), 1, "the name exists at every time inside");
    }
    let gone = ns.history.delete_version(ROOT, b"a", before[0]).await;
    assert!(matches!(gone, Err(StoreError::NotFound)));
    settle(&ns, &cluster).await;
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), b"three");
    assert_eq!(rows_of(&ns, b"GD").await, 0);
    assert_eq!(rows_of(&ns, b"GR").await, 1);
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_current_version_makes_its_predecessor_current() {
    let cluster = TestCluster::new("revive");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", &bytes(1, 100_000)).await;
    let ino = ns.tree.lookup(ROOT, b"a").await.unwrap().unwrap().ino;
    let file = ns.tree.file(ino).await.unwrap();
    file.write(10, Bytes::from_static(b"xxxx"), &author())
        .await
        .unwrap();
    close(&file).await;
    let both = ids(&ns, b"a").await;
    file.write(0, Bytes::from_static(b"y"), &author())
        .await
        .unwrap();
    let busy = ns.history.delete_version(ROOT, b"a", both[1]).await;
    assert!(matches!(busy, Err(StoreError::Busy(_))), "{busy:?}");
    close(&file).await;
    let three = ids(&ns, b"a").await;
    ns.history
        .delete_version(ROOT, b"a", three[2])
        .await
        .unwrap();
    ns.history
        .delete_version(ROOT, b"a", three[1])
        .await
        .unwrap();
    assert_eq!(ids(&ns, b"a").await, three[..1]);
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), bytes(1, 100_000));
    file.write(5, Bytes::from_static(b"z"), &author())
        .await
        .unwrap();
    close(&file).await;
    let mut now = bytes(1, 100_000);
    now[5] = b'z';
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), now);
    settle(&ns, &cluster).await;
    assert_eq!(
        history(&ns, ROOT, b"a").await,
        [bytes(1, 100_000), now.clone()]
    );
    drop(file);
    let cluster = cluster.kill(ns).await;
    cluster.wipe();
    let ns = cluster.open().await;
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), now);
    assert_eq!(ns.tree.usage().bytes, 100_000);
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_only_version_removes_the_name() {
    let cluster = TestCluster::new("only");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", &bytes(1, 10_000)).await;
    let id = ids(&ns, b"a").await[0];
    ns.history.delete_version(ROOT, b"a", id).await.unwrap();
    assert_eq!(content(&ns, ROOT, b"a").await, None);
    assert!(ids(&ns, b"a").await.is_empty());
    let then = ns
        .history
        .view()
        .entry_at(ROOT, b"a", id.timestamp)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(then.kept, Retained::Nothing);
    assert!(
        ns.history
            .view()
            .names_with_versions(ROOT)
            .await
            .unwrap()
            .is_empty()
    );
    let done = settle(&ns, &cluster).await;
    let dropped = rows_of(&ns, b"GD").await;
    let left = segments(&cluster).await;
    assert_eq!(left, [""; 0], "{done:?}, {dropped} lineages to look at");
    assert_eq!((done.segments, done.bytes), (1, 10_000));
    assert_eq!(rows_of(&ns, b"GB").await + rows_of(&ns, b"CF").await, 0);
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_a_hard_linked_file_is_deleted_under_all_its_names() {
    let cluster = TestCluster::new("linked");
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"a", b"one").await;
    ns.tree.link(ino, ROOT, b"b", &author()).await.unwrap();
    save(&ns, ROOT, b"b", b"two").await;
    save(&ns, ROOT, b"a", b"three").await;
    let all = ids(&ns, b"a").await;
    ns.history.delete_version(ROOT, b"b", all[1]).await.unwrap();
    assert_eq!(history(&ns, ROOT, b"a").await, [&b"one"[..], b"three"]);
    assert_eq!(history(&ns, ROOT, b"b").await, [&b"one"[..], b"three"]);
    ns.history.delete_version(ROOT, b"a", all[2]).await.unwrap();
    for name in [b"a", b"b"] {
        assert_eq!(content(&ns, ROOT, name).await.unwrap(), b"one");
    }
    let only = ids(&ns, b"a").await;
    assert_eq!(only, all[..1]);
    let linked = ids(&ns, b"b").await;
    let busy = ns.history.delete_version(ROOT, b"b", linked[0]).await;
    assert!(matches!(busy, Err(StoreError::Busy(_))), "{busy:?}");
    ns.history
        .delete_version(ROOT, b"a", only[0])
        .await
        .unwrap();
    assert_eq!(content(&ns, ROOT, b"a").await, None);
    assert_eq!(content(&ns, ROOT, b"b").await.unwrap(), b"one");
    settle(&ns, &cluster).await;
    assert_eq!(history(&ns, ROOT, b"b").await, [&b"one"[..]]);
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_version_stays_readable_while_open_and_is_stale_afterwards() {
    let cluster = TestCluster::new("held");
    let ns = cluster.open().await;
    for fill in 1..=3 {
        save(&ns, ROOT, b"a", &bytes(fill, 50_000)).await;
        // Each save makes one segment.
        ns.drain().await.unwrap();
    }
    let all = ns.history.view().versions(ROOT, b"a").await.unwrap();
    let held = ns.data.hold_standing(&all[0]).await.unwrap();
    for version in &all[..2] {
        ns.history
            .delete_version(ROOT, b"a", version.version)
            .await
            .unwrap();
    }
    settle(&ns, &cluster).await;
    assert_eq!(check::read_past(&ns, &all[0]).await, bytes(1, 50_000));
    let stale = ns.history.read_past(&all[1], 0, 10).await;
    assert!(matches!(stale, Err(StoreError::Stale)), "{stale:?}");
    let stale = ns.data.hold_standing(&all[1]).await;
    assert!(matches!(stale, Err(StoreError::Stale)));
    assert_eq!(segments(&cluster).await.len(), 2);
    drop(held);
    settle(&ns, &cluster).await;
    let stale = ns.history.read_past(&all[0], 0, 10).await;
    assert!(matches!(stale, Err(StoreError::Stale)), "{stale:?}");
    assert_eq!(segments(&cluster).await.len(), 1);
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn range_rows_that_only_a_deleted_version_needs_are_merged() {
    let cluster = TestCluster::new("merge");
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"a", &bytes(1, 600_000)).await;
    let file = ns.tree.file(ino).await.unwrap();
    let mut text = bytes(1, 600_000);
    let mut texts = vec![text.clone()];
    for step in 0..9_u8 {
        let at = 60_000 * usize::from(step);
        match step % 3 {
            2 => {
                file.truncate(at as u64 + 10, &author()).await.unwrap();
                text.truncate(at + 10);
            }
            _ => {
                let end = (at + 90_000).max(text.len());
                text.resize(end, 0);
                text[at..at + 90_000].fill(step + 2);
                let part = Bytes::from(bytes(step + 2, 90_000));
                file.write(at as u64, part, &author()).await.unwrap();
            }
        }
        close(&file).await;
        texts.push(text.clone());
    }
    let all = ids(&ns, b"a").await;
    assert_eq!(all.len(), texts.len());
    let mut left: BTreeMap<VersionId, Vec<u8>> = all.iter().copied().zip(texts).collect();
    ns.drain().await.unwrap();
    for at in [1, 4, 3, 9, 0, 7, 6] {
        ns.history
            .delete_version(ROOT, b"a", all[at])
            .await
            .unwrap();
        left.remove(&all[at]);
        settle(&ns, &cluster).await;
        let expected: Vec<_> = left.values().cloned().collect();
        for (found, expected) in history(&ns, ROOT, b"a").await.iter().zip(&expected) {
            check::same(
                found,
                expected,
                &format!("after the deletion of version {at}"),
            );
        }
        check::log_twin(&ns, &cluster).await;
    }
    assert_eq!(left.len(), 3);
    assert!(rows_of(&ns, b"CF").await <= 3 && rows_of(&ns, b"CK").await <= 2);
    drop(file);
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_dead_segments_are_copied_and_read_from_the_copy() {
    let cluster = TestCluster::new("half");
    let ns = cluster.open().await;
    let names: Vec<Vec<u8>> = (0..20).map(|n| format!("f{n}").into_bytes()).collect();
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    for (fill, name) in names.iter().enumerate() {
        save(&ns, ROOT, name, &bytes(fill as u8 + 1, 30_000)).await;
    }
    set_failpoint(&ns, None);
    ns.drain().await.unwrap();
    let old = segments(&cluster).await;
    for name in &names[..15] {
        let id = ids(&ns, name).await[0];
        ns.history.delete_version(ROOT, name, id).await.unwrap();
    }
    let done = settle(&ns, &cluster).await;
    assert_eq!(done.copied, 5 * 30_000);
    let new = segments(&cluster).await;
    assert!(old.iter().all(|key| !new.contains(key)), "{old:?} {new:?}");
    check::log_twin(&ns, &cluster).await;
    let cluster = cluster.kill(ns).await;
    cluster.wipe();
    let ns = cluster.open().await;
    for (fill, name) in names.iter().enumerate().skip(15) {
        let text = content(&ns, ROOT, name).await.unwrap();
        check::same(&text, &bytes(fill as u8 + 1, 30_000), "a relocated extent");
        let id = ids(&ns, name).await[0];
        ns.history.delete_version(ROOT, name, id).await.unwrap();
        settle(&ns, &cluster).await;
        check::log_twin(&ns, &cluster).await;
    }
    assert_eq!(segments(&cluster).await, [""; 0]);
    for table in [b"GB", b"GM", b"GE", b"GD", b"GR", b"CF"] {
        assert_eq!(rows_of(&ns, table).await, 0, "{}", table.escape_ascii());
    }
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_segments_are_copied_once_they_have_enough_waste_together() {
    let cluster = TestCluster::new("small-halves");
    let ns = cluster.open().await;
    let name = |pair: usize, which: &str| format!("{which}{pair}").into_bytes();
    for pair in 0..8 {
        set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
        for which in ["stays", "goes"] {
            save(&ns, ROOT, &name(pair, which), &bytes(pair as u8, 10_000)).await;
        }
        set_failpoint(&ns, None);
        ns.drain().await.unwrap();
    }
    assert_eq!(segments(&cluster).await.len(), 8);
    // Six have 60,000 bytes of waste, and the seventh makes them more than 64 KiB.
    for (pair, copied, left) in [(5, 0, 8), (6, 7 * 10_000, 2), (7, 7 * 10_000, 2)] {
        let from = if pair == 5 { 0 } else { pair };
        for pair in from..=pair {
            let name = name(pair, "goes");
            let id = ids(&ns, &name).await[0];
            ns.history.delete_version(ROOT, &name, id).await.unwrap();
        }
        assert_eq!(settle(&ns, &cluster).await.copied, copied);
        assert_eq!(segments(&cluster).await.len(), left);
    }
    // What is left of a segment that waits for others goes without a copy.
    let id = ids(&ns, b"stays7").await[0];
    ns.history
        .delete_version(ROOT, b"stays7", id)
        .await
        .unwrap();
    assert_eq!(settle(&ns, &cluster).await.copied, 7 * 10_000);
    assert_eq!(segments(&cluster).await.len(), 1);
    for pair in 0..7 {
        let text = content(&ns, ROOT, &name(pair, "stays")).await.unwrap();
        check::same(&text, &bytes(pair as u8, 10_000), "a relocated extent");
    }
    end(ns, cluster).await;
}

/// More than one cycle looks at.
const WAITING: usize = 1_100;

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_wait_for_their_deletion_hide_none_that_were_emptied_later() {
    let cluster = TestCluster::new("behind-waiting");
    let ns = cluster.open().await;
    for number in 0..WAITING + 101 {
        save(&ns, ROOT, b"a", &number.to_le_bytes()).await;
        // So that each has a segment of its own.
        ns.drain().await.unwrap();
    }
    let all = ids(&ns, b"a").await;
    let (first, last) = all.split_at(WAITING);
    for (versions, waiting) in [(first, WAITING), (&last[..100], WAITING + 100)] {
        for version in versions {
            let deleted = ns.history.delete_version(ROOT, b"a", *version);
            deleted.await.unwrap();
        }
        ns.drain().await.unwrap();
        let counters = ns.gc.reclaim().await.unwrap();
        assert_eq!(counters.waiting_segments, waiting as u64);
    }
    // A cycle that has nothing to do does not pass over the rows of what was reviewed.
    let end = keys::after(&DroppedTable::all());
    let lists = &ns.gc.commit.review_lists;
    assert_eq!(lists.start::<DroppedTable>().from, end);
    let counters = settle(&ns, &cluster).await;
    assert_eq!(counters.segments, (WAITING + 100) as u64);
    assert_eq!(segments(&cluster).await.len(), 1);
    self::end(ns, cluster).await;
}
