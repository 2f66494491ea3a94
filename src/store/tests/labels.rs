//! Labels: their rows, their changes, and what survives a crash.

use std::time::Duration;

use super::scenarios::FAILPOINTS;
use super::*;
use crate::store::schema::label_keys;
use crate::store::schema::tables::{LabelTable, LabelTimeTable, LapseTable, LoggedTable, RowTable};

const DAY: u64 = 24 * 3600 * 1_000_000_000;

/// The number of rows of a table.
pub(super) async fn rows<T: RowTable>(ns: &Namespace) -> usize {
    let (from, end) = (T::all(), keys::after(&T::all()));
    let rows = ns.core.index.scan(from, end, usize::MAX).await;
    rows.unwrap().len()
}

/// All rows whose keys begin with `first`.
async fn all_rows(ns: &Namespace, first: &'static [u8]) -> usize {
    let from = Bytes::from_static(first);
    let rows = ns
        .core
        .index
        .scan(from.clone(), keys::after(&from), usize::MAX);
    rows.await.unwrap().len()
}

pub(super) async fn mkdir(ns: &Namespace, parent: Ino, name: &[u8]) -> Ino {
    let (node, author) = (new_node(Kind::Directory), author());
    let made = ns.tree.create(parent, name, node, &author).await;
    made.unwrap().ino
}

pub(super) async fn try_label(
    ns: &Namespace,
    directory: Ino,
    name: &[u8],
    expires: Option<Timestamp>,
) -> Result<Label, StoreError> {
    let author = author();
    ns.history
        .create_label(directory, name, expires, &author)
        .await
}

pub(super) async fn label(ns: &Namespace, directory: Ino, name: &[u8]) -> Label {
    try_label(ns, directory, name, None).await.unwrap()
}

pub(super) async fn move_to(ns: &Namespace, from: (Ino, &[u8]), to: (Ino, &[u8])) {
    let from = DentryRef::new(from.0, from.1);
    let to = DentryRef::new(to.0, to.1);
    let author = author();
    let moved = ns.tree.rename(from, to, RenameMode::Replace, &author).await;
    moved.unwrap();
}

/// The names of the labels that a directory shows.
pub(super) async fn names(ns: &Namespace, directory: Ino) -> Vec<String> {
    let labels = ns.history.view().labels(directory).await.unwrap();
    let names = labels.into_iter().map(|label| label.name.to_vec());
    names.map(|name| String::from_utf8(name).unwrap()).collect()
}

