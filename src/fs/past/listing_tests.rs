//! What listings and lookups of the past cost, counted in rows: linear for a listing, a seek for a name.

use crate::fs::testing::{ALICE, Names, ROOT, World, world};

/// Versions of the tests' file.
const VERSIONS: u64 = 120;
const MILLISECOND: u64 = 1_000_000;

/// Saves [`VERSIONS`] versions of `name`.
async fn save_often(world: &World, name: &str) {
    save_times(world, name, VERSIONS).await;
}

/// Saves so many versions of `name`.
async fn save_times(world: &World, name: &str, versions: u64) {
    for number in 0..versions {
        world.save(name, &format!("state {number}")).await;
        world.advance(2 * MILLISECOND);
    }
}

/// The number of what `path` leads to.
async fn number(world: &World, path: &str) -> u64 {
    world.walk(path).await.unwrap().stat.ino.0
}

/// The rows that `work` looks at.
async fn rows<T>(world: &World, work: impl Future<Output = T>) -> u64 {
    let before = world.namespace.rows_read();
    work.await;
    world.namespace.rows_read() - before
}

/// Lists the directory `dir` as `ls -l` does, with everything about each name, a buffer of twenty at a time; the names.
async fn list_with_attributes(world: &World, dir: u64) -> Vec<String> {
    let opened = world.opendir(&ALICE, dir).await.unwrap();
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let mut sink = Names {
            room: Some(20),
            next_offset: offset,
            ..Names::default()
        };
        let read = world.readdir(dir, opened.handle, offset, true, &mut sink);
        read.await.unwrap();
        offset = sink.next_offset;
        if sink.names.is_empty() {
            break;
        }
        names.extend(sink.names.into_iter().map(|(name, _)| name));
    }
    world.releasedir(dir, opened.handle).await.unwrap();
    names.split_off(2)
}

/// Each version of `history` is found by its name in so many rows at most, in any order.
async fn check_each(world: &World, history: u64, names: &[String], most: u64) {
    let stamps = names.iter().filter(|name| name.starts_with('2'));
    for name in stamps.clone().rev().step_by(7).chain(stamps) {
        let found = rows(world, async {
            let entry = world
                .lookup(&ALICE, history, name.as_bytes())
                .await
                .unwrap();
            world.getattr(entry.stat.ino.0, None).await.unwrap();
        });
        let found = found.await;
        assert!(found <= most, "{name}: {found} rows");
    }
}

#[tokio::test]
async fn a_version_is_found_by_one_row_and_a_listing_is_linear() {
    for queued in [true, false] {
        let world = world().await;
        save_often(&world, "v.txt").await;
        let files = number(&world, ".versions/@files").await;
        let first = rows(&world, world.lookup(&ALICE, files, b"v.txt")).await;
        assert!(first <= 4, "whether there are any: {first} rows");
        if !queued {
            world.namespace.drain().await.unwrap();
            world.advance(20_000 * MILLISECOND);
            let first = rows(&world, world.lookup(&ALICE, files, b"v.txt")).await;
            assert_eq!(first, 1, "rows to tell that there are any");
        }
        let history = number(&world, ".versions/@files/v.txt").await;
        let mut names = Vec::new();
        let listed = rows(&world, async {
            names = list_with_attributes(&world, history).await;
        });
        let listed = listed.await;
        assert_eq!(names.len() as u64, VERSIONS + 2);
        // Once each, and a few for the links and for the last of each buffer, which is looked up again.
        assert!(listed <= VERSIONS + VERSIONS / 10 + 30, "{listed} rows");
        let current = names.remove(VERSIONS as usize - 1);
        check_each(&world, history, &names, 1).await;
        check_each(&world, history, &[current], 4).await;
        for link in ["latest", "previous"] {
            let found = rows(&world, world.lookup(&ALICE, history, link.as_bytes())).await;
            assert!(found <= 20, "{link}: {found} rows");
        }
        let missing = world
            .lookup(&ALICE, history, b"2026-11-20T21-26-47.999Z.txt")
            .await;
        assert!(missing.is_err());
    }
}

