//! Requests and bytes: few requests for many files, few uploaded bytes for a small change.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::proxy::{Proxy, Request, summary};
use crate::support::random::Random;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::server::request;
use crate::support::{long, scale, tree, wait_until};

/// The delay added to each request.
const DELAY: Duration = Duration::from_millis(20);

/// A fresh namespace on S3 behind a proxy that counts and delays.
struct CountedMount {
    /// The mount; dropped before its proxy and server.
    mount: TestMount,
    /// The proxy that counts.
    proxy: Proxy,
    /// The server.
    _server: S3Server,
}

impl CountedMount {
    /// Starts all three; `None` if S3 is left untested.
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

/// Fails unless at most 100 requests uploaded content, and at least `bytes` were uploaded in all.
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
        "{sent} bytes were uploaded, fewer than the {bytes} that were written\n{}",
        summary(requests)
    );
}

#[test]
fn ten_thousand_files_take_about_a_hundred_puts() {
    let Some(mut counted) = CountedMount::start() else {
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
fn rsync_of_five_thousand_files_takes_about_a_hundred_puts() {
    let Some(counted) = CountedMount::start() else {
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
    assert_eq!(left, "", "files that rsync would copy again");
}

#[test]
fn four_kibibytes_written_into_a_large_file_upload_little() {
    let Some(counted) = CountedMount::start() else {
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
        counted.proxy.wait_quiet(quiet, Duration::from_secs(120)),
        "uploads never end after drain"
    );

    let mark = counted.proxy.mark();
    let change = random.bytes(4096);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // An offset that is no multiple of a page, a block or a range.
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
        "{sent} bytes were uploaded for 4 KiB:\n{}",
        summary(&requests)
    );
    assert!(
        sent > 4096,
        "{sent} bytes were uploaded, fewer than the change has\n{}",
        summary(&requests)
    );

    let mut there = vec![0; 4098];
    let file = fs::File::open(&path).unwrap();
    file.read_exact_at(&mut there, at - 1).unwrap();
    assert_eq!(there[1..4097], change, "the change reads back");
    assert_eq!(file.metadata().unwrap().len(), mebibytes << 20);
}

/// The number of versions that `.versions/@files/NAME/` lists.
fn versions(mount: &TestMount, name: &str) -> usize {
    fs::read_dir(mount.path(".versions/@files").join(name))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.as_encoded_bytes()[0].is_ascii_digit()
        })
        .count()
}

#[test]
fn the_last_of_many_fsynced_appends_uploads_as_little_as_the_first() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let place = Place::s3(&format!("{BUCKET}/appends"), &proxy.endpoint());
    let mut mount = TestMount::start(&place, &[]);
    let (mebibytes, appends) = (scale(20, 100), scale(1000, 5000));
    let path = mount.path("log.txt");
    let mut random = Random::new(17);
    let mut expected: Vec<u8> = Vec::new();
    for _ in 0..mebibytes {
        expected.extend(random.bytes(1 << 20));
    }
    fs::write(&path, &expected).unwrap();
    mount.drain();
    assert_eq!(versions(&mount, "log.txt"), 1);

    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    let start = proxy.mark();
    let mut costs: Vec<u64> = Vec::new();
    for _ in 0..appends {
        let line = random.bytes(100);
        let mark = proxy.mark();
        file.write_all(&line).unwrap();
        file.sync_all().unwrap();
        costs.push(proxy.since(mark).iter().map(|request| request.sent).sum());
        expected.extend(line);
    }
    let requests = proxy.since(start);
    // Any one of the measured appends may include a periodic upload of the log or of an index table.
    let last = *costs[appends - 20..].iter().min().unwrap();
    println!(
        "{appends} appends, long mode {}: one of the last sent {last} bytes\n{}",
        long(),
        summary(&requests)
    );
    assert!(
        (101..64 << 10).contains(&last),
        "{last} bytes were uploaded for one of the last appends:\n{}",
        summary(&requests)
    );
    let all: u64 = requests.iter().map(|request| request.sent).sum();
    assert!(
        all < appends as u64 * (64 << 10),
        "{all} bytes were uploaded for {appends} appends, the log and the index included:\n{}",
        summary(&requests)
    );
    assert_eq!(
        versions(&mount, "log.txt"),
        1,
        "a file that is held open has no new version"
    );
    drop(file);
    let saved = wait_until(Duration::from_secs(20), || versions(&mount, "log.txt") == 2);
    assert!(saved, "{} versions", versions(&mount, "log.txt"));
    mount.drain();
    assert_eq!(versions(&mount, "log.txt"), 2);
    assert!(fs::read(&path).unwrap() == expected, "as written");
    mount.remount(Cache::Wiped);
    assert!(
        fs::read(&path).unwrap() == expected,
        "the bytes that the bucket has"
    );
    assert_eq!(versions(&mount, "log.txt"), 2);
}

