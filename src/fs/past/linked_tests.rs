//! A file with several names, seen in the past.

use super::*;
use crate::fs::SetAttr;
use crate::fs::testing::{ALICE, ROOT, World, world};

const SECOND: u64 = 1_000_000_000;

async fn stat(world: &World, path: &str) -> Stat {
    world.walk(path).await.unwrap().stat
}

/// A stamp of now, with nothing else in its millisecond.
async fn now(world: &World) -> String {
    world.advance(SECOND);
    let now = stamp::print(world.namespace.now(), stamp::Precision::Millis);
    world.advance(SECOND);
    format!(".versions/{now}")
}

/// `a`; then `a`, `b`, `d/c`; the same saved again; then `b`, `d/c`; then `b`. The five times, and the file's number.
async fn with_links() -> (World, [String; 5], u64) {
    let world = world().await;
    let dir = world.mkdir(&ALICE, ROOT, b"d", 0o755, 0).await.unwrap();
    let dir = dir.stat.ino.0;
    let file = world.save("a", "one").await;
    let alone = now(&world).await;
    world.link(&ALICE, file, ROOT, b"b").await.unwrap();
    world.link(&ALICE, file, dir, b"c").await.unwrap();
    let three = now(&world).await;
    world.save("b", "two").await;
    let anew = now(&world).await;
    world.unlink(&ALICE, ROOT, b"a").await.unwrap();
    let two = now(&world).await;
    world.unlink(&ALICE, dir, b"c").await.unwrap();
    let one = now(&world).await;
    world.namespace.drain().await.unwrap();
    (world, [alone, three, anew, two, one], file)
}

#[tokio::test]
async fn all_names_of_a_time_are_one_number_with_a_true_count() {
    let (world, times, live) = with_links().await;
    let expected: [(&[&str], u32, &str); 5] = [
        (&["a"], 1, "one"),
        (&["a", "b", "d/c"], 3, "one"),
        (&["a", "b", "d/c"], 3, "two"),
        (&["b", "d/c"], 2, "two"),
        (&["b"], 1, "two"),
    ];
    let mut numbers = Vec::new();
    for (time, (names, links, text)) in times.iter().zip(expected) {
        let mut found = Vec::new();
        for name in names {
            let path = format!("{time}/{name}");
            let stat = stat(&world, &path).await;
            assert_eq!((stat.nlink, stat.attrs.size), (links, 3), "{path}");
            assert!(is_past(stat.ino.0) && stat.ino.0 != live, "{path}");
            assert_eq!(world.cat(&path).await.as_deref(), Ok(text), "{path}");
            found.push(stat.ino.0);
        }
        found.dedup();
        assert_eq!(found.len(), 1, "one number in {time}");
        numbers.extend(found);
    }
    // What differs in content or in its count is another number: the kernel keeps both by number.
    let all: std::collections::BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(all.len(), 5, "{numbers:?}");
    let again = world.mounted_as(FsConfig::default());
    for ((time, (names, ..)), number) in times.iter().zip(expected).zip(numbers) {
        let path = format!("{time}/{}", names[0]);
        assert_eq!(
            stat(&again, &path).await.ino.0,
            number,
            "{path} after a restart"
        );
    }
}

#[tokio::test]
async fn listings_name_the_numbers_that_lookups_find() {
    let (world, times, _) = with_links().await;
    let dir = stat(&world, &times[1]).await.ino.0;
    let handle = world.opendir(&ALICE, dir).await.unwrap().handle;
    let mut listed = crate::fs::testing::Names::default();
    world
        .readdir(dir, handle, 0, false, &mut listed)
        .await
        .unwrap();
    let number = |name: &str| {
        listed
            .names
            .iter()
            .find(|(found, _)| found == name)
            .unwrap()
            .1
    };
    assert_eq!(number("a"), number("b"));
    assert_eq!(
        number("a"),
        stat(&world, &format!("{}/d/c", times[1])).await.ino.0
    );
}

/// A removed name shows a state that is still current under another name.
#[tokio::test]
async fn attributes_are_kept_only_when_the_state_is_over_under_every_name() {
    let (world, times, live) = with_links().await;
    for path in [format!("{}/a", times[2]), format!("{}/d/c", times[3])] {
        assert_eq!(
            world.walk(&path).await.unwrap().attr_ttl,
            Duration::ZERO,
            "{path}"
        );
    }
    let states = world.ls(".versions/@files/a").await.unwrap();
    let last = format!(
        ".versions/@files/a/{}",
        states.iter().rfind(|s| s.starts_with('2')).unwrap()
    );
    assert_eq!(world.walk(&last).await.unwrap().attr_ttl, Duration::ZERO);
    let change = SetAttr {
        mode: Some(0o600),
        ..SetAttr::default()
    };
    world.setattr(&ALICE, live, change).await.unwrap();
    for path in [format!("{}/a", times[2]), format!("{}/b", times[4]), last] {
        assert_eq!(stat(&world, &path).await.attrs.mode, 0o600, "{path}");
    }
    let over = world.walk(&format!("{}/a", times[1])).await.unwrap();
    assert_eq!(
        (over.attr_ttl.as_secs(), over.stat.attrs.mode),
        (86_400, 0o644)
    );
}

#[tokio::test]
async fn a_time_tells_of_the_file_and_a_list_of_the_name() {
    let (world, times, _) = with_links().await;
    let op = async |path: String| {
        let ino = stat(&world, &path).await.ino.0;
        let value = world.getxattr(ino, b"user.versions.op").await.unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    };
    for name in ["a", "b", "d/c"] {
        assert_eq!(op(format!("{}/{name}", times[1])).await, "create");
        assert_eq!(op(format!("{}/{name}", times[2])).await, "write");
    }
    let states = world.ls(".versions/@files/b").await.unwrap();
    for (state, expected) in states.iter().zip(["link", "write"]) {
        let path = format!(".versions/@files/b/{state}");
        assert_eq!(op(path.clone()).await, expected, "{path}");
        assert_eq!(stat(&world, &path).await.nlink, 1);
    }
}

/// A removed tree is looked at as it was just before.
#[tokio::test]
async fn a_removed_tree_has_its_links() {
    let world = world().await;
    let dir = world
        .mkdir(&ALICE, ROOT, b"d", 0o755, 0)
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let file = world.save("a", "one").await;
    for name in [b"x", b"y"] {
        world.link(&ALICE, file, dir, name).await.unwrap();
    }
    world.advance(100 * SECOND);
    for name in [b"x", b"y"] {
        world.unlink(&ALICE, dir, name).await.unwrap();
    }
    world.rmdir(&ALICE, ROOT, b"d").await.unwrap();
    let (x, y) = (
        stat(&world, ".versions/@deleted/d/x").await,
        stat(&world, ".versions/@deleted/d/y").await,
    );
    assert_eq!((x.ino, x.nlink), (y.ino, 3));
    world.unlink(&ALICE, ROOT, b"a").await.unwrap();
    assert_eq!(
        stat(&world, ".versions/@deleted/a").await.nlink,
        1,
        "the restored file is a file of its own"
    );
}