/// What a name showed at a label's timestamp.
pub(super) async fn shown(ns: &Namespace, label: &Label, name: &[u8]) -> Option<Vec<u8>> {
    let view = ns.history.view();
    let entry = view.entry_at(label.directory, name, label.timestamp).await;
    let entry = entry.unwrap()?;
    let bytes = ns.history.read_past(&entry, 0, u32::MAX).await;
    Some(bytes.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_of_a_directory_with_many_files_is_one_row_and_one_flush() {
    let cluster = TestCluster::new("label-rows");
    let ns = cluster.open().await;
    let dir = mkdir(&ns, ROOT, b"d").await;
    for number in 0..300 {
        save(&ns, dir, format!("f{number}").as_bytes(), b"x").await;
    }
    ns.drain().await.unwrap();
    let (all, puts) = (
        all_rows(&ns, b"C").await + all_rows(&ns, b"H").await,
        ns.counters().put,
    );
    let before = all_rows(&ns, b"G").await - rows::<LoggedTable>(&ns).await;
    label(&ns, dir, b"v1").await;
    let puts = ns.counters().put - puts;
    assert_eq!(
        (
            rows::<LabelTable>(&ns).await,
            rows::<LabelTimeTable>(&ns).await
        ),
        (1, 1)
    );
    assert_eq!(all_rows(&ns, b"C").await + all_rows(&ns, b"H").await, all);
    let after = all_rows(&ns, b"G").await - rows::<LoggedTable>(&ns).await;
    assert_eq!(after, before + 2);
    // The write-ahead log of the index once, and once more if its own flush came between.
    assert!(puts <= 2, "{puts} requests");
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_shows_what_was_saved_or_flushed_and_nothing_newer() {
    let cluster = TestCluster::new("label-shows");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"saved", b"one").await;
    let ino = save(&ns, ROOT, b"open", b"one").await;
    let open = ns.tree.file(ino).await.unwrap();
    open.write(0, Bytes::from_static(b"two"), &author())
        .await
        .unwrap();
    let ino = save(&ns, ROOT, b"flushed", b"one").await;
    let closed = ns.tree.file(ino).await.unwrap();
    closed
        .write(0, Bytes::from_static(b"two"), &author())
        .await
        .unwrap();
    let flushed = closed.flush(&author(), None).await.unwrap().unwrap();
    let v1 = label(&ns, ROOT, b"v1").await;
    let state = |name| shown(&ns, &v1, name);
    for _ in 0..2 {
        assert_eq!(state(b"saved").await.unwrap(), b"one");
        assert_eq!(state(b"open").await.unwrap(), b"one");
        assert_eq!(state(b"flushed").await.unwrap(), b"two");
        save(&ns, ROOT, b"saved", b"three").await;
    }
    // The release of the handle finds its version made.
    closed.save(flushed).await.unwrap();
    assert_eq!(history(&ns, ROOT, b"flushed").await, [b"one", b"two"]);
    assert!(ns.history.is_final(v1.timestamp));
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_labels_are_checked_and_are_unique_in_a_directory() {
    let cluster = TestCluster::new("label-names");
    let ns = cluster.open().await;
    let dir = mkdir(&ns, ROOT, b"d").await;
    let other = mkdir(&ns, ROOT, b"e").await;
    for directory in [dir, other, ROOT] {
        label(&ns, directory, b"v1").await;
    }
    let again = try_label(&ns, dir, b"v1", None).await;
    assert!(matches!(again, Err(StoreError::Exists)), "{again:?}");
    let bad = try_label(&ns, dir, b"2026", None).await;
    assert!(matches!(bad, Err(StoreError::Invalid(_))), "{bad:?}");
    let past = try_label(&ns, dir, b"v2", Some(Timestamp(5)));
    assert!(matches!(past.await, Err(StoreError::Invalid(_))));
    let gone = try_label(&ns, Ino(999), b"v1", None).await;
    assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
    let file = save(&ns, ROOT, b"f", b"x").await;
    let file = try_label(&ns, file, b"v1", None).await;
    assert!(matches!(file, Err(StoreError::NotDirectory)), "{file:?}");

    label(&ns, dir, b"v2").await;
    let rename = ns.history.rename_label(dir, b"v2", b"v1").await;
    assert!(matches!(rename, Err(StoreError::Exists)), "{rename:?}");
    let rename = ns.history.rename_label(dir, b"v2", b"-1h").await;
    assert!(matches!(rename, Err(StoreError::Invalid(_))), "{rename:?}");
    let rename = ns.history.rename_label(dir, b"v9", b"v3").await;
    assert!(matches!(rename, Err(StoreError::NotFound)), "{rename:?}");
    let before = ns.history.view().label(dir, b"v2").await.unwrap().unwrap();
    ns.history.rename_label(dir, b"v2", b"v3").await.unwrap();
    let after = ns.history.view().label(dir, b"v3").await.unwrap().unwrap();
    assert_eq!(before.timestamp, after.timestamp);
    assert_eq!(names(&ns, dir).await, ["v1", "v3"]);
    ns.history.remove_label(dir, b"v1").await.unwrap();
    let gone = ns.history.remove_label(dir, b"v1").await;
    assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
    assert_eq!(names(&ns, dir).await, ["v3"]);
    assert_eq!(names(&ns, other).await, ["v1"]);
    assert_eq!(rows::<LabelTimeTable>(&ns).await, 3);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

/// Makes a label while the pipeline halts before a step. Returns the cluster after the crash.
async fn label_and_crash(step: Option<failpoints::Failpoint>) -> (TestCluster, bool) {
    let cluster = TestCluster::new("label-crash");
    let ns = cluster.open().await;
    let dir = mkdir(&ns, ROOT, b"d").await;
    save(&ns, dir, b"f", &[7; 100_000]).await;
    set_failpoint(&ns, step);
    let made = try_label(&ns, dir, b"v1", None);
    let made = tokio::time::timeout(Duration::from_millis(800), made).await;
    let made = made.is_ok_and(|made| made.is_ok());
    (cluster.kill(ns).await, made)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_was_made_survives_the_loss_of_the_machine_and_one_that_waits_is_whole_or_not_there()
 {
    for step in FAILPOINTS {
        for wiped in [false, true] {
            let (cluster, made) = label_and_crash(step).await;
            // Only the log is not waited for.
            let waits = step.is_some_and(|step| step < failpoints::Failpoint::Flush);
            assert!(!made || !waits, "{step:?}");
            if wiped {
                cluster.wipe();
            }
            let ns = cluster.open().await;
            let Some(dir) = ns.tree.lookup(ROOT, b"d").await.unwrap() else {
                assert!(!made && wiped, "{step:?}");
                leave(ns).await;
                continue;
            };
            let v1 = ns.history.view().label(dir.ino, b"v1").await.unwrap();
            assert!(v1.is_some() || !made, "{step:?}, wiped {wiped}");
            if let Some(v1) = v1 {
                assert_eq!(shown(&ns, &v1, b"f").await.unwrap(), [7; 100_000]);
            }
            ns.drain().await.unwrap();
            check::log_twin(&ns, &cluster).await;
            leave(ns).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_labels_survive_a_crash_of_the_daemon() {
    let cluster = TestCluster::new("label-changes");
    let ns = cluster.open().await;
    for name in [&b"kept"[..], b"renamed", b"removed"] {
        label(&ns, ROOT, name).await;
    }
    set_failpoint(&ns, Some(failpoints::Failpoint::Commit));
    let until = Timestamp(ns.now().0 + DAY);
    ns.history
        .rename_label(ROOT, b"renamed", b"new")
        .await
        .unwrap();
    ns.history.remove_label(ROOT, b"removed").await.unwrap();
    ns.history.hold_label(ROOT, b"kept", until).await.unwrap();
    let cluster = cluster.kill(ns).await;
    let ns = cluster.open().await;
    assert_eq!(names(&ns, ROOT).await, ["kept", "new"]);
    let kept = ns
        .history
        .view()
        .label(ROOT, b"kept")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.hold, Some(until));
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_follow_their_directory_and_a_directory_made_anew_shows_those_of_the_removed_one() {
    let cluster = TestCluster::new("label-follows");
    let ns = cluster.open().await;
    let above = mkdir(&ns, ROOT, b"above").await;
    let dir = mkdir(&ns, above, b"d").await;
    save(&ns, dir, b"f", b"one").await;
    let v1 = label(&ns, dir, b"v1").await;
    move_to(&ns, (above, b"d"), (above, b"e")).await;
    assert_eq!(names(&ns, dir).await, ["v1"]);
    let other = mkdir(&ns, above, b"d").await;
    assert!(
        names(&ns, other).await.is_empty(),
        "the directory is elsewhere"
    );
    ns.tree.unlink(dir, b"f", &author()).await.unwrap();
    ns.tree.rmdir(above, b"e", &author()).await.unwrap();
    ns.tree.rmdir(above, b"d", &author()).await.unwrap();
    ns.tree.rmdir(ROOT, b"above", &author()).await.unwrap();
    assert_eq!(
        names(&ns, dir).await,
        ["v1"],
        "by the number of the removed directory"
    );
    let above = mkdir(&ns, ROOT, b"above").await;
    let new = mkdir(&ns, above, b"e").await;
    let found = ns.history.view().label(new, b"v1").await.unwrap().unwrap();
    assert_eq!(found, v1);
    assert_eq!(shown(&ns, &found, b"f").await.unwrap(), b"one");
    let again = try_label(&ns, new, b"v1", None).await;
    assert!(matches!(again, Err(StoreError::Exists)), "{again:?}");
    label(&ns, new, b"v2").await;
    assert_eq!(names(&ns, new).await, ["v1", "v2"]);
    ns.history.rename_label(new, b"v1", b"v0").await.unwrap();
    assert_eq!(names(&ns, new).await, ["v0", "v2"]);
    ns.history.remove_label(new, b"v0").await.unwrap();
    assert_eq!(names(&ns, new).await, ["v2"]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_labels_and_ended_holds_are_removed_in_bounded_steps_the_oldest_first() {
    let cluster = TestCluster::new("label-expiry");
    let ns = cluster.open().await;
    let now = ns.now().0;
    for (name, days) in [(b"c", 3), (b"a", 1), (b"b", 2), (b"d", 9)] {
        let expires = Some(Timestamp(now + days * DAY));
        let made = try_label(&ns, ROOT, name, expires);
        made.await.unwrap();
    }
    label(&ns, ROOT, b"stays").await;
    let held = Timestamp(now + 5 * DAY);
    ns.history.hold_label(ROOT, b"b", held).await.unwrap();
    save(&ns, ROOT, b"f", b"one").await;
    let entry = ns
        .history
        .view()
        .entry_at(ROOT, b"f", ns.now())
        .await
        .unwrap()
        .unwrap();
    let slot = DentryRef::new(ROOT, b"f");
    let until = Timestamp(now + 4 * DAY);
    ns.history
        .hold_version(slot, &entry, until, &author())
        .await
        .unwrap();

    let step = |days: u64, max| ns.history.remove_lapsed(Timestamp(now + days * DAY), max);
    assert_eq!(step(0, 9).await.unwrap(), LapsedStep::default());
    let one = LapsedStep {
        labels: 1,
        holds: 0,
        looked_at: 1,
    };
    assert_eq!(step(4, 1).await.unwrap(), one);
    assert_eq!(names(&ns, ROOT).await, ["b", "c", "d", "stays"]);
    let both = LapsedStep {
        labels: 1,
        holds: 1,
        looked_at: 2,
    };
    assert_eq!(step(4, 9).await.unwrap(), both, "b is held");
    assert_eq!(names(&ns, ROOT).await, ["b", "d", "stays"]);
    assert_eq!(
        ns.history
            .view()
            .hold_of(entry.ino, entry.version)
            .await
            .unwrap(),
        None
    );
    assert_eq!(step(5, 9).await.unwrap(), one);
    assert_eq!(names(&ns, ROOT).await, ["d", "stays"]);
    assert_eq!(rows::<LapseTable>(&ns).await, 1);
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recount_finds_a_label_that_no_other_row_leads_to() {
    let cluster = TestCluster::new("label-recount");
    let ns = cluster.open().await;
    let expires = Timestamp(ns.now().0 + DAY);
    let made = try_label(&ns, ROOT, b"v1", Some(expires));
    let v1 = made.await.unwrap();
    let label = label_keys::label(ROOT, b"v1");
    let time = label_keys::label_time(v1.timestamp, ROOT, b"v1");
    let lapse = label_keys::lapse(expires, &label);
    let mut txn = ns.gc.gc_txn(vec![]);
    txn.delete(time.clone());
    txn.delete(lapse.clone());
    ns.commit.enqueue(txn).unwrap();
    ns.drain().await.unwrap();
    let index = ns.core.index.rows();
    let wrong = crate::store::check::wrong_counts(index.as_ref())
        .await
        .unwrap();
    assert_eq!(wrong, [time.bytes(), lapse.bytes()]);
    leave(ns).await;
}
