//! Blobs under keys: every call, the input it refuses, and its result after a reopen.

use std::collections::BTreeMap;

use super::super::blob::*;
use super::*;

pub(crate) fn options(cluster: &TestCluster) -> BlobOptions {
    BlobOptions {
        config: config(cluster.cache.path().to_owned()),
        env: Arc::<SeededEnv>::clone(&cluster.env),
        author: author(),
        ..BlobOptions::new("/nowhere")
    }
}

impl TestCluster {
    pub(crate) async fn blobs(&self) -> BlobStore {
        let opened = BlobStore::open_in(&self.backend, "default", options(self));
        opened.await.unwrap()
    }

    /// Closes the store and checks that the log has every row of the index and that the counts are right.
    pub(crate) async fn end(&self, store: BlobStore) {
        store.close().await.unwrap();
        self.audited().await;
    }

    pub(crate) async fn audited(&self) {
        let audit = check_log(&self.backend, "default", &CheckConfig::default(), |_| {})
            .await
            .unwrap();
        assert!(audit.is_sound(), "{audit:?}");
        assert!(audit.rows > 0);
    }
}

pub(crate) fn plain() -> PutOptions {
    PutOptions::default()
}

pub(crate) fn noted(name: &str, value: &'static str) -> PutOptions {
    let value = Bytes::from_static(value.as_bytes());
    PutOptions {
        metadata: BTreeMap::from([(name.to_owned(), value)]),
        ..PutOptions::default()
    }
}

pub(crate) async fn keys(store: &BlobStore, prefix: &str) -> Vec<String> {
    let mut list = store.list(prefix);
    let mut found = Vec::new();
    while let Some(entry) = list.next().await.unwrap() {
        found.push(String::from_utf8(entry.key().to_vec()).unwrap());
    }
    found
}

/// The contents of a key's versions, oldest first; `None` for a delete marker.
pub(crate) async fn past(store: &BlobStore, key: &str) -> Vec<Option<Vec<u8>>> {
    let mut found = Vec::new();
    for version in store.list_versions(key).await.unwrap() {
        found.push(match version.is_delete_marker {
            true => None,
            false => {
                let bytes = store.get_version(key, version.id).await.unwrap();
                assert_eq!(bytes.len() as u64, version.size);
                Some(bytes.to_vec())
            }
        });
    }
    found
}

