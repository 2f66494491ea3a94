//! What the bucket is asked for: few requests for many files, few bytes for a small change.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::proxy::{Proxy, Request, summary};
use crate::support::random::Random;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::{long, scale, tree};

/// What a request takes longer than the server itself.
const DELAY: Duration = Duration::from_millis(20);

/// A fresh namespace on S3 behind a proxy that counts and delays.
struct Counted {
    /// The mount; dropped before what it stands on.
    mount: TestMount,
    /// What counts.
    proxy: Proxy,
    /// The server.
    _server: S3Server,
}

impl Counted {
    /// Starts all three; none if S3 is to be left untested.
    fn start() -> Option<Self> {
        let server = S3Server::start()?;
        let proxy = Proxy::start(server.address(), DELAY);
        let place = Place::s3(&format!("{BUCKET}/economy"), &proxy.endpoint());
        let mount = TestMount::start(&place, &[]);
        Some(Self {
            mount,
            proxy,
            _server: server,
        })
    }
}

/// Fails unless at most 100 requests brought content, and at least `bytes` came up in all.
#[track_caller]
fn check_puts(requests: &[Request], bytes: u64) {
    let puts = requests
        .iter()
        .filter(|request| request.is_data_put())
        .count();
    let sent: u64 = requests.iter().map(|request| request.sent).sum();
    println!("{puts} data PUTs\n{}", summary(requests));
    assert!(
        (1..=100).contains(&puts),
        "{puts} data PUTs, at most 100:\n{}",
        summary(requests)
    );
    assert!(
        sent >= bytes,
        "{sent} bytes came up, but {bytes} were written: what drained?\n{}",
        summary(requests)
    );
}

#[test]
fn ten_thousand_files_are_a_hundred_puts() {
    let Some(mut counted) = Counted::start() else {
        return;
    };
    let mut random = Random::new(11);
    for directory in 0..50 {
        let directory = counted.mount.path(format!("d{directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..200 {
            fs::write(directory.join(format!("f{file}")), random.bytes(4096)).unwrap();
        }
    }
    counted.mount.drain();
    check_puts(&counted.proxy.since(0), 10_000 * 4096);
    let before = tree::read_tree(&counted.mount.root());
    assert_eq!(before.len(), 10_050);
    counted.mount.remount(Cache::Wiped);
    tree::assert_equal(
        "after a remount with an empty cache",
        &before,
        &tree::read_tree(&counted.mount.root()),
    );
}

#[test]
fn rsync_of_five_thousand_files_is_a_hundred_puts() {
    let Some(counted) = Counted::start() else {
        return;
    };
    let source = tempfile::tempdir().unwrap();
    tree::plant(source.path(), 5000, 3000, 12);
    // rsync writes each file under a temporary name and renames it.
    counted
        .mount
        .sh(&format!("rsync -a {}/ copy/", source.path().display()));
    counted.mount.drain();
    check_puts(&counted.proxy.since(0), 5000 * 2000);
    let left = counted.mount.sh(&format!(
        "rsync -anic --delete {}/ copy/",
        source.path().display()
    ));
    assert_eq!(left, "", "what rsync would still change");
}

#[test]
fn four_kibibytes_in_a_large_file_are_little_to_upload() {
    let Some(counted) = Counted::start() else {
        return;
    };
    let mebibytes = scale(96, 1024);
    let path = counted.mount.path("large");
    let mut random = Random::new(13);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    for index in 0..mebibytes {
        file.write_all_at(&random.bytes(1 << 20), index << 20)
            .unwrap();
    }
    drop(file);
    counted.mount.drain();
    let quiet = Duration::from_secs(3);
    assert!(
        counted.proxy.settle(quiet, Duration::from_secs(120)),
        "uploads never end after drain"
    );

    let mark = counted.proxy.mark();
    let change = random.bytes(4096);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // Not at a boundary of anything.
    let at = (mebibytes / 2 * (1 << 20)) + 12_345;
    file.write_all_at(&change, at).unwrap();
    file.sync_all().unwrap();
    let requests = counted.proxy.since(mark);
    drop(file);
    let sent: u64 = requests.iter().map(|request| request.sent).sum();
    println!(
        "{mebibytes} MiB, long mode {}: {sent} bytes up\n{}",
        long(),
        summary(&requests)
    );
    assert!(
        sent < 64 << 10,
        "{sent} bytes came up for 4 KiB:\n{}",
        summary(&requests)
    );
    assert!(
        sent > 4096,
        "{sent} bytes came up: the change did not\n{}",
        summary(&requests)
    );

    let mut there = vec![0; 4098];
    let file = fs::File::open(&path).unwrap();
    file.read_exact_at(&mut there, at - 1).unwrap();
    assert_eq!(there[1..4097], change, "the change reads back");
    assert_eq!(file.metadata().unwrap().len(), mebibytes << 20);
}
