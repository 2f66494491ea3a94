//! The size of the log, seen in the store's directory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{XattrFlags, setxattr};

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::wait_until;

/// Bytes and number of all files below a directory.
fn size(directory: &Path) -> (u64, usize) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return (0, 0);
    };
    let mut all = (0, 0);
    for entry in entries.filter_map(Result::ok) {
        let (bytes, files) = match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => (meta.size(), 1),
            // The file was deleted since the listing.
            Err(_) => (0, 0),
        };
        all = (all.0 + bytes, all.1 + files);
    }
    all
}

#[test]
fn the_log_directory_shrinks_to_the_rows_that_are_left() {
    const VALUE: usize = 60_000;
    let bucket = tempfile::tempdir().unwrap();
    let log = bucket.path().join("main/log");
    let mut mount = TestMount::start(&Place::local(bucket.path()), &[]);
    std::fs::write(mount.path("kept"), "kept").unwrap();
    mount.drain();
    let mut most = 0;
    // Each change of the attribute writes it into the log once more, and only the last one is left in the index.
    let large = wait_until(Duration::from_secs(240), || {
        for round in 0..20_u8 {
            let value = [b'a' + round; VALUE];
            setxattr(mount.path("kept"), "user.x", &value, XattrFlags::empty()).unwrap();
        }
        mount.drain();
        let now = size(&log).0;
        let is_over = now > 60 << 20 || now < most / 2;
        most = most.max(now);
        is_over
    });
    assert!(large, "{most} bytes of log");
    // The rest of what makes the log large enough.
    for round in 0..200_u8 {
        let value = [round; VALUE];
        setxattr(mount.path("kept"), "user.x", &value, XattrFlags::empty()).unwrap();
    }
    mount.drain();
    let small = wait_until(Duration::from_secs(90), || size(&log).0 < 16 << 20);
    let left = size(&log);
    println!("at most {most} bytes of log, {left:?} bytes and objects at the end");
    assert!(small, "{left:?} of {most} bytes of log");
    let checked = mount.check_log("main");
    assert!(!checked.contains("missing"), "{checked}");
    mount.remount(Cache::Wiped);
    assert_eq!(mount.sh("cat kept"), "kept");
    std::fs::write(mount.path("after"), "after").unwrap();
    mount.drain();
    mount.kill9();
    mount.recover(Cache::Wiped);
    assert_eq!(mount.sh("cat kept after"), "keptafter");
    mount.drain();
    mount.check_log("main");
}
