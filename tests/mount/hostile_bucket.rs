//! A bucket that another program has written to: objects that are much longer than they may be. A mount that cannot use one is refused with a
//! message; none takes memory for it, and none writes outside its directories.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::mount::{
    Cache, PROGRAM, TestMount, force_unmount, is_mounted, mount_arguments,
};
use crate::support::place::Place;
use crate::support::shell::{self, CommandResult};

const LIMIT: Duration = Duration::from_secs(120);

/// The length of an object, of which no byte is on the disk.
const LONG: u64 = 16 << 30;

/// The address space of a process: much more than a mount needs, and less than the object.
const ADDRESSES: &str = "--as=8589934592";

const READ: &str = "cat f1 f2 s1 s2 | sha256sum; ls";

/// Runs a command of the program in a limited address space, in which an allocation for a long object fails and ends the process.
fn limited(words: &[String]) -> CommandResult {
    let mut command = Command::new("prlimit");
    command.arg(ADDRESSES).arg(PROGRAM).args(words);
    shell::run(&mut command, LIMIT)
}

/// The newest object of a part of a namespace that is not empty.
fn newest(namespace: &Path, part: &str) -> PathBuf {
    let path = namespace.join(part);
    if path.is_file() {
        return path;
    }
    let listed = shell::sh(&path, "find . -type f -size +0 | sort | tail -n 1");
    path.join(listed.trim().trim_start_matches("./"))
}

/// A namespace whose writer was killed after everything was in the bucket, and what is read in it.
fn killed(place: &Place) -> (TestMount, String) {
    let mut mount = TestMount::start(place, &[]);
    mount.sh("for i in 1 2; do head -c 100000 /dev/urandom > f$i; echo $i > s$i; done");
    mount.drain();
    let expected = mount.sh(READ);
    mount.kill9();
    force_unmount(&mount.root());
    (mount, expected)
}

/// Mounts with an empty cache in a limited address space, reads, and unmounts; or is refused with a message.
fn try_mount(mount: &TestMount, place: &Place, expected: &str, what: &str) {
    fs::remove_dir_all(mount.cache()).unwrap();
    fs::create_dir(mount.cache()).unwrap();
    let mut words = mount_arguments(place, &mount.root(), &mount.cache());
    words.extend(["--takeover", "now"].map(str::to_owned));
    let ran = limited(&words);
    assert!(!ran.stderr.contains("panicked"), "{what}: {ran}");
    if ran.code != Some(0) {
        assert_eq!(ran.code, Some(1), "{what}: {ran}");
        assert!(!is_mounted(&mount.root()), "{what}: {ran}");
        assert!(ran.stderr.lines().count() >= 1, "{what}: {ran}");
        return;
    }
    let read = shell::sh_within(&mount.root(), READ, LIMIT);
    assert!(
        read.code != Some(0) || read.stdout == expected,
        "{what}: {read}"
    );
    let point = mount.root().display().to_string();
    let words = ["status", &point].map(str::to_owned);
    let status = limited(&words);
    assert_eq!(status.code, Some(0), "{what}: {status}");
    let words = ["umount", &point, "--lazy"].map(str::to_owned);
    let ended = limited(&words);
    assert!(!is_mounted(&mount.root()), "{what}: {ended}");
}

#[test]
fn an_object_of_sixteen_gibibytes_is_not_read_into_memory() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let namespace = store.path().join("main");
    let (mut mount, expected) = killed(&place);
    try_mount(&mount, &place, &expected, "an intact namespace");
    let parts = [
        "namespace.json",
        "epochs",
        "log",
        "data",
        "meta/manifest",
        "meta/wal",
    ];
    for part in parts {
        let object = newest(&namespace, part);
        let whole = fs::read(&object).unwrap();
        let file = File::options().write(true).open(&object).unwrap();
        file.set_len(LONG).unwrap();
        drop(file);
        let what = object.display().to_string();
        try_mount(&mount, &place, &expected, &what);
        for command in ["check", "ls"] {
            let ran = limited(&[command.to_owned(), place.url.clone()]);
            assert!(matches!(ran.code, Some(0 | 1)), "{what}: {ran}");
            assert!(!ran.stderr.contains("panicked"), "{what}: {ran}");
        }
        // Garbage collection may have deleted what is not needed any more.
        if object.exists() {
            fs::write(&object, whole).unwrap();
        }
    }
    mount.recover(Cache::Wiped);
    assert_eq!(mount.sh(READ), expected);
    mount.umount();
}
