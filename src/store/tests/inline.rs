//! Bytes of an fsync that are stored in rows, and moved into segments later.

use std::time::Duration;

use super::forget::{all_of, holding, save_synced, secret};
use super::reclaim::{rows_of, segments, settle, wait_for_uploads};
use super::*;
use crate::store::data::inline_backlog::INLINE_KEPT;
use crate::store::schema::tables::{InlineTable, RangeTable, RowTable};

const KIB: usize = 1 << 10;

/// Asserts that no row has inline bytes that wait to be moved.
pub(super) async fn none_wait(ns: &Namespace, at: &str) {
    let (from, end) = (InlineTable::all(), keys::after(&InlineTable::PREFIX));
    let marks = ns.core.index.keys(from, end).await.unwrap();
    assert!(marks.is_empty(), "{at}: lineages are marked: {marks:?}");
    let most = most_inline(ns).await;
    assert!(most <= INLINE_KEPT as i64, "{at}: a row has {most} bytes");
}

/// The most inline bytes of a range row.
async fn most_inline(ns: &Namespace) -> i64 {
    let (from, end) = (RangeTable::all(), keys::after(&RangeTable::PREFIX));
    let rows = ns.core.index.scan(from, end, usize::MAX).await.unwrap();
    let inline = rows
        .iter()
        .map(|(_, value)| RangeTable::decode(value).unwrap().inline_bytes());
    inline.max().unwrap_or(0)
}

pub(super) async fn new_open(ns: &Namespace, name: &[u8]) -> Arc<File> {
    let made = ns.tree.create_open(ROOT, name, new_file(), &author()).await;
    made.unwrap().1
}

pub(super) async fn append_synced(file: &File, bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    file.append(bytes, &author()).await.unwrap();
    file.sync(&author()).await.unwrap();
}

