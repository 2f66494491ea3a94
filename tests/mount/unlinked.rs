//! Unlinked files and directories: while they are open, and after a crash.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::random::Random;
use crate::support::shell;
use crate::support::wait_until;

#[test]
fn an_unlinked_open_file_is_gone_after_a_crash() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &["--grace", "1s"]);
    fs::write(mount.path("kept"), "kept").unwrap();
    mount.drain();
    let before = mount.status()["usage"].clone();
    let mut open = File::create(mount.path("f")).unwrap();
    open.write_all(&Random::new(1).bytes(20_000_000)).unwrap();
    fs::remove_file(mount.path("f")).unwrap();
    open.write_all(&Random::new(2).bytes(20_000_000)).unwrap();
    mount.kill9();
    drop(open);
    mount.recover(Cache::Kept);
    assert_eq!(mount.sh("ls"), "kept\n");
    assert_eq!(mount.status()["usage"], before);
    // Bytes that no version has are deleted from the cache and from the bucket.
    mount.drain();
    let staged = || shell::sh(&mount.cache(), "find */staging -type f | wc -l");
    let empty = wait_until(Duration::from_secs(60), || staged().trim() == "0");
    assert!(empty, "{} staging files are left", staged());
    let shown = mount.sh("cat .versions/@deleted/* 2>/dev/null | wc -c");
    let shown: u64 = shown.trim().parse().unwrap();
    let size = || -> u64 {
        let said = shell::sh(store.path(), "du -sb main/data | cut -f 1");
        said.trim().parse().unwrap()
    };
    let shrunk = wait_until(Duration::from_secs(90), || size() < shown + 1_000_000);
    assert!(shrunk, "still {} bytes; {}", size(), mount.status());
}

/// As on ext4 and tmpfs, the inode exists until the last open handle is closed.
#[test]
fn an_unlinked_open_inode_takes_new_attributes() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let control = tempfile::tempdir_in("/dev/shm").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mount/removed.py");
    for place in [control.path(), &mount.root()] {
        let command = format!("python3 {} {}", script.display(), place.display());
        assert_eq!(
            mount.sh(&command),
            "as it should be\n",
            "{}",
            place.display()
        );
    }
    // Nothing is left of the unlinked inodes.
    assert_eq!(mount.sh("ls"), "");
    mount.remount(Cache::Wiped);
    assert_eq!(mount.sh("ls"), "");
    mount.umount();
}
