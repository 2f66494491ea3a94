//! Temporary files that a crash left behind are found and removed, and are kept while a running write may own them.

use super::*;
use std::fs::{File, create_dir_all};
use std::path::Path as FilePath;
use std::time::UNIX_EPOCH;

/// Noon of some day, in nanoseconds since 1970.
const NOON: u64 = 1_767_268_800_000_000_000;

/// Plants a file that was written so many seconds before noon.
fn plant(root: &FilePath, name: &str, seconds: u64) {
    let path = root.join(name);
    create_dir_all(path.parent().unwrap()).unwrap();
    let written = Duration::from_nanos(NOON) - Duration::from_secs(seconds);
    let file = File::create(path).unwrap();
    file.set_modified(UNIX_EPOCH + written).unwrap();
}

/// Sweeps at noon; tells which of `planted` are gone.
async fn gone(
    planted: &[(&'static str, u64)],
    locations: &[TempFileLocation],
) -> Vec<&'static str> {
    let (dir, backend) = local();
    let root = dir.path().join("bucket/ns");
    for (name, seconds) in planted {
        plant(&root, name, *seconds);
    }
    let removed = backend.child("ns").sweep_temp_files(NOON, locations).await;
    let names = planted.iter().map(|(name, _)| *name);
    let gone: Vec<_> = names.filter(|name| !root.join(name).exists()).collect();
    assert_eq!(removed.unwrap(), gone.len());
    gone
}

#[tokio::test]
async fn only_unfinished_writes_of_the_past_are_removed() {
    let planted = [
        ("a/k#1", 3601),
        ("a/k#12", 90_000),
        ("a/k#2", 3599),
        ("a/k", 90_000),
        ("a/k#", 90_000),
        ("a/#x", 90_000),
        ("a/k#1a", 90_000),
        ("a/deep/er/k#1", 90_000),
        ("b/k#1", 90_000),
    ];
    let found = gone(&planted, &[TempFileLocation::Tree("a")]).await;
    assert_eq!(found, ["a/k#1", "a/k#12", "a/deep/er/k#1"]);
    let found = gone(
        &planted,
        &[
            TempFileLocation::Directory("a"),
            TempFileLocation::Directory("none"),
        ],
    )
    .await;
    assert_eq!(found, ["a/k#1", "a/k#12"]);
}

#[tokio::test]
async fn where_keys_grow_only_their_end_is_visited() {
    let planted = [
        ("data/0/1/00/00/0#1", 9000),
        ("data/0/1/01/00/0#1", 9000),
        ("data/0/1/02/00/0#1", 9000),
        ("data/0/1/02/01/0#1", 9000),
        ("data/0/1/02/02/0#1", 9000),
        ("data/0/2/00/00/0#1", 9000),
        ("data/1/1/00/07/0#1", 9000),
    ];
    let found = gone(&planted, &[TempFileLocation::Newest("data", 2)]).await;
    let kept: Vec<_> = planted.iter().filter(|p| !found.contains(&p.0)).collect();
    assert_eq!(kept, [&planted[0], &planted[2]]);
}

#[tokio::test]
async fn elsewhere_there_is_nothing_to_sweep() {
    let backend = open("memory://orphans");
    backend.put("a", bytes("an object")).await.unwrap();
    let swept = backend
        .sweep_temp_files(NOON, &[TempFileLocation::Tree("")])
        .await;
    assert_eq!(swept.unwrap(), 0);
    assert_eq!(backend.list("").await.unwrap().len(), 1);
}
