//! Versions are forgotten: their bytes are in no object of the bucket and no file of the cache directory afterwards, and everything else
//! is as it was.

use std::path::Path;

use tokio::sync::mpsc;

use super::reclaim::{end, ids, rows_of};
use super::*;

/// Bytes that are nowhere else and that no compression shortens.
pub(super) fn secret(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn files_with(directory: &Path, part: &[u8], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if entry.metadata().unwrap().is_dir() {
            files_with(&path, part, found);
        } else if has(&std::fs::read(&path).unwrap(), part) {
            found.push(path.display().to_string());
        }
    }
}

/// The objects and files that have the first, the middle or the last bytes of `secret`.
pub(super) async fn holding(cluster: &TestCluster, secret: &[u8]) -> Vec<String> {
    let part = 24.min(secret.len());
    let (middle, last) = ((secret.len() - part) / 2, secret.len() - part);
    let mut found = Vec::new();
    for from in [0, middle, last] {
        let part = &secret[from..from + part];
        for object in cluster.backend().list("").await.unwrap() {
            let bytes = cluster.backend().get(&object.key).await;
            if bytes.is_ok_and(|bytes| has(&bytes, part)) {
                found.push(object.key);
            }
        }
        files_with(cluster.cache.path(), part, &mut found);
    }
    found
}

pub(super) fn all_of(name: &'static [u8]) -> ForgetRequest {
    ForgetRequest {
        directory: ROOT,
        name: Bytes::from_static(name),
        before: None,
    }
}

pub(super) async fn forget(ns: &Namespace, name: &'static [u8]) -> ForgetPlan {
    let (steps, _told) = mpsc::unbounded_channel();
    ns.forget.carry_out(&all_of(name), &steps).await.unwrap()
}

/// Saves bytes as a program does that waits for the bucket: few ones are stored in rows.
pub(super) async fn save_synced(ns: &Namespace, name: &[u8], bytes: &[u8]) {
    let (_, file) = ns
        .tree
        .create_open(ROOT, name, new_file(), &author())
        .await
        .unwrap();
    file.write(0, Bytes::copy_from_slice(bytes), &author())
        .await
        .unwrap();
    file.sync(&author()).await.unwrap();
    close(&file).await;
}

