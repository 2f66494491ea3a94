//! Versions are forgotten whose bytes the stored form of a later state still has, which does not show them.

use super::forget::{all_of, clone, forget, holding, secret};
use super::reclaim::{end, rows_of};
use super::*;

/// A file whose current state was written over one that another lineage shows: an undeleted, or restored, file. It does not show
/// the bytes 1000 to 1064 of what it was before.
async fn written_over(ns: &Namespace, name: &'static [u8], bytes: &[u8]) {
    save(ns, ROOT, name, bytes).await;
    // A name that is removed at once is none of which the past tells.
    ns.drain().await.unwrap();
    ns.tree.unlink(ROOT, name, &author()).await.unwrap();
    let (slot, author) = (DentryRef::new(ROOT, name), author());
    let undeleted = ns
        .history
        .undelete(slot, slot, RenameMode::NoReplace, &author);
    let back = undeleted.await.unwrap().moved.ino;
    let file = ns.tree.file(back).await.unwrap();
    let over = Bytes::from(vec![1; 64]);
    file.write(1000, over, &author).await.unwrap();
    close(&file).await;
    ns.drain().await.unwrap();
}

fn named(name: &'static [u8]) -> ShownName {
    ShownName {
        directory: ROOT,
        name: Bytes::from_static(name),
    }
}

/// `cp --reflink=never NAME NAME.new && mv NAME.new NAME`
async fn save_anew(ns: &Namespace, name: &[u8]) {
    let bytes = content(ns, ROOT, name).await.unwrap();
    save(ns, ROOT, b"anew", &bytes).await;
    let (from, to) = (DentryRef::new(ROOT, b"anew"), DentryRef::new(ROOT, name));
    let author = author();
    let moved = ns.tree.rename(from, to, RenameMode::Replace, &author);
    moved.await.unwrap();
    ns.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_below_a_later_state_go_once_the_file_is_saved_anew() {
    let cluster = TestCluster::new("forget-below");
    let ns = cluster.open().await;
    let (packed, large) = (secret(200_000, 41), secret(3_000_000, 42));
    save(&ns, ROOT, b"beside", &secret(5000, 43)).await;
    for (name, whole) in [(&b"packed"[..], &packed), (b"large", &large)] {
        let name: &'static [u8] = name;
        written_over(&ns, name, whole).await;
        let hidden = &whole[1000..1064];
        let stored_by = [ShownBy::Stored(named(name))];
        assert_eq!(forget(&ns, name).await.shown_by, stored_by);
        // The versions are gone from the list, and the command can be repeated.
        let mut shown = whole.clone();
        shown[1000..1064].fill(1);
        assert_eq!(history(&ns, ROOT, name).await, [&shown[..]]);
        assert!(ns.forget.plan(&all_of(name)).await.unwrap().is_begun);
        assert!(!holding(&cluster, hidden).await.is_empty());
        assert_eq!(forget(&ns, name).await.shown_by, stored_by, "once more");

        save_anew(&ns, name).await;
        forget(&ns, name).await;
        assert_eq!(holding(&cluster, hidden).await, [""; 0]);
        assert_eq!(content(&ns, ROOT, name).await.unwrap(), shown);
        assert!(!ns.forget.plan(&all_of(name)).await.unwrap().is_begun);
    }
    assert_eq!(rows_of(&ns, b"Gf").await, 0);
    end(ns, cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_written_over_is_named_and_other_files_can_be_forgotten_meanwhile() {
    let cluster = TestCluster::new("forget-below-copy");
    let ns = cluster.open().await;
    let (bytes, others) = (secret(100_000, 51), secret(20_000, 52));
    let early = secret(20_000, 53);
    save(&ns, ROOT, b"f", &bytes).await;
    save(&ns, ROOT, b"other", &others).await;
    save(&ns, ROOT, b"early", &early).await;
    clone(&ns, b"f", b"copy", 100_000).await;
    let copy = ns.tree.lookup(ROOT, b"copy").await.unwrap().unwrap().ino;
    let copy = ns.tree.file(copy).await.unwrap();
    let over = vec![2; 100_000];
    copy.write(0, over.clone().into(), &author()).await.unwrap();
    close(&copy).await;
    drop(copy);
    // The copy that showed the bytes goes first.
    ns.drain().await.unwrap();
    let shown_by = forget(&ns, b"copy").await.shown_by;
    assert_eq!(shown_by, [ShownBy::Name(named(b"f"))]);
    for name in [&b"f"[..], b"other", b"early"] {
        save(&ns, ROOT, name, b"new").await;
    }
    let shown_by = forget(&ns, b"copy").await.shown_by;
    assert!(matches!(&shown_by[..], [ShownBy::Version(name, _)] if *name == named(b"f")));
    assert_eq!(forget(&ns, b"early").await.shown_by, []);
    assert_eq!(holding(&cluster, &early).await, [""; 0]);
    assert_eq!(
        forget(&ns, b"f").await.shown_by,
        [ShownBy::Stored(named(b"copy"))]
    );
    assert!(!holding(&cluster, &bytes).await.is_empty());

    assert_eq!(forget(&ns, b"other").await.shown_by, []);
    assert_eq!(holding(&cluster, &others).await, [""; 0]);
    save_anew(&ns, b"copy").await;
    assert_eq!(forget(&ns, b"copy").await.shown_by, []);
    assert_eq!(holding(&cluster, &bytes).await, [""; 0]);
    assert_eq!(content(&ns, ROOT, b"copy").await.unwrap(), over);
    assert_eq!(rows_of(&ns, b"Gf").await, 0);
    end(ns, cluster).await;
}
