//! Leases: who gets a namespace that a writer has or had, when, and what the writer before shows then.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::mount::{Cache, PROGRAM, TestMount, mount_arguments};
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::shell::{self, CommandResult};
use crate::support::wait_until;

/// A bound for what takes a second.
const SECONDS: Duration = Duration::from_secs(20);

/// The silence after which a writer is dead that no process waits for, and a bound for what follows.
const DEAD: Duration = Duration::from_secs(60);

fn signal(mount: &TestMount, name: &str) {
    let kill = format!("kill -{name} {}", mount.daemon_id());
    shell::sh(&mount.cache(), &kill);
}

/// Runs `rewindfs mount` on directories of its own and waits for its end, at most for `limit`.
fn mount_again(place: &Place, scratch: &Path, takeover: &str, limit: Duration) -> CommandResult {
    let (files, cache) = (scratch.join("files"), scratch.join("cache"));
    for directory in [&files, &cache] {
        fs::create_dir_all(directory).unwrap();
    }
    let mut command = Command::new(PROGRAM);
    command
        .args(mount_arguments(place, &files, &cache))
        .args(["--foreground", "--takeover", takeover])
        .envs(place.variables.iter().cloned());
    shell::run(&mut command, limit)
}

/// The kind of the error of a read.
fn read_error(path: &Path) -> Option<ErrorKind> {
    fs::read(path).err().map(|error| error.kind())
}

fn is_io_error(path: &Path) -> bool {
    let error = fs::read(path).err();
    error.is_some_and(|error| error.raw_os_error() == Some(5))
}

fn a_living_writer_keeps_its_namespace(place: &Place) {
    let mut first = TestMount::start(place, &["--takeover", "wait"]);
    first.sh("echo one > f");
    let scratch = tempfile::tempdir().unwrap();
    let refused = mount_again(place, scratch.path(), "never", SECONDS);
    assert_eq!(refused.code, Some(1), "{refused}");
    for part in ["a writer on ", "--takeover now"] {
        assert!(refused.stderr.contains(part), "{refused}");
    }
    // It waits as long as the writer lives, says for whom, and the writer knows of it.
    let waited = mount_again(place, scratch.path(), "wait", 2 * DEAD);
    assert_eq!(waited.code, None, "{waited}");
    assert!(
        waited.stderr.contains("waiting for the writer on "),
        "{waited}"
    );
    let status = first.status();
    assert_eq!(status["fenced"], false, "{status}");
    assert_eq!(status["lease"]["lapses"], 0, "{status}");
    assert!(status["lease"]["watched_by"].is_string(), "{status}");
    assert_eq!(first.sh("echo two >> f; cat f"), "one\ntwo\n");
    first.umount();
    // After an unmount the next one is served at once.
    let start = Instant::now();
    let mut second = TestMount::start(place, &["--takeover", "never"]);
    assert!(start.elapsed() < SECONDS, "{:?}", start.elapsed());
    assert_eq!(second.sh("cat f"), "one\ntwo\n");
    second.umount();
}

#[test]
fn a_living_writer_of_a_local_directory_keeps_its_namespace() {
    let directory = tempfile::tempdir().unwrap();
    a_living_writer_keeps_its_namespace(&Place::local(directory.path()));
}

#[test]
fn a_living_writer_of_an_s3_bucket_keeps_its_namespace() {
    let Some(server) = S3Server::start() else {
        return;
    };
    a_living_writer_keeps_its_namespace(&server.place("living"));
}

#[test]
fn a_killed_writer_is_followed_at_once_with_its_cache_and_after_a_minute_without() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let place = server.place("killed");
    let mut first = TestMount::start(&place, &["--takeover", "never"]);
    first.sh("echo one > f; sync f");
    for _ in 0..3 {
        first.kill9();
        let start = Instant::now();
        first.recover(Cache::Kept);
        assert!(start.elapsed() < SECONDS, "{:?}", start.elapsed());
    }
    first.kill9();
    let start = Instant::now();
    let mut second = TestMount::start(&place, &["--takeover", "wait"]);
    let took = start.elapsed();
    assert!((DEAD - SECONDS..DEAD + SECONDS).contains(&took), "{took:?}");
    assert_eq!(second.sh("cat f"), "one\n");
    second.umount();
}

/// A writer that was stopped shows nothing that another one has changed meanwhile, also nothing that its kernel had kept.
fn a_stopped_writer_shows_no_old_state(place: &Place) {
    let mut first = TestMount::start(place, &[]);
    first.sh("mkdir d; echo one > d/f; echo one > g; sync d/f g; ls -l d; cat d/f g");
    let held = fs::File::open(first.path("d/f")).unwrap();
    signal(&first, "STOP");
    let second = TestMount::start(place, &["--takeover", "now"]);
    second.sh("echo two > d/f; rm g; echo new > h; sync .");
    // Beyond the lease of the stopped one.
    std::thread::sleep(Duration::from_secs(52));
    signal(&first, "CONT");
    let start = Instant::now();
    let is_lost = || is_io_error(&first.path("d/f")) && is_io_error(&first.path("g"));
    assert!(wait_until(SECONDS, is_lost), "{}", first.log_tail());
    eprintln!("EIO after {:?}", start.elapsed());
    let read = std::os::unix::fs::FileExt::read_at(&held, &mut [0; 8], 0);
    assert_eq!(read.unwrap_err().raw_os_error(), Some(5));
    assert!(fs::read_dir(first.path("d")).is_err());
    assert_ne!(read_error(&first.path("h")), None);
    assert!(wait_until(SECONDS, || first.status()["fenced"] == true));
    drop(held);
    signal(&first, "KILL");
    assert!(first.ended(SECONDS).is_some());
    assert_eq!(second.sh("cat d/f h; ls"), "two\nnew\nd\nh\n");
}

