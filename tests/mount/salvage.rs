//! What a cache directory has of acknowledged changes is written as plain files, without the bucket.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::shell::{self, CommandResult};

fn salvage(cache: &Path, to: &Path, more: &[&str]) -> CommandResult {
    let mut command = Command::new(PROGRAM);
    command.arg("salvage").arg(cache).arg("--to").arg(to);
    shell::run(command.args(more), Duration::from_secs(60))
}

/// Every file of a directory with its content's checksum and its times.
fn listing(directory: &Path) -> String {
    let script =
        "find . -printf '%P %s %T@ %C@\\n' | sort; find . -type f -exec sha256sum {} + | sort";
    shell::sh(directory, script)
}

/// The one file below `directory` that is named `name`.
fn find(directory: &Path, name: &str) -> PathBuf {
    let found = shell::sh(directory, &format!("find . -name '{name}'"));
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    directory.join(found[0])
}

/// What is done while the bucket is out of reach. Returns the bytes of a large file, and a file that is still open.
fn work(mount: &TestMount) -> (Vec<u8>, File) {
    let path = |name: &str| mount.path(name);
    fs::create_dir_all(path("new/deep")).unwrap();
    for state in ["first", "second", "third"] {
        fs::write(path("new/deep/text"), state).unwrap();
    }
    let private = fs::Permissions::from_mode(0o640);
    fs::set_permissions(path("new/deep/text"), private).unwrap();
    let large = Random::new(5).bytes(3_000_000);
    fs::write(path("new/large"), &large).unwrap();
    fs::copy(path("new/large"), path("new/copy")).unwrap();
    for part in ["a", "b", "c"] {
        let grown = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path("new/grown"));
        grown.unwrap().write_all(part.as_bytes()).unwrap();
    }
    fs::write(path("new/temporary"), "renamed").unwrap();
    fs::rename(path("new/temporary"), path("new/final")).unwrap();
    fs::write(path("new/removed"), "removed").unwrap();
    fs::remove_file(path("new/removed")).unwrap();
    symlink("deep/text", path("new/link")).unwrap();
    fs::create_dir(path("new/empty")).unwrap();
    fs::write(path("old/note"), "after").unwrap();
    let big = OpenOptions::new().write(true).open(path("old/big"));
    big.unwrap().write_all_at(b"here", 500_000).unwrap();
    let mut log = OpenOptions::new().append(true).open(path("old/log"));
    log.as_mut().unwrap().write_all(b"two\n").unwrap();
    let mut open = File::create(path("new/open")).unwrap();
    open.write_all(b"not closed").unwrap();
    (large, open)
}

#[test]
fn what_was_acknowledged_in_an_outage_is_salvaged_without_the_bucket() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let place = Place::s3(&format!("{BUCKET}/salvage"), &proxy.endpoint());
    let mut mount = TestMount::start(&place, &[]);
    mount.sh("mkdir old; head -c 1000000 /dev/urandom > old/big; echo before > old/note; echo one > old/log");
    mount.umount();
    let out = tempfile::tempdir().unwrap();
    let nothing = salvage(&mount.cache(), &out.path().join("nothing"), &[]).ok();
    assert!(nothing.contains("no state of a file waits"), "{nothing}");
    mount.mount();
    proxy.refuse(true);
    let (large, open) = work(&mount);

    let to = out.path().join("new");
    let busy = salvage(&mount.cache(), &to, &[]);
    assert_eq!(busy.code, Some(1), "{busy}");
    assert!(busy.stderr.contains("in use by another mount"), "{busy}");
    mount.kill9();
    drop(open);

    let before = listing(&mount.cache());
    let told = salvage(&mount.cache(), &to, &["--json"]).ok();
    assert_eq!(
        listing(&mount.cache()),
        before,
        "the cache directory changed"
    );

    check_whole(&to, &large);

    // Earlier states, and that of a file that is gone.
    let older = to.join("older/new");
    let states = shell::sh(&older, "cat deep/text/*");
    assert_eq!(states, "firstsecond");
    assert_eq!(shell::sh(&older, "cat removed/*"), "removed");

    check_parts(&to, &told);

    // Nothing is written over, and a mount still has everything.
    let again = salvage(&mount.cache(), &to, &[]);
    assert_eq!(again.code, Some(2), "{again}");
    proxy.refuse(false);
    mount.mount();
    assert_eq!(
        fs::read_to_string(mount.path("new/deep/text")).unwrap(),
        "third"
    );
    assert_eq!(
        fs::read_to_string(mount.path("old/log")).unwrap(),
        "one\ntwo\n"
    );
    mount.umount();
}

/// The newest states of files that are here as a whole.
fn check_whole(to: &Path, large: &[u8]) {
    let files = to.join("files/new");
    let text = files.join("deep/text");
    assert_eq!(fs::read_to_string(&text).unwrap(), "third");
    let mode = fs::metadata(&text).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert!(fs::read(files.join("large")).unwrap() == large);
    assert!(fs::read(files.join("copy")).unwrap() == large);
    assert_eq!(fs::read_to_string(files.join("grown")).unwrap(), "abc");
    assert_eq!(fs::read_to_string(files.join("final")).unwrap(), "renamed");
    assert_eq!(fs::read_to_string(files.join("link")).unwrap(), "third");
    assert!(files.join("empty").is_dir());
    assert!(!files.join("temporary").exists() && !files.join("removed").exists());
    assert_eq!(
        fs::read_to_string(files.join("open")).unwrap(),
        "not closed"
    );
    let note = find(&to.join("files"), "note");
    assert_eq!(fs::read_to_string(note).unwrap(), "after");
}

/// Of what lay in the bucket only the changes are here.
fn check_parts(to: &Path, told: &str) {
    let big = fs::read(find(&to.join("parts"), "big")).unwrap();
    assert_eq!(big.len(), 1_000_000);
    assert!(
        &big[500_000..500_004] == b"here" && big.iter().filter(|byte| **byte != 0).count() == 4
    );
    let told: Value = serde_json::from_str(told).unwrap();
    let namespace = &told["namespaces"][0];
    assert_eq!(namespace["problems"], serde_json::json!([]));
    let files = namespace["files"].as_array().unwrap();
    let missing = |name: &str| {
        let file = files
            .iter()
            .find(|file| file["to"].as_str().unwrap().ends_with(name));
        file.unwrap()["missing"].clone()
    };
    assert_eq!(
        missing("/big"),
        serde_json::json!([[0, 500_000], [500_004, 1_000_000]])
    );
    assert_eq!(missing("/log"), serde_json::json!([[0, 4]]));
    let list = fs::read_to_string(to.join("salvage.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap(), *namespace);
}

#[test]
fn a_directory_without_a_journal_is_refused_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    for cache in [directory.path().to_owned(), directory.path().join("none")] {
        let refused = salvage(&cache, &out, &[]);
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(
            refused.stderr.contains(cache.to_str().unwrap()),
            "{refused}"
        );
    }
    assert!(!out.exists());
}
