//! Followers of a namespace that another process writes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::reclaim::{ids, settle};
use super::*;

const EVERY: Duration = Duration::from_millis(20);
/// Bytes of a file in these tests: more than a row holds.
const LEN: usize = 200_000;

async fn try_follow(cluster: &TestCluster) -> Result<Namespace, StoreError> {
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let config = config(cluster.cache.path().to_owned());
    let env: Arc<SeededEnv> = Arc::clone(&cluster.env);
    let how = FollowConfig {
        every: EVERY,
        on_damage: OnDamage::Refuse,
    };
    Namespace::follow(&cluster.backend, "default", config, how, env, tasks).await
}

async fn follow(cluster: &TestCluster) -> Namespace {
    try_follow(cluster).await.unwrap()
}

/// Waits until a follower shows everything its writer has drained.
async fn caught_up(follower: &Namespace, writer: &Namespace) {
    let newest = writer.core.applied_now();
    for _ in 0..500 {
        if follower.core.applied_now() == newest {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
    panic!("{:?} is not {newest:?}", follower.core.applied_now());
}

/// Every object of the bucket and its length.
async fn objects(cluster: &TestCluster) -> BTreeMap<String, u64> {
    let all = cluster.backend.list("").await.unwrap();
    all.into_iter().map(|o| (o.key, o.size)).collect()
}

async fn names(ns: &Namespace, dir: Ino) -> Vec<String> {
    let mut listing = ns.tree.list(dir).await.unwrap();
    let mut names = Vec::new();
    while let Some((name, _)) = listing.next().await.unwrap() {
        names.push(String::from_utf8(name.to_vec()).unwrap());
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_shows_the_committed_changes_of_its_writer() {
    let cluster = TestCluster::new("follow");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", b"one").await;
    save(&ns, ROOT, b"b", &vec![7; LEN]).await;
    ns.drain().await.unwrap();
    let follower = follow(&cluster).await;
    assert_eq!(content(&follower, ROOT, b"a").await.unwrap(), b"one");
    assert_eq!(content(&follower, ROOT, b"b").await.unwrap(), vec![7; LEN]);
    // A file that is open in the follower shows the writer's new bytes.
    let open = follower.tree.lookup(ROOT, b"a").await.unwrap().unwrap().ino;
    let open = follower.tree.file(open).await.unwrap();
    let dir = ns
        .tree
        .create(ROOT, b"d", new_node(Kind::Directory), &author())
        .await
        .unwrap();
    save(&ns, dir.ino, b"in", b"inside").await;
    save(&ns, ROOT, b"a", b"second").await;
    ns.tree.unlink(ROOT, b"b", &author()).await.unwrap();
    ns.drain().await.unwrap();
    caught_up(&follower, &ns).await;
    assert_eq!(names(&follower, ROOT).await, ["a", "d"]);
    assert_eq!(content(&follower, ROOT, b"a").await.unwrap(), b"second");
    assert_eq!(&open.read(0, 100).await.unwrap()[..], b"second");
    assert_eq!(follower.tree.usage(), ns.tree.usage());
    let dir = follower.tree.lookup(ROOT, b"d").await.unwrap().unwrap().ino;
    assert_eq!(content(&follower, dir, b"in").await.unwrap(), b"inside");
    // The writer's last change is final in the follower too.
    assert_eq!(
        history(&follower, ROOT, b"a").await,
        [&b"one"[..], b"second"]
    );
    let changes = ns.history.view().changes(ROOT, 100).await.unwrap();
    assert_eq!(
        follower.history.view().changes(ROOT, 100).await.unwrap(),
        changes
    );
    assert!(
        follower.history.is_final(changes[0])
            && !follower.history.is_final(follower.commit.low_watermark())
    );
    assert!(follower.now() < follower.commit.low_watermark());
    for at in changes {
        let (here, there) = (
            follower.history.view().list_at(ROOT, at).await,
            ns.history.view().list_at(ROOT, at).await,
        );
        assert_eq!(here.unwrap(), there.unwrap());
    }
    // An unlinked file that the follower has open is readable as long as a version shows it.
    ns.tree.unlink(ROOT, b"a", &author()).await.unwrap();
    ns.drain().await.unwrap();
    caught_up(&follower, &ns).await;
    assert!(follower.tree.lookup(ROOT, b"a").await.unwrap().is_none());
    assert_eq!(&open.read(0, 100).await.unwrap()[..], b"second");
    assert_eq!(open.stat().await.unwrap().nlink, 0);
    // The follower has no effect on the writer.
    save(&ns, ROOT, b"a", b"third").await;
    ns.drain().await.unwrap();
    follower.close().await.unwrap();
    reclaim::end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_writes_no_objects() {
    let cluster = TestCluster::new("follow-ro");
    assert!(matches!(
        try_follow(&cluster).await,
        Err(StoreError::NotFound)
    ));
    assert!(objects(&cluster).await.is_empty());
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"a", b"one").await;
    ns.drain().await.unwrap();
    ns.close().await.unwrap();
    let before = objects(&cluster).await;
    let (follower, second) = (follow(&cluster).await, follow(&cluster).await);
    let file = follower.tree.file(ino).await.unwrap();
    let refused = [
        file.write(0, Bytes::from_static(b"x"), &author()).await,
        file.truncate(0, &author()).await,
        follower.tree.unlink(ROOT, b"a", &author()).await.map(drop),
        follower
            .tree
            .create_open(ROOT, b"n", new_file(), &author())
            .await
            .map(drop),
        follower
            .tree
            .create(ROOT, b"d", new_node(Kind::Directory), &author())
            .await
            .map(drop),
        follower
            .tree
            .link(ino, ROOT, b"l", &author())
            .await
            .map(drop),
    ];
    for outcome in refused {
        assert!(matches!(outcome, Err(StoreError::ReadOnly)), "{outcome:?}");
    }
    close(&file).await;
    drop(file);
    follower.drain().await.unwrap();
    assert_eq!(follower.tree.pending().failures, [""; 0]);
    assert_eq!(content(&second, ROOT, b"a").await.unwrap(), b"one");
    tokio::time::sleep(EVERY * 5).await;
    follower.close().await.unwrap();
    second.close().await.unwrap();
    assert_eq!(objects(&cluster).await, before);
}

/// Reads the file `f` and all its versions repeatedly. Returns the number of successful reads, of reads of deleted versions, and
/// of different states. Fails on bytes that were never saved.
async fn read_until_stopped(follower: Namespace, tasks: Tasks) -> (usize, usize, usize) {
    let (mut whole, mut gone, mut fills) = (0, 0, BTreeSet::new());
    while !tasks.is_stopped() {
        let mut reads = Vec::new();
        if let Some(stat) = follower.tree.lookup(ROOT, b"f").await.unwrap() {
            reads.push(match follower.tree.file(stat.ino).await {
                Ok(file) => file.read(0, u32::MAX).await,
                Err(error) => Err(error),
            });
        }
        for version in follower.history.view().versions(ROOT, b"f").await.unwrap() {
            tokio::task::yield_now().await;
            reads.push(follower.history.read_past(&version, 0, u32::MAX).await);
        }
        for read in reads {
            match read {
                Ok(bytes) => {
                    let fill = bytes[0];
                    assert!(fill > 0 && bytes.len() == LEN);
                    assert!(bytes.iter().all(|byte| *byte == fill), "torn: {fill}");
                    fills.insert(fill);
                    whole += 1;
                }
                Err(StoreError::Stale | StoreError::NotFound) => gone += 1,
                // A name whose only version was deleted gives an error.
                Err(StoreError::Corrupt(why)) if why.contains("deleted") => gone += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    (whole, gone, fills.len())
}

/// The writer saves, deletes versions and collects garbage, while the follower reads the states that it has just seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_reads_whole_versions_or_an_error_during_garbage_collection() {
    let cluster = TestCluster::new("follow-prune");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"f", &vec![1; LEN]).await;
    ns.drain().await.unwrap();
    let follower = follow(&cluster).await;
    let first = follower
        .history
        .view()
        .versions(ROOT, b"f")
        .await
        .unwrap()
        .remove(0);
    let reading = tokio::spawn(read_until_stopped(follower.clone(), ns.core.tasks.clone()));
    for round in 2..30_u8 {
        // Overwrites parts of the last state, so that states share segments and range rows.
        let ino = ns.tree.lookup(ROOT, b"f").await.unwrap().unwrap().ino;
        let file = ns.tree.file(ino).await.unwrap();
        let all = Bytes::from(vec![round; LEN]);
        for from in (0..LEN).step_by(LEN / 4) {
            let part = all.slice(from..from + LEN / 4);
            file.write(from as u64, part, &author()).await.unwrap();
        }
        close(&file).await;
        ns.drain().await.unwrap();
        let all = ids(&ns, b"f").await;
        if all.len() > 3 {
            for id in &all[..2] {
                ns.history.delete_version(ROOT, b"f", *id).await.unwrap();
            }
            settle(&ns, &cluster).await;
        }
    }
    caught_up(&follower, &ns).await;
    ns.core.tasks.stop();
    let (whole, gone, fills) = reading.await.unwrap();
    assert!(whole > 30 && fills > 3, "{whole} {gone} {fills}");
    // The version and all its segments have been deleted from the bucket.
    let late = follower.history.read_past(&first, 0, 10).await;
    assert!(matches!(late, Err(StoreError::Stale)), "{late:?}");
    assert_eq!(content(&follower, ROOT, b"f").await.unwrap(), vec![29; LEN]);
    follower.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_follows_the_next_writer() {
    let mut cluster = TestCluster::new("follow-crash");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"kept", b"durable").await;
    ns.drain().await.unwrap();
    set_failpoint(&ns, Some(failpoints::Failpoint::Commit));
    save(&ns, ROOT, b"late", b"acknowledged").await;
    // The killed writer's cache directory is kept.
    cluster = cluster.kill(ns).await;
    let follower = follow(&cluster).await;
    assert_eq!(names(&follower, ROOT).await, ["kept"]);
    let ns = cluster.open().await;
    ns.drain().await.unwrap();
    caught_up(&follower, &ns).await;
    assert_eq!(names(&follower, ROOT).await, ["kept", "late"]);
    let late = content(&follower, ROOT, b"late").await.unwrap();
    assert_eq!(late, b"acknowledged");
    // With an empty cache directory the follower shows the same.
    follower.close().await.unwrap();
    ns.close().await.unwrap();
    cluster.wipe();
    let follower = follow(&cluster).await;
    assert_eq!(content(&follower, ROOT, b"late").await.unwrap(), late);
    follower.close().await.unwrap();
}