/// Asserts that a file, which it closes, has the bytes `all`: open, and from the bucket alone after a crash and a collection.
pub(super) async fn is_there_after_a_crash(
    cluster: TestCluster,
    ns: Namespace,
    file: Arc<File>,
    name: &[u8],
    all: &[u8],
) {
    assert!(file.read(0, u32::MAX).await.unwrap() == all);
    close(&file).await;
    drop(file);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    let cluster = cluster.kill(ns).await;
    cluster.wipe();
    let ns = cluster.open().await;
    // A wrong count of citing rows would delete a segment here that the file needs.
    settle(&ns, &cluster).await;
    assert!(content(&ns, ROOT, name).await.unwrap() == all);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_fsync_of_64_kib_uploads_no_segment_and_one_of_more_does() {
    let cluster = TestCluster::new("inline-limit");
    let ns = open_as_a_mount(&cluster).await;
    save_synced(&ns, b"a", &secret(64 * KIB, 1)).await;
    assert_eq!(segments(&cluster).await.len(), 0);
    save_synced(&ns, b"b", &secret(64 * KIB + 1, 2)).await;
    assert_eq!(segments(&cluster).await.len(), 1);
    for (name, seed, len) in [(b"a", 1, 64 * KIB), (b"b", 2, 64 * KIB + 1)] {
        let read = content(&ns, ROOT, name).await.unwrap();
        assert!(read == secret(len, seed), "{name:?}");
    }
    leave(ns).await;
}

/// Opens a namespace in which a saved file waits a second for others, as in a mount: its fsync is called before it is uploaded.
async fn open_as_a_mount(cluster: &TestCluster) -> Namespace {
    let config = NamespaceConfig {
        linger: Linger::AtOnce,
        ..config(cluster.cache.path().to_owned())
    };
    cluster.try_open_with(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fsyncs_of_many_files_at_once_upload_no_segment() {
    let cluster = TestCluster::new("inline-many");
    let ns = Arc::new(open_as_a_mount(&cluster).await);
    let mut callers = Vec::new();
    for number in 0..16_u64 {
        let ns = Arc::clone(&ns);
        callers.push(tokio::spawn(async move {
            let name = format!("f{number}");
            save_synced(&ns, name.as_bytes(), &secret(40 * KIB, number + 1)).await;
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(segments(&cluster).await.len(), 0);
    let ns = Arc::into_inner(ns).unwrap();
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inline_bytes_of_many_files_are_moved_into_one_segment_and_read_there() {
    let cluster = TestCluster::new("inline-moved");
    let ns = cluster.open().await;
    let names: Vec<String> = (0..12).map(|number| format!("f{number}")).collect();
    for (seed, name) in (1..).zip(&names) {
        save_synced(&ns, name.as_bytes(), &secret(20 * KIB, seed)).await;
    }
    save_synced(&ns, b"small", &secret(INLINE_KEPT, 99)).await;
    assert_eq!(rows_of(&ns, b"Gi").await, 12, "files with more than stays");
    assert_eq!(ns.gc.move_inline().await.unwrap(), 12);
    ns.drain().await.unwrap();
    none_wait(&ns, "after the move").await;
    assert_eq!(segments(&cluster).await.len(), 1);
    assert_eq!(ns.gc.move_inline().await.unwrap(), 0, "nothing is left");
    check::log_twin(&ns, &cluster).await;
    let cluster = cluster.kill(ns).await;
    cluster.wipe();
    let ns = cluster.open().await;
    for (seed, name) in (1..).zip(&names) {
        let read = content(&ns, ROOT, name.as_bytes()).await.unwrap();
        assert!(read == secret(20 * KIB, seed), "{name}");
    }
    let read = content(&ns, ROOT, b"small").await.unwrap();
    assert!(read == secret(INLINE_KEPT, 99));
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_move_is_durable_leaves_the_bytes_in_the_rows() {
    for halt in [failpoints::Failpoint::Commit, failpoints::Failpoint::Flush] {
        let cluster = TestCluster::new("inline-crash");
        let ns = cluster.open().await;
        for (name, seed) in [(b"a", 1), (b"b", 2)] {
            save_synced(&ns, name, &secret(30 * KIB, seed)).await;
        }
        ns.drain().await.unwrap();
        set_failpoint(&ns, Some(halt));
        assert_eq!(ns.gc.move_inline().await.unwrap(), 2, "{halt:?}");
        let cluster = cluster.kill(ns).await;
        let ns = cluster.open().await;
        for (name, seed) in [(b"a", 1), (b"b", 2)] {
            let read = content(&ns, ROOT, name).await.unwrap();
            assert!(read == secret(30 * KIB, seed), "{halt:?}");
        }
        ns.gc.move_inline().await.unwrap();
        ns.drain().await.unwrap();
        none_wait(&ns, "after the second move").await;
        check::log_twin(&ns, &cluster).await;
        leave(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_save_that_waits_keeps_its_inline_bytes_and_its_mark() {
    let cluster = TestCluster::new("inline-used");
    let ns = cluster.open().await;
    save_synced(&ns, b"a", &secret(20 * KIB, 1)).await;
    set_failpoint(&ns, Some(failpoints::Failpoint::Commit));
    let file = ns.tree.lookup(ROOT, b"a").await.unwrap().unwrap();
    let file = ns.tree.file(file.ino).await.unwrap();
    file.write(100, Bytes::from_static(b"more"), &author())
        .await
        .unwrap();
    close(&file).await;
    assert_eq!(ns.gc.move_inline().await.unwrap(), 0);
    set_failpoint(&ns, None);
    ns.drain().await.unwrap();
    assert_eq!(ns.gc.move_inline().await.unwrap(), 1);
    ns.drain().await.unwrap();
    none_wait(&ns, "after the second move").await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_fsynced_pages_keeps_few_rows_and_few_inline_bytes_while_it_is_open() {
    let cluster = TestCluster::new("inline-pages");
    let ns = cluster.open().await;
    let file = new_open(&ns, b"wal").await;
    let mut all = Vec::new();
    for page in 1..=100 {
        let bytes = secret(4096 + 24, page);
        append_synced(&file, &bytes).await;
        all.extend(bytes);
    }
    let rows = rows_of(&ns, b"CF").await;
    assert!(rows <= 17, "{rows} rows of one range");
    assert!(most_inline(&ns).await <= 64 * KIB as i64);
    let made = segments(&cluster).await.len();
    assert!(made <= 16, "{made} segments for 100 pages");
    assert!(file.read(0, u32::MAX).await.unwrap() == all);
    close(&file).await;
    drop(file);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    let cluster = cluster.kill(ns).await;
    let ns = cluster.open().await;
    assert!(content(&ns, ROOT, b"wal").await.unwrap() == all);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_between_fsyncs_stay_what_they_were() {
    let cluster = TestCluster::new("inline-versions");
    let ns = cluster.open().await;
    let (mut all, mut versions) = (Vec::new(), Vec::new());
    for number in 1..=40 {
        let file = match number {
            1 => new_open(&ns, b"f").await,
            _ => {
                let stat = ns.tree.lookup(ROOT, b"f").await.unwrap().unwrap();
                ns.tree.file(stat.ino).await.unwrap()
            }
        };
        for part in 0..3 {
            let bytes = secret(5_000, number * 10 + part);
            append_synced(&file, &bytes).await;
            all.extend(bytes);
        }
        close(&file).await;
        versions.push(all.clone());
        if number % 7 == 0 {
            ns.drain().await.unwrap();
            ns.gc.move_inline().await.unwrap();
        }
    }
    ns.drain().await.unwrap();
    ns.gc.reclaim().await.unwrap();
    assert!(history(&ns, ROOT, b"f").await == versions);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_moved_while_versions_are_forgotten_and_moved_bytes_are_forgotten_too() {
    let cluster = TestCluster::new("inline-forget");
    let ns = cluster.open().await;
    let (first, second) = (secret(20 * KIB, 1), secret(20 * KIB, 2));
    save_synced(&ns, b"moved", &first).await;
    ns.drain().await.unwrap();
    ns.gc.move_inline().await.unwrap();
    save_synced(&ns, b"inline", &second).await;
    let paused = ns.gc.pause_inline().await;
    assert_eq!(ns.gc.move_inline().await.unwrap(), 0, "it is paused");
    drop(paused);
    for name in [&b"moved"[..], b"inline"] {
        ns.tree.unlink(ROOT, name, &author()).await.unwrap();
        let (steps, _told) = tokio::sync::mpsc::unbounded_channel();
        let request = ForgetRequest {
            name: Bytes::copy_from_slice(name),
            ..all_of(b"")
        };
        ns.forget.carry_out(&request, &steps).await.unwrap();
    }
    for secret in [&first, &second] {
        assert_eq!(holding(&cluster, secret).await, Vec::<String>::new());
    }
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_rearrange_a_lineage_one_is_queued() {
    let cluster = TestCluster::new("inline-claim");
    let ns = cluster.open().await;
    let contents = &ns.data.contents;
    let (one, two, other) = (contents.watch(7), contents.watch(7), contents.watch(8));
    assert!(one.claim() && one.claim(), "its own operations are its own");
    assert!(!two.claim(), "the rows are not those that it read");
    assert!(other.claim());
    drop((one, two, other));
    assert!(contents.watch(7).claim());
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_moves_inline_bytes_when_a_segment_is_full_of_them() {
    let cluster = TestCluster::new("inline-due");
    let ns = open_as_a_mount(&cluster).await;
    for number in 0..8_u64 {
        save_synced(
            &ns,
            format!("f{number}").as_bytes(),
            &secret(60 * KIB, number + 1),
        )
        .await;
    }
    ns.gc.turn().await.unwrap();
    assert_eq!(segments(&cluster).await.len(), 0, "half a megabyte waits");
    ns.data.inline_backlog.add(8 << 20);
    ns.gc.turn().await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), ns.drain())
        .await
        .unwrap()
        .unwrap();
    none_wait(&ns, "after the cycle").await;
    assert_eq!(segments(&cluster).await.len(), 1);
    leave(ns).await;
}

/// Waits until so many segments are in the bucket.
async fn wait_for_segments(cluster: &TestCluster, count: usize) {
    let waiting = async {
        while segments(cluster).await.len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waited.expect("the segment of an early move");
}

#[tokio::test(flavor = "multi_thread")]
async fn fsyncs_of_a_log_wait_for_no_segment() {
    let cluster = TestCluster::new("early-move");
    let ns = cluster.open().await;
    let file = new_open(&ns, b"wal").await;
    let mut all = Vec::new();
    for page in 1..=10 {
        let bytes = secret(4096 + 24, page);
        append_synced(&file, &bytes).await;
        all.extend(bytes);
    }
    wait_for_segments(&cluster, 1).await;
    // From now on no segment is uploaded, and the row of the seventeenth fsync would have more than 64 KiB.
    let uploads = ns.data.uploads.available_permits() as u32;
    let uploads = ns.data.uploads.acquire_many(uploads).await.unwrap();
    for page in 11..=20 {
        let bytes = secret(4096 + 24, page);
        let synced = append_synced(&file, &bytes);
        let synced = tokio::time::timeout(Duration::from_secs(20), synced).await;
        synced.unwrap_or_else(|_| panic!("the fsync of page {page} waits for a segment"));
        all.extend(bytes);
    }
    drop(uploads);
    is_there_after_a_crash(cluster, ns, file, b"wal", &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_move_that_no_row_cites_is_deleted_and_a_pause_ends_them() {
    let cluster = TestCluster::new("early-unused");
    let ns = cluster.open().await;
    let file = new_open(&ns, b"wal").await;
    for page in 1..=10 {
        append_synced(&file, &secret(4096, page)).await;
    }
    wait_for_segments(&cluster, 1).await;
    let paused = ns.data.pause_early_moves().await;
    assert_eq!(segments(&cluster).await, Vec::<String>::new());
    // The task of the last fsync may end a moment after its caller goes on.
    wait_for_uploads(&ns).await;
    for page in 11..=15 {
        append_synced(&file, &secret(4096, page)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(segments(&cluster).await, Vec::<String>::new());
    drop(paused);
    close(&file).await;
    drop(file);
    leave(ns).await;
}