#[test]
fn a_stopped_writer_of_a_local_directory_shows_no_old_state() {
    let directory = tempfile::tempdir().unwrap();
    a_stopped_writer_shows_no_old_state(&Place::local(directory.path()));
}

#[test]
fn a_stopped_writer_of_an_s3_bucket_shows_no_old_state() {
    let Some(server) = S3Server::start() else {
        return;
    };
    a_stopped_writer_shows_no_old_state(&server.place("stopped"));
}

#[test]
fn a_stop_without_another_writer_costs_a_moment_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(directory.path()), &[]);
    mount.sh("echo one > f; cat f");
    signal(&mount, "STOP");
    std::thread::sleep(Duration::from_secs(55));
    signal(&mount, "CONT");
    // The first call waits for the renewal instead of failing.
    assert_eq!(mount.sh("echo two >> f; cat f"), "one\ntwo\n");
    let status = mount.status();
    assert_eq!(status["lease"]["lapses"], 1, "{status}");
    assert_eq!(status["fenced"], false, "{status}");
    mount.umount();
}

/// A bound for a takeover by a standby, which takes ten seconds on a machine that is not busy.
const TAKEN: Duration = Duration::from_secs(20);

/// Waits until the writer knows that a standby waits for its namespace.
fn wait_until_watched(writer: &TestMount) {
    let watched = || writer.status()["lease"]["watched_by"].is_string();
    assert!(wait_until(DEAD, watched), "{}", writer.status());
}

/// Waits until a mount takes changes; returns how long that took.
fn wait_for_writes(mount: &TestMount) -> Duration {
    let start = Instant::now();
    let is_written = || fs::write(mount.path("probe"), "x").is_ok();
    assert!(wait_until(TAKEN, is_written), "{}", mount.log_tail());
    start.elapsed()
}

fn a_standby_goes_on(place: &Place) {
    let mut first = TestMount::start(
        place,
        &[
            "--takeover",
            "never",
            "--sync-on",
            "interval",
            "--sync-interval",
            "1h",
        ],
    );
    first.sh("mkdir d; echo one > d/f; echo one > g");
    first.drain();
    let mut second = TestMount::start(place, &["--standby"]);
    assert_eq!(second.sh("cat d/f g"), "one\none\n");
    assert_eq!(second.status()["mode"], "standby");
    let refused = fs::write(second.path("x"), "x").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    wait_until_watched(&first);
    first.sh("echo synced > s; sync s; echo two > d/f; sync d/f; echo lost > g");
    // A program that reads through the standby goes on with the same file and the same directory.
    let held = fs::File::open(second.path("d/f")).unwrap();
    let mut inside = Command::new("sh")
        .args(["-c", "read go; cat f; echo from inside > inside"])
        .current_dir(second.path("d"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    first.kill9();
    eprintln!("taken after {:?}", wait_for_writes(&second));
    assert_eq!(
        second.sh("rm probe; cat s d/f g; ls"),
        "synced\ntwo\none\nd\ng\ns\n"
    );
    let mut bytes = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&held, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"two\n");
    std::io::Write::write_all(inside.stdin.as_mut().unwrap(), b"go\n").unwrap();
    let inside = inside.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&inside.stdout), "two\n");
    assert_eq!(second.sh("cat d/inside"), "from inside\n");
    let status = second.status();
    assert_eq!(
        (&status["mode"], &status["fenced"]),
        (&"read-write".into(), &false.into()),
        "{status}"
    );
    // The new writer keeps versions, and a next standby follows it until it ends in order.
    second.sh("echo three > d/f");
    assert_eq!(
        second.sh("cat $(ls -d d/.versions/@files/f/2* | head -n 2 | tail -n 1)"),
        "two\n"
    );
    drop(held);
    let mut third = TestMount::start(place, &["--standby"]);
    second.umount();
    eprintln!("handed over after {:?}", wait_for_writes(&third));
    assert_eq!(third.sh("rm probe; cat d/f"), "three\n");
    third.umount();
    // What the killed writer had acknowledged and not uploaded comes back as a version.
    first.recover(Cache::Kept);
    assert_eq!(first.sh("cat g d/f"), "one\nthree\n");
    let versions = first.sh("cat .versions/@files/g/2*");
    assert!(versions.contains("lost"), "{versions}");
    first.umount();
    first.check_log("main");
}

#[test]
fn a_standby_of_a_local_directory_goes_on_after_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    a_standby_goes_on(&Place::local(directory.path()));
}

#[test]
fn a_standby_of_an_s3_bucket_goes_on_after_its_writer() {
    let Some(server) = S3Server::start() else {
        return;
    };
    a_standby_goes_on(&server.place("standby"));
}

#[test]
fn a_standby_takes_the_namespace_from_a_stopped_writer_which_then_answers_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::local(directory.path());
    let mut first = TestMount::start(&place, &["--takeover", "never"]);
    first.sh("echo one > f; sync f; cat f");
    let second = TestMount::start(&place, &["--standby"]);
    wait_until_watched(&first);
    signal(&first, "STOP");
    eprintln!("taken after {:?}", wait_for_writes(&second));
    second.sh("echo two > f; sync f");
    signal(&first, "CONT");
    assert!(
        wait_until(SECONDS, || is_io_error(&first.path("f"))),
        "{}",
        first.log_tail()
    );
    assert!(wait_until(SECONDS, || first.status()["fenced"] == true));
    signal(&first, "KILL");
    assert!(first.ended(SECONDS).is_some());
    assert_eq!(second.sh("cat f"), "two\n");
}
