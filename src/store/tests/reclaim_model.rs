//! Random saves, copies, removals, undeletes and deletions of versions, with garbage collection and moves of inline bytes in between, and
//! crashes between its steps: every remaining version reads correctly, and no segment stays that no version needs.

use std::collections::BTreeMap;

use super::rng::{SeededRng, number};
use super::*;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::tables::{DroppedTable, RowTable};

const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
const GRACE_NS: u64 = 3600 * 1_000_000_000;

type Texts = BTreeMap<VersionId, Vec<u8>>;

/// The expected content of every name's versions, read when each was made.
#[derive(Clone, Default)]
struct Known(BTreeMap<Vec<u8>, Texts>);

impl Known {
    async fn look(&mut self, ns: &Namespace) {
        for name in NAMES {
            let texts = self.0.entry(name.to_vec()).or_default();
            let mut found = Texts::new();
            for version in ns.history.view().versions(ROOT, name).await.unwrap() {
                let text = match texts.get(&version.version) {
                    Some(text) => text.clone(),
                    None => check::read_past(ns, &version).await,
                };
                found.insert(version.version, text);
            }
            *texts = found;
        }
    }

    async fn check(&self, ns: &Namespace, at: &str) {
        for (name, texts) in &self.0 {
            let all = ns.history.view().versions(ROOT, name).await.unwrap();
            let ids: Vec<_> = all.iter().map(|v| v.version).collect();
            let expected: Vec<_> = texts.keys().copied().collect();
            assert_eq!(ids, expected, "{at}: versions of {}", name.escape_ascii());
            for version in all {
                let text = check::read_past(ns, &version).await;
                check::same(&text, &texts[&version.version], at);
                // A version from before a rename belongs to another name.
                let then = ns
                    .history
                    .view()
                    .entry_at(ROOT, name, version.version.timestamp)
                    .await;
                if let Some(then) = then.unwrap().filter(|e| e.ino == version.ino) {
                    assert_eq!(then.version, version.version, "{at}");
                }
            }
        }
    }
}

async fn opened(ns: &Namespace, name: &[u8]) -> Arc<File> {
    match ns.tree.lookup(ROOT, name).await.unwrap() {
        Some(stat) => ns.tree.file(stat.ino).await.unwrap(),
        None => {
            let made = ns.tree.create_open(ROOT, name, new_file(), &author()).await;
            made.unwrap().1
        }
    }
}

/// Copies a version or a part of it into a file.
async fn copy(ns: &Namespace, name: &[u8], rng: &mut SeededRng) {
    let from = NAMES[rng.below(4)];
    let all = ns.history.view().versions(ROOT, from).await.unwrap();
    if all.is_empty() {
        return;
    }
    let source = ns.tree.clone_source(&all[rng.below(all.len())]);
    let file = opened(ns, name).await;
    let range = match rng.below(2) {
        0 => (0, 0, u64::MAX >> 1),
        _ => (
            rng.below(200_000) as u64,
            rng.below(200_000) as u64,
            1 + rng.below(200_000) as u64,
        ),
    };
    file.clone_range(&source, range.0, range.1, range.2, &author())
        .await
        .unwrap();
    close(&file).await;
}

async fn write(ns: &Namespace, name: &[u8], rng: &mut SeededRng, fill: u8) {
    let file = opened(ns, name).await;
    for _ in 0..=rng.below(3) {
        match rng.below(5) {
            0 => {
                let len = rng.below(300_000) as u64;
                file.truncate(len, &author()).await.unwrap();
            }
            // With a failpoint set this would wait forever.
            1 if fill < 100 => file.sync(&author()).await.unwrap(),
            _ => {
                let (offset, len) = (rng.below(300_000), 1 + rng.below(150_000));
                let text = Bytes::from(vec![fill; len]);
                file.write(offset as u64, text, &author()).await.unwrap();
            }
        }
    }
    close(&file).await;
}

/// Writes as a database does: each write is in the bucket before the next one.
async fn write_synced(ns: &Namespace, name: &[u8], rng: &mut SeededRng, fill: u8) {
    let file = opened(ns, name).await;
    let mut offset = rng.below(300_000);
    for part in 0..=rng.below(24) {
        let most = [200, 6_000, 60_000][rng.below(3)];
        let len = 1 + rng.below(most);
        let text = Bytes::from(vec![fill.wrapping_add(part as u8); len]);
        file.write(offset as u64, text, &author()).await.unwrap();
        offset = match rng.below(3) {
            0 => rng.below(300_000),
            _ => offset + len,
        };
        // With a failpoint set this would wait forever.
        if fill < 100 {
            file.sync(&author()).await.unwrap();
        }
        if rng.below(40) == 0 {
            ns.gc.move_inline().await.unwrap();
        }
    }
    close(&file).await;
}

async fn delete(ns: &Namespace, rng: &mut SeededRng, known: &mut Known) {
    let name = NAMES[rng.below(4)];
    let all = ns.history.view().versions(ROOT, name).await.unwrap();
    if all.is_empty() {
        return;
    }
    let id = all[rng.below(all.len())].version;
    match ns.history.delete_version(ROOT, name, id).await {
        // The version may be listed through the rename that made the name, and belong to another name.
        Ok(()) | Err(StoreError::NotFound | StoreError::Busy(_)) => {}
        Err(error) => panic!("{error}"),
    }
    known.look(ns).await;
}

