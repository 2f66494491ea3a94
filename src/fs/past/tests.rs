//! `.versions/` over a namespace in memory: what is found, listed, read and refused.

use super::stamp::{Precision, print};
use super::*;
use crate::fs::testing::{ALICE, Names, ROOT, START, SUPER, World, position, world, world_with};
use crate::fs::{SetAttr, WriteMode};
use crate::store::Timestamp;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const LIVE: Duration = Duration::from_secs(60);

/// Saves three states of `doc.txt`, an hour between them; returns the world and the file's number.
async fn with_history() -> (World, u64) {
    let world = world().await;
    let mut ino = 0;
    for text in ["one", "two", "three"] {
        ino = world.save("doc.txt", text).await;
        world.advance(HOUR);
    }
    world.namespace.drain().await.unwrap();
    (world, ino)
}

/// The printed stamps of `name`'s states, oldest first.
async fn stamps(world: &World, name: &str) -> Vec<String> {
    let names = world.ls(&format!(".versions/@files/{name}")).await.unwrap();
    let states = names.into_iter().filter(|name| name.starts_with('2'));
    states.collect()
}

async fn errno(world: &World, path: &str) -> i32 {
    world
        .walk(path)
        .await
        .map_or_else(|error| error.errno(), |_| 0)
}

#[tokio::test]
async fn every_state_is_a_file_and_a_time_shows_the_same() {
    let (world, _) = with_history().await;
    let names = stamps(&world, "doc.txt").await;
    assert_eq!(names.len(), 3);
    assert!(names.is_sorted());
    for (name, text) in names.iter().zip(["one", "two", "three"]) {
        let stamp = name.strip_suffix(".txt").unwrap();
        let state = format!(".versions/@files/doc.txt/{name}");
        assert_eq!(world.cat(&state).await.unwrap(), text);
        let time = format!(".versions/{stamp}/doc.txt");
        assert_eq!(world.cat(&time).await.unwrap(), text);
        let number = async |path: String| world.walk(&path).await.unwrap().stat.ino;
        assert_eq!(
            number(state).await,
            number(time).await,
            "one version, one number"
        );
    }
    let all = world.ls(".versions/@files/doc.txt").await.unwrap();
    assert_eq!(all[3..], ["latest", "previous"]);
    for (link, state) in [("latest", &names[2]), ("previous", &names[1])] {
        let path = format!(".versions/@files/doc.txt/{link}");
        let stat = world.walk(&path).await.unwrap().stat;
        assert_eq!(stat.attrs.size, state.len() as u64);
        assert_eq!(world.readlink(stat.ino.0).await.unwrap(), state.as_bytes());
    }
}

