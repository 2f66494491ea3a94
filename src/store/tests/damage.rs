//! Objects of a namespace that are lost, truncated or changed: the mount reports them, keeps all other objects, and works again
//! after they are restored.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

const FORTY_DAYS: Duration = Duration::from_secs(40 * 86_400);

/// A kind of damage to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Lost,
    Emptied,
    Halved,
    Flipped,
}

const HARMS: [Harm; 4] = [Harm::Lost, Harm::Emptied, Harm::Halved, Harm::Flipped];

/// How a writer's mount reacts to damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mounts {
    /// The mount is refused with a message that names the object or its folder.
    Refused,
    /// The mount serves all data.
    Whole,
    /// The mount serves all data except the bytes in the object, which give an error.
    WithoutItsBytes,
    /// The mount is refused, or calls that need the object fail; no call returns wrong or missing data without an error.
    NothingWrong,
}

fn text(file: usize, version: usize) -> Vec<u8> {
    format!("file {file}, version {version};")
        .repeat(500)
        .into_bytes()
}

/// A namespace after two writers that closed cleanly, with rows in tables and in the write-ahead log and at least two log objects.
async fn prepared(name: &str) -> TestCluster {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    for file in 0..320 {
        let ino = save(&ns, ROOT, format!("row-{file:03}").as_bytes(), &[7; 3800]).await;
        ns.tree
            .file(ino)
            .await
            .unwrap()
            .sync(&author())
            .await
            .unwrap();
    }
    for version in 0..3 {
        for file in 0..4 {
            save(
                &ns,
                ROOT,
                format!("file-{file}").as_bytes(),
                &text(file, version),
            )
            .await;
        }
        ns.drain().await.unwrap();
    }
    leave(ns).await;
    let ns = cluster.open().await;
    for file in 0..4 {
        save(&ns, ROOT, format!("file-{file}").as_bytes(), &text(file, 3)).await;
        ns.drain().await.unwrap();
    }
    leave(ns).await;
    cluster
}

/// Reads everything that an index with unreadable rows still finds: each read is right or an error.
async fn right_or_error(ns: &Namespace) {
    for file in 0..4 {
        let name = format!("file-{file}");
        let Ok(versions) = ns.history.view().versions(ROOT, name.as_bytes()).await else {
            continue;
        };
        assert_eq!(versions.len(), 4, "{name}");
        for (number, version) in versions.iter().enumerate() {
            if let Ok(bytes) = ns.history.read_past(version, 0, u32::MAX).await {
                assert!(bytes == text(file, number), "{name}, version {number}");
            }
        }
    }
}

/// Reads everything. Returns the names that cannot be read.
async fn unreadable(ns: &Namespace) -> Vec<String> {
    let mut bad = Vec::new();
    for file in 0..320 {
        let name = format!("row-{file:03}");
        assert_eq!(
            content(ns, ROOT, name.as_bytes()).await,
            Some(vec![7; 3800]),
            "{name}"
        );
    }
    for file in 0..4 {
        let name = format!("file-{file}");
        let versions = ns
            .history
            .view()
            .versions(ROOT, name.as_bytes())
            .await
            .unwrap();
        assert_eq!(versions.len(), 4, "{name}");
        for (number, version) in versions.iter().enumerate() {
            match ns.history.read_past(version, 0, u32::MAX).await {
                Ok(bytes) => assert!(bytes == text(file, number), "{name}, version {number}"),
                Err(_) => bad.push(format!("{name}, version {number}")),
            }
        }
    }
    bad
}

async fn keys_below(cluster: &TestCluster, part: &str) -> Vec<String> {
    let all = cluster.backend().list(part).await.unwrap();
    all.into_iter().map(|object| object.key).collect()
}

async fn harm(cluster: &TestCluster, key: &str, harm: Harm) -> Bytes {
    let (backend, whole) = (cluster.backend(), cluster.backend().get(key).await.unwrap());
    let mut bytes = whole.to_vec();
    match harm {
        Harm::Lost => {
            backend.delete(key).await.unwrap();
            return whole;
        }
        Harm::Emptied => bytes.clear(),
        Harm::Halved => bytes.truncate(whole.len() / 2),
        Harm::Flipped => bytes[whole.len() / 3] ^= 0x20,
    }
    backend.put(key, bytes.into()).await.unwrap();
    whole
}