async fn step(ns: &Namespace, rng: &mut SeededRng, known: &mut Known, fill: u8) {
    let name = NAMES[rng.below(4)];
    match rng.below(21) {
        14..16 => copy(ns, name, rng).await,
        16 => {
            let from = DentryRef::new(ROOT, NAMES[rng.below(4)]);
            let (to, mode) = (DentryRef::new(ROOT, name), RenameMode::Replace);
            match ns.history.undelete(from, to, mode, &author()).await {
                Ok(_) | Err(StoreError::NotFound) => {}
                Err(error) => panic!("{error}"),
            }
        }
        18 | 19 => write_synced(ns, name, rng, fill).await,
        20 => {
            ns.gc.move_inline().await.unwrap();
        }
        0..5 => write(ns, name, rng, fill).await,
        5 if ns.tree.lookup(ROOT, name).await.unwrap().is_some() => {
            ns.tree
                .unlink(ROOT, name, &author())
                .await
                .map(drop)
                .unwrap();
        }
        6 => {
            let from = DentryRef::new(ROOT, NAMES[rng.below(4)]);
            let (to, mode) = (DentryRef::new(ROOT, name), RenameMode::Replace);
            let _moved = ns.tree.rename(from, to, mode, &author()).await;
        }
        7..12 => delete(ns, rng, known).await,
        _ => {
            ns.gc.turn().await.map(drop).unwrap();
        }
    }
    known.look(ns).await;
}

/// Collects all garbage and compares the rest with the model.
async fn finish(ns: &Namespace, cluster: &TestCluster, known: &Known, at: &str) {
    ns.drain().await.unwrap();
    drop(ns.data.pause_early_moves().await);
    for _ in 0..4 {
        ns.gc.reclaim().await.unwrap();
        ns.gc.move_inline().await.unwrap();
        ns.drain().await.unwrap();
        cluster.env.advance(GRACE_NS + 1);
    }
    ns.drain().await.unwrap();
    known.check(ns, at).await;
    inline::none_wait(ns, at).await;
    check::log_twin(ns, cluster).await;
    for object in cluster.backend().list("data").await.unwrap() {
        let id = SegmentId::from_key(&object.key).unwrap();
        let key = keys::segment(id.epoch, id.sequence);
        let row: Option<rows::SegmentRow> = ns.core.index.row(&key).await.unwrap();
        let modified = object.modified_ns;
        let Some(row) = row else {
            // An uncited segment of a crash stays for the grace period of the host's clock.
            assert!(
                id.epoch < ns.core.epoch && modified > 0,
                "{at}: {id:?} of {}",
                ns.core.epoch
            );
            continue;
        };
        assert!(
            row.extents.values().any(|(_, citing)| *citing > 0),
            "{at}: no version needs {}",
            object.key
        );
    }
    let from = DroppedTable::all();
    let left = ns.core.index.keys(from.clone(), keys::after(&from)).await;
    assert!(
        left.unwrap().is_empty(),
        "{at}: contents that wait for a review"
    );
}

async fn case(seed: u64) {
    println!("seed {seed}");
    let mut rng = SeededRng(seed);
    let mut cluster = TestCluster::new("reclaim-model");
    let mut ns = cluster.open().await;
    let mut known = Known::default();
    for number in 0..40_u8 {
        step(&ns, &mut rng, &mut known, number + 1).await;
        if rng.below(12) == 0 {
            let halts = [
                failpoints::Failpoint::Commit,
                failpoints::Failpoint::Flush,
                failpoints::Failpoint::Log,
            ];
            set_failpoint(&ns, Some(halts[rng.below(3)]));
            for more in 0..3 {
                step(&ns, &mut rng, &mut known, 100 + number + more).await;
            }
            ns.gc.turn().await.unwrap();
            cluster = cluster.kill(ns).await;
            ns = cluster.open().await;
            known
                .check(&ns, &format!("seed {seed}, crash at {number}"))
                .await;
        }
        if rng.below(12) == 0 {
            ns.drain().await.unwrap();
            ns.gc.turn().await.unwrap();
            cluster.env.advance(GRACE_NS + 1);
            ns.gc.turn().await.unwrap();
            cluster = cluster.kill(ns).await;
            cluster.wipe();
            ns = cluster.open().await;
            known
                .check(&ns, &format!("seed {seed}, wiped at {number}"))
                .await;
        }
    }
    finish(&ns, &cluster, &known, &format!("seed {seed}, end")).await;
    let _left = cluster.kill(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_collection_keeps_every_version_readable_and_deletes_unneeded_segments() {
    if let Some(seed) = number("REWINDFS_TEST_SEED") {
        return case(seed).await;
    }
    for seed in 1..=number("REWINDFS_TEST_CASES").unwrap_or(25) {
        case(seed).await;
    }
}
