//! Faults of a machine or a bucket: the message names each, the exit status is right, and other files stay readable.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::mount::{Cache, PROGRAM, TestMount, is_mounted, mount_arguments};
use crate::support::place::Place;
use crate::support::random::Random;
use crate::support::shell::{self, CommandResult};

/// The errno for bytes that cannot be read.
const EIO: i32 = 5;

/// Directories for a store, a mount point and a cache that every user may use. They lie below `/tmp`, because root's own
/// scratch directory is closed to other users.
fn scratch() -> tempfile::TempDir {
    let scratch = tempfile::tempdir_in("/tmp").unwrap();
    let open = || fs::Permissions::from_mode(0o777);
    fs::set_permissions(scratch.path(), open()).unwrap();
    for name in ["store", "files", "cache"] {
        fs::create_dir(scratch.path().join(name)).unwrap();
        fs::set_permissions(scratch.path().join(name), open()).unwrap();
    }
    scratch
}

/// Runs the shell script `before` and then mounts the store in `scratch`, in a mount namespace of their own; `user` is the
/// command prefix that changes the user.
fn mount_after(scratch: &Path, before: &str, user: &str) -> CommandResult {
    let place = Place::local(&scratch.join("store"));
    let arguments = mount_arguments(&place, &scratch.join("files"), &scratch.join("cache"));
    // The program may lie in a directory that only root can enter.
    let program = scratch.join("rewindfs");
    if !program.exists() {
        fs::copy(PROGRAM, &program).unwrap();
    }
    let script = format!("set -e; {before}\nexec {user} \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]);
    command.arg(&program).args(&arguments);
    shell::run(&mut command, Duration::from_secs(30))
}

/// Fails unless a mount was refused in time with status 1 and a message with these words.
#[track_caller]
fn refused(scratch: &Path, ran: &CommandResult, words: &[&str]) {
    assert!(
        !is_mounted(&scratch.join("files")),
        "mounted all the same: {ran}"
    );
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.took < Duration::from_secs(10), "{ran}");
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` is not named: {ran}");
    }
    assert!(!ran.stderr.contains("panicked"), "{ran}");
}

#[test]
fn a_mount_without_the_fuse_device_fails_with_a_message() {
    let scratch = scratch();
    let bare = "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; \
                mknod -m 666 /dev/random c 1 8";
    let ran = mount_after(scratch.path(), bare, "");
    refused(scratch.path(), &ran, &["/dev/fuse"]);
}

/// Runs a program as another user.
const ACCOUNT_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// A script that gives `/dev/fuse` these permission bits.
fn device(scratch: &Path, mode: &str) -> String {
    let over = scratch.join("over");
    let over = over.display();
    format!(
        "mkdir {over}; mount -t tmpfs none {over}; mknod -m {mode} {over}/fuse c 10 229; mount --bind {over}/fuse /dev/fuse"
    )
}

#[test]
fn an_ordinary_user_without_fusermount3_gets_a_message() {
    let scratch = scratch();
    let program = shell::sh(Path::new("/"), "command -v fusermount3");
    let device = device(scratch.path(), "666");
    let hide = format!("{device}; mount --bind /dev/null {}", program.trim());
    let ran = mount_after(scratch.path(), &hide, ACCOUNT_NOBODY);
    refused(scratch.path(), &ran, &["fusermount3"]);
}

#[test]
fn an_ordinary_user_who_may_not_open_the_device_gets_a_message() {
    let scratch = scratch();
    let ran = mount_after(
        scratch.path(),
        &device(scratch.path(), "600"),
        ACCOUNT_NOBODY,
    );
    refused(scratch.path(), &ran, &["/dev/fuse", "chmod 666"]);
}

#[test]
fn the_message_names_a_cache_directory_that_is_not_writable() {
    let scratch = scratch();
    let cache = scratch.path().join("cache");
    let named = cache.display().to_string();
    let read_only = format!("mount -t tmpfs -o ro none {named}");
    refused(
        scratch.path(),
        &mount_after(scratch.path(), &read_only, ""),
        &[&named],
    );
    let full = format!(
        "mount -t tmpfs -o size=64k none {named}; head -c 65536 /dev/zero > {named}/full || true"
    );
    refused(
        scratch.path(),
        &mount_after(scratch.path(), &full, ""),
        &[&named],
    );
    // The refused mounts left no files that prevent a mount.
    let mut mount = TestMount::start(&Place::local(&scratch.path().join("store")), &[]);
    fs::write(mount.path("f"), "works").unwrap();
    mount.umount();
}

#[test]
fn a_newer_format_is_refused() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    TestMount::start(&Place::local(&store), &[]).umount();
    let identity = store.join("main/namespace.json");
    let text = fs::read_to_string(&identity).unwrap();
    let newer = text.replacen("\"format\": 1", "\"format\": 2", 1);
    assert_ne!(newer, text);
    fs::write(&identity, newer).unwrap();
    let ran = mount_after(scratch.path(), "", "");
    refused(
        scratch.path(),
        &ran,
        &["namespace.json", "format 2", "newer rewindfs"],
    );
}

#[test]
fn the_cache_of_another_namespace_is_refused() {
    let scratch = scratch();
    let other = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(other.path()), &[]);
    fs::write(mount.path("f"), "theirs").unwrap();
    mount.kill9();
    let theirs = only_entry(&mount.cache());
    TestMount::start(&Place::local(&scratch.path().join("store")), &[]).umount();
    let identity = fs::read_to_string(scratch.path().join("store/main/namespace.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&identity).unwrap();
    let ours = scratch
        .path()
        .join("cache")
        .join(identity["uuid"].as_str().unwrap());
    let copied = format!("cp -a {} {}", theirs.display(), ours.display());
    shell::sh(scratch.path(), &copied);
    let ran = mount_after(scratch.path(), "", "");
    refused(scratch.path(), &ran, &["belongs to namespace"]);
}

fn only_entry(directory: &Path) -> PathBuf {
    let mut entries = fs::read_dir(directory).unwrap();
    let entry = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none(), "the directory has one entry");
    entry
}

/// The segments of a bucket that is a directory, by size, largest first.
fn segments(directory: &Path, found: &mut Vec<(u64, PathBuf)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            segments(&path, found);
        } else {
            found.push((fs::metadata(&path).unwrap().len(), path));
        }
    }
    found.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
}

#[test]
fn a_damaged_or_missing_segment_is_logged_and_other_files_stay_readable() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let mut random = Random::new(31);
    let large: Vec<Vec<u8>> = [5 << 20, 4 << 20, 3 << 20]
        .map(|len| random.bytes(len))
        .to_vec();
    for (number, bytes) in large.iter().enumerate() {
        fs::write(mount.path(format!("large{number}")), bytes).unwrap();
    }
    fs::write(mount.path("small"), "small\n").unwrap();
    mount.drain();
    mount.kill9();
    let mut found = Vec::new();
    segments(&store.path().join("main/data"), &mut found);
    // The largest holds the first file, the next the second.
    let (damaged, missing) = (&found[0].1, &found[1].1);
    let mut bytes = fs::read(damaged).unwrap();
    bytes[1 << 20] ^= 1;
    fs::write(damaged, bytes).unwrap();
    fs::remove_file(missing).unwrap();

    mount.recover(Cache::Wiped);
    for name in ["large0", "large1"] {
        let error = fs::read(mount.path(name)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EIO), "{name}: {error}");
    }
    assert!(fs::read(mount.path("large2")).unwrap() == large[2]);
    assert_eq!(fs::read_to_string(mount.path("small")).unwrap(), "small\n");
    fs::write(mount.path("new"), "new\n").unwrap();
    mount.drain();
    let log = mount.log_tail();
    for segment in [damaged, missing] {
        let key = segment.strip_prefix(store.path().join("main")).unwrap();
        let key = key.display().to_string();
        assert!(log.contains(&key), "{key} is not named:\n{log}");
    }
}

#[test]
fn the_log_names_the_path_and_the_version_of_an_unreadable_file() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let mut random = Random::new(37);
    fs::create_dir_all(mount.path("a/b")).unwrap();
    let old = random.bytes(2 << 20);
    fs::write(mount.path("a/b/c.txt"), &old).unwrap();
    mount.drain();
    fs::write(mount.path("a/b/c.txt"), random.bytes(1 << 20)).unwrap();
    mount.drain();
    let versions = mount.sh("ls a/b/.versions/@files/c.txt | grep -v -e latest -e previous");
    let versions: Vec<&str> = versions.lines().collect();
    assert_eq!(versions.len(), 2, "{versions:?}");
    mount.kill9();
    let mut found = Vec::new();
    segments(&store.path().join("main/data"), &mut found);
    let damaged = &found[0].1;
    let mut bytes = fs::read(damaged).unwrap();
    bytes[1 << 19] ^= 1;
    fs::write(damaged, bytes).unwrap();

    mount.recover(Cache::Wiped);
    let past = mount.path("a/b/.versions/@files/c.txt").join(versions[0]);
    let error = fs::read(past).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
    // The log has the time to the millisecond, as the listing does.
    let stamp = &versions[0][.."2026-11-20T21-26-48.123".len()];
    let named = |name: &str| format!("file={name}, version {stamp}");
    let log = mount.log_tail();
    assert!(log.contains(&named("a/b/c.txt")), "{stamp}:\n{log}");
    let lines = |log: &str| log.lines().filter(|l| l.contains("a/b/c.txt, ")).count();
    let told = lines(&log);

    let time = versions[0].strip_suffix(".txt").unwrap();
    let then = mount.path(".versions").join(time).join("a/b/c.txt");
    let error = fs::read(then).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
    let log = mount.log_tail();
    assert!(lines(&log) > told, "through a time:\n{log}");

    // After a restore the live file has the unreadable content.
    mount.sh(&format!(
        "cp a/b/.versions/@files/c.txt/{} 'live\n1'",
        versions[0]
    ));
    let error = fs::read(mount.path("live\n1")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
    let log = mount.log_tail();
    assert!(log.contains("file=live\\n1, version 20"), "{log}");
}
