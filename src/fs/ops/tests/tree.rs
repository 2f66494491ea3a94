//! Names and directories.

use super::assert_send;
use crate::fs::testing::{ALICE, Names, ROOT, SUPER, World, world, world_with};
use crate::fs::*;
use crate::store::Kind;

#[tokio::test]
async fn lookups_are_counted_and_forgotten() {
    let world = world().await;
    world.save("a", "x").await;
    let ino = world.walk("a").await.unwrap().stat.ino.0;
    assert_eq!(world.live.len(), 2, "the file, and `.` of the walk");
    world.forget(ino, 2);
    world.forget(ROOT, 1);
    assert_eq!(world.live.len(), 0);
    let versions = world.walk(".versions/@files").await.unwrap().stat.ino.0;
    assert!(world.getattr(versions, None).await.is_ok());
    world.forget(versions, 1);
    assert_eq!(
        world.getattr(versions, None).await.unwrap_err(),
        FsError::Stale
    );
}

#[tokio::test]
async fn nodes_keep_kind_and_device() {
    let world = world().await;
    for (name, format, kind, rdev) in [
        (&b"fifo"[..], libc::S_IFIFO, Kind::Fifo, 0),
        (b"socket", libc::S_IFSOCK, Kind::Socket, 0),
        (b"char", libc::S_IFCHR, Kind::CharDevice, 259),
        (b"block", libc::S_IFBLK, Kind::BlockDevice, 259),
        (b"file", libc::S_IFREG, Kind::File, 0),
    ] {
        let made = world.mknod(&ALICE, ROOT, name, format | 0o644, 0, 259);
        let stat = made.await.unwrap().stat;
        assert_eq!((stat.kind, stat.attrs.rdev), (kind, rdev));
    }
    let directory = world.mknod(&ALICE, ROOT, b"d", libc::S_IFDIR | 0o755, 0, 0);
    assert_eq!(directory.await.unwrap_err().errno(), libc::EINVAL);
    assert_eq!(
        world.ls(".versions/@files/file").await.unwrap().len(),
        2,
        "an empty version"
    );
}

#[tokio::test]
async fn a_create_that_lost_the_race_opens_the_existing_file() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let (entry, opened) = world
        .create(&ALICE, ROOT, b"a", 0o600, 0, libc::O_RDWR)
        .await
        .unwrap();
    assert_eq!((entry.stat.ino.0, entry.stat.attrs.size), (ino, 1));
    world.close((ino, opened.handle)).await;
    let exclusive = world.create(&ALICE, ROOT, b"a", 0o600, 0, libc::O_EXCL);
    assert_eq!(exclusive.await.unwrap_err(), FsError::Exists);
    world.mkdir(&ALICE, ROOT, b"d", 0o755, 0).await.unwrap();
    let directory = world.create(&ALICE, ROOT, b"d", 0o600, 0, 0).await;
    assert_eq!(directory.unwrap_err(), FsError::IsDirectory);
    world.symlink(&ALICE, ROOT, b"l", b"a").await.unwrap();
    let link = world.create(&ALICE, ROOT, b"l", 0o600, 0, 0).await;
    assert_eq!(link.unwrap_err(), FsError::Stale);
}

#[tokio::test]
async fn rename_follows_its_flags() {
    let world = world().await;
    let a = world.save("a", "A").await;
    let b = world.save("b", "B").await;
    let rename = |from: &'static [u8], to: &'static [u8], flags| {
        assert_send(world.rename(&ALICE, ROOT, from, ROOT, to, flags))
    };
    assert_eq!(
        rename(b"a", b"b", libc::RENAME_NOREPLACE).await,
        Err(FsError::Exists)
    );
    rename(b"a", b"b", libc::RENAME_EXCHANGE).await.unwrap();
    assert_eq!(world.walk("b").await.unwrap().stat.ino.0, a);
    assert_eq!(world.live.name_of(Ino(b)).unwrap().1, "a");
    rename(b"b", b"a", 0).await.unwrap();
    assert_eq!(world.cat("a").await.unwrap(), "A");
    assert_eq!(world.getattr(b, None).await.unwrap().0.nlink, 0);
    assert_eq!(
        rename(b"a", b"c", libc::RENAME_WHITEOUT)
            .await
            .unwrap_err()
            .errno(),
        libc::EINVAL
    );
    assert_eq!(rename(b"none", b"c", 0).await, Err(FsError::NotFound));
}

