//! `rewindfs check` on a damaged namespace: which objects it names, and its exit status.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::shell::{self, CommandResult};

/// A namespace with a few log objects that no process has mounted.
struct Bucket {
    /// The store's directory.
    directory: tempfile::TempDir,
    /// What its log objects hold, by their keys.
    objects: BTreeMap<String, Vec<u8>>,
}

impl Bucket {
    /// Makes a bucket with one log object per round; each object holds a file of its own.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::local(directory.path());
        let mut mount = TestMount::start(&place, &[]);
        for round in 0..4 {
            fs::create_dir_all(mount.path(format!("a/b{round}"))).unwrap();
            fs::write(mount.path(format!("a/b{round}/c.txt")), "text").unwrap();
            mount.drain();
        }
        mount.umount();
        let mut bucket = Self {
            directory,
            objects: BTreeMap::new(),
        };
        bucket.read(&bucket.namespace().join("log"));
        assert!(bucket.objects.len() >= 4, "{:?}", bucket.objects.keys());
        bucket
    }

    fn namespace(&self) -> PathBuf {
        self.directory.path().join("main")
    }

    fn read(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.read(&path);
                continue;
            }
            let key = path.strip_prefix(self.namespace()).unwrap();
            let key = key.to_str().unwrap().to_owned();
            self.objects.insert(key, fs::read(path).unwrap());
        }
    }

    fn check(&self) -> CommandResult {
        let mut command = Command::new(PROGRAM);
        let url = format!("file://{}", self.directory.path().display());
        command.args(["check", &url]);
        shell::run(&mut command, Duration::from_secs(60))
    }
}

#[test]
fn check_names_missing_and_damaged_log_objects_and_the_paths_in_them() {
    let bucket = Bucket::new();
    let whole = bucket.check();
    assert_eq!(whole.code, Some(0), "{whole}");
    // No later object refers to the last one, so its loss cannot be noticed.
    let inner = bucket.objects.len() - 1;
    for (number, (key, bytes)) in bucket.objects.iter().enumerate().take(inner) {
        let path = bucket.namespace().join(key);
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        for (damage, said) in [
            (None, "is missing"),
            (Some(&bytes[..bytes.len() / 2]), "is damaged: log object: "),
            (Some(&flipped[..]), "is damaged: log object: checksum"),
        ] {
            match damage {
                None => fs::remove_file(&path).unwrap(),
                Some(bytes) => fs::write(&path, bytes).unwrap(),
            }
            let found = bucket.check();
            assert_eq!(found.code, Some(1), "{found}");
            let line = format!("object {key}: ");
            let line = found.stdout.lines().find(|l| l.starts_with(&line));
            assert!(line.is_some_and(|l| l.contains(said)), "{said}: {found}");
            let told = found.stdout.contains(&format!("a/b{number}/c.txt"));
            assert!(told, "object {number}: {found}");
            let keys = found.stdout.contains("\\x00");
            assert!(!keys, "a binary key: {found}");
            assert!(found.stderr.contains("log objects are missing or bad"));
        }
        fs::write(&path, bytes).unwrap();
    }
    let whole = bucket.check();
    assert_eq!(whole.code, Some(0), "{whole}");
}
