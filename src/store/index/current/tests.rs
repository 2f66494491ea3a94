//! Tests of the index: snapshots while operations are queued and committed.

use super::*;
use crate::meta::MemoryStore;
use crate::store::model::version::{ContentRef, Timestamp};
use crate::store::schema::tables::CountTable;
use crate::store::schema::{keys, merge};

async fn new_index() -> Index {
    let meta = Arc::new(MemoryStore::new(merge::merge));
    Index::of_writer(meta).await.unwrap()
}

fn counter() -> RowKey<CountTable> {
    keys::count(ContentRef {
        cid: 1,
        timestamp: Timestamp(1),
    })
}

fn plus(n: i64) -> Batch {
    let mut batch = Batch::new();
    counter().merge(&mut batch, &n);
    batch
}

fn put(rows: &[(&'static str, &'static str)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in rows {
        batch.put(*key, *value);
    }
    batch
}

fn keys_of(batch: &Batch) -> Vec<Bytes> {
    batch.rows().iter().map(|(key, _)| key.clone()).collect()
}

/// Commits an operation that was queued.
async fn commit(index: &Index, order: u64, batch: Batch) {
    let keys = keys_of(&batch);
    index.commit(&[order], &keys, batch).await.unwrap();
}

async fn count(rows: &Snapshot) -> i64 {
    rows.row(&counter()).await.unwrap().unwrap_or(0)
}

/// All rows of the table `CD` in a snapshot, as text.
async fn shown(rows: &Snapshot, limit: usize) -> String {
    let (start, end) = (Bytes::from_static(b"CD"), Bytes::from_static(b"CE"));
    let rows = rows.scan(start, end, limit).await.unwrap();
    let text = rows.iter().map(|(key, value)| {
        let (key, value) = (str::from_utf8(&key[2..]), str::from_utf8(value));
        format!("{}={}", key.unwrap(), value.unwrap())
    });
    text.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn queued_rows_hide_and_extend_what_is_committed() {
    let index = new_index().await;
    let first = put(&[("CDa", "1"), ("CDb", "1")]);
    index.apply(1, &first);
    commit(&index, 1, first).await;
    let mut second = put(&[("CDc", "2")]);
    second.delete("CDa");
    index.apply(2, &second);
    assert_eq!(shown(&index.snapshot(), 9).await, "b=1 c=2");
    assert_eq!(index.get(b"CDa").await.unwrap(), None);
    assert!(index.is_queued(b"CDa") && !index.is_queued(b"CDb"));
}

#[tokio::test]
async fn a_later_operation_hides_an_earlier_one_whichever_is_queued_first() {
    let index = new_index().await;
    index.apply(7, &put(&[("CDa", "new"), ("CDb", "new")]));
    index.apply(3, &put(&[("CDa", "old"), ("CDc", "old")]));
    assert_eq!(shown(&index.snapshot(), 9).await, "a=new b=new c=old");
    commit(&index, 7, put(&[("CDa", "new"), ("CDb", "new")])).await;
    assert_eq!(index.get(b"CDa").await.unwrap().unwrap(), "old");
}

#[tokio::test]
async fn a_scan_with_a_limit_skips_deleted_rows_and_sees_the_last_change_of_each() {
    let index = new_index().await;
    let stored = put(&[("CDa", "1"), ("CDb", "1"), ("CDc", "1"), ("CDd", "1")]);
    index.apply(1, &stored);
    commit(&index, 1, stored).await;
    let mut deleted = Batch::new();
    deleted.delete("CDa");
    deleted.delete("CDb");
    index.apply(2, &deleted);
    index.apply(3, &put(&[("CDb", "3"), ("CDe", "3")]));
    assert_eq!(shown(&index.snapshot(), 1).await, "b=3");
    assert_eq!(shown(&index.snapshot(), 2).await, "b=3 c=1");
    assert_eq!(shown(&index.snapshot(), 9).await, "b=3 c=1 d=1 e=3");
}

#[tokio::test]
async fn an_operand_counts_once_before_and_after_its_commit() {
    let index = new_index().await;
    index.apply(1, &plus(2));
    index.apply(2, &plus(3));
    assert_eq!(count(&index.snapshot()).await, 5);
    commit(&index, 1, plus(2)).await;
    assert_eq!(count(&index.snapshot()).await, 5);
    commit(&index, 2, plus(3)).await;
    assert_eq!(count(&index.snapshot()).await, 5);
}

#[tokio::test]
async fn a_snapshot_shows_neither_later_operations_nor_later_commits() {
    let index = new_index().await;
    let stored = put(&[("CDa", "1")]);
    index.apply(1, &stored);
    commit(&index, 1, stored).await;
    index.apply(2, &plus(2));
    let before = index.snapshot();
    let mut later = put(&[("CDa", "2"), ("CDb", "2")]);
    later.append(plus(5));
    index.apply(3, &later);
    assert_eq!(shown(&before, 9).await, "a=1");
    assert_eq!(count(&before).await, 2);
    commit(&index, 2, plus(2)).await;
    commit(&index, 3, later).await;
    assert_eq!(shown(&before, 9).await, "a=1");
    assert_eq!(count(&before).await, 2);
    assert_eq!(shown(&index.snapshot(), 9).await, "a=2 b=2");
    assert_eq!(count(&index.snapshot()).await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sum_that_every_operation_keeps_is_kept_in_every_snapshot() {
    let index = Arc::new(new_index().await);
    let move_one = |order: u64| {
        let mut batch = plus(if order.is_multiple_of(2) { 1 } else { -1 });
        batch.put("CDa", if order.is_multiple_of(2) { "1" } else { "0" });
        batch
    };
    let writer = tokio::spawn({
        let index = Arc::clone(&index);
        async move {
            for order in 2..2_000 {
                index.apply(order, &move_one(order));
                if order > 10 {
                    commit(&index, order - 8, move_one(order - 8)).await;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let mut looks = 0;
    while !writer.is_finished() {
        let rows = index.snapshot();
        let count = count(&rows).await;
        let shown = rows.get(b"CDa").await.unwrap();
        let expected = shown.map_or(0, |value| i64::from(&value[..] == b"1"));
        assert_eq!(count, expected);
        looks += 1;
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert!(looks > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_queued_while_a_large_batch_leaves_stays_queued() {
    const LARGE: u64 = 20_000;
    let index = Arc::new(new_index().await);
    let mut large = plus(1);
    for row in 0..LARGE {
        large.put(format!("CDa{row:05}"), "1");
    }
    index.apply(1, &large);
    let committed = Arc::clone(&index);
    let committing = tokio::spawn(async move { commit(&committed, 1, large).await });
    let mut order = 1;
    while !committing.is_finished() {
        order += 1;
        let mut small = plus(1);
        small.put(format!("CDb{order:05}"), "1");
        index.apply(order, &small);
        let rows = index.snapshot();
        let sum = i64::try_from(order).unwrap();
        assert_eq!(count(&rows).await, sum, "after {order} operations");
    }
    committing.await.unwrap();
    assert!(order > 10, "only {order} operations during the commit");
    let (start, end) = (Bytes::from_static(b"CDb"), Bytes::from_static(b"CDc"));
    let small = index.scan(start, end, usize::MAX).await.unwrap().len();
    assert_eq!(u64::try_from(small).unwrap(), order - 1);
    assert!(!index.is_queued(b"CDa00000") && index.is_queued(b"CDb00002"));
    assert_eq!(
        count(&index.snapshot()).await,
        i64::try_from(order).unwrap()
    );
}
