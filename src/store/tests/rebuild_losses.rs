//! Rebuild where objects of the log, of the index or of the segments are lost: what is taken from where, and what is named as lost.

use super::labels::mkdir;
use super::rebuild::{lose, open_as, rebuilt, shown};
use super::*;

/// A closed namespace with one log object for each of five rounds, each of which makes a directory with two files.
async fn rounds(name: &str) -> TestCluster {
    let cluster = TestCluster::new(name);
    for _ in 0..2 {
        let ns = cluster.open().await;
        for _ in 0..3 {
            let made = check::names(&ns, ROOT).await.len();
            let dir = mkdir(&ns, ROOT, format!("d{made}").as_bytes()).await;
            save(&ns, dir, b"once", &[made as u8; 6000]).await;
            save(&ns, dir, b"twice", b"old").await;
            save(&ns, dir, b"twice", b"new").await;
            ns.drain().await.unwrap();
        }
        leave(ns).await;
    }
    cluster
}

async fn log_keys(cluster: &TestCluster) -> Vec<String> {
    let log = cluster.backend().list("log").await.unwrap();
    log.into_iter().map(|object| object.key).collect()
}

fn lost_keys(report: &RebuildReport) -> Vec<&str> {
    let named = report.losses.named_log_objects.iter();
    named.map(|object| object.key.as_str()).collect()
}