#[tokio::test]
async fn hard_links_are_one_inode() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let linked = world.link(&ALICE, ino, ROOT, b"b").await.unwrap().stat;
    assert_eq!((linked.ino.0, linked.nlink), (ino, 2));
    world.unlink(&ALICE, ROOT, b"a").await.unwrap();
    assert_eq!(world.getattr(ino, None).await.unwrap().0.nlink, 1);
    assert_eq!(
        world.link(&ALICE, ino, ROOT, b"b").await.unwrap_err(),
        FsError::Exists
    );
}

#[tokio::test]
async fn names_have_their_limits() {
    let world = world().await;
    let long = [b'x'; 256];
    assert_eq!(
        world.lookup(&ALICE, ROOT, &long).await.unwrap_err(),
        FsError::NameTooLong
    );
    let made = world.mkdir(&ALICE, ROOT, &long, 0o755, 0).await;
    assert_eq!(made.unwrap_err(), FsError::NameTooLong);
    assert!(
        world
            .mkdir(&ALICE, ROOT, &long[..255], 0o755, 0)
            .await
            .is_ok()
    );
    for wrong in [&b""[..], b"..", b".", b"a/b", b"a\0"] {
        let made = world.mkdir(&ALICE, ROOT, wrong, 0o755, 0).await;
        assert_eq!(made.unwrap_err().errno(), libc::EINVAL);
    }
}

#[tokio::test]
async fn the_reserved_name_is_found_never_listed_and_never_made() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    assert_eq!(
        world.walk(".versions").await.unwrap().stat.kind,
        Kind::Directory
    );
    assert_eq!(world.ls("/").await.unwrap(), ["a"]);
    let name: &[u8] = b".versions";
    let mut answers = vec![
        world.mkdir(&SUPER, ROOT, name, 0o755, 0).await.unwrap_err(),
        world
            .mknod(&SUPER, ROOT, name, 0o644, 0, 0)
            .await
            .unwrap_err(),
        world.symlink(&SUPER, ROOT, name, b"x").await.unwrap_err(),
        world.link(&SUPER, ino, ROOT, name).await.unwrap_err(),
        world
            .create(&SUPER, ROOT, name, 0o644, 0, 0)
            .await
            .unwrap_err(),
        world.unlink(&SUPER, ROOT, name).await.unwrap_err(),
        world.rmdir(&SUPER, ROOT, name).await.unwrap_err(),
    ];
    for (from, to) in [(&b"a"[..], name), (name, b"b")] {
        let renamed = world.rename(&SUPER, ROOT, from, ROOT, to, 0).await;
        answers.push(renamed.unwrap_err());
    }
    for answer in answers {
        assert_eq!(answer.errno(), libc::EPERM);
    }
    assert_eq!(
        world.lookup(&ALICE, ino, name).await.unwrap_err(),
        FsError::NotDirectory
    );
    let other = world_with(FsConfig {
        versions_name: b".past".to_vec(),
        ..FsConfig::default()
    })
    .await;
    assert!(other.walk(".past/@help").await.is_ok());
    assert!(other.mkdir(&ALICE, ROOT, name, 0o755, 0).await.is_ok());
}

