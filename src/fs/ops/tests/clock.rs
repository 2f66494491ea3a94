//! File times follow the machine's clock, also after it was ahead; only versions are ordered by the namespace's clock.

use crate::fs::testing::{ALICE, ROOT, SUPER, World, position, world};
use crate::fs::*;
use crate::store::{Kind, Time};

const TWO_HOURS: u64 = 7_200_000_000_000;

/// A world whose clock was two hours ahead for one save and is right again; one file is older than that.
async fn after_a_moment_ahead() -> World {
    let world = world().await;
    world.save("old", "one").await;
    world.advance(TWO_HOURS);
    world.save("ahead", "x").await;
    world.go_back(TWO_HOURS);
    world
}

async fn set(world: &World, ino: u64, change: SetAttr) {
    world.setattr(&SUPER, ino, change).await.unwrap();
}

/// Every kind of call that sets a file time.
async fn make_every_change(world: &World) {
    world.save("old", "two").await;
    world.save("old", "three").await;
    let dir = world.mkdir(&ALICE, ROOT, b"dir", 0o755, 0).await.unwrap();
    let dir = dir.stat.ino.0;
    world.symlink(&ALICE, dir, b"link", b"to").await.unwrap();
    let fifo = world.mknod(&ALICE, dir, b"fifo", libc::S_IFIFO | 0o644, 0, 0);
    fifo.await.unwrap();
    let empty = world.mknod(&ALICE, dir, b"empty", 0o644, 0, 0).await;
    let empty = empty.unwrap().stat.ino.0;
    let open = world.make("open").await;
    world.put(open, 0, "some bytes").await;
    let calls = [
        (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 900),
        (0, 0),
    ];
    for (mode, offset) in calls {
        let made = world.fallocate(&ALICE, open.0, open.1, offset, 99, mode);
        made.await.unwrap();
    }
    let copy = world.make("copy").await;
    let (from, to) = (position(open.0, open.1, 0), position(copy.0, copy.1, 0));
    let copied = world.copy_file_range(&ALICE, from, to, 50);
    assert_eq!(copied.await, Ok(50));
    world.close(copy).await;
    world.link(&ALICE, empty, ROOT, b"linked").await.unwrap();
    world.unlink(&ALICE, dir, b"empty").await.unwrap();
    world
        .rename(&ALICE, ROOT, b"copy", dir, b"moved", 0)
        .await
        .unwrap();
    world.mkdir(&ALICE, dir, b"gone", 0o755, 0).await.unwrap();
    world.rmdir(&ALICE, dir, b"gone").await.unwrap();
    world
        .rename(&ALICE, ROOT, b"dir", ROOT, b"other", 0)
        .await
        .unwrap();
    change_attributes(world, empty).await;
    bring_back(world).await;
}

async fn change_attributes(world: &World, empty: u64) {
    let now = Some(SetTime::Now);
    let mode = Some(0o640);
    let size = Some(0);
    set(
        world,
        empty,
        SetAttr {
            atime: now,
            mtime: now,
            ..SetAttr::default()
        },
    )
    .await;
    set(
        world,
        empty,
        SetAttr {
            mode,
            ..SetAttr::default()
        },
    )
    .await;
    set(
        world,
        empty,
        SetAttr {
            size,
            ..SetAttr::default()
        },
    )
    .await;
    world
        .setxattr(&ALICE, empty, b"user.a", b"b", 0)
        .await
        .unwrap();
}

async fn bring_back(world: &World) {
    world.save("removed", "x").await;
    world.unlink(&ALICE, ROOT, b"removed").await.unwrap();
    let deleted = world.walk(".versions/@deleted").await.unwrap().stat.ino.0;
    let back = world.rename(&ALICE, deleted, b"removed", ROOT, b"back", 0);
    back.await.unwrap();
}

/// Fails unless everything below `path` has file times between two times.
async fn dated_between(world: &World, path: &str, window: (Time, Time)) {
    let mut paths = vec![path.to_owned()];
    while let Some(path) = paths.pop() {
        let stat = world.walk(&path).await.unwrap().stat;
        let attrs = &stat.attrs;
        for (name, time) in [
            ("atime", attrs.atime),
            ("mtime", attrs.mtime),
            ("ctime", attrs.ctime),
            ("btime", attrs.btime),
        ] {
            let right = window.0 <= time && time <= window.1;
            assert!(
                right || path == "/ahead",
                "{path}: {name} {time:?}, {window:?}"
            );
        }
        if stat.kind == Kind::Directory {
            let names = world.ls(&path).await.unwrap();
            paths.extend(names.iter().map(|name| format!("{path}/{name}")));
        }
    }
}

#[tokio::test]
async fn every_call_dates_by_the_machines_clock() {
    let world = after_a_moment_ahead().await;
    let mut window = (world.namespace.wall(), Time::default());
    window.0.seconds -= 1;
    make_every_change(&world).await;
    window.1 = world.namespace.wall();
    dated_between(&world, "", window).await;
    // The past shows the times that the files had.
    let states = world.ls(".versions/@files/old").await.unwrap();
    for state in states.iter().filter(|name| name.starts_with('2')) {
        dated_between(&world, &format!("/.versions/@files/old/{state}"), window).await;
    }
    let ahead = world.walk("ahead").await.unwrap().stat.attrs.mtime;
    assert!(ahead.seconds > window.1.seconds + 7_000);
}

#[tokio::test]
async fn versions_go_on_in_order_behind_a_clock_that_was_ahead() {
    let world = after_a_moment_ahead().await;
    for text in ["two", "three", "four"] {
        world.save("old", text).await;
    }
    let (root, name) = (crate::store::ROOT, b"old");
    let versions = world
        .namespace
        .history()
        .view()
        .versions(root, name)
        .await
        .unwrap();
    let timestamps: Vec<u64> = versions.iter().map(|v| v.version.timestamp.0).collect();
    assert_eq!(timestamps.len(), 4);
    assert!(timestamps.is_sorted_by(|a, b| a < b), "{timestamps:?}");
    let apart = timestamps[3] - timestamps[1];
    assert!(
        apart < 1_000,
        "they follow each other by nanoseconds: {apart}"
    );
    assert!(timestamps[1] - timestamps[0] > TWO_HOURS - 1_000_000_000);
    let modified: Vec<Time> = versions.iter().map(|v| v.attrs.mtime).collect();
    assert!(modified.is_sorted_by(|a, b| a < b), "{modified:?}");
    assert!(modified[3].seconds - modified[0].seconds < 2);
}