#[tokio::test]
async fn times_may_be_written_in_many_ways() {
    let (world, _) = with_history().await;
    for (time, text) in [
        ("2026-11-20T21-26-48", "one"),
        ("2026-11-20 21:26:48", "one"),
        ("2026-11-20T22:26:48+0100", "one"),
        ("@GMT-2026.11.20-21.26.48", "one"),
        ("2026-11-20T21", "one"),
        ("2026-11-20T22", "two"),
        ("2026-11-20T23", "three"),
        ("2026", "three"),
        ("-5m", "three"),
        ("-1h", "three"),
        ("-2h", "two"),
    ] {
        let path = format!(".versions/{time}/doc.txt");
        assert_eq!(world.cat(&path).await.as_deref(), Ok(text), "{time}");
    }
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_enoent() {
    let (world, _) = with_history().await;
    for name in [
        "2027",
        "2026-11-19",
        "-3d",
        "-1y",
        "1999-12-31",
        "label",
        "_label",
        "@deleted/doc.txt",
        "@GMT-2027.01.01-00.00.00",
        "@GMT-2026.11.20",
        "20",
        ".versions",
        "2026-11-20T21/.versions",
        "2026-11-20T21/none",
        "@files/none",
        "@files/doc.txt/2026-11-20T21-26-48.000Z",
        "@files/doc.txt/2026-11-20T21.txt",
        "@files/doc.txt/newest",
        "@help/x/.",
    ] {
        let wanted = if name.starts_with("@help") {
            libc::ENOTDIR
        } else {
            libc::ENOENT
        };
        assert_eq!(
            errno(&world, &format!(".versions/{name}")).await,
            wanted,
            "{name}"
        );
    }
    let state = stamps(&world, "doc.txt").await.remove(0);
    let bare = state.strip_suffix(".txt").unwrap();
    assert_eq!(
        errno(&world, &format!(".versions/@files/doc.txt/{bare}")).await,
        libc::ENOENT
    );
}

#[tokio::test]
async fn a_removed_name_keeps_its_past() {
    let (world, _) = with_history().await;
    world.unlink(&ALICE, ROOT, b"doc.txt").await.unwrap();
    assert_eq!(
        world.cat(".versions/2026-11-20T22/doc.txt").await.unwrap(),
        "two"
    );
    assert_eq!(errno(&world, ".versions/2026/doc.txt").await, libc::ENOENT);
    assert_eq!(world.ls(".versions/@files").await.unwrap(), ["doc.txt"]);
    assert_eq!(stamps(&world, "doc.txt").await.len(), 3);
}

#[tokio::test]
async fn trees_show_directories_as_they_were() {
    let world = world().await;
    let dir = world
        .mkdir(&ALICE, ROOT, b"d", 0o750, 0)
        .await
        .unwrap()
        .stat
        .ino
        .0;
    world.symlink(&ALICE, dir, b"link", b"there").await.unwrap();
    world.advance(HOUR);
    world.unlink(&ALICE, dir, b"link").await.unwrap();
    world.mkdir(&ALICE, dir, b"later", 0o755, 0).await.unwrap();
    let then = world.walk(".versions/2026-11-20T21/d").await.unwrap().stat;
    assert_eq!(
        (then.kind, then.attrs.mode, then.attrs.uid),
        (Kind::Directory, 0o750, 1000)
    );
    assert_ne!(then.ino.0, dir);
    assert_eq!(
        world.ls(".versions/2026-11-20T21/d").await.unwrap(),
        ["link"]
    );
    assert_eq!(
        world.ls("d/.versions/2026-11-20T21").await.unwrap(),
        ["link"]
    );
    assert_eq!(world.ls("d/.versions/2026").await.unwrap(), ["later"]);
    let link = world
        .walk("d/.versions/2026-11-20T21/link")
        .await
        .unwrap()
        .stat;
    assert_eq!(world.readlink(link.ino.0).await.unwrap(), "there");
    assert_eq!(
        errno(&world, "d/.versions/2026-11-20T20").await,
        libc::ENOENT
    );
}

#[tokio::test]
async fn listings_and_lookups_agree_on_numbers_and_kinds() {
    let (world, _) = with_history().await;
    world.mkdir(&ALICE, ROOT, b"d", 0o755, 0).await.unwrap();
    world.advance(SECOND);
    for path in [
        ".versions",
        ".versions/@files",
        ".versions/@files/doc.txt",
        ".versions/2026-11",
    ] {
        let dir = world.walk(path).await.unwrap().stat.ino.0;
        let handle = world.opendir(&ALICE, dir).await.unwrap().handle;
        let mut names = Names::default();
        world
            .readdir(dir, handle, 0, false, &mut names)
            .await
            .unwrap();
        let mut full = Names::default();
        world
            .readdir(dir, handle, 0, true, &mut full)
            .await
            .unwrap();
        assert!(names.names.len() > 2, "{path}");
        if path != ".versions/2026-11" {
            assert_eq!(names.names, full.names, "{path}");
        }
        for (name, ino) in &names.names[2..] {
            let found = world.lookup(&ALICE, dir, name.as_bytes()).await.unwrap();
            assert_eq!(found.stat.ino.0, *ino, "{path}/{name}");
        }
    }
}

#[tokio::test]
async fn the_listing_shows_the_virtual_names_and_the_times_of_change() {
    let (world, _) = with_history().await;
    let names = world.ls(".versions").await.unwrap();
    assert_eq!(names[..4], ["@deleted", "@files", "@help", "@log"]);
    // The root directory has the ends of hours too.
    let is_change = |name: &&String| !name.ends_with("59-59.999Z");
    let times: Vec<_> = names[4..].iter().filter(is_change).collect();
    assert_eq!((times.len(), names.len()), (3, 10));
    let mut states = stamps(&world, "doc.txt").await;
    states.reverse();
    for (time, state) in times.into_iter().zip(&states) {
        assert_eq!(&format!("{time}.txt"), state);
        assert!(world.walk(&format!(".versions/{time}")).await.is_ok());
    }
}

#[tokio::test]
async fn states_of_one_millisecond_are_told_apart() {
    let world = world().await;
    for text in ["a", "b", "c"] {
        world.save("f", text).await;
    }
    let names = stamps(&world, "f").await;
    assert!(
        names.len() == 3 && names.iter().all(|name| name.len() == 30),
        "{names:?}"
    );
    for (name, text) in names.iter().zip(["a", "b", "c"]) {
        assert_eq!(
            world
                .cat(&format!(".versions/@files/f/{name}"))
                .await
                .unwrap(),
            text
        );
        assert_eq!(
            world.cat(&format!(".versions/{name}/f")).await.unwrap(),
            text
        );
    }
    world.advance(SECOND);
    let millis = print(Timestamp(START), Precision::Millis);
    assert_eq!(
        world
            .cat(&format!(".versions/@files/f/{millis}"))
            .await
            .unwrap(),
        "c"
    );
    assert_eq!(
        world.cat(&format!(".versions/{millis}/f")).await.unwrap(),
        "c"
    );
}

#[tokio::test]
async fn nothing_in_the_past_changes() {
    let (world, live) = with_history().await;
    let versions = world.walk(".versions").await.unwrap().stat.ino.0;
    let tree = world
        .walk(".versions/2026-11-20T21")
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let file = world
        .walk(".versions/2026-11-20T21/doc.txt")
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let files = world.walk(".versions/@files").await.unwrap().stat.ino.0;
    let mut answers = Vec::new();
    for dir in [versions, tree, files] {
        answers.extend([
            world
                .mknod(&SUPER, dir, b"new", 0o644, 0, 0)
                .await
                .map(drop),
            world
                .create(&SUPER, dir, b"new", 0o644, 0, 0)
                .await
                .map(drop),
            world.symlink(&SUPER, dir, b"new", b"x").await.map(drop),
            world.link(&SUPER, live, dir, b"new").await.map(drop),
            world.unlink(&SUPER, dir, b"doc.txt").await,
            world.rename(&SUPER, dir, b"doc.txt", ROOT, b"new", 0).await,
            world.rename(&SUPER, ROOT, b"doc.txt", dir, b"new", 0).await,
        ]);
    }
    // In `.versions` itself these two make and remove labels.
    for dir in [tree, files] {
        answers.push(world.mkdir(&SUPER, dir, b"new", 0o755, 0).await.map(drop));
        answers.push(world.rmdir(&SUPER, dir, b"doc.txt").await);
    }
    let opened = world.open(&SUPER, file, libc::O_RDONLY).await;
    let handle = opened.unwrap().handle;
    let change = SetAttr {
        mode: Some(0),
        ..SetAttr::default()
    };
    let bytes = Bytes::from_static(b"x");
    answers.extend([
        world.open(&SUPER, file, libc::O_RDWR).await.map(drop),
        world
            .open(&SUPER, file, libc::O_RDONLY | libc::O_TRUNC)
            .await
            .map(drop),
        world.setattr(&SUPER, file, change).await.map(drop),
        world.setxattr(&SUPER, file, b"user.x", b"x", 0).await,
        world.removexattr(&SUPER, file, b"user.x").await,
        world.link(&SUPER, file, ROOT, b"new").await.map(drop),
        world.fallocate(&ALICE, file, handle, 0, 1, 0).await,
        world
            .write(&SUPER, file, handle, 0, bytes, WriteMode::default())
            .await
            .map(drop),
        world.access(&SUPER, file, libc::W_OK).await,
    ]);
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, Err(FsError::ReadOnly), "answer {n}");
    }
    assert_eq!(world.fsync(file, handle, false).await, Ok(()));
}

