//! How far back directories reach that have a policy of their own.

use super::words::{DAY, HOUR};
use super::*;
use crate::store::tests::labels::mkdir;

async fn limit(ns: &Namespace, directory: Ino, words: &str) {
    let policy = (!words.is_empty()).then(|| Policy::of_directory(words).unwrap());
    let set = ns.retention.set_directory_policy(directory, policy);
    set.await.unwrap();
}

/// Saves a file in each of the directories ten times, with a pause after each.
async fn save_ten(cluster: &TestCluster, ns: &Namespace, directories: &[Ino], pause: u64) {
    for round in 0..10_u8 {
        for directory in directories {
            save(ns, *directory, b"f", &[round]).await;
        }
        cluster.env.advance(pause);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_with_policies_tell_since_when_they_are_whole_thinned_or_cut_off() {
    let cluster = TestCluster::new("reach");
    let ns = cluster.open().await;
    let short = mkdir(&ns, ROOT, b"short").await;
    let hourly = mkdir(&ns, ROOT, b"hourly").await;
    mkdir(&ns, ROOT, b"none").await;
    limit(&ns, short, "keep-within=2h grid=off").await;
    limit(
        &ns,
        hourly,
        "keep-within=3d keep-hourly=4d keep-daily=off keep-weekly=off",
    )
    .await;
    let reaches = async || {
        let view = ns.history.view();
        let reaches = view.limited_directories().await.unwrap();
        let told = reaches.iter().map(|reach| reach.directory);
        assert_eq!(told.collect::<Vec<_>>(), [short, hourly]);
        (reaches[0], reaches[1])
    };
    let (first, _) = reaches().await;
    assert_eq!(
        (first.whole.0, first.thinned, first.cut_off.0),
        (0, None, 0)
    );
    save_ten(&cluster, &ns, &[short, hourly], HOUR).await;
    cluster.env.advance(5 * DAY);
    prune(&ns).await;
    let view = ns.history.view();
    let now = view.horizons().await.unwrap().oldest(None).0 + DAY;
    let (first, second) = reaches().await;
    // Less than the day of the namespace: nothing is thinned, and older times are not there.
    assert_eq!(first.whole.0, now - 2 * HOUR);
    assert_eq!((first.thinned, first.cut_off), (None, first.whole));
    assert_eq!(second.whole.0, now - DAY);
    // No directory keeps more than the namespace, so nothing is thinned in it while the namespace's policy stays.
    assert_eq!(second.thinned, None);
    assert_eq!(second.cut_off, Timestamp(now - 4 * DAY + 1));
    for (reach, directory) in [(first, short), (second, hourly)] {
        let horizons = view.directory_horizons(directory).await.unwrap();
        assert_eq!(horizons.wholeness(reach.whole), Wholeness::Exact);
        assert_eq!(horizons.exact_before(Timestamp(reach.cut_off.0 - 1)), None);
        if let Some(thinned) = reach.thinned {
            assert_eq!(horizons.wholeness(thinned), Wholeness::Thinned);
            let older = Timestamp(thinned.0 - 1);
            assert_eq!(horizons.wholeness(older), Wholeness::CutOff);
        }
    }
    // What the policy cut off stays so after its end.
    limit(&ns, short, "").await;
    let ended = ns.now();
    cluster.env.advance(HOUR);
    prune(&ns).await;
    let (first, _) = reaches().await;
    assert!(first.cut_off.0 >= now - 2 * HOUR, "{first:?}");
    save_ten(&cluster, &ns, &[short], HOUR / 60).await;
    cluster.env.advance(5 * DAY);
    prune(&ns).await;
    let namespace = ns.history.view().horizons().await.unwrap();
    let (first, _) = reaches().await;
    assert_eq!(first.whole, namespace.oldest(None));
    assert!(first.cut_off <= ended && ended < first.whole, "{first:?}");
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_has_left_another_one_reaches_as_far_back_as_its_move() {
    let cluster = TestCluster::new("reach-moved");
    let ns = cluster.open().await;
    let outer = mkdir(&ns, ROOT, b"outer").await;
    let inner = mkdir(&ns, outer, b"inner").await;
    limit(&ns, outer, "keep-within=1h grid=off keep-last=0").await;
    limit(&ns, inner, "keep-within=20h grid=off").await;
    save(&ns, inner, b"f", b"1").await;
    cluster.env.advance(HOUR);
    let before = ns.now();
    let (from, to) = (
        DentryRef::new(outer, b"inner"),
        DentryRef::new(ROOT, b"inner"),
    );
    let author = author();
    let moved = ns.tree.rename(from, to, RenameMode::Replace, &author);
    moved.await.unwrap();
    let after = ns.now();
    save_ten(&cluster, &ns, &[outer], HOUR).await;
    prune(&ns).await;
    let reaches = ns.history.view().limited_directories().await.unwrap();
    let told: Vec<Ino> = reaches.iter().map(|reach| reach.directory).collect();
    assert_eq!(told, [outer, inner]);
    assert!(reaches[0].whole > Timestamp(after.0 + 8 * HOUR));
    let whole = reaches[1].whole;
    assert!((before..=after).contains(&whole), "{whole:?}");
    leave(ns).await;
}
