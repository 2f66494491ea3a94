//! A command sees one timestamp, and what bounds the memory that makes it so.

use super::*;
use crate::fs::testing::{ALICE, ROOT, World, world};
use crate::store::Kind;
use std::time::Duration;

/// A command whose process group is unknown, so that it is known by its user.
const COMMAND: Caller = Caller {
    uid: 7,
    gid: 7,
    pid: 0,
};

/// The state of `doc` that `path` leads one of `caller`'s lookups to, or the error.
async fn text(world: &World, caller: &Caller, path: &str) -> Result<String, i32> {
    let errno = |error: crate::fs::FsError| error.errno();
    let ino = world.walk_as(caller, path).await.map_err(errno)?.stat.ino.0;
    let opened = world
        .open(caller, ino, libc::O_RDONLY)
        .await
        .map_err(errno)?;
    let bytes = world.read(ino, opened.handle, 0, 99).await.map_err(errno)?;
    world.release(ino, opened.handle).await.map_err(errno)?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

async fn is(world: &World, path: &str, expected: &str) {
    assert_eq!(
        text(world, &COMMAND, path).await.as_deref(),
        Ok(expected),
        "{path}"
    );
}

/// A state of `doc` a minute, the first one just now.
async fn saved() -> World {
    let world = world().await;
    world.save("doc", "0").await;
    world
}

#[tokio::test]
async fn a_command_sees_one_timestamp_and_the_next_command_another() {
    for name in ["2026", "2026-11-20", "-0s", "-1s"] {
        let world = saved().await;
        world.advance(2 * SECOND);
        let path = format!(".versions/{name}/doc");
        is(&world, &path, "0").await;
        for state in ["1", "2"] {
            world.save("doc", state).await;
            world.advance(20 * SECOND);
            is(&world, &path, "0").await;
            let other = world.cat(&path).await;
            assert_eq!(other.as_deref(), Ok(state), "{name}: another command");
        }
        let entry = world.walk_as(&COMMAND, &format!(".versions/{name}")).await;
        assert_eq!(entry.unwrap().entry_ttl, Duration::ZERO, "{name}");
    }
}

#[tokio::test]
async fn two_spellings_of_one_time_and_two_directories_are_one_timestamp() {
    let world = saved().await;
    let made = world.mkdir(&ALICE, ROOT, b"d", 0o755, 0).await.unwrap();
    world
        .symlink(&ALICE, made.stat.ino.0, b"old", b"t")
        .await
        .unwrap();
    world.advance(90 * SECOND);
    is(&world, ".versions/-1m/doc", "0").await;
    world.save("doc", "1").await;
    world.unlink(&ALICE, made.stat.ino.0, b"old").await.unwrap();
    world.advance(50 * SECOND);
    assert!(
        world
            .walk_as(&COMMAND, "d/.versions/-60s/old")
            .await
            .is_ok()
    );
    is(&world, ".versions/-60s/doc", "0").await;
}

#[tokio::test]
async fn a_name_is_forgotten_a_minute_after_its_last_use() {
    let world = saved().await;
    is(&world, ".versions/2026/doc", "0").await;
    world.save("doc", "1").await;
    world.advance(59 * SECOND);
    is(&world, ".versions/2026/doc", "0").await;
    world.advance(59 * SECOND);
    is(&world, ".versions/2026/doc", "0").await;
    world.advance(61 * SECOND);
    is(&world, ".versions/2026/doc", "1").await;
}

#[tokio::test]
async fn a_name_is_forgotten_ten_minutes_after_its_first_use() {
    let world = saved().await;
    is(&world, ".versions/2026/doc", "0").await;
    world.save("doc", "1").await;
    for _ in 0..11 {
        world.advance(50 * SECOND);
        is(&world, ".versions/2026/doc", "0").await;
    }
    world.advance(51 * SECOND);
    is(&world, ".versions/2026/doc", "1").await;
}

#[tokio::test]
async fn an_open_handle_keeps_the_name_and_its_close_is_a_use() {
    for of in [".versions/2026", ".versions/2026/doc", ".versions/2026/d"] {
        let world = saved().await;
        world.mkdir(&ALICE, ROOT, b"d", 0o755, 0).await.unwrap();
        is(&world, ".versions/2026/doc", "0").await;
        let entry = world.walk_as(&COMMAND, of).await.unwrap();
        let ino = entry.stat.ino.0;
        // Another command finds the same version by another timestamp meanwhile.
        world.walk(of).await.unwrap();
        let is_dir = entry.stat.kind == Kind::Directory;
        let opened = match is_dir {
            true => world.opendir(&COMMAND, ino).await,
            false => world.open(&COMMAND, ino, libc::O_RDONLY).await,
        };
        let handle = opened.unwrap().handle;
        world.save("doc", "1").await;
        world.advance(3600 * SECOND);
        is(&world, ".versions/2026/doc", "0").await;
        world.advance(3600 * SECOND);
        match is_dir {
            true => world.releasedir(ino, handle).await.unwrap(),
            false => world.release(ino, handle).await.unwrap(),
        }
        is(&world, ".versions/2026/doc", "1").await;
        assert!(
            lock(&world.past().reader.times.table).timestamps.len() <= 2,
            "{of}"
        );
    }
    let world = saved().await;
    is(&world, ".versions/2026/doc", "0").await;
    let ino = world
        .walk_as(&COMMAND, ".versions/2026/doc")
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let handle = world
        .open(&COMMAND, ino, libc::O_RDONLY)
        .await
        .unwrap()
        .handle;
    world.save("doc", "1").await;
    world.advance(120 * SECOND);
    world.release(ino, handle).await.unwrap();
    world.advance(59 * SECOND);
    is(&world, ".versions/2026/doc", "0").await;
}

#[tokio::test]
async fn a_referenced_node_keeps_its_timestamp() {
    let world = saved().await;
    let tree = world
        .walk_as(&COMMAND, ".versions/2026")
        .await
        .unwrap()
        .stat
        .ino
        .0;
    world.save("doc", "1").await;
    world.advance(3600 * SECOND);
    is(&world, ".versions/2026/doc", "1").await;
    let doc = world
        .lookup(&COMMAND, tree, b"doc")
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let opened = world.open(&COMMAND, doc, libc::O_RDONLY).await.unwrap();
    let bytes = world.read(doc, opened.handle, 0, 9).await.unwrap();
    assert_eq!(&bytes[..], b"0");
}

#[tokio::test]
async fn a_time_that_shows_nothing_yet_is_looked_for_again() {
    let world = saved().await;
    world.advance(30 * SECOND);
    assert_eq!(
        text(&world, &COMMAND, ".versions/-1m/doc").await,
        Err(libc::ENOENT)
    );
    world.advance(31 * SECOND);
    is(&world, ".versions/-1m/doc", "0").await;
    // Now it shows something: what is not there at that timestamp stays away for this command.
    world.mkdir(&ALICE, ROOT, b"d", 0o755, 0).await.unwrap();
    world.advance(55 * SECOND);
    assert_eq!(
        text(&world, &COMMAND, "d/.versions/-1m/x").await,
        Err(libc::ENOENT)
    );
    is(&world, ".versions/-1m/doc", "0").await;
}

/// The kernel has one entry for a name, for all processes.
#[tokio::test]
async fn a_period_that_ends_keeps_its_timestamp_for_its_group_only() {
    let world = saved().await;
    is(&world, ".versions/2026-11-20T21-26/doc", "0").await;
    world.save("doc", "1").await;
    world.namespace.drain().await.unwrap();
    world.advance(50 * SECOND);
    let ttl = async || {
        world
            .walk(".versions/2026-11-20T21-26")
            .await
            .unwrap()
            .entry_ttl
    };
    assert_eq!(ttl().await, Duration::ZERO);
    is(&world, ".versions/2026-11-20T21-26/doc", "0").await;
    assert_eq!(
        world.cat(".versions/2026-11-20T21-26/doc").await.as_deref(),
        Ok("1")
    );
    world.advance(61 * SECOND);
    is(&world, ".versions/2026-11-20T21-26/doc", "1").await;
    assert_eq!(ttl().await, Duration::from_secs(86_400));
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_keep_a_name() {
    let table = &mut RememberedTimes::default();
    let question = TimeQuery {
        name: TimeName::Ago(SECOND),
        asker: CallerGroup::Group(1),
    };
    table.remember(question, Timestamp(5), 7200 * SECOND);
    assert_eq!(table.recall(question, 7201 * SECOND), Some(Timestamp(5)));
    assert_eq!(table.recall(question, 3600 * SECOND), None);
}

#[test]
fn no_more_than_a_thousand_are_remembered_and_those_in_use_last() {
    let meanings = ResolvedTimes::new(Arc::new(crate::env::SeededEnv::new(1)));
    let question = |number: u32| TimeQuery {
        name: TimeName::Ago(SECOND),
        asker: CallerGroup::Group(number),
    };
    let count = u32::try_from(REMEMBERED_MAX).unwrap();
    let remember = |number: u32| {
        let at = Timestamp(u64::from(number));
        lock(&meanings.table).remember(question(number), at, u64::from(number));
    };
    let recall = |number: u32| lock(&meanings.table).recall(question(number), u64::from(count));
    remember(0);
    let held = meanings.hold(Timestamp(0)..=Timestamp(0));
    (1..count).for_each(remember);
    remember(count);
    assert_eq!(lock(&meanings.table).known.len(), REMEMBERED_MAX);
    assert!(recall(0).is_some() && recall(1).is_none() && recall(2).is_some());
    drop(held);
    (count + 1..3 * count).for_each(remember);
    let table = lock(&meanings.table);
    assert_eq!(table.known.len(), REMEMBERED_MAX);
    assert_eq!(table.timestamps.len(), REMEMBERED_MAX);
}
