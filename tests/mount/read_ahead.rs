//! Cold reads in order: whole segments are fetched ahead of the reader.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::proxy::{Proxy, Request, summary};
use crate::support::random::Random;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::{scale, tree};

/// The number of requests that read content.
fn data_gets(requests: &[Request]) -> usize {
    let is_data = |request: &&Request| request.method == "GET" && request.target.contains("/data/");
    requests.iter().filter(is_data).count()
}

/// The number of segments that were uploaded.
fn segments(requests: &[Request]) -> usize {
    let is_segment =
        |request: &&Request| request.method == "PUT" && request.target.contains("/data/");
    requests.iter().filter(is_segment).count()
}

/// Lowers the kernel's read-ahead to what a mount of an ordinary user has; such a user's tests have it already.
fn as_ordinary_user(mount: &TestMount) {
    let device = fs::metadata(mount.root()).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    fs::write(setting, "128").ok();
}

#[test]
fn a_large_file_is_read_cold_with_a_request_for_each_segment() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::from_millis(20));
    let place = Place::s3(&format!("{BUCKET}/read-ahead"), &proxy.endpoint());
    let mut mount = TestMount::start(&place, &[]);
    let mebibytes = scale(64, 512);
    let mut random = Random::new(23);
    let mut text = Vec::new();
    for _ in 0..mebibytes {
        text.extend(random.bytes(1 << 20));
    }
    fs::write(mount.path("large"), &text).unwrap();
    mount.drain();
    mount.remount(Cache::Wiped);
    as_ordinary_user(&mount);

    let mark = proxy.mark();
    let mut read = Vec::new();
    let mut file = File::open(mount.path("large")).unwrap();
    file.read_to_end(&mut read).unwrap();
    assert!(read == text, "the bytes of the file differ");
    let requests = proxy.since(mark);
    let gets = data_gets(&requests);
    println!("{gets} GETs for {mebibytes} MiB");
    // One for each segment, and the first steps are shorter.
    let most = mebibytes as usize / 8 + 12;
    assert!(gets <= most, "{gets} GETs\n{}", summary(&requests));
    drop(file);

    // The same through a version of the past.
    mount.remount(Cache::Wiped);
    as_ordinary_user(&mount);
    let mark = proxy.mark();
    let versions = mount.path(".versions/@files/large");
    let names = fs::read_dir(&versions).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| name.as_encoded_bytes()[0].is_ascii_digit());
    assert_eq!(names.len(), 1);
    assert!(fs::read(versions.join(&names[0])).unwrap() == text);
    let gets = data_gets(&proxy.since(mark));
    assert!(gets <= most, "{gets} GETs");

    // A reader that jumps about gets what it asks for.
    mount.remount(Cache::Wiped);
    let file = File::open(mount.path("large")).unwrap();
    let mut part = vec![0; 40_000];
    for number in 0..200 {
        let at = (number * 7_919_993) % (text.len() - part.len());
        file.read_exact_at(&mut part, at as u64).unwrap();
        assert!(part == text[at..at + part.len()], "at {at}");
    }
}

#[test]
fn the_files_of_a_tree_are_read_cold_with_few_requests() {
    read_tree_cold("tree", 1, 1500);
}

#[test]
fn the_files_of_a_tree_that_was_saved_in_many_parts_are_read_cold_with_few_requests() {
    read_tree_cold("parts", 16, 80);
}

/// Saves a tree in `parts` parts of `files` files, each drained before the next, and reads it from an empty cache.
fn read_tree_cold(name: &str, parts: u64, files: usize) {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::from_millis(20));
    let place = Place::s3(&format!("{BUCKET}/{name}"), &proxy.endpoint());
    let mut mount = TestMount::start(&place, &[]);
    let mark = proxy.mark();
    for part in 0..parts {
        let source = tempfile::tempdir().unwrap();
        tree::plant(source.path(), files, 40_000, 31 + part);
        mount.sh(&format!("cp -r {} part-{part}", source.path().display()));
        mount.drain();
    }
    // How many there are also depends on the time that a copy takes: what is saved waits a second for others.
    let segments = segments(&proxy.since(mark));
    let before = tree::read_tree(&mount.root());
    let bytes = mount.sh("find . -type f -printf '%s\n' | awk '{ all += $1 } END { print all }'");
    let bytes: u64 = bytes.trim().parse().unwrap();
    mount.remount(Cache::Wiped);

    let mark = proxy.mark();
    mount.sh("tar cf - . | wc -c");
    let requests = proxy.since(mark);
    let gets = data_gets(&requests);
    println!(
        "{gets} GETs for {bytes} bytes of {} entries in {segments} segments",
        before.len()
    );
    tree::assert_equal("read cold", &before, &tree::read_tree(&mount.root()));
    // A block has 256 KiB, and most segments have at least ten.
    let most = 2 * segments + 12;
    assert!(
        gets <= most,
        "{gets} GETs, at most {most}\n{}",
        summary(&requests)
    );
}