/// Mounts with and without the cache directory, after every grace period, and checks the reaction of each mount.
async fn mounted_often(cluster: &TestCluster, key: &str, harm: Harm, mounts: Mounts) {
    for round in 0..3 {
        if round == 1 {
            cluster.wipe();
        }
        let opened = cluster.try_open().await;
        match (mounts, opened) {
            (Refused, Err(StoreError::Damaged(why) | StoreError::Corrupt(why))) => {
                let folder = key.rsplit_once('/').map_or(key, |(folder, _)| folder);
                assert!(why.contains(folder), "{key} {harm:?}: {why}");
            }
            (Whole | WithoutItsBytes, Ok(ns)) => {
                let bad = unreadable(&ns).await;
                assert_eq!(bad.is_empty(), mounts == Whole, "{key} {harm:?}: {bad:?}");
                ns.gc.reclaim().await.unwrap();
                cluster.env.advance(FORTY_DAYS.as_nanos() as u64);
                ns.gc.reclaim().await.unwrap();
                leave(ns).await;
            }
            (NothingWrong, Err(StoreError::Damaged(_) | StoreError::Corrupt(_))) => {}
            (NothingWrong, Ok(ns)) => {
                right_or_error(&ns).await;
                let _unreadable = ns.gc.reclaim().await;
                cluster.env.advance(FORTY_DAYS.as_nanos() as u64);
                let _unreadable = ns.gc.reclaim().await;
                let _unreadable = ns.close().await;
                ns.core.tasks.join().await;
            }
            (_, opened) => panic!("{key} {harm:?}, mount {round}: {opened:?}"),
        }
        cluster.env.advance(FORTY_DAYS.as_nanos() as u64);
    }
}

/// Applies each kind of damage to one object, each in a copy of the bucket: no object is deleted, and restoring the object repairs
/// the namespace.
async fn each_harm(cluster: &TestCluster, key: &str, expected: [Mounts; 4]) {
    for (harm_done, mounts) in HARMS.into_iter().zip(expected) {
        let cluster = cluster.fork().await;
        let before = keys_below(&cluster, "data").await;
        let whole = harm(&cluster, key, harm_done).await;
        mounted_often(&cluster, key, harm_done, mounts).await;
        cluster.backend().put(key, whole).await.unwrap();
        let after: Vec<String> = keys_below(&cluster, "data").await;
        for segment in before {
            assert!(
                after.contains(&segment),
                "{key} {harm_done:?}: {segment} is gone"
            );
        }
        cluster.wipe();
        let ns = cluster.open().await;
        assert_eq!(
            unreadable(&ns).await,
            Vec::<String>::new(),
            "{key} {harm_done:?}, put back"
        );
        leave(ns).await;
    }
}

use Mounts::{NothingWrong, Refused, Whole, WithoutItsBytes};

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_identity_refuses_the_mount() {
    let cluster = prepared("harmed-identity").await;
    each_harm(&cluster, "namespace.json", [Refused; 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_manifests_refuse_the_mount() {
    let cluster = prepared("harmed-manifest").await;
    let manifests = keys_below(&cluster, "meta/manifest").await;
    let newest = manifests.last().unwrap();
    each_harm(&cluster, newest, [Whole, Refused, Refused, Refused]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_damaged_object_of_the_write_ahead_log_refuses_the_mount() {
    let cluster = prepared("harmed-wal").await;
    let wal = keys_below(&cluster, "meta/wal").await;
    let mut sizes = BTreeMap::new();
    for key in &wal {
        sizes.insert(key.clone(), cluster.backend().get(key).await.unwrap().len());
    }
    println!("{sizes:?}");
    let full: Vec<&String> = wal.iter().filter(|key| sizes[*key] > 0).collect();
    for key in [
        full[full.len() - 1],
        full[full.len() - 2],
        full[full.len() - 4],
    ] {
        each_harm(&cluster, key, [Refused; 4]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_tables_refuse_the_mount() {
    let cluster = prepared("harmed-table").await;
    let tables = keys_below(&cluster, "meta/compacted").await;
    assert!(!tables.is_empty());
    for key in tables {
        println!("{key}");
        each_harm(&cluster, &key, [Refused, Refused, Refused, NothingWrong]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_epoch_and_log_objects_make_no_data_unreadable() {
    let cluster = prepared("harmed-log").await;
    for part in ["epochs", "log"] {
        let objects = keys_below(&cluster, part).await;
        for key in [objects.first().unwrap(), objects.last().unwrap()] {
            each_harm(&cluster, key, [Whole; 4]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_makes_only_its_own_bytes_unreadable() {
    let cluster = prepared("harmed-segment").await;
    let segments = keys_below(&cluster, "data").await;
    let key = segments.last().unwrap();
    each_harm(&cluster, key, [WithoutItsBytes; 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_never_taken_for_an_empty_one() {
    let cluster = prepared("gone-index").await;
    let mut kept = BTreeMap::new();
    for key in keys_below(&cluster, "meta").await {
        kept.insert(key.clone(), harm(&cluster, &key, Harm::Lost).await);
    }
    let before = keys_below(&cluster, "").await;
    mounted_often(&cluster, "meta/all", Harm::Lost, Refused).await;
    assert_eq!(
        keys_below(&cluster, "").await,
        before,
        "nothing was written or deleted"
    );
    for (key, bytes) in kept {
        cluster.backend().put(&key, bytes).await.unwrap();
    }
    let ns = cluster.open().await;
    assert!(unreadable(&ns).await.is_empty());
    leave(ns).await;
}