#[test]
fn a_git_clone_of_four_hundred_files_takes_about_forty_puts() {
    let Some(counted) = CountedMount::start() else {
        return;
    };
    let source = tempfile::tempdir().unwrap();
    tree::plant(source.path(), 400, 6000, 18);
    crate::support::shell::sh(
        source.path(),
        "git init -q . && git add . && git commit -qm everything",
    );
    let mark = counted.proxy.mark();
    counted.mount.sh(&format!(
        "git clone -q file://{} clone",
        source.path().display()
    ));
    counted.mount.drain();
    let requests = counted.proxy.since(mark);
    let puts = requests
        .iter()
        .filter(|request| request.is_data_put())
        .count();
    println!("{puts} data PUTs\n{}", summary(&requests));
    assert!(
        (1..=40).contains(&puts),
        "{puts} data PUTs, at most 40:\n{}",
        summary(&requests)
    );
    let clean = counted
        .mount
        .sh("cd clone && git status --porcelain && git fsck --no-progress && git ls-files | wc -l");
    assert_eq!(clean.trim(), "400");
}

#[test]
fn a_mount_lists_only_the_end_of_the_log() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let place = Place::s3(&format!("{BUCKET}/long-log"), &proxy.endpoint());
    let mut mount = TestMount::start(&place, &[]);
    for name in ["one", "two", "three"] {
        fs::write(mount.path(name), name).unwrap();
        mount.drain();
    }
    mount.umount();
    // More than one page of objects older than the log's own.
    for sequence in 1..=1100 {
        let key = format!("log/00000/000/000/{:03x}/{sequence:03x}", sequence >> 12);
        let target = format!("/{BUCKET}/long-log/main/{key}");
        let answer = request(server.address(), "PUT", &target, Duration::from_secs(20));
        assert!(answer.unwrap().starts_with("HTTP/1.1 200"), "{target}");
    }

    let mark = proxy.mark();
    mount.mount();
    let requests = proxy.since(mark);
    let lists: Vec<_> = requests
        .iter()
        .map(|request| &request.target)
        .filter(|target| target.contains("list-type=2") && target.contains("main%2Flog%2F"))
        .collect();
    // The mount lists the log before it opens the index, to compare the two, and again when no other writer can add to it.
    assert_eq!(lists.len(), 2, "{lists:#?}\n{}", summary(&requests));
    let from_the_end = |list: &&String| list.contains("start-after=");
    assert!(lists.iter().all(from_the_end), "{lists:#?}");
    assert_eq!(mount.sh("cat one two three"), "onetwothree");
}

/// The number of requests that a mount sends while nothing is done in it, in `time`.
fn idle_requests(proxy: &Proxy, time: Duration) -> Vec<Request> {
    let mark = proxy.mark();
    std::thread::sleep(time);
    proxy.since(mark)
}

#[test]
fn an_idle_writer_sends_a_few_requests_a_minute() {
    let Some(counted) = CountedMount::start() else {
        return;
    };
    counted
        .mount
        .sh("mkdir d; for n in $(seq 50); do echo $n > d/f$n; done; echo more >> d/f1; sync d/f1");
    counted.mount.drain();
    // Its tables, the collection of its log, and the last checkpoint.
    std::thread::sleep(Duration::from_secs(20));
    let seconds = scale(60, 480);
    let requests = idle_requests(&counted.proxy, Duration::from_secs(seconds));
    println!("{} in {seconds} s\n{}", requests.len(), summary(&requests));
    // A tenth of a request a second. A short time also has what the work leaves, and on a busy machine polls that come late, which count as
    // pauses of the process.
    let bound = scale(20, 48);
    assert!(
        requests.len() as u64 <= bound,
        "{} requests in {seconds} s, at most {bound}:\n{}",
        requests.len(),
        summary(&requests)
    );
}

#[test]
fn an_idle_follower_sends_one_request_a_second() {
    let Some(mut counted) = CountedMount::start() else {
        return;
    };
    counted.mount.sh("echo one > f; sync f");
    counted.mount.umount();
    let place = Place::s3(&format!("{BUCKET}/economy"), &counted.proxy.endpoint());
    let follower = TestMount::start(&place, &["--read-only"]);
    follower.sh("cat f");
    std::thread::sleep(Duration::from_secs(5));
    let seconds = scale(30, 120);
    let requests = idle_requests(&counted.proxy, Duration::from_secs(seconds));
    println!("{} in {seconds} s\n{}", requests.len(), summary(&requests));
    let bound = seconds * 5 / 4;
    assert!(
        (seconds / 2..=bound).contains(&(requests.len() as u64)),
        "{} requests in {seconds} s, at most {bound}:\n{}",
        requests.len(),
        summary(&requests)
    );
}