fn is_not_found<T: std::fmt::Debug>(result: Result<T, BlobError>) -> bool {
    matches!(result, Err(BlobError::NotFound))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_put_is_a_version_with_its_own_metadata() {
    let cluster = TestCluster::new("blob-put");
    let store = cluster.blobs().await;
    let first = store.put_versioned("a/b", "one", &noted("step", "1")).await;
    store.put("a/b", "two!", &noted("step", "2")).await.unwrap();
    let kind = PutOptions {
        content_type: Some("text/plain".to_owned()),
        author: Some(Author {
            uid: 9,
            process: "nine".to_owned(),
        }),
        ..noted("step", "3")
    };
    let third = store.put_versioned("a/b", "two!", &kind).await.unwrap();
    for reopened in [false, true] {
        let store = if reopened {
            cluster.blobs().await
        } else {
            store.clone()
        };
        assert_eq!(store.get("a/b").await.unwrap(), "two!");
        let versions = store.list_versions("a/b").await.unwrap();
        let steps: Vec<_> = versions
            .iter()
            .map(|v| v.metadata["step"].clone())
            .collect();
        assert_eq!(steps, ["1", "2", "3"]);
        assert_eq!(versions[0].id, *first.as_ref().unwrap());
        assert_eq!(versions[2].id, third);
        assert_eq!(versions[0].author, author());
        assert_eq!(versions[2].author.process, "nine");
        assert!(versions.is_sorted_by_key(|v| v.id));
        assert_eq!(versions[0].ended, Some(versions[1].timestamp));
        assert_eq!(versions[2].ended, None);
        let held = [b"one".to_vec(), b"two!".to_vec(), b"two!".to_vec()];
        assert_eq!(past(&store, "a/b").await, held.map(Some));
        let stat = store.stat("a/b").await.unwrap();
        assert_eq!((stat.size, stat.version), (4, Some(third)));
        assert_eq!(stat.content_type.as_deref(), Some("text/plain"));
        assert_eq!(store.latest_version_id("a/b").await.unwrap(), Some(third));
        if !reopened {
            store.clone().close().await.unwrap();
            cluster.wipe();
        } else {
            cluster.end(store).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_not_found_and_an_invalid_key_is_refused() {
    let cluster = TestCluster::new("blob-missing");
    let store = cluster.blobs().await;
    store.put("dir/file", "x", &plain()).await.unwrap();
    let id = store.latest_version_id("dir/file").await.unwrap().unwrap();
    for key in ["nothing", "dir", "dir/other", "dir/file/below"] {
        assert!(is_not_found(store.get(key).await), "{key}");
        assert!(is_not_found(store.get_reader(key, ..).await), "{key}");
        assert!(is_not_found(store.stat(key).await), "{key}");
        assert!(is_not_found(store.get_version(key, id).await), "{key}");
        assert!(!store.exists(key).await.unwrap(), "{key}");
        assert!(!store.delete(key).await.unwrap(), "{key}");
        assert_eq!(store.latest_version_id(key).await.unwrap(), None, "{key}");
        assert_eq!(store.list_versions(key).await.unwrap(), [], "{key}");
    }
    for key in ["", "/a", "a/", "a//b", "a/../b", "a/.versions/b"] {
        let refused = store.put(key, "x", &plain()).await;
        assert!(
            matches!(refused, Err(BlobError::InvalidKey { .. })),
            "{key}"
        );
        let refused = store.get(key).await;
        assert!(
            matches!(refused, Err(BlobError::InvalidKey { .. })),
            "{key}"
        );
    }
    for key in ["dir", "dir/file/below", "dir/file/deep/below"] {
        let refused = store.put(key, "x", &plain()).await;
        assert!(matches!(refused, Err(BlobError::Conflict { .. })), "{key}");
    }
    let ns = store.namespace();
    let mut link = new_node(Kind::Symlink);
    link.target = Bytes::from_static(b"dir/file");
    ns.tree
        .create(ROOT, b"link", link, &author())
        .await
        .unwrap();
    assert!(is_not_found(store.get("link").await));
    let refused = store.put("link", "x", &plain()).await;
    assert!(matches!(refused, Err(BlobError::Conflict { .. })));
    let long = noted(&"n".repeat(246), "x");
    assert!(matches!(
        store.put("a", "x", &long).await,
        Err(BlobError::Invalid(_))
    ));
    assert_eq!(keys(&store, "").await, ["dir/file"]);
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_keeps_versions_adds_a_marker_and_removes_its_empty_directories() {
    let cluster = TestCluster::new("blob-delete");
    let store = cluster.blobs().await;
    let ns = store.namespace().clone();
    ns.tree
        .create(ROOT, b"made", new_node(Kind::Directory), &author())
        .await
        .unwrap();
    for key in ["a/b/c", "made/d/e"] {
        store.put(key, "one", &plain()).await.unwrap();
        assert!(store.delete(key).await.unwrap());
        assert!(is_not_found(store.get(key).await));
        assert_eq!(store.latest_version_id(key).await.unwrap(), None);
        assert_eq!(past(&store, key).await, [Some(b"one".to_vec()), None]);
        let marker = store.list_versions(key).await.unwrap().pop().unwrap();
        assert!(is_not_found(store.get_version(key, marker.id).await));
        assert!(!store.delete(key).await.unwrap());
    }
    assert_eq!(ns.tree.lookup(ROOT, b"a").await.unwrap(), None);
    let made = ns.tree.lookup(ROOT, b"made").await.unwrap().unwrap();
    assert_eq!(ns.tree.lookup(made.ino, b"d").await.unwrap(), None);
    // The directories were created again; the key still has one history.
    store.put("a/b/c", "two", &plain()).await.unwrap();
    let all = [Some(b"one".to_vec()), None, Some(b"two".to_vec())];
    assert_eq!(past(&store, "a/b/c").await, all);
    store.clone().close().await.unwrap();
    cluster.wipe();
    let store = cluster.blobs().await;
    assert_eq!(past(&store, "a/b/c").await, all);
    assert_eq!(keys(&store, "").await, ["a/b/c"]);
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_keeps_the_version_it_was_opened_on() {
    let cluster = TestCluster::new("blob-readers");
    let store = cluster.blobs().await;
    let old: Vec<u8> = (0..3 << 20).map(|at: u32| (at / 1000) as u8).collect();
    store.put("k", old.clone(), &plain()).await.unwrap();
    let id = store.latest_version_id("k").await.unwrap().unwrap();
    let mut whole = store.get_reader("k", ..).await.unwrap();
    let part = store.get_reader("k", 1_000_000..=1_999_999).await.unwrap();
    let out_of_order = store.get_reader("k", 1 << 30..).await.unwrap();
    let version = store.get_version_reader("k", id, 5..9).await.unwrap();
    assert_eq!(whole.next().await.unwrap().unwrap(), old[..1 << 20]);
    store.put("k", "new", &plain()).await.unwrap();
    let stored = Vec::from(whole.rest().await.unwrap());
    assert!(
        stored == old[1 << 20..],
        "the rest of the version that the reader was opened on"
    );
    store.delete("k").await.unwrap();
    let mut read = Vec::new();
    let mut part = tokio::io::BufReader::new(part);
    tokio::io::AsyncReadExt::read_to_end(&mut part, &mut read)
        .await
        .unwrap();
    assert!(read == old[1_000_000..2_000_000], "a range of that version");
    assert_eq!(version.size(), old.len() as u64);
    assert_eq!(version.rest().await.unwrap(), old[5..9]);
    assert_eq!(out_of_order.rest().await.unwrap(), "");
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_put_is_atomic() {
    struct Breaks(u32);
    impl tokio::io::AsyncRead for Breaks {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if self.0 == 0 {
                return std::task::Poll::Ready(Err(std::io::Error::other("it broke")));
            }
            self.0 -= 1;
            buffer.put_slice(&[7; 100][..buffer.remaining().min(100)]);
            std::task::Poll::Ready(Ok(()))
        }
    }
    let cluster = TestCluster::new("blob-stream");
    let mut narrow = options(&cluster);
    narrow.config.dirty_bytes_max = 8 << 20;
    let opened = BlobStore::open_in(&cluster.backend, "default", narrow);
    let store = opened.await.unwrap();
    store.put("there", "old", &plain()).await.unwrap();
    for (key, reads) in [("there", 3), ("not/there", 0), ("not/there", 800_000)] {
        let put = store.put_from(key, Breaks(reads), &plain()).await;
        let Err(BlobError::Source(why)) = put else {
            panic!("{key}: {put:?}")
        };
        assert!(why.contains("it broke"));
    }
    assert_eq!(keys(&store, "").await, ["there"]);
    assert_eq!(past(&store, "there").await, [Some(b"old".to_vec())]);
    assert_eq!(
        store.namespace().tree.lookup(ROOT, b"not").await.unwrap(),
        None
    );
    // More than the dirty budget and more than a range, so that the upload starts during the write.
    let big: Vec<u8> = (0..70 << 20).map(|at: u32| (at / 4099) as u8).collect();
    let id = store
        .put_versioned_from("big", &big[..], &plain())
        .await
        .unwrap();
    same(&store.get("big").await.unwrap(), &big, "as put");
    store.clone().close().await.unwrap();
    cluster.wipe();
    let store = cluster.blobs().await;
    same(&store.get("big").await.unwrap(), &big, "from the bucket");
    same(
        &store.get_version("big", id).await.unwrap(),
        &big,
        "its version",
    );
    assert_eq!(store.list_versions("big").await.unwrap().len(), 1);
    cluster.end(store).await;
}

fn same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_puts_of_one_key_are_all_versions_and_the_last_one_is_current() {
    let cluster = TestCluster::new("blob-many");
    let store = cluster.blobs().await;
    let mut puts = Vec::new();
    for writer in 0..8_u8 {
        let store = store.clone();
        puts.push(tokio::spawn(async move {
            for turn in 0..10_u8 {
                let text = vec![writer * 10 + turn; 5000];
                store.put("shared/key", text, &plain()).await.unwrap();
                let own = format!("own/{writer}");
                store.put(&own, "mine", &plain()).await.unwrap();
                let seen = store.get("shared/key").await.unwrap();
                assert!(seen.len() == 5000 && seen.iter().all(|b| *b == seen[0]));
                assert!(store.delete(&own).await.unwrap());
            }
        }));
    }
    for put in puts {
        put.await.unwrap();
    }
    let held = past(&store, "shared/key").await;
    let mut seen: Vec<u8> = held.iter().map(|v| v.as_ref().unwrap()[0]).collect();
    assert_eq!(store.get("shared/key").await.unwrap()[0], seen[79]);
    seen.sort_unstable();
    assert_eq!(seen, (0..80).collect::<Vec<u8>>());
    assert_eq!(keys(&store, "").await, ["shared/key"]);
    // A directory has never had entries other than keys.
    let ns = store.namespace();
    assert_eq!(
        ns.history.view().names_with_versions(ROOT).await.unwrap(),
        Vec::<Bytes>::new()
    );
    let shared = ns.tree.lookup(ROOT, b"shared").await.unwrap().unwrap();
    assert_eq!(
        ns.history
            .view()
            .names_with_versions(shared.ino)
            .await
            .unwrap(),
        ["key"]
    );
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_deletion_of_the_current_version_the_previous_one_is_current() {
    let cluster = TestCluster::new("blob-forget");
    let store = cluster.blobs().await;
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        ids.push(store.put_versioned("d/k", text, &plain()).await.unwrap());
    }
    let held = store.get_version_reader("d/k", ids[1], ..).await.unwrap();
    store.delete_version("d/k", ids[1]).await.unwrap();
    assert!(is_not_found(store.delete_version("d/k", ids[1]).await));
    assert!(is_not_found(store.get_version("d/k", ids[1]).await));
    assert_eq!(held.rest().await.unwrap(), "two");
    store.delete_version("d/k", ids[2]).await.unwrap();
    assert_eq!(store.get("d/k").await.unwrap(), "one");
    store.delete_version("d/k", ids[0]).await.unwrap();
    assert!(!store.exists("d/k").await.unwrap());
    assert_eq!(keys(&store, "").await, Vec::<String>::new());
    assert_eq!(
        store.namespace().tree.lookup(ROOT, b"d").await.unwrap(),
        None
    );
    cluster.end(store).await;
}
