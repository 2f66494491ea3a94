//! Blobs under keys and files under paths are the same.

use super::*;
use crate::env::SeededEnv;
use crate::fs::FsConfig;
use crate::fs::testing::{ALICE, ROOT};
use crate::store::blob::{BlobOptions, BlobStore, PutOptions};
use crate::sync::Arc;

/// A file system and a blob store over one namespace.
async fn beside() -> (World, BlobStore) {
    let env = Arc::new(SeededEnv::new(1));
    let cache = Arc::new(tempfile::tempdir().unwrap());
    let mut options = BlobOptions::new(cache.path());
    options.config.cache_bytes = 0;
    options.env = Arc::<SeededEnv>::clone(&env);
    let config = options.backend.clone();
    let backend = crate::backend::Backend::open("memory://fs-blobs", &config).unwrap();
    let store = BlobStore::open_in(&backend, "default", options)
        .await
        .unwrap();
    let namespace = store.namespace().clone();
    let world = World::over(namespace, FsConfig::default(), env, cache);
    (world, store)
}

async fn put(store: &BlobStore, key: &str, text: &str) {
    let mut options = PutOptions {
        content_type: Some("text/plain".to_owned()),
        ..PutOptions::default()
    };
    let value = Bytes::copy_from_slice(text.as_bytes());
    options.metadata.insert("said".to_owned(), value);
    store.put(key, text.to_owned(), &options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_library_puts_programs_read_and_the_other_way_round() {
    let (world, store) = beside().await;
    put(&store, "a/b", "one").await;
    put(&store, "a/b", "two").await;
    assert_eq!(world.cat("a/b").await.unwrap(), "two");
    let ino = world.walk("a/b").await.unwrap().stat.ino.0;
    assert_eq!(world.getxattr(ino, b"user.meta.said").await.unwrap(), "two");
    assert_eq!(
        world.getxattr(ino, b"user.mime_type").await.unwrap(),
        "text/plain"
    );
    let stamps = world.ls("a/.versions/@files/b").await.unwrap();
    let stamps: Vec<_> = stamps.iter().filter(|name| name.starts_with('2')).collect();
    assert_eq!(stamps.len(), 2, "{stamps:?}");
    let first = format!("a/.versions/@files/b/{}", stamps[0]);
    assert_eq!(world.cat(&first).await.unwrap(), "one");
    assert_eq!(world.ls("a").await.unwrap(), ["b"]);
    assert_eq!(world.ls("a/.versions/@files").await.unwrap(), ["b"]);

    // A handle keeps the file that it was opened on.
    let opened = world.open(&ALICE, ino, libc::O_RDONLY).await.unwrap();
    put(&store, "a/b", "three").await;
    let read = world.read(ino, opened.handle, 0, 100).await.unwrap();
    assert_eq!(read, "two");
    world.release(ino, opened.handle).await.unwrap();
    assert_eq!(world.cat("a/b").await.unwrap(), "three");

    world.save("program", "by a shell").await;
    assert_eq!(store.get("program").await.unwrap(), "by a shell");
    world.save("program", "again").await;
    let versions = store.list_versions("program").await.unwrap();
    assert_eq!(versions.iter().map(|v| v.size).collect::<Vec<_>>(), [10, 5]);
    let id = versions[0].id;
    assert_eq!(
        store.get_version("program", id).await.unwrap(),
        "by a shell"
    );
    world.mkdir(&SUPER, ROOT, b"dir", 0o755, 0).await.unwrap();
    put(&store, "dir/x", "x").await;
    let dir = world.walk("dir").await.unwrap().stat.ino.0;
    world.unlink(&SUPER, dir, b"x").await.unwrap();
    assert!(!store.exists("dir/x").await.unwrap());
    assert!(store.delete("program").await.unwrap());
    assert!(world.cat("program").await.is_err());
    assert!(store.delete("a/b").await.unwrap());
    assert_eq!(world.ls("").await.unwrap(), ["dir"]);
    assert_eq!(store.list("").next().await.unwrap(), None);
}