#[tokio::test]
async fn a_directory_is_read_in_pieces_from_any_position() {
    let world = world().await;
    for n in 0..20 {
        world
            .mkdir(&ALICE, ROOT, format!("d{n:02}").as_bytes(), 0o755, 0)
            .await
            .unwrap();
    }
    let handle = world.opendir(&ALICE, ROOT).await.unwrap().handle;
    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let mut sink = Names {
            room: Some(6),
            ..Names::default()
        };
        assert_send(world.readdir(ROOT, handle, offset, false, &mut sink))
            .await
            .unwrap();
        if sink.names.is_empty() {
            break;
        }
        offset = sink.next_offset;
        all.extend(sink.names);
    }
    assert_eq!(all.len(), 22);
    assert_eq!((all[0].0.as_str(), all[1].0.as_str()), (".", ".."));
    assert_eq!((all[2].0.as_str(), all[21].0.as_str()), ("d00", "d19"));
    // A name made meanwhile is not in this snapshot; the kernel asks again for what its reader had no room for.
    world.mkdir(&ALICE, ROOT, b"aaa", 0o755, 0).await.unwrap();
    let mut again = Names::default();
    world
        .readdir(ROOT, handle, 10, false, &mut again)
        .await
        .unwrap();
    assert_eq!(again.names, all[10..]);
    let mut rewound = Names::default();
    world
        .readdir(ROOT, handle, 0, false, &mut rewound)
        .await
        .unwrap();
    assert_eq!(rewound.names[2].0, "aaa");
}

#[tokio::test]
async fn full_entries_are_fresh_and_counted_only_when_taken() {
    let world = world().await;
    let old = world.save("a", "x").await;
    let gone = world.save("b", "x").await;
    let kept = world.save("c", "x").await;
    for ino in [old, gone, kept] {
        world.forget(ino, 1);
    }
    let handle = world.opendir(&ALICE, ROOT).await.unwrap().handle;
    let mut dots = Names {
        room: Some(2),
        ..Names::default()
    };
    world
        .readdir(ROOT, handle, 0, true, &mut dots)
        .await
        .unwrap();
    assert_eq!(world.live.len(), 0, "the entry was not taken");
    world.unlink(&ALICE, ROOT, b"b").await.unwrap();
    world
        .rename(&ALICE, ROOT, b"a", ROOT, b"x", 0)
        .await
        .unwrap();
    let new = world.save("a", "new").await;
    world.forget(new, 1);
    let mut rest = Names::default();
    // The snapshot is rewound by offset 0 only: `b` was removed and `a` is another file now.
    world
        .readdir(ROOT, handle, 2, true, &mut rest)
        .await
        .unwrap();
    let (first, others) = rest.names.split_first().unwrap();
    assert_eq!(first, &("a".to_owned(), new));
    assert!(others.iter().all(|(name, _)| name != "b"));
    assert_eq!(world.live.len(), rest.names.len());
}

#[tokio::test]
async fn a_read_only_mount_refuses_changes_and_serves_reads() {
    let world = world_with(FsConfig {
        read_only: true,
        ..FsConfig::default()
    })
    .await;
    assert!(world.walk(".versions").await.is_ok());
    let made = world.mkdir(&SUPER, ROOT, b"d", 0o755, 0).await;
    assert_eq!(made.unwrap_err(), FsError::ReadOnly);
    assert_eq!(
        world.access(&SUPER, ROOT, libc::W_OK).await,
        Err(FsError::ReadOnly)
    );
    assert_eq!(world.access(&SUPER, ROOT, libc::R_OK).await, Ok(()));
}

#[tokio::test]
async fn a_file_has_65_000_names_and_no_more() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    world.mkdir(&SUPER, ROOT, b"d", 0o755, 0).await.unwrap();
    let dir = world.walk("d").await.unwrap().stat.ino.0;
    for number in 1..65_000 {
        let name = number.to_string();
        world.link(&SUPER, ino, dir, name.as_bytes()).await.unwrap();
    }
    let more = world.link(&SUPER, ino, dir, b"more").await.unwrap_err();
    assert_eq!(more.errno(), libc::EMLINK);
    assert_eq!(world.getattr(ino, None).await.unwrap().0.nlink, 65_000);
    world.unlink(&SUPER, dir, b"7").await.unwrap();
    world.link(&SUPER, ino, dir, b"more").await.unwrap();
}

