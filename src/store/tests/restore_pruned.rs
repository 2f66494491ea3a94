//! Restores and prunes at the same time: what a restore plans from stays until it is done, and what is gone before is not restored.

use std::time::Duration;

use super::labels::{mkdir, rows};
use super::restore::{in_steps, restore};
use super::*;
use crate::store::schema::rows::LabelPin;
use crate::store::schema::tables::{LabeledTable, RemovedLabelTable};

const HOUR: u64 = 3600 * 1_000_000_000;

async fn prune(ns: &Namespace) -> u64 {
    ns.drain().await.unwrap();
    let brake = Brake::Released;
    let grace = Duration::ZERO;
    let run = ns.retention.run(RunOptions { grace, brake }).await;
    run.unwrap().dropped.versions
}

/// A directory whose file has four states an hour apart, the policy of an hour, and the time of the first state.
async fn four_states(cluster: &TestCluster, ns: &Namespace) -> (Ino, Timestamp) {
    let mut policy = Policy::default();
    for word in ["grid=off", "keep-within=1h", "keep-last=1"] {
        policy.set(word).unwrap();
    }
    let set = ns.retention.set_policy(&policy, InForce::Now).await;
    set.unwrap();
    let top = mkdir(ns, ROOT, b"top").await;
    save(ns, top, b"f", &[1; 100_000]).await;
    let at = ns.now();
    for seed in 2..5 {
        cluster.env.advance(HOUR);
        save(ns, top, b"f", &[seed; 100_000]).await;
    }
    ns.drain().await.unwrap();
    (top, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prune_has_dropped_since_it_was_looked_up_is_not_restored() {
    let cluster = TestCluster::new("restore-pruned");
    let ns = cluster.open().await;
    let (top, at) = four_states(&cluster, &ns).await;
    let view = ns.history.view();
    let tree = view.directory_entry_at(top, at).await.unwrap().unwrap();
    let file = view.entry_at(top, b"f", at).await.unwrap().unwrap();
    cluster.env.advance(HOUR);
    assert!(prune(&ns).await > 0);
    ns.gc.reclaim().await.unwrap();
    let who = author();
    for (name, then) in [
        (DentryRef::new(ROOT, b"top"), tree),
        (DentryRef::new(top, b"f"), file),
    ] {
        let refused = ns.history.restore(name, then, at, AddedNames::Remove, &who);
        assert!(matches!(refused.await, Err(StoreError::Stale)), "{name:?}");
    }
    assert_eq!(content(&ns, top, b"f").await.unwrap(), [4; 100_000]);
    assert_eq!(ns.history.restore_lock.pinned(), None);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_keeps_what_a_running_restore_goes_back_to_and_drops_it_afterwards() {
    let cluster = TestCluster::new("restore-keeps");
    let ns = cluster.open().await;
    let (top, at) = four_states(&cluster, &ns).await;
    let versions = history(&ns, top, b"f").await.len();
    let pinned = LabelPin {
        timestamp: at,
        directory: top,
    };
    // What a run reads before the restore begins is read again.
    let protection = ns.retention.protection().await.unwrap();
    let pin = ns.history.pin_restored(pinned);
    assert!(ns.retention.is_outdated(&protection));
    cluster.env.advance(HOUR);
    prune(&ns).await;
    let kept = history(&ns, top, b"f").await;
    assert_eq!(kept[0], [1; 100_000]);
    assert!(kept.len() < versions, "others go");
    assert_eq!(rows::<LabeledTable>(&ns).await, 1);
    drop(pin);
    assert_eq!(rows::<RemovedLabelTable>(&ns).await, 1);
    assert_eq!(prune(&ns).await, 1);
    let (labeled, removed) = (
        rows::<LabeledTable>(&ns).await,
        rows::<RemovedLabelTable>(&ns).await,
    );
    assert_eq!((labeled, removed), (0, 0));
    // What a run reads before the restore ends is read again.
    let pin = ns.history.pin_restored(pinned);
    let protection = ns.retention.protection().await.unwrap();
    drop(pin);
    assert!(ns.retention.is_outdated(&protection));
    assert_eq!(prune(&ns).await, 0);
    // Nothing is reviewed where no run has read what a restore keeps.
    let view = ns.history.view();
    let entry = view
        .directory_entry_at(top, ns.now())
        .await
        .unwrap()
        .unwrap();
    let (name, who) = (DentryRef::new(ROOT, b"top"), author());
    let restored = ns
        .history
        .restore(name, entry, ns.now(), AddedNames::Remove, &who);
    restored.await.unwrap();
    assert_eq!(rows::<RemovedLabelTable>(&ns).await, 0);
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_keeps_its_time_from_its_beginning_to_its_end() {
    for whole in [true, false] {
        let cluster = TestCluster::new("restore-pins");
        let ns = cluster.open().await;
        let (top, at) = four_states(&cluster, &ns).await;
        let view = ns.history.view();
        let (name, then, pinned) = match whole {
            true => {
                let tree = view.directory_entry_at(top, at).await.unwrap();
                (DentryRef::new(ROOT, b"top"), tree, top)
            }
            false => {
                let file = view.entry_at(top, b"f", at).await.unwrap();
                (DentryRef::new(top, b"f"), file, ROOT)
            }
        };
        // The restore waits for a save.
        let ino = ns.tree.lookup(top, b"f").await.unwrap().unwrap().ino;
        let file = ns.tree.file(ino).await.unwrap();
        let (bytes, who) = (Bytes::from_static(b"unsaved"), author());
        file.write(0, bytes, &who).await.unwrap();
        let restore = ns
            .history
            .restore(name, then.unwrap(), at, AddedNames::Remove, &who);
        let (restored, ()) = tokio::join!(restore, async {
            let lock = &ns.history.restore_lock;
            for _ in 0..100 {
                if lock.pinned().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let found = lock.pinned();
            let found = found.map(|found| (found.timestamp, found.slot.directory));
            assert_eq!(found, Some((at, pinned)), "{whole}");
            close(&file).await;
        });
        restored.unwrap();
        assert_eq!(content(&ns, top, b"f").await.unwrap(), [1; 100_000]);
        assert_eq!(ns.history.restore_lock.pinned(), None);
        leave(ns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_in_steps_that_waits_for_a_save_keeps_its_time_all_the_while() {
    let cluster = TestCluster::new("restore-steps-pin");
    let ns = cluster.open().await;
    let (top, at) = four_states(&cluster, &ns).await;
    save(&ns, top, b"open", b"then").await;
    ns.drain().await.unwrap();
    cluster.env.advance(HOUR);
    in_steps(&ns, 1);
    let ino = ns.tree.lookup(top, b"open").await.unwrap().unwrap().ino;
    let file = ns.tree.file(ino).await.unwrap();
    let bytes = Bytes::from_static(b"unsaved");
    file.write(0, bytes, &author()).await.unwrap();
    let lock = &ns.history.restore_lock;
    // Due is the state that the restore goes back to, among others. A run that goes on meanwhile keeps it.
    let (restored, ()) = tokio::join!(restore(&ns, ROOT, b"top", at, AddedNames::Keep), async {
        for _ in 0..100 {
            if lock.pinned().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let protection = ns.retention.protection().await.unwrap();
        let waits = tokio::time::Instant::now() + Duration::from_millis(100);
        let mut looks = 0;
        while tokio::time::Instant::now() < waits {
            assert!(lock.pinned().is_some(), "after {looks} looks");
            looks += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(looks > 5, "{looks}");
        assert!(!ns.retention.is_outdated(&protection), "one pin");
        let (grace, brake) = (Duration::ZERO, Brake::Released);
        let run = ns.retention.run(RunOptions { grace, brake }).await;
        assert!(run.unwrap().dropped.versions > 0, "others go");
        close(&file).await;
    });
    assert!(restored.unwrap().count > 0);
    assert_eq!(content(&ns, top, b"f").await.unwrap(), [1; 100_000]);
    assert_eq!(lock.pinned(), None);
    leave(ns).await;
}
