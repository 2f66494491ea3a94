//! What every index must do, run against each implementation: one function per promise.

use super::{
    Batch, Commit, MemoryStore, MetaError, MetaRead, MetaState, MetaStore, SlateConfig, SlateStore,
};
use crate::sync::Arc;
use crate::task::Tasks;
use bytes::Bytes;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

/// Opens the same index again at each call; the first call creates it.
type Place = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn MetaStore>> + Send + Sync>;

/// Joins values: associative, but any change of order shows.
pub(super) fn join(_key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
    let operands = operands.concat();
    [existing.unwrap_or_default(), &operands].concat().into()
}

fn memory() -> Place {
    let first = Arc::new(MemoryStore::new(join));
    Box::new(move || {
        let store: Arc<dyn MetaStore> = Arc::new(first.reopen());
        Box::pin(async move { store })
    })
}

fn slate_on(bucket: Arc<dyn ObjectStore>, local: Option<TempDir>) -> Place {
    let local = Arc::new(local);
    Box::new(move || {
        let (bucket, local) = (Arc::clone(&bucket), Arc::clone(&local));
        let mut config = SlateConfig::new(join);
        config.polls_kept = Duration::from_secs(2);
        config.local = local.is_some();
        Box::pin(async move {
            let store = SlateStore::open(bucket, "some/where/meta", config).await;
            let store: Arc<dyn MetaStore> = Arc::new(store.unwrap());
            store
        })
    })
}

fn slate_in_memory() -> Place {
    slate_on(Arc::new(InMemory::new()), None)
}

fn slate_on_files() -> Place {
    let dir = TempDir::new().unwrap();
    let files = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    slate_on(Arc::new(files.with_fsync(true)), Some(dir))
}

macro_rules! contract {
    ($($promise:ident)*) => {
        contract!(@on memory: $($promise)*);
        contract!(@on slate_in_memory: $($promise)*);
        contract!(@on slate_on_files: $($promise)*);
    };
    (@on $place:ident: $($promise:ident)*) => {
        mod $place {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::$promise(super::$place()).await;
                }
            )*
        }
    };
}

contract! {
    rows_are_put_replaced_and_deleted
    operands_merge_in_the_order_of_their_commits
    operands_merge_within_one_batch
    a_delete_starts_a_merge_anew
    many_operands_merge
    scans_ascend_and_keep_their_bounds
    a_scan_shows_the_moment_it_began
    a_snapshot_stands_still
    a_batch_is_seen_whole_or_not_at_all
    durable_rows_survive_a_reopen
    what_survives_is_a_prefix
    closing_makes_everything_durable
    many_wait_for_one_another
    commits_ascend
    a_second_writer_fences_the_first
    an_idle_writer_learns_that_it_is_fenced
    epochs_grow
    odd_keys_and_values
}

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(key.to_owned(), value.to_owned());
    batch
}

fn merge(key: &str, operand: &str) -> Batch {
    let mut batch = Batch::new();
    batch.merge(key.to_owned(), operand.to_owned());
    batch
}

fn delete(key: &str) -> Batch {
    let mut batch = Batch::new();
    batch.delete(key.to_owned());
    batch
}

