//! What labels and holds keep: which versions a label shows, and what cannot be deleted.

use super::labels::{label, mkdir, move_to, names};
use super::*;
use crate::store::history::label_reads::LocationMemo;
use crate::store::schema::label_keys::{LabelPoint, LabelSlot};
use crate::store::schema::tables::{HoldTable, LabelTable, LapseTable};

const DAY: u64 = 24 * 3600 * 1_000_000_000;

fn point(label: &Label) -> LabelPoint {
    LabelPoint {
        timestamp: label.timestamp,
        slot: LabelSlot {
            directory: label.directory,
            name: label.name.clone(),
        },
    }
}

async fn is_shown(ns: &Namespace, label: &Label, directory: Ino) -> bool {
    let view = ns.history.view();
    let (point, mut memo) = (point(label), LocationMemo::default());
    view.label_shows(&point, directory, &mut memo)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_shows_the_names_of_directories_that_were_below_its_own_then() {
    let cluster = TestCluster::new("label-scope");
    let ns = cluster.open().await;
    let a = mkdir(&ns, ROOT, b"a").await;
    let b = mkdir(&ns, a, b"b").await;
    let c = mkdir(&ns, b, b"c").await;
    let beside = mkdir(&ns, ROOT, b"beside").await;
    let root = label(&ns, ROOT, b"v").await;
    let first = label(&ns, a, b"first").await;
    move_to(&ns, (b, b"c"), (beside, b"c")).await;
    let later = label(&ns, a, b"later").await;
    move_to(&ns, (a, b"b"), (ROOT, b"b")).await;
    let late = mkdir(&ns, a, b"late").await;
    ns.tree.rmdir(ROOT, b"b", &author()).await.unwrap();
    let shows = |label: &Label| {
        let (ns, label) = (ns.clone(), label.clone());
        async move {
            let mut shown = Vec::new();
            for directory in [a, b, c, beside, late] {
                shown.push(is_shown(&ns, &label, directory).await);
            }
            shown
        }
    };
    assert_eq!(shows(&root).await, [true, true, true, true, false]);
    assert_eq!(shows(&first).await, [true, true, true, false, false]);
    assert_eq!(shows(&later).await, [true, true, false, false, false]);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_reads_each_location_once() {
    let cluster = TestCluster::new("label-memo");
    let ns = cluster.open().await;
    let mut deepest = ROOT;
    for _ in 0..20 {
        deepest = mkdir(&ns, deepest, b"d").await;
    }
    let beside = mkdir(&ns, ROOT, b"beside").await;
    let v1 = label(&ns, beside, b"v1").await;
    let (view, mut memo) = (ns.history.view(), LocationMemo::default());
    for least in [20, 0] {
        let before = ns.rows_read();
        let shows = view.label_shows(&point(&v1), deepest, &mut memo).await;
        assert!(!shows.unwrap());
        let read = ns.rows_read() - before;
        assert!(least <= read && read <= 2 * least, "{read} rows");
    }
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_a_span_include_those_that_are_being_made() {
    let cluster = TestCluster::new("label-span");
    let ns = cluster.open().await;
    let dir = mkdir(&ns, ROOT, b"d").await;
    let (v1, v2) = (label(&ns, ROOT, b"v1").await, label(&ns, dir, b"v2").await);
    let between = |from: Timestamp, to: Timestamp| ns.history.labels_between(from..to, usize::MAX);
    let (first, last) = (v1.timestamp, v2.timestamp);
    assert_eq!(between(first, last).await.unwrap(), [point(&v1)]);
    let after = Timestamp(last.0 + 1);
    assert_eq!(
        between(first, after).await.unwrap(),
        [point(&v1), point(&v2)]
    );
    assert!(
        between(after, Timestamp(u64::MAX))
            .await
            .unwrap()
            .is_empty()
    );

    set_failpoint(&ns, Some(failpoints::Failpoint::Upload));
    save(&ns, dir, b"f", &[7; 100_000]).await;
    let making = tokio::spawn({
        let ns = ns.clone();
        async move { labels::try_label(&ns, dir, b"v3", None).await }
    });
    let mut forming = Vec::new();
    for _ in 0..200 {
        forming = between(after, Timestamp(u64::MAX)).await.unwrap();
        if !forming.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(
        labels::rows::<LabelTable>(&ns).await,
        2,
        "it is not made yet"
    );
    set_failpoint(&ns, None);
    let v3 = making.await.unwrap().unwrap();
    assert_eq!(forming, [point(&v3)]);
    assert_eq!(between(after, Timestamp(u64::MAX)).await.unwrap(), forming);
    leave(ns).await;
}

async fn state(ns: &Namespace, name: &[u8], at: usize) -> PastEntry {
    let versions = ns.history.view().versions(ROOT, name).await.unwrap();
    versions[at].clone()
}

fn is_held(outcome: Result<(), StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Held(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_label_stays_and_a_hold_is_never_shortened() {
    let cluster = TestCluster::new("label-hold");
    let ns = cluster.open().await;
    label(&ns, ROOT, b"v1").await;
    let history = &ns.history;
    let day = |days| Timestamp(ns.now().0 + days * DAY);
    let (sooner, later) = (day(1), day(2));
    history.hold_label(ROOT, b"v1", sooner).await.unwrap();
    history.hold_label(ROOT, b"v1", later).await.unwrap();
    history.hold_label(ROOT, b"v1", later).await.unwrap();
    assert!(is_held(history.hold_label(ROOT, b"v1", sooner).await));
    assert!(is_held(history.remove_label(ROOT, b"v1").await));
    let past = history.hold_label(ROOT, b"v1", Timestamp(7)).await;
    assert!(matches!(past, Err(StoreError::Invalid(_))), "{past:?}");
    history.rename_label(ROOT, b"v1", b"v2").await.unwrap();
    assert!(is_held(history.remove_label(ROOT, b"v2").await));
    history.release_label(ROOT, b"v2").await.unwrap();
    let again = history.release_label(ROOT, b"v2").await;
    assert!(matches!(again, Err(StoreError::Invalid(_))), "{again:?}");
    history.remove_label(ROOT, b"v2").await.unwrap();

    label(&ns, ROOT, b"v3").await;
    history.hold_label(ROOT, b"v3", day(1)).await.unwrap();
    cluster.env.advance(2 * DAY);
    history.remove_label(ROOT, b"v3").await.unwrap();
    assert!(names(&ns, ROOT).await.is_empty());
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_version_cannot_be_deleted_and_keeps_its_hold_through_links_and_renames() {
    let cluster = TestCluster::new("version-hold");
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"f", b"one").await;
    let held = state(&ns, b"f", 0).await;
    let until = Timestamp(ns.now().0 + DAY);
    let (slot, author) = (DentryRef::new(ROOT, b"f"), author());
    let hold = |until| ns.history.hold_version(slot, &held, until, &author);
    hold(until).await.unwrap();
    assert!(is_held(hold(Timestamp(until.0 - 1)).await));
    let until = Timestamp(until.0 + 1);
    hold(until).await.unwrap();
    assert_eq!(
        (
            labels::rows::<HoldTable>(&ns).await,
            labels::rows::<LapseTable>(&ns).await
        ),
        (1, 1)
    );
    let delete = || ns.history.delete_version(ROOT, b"f", held.version);
    assert!(is_held(delete().await), "as the current state");
    ns.tree.link(ino, ROOT, b"g", &author).await.unwrap();
    save(&ns, ROOT, b"g", b"two").await;
    assert!(is_held(delete().await), "as a state of a linked file");
    let linked = state(&ns, b"f", 0).await.of_inode();
    let view = ns.history.view();
    let found = view.hold_of(linked.ino, linked.version).await;
    assert_eq!(found.unwrap(), Some(until));
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    cluster.env.advance(2 * DAY);
    delete().await.unwrap();
    let gone = hold(Timestamp(u64::MAX)).await;
    assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_a_label_shows_cannot_be_deleted_and_its_neighbors_can() {
    let cluster = TestCluster::new("label-pins");
    let ns = cluster.open().await;
    for text in [b"0", b"1", b"2"] {
        save(&ns, ROOT, b"f", text).await;
        if text == b"1" {
            label(&ns, ROOT, b"v1").await;
        }
    }
    let versions = ns.history.view().versions(ROOT, b"f").await.unwrap();
    let delete = |at: usize| ns.history.delete_version(ROOT, b"f", versions[at].version);
    assert!(is_held(delete(1).await));
    delete(0).await.unwrap();
    delete(2).await.unwrap();
    assert!(is_held(delete(1).await));
    ns.history.remove_label(ROOT, b"v1").await.unwrap();
    delete(1).await.unwrap();
    leave(ns).await;
}
