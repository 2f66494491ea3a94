//! Times at which history is not kept whole any more.

use super::stamp::parse_printed;
use crate::fs::error::FsError;
use crate::fs::testing::{ALICE, ROOT, World, world};
use crate::store::{
    Author, Brake, DentryRef, InForce, Policy, ROOT as STORE_ROOT, RunOptions, Timestamp,
};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

async fn prune(world: &World) {
    world.namespace.drain().await.unwrap();
    let options = RunOptions {
        grace: Duration::ZERO,
        brake: Brake::Released,
    };
    world.namespace.retention().run(options).await.unwrap();
}

async fn listed(world: &World) -> Vec<String> {
    let names = world.ls(".versions").await.unwrap();
    names
        .into_iter()
        .filter(|name| name.starts_with('2'))
        .collect()
}

async fn policy(world: &World, words: &[&str]) {
    let mut policy = Policy::default();
    for word in words {
        policy.set(word).unwrap();
    }
    let set = world
        .namespace
        .retention()
        .set_policy(&policy, InForce::Now);
    set.await.unwrap();
}

/// Holds the first state of `f` for a year.
async fn hold_first(world: &World) {
    let history = world.namespace.history();
    let versions = history.view().versions(STORE_ROOT, b"f").await.unwrap();
    let until = Timestamp(world.namespace.now().0 + 365 * DAY);
    let author = Author {
        uid: 0,
        process: "test".to_owned(),
    };
    let name = DentryRef::new(STORE_ROOT, b"f");
    let held = history.hold_version(name, &versions[0], until, &author);
    held.await.unwrap();
}

/// A file with a state each hour for three days.
async fn hourly(world: &World) {
    for number in 0..72 {
        world.save("f", &number.to_string()).await;
        world.advance(HOUR);
    }
}

#[tokio::test]
async fn only_times_are_listed_at_which_everything_is_kept() {
    let world = world().await;
    policy(
        &world,
        &["keep-within=1d", "keep-hourly=off", "keep-daily=10d"],
    )
    .await;
    hourly(&world).await;
    let all = listed(&world).await;
    assert!(all.len() >= 24, "{all:?}");
    prune(&world).await;
    world.advance(2 * SECOND);
    let left = listed(&world).await;
    let horizons = world.namespace.history().view().horizons().await.unwrap();
    for name in &left {
        let at = parse_printed(name.as_bytes()).unwrap().last;
        assert!(horizons.is_exact(at), "{name}");
        assert!(world.cat(&format!(".versions/{name}/f")).await.is_ok());
    }
    let days: Vec<_> = left
        .iter()
        .filter(|name| name.contains("T23-59-59.999"))
        .collect();
    assert_eq!(days.len(), 3, "the ends of the days before: {left:?}");
}

#[tokio::test]
async fn an_open_directory_that_showed_everything_is_stale_once_it_does_not() {
    let world = world().await;
    policy(&world, &["keep-within=1d", "grid=off", "keep-last=1"]).await;
    world.save("f", "1").await;
    world.advance(MINUTE);
    let name = listed(&world).await.remove(0);
    let open = world
        .walk(&format!(".versions/{name}"))
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let file = format!(".versions/{name}/f");
    for text in ["2", "3"] {
        world.save("f", text).await;
        world.advance(MINUTE);
    }
    assert!(world.lookup(&ALICE, open, b"f").await.is_ok());
    world.advance(2 * DAY);
    prune(&world).await;
    let found = world.lookup(&ALICE, open, b"f").await;
    assert_eq!(found.err(), Some(FsError::Stale));
    // The same name means now what is left.
    assert_eq!(world.cat(&file).await, Err(FsError::NotFound));
}