#[tokio::test]
async fn the_kernel_keeps_only_final_names_and_ended_versions() {
    let (world, _) = with_history().await;
    let ttl = async |path: &str| world.walk(path).await.unwrap().entry_ttl;
    let long = Duration::from_secs(86_400);
    assert_eq!(ttl(".versions").await, long);
    assert_eq!(ttl(".versions/2026-11-20T21").await, long);
    assert_eq!(ttl(".versions/2026-11-20T21/doc.txt").await, long);
    assert_eq!(ttl(".versions/2026").await, Duration::ZERO, "still running");
    assert_eq!(ttl(".versions/-2h").await, Duration::ZERO, "relative");
    assert_eq!(
        ttl(".versions/-2h/doc.txt").await,
        long,
        "below, the timestamp does not change"
    );
    assert_eq!(ttl(".versions/@files/doc.txt").await, LIVE);
    for link in ["latest", "previous"] {
        let path = format!(".versions/@files/doc.txt/{link}");
        assert_eq!(ttl(&path).await, Duration::ZERO, "{link}");
    }
    let state = stamps(&world, "doc.txt").await.remove(0);
    assert_eq!(
        ttl(&format!(".versions/@files/doc.txt/{state}")).await,
        long
    );
    world.save("fresh", "x").await;
    world.namespace.drain().await.unwrap();
    let fresh = format!(
        ".versions/@files/fresh/{}",
        stamps(&world, "fresh").await[0]
    );
    world.advance(SECOND);
    assert_eq!(
        ttl(&fresh).await,
        Duration::ZERO,
        "a rename can make it a transient name"
    );
    world.advance(10 * SECOND);
    assert_eq!(ttl(&fresh).await, long);
    let follower = world.mounted_as(FsConfig {
        read_only: true,
        live_ttl: Duration::from_secs(3),
        ..FsConfig::default()
    });
    let there = follower.walk(&fresh).await.unwrap().entry_ttl;
    assert_eq!(
        there,
        Duration::from_secs(3),
        "another process may delete versions"
    );
    let attr_ttl = async |path: &str| world.walk(path).await.unwrap().attr_ttl;
    assert_eq!(
        attr_ttl(".versions/2026-11-20T21/doc.txt").await,
        long,
        "it has ended"
    );
    assert_eq!(
        attr_ttl(".versions/2026/doc.txt").await,
        Duration::ZERO,
        "it has not"
    );
    let tree = world
        .walk(".versions/2026-11-20T21")
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let opened = world.opendir(&ALICE, tree).await.unwrap();
    assert!(opened.cache_dir && opened.keep_cache);
}

