//! Directories whose policy keeps less than that of the namespace.

use crate::fs::error::FsError;
use crate::fs::testing::{ALICE, ROOT, World, world};
use crate::store::{Brake, InForce, Policy, RunOptions};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const KEEP: &[u8] = b"user.versions.keep";

async fn prune(world: &World) {
    world.namespace.drain().await.unwrap();
    let options = RunOptions {
        grace: Duration::ZERO,
        brake: Brake::Released,
    };
    world.namespace.retention().run(options).await.unwrap();
    // Which times are exact is known anew after a second.
    world.advance(2 * SECOND);
}

async fn mkdir(world: &World, parent: u64, name: &str) -> u64 {
    let made = world.mkdir(&ALICE, parent, name.as_bytes(), 0o755, 0).await;
    made.unwrap().stat.ino.0
}

async fn save(world: &World, directory: u64, name: &str, text: &str) {
    let flags = libc::O_WRONLY | libc::O_TRUNC;
    let made = world.create(&ALICE, directory, name.as_bytes(), 0o644, 0, flags);
    let (entry, opened) = made.await.unwrap();
    let file = (entry.stat.ino.0, opened.handle);
    world.put(file, 0, text).await;
    world.close(file).await;
}

/// `p` with `build`, which keeps an hour, and a file in each that was saved each hour for ten hours.
async fn ten_hours() -> (World, u64, u64) {
    let world = world().await;
    let set = world.namespace.retention();
    set.set_policy(&Policy::default(), InForce::Now)
        .await
        .unwrap();
    let parent = mkdir(&world, ROOT, "p").await;
    let build = mkdir(&world, parent, "build").await;
    world.setxattr(&ALICE, build, KEEP, b"1h", 0).await.unwrap();
    for number in 0..10 {
        save(&world, parent, "f", &number.to_string()).await;
        save(&world, build, "o", &number.to_string()).await;
        world.advance(HOUR);
    }
    (world, parent, build)
}

#[tokio::test]
async fn a_time_older_than_a_directory_keeps_is_not_there_in_it_and_whole_around_it() {
    let (world, _, _) = ten_hours().await;
    assert_eq!(world.cat("p/.versions/-5h/build/o").await.unwrap(), "5");
    let open = world
        .walk("p/.versions/-5h/build")
        .await
        .unwrap()
        .stat
        .ino
        .0;
    prune(&world).await;
    assert_eq!(world.cat("p/.versions/-5h/f").await.unwrap(), "5");
    // The directory is known, and what was in it is not.
    assert!(world.walk("p/.versions/-5h/build").await.is_ok());
    for path in ["p/.versions/-5h/build/o", "p/build/.versions/-5h/o"] {
        assert_eq!(world.cat(path).await, Err(FsError::NotFound), "{path}");
    }
    for path in ["p/.versions/-5h/build", "p/build/.versions/-5h"] {
        assert_eq!(world.ls(path).await, Err(FsError::NotFound), "{path}");
    }
    assert_eq!(
        world.lookup(&ALICE, open, b"o").await.err(),
        Some(FsError::Stale)
    );
    let listed = world.ls("p/build/.versions").await.unwrap();
    let times: Vec<_> = listed.iter().filter(|name| name.starts_with('2')).collect();
    assert!(times.len() <= 2, "{times:?}");
    assert!(world.ls("p/.versions").await.unwrap().len() >= 10);
}

#[tokio::test]
async fn the_policy_of_a_directory_is_an_attribute_of_it() {
    let (world, parent, build) = ten_hours().await;
    let words = world.getxattr(build, KEEP).await.unwrap();
    let words = String::from_utf8(words.to_vec()).unwrap();
    assert!(
        words.starts_with("keep-within=1h keep-hourly=off "),
        "{words}"
    );
    assert!(!world.listxattr(build).await.unwrap().starts_with(KEEP));
    assert_eq!(
        world.getxattr(parent, KEEP).await,
        Err(FsError::NoAttribute)
    );
    for (value, flags, error) in [
        (&b"1h"[..], libc::XATTR_CREATE, FsError::Exists),
        (b"often", 0, FsError::Invalid(String::new())),
        (b"history-max=1G", 0, FsError::Invalid(String::new())),
    ] {
        let set = world.setxattr(&ALICE, build, KEEP, value, flags).await;
        assert_eq!(set.unwrap_err().errno(), error.errno());
    }
    save(&world, parent, "f", "10").await;
    let file = world.walk("p/f").await.unwrap().stat.ino.0;
    let set = world.setxattr(&ALICE, file, KEEP, b"1h", 0).await;
    assert_eq!(set.unwrap_err().errno(), libc::ENOTDIR);
    world.removexattr(&ALICE, build, KEEP).await.unwrap();
    assert_eq!(world.getxattr(build, KEEP).await, Err(FsError::NoAttribute));
    let removed = world.removexattr(&ALICE, build, KEEP).await;
    assert_eq!(removed, Err(FsError::NoAttribute));
}
