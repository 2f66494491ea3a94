//! Filing of versions that have ended: each is in the order of due times, at the time until which the policy keeps it.

use super::*;
use crate::store::schema::tables::{
    DueTable, LinkedVersionTable, PolicyTable, RowKey, RowTable, VersionTable,
};
use rows::VersionRecord;

const HOUR: u64 = 3600 * 1_000_000_000;

/// All rows of a table.
async fn table<T: RowTable>(ns: &Namespace) -> Vec<(Bytes, Bytes)> {
    let (from, end) = (T::all(), keys::after(&T::all()));
    ns.core.index.scan(from, end, usize::MAX).await.unwrap()
}

/// The version records with their keys, those of names before those of hard-linked inodes.
async fn records(ns: &Namespace) -> Vec<(Bytes, VersionRecord)> {
    let mut records = Vec::new();
    for (key, value) in table::<VersionTable>(ns).await {
        records.push((key, VersionTable::decode(&value).unwrap()));
    }
    for (key, value) in table::<LinkedVersionTable>(ns).await {
        records.push((key, LinkedVersionTable::decode(&value).unwrap()));
    }
    records
}

/// Fails unless the filings are those that the policy's rules give for the records, and no other.
async fn check_filings(ns: &Namespace, policy: &Policy) -> usize {
    let mut expected = Vec::new();
    for (key, record) in records(ns).await {
        let span = VersionSpan {
            start: record.stamp.id.timestamp,
            end: record.own_end.unwrap_or(record.end),
            arrived: record.recorded,
        };
        let Due::At(due) = policy.due(span) else {
            continue;
        };
        expected.push([b"GX", &due.0.to_be_bytes()[..], &key].concat());
    }
    expected.sort();
    let found = table::<DueTable>(ns).await;
    let found: Vec<Vec<u8>> = found.into_iter().map(|(key, _)| key.to_vec()).collect();
    assert_eq!(found, expected);
    found.len()
}

fn at(name: &[u8]) -> DentryRef<'_> {
    DentryRef::new(ROOT, name)
}

async fn rename(ns: &Namespace, from: &[u8], to: &[u8]) {
    ns.tree
        .rename(at(from), at(to), RenameMode::Replace, &author())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_that_ends_is_filed_at_the_time_until_which_the_policy_keeps_it() {
    let cluster = TestCluster::new("filing");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"saved", b"0").await;
    for text in [b"1", b"2", b"3"] {
        cluster.env.advance(5 * HOUR);
        save(&ns, ROOT, b"saved", text).await;
    }
    let ino = save(&ns, ROOT, b"linked", b"0").await;
    ns.tree.link(ino, ROOT, b"second", &author()).await.unwrap();
    save(&ns, ROOT, b"linked", b"1").await;
    cluster.env.advance(30 * HOUR);
    rename(&ns, b"second", b"third").await;
    rename(&ns, b"saved", b"moved").await;
    save(&ns, ROOT, b"over", b"0").await;
    rename(&ns, b"over", b"moved").await;
    for name in [&b"moved"[..], b"linked", b"third"] {
        ns.tree.unlink(ROOT, name, &author()).await.unwrap();
    }
    let ended = records(&ns).await.len();
    assert_eq!(check_filings(&ns, &Policy::default()).await, ended);
    assert!(ended >= 11, "{ended}");
    let all = records(&ns).await;
    let moved = all.iter().filter_map(|(_, r)| r.moved_to.as_ref());
    let moved: Vec<_> = moved.map(|to| (to.parent, &to.name[..])).collect();
    // Of `over`, `saved` and `second`.
    assert_eq!(
        moved,
        [(ROOT, &b"moved"[..]), (ROOT, b"moved"), (ROOT, b"third")]
    );
    let saved = keys::history(ROOT, b"saved");
    let alive = all.iter().filter(|(key, _)| key.starts_with(&saved));
    let alive: Vec<_> = alive.map(|(_, r)| r.alive_since).collect();
    assert_eq!(alive.len(), 4);
    assert!(alive.iter().all(|since| *since == alive[0]));
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_version_is_filed_no_more_and_its_neighbor_keeps_its_own_end() {
    let cluster = TestCluster::new("filing-deleted");
    let ns = cluster.open().await;
    for text in [b"0", b"1", b"2", b"3"] {
        save(&ns, ROOT, b"f", text).await;
        cluster.env.advance(HOUR);
    }
    let versions = ns.history.view().versions(ROOT, b"f").await.unwrap();
    let ended = |at: usize| versions[at].ended.unwrap();
    for at in [1, 2] {
        let id = versions[at].version;
        ns.history.delete_version(ROOT, b"f", id).await.unwrap();
    }
    let left = records(&ns).await;
    let [(_, oldest)] = &left[..] else {
        panic!("one record is left: {left:?}");
    };
    assert_eq!((oldest.end, oldest.own_end), (ended(2), Some(ended(0))));
    assert_eq!(check_filings(&ns, &Policy::default()).await, 1);
    // The current version: the one before it takes its place, and has not ended any more.
    let id = versions[3].version;
    ns.history.delete_version(ROOT, b"f", id).await.unwrap();
    assert_eq!(check_filings(&ns, &Policy::default()).await, 0);
    assert!(records(&ns).await.is_empty());
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_version_is_kept_from_its_import() {
    let cluster = TestCluster::new("filing-import");
    let store = cluster.blobs().await;
    let now = store.namespace().now().0;
    for (id, age) in [("a", 9000), ("b", 8000), ("c", 7000)] {
        let time = Timestamp(now - age * HOUR);
        let options = crate::store::blob::PutOptions::default();
        let imported = store.import_version("k", id, id.to_owned(), time, &options);
        imported.await.unwrap();
    }
    let ns = store.namespace();
    assert_eq!(check_filings(ns, &Policy::default()).await, 2);
    for (_, record) in records(ns).await {
        assert!(record.recorded.is_some_and(|at| at.0 >= now), "{record:?}");
        let Due::At(due) = Policy::default().due(record.span()) else {
            panic!("{record:?}");
        };
        assert!(due.0 >= now + 30 * 24 * HOUR, "30 days from the import");
    }
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_a_policy_files_nothing() {
    let cluster = TestCluster::new("filing-none");
    let ns = cluster.open().await;
    let policy: Policy = ns.core.index.row(&keys::policy()).await.unwrap().unwrap();
    assert_eq!(policy, Policy::default(), "a new namespace has the default");
    let mut txn = ns.gc.gc_txn(vec![]);
    for (key, _) in table::<PolicyTable>(&ns).await {
        txn.delete(RowKey::<PolicyTable>::scanned(key).unwrap());
    }
    ns.commit.enqueue(txn).unwrap();
    leave(ns).await;
    let ns = cluster.open().await;
    save(&ns, ROOT, b"f", b"0").await;
    save(&ns, ROOT, b"f", b"1").await;
    let records = records(&ns).await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].1.filed, rows::Filing::Nowhere);
    assert!(table::<DueTable>(&ns).await.is_empty());
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_of_a_namespace_that_only_the_journal_has_holds_after_a_crash() {
    let mut host = testing::TestHost::new();
    let ns = host.open().await;
    save(&ns, ROOT, b"f", b"0").await;
    host.kill(ns).await;
    let ns = host.open().await;
    save(&ns, ROOT, b"f", b"1").await;
    assert_eq!(check_filings(&ns, &Policy::default()).await, 1);
    leave(ns).await;
}