/// The rows that a history of the file `v.txt` costs.
#[derive(Debug)]
struct HistoryCost {
    /// Lookup of `@files/v.txt`, which tells that there are versions.
    any: u64,
    /// A listing with attributes.
    listing: u64,
    /// A version in the middle: lookup, attributes, open, read and release.
    opening: u64,
}

async fn history_cost(world: &World, versions: u64) -> HistoryCost {
    let files = number(world, ".versions/@files").await;
    let any = rows(world, world.lookup(&ALICE, files, b"v.txt")).await;
    let history = number(world, ".versions/@files/v.txt").await;
    let mut names = Vec::new();
    let listing = rows(world, async {
        names = list_with_attributes(world, history).await;
    });
    let listing = listing.await;
    assert_eq!(names.len() as u64, versions + 2);
    let middle = names[names.len() / 2].clone();
    let opening = rows(world, async {
        let entry = world.lookup(&ALICE, history, middle.as_bytes()).await;
        let ino = entry.unwrap().stat.ino.0;
        world.getattr(ino, None).await.unwrap();
        let handle = world.open(&ALICE, ino, libc::O_RDONLY).await.unwrap();
        world.read(ino, handle.handle, 0, 100).await.unwrap();
        world.release(ino, handle.handle).await.unwrap();
    });
    HistoryCost {
        any,
        listing,
        opening: opening.await,
    }
}

#[tokio::test]
async fn rows_read_of_a_history_grow_with_its_versions_only_in_a_listing() {
    let world = world().await;
    let mut saved = 0;
    let mut costs = Vec::new();
    for versions in [1_000, 10_000] {
        save_times(&world, "v.txt", versions - saved).await;
        saved = versions;
        world.namespace.drain().await.unwrap();
        world.advance(20_000 * MILLISECOND);
        let cost = history_cost(&world, versions).await;
        println!("{versions} versions: {cost:?}");
        assert_eq!(cost.any, 1, "{versions} versions: {cost:?}");
        // A row for each version, a second one for the last of each buffer of twenty, and a few for the links.
        let most = versions + versions / 10 + 30;
        assert!(cost.listing <= most, "{versions} versions: {cost:?}");
        costs.push(cost);
    }
    assert_eq!(costs[0].opening, costs[1].opening, "{costs:?}");
    assert!(costs[1].listing <= 12 * costs[0].listing, "{costs:?}");
}

#[tokio::test]
async fn a_version_before_a_rename_is_found_by_a_few_rows() {
    let world = world().await;
    save_often(&world, "old").await;
    world.advance(20_000 * MILLISECOND);
    let rename = world.rename(&ALICE, ROOT, b"old", ROOT, b"between", 0);
    rename.await.unwrap();
    world.save("between", "once more").await;
    world.advance(20_000 * MILLISECOND);
    let rename = world.rename(&ALICE, ROOT, b"between", ROOT, b"new", 0);
    rename.await.unwrap();
    world.namespace.drain().await.unwrap();
    let history = number(&world, ".versions/@files/new").await;
    let names = list_with_attributes(&world, history).await;
    // Each rename began a state.
    assert_eq!(names.len() as u64, VERSIONS + 5);
    check_each(&world, history, &names, 12).await;
    // Also where nothing was listed before: one version reads the history, the next ones do not.
    let other = world.mounted_as(crate::fs::FsConfig::default());
    let history = number(&other, ".versions/@files/new").await;
    other
        .lookup(&ALICE, history, names[9].as_bytes())
        .await
        .unwrap();
    check_each(&other, history, &names, 12).await;
}