/// Copies the newest version of a file without moving bytes.
pub(super) async fn clone(ns: &Namespace, name: &[u8], copy: &[u8], len: u64) {
    let past = ns.history.view().versions(ROOT, name).await.unwrap();
    let made = ns.tree.create_open(ROOT, copy, new_file(), &author()).await;
    let copy = made.unwrap().1;
    let source = ns.tree.clone_source(past.last().unwrap());
    let cloned = copy.clone_range(&source, 0, 0, len, &author()).await;
    assert_eq!(cloned.unwrap(), len);
    close(&copy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_bytes_are_in_no_object_and_no_file_and_all_others_stay() {
    let cluster = TestCluster::new("forget");
    let ns = cluster.open().await;
    let (inline, packed, large) = (secret(2000, 1), secret(20_000, 2), secret(3_000_000, 3));
    let (kept, older) = (secret(20_000, 4), secret(5_000, 5));
    save_synced(&ns, b"inline", &inline).await;
    save(&ns, ROOT, b"beside", &older).await;
    save(&ns, ROOT, b"packed", &packed).await;
    save(&ns, ROOT, b"kept", &kept).await;
    save(&ns, ROOT, b"large", &large).await;
    for name in [&b"inline"[..], b"packed", b"large", b"beside"] {
        save(&ns, ROOT, name, b"new").await;
    }
    ns.drain().await.unwrap();
    for secret in [&inline, &packed, &large, &kept, &older] {
        assert!(!holding(&cluster, secret).await.is_empty());
    }
    let plan = ns.forget.plan(&all_of(b"large")).await.unwrap();
    assert_eq!((plan.versions.len(), plan.bytes), (1, 3_000_000));
    assert!(plan.has_current && plan.stay == 1 && plan.shown_by.is_empty());
    assert!(!holding(&cluster, &large).await.is_empty(), "a plan only");
    for name in [&b"inline"[..], b"packed", b"large"] {
        assert_eq!(forget(&ns, name).await.versions.len(), 1);
        assert_eq!(content(&ns, ROOT, name).await.unwrap(), b"new");
        assert_eq!(history(&ns, ROOT, name).await, [b"new"]);
    }
    for secret in [&inline, &packed, &large] {
        assert_eq!(holding(&cluster, secret).await, [""; 0]);
    }
    for secret in [&kept, &older] {
        assert!(!holding(&cluster, secret).await.is_empty());
    }
    assert_eq!(content(&ns, ROOT, b"kept").await.unwrap(), kept);
    assert_eq!(history(&ns, ROOT, b"beside").await, [&older[..], b"new"]);
    assert_eq!(rows_of(&ns, b"Gf").await, 0);
    assert!(forget(&ns, b"large").await.versions.is_empty());
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_were_written_over_in_place_leave_the_extents_that_stay() {
    let cluster = TestCluster::new("forget-part");
    let ns = cluster.open().await;
    let (whole, brief) = (secret(200_000, 7), secret(3000, 8));
    let ino = save(&ns, ROOT, b"a", &whole).await;
    save_synced(&ns, b"b", &brief).await;
    let second = ns.tree.lookup(ROOT, b"b").await.unwrap().unwrap().ino;
    for ino in [ino, second] {
        let file = ns.tree.file(ino).await.unwrap();
        let over = Bytes::from(vec![1; 64]);
        file.write(1000, over, &author()).await.unwrap();
        close(&file).await;
    }
    // A copy of what is current shows none of the bytes, and cites their extent.
    clone(&ns, b"a", b"copy", 200_000).await;
    ns.drain().await.unwrap();
    assert!(!holding(&cluster, &whole[1000..1064]).await.is_empty());
    assert!(!holding(&cluster, &brief[1000..1064]).await.is_empty());
    let plan = forget(&ns, b"a").await;
    assert_eq!((plan.versions.len(), plan.bytes), (1, 64));
    forget(&ns, b"b").await;
    assert_eq!(holding(&cluster, &whole[1000..1064]).await, [""; 0]);
    assert_eq!(holding(&cluster, &brief[1000..1064]).await, [""; 0]);
    let copied = whole.clone();
    for (name, mut expected) in [(&b"a"[..], whole), (b"b", brief), (b"copy", copied)] {
        expected[1000..1064].fill(1);
        assert_eq!(content(&ns, ROOT, name).await.unwrap(), expected);
    }
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_something_else_shows_is_not_forgotten() {
    let cluster = TestCluster::new("forget-refused");
    let ns = cluster.open().await;
    let bytes = secret(30_000, 11);
    for name in [&b"labelled"[..], b"held", b"cloned", b"linked"] {
        save(&ns, ROOT, name, &bytes).await;
    }
    clone(&ns, b"cloned", b"copy", 30_000).await;
    let linked = ns.tree.lookup(ROOT, b"linked").await.unwrap().unwrap().ino;
    let other = ns.tree.link(linked, ROOT, b"other", &author()).await;
    other.unwrap();
    ns.drain().await.unwrap();
    let held = ns.history.view().versions(ROOT, b"held").await.unwrap();
    let until = Timestamp(ns.now().0 + 3_600_000_000_000);
    let slot = DentryRef::new(ROOT, b"held");
    let holder = author();
    let hold = ns.history.hold_version(slot, &held[0], until, &holder);
    hold.await.unwrap();
    let label = ns.history.create_label(ROOT, b"L", None, &author()).await;
    label.unwrap();
    for name in [&b"labelled"[..], b"held", b"cloned", b"linked"] {
        save(&ns, ROOT, name, b"new").await;
    }
    ns.drain().await.unwrap();
    let by_label = ShownBy::Label {
        directory: ROOT,
        name: Bytes::from_static(b"L"),
    };
    let named = |name: &'static [u8]| ShownName {
        directory: ROOT,
        name: Bytes::from_static(name),
    };
    assert_eq!(forget(&ns, b"labelled").await.shown_by, [by_label]);
    ns.history.remove_label(ROOT, b"L").await.unwrap();
    let by_hold = ShownBy::Hold {
        name: named(b"held"),
        began: held[0].version.timestamp,
        until,
    };
    assert_eq!(forget(&ns, b"held").await.shown_by, [by_hold]);
    let by_copy = ShownBy::Name(named(b"copy"));
    assert_eq!(forget(&ns, b"cloned").await.shown_by, [by_copy]);
    let by_link = ShownBy::Link(named(b"other"));
    assert_eq!(forget(&ns, b"linked").await.shown_by, [by_link]);
    for name in [&b"labelled"[..], b"held", b"cloned", b"linked"] {
        assert_eq!(ids(&ns, name).await.len(), 2, "nothing was deleted");
    }
    assert_eq!(rows_of(&ns, b"Gf").await, 0);
    // What was named is out of the way: now only an ended version of the copy shows the bytes, and goes last.
    save(&ns, ROOT, b"copy", b"new").await;
    ns.tree.unlink(ROOT, b"other", &author()).await.unwrap();
    let shown_by = forget(&ns, b"cloned").await.shown_by;
    assert!(matches!(&shown_by[..], [ShownBy::Version(name, _)] if *name == named(b"copy")));
    assert_eq!(ids(&ns, b"cloned").await.len(), 1, "it is deleted");
    assert!(ns.forget.plan(&all_of(b"cloned")).await.unwrap().is_begun);
    for name in [&b"copy"[..], b"labelled", b"linked"] {
        let name: &'static [u8] = name;
        assert_eq!(forget(&ns, name).await.shown_by, []);
    }
    ns.history
        .release_version(DentryRef::new(ROOT, b"held"), &held[0])
        .await
        .unwrap();
    forget(&ns, b"held").await;
    assert_eq!(holding(&cluster, &bytes).await, [""; 0]);
    assert_eq!(rows_of(&ns, b"Gf").await, 0);
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_versions_that_ended_before_a_time_go_also_from_before_a_rename() {
    let cluster = TestCluster::new("forget-before");
    let ns = cluster.open().await;
    let (first, second) = (secret(30_000, 21), secret(30_000, 22));
    save(&ns, ROOT, b"old", &first).await;
    save(&ns, ROOT, b"old", &second).await;
    // A name that is moved at once is none of which the past tells.
    cluster.env.advance(3_600_000_000_000);
    let renamed = ns
        .tree
        .rename(
            DentryRef::new(ROOT, b"old"),
            DentryRef::new(ROOT, b"name"),
            RenameMode::NoReplace,
            &author(),
        )
        .await;
    renamed.unwrap();
    let before = ns.now();
    cluster.env.advance(1_000_000);
    save(&ns, ROOT, b"name", b"third").await;
    ns.drain().await.unwrap();
    let request = ForgetRequest {
        before: Some(before),
        ..all_of(b"name")
    };
    let (steps, _told) = mpsc::unbounded_channel();
    let plan = ns.forget.carry_out(&request, &steps).await.unwrap();
    assert!(plan.stay >= 2 && plan.bytes == 30_000, "{plan:?}");
    assert_eq!(holding(&cluster, &first).await, [""; 0]);
    assert!(!holding(&cluster, &second).await.is_empty());
    forget(&ns, b"name").await;
    assert_eq!(holding(&cluster, &second).await, [""; 0]);
    assert_eq!(content(&ns, ROOT, b"name").await.unwrap(), b"third");
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forget_that_a_crash_cut_off_goes_on_where_versions_are_deleted() {
    let cluster = TestCluster::new("forget-crash");
    let ns = cluster.open().await;
    let (inline, packed) = (secret(2000, 31), secret(20_000, 32));
    save_synced(&ns, b"a", &inline).await;
    save(&ns, ROOT, b"a", &packed).await;
    save(&ns, ROOT, b"kept", b"kept").await;
    save(&ns, ROOT, b"a", b"new").await;
    ns.drain().await.unwrap();
    let (steps, mut told) = mpsc::unbounded_channel();
    let request = all_of(b"a");
    tokio::select! {
        _ = ns.forget.carry_out(&request, &steps) => panic!("it ended"),
        step = told.recv() => assert_eq!(step, Some(ForgetStep::Deleted(2))),
    }
    let cluster = cluster.kill(ns).await;
    assert!(!holding(&cluster, &packed).await.is_empty());
    let ns = cluster.open().await;
    let plan = ns.forget.plan(&request).await.unwrap();
    assert!(plan.versions.is_empty() && plan.is_begun);
    forget(&ns, b"a").await;
    for secret in [&inline, &packed] {
        assert_eq!(holding(&cluster, secret).await, [""; 0]);
    }
    assert!(!ns.forget.plan(&request).await.unwrap().is_begun);
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), b"new");
    assert_eq!(content(&ns, ROOT, b"kept").await.unwrap(), b"kept");
    end(ns, cluster).await;
}