#[tokio::test]
async fn attributes_of_the_current_state_follow_and_those_of_ended_ones_stay() {
    let (world, live) = with_history().await;
    let current = world
        .walk(".versions/2026/doc.txt")
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let ended = world
        .walk(".versions/2026-11-20T22/doc.txt")
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let change = SetAttr {
        mode: Some(0o600),
        ..SetAttr::default()
    };
    world.setattr(&ALICE, live, change).await.unwrap();
    let mode = async |ino| world.getattr(ino, None).await.unwrap().0.attrs.mode;
    assert_eq!(mode(current).await, 0o600);
    assert_eq!(mode(ended).await, 0o644);
    world.save("doc.txt", "four").await;
    let change = SetAttr {
        mode: Some(0o444),
        ..SetAttr::default()
    };
    world.setattr(&ALICE, live, change).await.unwrap();
    assert_eq!(mode(current).await, 0o600, "as it ended");
}

#[tokio::test]
async fn tightening_a_directory_closes_its_past() {
    let world = world().await;
    let dir = world
        .mkdir(&ALICE, ROOT, b"d", 0o755, 0)
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let change = SetAttr {
        mode: Some(0o3700),
        ..SetAttr::default()
    };
    world.setattr(&ALICE, dir, change).await.unwrap();
    for name in ["d/.versions", "d/.versions/@files", "d/.versions/2026"] {
        let attrs = world.walk(name).await.unwrap().stat.attrs;
        assert_eq!((attrs.mode & 0o777, attrs.uid), (0o700, 1000), "{name}");
    }
}

#[tokio::test]
async fn versions_tell_who_when_and_how() {
    let (world, live) = with_history().await;
    let path = ".versions/2026-11-20T22/doc.txt";
    let old = world.walk(path).await.unwrap().stat.ino.0;
    let tell = async |ino, name: &str| {
        let name = format!("user.versions.{name}");
        let value = world.getxattr(ino, name.as_bytes()).await?;
        Ok::<_, FsError>(String::from_utf8(value.to_vec()).unwrap())
    };
    assert_eq!(tell(old, "op").await.unwrap(), "write");
    assert_eq!(tell(old, "user").await.unwrap(), "1000");
    assert_eq!(tell(old, "host").await.unwrap(), "testhost");
    assert_eq!(tell(old, "size").await.unwrap(), "3");
    let time = tell(old, "time").await.unwrap();
    assert_eq!(
        world
            .cat(&format!(".versions/{time}/doc.txt"))
            .await
            .unwrap(),
        "two"
    );
    assert_eq!(tell(old, "id").await.unwrap().len(), 48);
    assert_eq!(tell(old, "renamed_from").await, Err(FsError::NoAttribute));
    assert_eq!(tell(old, "nonsense").await, Err(FsError::NoAttribute));
    assert_eq!(tell(live, "size").await.unwrap(), "5");
    assert_ne!(tell(live, "id").await, tell(old, "id").await);
    world
        .rename(&ALICE, ROOT, b"doc.txt", ROOT, b"final.txt", 0)
        .await
        .unwrap();
    assert_eq!(tell(live, "renamed_from").await.unwrap(), "doc.txt");
    assert_eq!(tell(live, "op").await.unwrap(), "rename");
    let set = world
        .setxattr(&SUPER, live, b"user.versions.user", b"0", 0)
        .await;
    assert_eq!(set.unwrap_err().errno(), libc::EPERM);
    assert!(world.listxattr(old).await.unwrap().is_empty());
}

