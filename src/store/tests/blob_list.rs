//! Blob stores: listings, prefixes, child stores, settings.

use std::collections::BTreeSet;

use super::super::blob::*;
use super::blob::{keys, noted, options, plain};
use super::*;

const NAMES: [&str; 14] = [
    "a",
    "a!",
    "b!/x",
    "b/c",
    "b/c!",
    "b/d/e",
    "b/d/f",
    "b0",
    "composite",
    "data/0",
    "log/1/2",
    "meta/current/x",
    "namespace.json",
    "\u{e9}/z",
];

async fn filled(cluster: &TestCluster) -> BlobStore {
    let store = cluster.blobs().await;
    for name in NAMES {
        store.put(name, name.to_owned(), &plain()).await.unwrap();
    }
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_sorted_by_bytes_and_has_no_internal_names() {
    let cluster = TestCluster::new("blob-sorted");
    let store = filled(&cluster).await;
    let mut sorted = NAMES.to_vec();
    sorted.sort_unstable();
    assert_eq!(keys(&store, "").await, sorted);
    for name in NAMES {
        assert_eq!(store.get(name).await.unwrap(), name, "{name}");
    }
    for prefix in [
        "a", "b", "b/", "b/d", "b/d/", "b!", "meta/cur", "none/", "/", "b//", "\u{e9}",
    ] {
        let expected: Vec<_> = sorted.iter().filter(|k| k.starts_with(prefix)).collect();
        assert_eq!(
            keys(&store, prefix).await,
            expected.iter().map(|k| **k).collect::<Vec<_>>()
        );
    }
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_size_add_up_to_the_whole_listing() {
    let cluster = TestCluster::new("blob-pages");
    let store = filled(&cluster).await;
    let ns = store.namespace();
    ns.tree
        .create(ROOT, b"empty", new_node(Kind::Directory), &author())
        .await
        .unwrap();
    for (prefix, delimited) in [
        ("", false),
        ("", true),
        ("b", false),
        ("b/", true),
        ("b", true),
    ] {
        let mut sorted: Vec<String> = NAMES.iter().map(|k| (*k).to_owned()).collect();
        sorted.retain(|key| key.starts_with(prefix));
        if delimited {
            let shown = |key: &String| match key[prefix.len()..].find('/') {
                Some(at) => key[..=prefix.len() + at].to_owned(),
                None => key.clone(),
            };
            sorted = sorted.iter().map(shown).collect();
        }
        let expected: BTreeSet<String> = sorted.into_iter().collect();
        for limit in 1..=expected.len() + 1 {
            let mut found = Vec::new();
            let mut options = ListOptions {
                delimited,
                limit,
                ..ListOptions::prefix(prefix)
            };
            loop {
                let page = store.list_page(&options).await.unwrap();
                assert!(page.entries.len() <= limit);
                for entry in &page.entries {
                    assert_eq!(
                        matches!(entry, ListItem::Prefix(_)),
                        entry.key().ends_with(b"/")
                    );
                    found.push(String::from_utf8(entry.key().to_vec()).unwrap());
                }
                options.after = page.next;
                if options.after.is_none() {
                    break;
                }
            }
            let at = format!("{prefix:?}, delimited {delimited}, {limit} at once");
            assert_eq!(found, expected.iter().cloned().collect::<Vec<_>>(), "{at}");
        }
    }
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_deletion_compares_bytes() {
    let cluster = TestCluster::new("blob-prefix");
    let store = filled(&cluster).await;
    assert_eq!(store.delete_by_prefix("b/d").await.unwrap(), 2);
    assert_eq!(store.delete_by_prefix("b").await.unwrap(), 4);
    assert_eq!(store.delete_by_prefix("none").await.unwrap(), 0);
    assert_eq!(keys(&store, "").await.len(), NAMES.len() - 6);
    assert_eq!(
        store.namespace().tree.lookup(ROOT, b"b").await.unwrap(),
        None
    );
    assert_eq!(store.delete_by_prefix("").await.unwrap(), 8);
    assert_eq!(keys(&store, "").await, Vec::<String>::new());
    let mut names = store.namespace().tree.list(ROOT).await.unwrap();
    assert_eq!(names.next().await.unwrap(), None, "no directory is left");
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn child_stores_are_independent() {
    let cluster = TestCluster::new("blob-children");
    let store = cluster.blobs().await;
    let (one, same) = tokio::join!(store.child("team/eu"), store.child("team/eu"));
    let (one, same) = (one.unwrap(), same.unwrap());
    let other = store.child("other").await.unwrap();
    assert_eq!(one.name(), "default/team/eu");
    store.put("k", "parent", &plain()).await.unwrap();
    one.put("k", "child", &plain()).await.unwrap();
    assert_eq!(same.get("k").await.unwrap(), "child");
    assert!(matches!(other.get("k").await, Err(BlobError::NotFound)));
    assert_eq!(keys(&store, "").await, ["k"]);
    for bad in ["", "a//b", "data", "UP"] {
        assert!(store.child(bad).await.is_err(), "{bad}");
    }
    assert_eq!(store.children().await.unwrap(), ["other", "team/eu"]);
    assert_eq!(
        store
            .child("team/eu")
            .await
            .unwrap()
            .children()
            .await
            .unwrap(),
        Vec::<String>::new()
    );
    one.close().await.unwrap();
    assert!(same.put("k", "late", &plain()).await.is_err());
    drop(same);
    let again = store.child("team/eu").await.unwrap();
    assert_eq!(again.get("k").await.unwrap(), "child");
    again.close().await.unwrap();
    other.close().await.unwrap();
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_map_opens_each_store_once_and_lists_the_bucket() {
    let cluster = TestCluster::new("blob-map");
    let map = StoreMap::open_in(&cluster.backend, "map", options(&cluster)).unwrap();
    assert_eq!(map.children().await.unwrap(), []);
    let (a, b) = tokio::join!(map.get("acme", "eu"), map.get("acme", "eu"));
    let (a, b) = (a.unwrap(), b.unwrap());
    a.put("k", "eu", &plain()).await.unwrap();
    assert_eq!(b.get("k").await.unwrap(), "eu");
    map.get("acme", "us")
        .await
        .unwrap()
        .put("k", "us", &plain())
        .await
        .unwrap();
    map.get("zeta", "eu").await.unwrap();
    for (account, region) in [("a/b", "eu"), ("acme", "e/u"), ("", "eu"), ("acme", "META")] {
        assert!(
            map.get(account, region).await.is_err(),
            "{account} {region}"
        );
    }
    drop((a, b));
    map.close().await.unwrap();
    let map = StoreMap::open_in(&cluster.backend, "map", options(&cluster)).unwrap();
    let names = [("acme", "eu"), ("acme", "us"), ("zeta", "eu")];
    let names = names.map(|(a, r)| (a.to_owned(), r.to_owned()));
    assert_eq!(map.children().await.unwrap(), names);
    assert_eq!(
        map.get("acme", "us").await.unwrap().get("k").await.unwrap(),
        "us"
    );
    map.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_stored_in_the_namespace() {
    let cluster = TestCluster::new("blob-settings");
    let store = cluster.blobs().await;
    assert_eq!(store.settings().await.unwrap().len(), 0);
    store.set_setting("keep", Some("30d")).await.unwrap();
    store.set_setting("gone", Some("1")).await.unwrap();
    store.set_setting("gone", None).await.unwrap();
    store.set_setting("never", None).await.unwrap();
    for bad in ["", "UP", "a=b"] {
        assert!(store.set_setting(bad, Some("1")).await.is_err(), "{bad}");
    }
    store.clone().close().await.unwrap();
    cluster.wipe();
    let store = cluster.blobs().await;
    let kept = std::collections::BTreeMap::from([("keep".to_owned(), "30d".to_owned())]);
    assert_eq!(store.settings().await.unwrap(), kept);
    store.put("k", "x", &noted("a", "b")).await.unwrap();
    cluster.end(store).await;
}
