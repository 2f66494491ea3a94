//! A whole directory tree as comparable lines: kind, mode, size, time, link target, hash.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Every entry below a directory, by its path below it.
pub(crate) type Tree = BTreeMap<PathBuf, String>;

/// Reads the whole tree below `root`; fails with the path of what cannot be read.
pub(crate) fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()));
        for entry in entries {
            let path = entry
                .unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()))
                .path();
            let line = describe(&path)
                .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
            if line.starts_with("directory") {
                open.push(path.clone());
            }
            let name = path
                .strip_prefix(root)
                .expect("below the root")
                .to_path_buf();
            assert!(
                tree.insert(name, line).is_none(),
                "listed twice: {}",
                path.display()
            );
        }
    }
    tree
}

/// One entry as a line; two lines are equal exactly when all visible attributes and the content are equal.
fn describe(path: &Path) -> std::io::Result<String> {
    let stat = fs::symlink_metadata(path)?;
    let common = format!(
        "mode {:o} owner {}:{} links {} mtime {}.{:09}",
        stat.mode() & 0o7777,
        stat.uid(),
        stat.gid(),
        stat.nlink(),
        stat.mtime(),
        stat.mtime_nsec()
    );
    let kind = stat.file_type();
    Ok(if kind.is_dir() {
        format!("directory {common}")
    } else if kind.is_symlink() {
        format!("symlink {common} -> {}", fs::read_link(path)?.display())
    } else if kind.is_file() {
        format!(
            "file {common} size {} hash {}",
            stat.size(),
            hash_file(path)?
        )
    } else {
        format!(
            "special {:o} {common} device {}",
            stat.mode() & 0o170_000,
            stat.rdev()
        )
    })
}

/// The BLAKE3 hash of a file's bytes, in hex.
pub(crate) fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// What differs between two trees, one line per entry; empty when nothing does.
pub(crate) fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, line) in before {
        match after.get(path) {
            None => found.push(format!("{}: gone, was {line}", path.display())),
            Some(now) if now != line => {
                found.push(format!(
                    "{}:\n    was {line}\n    is  {now}",
                    path.display()
                ));
            }
            Some(_) => {}
        }
    }
    for (path, line) in after {
        if !before.contains_key(path) {
            found.push(format!("{}: new, {line}", path.display()));
        }
    }
    found
}

/// Fails unless two trees are equal, with the first 20 differences.
#[track_caller]
pub(crate) fn assert_equal(what: &str, before: &Tree, after: &Tree) {
    let found = differences(before, after);
    let shown: Vec<&str> = found.iter().take(20).map(String::as_str).collect();
    assert!(
        found.is_empty(),
        "{what}: {} of {} entries differ:\n  {}",
        found.len(),
        before.len(),
        shown.join("\n  ")
    );
}

/// Writes `count` files of about `len` random bytes below `root`, 100 to a directory, some nested deeper.
pub(crate) fn plant(root: &Path, count: usize, len: usize, seed: u64) {
    let mut random = super::random::Random::new(seed);
    for number in 0..count {
        let directory = root
            .join(format!("part-{:02}", number / 100))
            .join(match number % 4 {
                0 => "deeper/still",
                _ => "",
            });
        fs::create_dir_all(&directory).expect("a directory");
        let len = len / 2 + random.below(len);
        let name =
            std::ffi::OsStr::from_bytes(format!("file {number:05}.bin").as_bytes()).to_owned();
        fs::write(directory.join(name), random.bytes(len)).expect("a file");
    }
}
