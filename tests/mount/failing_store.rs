//! A store that fails or refuses for a while: it gets few requests, waiting commands report the reason, and no data is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::disk::Disk;
use crate::support::mount::{
    Cache, PROGRAM, TestMount, force_unmount, is_mounted, mount_arguments,
};
use crate::support::place::Place;
use crate::support::proxy::{Failure, Proxy, summary};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::shell::{self, CommandResult};
use crate::support::wait_until;

/// An upper bound for every step on a busy machine.
const BOUND: Duration = Duration::from_secs(120);

/// The answer of a server that is overloaded.
const BUSY: Failure = Failure {
    methods: &[],
    status: "503 Slow Down",
    code: "SlowDown",
};

/// The answer to expired credentials.
const EXPIRED: Failure = Failure {
    methods: &[],
    status: "400 Bad Request",
    code: "ExpiredToken",
};

/// The answer to a client whose clock is wrong.
const SKEWED: Failure = Failure {
    methods: &[],
    status: "403 Forbidden",
    code: "RequestTimeTooSkewed",
};

/// A mount of a server behind a proxy that can fail.
fn behind(server: &S3Server, prefix: &str, flags: &[&str]) -> (Proxy, TestMount) {
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let place = Place::s3(&format!("{BUCKET}/{prefix}"), &proxy.endpoint());
    let mount = TestMount::start(&place, flags);
    mount.sh("echo before > before; sync before");
    (proxy, mount)
}

/// A command of the program with these arguments and the mountpoint.
fn command(words: &[&str], root: &Path) -> CommandResult {
    shell::run(Command::new(PROGRAM).args(words).arg(root), BOUND)
}

fn is_empty(mount: &TestMount) -> bool {
    mount.status()["pending"]["operations"] == 0
}

#[test]
fn requests_back_off_while_the_server_fails_and_resume_at_once() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let (proxy, mut mount) = behind(&server, "asked", &["--retries", "none"]);
    let mark = proxy.mark();
    proxy.fail(Some(BUSY));
    fs::write(mount.path("big"), vec![7; 3 << 20]).unwrap();
    mount.sh("mkdir d; echo small > d/small");
    std::thread::sleep(Duration::from_secs(20));
    let asked = proxy.since(mark);
    let puts: Vec<_> = asked.iter().filter(|r| r.is_data_put()).collect();
    let table = summary(&asked);
    let objects: BTreeSet<&str> = puts.iter().map(|put| put.target.as_str()).collect();
    // One upload of a large content and one of small contents.
    assert!((1..=2).contains(&objects.len()), "{objects:?}\n{table}");
    // Two attempts at once, then one after 1, 2, 4 and 8 s each.
    assert!(
        (2..=8).contains(&puts.len()),
        "{} uploads\n{table}",
        puts.len()
    );
    let index = asked.iter().filter(|r| r.target.contains("/meta/")).count();
    assert!((1..=40).contains(&index), "{index} of the index\n{table}");
    assert!(asked.len() <= 90, "{} requests\n{table}", asked.len());

    proxy.fail(None);
    let works = Instant::now();
    assert!(wait_until(BOUND, || is_empty(&mount)), "{}", mount.status());
    let took = works.elapsed();
    assert!(took < Duration::from_secs(6), "resumed after {took:?}");
    let objects: BTreeSet<String> = proxy
        .since(mark)
        .into_iter()
        .filter(|r| r.is_data_put())
        .map(|put| put.target)
        .collect();
    assert!(objects.len() <= 2, "{objects:?}");
    mount.remount(Cache::Wiped);
    assert!(fs::read(mount.path("big")).unwrap() == vec![7; 3 << 20]);
    assert_eq!(mount.sh("cat d/small"), "small\n");
}

#[test]
fn a_full_store_gets_few_attempts_and_all_uploads_once_it_has_space() {
    let store = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::at(store.path(), "24m") else {
        return;
    };
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let text: Vec<u8> = (0..40_u32 << 20).map(|n| (n / 4099) as u8).collect();
    fs::write(mount.path("big"), &text).unwrap();
    let fails = || mount.status()["pending"]["failures"].to_string();
    let failing = wait_until(BOUND, || fails().contains("No space left"));
    assert!(failing, "{}", mount.status());
    let sent = || mount.status()["requests"]["bytes_up"].as_u64().unwrap();
    let before = sent();
    std::thread::sleep(Duration::from_secs(15));
    let again = sent() - before;
    // Up to five uploads are in flight at the first failure, and once more after each of the two objects that still fit; then one object at
    // a time, after 1, 2, 4 and 8 s.
    assert!(again <= 19 * (9 << 20), "{again} bytes in 15 s");
    disk.resize("200m");
    let works = Instant::now();
    assert!(wait_until(BOUND, || is_empty(&mount)), "{}", mount.status());
    let took = works.elapsed();
    assert!(took < Duration::from_secs(8), "resumed after {took:?}");
    let segments = shell::sh(store.path(), "find main/data -type f | wc -l");
    assert!(segments.trim().parse::<u32>().unwrap() <= 8, "{segments}");
    mount.remount(Cache::Wiped);
    assert!(fs::read(mount.path("big")).unwrap() == text);
    mount.umount();
    drop(mount);
}