#[tokio::test]
async fn a_version_of_a_linked_file_is_found_by_a_few_rows() {
    let world = world().await;
    let ino = world.save("one", "linked").await;
    world.link(&ALICE, ino, ROOT, b"two").await.unwrap();
    save_often(&world, "one").await;
    world.unlink(&ALICE, ROOT, b"two").await.unwrap();
    save_often(&world, "one").await;
    world.namespace.drain().await.unwrap();
    for (name, versions) in [("one", 2 * VERSIONS + 1), ("two", VERSIONS + 1)] {
        let history = number(&world, &format!(".versions/@files/{name}")).await;
        let mut names = Vec::new();
        let listed = rows(&world, async {
            names = list_with_attributes(&world, history).await;
        });
        let listed = listed.await;
        assert_eq!(names.len() as u64, versions + 2, "{name}");
        assert!(listed <= 3 * VERSIONS + 100, "{name}: {listed} rows");
        check_each(&world, history, &names, 8).await;
    }
}

#[tokio::test]
async fn a_tree_of_the_past_reads_a_row_or_two_for_each_name() {
    const NAMES: u64 = 100;
    let world = world().await;
    for number in 0..NAMES {
        world.save(&format!("f{number}"), "first").await;
    }
    world.namespace.drain().await.unwrap();
    world.advance(1_000 * MILLISECOND);
    for (change, each) in [("nothing", 1), ("half of it", 2), ("all of it", 2)] {
        let time = number(&world, ".versions/2026-11-20T21-26-48").await;
        let mut names = Vec::new();
        let listed = rows(&world, async {
            names = list_with_attributes(&world, time).await;
        });
        let listed = listed.await;
        assert_eq!(names.len() as u64, NAMES);
        // A row for each to list it, and one for its attributes where they may have changed since.
        assert!(listed <= NAMES * 2 + 80, "{change} changed: {listed} rows");
        for name in &names {
            let found = rows(&world, world.lookup(&ALICE, time, name.as_bytes())).await;
            assert!(found <= each, "{change} changed: {found} rows for {name}");
        }
        let half = if change == "nothing" {
            NAMES / 2
        } else {
            NAMES
        };
        for number in 0..half {
            world.save(&format!("f{number}"), change).await;
        }
        world.namespace.drain().await.unwrap();
    }
}

#[tokio::test]
async fn every_name_that_is_found_is_listed() {
    let world = world().await;
    for name in ["stays", "goes", "moves", "turns", "alone", "linked"] {
        world.save(name, "text").await;
    }
    // Longer than the lifetime of a transient name.
    world.advance(20_000 * MILLISECOND);
    for name in ["goes", "turns", "alone", "linked"] {
        let linked = (name == "linked").then_some(number(&world, name).await);
        if let Some(ino) = linked {
            world.link(&ALICE, ino, ROOT, b"other").await.unwrap();
        }
        world.unlink(&ALICE, ROOT, name.as_bytes()).await.unwrap();
    }
    let rename = world.rename(&ALICE, ROOT, b"moves", ROOT, b"moved", 0);
    rename.await.unwrap();
    for name in ["turns", "alone", "dir"] {
        let made = world.mkdir(&ALICE, ROOT, name.as_bytes(), 0o755, 0);
        made.await.unwrap();
    }
    world.rmdir(&ALICE, ROOT, b"alone").await.unwrap();
    let made = world.make("open").await;
    for (place, expected) in [
        ("@files", "alone goes linked moved moves other stays turns"),
        ("@deleted", "alone goes linked"),
    ] {
        let mut listed = world.ls(&format!(".versions/{place}")).await.unwrap();
        listed.sort();
        assert_eq!(listed.join(" "), expected);
        for name in world.ls("").await.unwrap().iter().chain(&listed) {
            let found = world.walk(&format!(".versions/{place}/{name}")).await;
            assert_eq!(found.is_ok(), listed.contains(name), "{place}/{name}");
        }
    }
    world.close(made).await;
}
