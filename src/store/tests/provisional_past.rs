//! What the past shows of files that are changed, moved or replaced before they are saved.

use super::*;

async fn set(ns: &Namespace, ino: Ino, value: &'static [u8]) {
    let value = Some(Bytes::from_static(value));
    let set = ns.tree.set_xattr(ino, b"user.x", value, XattrMode::Any);
    set.await.unwrap();
}

async fn rename(ns: &Namespace, from: &[u8], to: &[u8]) {
    let (from, to) = (DentryRef::new(ROOT, from), DentryRef::new(ROOT, to));
    let author = author();
    let renamed = ns.tree.rename(from, to, RenameMode::Replace, &author);
    renamed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_are_set_while_a_state_is_provisional_are_those_of_the_last_version() {
    let cluster = TestCluster::new("provisional-attributes");
    let ns = cluster.open().await;
    let ino = save(&ns, ROOT, b"d", b"saved").await;
    let file = ns.tree.file(ino).await.unwrap();
    let more = Bytes::from_static(b" and more");
    file.append(more, &author()).await.unwrap();
    set(&ns, ino, b"2").await;
    rename(&ns, b"d", b"b").await;
    set(&ns, ino, b"1").await;
    ns.tree
        .set_attrs(
            ino,
            AttrChange {
                mode: Some(0o600),
                ..AttrChange::default()
            },
        )
        .await
        .unwrap();
    ns.tree.unlink(ROOT, b"b", &author()).await.unwrap();
    drop(file);
    let (from, to) = (DentryRef::new(ROOT, b"b"), DentryRef::new(ROOT, b"e"));
    let author = author();
    let back = ns
        .history
        .undelete(from, to, RenameMode::NoReplace, &author);
    let back = back.await.unwrap().moved;
    let value = ns.tree.get_xattr(back.ino, b"user.x").await.unwrap();
    assert_eq!(value.as_deref(), Some(&b"1"[..]));
    let stat = ns.tree.stat(back.ino).await.unwrap();
    assert_eq!(stat.attrs.mode, 0o600);
    assert_eq!(content(&ns, ROOT, b"e").await.unwrap(), b"saved");
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_a_linked_file_without_a_version_replaces_keeps_its_past() {
    let cluster = TestCluster::new("unborn-linked");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"f", b"saved").await;
    let made = ns.tree.create_open(ROOT, b"g", new_file(), &author()).await;
    let file = made.unwrap().1;
    ns.tree
        .link(file.ino(), ROOT, b"h", &author())
        .await
        .unwrap();
    let before = ns.now();
    cluster.env.advance(1_000_000_000);
    rename(&ns, b"g", b"f").await;
    for is_saved in [false, true] {
        let view = ns.history.view();
        let then = view.entry_at(ROOT, b"f", before).await.unwrap();
        let then = then.unwrap();
        let bytes = ns.history.read_past(&then, 0, 100).await.unwrap();
        assert_eq!(&bytes[..], b"saved", "{is_saved}");
        assert_eq!(history(&ns, ROOT, b"f").await[0], b"saved");
        if !is_saved {
            let text = Bytes::from_static(b"new");
            file.write(0, text, &author()).await.unwrap();
            close(&file).await;
        }
    }
    let all = history(&ns, ROOT, b"f").await;
    assert_eq!(all.last().map(Vec::as_slice), Some(&b"new"[..]));
    ns.drain().await.unwrap();
    let wrong = crate::store::check::wrong_counts(ns.core.index.stored().as_ref()).await;
    assert_eq!(wrong.unwrap(), Vec::<Bytes>::new());
    check::log_twin(&ns, &cluster).await;
    leave(ns).await;
}