#[test]
fn drain_and_umount_retry_failed_uploads_and_report_them_on_a_terminal() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let (proxy, mut mount) = behind(&server, "waits", &["--retries", "none"]);
    let root = mount.root();
    // On a terminal, which script(1) makes.
    proxy.fail(Some(BUSY));
    mount.sh("echo one > f; head -c 2000000 /dev/zero > g");
    let works_again = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(6));
            proxy.fail(None);
        });
        let line = format!("{PROGRAM} drain {}", root.display());
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]);
        shell::run(&mut script, BOUND)
    });
    assert_eq!(works_again.code, Some(0), "{works_again}");
    assert!(works_again.took > Duration::from_secs(5), "{works_again}");
    for word in ["waiting for the bucket: ", "operations", "SlowDown"] {
        assert!(works_again.stdout.contains(word), "{word}: {works_again}");
    }

    proxy.fail(Some(BUSY));
    mount.sh("echo two > f");
    let stalled = command(&["drain", "--drain-timeout", "3s"], &root);
    assert_eq!(stalled.code, Some(1), "{stalled}");
    assert!(
        stalled.stderr.contains("nothing has moved for 3 s"),
        "{stalled}"
    );
    assert!(stalled.stderr.contains("SlowDown"), "{stalled}");
    assert!(stalled.took < Duration::from_secs(20), "{stalled}");
    assert!(
        !stalled.stderr.contains("waiting for"),
        "no terminal: {stalled}"
    );
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(4));
            proxy.fail(None);
        });
        command(&["umount"], &root)
    });
    assert_eq!(done.code, Some(0), "{done}");
    assert!(done.took > Duration::from_secs(3), "{done}");
    let ended = mount.ended(BOUND).and_then(|status| status.code());
    assert_eq!(ended, Some(0), "{}", mount.log_tail());
    mount.recover(Cache::Wiped);
    assert_eq!(mount.sh("cat f"), "two\n");
}

#[test]
fn with_an_expired_token_status_reports_it_and_umount_keep_ends_the_mount() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let (proxy, mut mount) = behind(&server, "expired", &[]);
    let root = mount.root();
    proxy.fail(Some(EXPIRED));
    // Only the flush of the index fails: no content is left to upload.
    mount.sh("mkdir d; mv before d/after");
    let told = || mount.status()["pending"]["failures"].to_string();
    assert!(
        wait_until(Duration::from_secs(20), || told().contains("ExpiredToken")),
        "{}",
        told()
    );
    proxy.fail(Some(SKEWED));
    assert!(
        wait_until(BOUND, || told().contains("RequestTimeTooSkewed")),
        "{}",
        told()
    );
    proxy.fail(Some(EXPIRED));
    assert!(
        wait_until(BOUND, || told().contains("ExpiredToken")),
        "{}",
        told()
    );
    mount.sh("echo text > d/new");
    for words in [
        &["umount"][..],
        &["umount", "--lazy"],
        &["umount", "--drain-timeout", "2s"],
    ] {
        let ran = command(words, &root);
        assert_eq!(ran.code, Some(1), "{ran}");
        for word in ["ExpiredToken", "rewindfs umount --keep", "still mounted"] {
            assert!(ran.stderr.contains(word), "{word}: {ran}");
        }
        assert!(ran.took < Duration::from_secs(40), "{ran}");
        assert!(is_mounted(&root));
    }
    let synced = shell::sh_within(&mount.path("d"), "sync new", Duration::from_secs(90));
    assert_eq!(synced.code, Some(1), "{synced}");
    let kept = command(&["umount", "--keep"], &root);
    assert_eq!(kept.code, Some(0), "{kept}");
    let cache = mount.cache().display().to_string();
    for word in ["kept in ", &cache, "1 files", "operations"] {
        assert!(kept.stdout.contains(word), "{word}: {kept}");
    }
    assert!(!is_mounted(&root));
    let ended = mount.ended(BOUND).and_then(|status| status.code());
    assert_eq!(ended, Some(0), "{}", mount.log_tail());
    proxy.fail(None);
    mount.mount();
    assert_eq!(mount.sh("ls; cat d/after d/new"), "d\nbefore\ntext\n");
    mount.remount(Cache::Wiped);
    assert_eq!(mount.sh("cat d/after d/new"), "before\ntext\n");
}

/// Unmounts when dropped, also when the test fails.
struct Unmounted<'a>(&'a Path);

impl Drop for Unmounted<'_> {
    fn drop(&mut self) {
        force_unmount(self.0);
    }
}

#[test]
fn a_mount_in_the_background_ends_while_the_bucket_is_unreachable() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let place = Place::s3(&format!("{BUCKET}/background"), &proxy.endpoint());
    let sandbox = tempfile::tempdir().unwrap();
    let (files, cache) = (sandbox.path().join("files"), sandbox.path().join("cache"));
    fs::create_dir(&files).unwrap();
    let _unmounted = Unmounted(&files);
    let mount = || {
        let mut command = Command::new(PROGRAM);
        command.args(mount_arguments(&place, &files, &cache));
        command.envs(place.variables.iter().cloned());
        shell::run(&mut command, BOUND).ok();
    };
    mount();
    proxy.fail(Some(BUSY));
    shell::sh(&files, "echo text > f; head -c 3000000 /dev/zero > g");
    let kept = command(&["umount", "--keep"], &files);
    assert_eq!(kept.code, Some(0), "{kept}");
    assert!(kept.stdout.contains("2 files"), "{kept}");
    assert!(kept.took < Duration::from_secs(30), "{kept}");
    proxy.fail(None);
    mount();
    assert_eq!(shell::sh(&files, "cat f; wc -c < g"), "text\n3000000\n");
    let idle = command(&["umount", "--keep"], &files);
    assert_eq!(idle.code, Some(0), "{idle}");
}
