//! Durability, as docs/SEMANTICS.md describes it: fsync, close, failed uploads, and inode numbers after a crash.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::process::Command;
use std::time::Duration;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::proxy::Proxy;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::{shell, wait_until};

/// An upper bound for every step on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// A mount that uploads nothing by itself while a test runs.
fn lazy(place: &Place, flags: &[&str]) -> TestMount {
    let mut all = vec!["--sync-on", "interval", "--sync-interval", "1h"];
    if !flags.is_empty() {
        all = flags.to_vec();
    }
    TestMount::start(place, &all)
}

#[test]
fn closed_files_survive_the_loss_of_the_machine_when_close_waits() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = lazy(&Place::local(store.path()), &["--sync-on", "close"]);
    for number in 0..20 {
        let mut file = File::create(mount.path(format!("f{number}"))).unwrap();
        file.write_all(format!("content {number}").as_bytes())
            .unwrap();
    }
    fs::write(mount.path("big"), vec![7; 3 << 20]).unwrap();
    mount.kill9();
    mount.recover(Cache::Wiped);
    for number in 0..20 {
        let content = fs::read_to_string(mount.path(format!("f{number}"))).unwrap();
        assert_eq!(content, format!("content {number}"));
    }
    assert!(fs::read(mount.path("big")).unwrap() == vec![7; 3 << 20]);
}

#[test]
fn fsync_of_a_directory_and_o_sync_wait_for_the_bucket() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = lazy(&Place::local(store.path()), &[]);
    mount.sh("mkdir d; echo old > d/renamed; echo one > d/gone; sync d d/renamed d/gone");
    mount.sh("mkdir d/sub; mv d/renamed d/new; rm d/gone; ln -s target d/link; sync d");
    let mut synced = OpenOptions::new()
        .create(true)
        .append(true)
        .custom_flags(libc::O_SYNC)
        .open(mount.path("o_sync"))
        .unwrap();
    for _ in 0..3 {
        synced.write_all(b"line\n").unwrap();
    }
    // This file is neither closed nor synced, so it is lost.
    fs::write(mount.path("lost"), "never synced").unwrap();
    mount.kill9();
    drop(synced);
    mount.recover(Cache::Wiped);
    assert_eq!(
        mount.sh("ls d; readlink d/link; cat d/new"),
        "link\nnew\nsub\ntarget\nold\n"
    );
    assert_eq!(mount.sh("cat o_sync"), "line\nline\nline\n");
    assert!(!mount.path("lost").exists());
}

#[test]
fn a_file_open_at_a_crash_is_restored_and_marked_recovered() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = lazy(&Place::local(store.path()), &[]);
    fs::write(mount.path("f"), "closed\n").unwrap();
    let mut open = OpenOptions::new()
        .append(true)
        .open(mount.path("f"))
        .unwrap();
    open.write_all(b"open\n").unwrap();
    mount.kill9();
    drop(open);
    mount.recover(Cache::Kept);
    assert_eq!(mount.sh("cat f"), "closed\nopen\n");
    let told = mount.sh(
        "for v in .versions/@files/f/2*; do getfattr --only-values -n user.versions.op $v; echo; done",
    );
    let ops: Vec<&str> = told.lines().collect();
    assert_eq!(ops.last(), Some(&"recovered"), "{told}");
    assert_eq!(ops.len(), 2, "{told}");
}

#[test]
fn no_inode_number_is_given_twice() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = lazy(&Place::local(store.path()), &[]);
    let mut seen = HashSet::new();
    for round in 0..4 {
        for number in 0..50 {
            let path = mount.path(format!("f{number}"));
            fs::write(&path, "x").unwrap();
            let ino = fs::metadata(&path).unwrap().ino();
            assert!(seen.insert(ino), "{ino} again in round {round}");
            fs::remove_file(&path).unwrap();
        }
        match round {
            0 => mount.remount(Cache::Kept),
            1 => {
                mount.kill9();
                mount.recover(Cache::Kept);
            }
            2 => mount.remount(Cache::Wiped),
            _ => {}
        }
    }
}

/// A mount of a server behind a proxy that can refuse connections; the mount does not retry.
fn fragile(server: &S3Server, prefix: &str) -> (Proxy, TestMount) {
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let place = Place::s3(&format!("{BUCKET}/{prefix}"), &proxy.endpoint());
    let flags = ["--retries", "none", "--deadline", "5s"];
    let mount = TestMount::start(&place, &flags);
    (proxy, mount)
}

#[test]
fn a_failed_upload_shows_in_fsync_counters_log_and_exit_status() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let (proxy, mut mount) = fragile(&server, "truth");
    mount.sh("echo before > f; sync f");
    assert_eq!(
        mount.status()["pending"]["failures"][0],
        serde_json::Value::Null
    );
    proxy.refuse(true);
    let mut file = File::create(mount.path("g")).unwrap();
    file.write_all(&[7; 100_000]).unwrap();
    let refused = file.sync_all().unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(5), "{refused}");
    drop(file);
    let status = mount.status();
    let failures = status["pending"]["failures"].to_string();
    assert!(failures.contains("failed attempts"), "{status}");
    assert!(status["pending"]["files"].as_u64() > Some(0), "{status}");
    assert!(
        status["requests"]["failures"].as_u64() > Some(0),
        "{status}"
    );
    let told = mount.log_tail();
    assert!(told.contains("WARN") || told.contains("ERROR"), "{told}");
    proxy.refuse(false);
    // The same bytes are uploaded without a further call.
    let brought = wait_until(BOUND, || mount.status()["pending"]["operations"] == 0);
    assert!(brought, "{}", mount.log_tail());
    mount.sh("sync g");
    mount.remount(Cache::Wiped);
    assert!(fs::read(mount.path("g")).unwrap() == [7; 100_000]);
}

#[test]
fn the_next_mount_uploads_what_the_last_one_named_as_not_uploaded() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let (proxy, mut mount) = fragile(&server, "end");
    mount.sh("echo before > f; sync f");
    proxy.refuse(true);
    mount.sh("echo after > f; mkdir d; echo new > d/g");
    let daemon = mount.daemon_id().to_string();
    let terminate = || {
        shell::run(Command::new("kill").args(["-TERM", &daemon]), BOUND);
    };
    terminate();
    // The second SIGTERM ends the daemon without waiting for uploads.
    std::thread::sleep(Duration::from_secs(2));
    terminate();
    let status = mount.ended(BOUND).and_then(|status| status.code());
    assert_eq!(status, Some(1), "{}", mount.log_tail());
    let told = mount.log_tail();
    assert!(told.contains("not uploaded"), "{told}");
    proxy.refuse(false);
    mount.mount();
    assert_eq!(mount.sh("cat f d/g"), "after\nnew\n");
    mount.remount(Cache::Wiped);
    assert_eq!(
        mount.sh("cat f d/g .versions/@files/f/2*"),
        "after\nnew\nbefore\nafter\n"
    );
}