/// Mounts the rebuilt namespace, changes and closes it, and checks it; `damaged` log objects stay damaged.
async fn goes_on(cluster: &TestCluster, damaged: u64) {
    let ns = open_as(cluster, "new").await;
    save(&ns, ROOT, b"later", b"later").await;
    leave(ns).await;
    let config = CheckConfig::default();
    let checked = check_log(&cluster.backend, "new", &config, |_| {}).await;
    let checked = checked.unwrap();
    assert_eq!(checked.damaged.count, damaged, "{checked:?}");
    assert_eq!(
        (checked.differing.count, checked.miscounted.count),
        (0, 0),
        "{checked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_log_object_is_named_with_its_time_and_the_rest_comes_back() {
    let whole = rounds("rebuild-lost-log").await;
    let keys = log_keys(&whole).await;
    assert!(keys.len() >= 6, "{keys:?}");
    for at in 0..keys.len() - 1 {
        for is_flipped in [false, true] {
            let cluster = whole.fork().await;
            lose(&cluster, "meta").await;
            let bytes = cluster.backend().get(&keys[at]).await.unwrap();
            match is_flipped {
                false => cluster.backend().delete(&keys[at]).await.unwrap(),
                true => {
                    let mut bytes = bytes.to_vec();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    cluster
                        .backend()
                        .put(&keys[at], bytes.into())
                        .await
                        .unwrap();
                }
            }
            let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
            assert_eq!(report.outcome, RebuildOutcome::Refused, "{}", keys[at]);
            // The last object of an epoch is missed by the first one of the next.
            let is_last = keys[at].split('/').nth(2) != keys[at + 1].split('/').nth(2);
            let named = if is_last && !is_flipped { at + 1 } else { at };
            assert_eq!(lost_keys(&report), [keys[named].as_str()]);
            assert_eq!(report.losses.times.len(), 1, "{:?}", report.losses);
            let LostTime { after_ns, until_ns } = report.losses.times[0];
            assert_eq!(after_ns.is_none(), at == 0);
            assert!(until_ns > after_ns, "{:?}", report.losses);

            // The object is put back: nothing is lost.
            let again = cluster.fork().await;
            again.backend().put(&keys[at], bytes).await.unwrap();
            let report = rebuilt(&again, "new", OnLosses::Refuse).await.unwrap();
            assert_eq!(report.outcome, RebuildOutcome::Complete, "{}", keys[at]);

            let report = rebuilt(&cluster, "new", OnLosses::Accept).await.unwrap();
            assert_eq!(report.outcome, RebuildOutcome::Complete, "{}", keys[at]);
            assert_eq!(report.wrong_counts, 0, "{}: {report:?}", keys[at]);
            let ns = open_as(&cluster, "new").await;
            let found = check::names(&ns, ROOT).await;
            assert!(found.len() >= 5, "{}: {found:?}", keys[at]);
            for (name, stat) in found.iter().filter(|(name, _)| name.starts_with(b"d")) {
                let twice = content(&ns, stat.ino, b"twice").await;
                let text = String::from_utf8_lossy(name);
                assert!(twice.is_none_or(|twice| twice == b"new"), "{text}");
            }
            leave(ns).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_index_gives_the_rows_that_a_lost_log_object_had() {
    let cluster = rounds("rebuild-index-whole").await;
    let ns = cluster.open().await;
    let before = shown(&ns).await;
    leave(ns).await;
    let keys = log_keys(&cluster).await;
    cluster.backend().delete(&keys[2]).await.unwrap();
    let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    assert_eq!(
        (report.outcome, report.from),
        (RebuildOutcome::Complete, RebuiltFrom::Index)
    );
    assert!(report.losses.is_empty(), "{report:?}");
    let ns = open_as(&cluster, "new").await;
    assert_eq!(shown(&ns).await, before);
    leave(ns).await;
    goes_on(&cluster, 1).await;
}

/// Copies the index of `from` into `to`, in the place of the one there.
async fn put_index(from: &TestCluster, to: &TestCluster) {
    lose(to, "meta").await;
    for object in from.backend().list("meta").await.unwrap() {
        let bytes = from.backend().get(&object.key).await.unwrap();
        to.backend().put(&object.key, bytes).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_behind_its_log_is_brought_forward_over_what_the_log_lacks() {
    let cluster = rounds("rebuild-behind").await;
    let older = cluster.fork().await;
    let ns = cluster.open().await;
    for text in ["one", "two"] {
        save(&ns, ROOT, b"late", text.as_bytes()).await;
        ns.drain().await.unwrap();
    }
    let before = shown(&ns).await;
    leave(ns).await;
    put_index(&older, &cluster).await;
    let refused = cluster.try_open().await.unwrap_err().to_string();
    assert!(
        refused.contains("behind") && refused.contains("rewindfs rebuild"),
        "{refused}"
    );
    for is_lost in [false, true] {
        let cluster = cluster.fork().await;
        if is_lost {
            let keys = log_keys(&cluster).await;
            cluster.backend().delete(&keys[1]).await.unwrap();
        }
        let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
        let from = match is_lost {
            false => RebuiltFrom::Log,
            true => RebuiltFrom::IndexAndLog,
        };
        assert_eq!(report.from, from);
        assert!(report.losses.is_empty(), "{report:?}");
        let ns = open_as(&cluster, "new").await;
        assert_eq!(shown(&ns).await, before, "{is_lost}");
        leave(ns).await;
        goes_on(&cluster, u64::from(is_lost)).await;
    }
    // Without the first object after the index, the two do not meet.
    let keys = log_keys(&cluster).await;
    let newest = older.backend().list("log").await.unwrap().len();
    cluster.backend().delete(&keys[newest]).await.unwrap();
    let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    assert_eq!(report.from, RebuiltFrom::IndexAndLog);
    assert_eq!(lost_keys(&report), [keys[newest].as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_ahead_of_its_log_is_not_set_back() {
    let cluster = TestCluster::new("rebuild-ahead");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", b"logged").await;
    ns.drain().await.unwrap();
    set_failpoint(&ns, Some(failpoints::Failpoint::Log));
    let ino = save(&ns, ROOT, b"b", b"not logged").await;
    let file = ns.tree.file(ino).await.unwrap();
    file.sync(&author()).await.unwrap();
    drop(file);
    let cluster = cluster.kill(ns).await;
    cluster.wipe();
    let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    assert_eq!(report.from, RebuiltFrom::Index);
    let ns = open_as(&cluster, "new").await;
    assert_eq!(content(&ns, ROOT, b"b").await.unwrap(), b"not logged");
    leave(ns).await;
    goes_on(&cluster, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_lacks_any_one_object_is_rebuilt_from_the_log() {
    let whole = rounds("rebuild-part").await;
    let ns = whole.open().await;
    let before = shown(&ns).await;
    leave(ns).await;
    for object in whole.backend().list("meta").await.unwrap() {
        let cluster = whole.fork().await;
        cluster.backend().delete(&object.key).await.unwrap();
        let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
        assert_eq!(report.outcome, RebuildOutcome::Complete, "{}", object.key);
        let ns = open_as(&cluster, "new").await;
        assert_eq!(shown(&ns).await, before, "{}", object.key);
        leave(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_segment_is_named_and_a_half_made_rebuild_goes_on_when_it_is_back() {
    let cluster = rounds("rebuild-segment").await;
    lose(&cluster, "meta").await;
    let segment = cluster.backend().list("data").await.unwrap().remove(0).key;
    let bytes = cluster.backend().get(&segment).await.unwrap();
    cluster.backend().delete(&segment).await.unwrap();
    let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    assert_eq!(
        (report.outcome, &report.losses.named_segments[..]),
        (RebuildOutcome::Refused, &[segment.clone()][..])
    );
    let accepted = cluster.fork().await;
    let report = rebuilt(&accepted, "new", OnLosses::Accept).await.unwrap();
    assert_eq!(report.outcome, RebuildOutcome::Complete);
    leave(open_as(&accepted, "new").await).await;
    cluster.backend().put(&segment, bytes).await.unwrap();
    let report = rebuilt(&cluster, "new", OnLosses::Refuse).await.unwrap();
    assert!(report.losses.is_empty(), "{report:?}");
    leave(open_as(&cluster, "new").await).await;
}