#[tokio::test]
async fn attributes_of_a_directory_below_a_time_that_is_not_whole_any_more_are_stale() {
    let world = world().await;
    policy(&world, &["keep-within=1d", "grid=off", "keep-last=1"]).await;
    let made = world.mkdir(&ALICE, ROOT, b"d", 0o755, 0).await.unwrap();
    let mode = made.stat.attrs.mode;
    world.save("f", "1").await;
    world.advance(MINUTE);
    let name = listed(&world).await.remove(0);
    let below = world.walk(&format!(".versions/{name}/d")).await.unwrap();
    let below = below.stat.ino.0;
    let shown = world.getattr(below, None).await.unwrap().0;
    assert_eq!(shown.attrs.mode, mode);
    for text in ["2", "3"] {
        world.save("f", text).await;
        world.advance(MINUTE);
    }
    world.advance(2 * DAY);
    prune(&world).await;
    assert_eq!(world.getattr(below, None).await.err(), Some(FsError::Stale));
    let found = world.lookup(&ALICE, below, b"x").await;
    assert_eq!(found.err(), Some(FsError::Stale));
}

#[tokio::test]
async fn a_time_before_everything_that_is_kept_does_not_exist() {
    let world = world().await;
    policy(&world, &["keep-within=1d", "grid=off", "keep-last=1"]).await;
    hourly(&world).await;
    assert!(world.ls(".versions/-71h").await.is_ok());
    prune(&world).await;
    world.advance(2 * SECOND);
    assert_eq!(world.ls(".versions/-71h").await, Err(FsError::NotFound));
    // The last version before the day is kept, and shown for all of its time.
    assert_eq!(world.ls(".versions/-23h").await.unwrap(), ["f"]);
}

#[tokio::test]
async fn an_older_state_is_not_offered_as_the_last_one_of_a_removed_name() {
    let world = world().await;
    policy(&world, &["keep-within=1h", "grid=off", "keep-removed=2d"]).await;
    world.save("f", "held").await;
    world.advance(MINUTE);
    hold_first(&world).await;
    world.save("f", "last").await;
    world.advance(2 * HOUR);
    world.unlink(&ALICE, ROOT, b"f").await.unwrap();
    world.advance(DAY);
    prune(&world).await;
    assert_eq!(world.cat(".versions/@deleted/f").await.unwrap(), "last");
    world.advance(2 * DAY);
    prune(&world).await;
    let offered = world.ls(".versions/@deleted").await.unwrap();
    assert_eq!(offered, [""; 0]);
}

#[tokio::test]
async fn the_root_lists_the_ends_of_hours_in_which_something_below_changed() {
    let world = world().await;
    policy(
        &world,
        &[
            "keep-within=1d",
            "keep-hourly=10d",
            "keep-daily=off",
            "keep-weekly=off",
        ],
    )
    .await;
    let made = world.mkdir(&ALICE, ROOT, b"d", 0o755, 0).await.unwrap();
    let (d, mut changed) = (made.stat.ino.0, 0);
    for hour in 0..60 {
        if hour % 3 == 0 {
            let file = format!("f{hour}");
            let flags = libc::O_WRONLY;
            let made = world.create(&ALICE, d, file.as_bytes(), 0o644, 0, flags);
            let (entry, opened) = made.await.unwrap();
            world.close((entry.stat.ino.0, opened.handle)).await;
            changed += 1;
        }
        world.advance(HOUR);
    }
    prune(&world).await;
    world.advance(2 * SECOND);
    let left = listed(&world).await;
    let ends = left.iter().filter(|name| name.contains("-59-59.999"));
    let ends: Vec<_> = ends.collect();
    // Of the hours of the last day, and of each day before: a listing is a screenful.
    assert!((9..=changed).contains(&ends.len()), "{left:?}");
    for name in &ends {
        let shown = world.ls(&format!(".versions/{name}/d")).await.unwrap();
        assert!(!shown.is_empty(), "{name}");
    }
    // Where nothing changed, an hour's end is found by name, and not listed.
    let all: Vec<_> = world.ls("d/.versions").await.unwrap();
    assert!(all.iter().filter(|name| name.starts_with('2')).count() > 8);
    // An hour without a change after one with a change leads to the same tree.
    let twice = ends.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert_eq!(twice, 0);
}