async fn get(rows: &dyn MetaRead, key: &str) -> Option<String> {
    let value = rows.get(key.as_bytes()).await.unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

async fn scan(rows: &dyn MetaRead, from: &str, to: &str) -> Vec<String> {
    let range = Bytes::from(from.to_owned())..Bytes::from(to.to_owned());
    let mut scan = rows.scan(range).await.unwrap();
    let mut seen = Vec::new();
    while let Some((key, value)) = scan.next().await.unwrap() {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        seen.push(format!("{}={}", text(&key), text(&value)));
    }
    // The end stays the end.
    assert_eq!(scan.next().await.unwrap(), None);
    seen
}

async fn commit_all(store: &dyn MetaStore, batches: impl IntoIterator<Item = Batch>) -> Commit {
    let mut newest = Commit::default();
    for batch in batches {
        newest = store.commit(batch).await.unwrap();
    }
    newest
}

async fn rows_are_put_replaced_and_deleted(place: Place) {
    let store = place().await;
    assert_eq!(get(&*store, "Ca").await, None);
    commit_all(&*store, [put("Ca", "1"), put("Cb", "1"), put("Ca", "2")]).await;
    assert_eq!(get(&*store, "Ca").await.unwrap(), "2");
    let deleted = commit_all(&*store, [delete("Ca"), delete("Cnever")]).await;
    assert_eq!(get(&*store, "Ca").await, None);
    store.durable(deleted).await.unwrap();
    assert_eq!(get(&*store, "Ca").await, None);
    assert_eq!(get(&*store, "Cb").await.unwrap(), "1");
    assert_eq!(get(&*store, "C").await, None);
    assert_eq!(store.state(), MetaState::Open);
}

async fn operands_merge_in_the_order_of_their_commits(place: Place) {
    let store = place().await;
    let steps = [merge("Ga", "1"), merge("Ga", "2"), put("Gb", "0")];
    let early = commit_all(&*store, steps).await;
    // Some operands are in the bucket, some are not: the engine merges them in groups.
    store.durable(early).await.unwrap();
    commit_all(
        &*store,
        [merge("Ga", "3"), merge("Gb", "1"), merge("Gc", "")],
    )
    .await;
    assert_eq!(get(&*store, "Ga").await.unwrap(), "123");
    assert_eq!(get(&*store, "Gb").await.unwrap(), "01");
    assert_eq!(get(&*store, "Gc").await.unwrap(), "");
    let late = commit_all(&*store, [put("Ga", "x"), merge("Ga", "y")]).await;
    assert_eq!(scan(&*store, "G", "H").await, ["Ga=xy", "Gb=01", "Gc="]);
    store.durable(late).await.unwrap();
    let store = place().await;
    commit_all(&*store, [merge("Ga", "z"), merge("Gb", "2")]).await;
    assert_eq!(scan(&*store, "G", "H").await, ["Ga=xyz", "Gb=012", "Gc="]);
}

async fn operands_merge_within_one_batch(place: Place) {
    let store = place().await;
    let before = ["Ga", "Gb", "Gc", "Gd", "Ge"].map(|key| put(key, "old"));
    commit_all(&*store, before).await;
    let steps = [
        put("Ga", "1"),
        merge("Ga", "2"),
        delete("Gb"),
        merge("Gb", "1"),
        merge("Gc", "1"),
        merge("Gc", "2"),
        merge("Gd", "1"),
        delete("Gd"),
        merge("Ge", "1"),
        put("Ge", "2"),
        merge("Gf", "1"),
        merge("Gf", "2"),
    ];
    let mut batch = Batch::new();
    steps.into_iter().for_each(|step| batch.append(step));
    let commit = store.commit(batch).await.unwrap();
    let expected = ["Ga=12", "Gb=1", "Gc=old12", "Ge=2", "Gf=12"];
    assert_eq!(scan(&*store, "G", "H").await, expected);
    store.durable(commit).await.unwrap();
    assert_eq!(scan(&*place().await, "G", "H").await, expected);
}

async fn a_delete_starts_a_merge_anew(place: Place) {
    let store = place().await;
    let steps = [
        merge("Ga", "1"),
        delete("Ga"),
        merge("Ga", "2"),
        merge("Ga", "3"),
    ];
    let commit = commit_all(&*store, steps).await;
    assert_eq!(get(&*store, "Ga").await.unwrap(), "23");
    store.durable(commit).await.unwrap();
    let store = place().await;
    assert_eq!(get(&*store, "Ga").await.unwrap(), "23");
    commit_all(&*store, [delete("Ga"), merge("Ga", "4")]).await;
    assert_eq!(scan(&*store, "G", "H").await, ["Ga=4"]);
}

async fn many_operands_merge(place: Place) {
    let store = place().await;
    let mut expected = String::new();
    for n in 0..350 {
        let commit = store.commit(merge("Gn", &format!("{n},"))).await.unwrap();
        expected.push_str(&format!("{n},"));
        if n % 150 == 0 {
            store.durable(commit).await.unwrap();
        }
    }
    assert_eq!(get(&*store, "Gn").await.unwrap(), expected);
    assert_eq!(scan(&*store, "G", "H").await, [format!("Gn={expected}")]);
}

async fn scans_ascend_and_keep_their_bounds(place: Place) {
    let store = place().await;
    let keys = ["Cb", "C", "Cc", "Ca", "Hz", "Ca0", "G"];
    let half = commit_all(&*store, keys[..4].iter().map(|key| put(key, ""))).await;
    store.durable(half).await.unwrap();
    commit_all(&*store, keys[4..].iter().map(|key| put(key, ""))).await;
    commit_all(&*store, [delete("Cb"), delete("Cnever")]).await;
    assert_eq!(scan(&*store, "C", "D").await, ["C=", "Ca=", "Ca0=", "Cc="]);
    assert_eq!(scan(&*store, "Ca", "Cc").await, ["Ca=", "Ca0="]);
    assert_eq!(scan(&*store, "Cb", "Cc0").await, ["Cc="]);
    let all = ["C=", "Ca=", "Ca0=", "Cc=", "G=", "Hz="];
    assert_eq!(scan(&*store, "", "I").await, all);
    for (from, to) in [
        ("Cx", "Cz"),
        ("Ca", "Ca"),
        ("Cc", "Ca"),
        ("", ""),
        ("", "C"),
    ] {
        let seen = scan(&*store, from, to).await;
        assert!(seen.is_empty(), "{from}..{to}: {seen:?}");
    }
}

async fn a_scan_shows_the_moment_it_began(place: Place) {
    let store = place().await;
    for n in 0..100 {
        store.commit(put(&format!("C{n:03}"), "old")).await.unwrap();
    }
    let mut scan = store.scan("C".into().."D".into()).await.unwrap();
    let mut seen = 0;
    while let Some((_, value)) = scan.next().await.unwrap() {
        assert_eq!(&value[..], b"old");
        seen += 1;
        let later = [put("C0505", "new"), put("C070", "new"), delete("C080")];
        let commit = commit_all(&*store, later).await;
        if seen % 40 == 0 {
            store.durable(commit).await.unwrap();
        }
    }
    assert_eq!(seen, 100);
}

async fn a_snapshot_stands_still(place: Place) {
    let store = place().await;
    let early = [put("Ca", "1"), merge("Cb", "1"), put("Cc", "1")];
    commit_all(&*store, early).await;
    let snapshot = store.snapshot().await.unwrap();
    let late = [
        put("Ca", "2"),
        merge("Cb", "2"),
        delete("Cc"),
        put("Cd", "2"),
    ];
    let commit = commit_all(&*store, late).await;
    let then = ["Ca=1", "Cb=1", "Cc=1"];
    assert_eq!(scan(&*snapshot, "C", "D").await, then);
    store.durable(commit).await.unwrap();
    assert_eq!(scan(&*snapshot, "C", "D").await, then);
    assert_eq!(get(&*snapshot, "Cb").await.unwrap(), "1");
    assert_eq!(get(&*snapshot, "Cd").await, None);
    assert_eq!(scan(&*snapshot, "D", "C").await, [""; 0]);
    assert_eq!(scan(&*store, "C", "D").await, ["Ca=2", "Cb=12", "Cd=2"]);
    let now = store.snapshot().await.unwrap();
    assert_eq!(scan(&*now, "C", "D").await, ["Ca=2", "Cb=12", "Cd=2"]);
}

async fn a_batch_is_seen_whole_or_not_at_all(place: Place) {
    let store = place().await;
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let writer = tasks.spawn("writer", {
        let store = Arc::clone(&store);
        async move {
            for n in 0..300 {
                let mut batch = Batch::new();
                for key in ["Ca", "Gb", "Hc"] {
                    batch.append(put(key, &n.to_string()));
                }
                let commit = store.commit(batch).await.unwrap();
                if n % 50 == 0 {
                    store.durable(commit).await.unwrap();
                }
            }
        }
    });
    while !writer.is_finished() {
        let snapshot = store.snapshot().await.unwrap();
        let first = get(&*snapshot, "Ca").await;
        tokio::task::yield_now().await;
        assert_eq!(get(&*snapshot, "Hc").await, first);
        let rows = scan(&*store, "C", "I").await;
        let values: Vec<_> = rows
            .iter()
            .map(|row| row.split_once('=').unwrap().1)
            .collect();
        assert!(
            values.windows(2).all(|pair| pair[0] == pair[1]),
            "{values:?}"
        );
        assert!(matches!(values.len(), 0 | 3));
    }
    writer.await.unwrap();
}

async fn durable_rows_survive_a_reopen(place: Place) {
    let store = place().await;
    let steps = [
        put("Ca", "1"),
        put("Cb", "1"),
        delete("Cb"),
        merge("Gc", "1"),
    ];
    let commit = commit_all(&*store, steps).await;
    store.durable(commit).await.unwrap();
    drop(store);
    let store = place().await;
    assert_eq!(scan(&*store, "C", "H").await, ["Ca=1", "Gc=1"]);
    let commit = commit_all(&*store, [put("Ca", "2"), merge("Gc", "2")]).await;
    store.durable(commit).await.unwrap();
    drop(store);
    assert_eq!(scan(&*place().await, "C", "H").await, ["Ca=2", "Gc=12"]);
}

async fn what_survives_is_a_prefix(place: Place) {
    let store = place().await;
    let mut sure = 0;
    for n in 0..60 {
        let commit = store.commit(put(&format!("C{n:03}"), "")).await.unwrap();
        if n == 20 {
            store.durable(commit).await.unwrap();
            sure = n;
        }
    }
    drop(store);
    let survived = scan(&*place().await, "C", "D").await;
    assert!(survived.len() > sure);
    let expected: Vec<_> = (0..survived.len()).map(|n| format!("C{n:03}=")).collect();
    assert_eq!(survived, expected);
}

async fn closing_makes_everything_durable(place: Place) {
    let store = place().await;
    let commit = store.commit(put("Ca", "1")).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(store.state(), MetaState::Closed);
    assert_eq!(store.ended().await, MetaState::Closed);
    store.close().await.unwrap();
    let closed = |outcome: MetaError| assert!(matches!(outcome, MetaError::Closed(_)), "{outcome}");
    closed(store.commit(put("Ca", "2")).await.unwrap_err());
    closed(store.commit(Batch::new()).await.unwrap_err());
    closed(store.get(b"Ca").await.unwrap_err());
    closed(store.scan("C".into().."D".into()).await.err().unwrap());
    closed(store.snapshot().await.unwrap_err());
    // Whether a commit of before may still be asked for is the engine's choice; it must not hang or lie.
    match timeout(Duration::from_secs(5), store.durable(commit))
        .await
        .unwrap()
    {
        Ok(()) => {}
        Err(error) => closed(error),
    }
    assert_eq!(get(&*place().await, "Ca").await.unwrap(), "1");
}

async fn many_wait_for_one_another(place: Place) {
    let store = place().await;
    let mut waiters = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = Arc::clone(&store);
        waiters.spawn(async move {
            let commit = store.commit(put(&format!("C{n:03}"), "x")).await?;
            store.durable(commit).await
        });
    }
    let all = timeout(Duration::from_secs(30), waiters.join_all()).await;
    assert!(all.unwrap().into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(scan(&*place().await, "C", "D").await.len(), 200);
}

async fn commits_ascend(place: Place) {
    let store = place().await;
    let first = store.commit(put("Ca", "1")).await.unwrap();
    let second = store.commit(merge("Ca", "2")).await.unwrap();
    assert!(first < second);
    assert_eq!(store.commit(Batch::new()).await.unwrap(), second);
    store.durable(second).await.unwrap();
    store.durable(first).await.unwrap();
    store.durable(Commit::default()).await.unwrap();
    let store = place().await;
    let empty = store.commit(Batch::new()).await.unwrap();
    store.durable(empty).await.unwrap();
    assert!(store.commit(put("Ca", "3")).await.unwrap() > second);
}

async fn a_second_writer_fences_the_first(place: Place) {
    let first = place().await;
    let commit = first.commit(put("Ca", "first")).await.unwrap();
    first.durable(commit).await.unwrap();
    let second = place().await;
    let commit = second.commit(put("Ca", "second")).await.unwrap();
    second.durable(commit).await.unwrap();
    // The first may not have noticed yet, but nothing it does now can become durable.
    let outcome = timeout(Duration::from_secs(5), async {
        let commit = first.commit(put("Ca", "zombie")).await?;
        first.durable(commit).await
    });
    let outcome = outcome.await.unwrap();
    assert!(matches!(outcome, Err(MetaError::Fenced(_))), "{outcome:?}");
    assert_eq!(first.state(), MetaState::Fenced);
    assert_eq!(first.ended().await, MetaState::Fenced);
    let refused = first.get(b"Ca").await.unwrap_err();
    assert!(matches!(refused, MetaError::Fenced(_)), "{refused}");
    let refused = first.close().await.unwrap_err();
    assert!(matches!(refused, MetaError::Fenced(_)), "{refused}");
    assert_eq!(first.state(), MetaState::Fenced);
    assert_eq!(second.state(), MetaState::Open);
    assert_eq!(get(&*second, "Ca").await.unwrap(), "second");
    assert_eq!(get(&*place().await, "Ca").await.unwrap(), "second");
}

async fn an_idle_writer_learns_that_it_is_fenced(place: Place) {
    let first = place().await;
    let _second = place().await;
    let state = timeout(Duration::from_secs(10), first.ended()).await;
    assert_eq!(state.unwrap(), MetaState::Fenced);
}

async fn epochs_grow(place: Place) {
    let mut last = 0;
    for _ in 0..3 {
        let store = place().await;
        assert!(store.epoch() > last);
        last = store.epoch();
        store.close().await.unwrap();
        assert_eq!(store.epoch(), last);
    }
}

async fn odd_keys_and_values(place: Place) {
    let store = place().await;
    let rows = [
        (vec![0], vec![]),
        (vec![b'C', 0, 0], vec![0; 3]),
        (vec![b'C', 0xff, 0xff], vec![0xff; 1 << 20]),
        (vec![0xff; 600], vec![1]),
    ];
    let mut batch = Batch::new();
    for (key, value) in &rows {
        batch.put(key.clone(), value.clone());
    }
    let commit = store.commit(batch).await.unwrap();
    store.durable(commit).await.unwrap();
    let store = place().await;
    for (key, value) in &rows {
        assert_eq!(&store.get(key).await.unwrap().unwrap()[..], &value[..]);
    }
    let mut scan = store
        .scan(Bytes::new()..vec![0xff; 601].into())
        .await
        .unwrap();
    for (key, _) in &rows {
        assert_eq!(&scan.next().await.unwrap().unwrap().0[..], &key[..]);
    }
    let mut empty = Batch::new();
    empty.put(Bytes::new(), "x");
    assert!(matches!(
        store.commit(empty).await,
        Err(MetaError::Corrupt(_))
    ));
    assert_eq!(store.state(), MetaState::Open);
}
