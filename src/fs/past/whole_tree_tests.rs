//! A file system whose root is the root directory as of a timestamp.

use super::is_past;
use crate::fs::testing::{ALICE, Names, ROOT, SUPER, World, world};
use crate::fs::{FsConfig, FsError, SetAttr};
use crate::store::Timestamp;

const SECOND: u64 = 1_000_000_000;

/// A tree that has changed since the returned timestamp.
async fn changed_world() -> (World, Timestamp) {
    let world = world().await;
    world.save("kept", "kept").await;
    world.save("changed", "before").await;
    world.save("removed", "removed").await;
    let dir = world.mkdir(&ALICE, ROOT, b"dir", 0o750, 0).await.unwrap();
    let sub = dir.stat.ino.0;
    world.mkdir(&ALICE, sub, b"sub", 0o700, 0).await.unwrap();
    world
        .symlink(&ALICE, sub, b"link", b"../kept")
        .await
        .unwrap();
    world.advance(SECOND);
    let at = world.namespace.now();
    world.advance(SECOND);
    world.save("changed", "after").await;
    world.save("new", "new").await;
    world.unlink(&ALICE, ROOT, b"removed").await.unwrap();
    world
        .rename(&ALICE, ROOT, b"dir", ROOT, b"moved", 0)
        .await
        .unwrap();
    world.namespace.drain().await.unwrap();
    (world, at)
}

fn mounted_at(world: &World, at: Timestamp) -> World {
    world.mounted_as(FsConfig {
        read_only: true,
        shown_at: Some(at),
        ..FsConfig::default()
    })
}

#[tokio::test]
async fn the_root_is_the_root_directory_of_then() {
    let (world, at) = changed_world().await;
    let past = mounted_at(&world, at);
    let names = ["changed", "dir", "kept", "removed"];
    assert_eq!(past.ls("").await.unwrap(), names);
    for (path, text) in [
        ("kept", "kept"),
        ("changed", "before"),
        ("removed", "removed"),
    ] {
        assert_eq!(past.cat(path).await.as_deref(), Ok(text), "{path}");
    }
    assert_eq!(past.ls("dir").await.unwrap(), ["link", "sub"]);
    let link = past.walk("dir/link").await.unwrap().stat.ino.0;
    assert_eq!(past.readlink(link).await.unwrap(), "../kept");
    assert_eq!(past.walk("dir").await.unwrap().stat.attrs.mode, 0o750);
    for missing in [
        "new",
        "moved",
        ".versions",
        "dir/.versions",
        "dir/sub/.versions",
    ] {
        let found = past.walk(missing).await;
        assert_eq!(found.unwrap_err(), FsError::NotFound, "{missing}");
    }

    world.save("kept", "changed later").await;
    world.save("later", "later").await;
    assert_eq!(past.ls("").await.unwrap(), names);
    assert_eq!(past.cat("kept").await.unwrap(), "kept");
}

#[tokio::test]
async fn only_the_root_has_a_number_of_the_live_tree() {
    let (world, at) = changed_world().await;
    let past = mounted_at(&world, at);
    let (root, _) = past.getattr(ROOT, None).await.unwrap();
    assert_eq!((root.ino.0, root.nlink), (ROOT, 1));
    let opened = past.opendir(&ALICE, ROOT).await.unwrap();
    assert!(opened.cache_dir, "nothing in it changes any more");
    let mut listed = Names::default();
    let read = past.readdir(ROOT, opened.handle, 0, true, &mut listed);
    read.await.unwrap();
    for (name, number) in &listed.names {
        let dots = name == "." || name == "..";
        assert_eq!(is_past(*number), !dots, "{name}");
        assert!(!dots || *number == ROOT, "{name}");
    }
    // The kernel has forgotten everything but the root.
    for (_, number) in listed.names {
        past.forget(number, 1);
    }
    past.forget(ROOT, 1);
    let dir = past.lookup(&ALICE, ROOT, b"dir").await.unwrap().stat.ino.0;
    let up = past.lookup(&ALICE, dir, b"..").await.unwrap();
    assert_eq!(up.stat.ino.0, ROOT);
    // A number that an NFS client remembers from a mount of the live tree.
    let live = world.walk("kept").await.unwrap().stat.ino.0;
    assert_eq!(past.getattr(live, None).await.unwrap_err(), FsError::Stale);
    let opened = past.open(&ALICE, live, libc::O_RDONLY).await;
    assert_eq!(opened.unwrap_err(), FsError::Stale);
}

#[tokio::test]
async fn nothing_in_a_whole_tree_of_the_past_changes() {
    let (world, at) = changed_world().await;
    let past = mounted_at(&world, at);
    let dir = past.walk("dir").await.unwrap().stat.ino.0;
    let file = past.walk("kept").await.unwrap().stat.ino.0;
    let mut answers = vec![
        past.open(&SUPER, file, libc::O_RDWR).await.map(drop),
        past.access(&SUPER, ROOT, libc::W_OK).await,
        past.setattr(&SUPER, file, SetAttr::default())
            .await
            .map(drop),
        past.setattr(&SUPER, ROOT, SetAttr::default())
            .await
            .map(drop),
        past.setxattr(&SUPER, ROOT, b"user.a", b"b", 0).await,
        past.removexattr(&SUPER, file, b"user.a").await,
        past.link(&SUPER, file, ROOT, b"name").await.map(drop),
        past.rmdir(&SUPER, dir, b"sub").await,
        past.rename(&SUPER, dir, b"sub", ROOT, b"sub", 0).await,
        past.rename(&SUPER, ROOT, b"kept", dir, b"kept", 0).await,
    ];
    for parent in [ROOT, dir] {
        answers.extend([
            past.create(&SUPER, parent, b"x", 0o644, 0, libc::O_RDWR)
                .await
                .map(drop),
            past.mkdir(&SUPER, parent, b"x", 0o755, 0).await.map(drop),
            past.symlink(&SUPER, parent, b"x", b"y").await.map(drop),
            past.unlink(&SUPER, parent, b"kept").await,
        ]);
    }
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, Err(FsError::ReadOnly), "call {number}");
    }
    assert_eq!(past.ls("").await.unwrap().len(), 4);
}
