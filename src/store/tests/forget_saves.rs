//! Versions are forgotten that programs saved by a temporary file and a rename, and few bytes that are stored in rows.

use super::forget::{all_of, clone, forget, holding, save_synced, secret};
use super::reclaim::{end, rows_of};
use super::*;

/// `echo TEXT > TMP && mv TMP NAME`
async fn save_by_rename(ns: &Namespace, tmp: &[u8], name: &[u8], bytes: &[u8]) {
    save(ns, ROOT, tmp, bytes).await;
    rename(ns, tmp, name).await;
}

async fn rename(ns: &Namespace, from: &[u8], to: &[u8]) {
    let (from, to) = (DentryRef::new(ROOT, from), DentryRef::new(ROOT, to));
    let author = author();
    let moved = ns.tree.rename(from, to, RenameMode::Replace, &author);
    moved.await.unwrap();
}

fn named(name: &'static [u8]) -> ShownName {
    ShownName {
        directory: ROOT,
        name: Bytes::from_static(name),
    }
}

fn names(plan: &ForgetPlan) -> Vec<&[u8]> {
    plan.versions.iter().map(|v| &v.name.name[..]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_saved_by_a_rename_is_forgotten_with_its_temporary_names() {
    let cluster = TestCluster::new("forget-renamed");
    let ns = cluster.open().await;
    let (first, second) = (secret(30_000, 61), secret(30_000, 62));
    // The first state of the temporary file is in no state of the file.
    save(&ns, ROOT, b"a.new", &first).await;
    save(&ns, ROOT, b"a.new", &second).await;
    rename(&ns, b"a.new", b"b.new").await;
    rename(&ns, b"b.new", b"f").await;
    let other = secret(30_000, 63);
    save_by_rename(&ns, b"b.new", b"other", &other).await;
    ns.drain().await.unwrap();
    assert!(!ns.history.view().was_transient(ROOT, b"f").await.unwrap());
    for name in [&b"a.new"[..], b"b.new"] {
        assert!(ns.history.view().was_transient(ROOT, name).await.unwrap());
    }
    // What the current state shows stays under the temporary names too; the state before it goes.
    let plan = ns.forget.plan(&all_of(b"f")).await.unwrap();
    assert_eq!((names(&plan), plan.stay), (vec![&b"a.new"[..]], 1));
    let plan = ns.forget.plan(&all_of(b"a.new")).await.unwrap();
    assert!(plan.shown_by.contains(&ShownBy::Name(named(b"f"))) && plan.is_refused());

    save(&ns, ROOT, b"f", b"new").await;
    ns.drain().await.unwrap();
    let plan = forget(&ns, b"f").await;
    assert_eq!(plan.shown_by, []);
    assert_eq!(names(&plan), [&b"a.new"[..], b"a.new", b"b.new", b"f"]);
    for secret in [&first, &second] {
        assert_eq!(holding(&cluster, secret).await, [""; 0]);
    }
    assert_eq!(content(&ns, ROOT, b"f").await.unwrap(), b"new");
    assert_eq!(content(&ns, ROOT, b"other").await.unwrap(), other);
    assert!(!holding(&cluster, &other).await.is_empty());
    assert!(
        !ns.history
            .view()
            .was_transient(ROOT, b"a.new")
            .await
            .unwrap()
    );
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_states_of_temporary_names_that_ended_before_a_time_go() {
    let cluster = TestCluster::new("forget-renamed-before");
    let ns = cluster.open().await;
    let (early, late) = (secret(30_000, 64), secret(30_000, 65));
    save_by_rename(&ns, b"f.tmp", b"f", &early).await;
    cluster.env.advance(3_600_000_000_000);
    save(&ns, ROOT, b"f", b"between").await;
    let before = ns.now();
    cluster.env.advance(3_600_000_000_000);
    save_by_rename(&ns, b"f.tmp", b"f", &late).await;
    save(&ns, ROOT, b"f", b"new").await;
    ns.drain().await.unwrap();
    let request = ForgetRequest {
        before: Some(before),
        ..all_of(b"f")
    };
    let (steps, _told) = tokio::sync::mpsc::unbounded_channel();
    let plan = ns.forget.carry_out(&request, &steps).await.unwrap();
    assert_eq!(plan.shown_by, []);
    assert_eq!(names(&plan), [&b"f.tmp"[..], b"f"]);
    assert_eq!(holding(&cluster, &early).await, [""; 0]);
    assert!(!holding(&cluster, &late).await.is_empty());
    forget(&ns, b"f").await;
    assert_eq!(holding(&cluster, &late).await, [""; 0]);
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_bytes_are_found_in_stored_forms_and_told_where_they_may_be_copies() {
    let cluster = TestCluster::new("forget-brief");
    let ns = cluster.open().await;
    save_synced(&ns, b"f", b"pass-7Yq").await;
    save_synced(&ns, b"chance", b"pass-7Yq").await;
    clone(&ns, b"f", b"copy", 8).await;
    ns.drain().await.unwrap();
    save(&ns, ROOT, b"copy", b"new").await;
    save(&ns, ROOT, b"f", b"new").await;
    ns.drain().await.unwrap();
    let plan = forget(&ns, b"f").await;
    let by_chance = [ShownBy::Name(named(b"chance"))];
    assert_eq!((plan.bytes, &plan.shown_alike[..]), (8, &by_chance[..]));
    assert!(
        matches!(&plan.shown_by[..], [ShownBy::Version(name, _)] if *name == named(b"copy")),
        "{plan:?}"
    );
    let plan = forget(&ns, b"copy").await;
    assert_eq!(
        (plan.shown_by, plan.shown_alike),
        (vec![], by_chance.to_vec())
    );
    assert_eq!(content(&ns, ROOT, b"chance").await.unwrap(), b"pass-7Yq");
    save(&ns, ROOT, b"chance", b"new").await;
    ns.drain().await.unwrap();
    assert_eq!(forget(&ns, b"chance").await.shown_alike, []);
    assert_eq!(holding(&cluster, b"pass-7Yq").await, [""; 0]);

    // A stored form that does not show them any more.
    save_synced(&ns, b"g", b"word-4Bn").await;
    ns.drain().await.unwrap();
    ns.tree.unlink(ROOT, b"g", &author()).await.unwrap();
    let (slot, author) = (DentryRef::new(ROOT, b"g"), author());
    let undeleted = ns
        .history
        .undelete(slot, slot, RenameMode::NoReplace, &author);
    let back = undeleted.await.unwrap().moved.ino;
    let file = ns.tree.file(back).await.unwrap();
    let over = Bytes::from_static(b"12345");
    file.write(0, over, &author).await.unwrap();
    close(&file).await;
    drop(file);
    ns.drain().await.unwrap();
    let stored_by = [ShownBy::Stored(named(b"g"))];
    assert_eq!(forget(&ns, b"g").await.shown_by, stored_by);
    assert!(!holding(&cluster, b"word-4Bn").await.is_empty());
    save_by_rename(&ns, b"anew", b"g", b"123454Bn").await;
    ns.drain().await.unwrap();
    assert_eq!(forget(&ns, b"g").await.shown_by, []);
    assert_eq!(holding(&cluster, b"word-4Bn").await, [""; 0]);
    assert_eq!(rows_of(&ns, b"Gf").await, 0);
    end(ns, cluster).await;
}
