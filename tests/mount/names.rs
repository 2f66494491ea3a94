//! Limits of names and paths, and calls that are refused without effect.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, openat, renameat_with};
use rustix::io::Errno;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::tree;

/// A fresh namespace on a local directory, mounted.
fn mounted() -> (tempfile::TempDir, TestMount) {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    (store, mount)
}

#[test]
fn a_name_may_hold_every_byte_except_slash_and_nul() {
    let (_store, mut mount) = mounted();
    let mut names = BTreeSet::new();
    for byte in (1..=255u8).filter(|byte| *byte != b'/') {
        let repeated = vec![byte; 255];
        let inside = [b"a".as_slice(), &[byte], b"b"].concat();
        names.extend([repeated, inside].map(OsString::from_vec));
    }
    for name in &names {
        fs::write(mount.path(name), name.as_bytes()).unwrap();
    }
    for _ in 0..2 {
        let listed: BTreeSet<OsString> = fs::read_dir(mount.root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(listed == names);
        for name in &names {
            assert_eq!(fs::read(mount.path(name)).unwrap(), name.as_bytes());
        }
        mount.remount(Cache::Wiped);
    }
    let long = mount.path(OsString::from_vec(vec![0xff; 256]));
    assert_eq!(
        fs::write(long, "").unwrap_err().raw_os_error(),
        Some(Errno::NAMETOOLONG.raw_os_error())
    );
}

#[test]
fn a_path_has_at_most_4095_bytes_and_a_tree_may_be_deeper() {
    let (_store, mut mount) = mounted();
    let root = File::open(mount.root()).unwrap();
    let directory = "d".repeat(255);
    // 15 directories with their slashes are 3,840 bytes; a name of 255 makes 4,095.
    let parent = vec![directory.as_str(); 15].join("/");
    let longest = format!("{parent}/{}", "f".repeat(255));
    assert_eq!(longest.len(), 4095);
    rustix::fs::mkdirat(&root, directory.as_str(), Mode::RWXU).unwrap();
    for depth in 2..=15 {
        let path = vec![directory.as_str(); depth].join("/");
        rustix::fs::mkdirat(&root, path, Mode::RWXU).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    drop(openat(&root, longest.as_str(), flags, Mode::RWXU).unwrap());
    let longer = format!("{longest}f");
    assert_eq!(
        openat(&root, longer, flags, Mode::RWXU).unwrap_err(),
        Errno::NAMETOOLONG
    );
    // Relative to a directory deeper paths are possible.
    let inside = openat(&root, parent.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    rustix::fs::mkdirat(&inside, directory.as_str(), Mode::RWXU).unwrap();
    let deeper = format!("{directory}/{directory}");
    rustix::fs::mkdirat(&inside, deeper.as_str(), Mode::RWXU).unwrap();
    drop(openat(&inside, format!("{deeper}/leaf"), flags, Mode::RWXU).unwrap());
    drop((root, inside));
    mount.remount(Cache::Wiped);
    assert_eq!(
        mount
            .sh("find . -name leaf | wc -c; find . | wc -l")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["4359", "20"]
    );
    mount.sh("rm -r d*");
    assert_eq!(mount.sh("ls -A"), "");
}

#[test]
fn calls_that_fuse_does_not_support_are_refused_without_effect() {
    let (_store, mount) = mounted();
    mount.sh("echo a >a; echo b >b; mkdir d");
    let before = tree::read_tree(&mount.root());
    let rename =
        |flags: RenameFlags| renameat_with(CWD, mount.path("a"), CWD, mount.path("b"), flags);
    assert_eq!(rename(RenameFlags::WHITEOUT), Err(Errno::INVAL));
    assert_eq!(
        rename(RenameFlags::WHITEOUT | RenameFlags::EXCHANGE),
        Err(Errno::INVAL)
    );
    assert_eq!(
        rename(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE),
        Err(Errno::INVAL)
    );
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    let nowhere = renameat_with(
        CWD,
        mount.path("a"),
        CWD,
        mount.path("c"),
        RenameFlags::EXCHANGE,
    );
    assert_eq!(nowhere, Err(Errno::NOENT));
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    assert_eq!(
        openat(CWD, mount.root(), flags, Mode::RWXU).unwrap_err(),
        Errno::OPNOTSUPP
    );
    let (from, to) = (
        File::open(mount.path("a")).unwrap(),
        File::options().write(true).open(mount.path("b")).unwrap(),
    );
    let cloned = rustix::fs::ioctl_ficlone(&to, &from);
    assert_eq!(cloned, Err(Errno::OPNOTSUPP));
    drop((from, to));
    tree::assert_equal("refused", &before, &tree::read_tree(&mount.root()));
}