#[tokio::test]
async fn copies_out_of_the_past() {
    let (world, _) = with_history().await;
    let from = world
        .walk(".versions/2026-11-20T21/doc.txt")
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let handle = world
        .open(&ALICE, from, libc::O_RDONLY)
        .await
        .unwrap()
        .handle;
    let to = world.make("restored").await;
    let (old, new) = (position(from, handle, 0), position(to.0, to.1, 0));
    let copied = world.copy_file_range(&ALICE, old, new, 99).await;
    assert_eq!(copied, Ok(3));
    world.close(to).await;
    assert_eq!(world.cat("restored").await.unwrap(), "one");
    assert_eq!(world.lseek(from, handle, 1, libc::SEEK_HOLE).await, Ok(3));
    let wrong = position(to.0, handle, 0);
    let back = world.copy_file_range(&ALICE, wrong, old, 1).await;
    assert_eq!(back, Err(FsError::ReadOnly));
}

#[tokio::test]
async fn states_that_are_not_saved_are_in_no_past() {
    let (world, ino) = with_history().await;
    let handle = world.open(&ALICE, ino, libc::O_RDWR).await.unwrap().handle;
    world.put((ino, handle), 0, "dirty").await;
    let unborn = world.make("unborn").await;
    assert_eq!(world.cat(".versions/2026/doc.txt").await.unwrap(), "three");
    assert_eq!(errno(&world, ".versions/2026/unborn").await, libc::ENOENT);
    assert_eq!(errno(&world, ".versions/@files/unborn").await, libc::ENOENT);
    world.close((ino, handle)).await;
    world.close(unborn).await;
    assert_eq!(world.cat(".versions/2026/doc.txt").await.unwrap(), "dirty");
    assert_eq!(world.cat(".versions/2026/unborn").await.unwrap(), "");
}

#[tokio::test]
async fn numbers_are_the_same_after_a_restart() {
    let (world, _) = with_history().await;
    let again = world.mounted_as(FsConfig::default());
    for path in [
        ".versions",
        ".versions/2026-11-20T21",
        ".versions/2026-11-20T21/doc.txt",
        ".versions/@files/doc.txt/latest",
        ".versions/@help",
    ] {
        let number = world.walk(path).await.unwrap().stat.ino.0;
        assert!(is_past(number), "{path}");
        assert_eq!(again.walk(path).await.unwrap().stat.ino.0, number, "{path}");
    }
}

#[tokio::test]
async fn help_is_a_file_that_can_be_read() {
    let world = world().await;
    let text = world.cat(".versions/@help").await.unwrap();
    let stat = world.walk(".versions/@help").await.unwrap().stat;
    assert_eq!(stat.attrs.size, text.len() as u64);
    assert_eq!(errno(&world, ".versions/@help/x").await, libc::ENOTDIR);
}

#[tokio::test]
async fn a_real_entry_of_the_reserved_name_is_in_no_tree() {
    let config = FsConfig {
        versions_name: b".past".to_vec(),
        ..FsConfig::default()
    };
    let earlier = world_with(config.clone()).await;
    earlier.save(".versions", "real").await;
    earlier.save("other", "x").await;
    assert_eq!(earlier.cat(".past/2026/.versions").await.unwrap(), "real");
    let later = earlier.mounted_as(FsConfig::default());
    assert_eq!(
        errno(&later, ".versions/2026/.versions").await,
        libc::ENOENT
    );
    assert_eq!(later.ls(".versions/2026").await.unwrap(), ["other"]);
}
