use crate::meta::{Batch, MetaRead, MetaStore, SlateConfig, SlateStore};
use crate::sync::Arc;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

fn last(_key: &[u8], _existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
    operands.last().cloned().unwrap_or_default()
}

/// Bytes that no compression shortens.
fn random(len: usize, mut seed: u64) -> Bytes {
    let next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

async fn commit(store: &SlateStore, batch: Batch) {
    let commit = store.commit(batch).await.unwrap();
    store.durable(commit).await.unwrap();
}

/// The keys of the objects that contain bytes.
async fn holding(bucket: &InMemory, bytes: &[u8]) -> Vec<String> {
    let all: Vec<_> = bucket.list(None).try_collect().await.unwrap();
    let mut found = Vec::new();
    for object in all {
        let got = bucket.get(&object.location).await.unwrap();
        let whole = got.bytes().await.unwrap();
        if whole.windows(bytes.len()).any(|window| window == bytes) {
            found.push(object.location.to_string());
        }
    }
    found
}

async fn rewritten(store: &SlateStore) {
    let replaced = store.rewrite(b"CH").await.unwrap();
    assert!(!replaced.keys.is_empty());
    let left = store.delete_replaced(b"CH", &replaced).await.unwrap();
    assert!(left.keys.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_before_a_rewriting_is_in_no_object_after_it() {
    let bucket = Arc::new(InMemory::new());
    let config = || SlateConfig::new(last);
    let objects = Arc::clone(&bucket) as Arc<dyn ObjectStore>;
    let store = SlateStore::open(Arc::clone(&objects), "meta", config()).await;
    let store = store.unwrap();
    let (deleted, replaced, kept) = (random(900, 1), random(900, 2), random(900, 3));
    for round in 0..4_u8 {
        let mut batch = Batch::new();
        for row in 0..200_u8 {
            batch.put(vec![b'C', row, round], random(100, u64::from(row) + 7));
            batch.put(vec![b'G', row, round], random(10, u64::from(row) + 7));
        }
        match round {
            0 => batch.put(&b"Cd"[..], deleted.clone()),
            1 => batch.put(&b"Hr"[..], replaced.clone()),
            _ => batch.put(&b"Hk"[..], kept.clone()),
        }
        commit(&store, batch).await;
        let left = store.rewriter.write_tables(&store.db, b"C").await;
        left.unwrap();
    }
    for bytes in [&deleted, &replaced, &kept] {
        assert!(!holding(&bucket, &bytes[..500]).await.is_empty());
    }
    let mut batch = Batch::new();
    batch.delete(&b"Cd"[..]);
    batch.put(&b"Hr"[..], &b"new"[..]);
    commit(&store, batch).await;
    assert!(!holding(&bucket, &deleted[..500]).await.is_empty());
    rewritten(&store).await;
    assert_eq!(holding(&bucket, &deleted[..500]).await, [""; 0]);
    assert_eq!(holding(&bucket, &replaced[..500]).await, [""; 0]);
    assert!(!holding(&bucket, &kept[..500]).await.is_empty());
    assert_eq!(store.get(b"Cd").await.unwrap(), None);
    assert_eq!(store.get(b"Hr").await.unwrap().unwrap(), "new");
    assert_eq!(store.get(b"Hk").await.unwrap().unwrap(), kept);

    // A row that was only in memory, and a second rewriting.
    let brief = random(900, 4);
    let mut batch = Batch::new();
    batch.put(&b"Cb"[..], brief.clone());
    commit(&store, batch).await;
    let mut batch = Batch::new();
    batch.delete(&b"Cb"[..]);
    commit(&store, batch).await;
    assert!(!holding(&bucket, &brief[..500]).await.is_empty());
    rewritten(&store).await;
    assert_eq!(holding(&bucket, &brief[..500]).await, [""; 0]);
    store.close().await.unwrap();
    let store = SlateStore::open(objects, "meta", config()).await.unwrap();
    assert_eq!(store.get(b"Cd").await.unwrap(), None);
    assert_eq!(store.get(b"Hk").await.unwrap().unwrap(), kept);
    let row = store.get(&[b'C', 17, 2]).await.unwrap().unwrap();
    assert_eq!(row, random(100, 24));
    store.close().await.unwrap();
}
