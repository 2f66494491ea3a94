//! pjdfstest 0.2.2: names, permissions, attributes and times of every call, and which error comes first.
//!
//! 14 tests are skipped everywhere: 13 remount read-only, and FUSE does not report a limit of links.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::mount::TestMount;
use crate::support::pjdfstest::{Counts, Remounts, complaints, configure, counts, program};
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::sandbox::Sandbox;
use crate::support::shell::{self, CommandResult};

/// An upper bound for the suite, several times the time on a busy machine.
const LIMIT: Duration = Duration::from_secs(400);

/// The counts of a correct file system as root.
const ALL: Counts = Counts {
    failed: 0,
    skipped: 14,
    passed: 384,
    expected: 0,
};

/// Fails unless the summary of `ran` is `expected`; the message has the failed tests.
#[track_caller]
fn check_counts(ran: &CommandResult, expected: Counts) {
    let found = counts(&ran.stdout);
    assert!(
        ran.code == Some(0) && found == Some(expected),
        "{found:?} instead of {expected:?}, exit status {:?}\n{}\n{}",
        ran.code,
        complaints(&ran.stdout),
        ran.stderr
    );
}

/// The whole suite, as root, on `root`.
#[track_caller]
fn run_on(root: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let configuration = scratch.path().join("pjdfstest.toml");
    configure(&configuration, Remounts::Refused);
    // A directory on another file system, for the tests that link across two file systems.
    let second = tempfile::tempdir_in("/dev/shm").unwrap();
    assert_ne!(
        root.metadata().unwrap().dev(),
        second.path().metadata().unwrap().dev()
    );
    let mut command = Command::new(program());
    command.arg("-c").arg(&configuration);
    command.arg("-p").arg(root);
    command.arg("-s").arg(second.path());
    check_counts(&shell::run(command.env("NO_COLOR", "1"), LIMIT), ALL);
}

#[test]
fn pjdfstest_passes_as_root_on_a_local_directory() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    run_on(&mount.root());
    mount.umount();
}

#[test]
fn pjdfstest_passes_as_root_on_s3() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let mut mount = TestMount::start(&server.place("pjdfstest"), &[]);
    run_on(&mount.root());
    mount.umount();
}

/// Through mount(8), so that the suite can remount read-only, which 13 tests need. These 13 run first and by themselves:
/// some of the other tests leave a file open, in an order that depends on the build, and while a file is open for writing
/// no file system can be remounted read-only, ext4 included.
#[test]
fn pjdfstest_passes_as_root_with_remounts_through_the_mount_helper() {
    let sandbox = Sandbox::new();
    sandbox.install(&program(), "pjdfstest");
    configure(&sandbox.path().join("remounts.toml"), Remounts::Allowed);
    configure(&sandbox.path().join("rest.toml"), Remounts::Refused);
    let ran = sandbox.run(
        r#"
        mount -t fuse.rewindfs -o "cache_dir=$sandbox/cache" "file://$sandbox/store" "$sandbox/files"
        mountpoint -q "$sandbox/files"
        code=0
        ./pjdfstest -c remounts.toml -p "$sandbox/files" -s /dev/shm erofs || code=$?
        echo "== the whole suite"
        ./pjdfstest -c rest.toml -p "$sandbox/files" -s /dev/shm || code=$?
        umount "$sandbox/files"
        exit $code
        "#,
        LIMIT,
    );
    check_counts(&ran, ALL);
    let (remounts, _) = ran.stdout.split_once("== the whole suite").unwrap();
    let each = Counts {
        failed: 0,
        skipped: 0,
        passed: 13,
        expected: 0,
    };
    assert_eq!(counts(remounts), Some(each), "{remounts}");
}

/// The tests that need no root pass on a mount that an ordinary user made with fusermount3.
#[test]
fn pjdfstest_passes_as_an_ordinary_user_on_an_own_mount() {
    let sandbox = Sandbox::new();
    sandbox.install(&program(), "pjdfstest");
    configure(&sandbox.path().join("pjdfstest.toml"), Remounts::Refused);
    let ran = sandbox.run(
        r#"
        # Commands that other users run must lie in a directory that they can enter.
        chown -R tests:tests "$sandbox/store" "$sandbox/cache" "$sandbox/files"
        as() { setpriv --reuid=tests --regid=tests --clear-groups env HOME="$sandbox/cache" TMPDIR="$sandbox/cache" "$@"; }
        as ./rewindfs mount "file://$sandbox/store" "$sandbox/files" --cache-dir "$sandbox/cache"
        as mountpoint -q "$sandbox/files"
        code=0
        as ./pjdfstest -c pjdfstest.toml -p "$sandbox/files" -s /dev/shm || code=$?
        as ./rewindfs umount "$sandbox/files"
        exit $code
        "#,
        LIMIT,
    );
    check_counts(
        &ran,
        Counts {
            failed: 0,
            skipped: 144,
            passed: 254,
            expected: 0,
        },
    );
}

#[test]
fn the_summary_of_pjdfstest_is_parsed() {
    let text = "a::b   ok\nc::d   FAILED\n\nSummary: 1 failed, 2 skipped, 30 passed, 4 expected failures, 37 total\n";
    let expected = Counts {
        failed: 1,
        skipped: 2,
        passed: 30,
        expected: 4,
    };
    assert_eq!(counts(text), Some(expected));
    assert!(complaints(text).starts_with("c::d"), "{text}");
    assert_eq!(counts("thread panicked"), None);
}