/// Whether the kernel may keep the names of `directory`, and whether those that it has are still right.
async fn kept(world: &World, directory: u64) -> (bool, bool) {
    let opened = world.opendir(&ALICE, directory).await.unwrap();
    let mut names = Names::default();
    let read = world.readdir(directory, opened.handle, 0, false, &mut names);
    read.await.unwrap();
    world.releasedir(directory, opened.handle).await.unwrap();
    (opened.cache_dir, opened.keep_cache)
}

#[tokio::test]
async fn the_kernel_keeps_a_listing_until_the_directory_changes() {
    let world = world().await;
    let dir = world.mkdir(&ALICE, ROOT, b"d", 0o755, 0).await.unwrap();
    let dir = dir.stat.ino.0;
    for directory in [ROOT, dir] {
        assert_eq!(kept(&world, directory).await, (true, false), "never read");
        assert_eq!(kept(&world, directory).await, (true, true));
    }
    let (file, handle) = world.make("a").await;
    world.close((file, handle)).await;
    assert_eq!(kept(&world, ROOT).await, (true, false), "a new name");
    assert_eq!(kept(&world, dir).await, (true, true), "another directory");
    world.link(&ALICE, file, dir, b"b").await.unwrap();
    assert_eq!(kept(&world, dir).await, (true, false), "a link");
    world.unlink(&ALICE, dir, b"b").await.unwrap();
    assert_eq!(kept(&world, dir).await, (true, false), "a removal");
    let top = world.mkdir(&ALICE, ROOT, b"e", 0o755, 0).await.unwrap();
    let moved = world.rename(&ALICE, ROOT, b"d", top.stat.ino.0, b"d", 0);
    moved.await.unwrap();
    assert_eq!(kept(&world, dir).await, (true, false), "another parent");
    assert_eq!(kept(&world, dir).await, (true, true));
}

#[tokio::test]
async fn a_listing_is_read_again_when_its_entries_expire() {
    let world = world().await;
    kept(&world, ROOT).await;
    assert_eq!(kept(&world, ROOT).await, (true, true));
    world.advance(61_000_000_000);
    assert_eq!(kept(&world, ROOT).await, (true, false));
    assert_eq!(kept(&world, ROOT).await, (true, true));
}

#[tokio::test]
async fn a_follower_lets_the_kernel_keep_no_listing() {
    let world = world().await;
    let follower = world.mounted_as(FsConfig {
        read_only: true,
        ..FsConfig::default()
    });
    for _ in 0..2 {
        assert_eq!(kept(&follower, ROOT).await, (false, false));
    }
}

#[tokio::test]
async fn a_reader_of_the_kernels_copy_goes_on_at_the_same_name_after_changes() {
    let world = world().await;
    for name in ["a", "b", "c", "d"] {
        world.save(name, "x").await;
    }
    let mut copy = Names {
        room: Some(4),
        ..Names::default()
    };
    let first = world.opendir(&ALICE, ROOT).await.unwrap().handle;
    let read = world.readdir(ROOT, first, 0, false, &mut copy);
    read.await.unwrap();
    // `.`, `..`, `a` and `b` were read.
    let place = copy.next_offset;
    let mut rest = Names::default();
    let read = world.readdir(ROOT, first, place, false, &mut rest);
    read.await.unwrap();
    let of_copy = world.opendir(&ALICE, ROOT).await.unwrap();
    assert!(of_copy.keep_cache);
    world.unlink(&ALICE, ROOT, b"a").await.unwrap();
    world.save("0", "x").await;
    world.save("00", "x").await;
    kept(&world, ROOT).await;
    let mut after = Names::default();
    let read = world.readdir(ROOT, of_copy.handle, place, false, &mut after);
    read.await.unwrap();
    assert_eq!(after.names, rest.names);
    assert_eq!(after.names.len(), 2);
    let mut again = Names::default();
    let read = world.readdir(ROOT, of_copy.handle, 0, false, &mut again);
    read.await.unwrap();
    let names = again.names.iter().skip(2).map(|(name, _)| name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["0", "00", "b", "c", "d"]);
}
