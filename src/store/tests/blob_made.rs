//! Composite and imported blobs, blobs beside open files, and blobs after a crash.

use super::super::blob::*;
use super::blob::{keys, noted, past, plain};
use super::failpoints::Failpoint;
use super::*;

/// Pseudo-random bytes of a seed.
fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed ^ (at / 251) as u8).collect()
}

async fn shows(store: &BlobStore, key: &str, expected: &[u8]) {
    let found = store.get(key).await.unwrap();
    assert!(
        found == expected,
        "{key}: {} and {} bytes",
        found.len(),
        expected.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composite_blob_keeps_the_bytes_of_deleted_parts() {
    let cluster = TestCluster::new("blob-composite");
    let store = cluster.blobs().await;
    let parts = [bytes(1, 9 << 20), bytes(2, 100), bytes(3, (8 << 20) + 5)];
    for (at, part) in parts.iter().enumerate() {
        store
            .put(format!("part/{at}"), part.clone(), &plain())
            .await
            .unwrap();
    }
    store.flush().await.unwrap();
    let before = store.namespace().counters().bytes_up;
    let names = ["part/0", "part/1", "part/2", "part/1"];
    let id = store
        .put_composite("whole", names, &noted("of", "four"))
        .await
        .unwrap();
    let all = [&parts[0][..], &parts[1], &parts[2], &parts[1]].concat();
    shows(&store, "whole", &all).await;
    store
        .put_composite("copy", ["part/2"], &plain())
        .await
        .unwrap();
    store
        .put_composite("none", [""; 0], &plain())
        .await
        .unwrap();
    store.flush().await.unwrap();
    let written = store.namespace().counters().bytes_up - before;
    assert!(written < 256 << 10, "no bytes move: {written}");
    let missing = store
        .put_composite("x", ["part/0", "nothing"], &plain())
        .await;
    assert!(matches!(missing, Err(BlobError::NotFound)));
    store.put("part/0", "other", &plain()).await.unwrap();
    assert_eq!(store.delete_by_prefix("part/").await.unwrap(), 3);
    store
        .put_composite("whole", ["whole", "none", "whole"], &plain())
        .await
        .unwrap();
    store.clone().close().await.unwrap();
    cluster.wipe();
    let store = cluster.blobs().await;
    shows(&store, "whole", &[&all[..], &all].concat()).await;
    shows(&store, "copy", &parts[2]).await;
    shows(&store, "none", b"").await;
    assert!(store.get_version("whole", id).await.unwrap() == all);
    assert_eq!(
        store.list_versions("whole").await.unwrap()[0].metadata["of"],
        "four"
    );
    assert!(!store.exists("x").await.unwrap());
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_version_has_its_given_time_and_id() {
    let cluster = TestCluster::new("blob-import");
    let store = cluster.blobs().await;
    let now = store.namespace().now().0;
    let at = |ago: u64| Timestamp(now - ago * 1_000_000_000);
    let import = async |id: &str, key: &str, text: &'static str, time: Timestamp| {
        store
            .import_version(key, id, text, time, &noted("from", "afar"))
            .await
    };
    let one = import("v-1", "a/k", "one", at(900)).await.unwrap();
    let two = import("v-2", "a/k", "two", at(600)).await.unwrap();
    assert_eq!((one.timestamp, two.timestamp), (at(900), at(600)));
    store.put("a/k", "three", &plain()).await.unwrap();
    for bad in ["", "a/b", "a.b", ".", "n\0", &"i".repeat(256)] {
        let refused = import(bad, "a/k", "x", at(1)).await;
        assert!(matches!(refused, Err(BlobError::Invalid(_))), "{bad:?}");
    }
    let future = Timestamp(store.namespace().now().0 + 1_000_000_000);
    for (id, key, time) in [
        ("v-3", "a/k", at(700)),
        ("v-3", "b", future),
        ("v-3", "a/k", at(600)),
    ] {
        let refused = import(id, key, "x", time).await;
        assert!(matches!(refused, Err(BlobError::Invalid(_))), "{refused:?}");
    }
    let taken = import("v-1", "b", "x", at(5)).await;
    assert!(matches!(taken, Err(BlobError::Imported(id)) if id == "v-1"));
    assert!(!store.exists("b").await.unwrap());
    import(&"i".repeat(255), "b", "long", at(5)).await.unwrap();
    store.clone().close().await.unwrap();
    cluster.wipe();
    let store = cluster.blobs().await;
    let texts = [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()];
    assert_eq!(past(&store, "a/k").await, texts.map(Some));
    let versions = store.list_versions("a/k").await.unwrap();
    let ids: Vec<_> = versions.iter().map(|v| v.foreign_id.as_deref()).collect();
    assert_eq!(ids, [Some("v-1"), Some("v-2"), None]);
    assert_eq!(
        (versions[0].op, versions[0].ended),
        (Some(Op::Import), Some(two.timestamp))
    );
    assert_eq!(store.imported_version("a/k", "v-2").await.unwrap(), two);
    for (key, id) in [("a/k", "v-9"), ("b", "v-1")] {
        let unknown = store.imported_version(key, id).await;
        assert!(matches!(unknown, Err(BlobError::NotFound)), "{key} {id}");
    }
    assert_eq!(store.stat("b").await.unwrap().modified, at(5).time());
    store.delete_version("a/k", one).await.unwrap();
    let gone = store.imported_version("a/k", "v-1").await;
    assert!(matches!(gone, Err(BlobError::NotFound)));
    assert_eq!(keys(&store, "").await, ["a/k", "b"]);
    cluster.end(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_over_an_open_file_does_not_change_the_open_file() {
    let cluster = TestCluster::new("blob-beside");
    let store = cluster.blobs().await;
    let ns = store.namespace().clone();
    save(&ns, ROOT, b"k", b"by a program").await;
    let stat = ns.tree.lookup(ROOT, b"k").await.unwrap().unwrap();
    let mode = AttrChange {
        mode: Some(0o600),
        ..AttrChange::default()
    };
    ns.tree.set_attrs(stat.ino, mode).await.unwrap();
    ns.tree
        .link(stat.ino, ROOT, b"linked", &author())
        .await
        .unwrap();
    let file = ns.tree.file(stat.ino).await.unwrap();
    file.write(0, Bytes::from_static(b"BY"), &author())
        .await
        .unwrap();
    assert_eq!(store.get("k").await.unwrap(), "BY a program");
    store.put("k", "put", &plain()).await.unwrap();
    assert_eq!(file.read(0, 100).await.unwrap(), "BY a program");
    close(&file).await;
    let (_, made) = ns
        .tree
        .create_open(ROOT, b"new", new_file(), &author())
        .await
        .unwrap();
    made.write(0, Bytes::from_static(b"unsaved"), &author())
        .await
        .unwrap();
    assert_eq!(store.latest_version_id("new").await.unwrap(), None);
    assert_eq!(store.get("new").await.unwrap(), "unsaved");
    store.put("new", "saved", &plain()).await.unwrap();
    close(&made).await;
    drop((file, made));
    let stat = ns.tree.lookup(ROOT, b"k").await.unwrap().unwrap();
    assert_eq!((stat.attrs.mode, stat.nlink), (0o600, 1));
    assert_eq!(store.get("linked").await.unwrap(), "BY a program");
    assert_eq!(content(&ns, ROOT, b"k").await.unwrap(), b"put");
    save(&ns, ROOT, b"k", b"again").await;
    let last = past(&store, "k").await.pop().unwrap();
    assert_eq!(last, Some(b"again".to_vec()));
    assert_eq!(past(&store, "new").await, [Some(b"saved".to_vec())]);
    // A transient name has no list of versions.
    cluster.env.advance(11_000_000_000);
    ns.tree
        .rename(
            DentryRef::new(ROOT, b"k"),
            DentryRef::new(ROOT, b"moved"),
            RenameMode::Replace,
            &author(),
        )
        .await
        .unwrap();
    assert!(
        store
            .list_versions("k")
            .await
            .unwrap()
            .last()
            .unwrap()
            .is_delete_marker
    );
    assert_eq!(store.get("moved").await.unwrap(), "again");
    assert_eq!(keys(&store, "").await, ["linked", "moved", "new"]);
    cluster.end(store).await;
}

/// What an import compares its time with, and what the list of versions says.
async fn check_last_change(ns: &Namespace, name: &'static [u8], what: &str) {
    let last = ns.history.view().versions(ROOT, name).await.unwrap().pop();
    let listed = last.map(|last| last.ended.unwrap_or(last.version.timestamp));
    let found = ns.tree.last_change(ROOT, &Bytes::from_static(name)).await;
    assert_eq!(found.unwrap(), listed, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_change_of_a_name_is_that_of_its_last_version() {
    let cluster = TestCluster::new("blob-last-change");
    let ns = cluster.open().await;
    let author = author();
    check_last_change(&ns, b"k", "a name that never was").await;
    save(&ns, ROOT, b"k", b"one").await;
    check_last_change(&ns, b"k", "a saved file").await;
    let created = ns.tree.create_open(ROOT, b"new", new_file(), &author);
    let (_, open) = created.await.unwrap();
    check_last_change(&ns, b"new", "a file that was never saved").await;
    let (from, to) = (DentryRef::new(ROOT, b"new"), DentryRef::new(ROOT, b"k"));
    let renamed = ns.tree.rename(from, to, RenameMode::Replace, &author);
    renamed.await.unwrap();
    check_last_change(&ns, b"k", "an unsaved file over a version").await;
    close(&open).await;
    drop(open);
    check_last_change(&ns, b"k", "the same file, saved").await;
    let ino = ns.tree.lookup(ROOT, b"k").await.unwrap().unwrap().ino;
    ns.tree.link(ino, ROOT, b"link", &author).await.unwrap();
    check_last_change(&ns, b"k", "a hard-linked file").await;
    check_last_change(&ns, b"link", "its new name").await;
    save(&ns, ROOT, b"k", b"two").await;
    check_last_change(&ns, b"link", "a hard-linked file, saved under another name").await;
    ns.tree.unlink(ROOT, b"k", &author).await.unwrap();
    check_last_change(&ns, b"k", "a removed name").await;
    cluster.kill(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_at_any_step_exactly_the_acknowledged_puts_are_there() {
    for step in [
        Failpoint::Pack,
        Failpoint::Commit,
        Failpoint::Flush,
        Failpoint::Log,
    ] {
        let cluster = TestCluster::new("blob-crash");
        let store = cluster.blobs().await;
        store.put("old", "first", &plain()).await.unwrap();
        store
            .put("part", bytes(9, 300_000), &plain())
            .await
            .unwrap();
        store.flush().await.unwrap();
        let ns = store.namespace().clone();
        set_failpoint(&ns, Some(step));
        acknowledged(&store).await;
        // An unfinished put of which a part is being uploaded.
        let mut unplaced = ns
            .tree
            .begin(ROOT, &Bytes::from_static(b"never"), &author());
        for _ in 0..40 {
            unplaced
                .append(Bytes::from(bytes(6, 1 << 20)))
                .await
                .unwrap();
        }
        let forgotten = Box::leak(Box::new(unplaced));
        let cluster = cluster.kill(ns).await;
        assert!(!format!("{forgotten:?}").is_empty());
        for round in 0..2 {
            let store = cluster.blobs().await;
            let at = format!("{step:?}, mounted {round} times before");
            assert_eq!(store.get("old").await.unwrap(), "second", "{at}");
            assert_eq!(past(&store, "old").await.len(), 2, "{at}");
            shows(&store, "d/big", &bytes(4, 33 << 20)).await;
            let sum = [b"second", &bytes(9, 300_000)[..], b"second"].concat();
            shows(&store, "d/sum", &sum).await;
            shows(&store, "d/same", &bytes(9, 300_000)).await;
            assert_eq!(
                past(&store, "d/gone").await,
                [Some(b"short".to_vec()), None],
                "{at}"
            );
            let imported = store.imported_version("d/in", "id").await.unwrap();
            assert_eq!(
                store.get_version("d/in", imported).await.unwrap(),
                "imported"
            );
            let listed = keys(&store, "").await;
            assert_eq!(listed, ["d/big", "d/in", "d/same", "d/sum", "old"], "{at}");
            assert_eq!(store.namespace().tree.usage().files, 6, "{at}");
            assert_eq!(
                store.list_versions("d/big").await.unwrap()[0].op,
                Some(Op::Write)
            );
            cluster.end(store).await;
            cluster.wipe();
        }
    }
}

/// One call of each kind whose result must survive.
async fn acknowledged(store: &BlobStore) {
    store.put("old", "second", &noted("n", "2")).await.unwrap();
    store
        .put("d/big", bytes(4, 33 << 20), &plain())
        .await
        .unwrap();
    store.put("d/gone", "short", &plain()).await.unwrap();
    store.delete("d/gone").await.unwrap();
    store
        .put_composite("d/sum", ["old", "part", "old"], &plain())
        .await
        .unwrap();
    store
        .put_composite("d/same", ["part"], &plain())
        .await
        .unwrap();
    store.delete("part").await.unwrap();
    let at = Timestamp(store.namespace().now().0 - 5_000_000_000);
    store
        .import_version("d/in", "id", "imported", at, &plain())
        .await
        .unwrap();
}
