//! What a crash leaves of a file without a name.

use std::fs::{self, File};
use std::io::Write;
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
    // Neither here nor in the bucket is anything left of what no version has.
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
