//! A random walk over a tree and a model of it, with a snapshot of the model after every step.
//!
//! Invariant: the clock advances between two steps, so that a snapshot's time lies after one step's last answer and
//! before the next step's first.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::random::Random;

/// The entry at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A regular file and its bytes.
    File(Vec<u8>),
    /// A directory; the number is its identity across renames.
    Directory(u32),
}

/// A tree by paths below the mount point.
pub(crate) type Model = BTreeMap<PathBuf, Node>;

/// The tree after one step.
pub(crate) struct Snapshot {
    /// The time, as a name below `.versions/`.
    pub(crate) stamp: String,
    /// A description of the step.
    pub(crate) step: String,
    /// The tree at that time.
    pub(crate) model: Model,
}

/// A random walk in progress.
pub(crate) struct RandomWalk {
    /// The directory that it changes.
    root: PathBuf,
    /// The seeded generator.
    random: Random,
    /// The expected tree.
    model: Model,
    /// The number of names used so far.
    names: usize,
    /// A snapshot after each step.
    pub(crate) snapshots: Vec<Snapshot>,
}

impl RandomWalk {
    /// A walk that starts in the empty directory `root`.
    pub(crate) fn new(root: &Path, seed: u64) -> Self {
        Self {
            root: root.to_path_buf(),
            random: Random::new(seed),
            model: Model::new(),
            names: 0,
            snapshots: Vec::new(),
        }
    }

    /// Takes one step and adds a snapshot.
    pub(crate) fn step(&mut self) {
        let what = match self.random.below(20) {
            0..=4 => self.write(),
            5..=6 => self.append(),
            7..=9 => self.patch(),
            10 => self.truncate(),
            11..=13 => self.save_by_rename(),
            14..=15 => self.make_directory(),
            16 => self.rename_file(),
            17..=18 => self.rename_directory(),
            _ => self.delete(),
        };
        let Some(what) = what else { return self.step() };
        std::thread::sleep(Duration::from_millis(2));
        self.snapshots.push(Snapshot {
            stamp: stamp(SystemTime::now()),
            step: format!("step {}: {what}", self.snapshots.len()),
            model: self.model.clone(),
        });
        std::thread::sleep(Duration::from_millis(2));
    }

    /// The steps up to the snapshot, for messages.
    pub(crate) fn trace(&self, snapshot: usize) -> String {
        let from = snapshot.saturating_sub(12);
        let to = (snapshot + 4).min(self.snapshots.len());
        let lines = self.snapshots[from..to]
            .iter()
            .map(|snapshot| format!("  {} {}", snapshot.stamp, snapshot.step));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Replaces a file's bytes, or makes a file.
    fn write(&mut self) -> Option<String> {
        let path = if self.random.below(2) == 0 {
            self.file()?
        } else {
            self.new_path()
        };
        let bytes = self.bytes();
        done("write", &path, fs::write(self.root.join(&path), &bytes));
        let what = format!("write {} bytes to {}", bytes.len(), path.display());
        self.model.insert(path, Node::File(bytes));
        Some(what)
    }

    /// Adds bytes at the end of a file.
    fn append(&mut self) -> Option<String> {
        let path = self.file()?;
        let bytes = self.bytes();
        let file = OpenOptions::new().append(true).open(self.root.join(&path));
        let mut file = done("open", &path, file);
        done(
            "append to",
            &path,
            std::io::Write::write_all(&mut file, &bytes),
        );
        self.content(&path).extend_from_slice(&bytes);
        Some(format!(
            "append {} bytes to {}",
            bytes.len(),
            path.display()
        ))
    }

    /// Overwrites bytes inside a file or beyond its end.
    fn patch(&mut self) -> Option<String> {
        let path = self.file()?;
        let bytes = self.bytes();
        let at = self.random.below(200_000);
        let file = done(
            "open",
            &path,
            OpenOptions::new().write(true).open(self.root.join(&path)),
        );
        done("patch", &path, file.write_all_at(&bytes, at as u64));
        let content = self.content(&path);
        let end = at + bytes.len();
        if content.len() < end && !bytes.is_empty() {
            content.resize(end, 0);
        }
        if !bytes.is_empty() {
            content[at..end].copy_from_slice(&bytes);
        }
        Some(format!(
            "patch {} bytes at {at} of {}",
            bytes.len(),
            path.display()
        ))
    }

    /// Cuts a file or lengthens it by a hole.
    fn truncate(&mut self) -> Option<String> {
        let path = self.file()?;
        let len = self.random.below(150_000);
        let file = done(
            "open",
            &path,
            OpenOptions::new().write(true).open(self.root.join(&path)),
        );
        done("truncate", &path, file.set_len(len as u64));
        self.content(&path).resize(len, 0);
        Some(format!("truncate {} to {len}", path.display()))
    }

    /// Saves a file as editors do: a temporary file, renamed over it.
    fn save_by_rename(&mut self) -> Option<String> {
        let path = self.file()?;
        let bytes = self.bytes();
        self.names += 1;
        let temporary = self
            .root
            .join(path.with_file_name(format!(".saving-{}", self.names)));
        done("write", &temporary, fs::write(&temporary, &bytes));
        done(
            "rename to",
            &path,
            fs::rename(&temporary, self.root.join(&path)),
        );
        let what = format!("save {} bytes by rename to {}", bytes.len(), path.display());
        self.model.insert(path, Node::File(bytes));
        Some(what)
    }

    /// Makes a directory.
    fn make_directory(&mut self) -> Option<String> {
        let path = self.new_path();
        done("mkdir", &path, fs::create_dir(self.root.join(&path)));
        let what = format!("mkdir {}", path.display());
        self.names += 1;
        let number = u32::try_from(self.names).expect("few names");
        self.model.insert(path, Node::Directory(number));
        Some(what)
    }

    /// Renames a file, to a fresh name or over another file.
    fn rename_file(&mut self) -> Option<String> {
        let from = self.file()?;
        let to = if self.random.below(3) == 0 {
            self.file()?
        } else {
            self.new_path()
        };
        done(
            "rename",
            &from,
            fs::rename(self.root.join(&from), self.root.join(&to)),
        );
        let node = self.model.remove(&from).expect("a file of the model");
        let what = format!("rename {} to {}", from.display(), to.display());
        self.model.insert(to, node);
        Some(what)
    }

    /// Renames a directory with all that is in it.
    fn rename_directory(&mut self) -> Option<String> {
        let from = self.directory()?;
        let to = self.new_path();
        if to.starts_with(&from) {
            return None;
        }
        done(
            "rename",
            &from,
            fs::rename(self.root.join(&from), self.root.join(&to)),
        );
        let inside = self.inside(&from);
        for path in &inside {
            let node = self.model.remove(path).expect("an entry of the model");
            let below = path.strip_prefix(&from).expect("below the directory");
            // Joined with nothing, a path would end in a slash.
            let path = if below.as_os_str().is_empty() {
                to.clone()
            } else {
                to.join(below)
            };
            self.model.insert(path, node);
        }
        Some(format!(
            "rename directory {} ({} entries) to {}",
            from.display(),
            inside.len(),
            to.display()
        ))
    }

    /// Deletes a file, or rarely a directory with all its entries.
    fn delete(&mut self) -> Option<String> {
        let whole = self.random.below(4) == 0;
        let path = if whole {
            self.directory()?
        } else {
            self.file()?
        };
        let full = self.root.join(&path);
        done(
            "delete",
            &path,
            if whole {
                fs::remove_dir_all(full)
            } else {
                fs::remove_file(full)
            },
        );
        let inside = self.inside(&path);
        for path in &inside {
            self.model.remove(path);
        }
        Some(format!(
            "delete {} ({} entries)",
            path.display(),
            inside.len()
        ))
    }

    /// A file of the model.
    fn file(&mut self) -> Option<PathBuf> {
        self.choose(|node| matches!(node, Node::File(_)))
    }

    /// A directory of the model.
    fn directory(&mut self) -> Option<PathBuf> {
        self.choose(|node| matches!(node, Node::Directory(_)))
    }

    /// Some entry of a kind; none while there is none.
    fn choose(&mut self, kind: impl Fn(&Node) -> bool) -> Option<PathBuf> {
        let found: Vec<PathBuf> = self
            .model
            .iter()
            .filter(|(_, node)| kind(node))
            .map(|(path, _)| path.clone())
            .collect();
        (!found.is_empty()).then(|| self.random.pick(&found).clone())
    }

    /// An unused path in a random directory; names of removed entries are reused now and then.
    fn new_path(&mut self) -> PathBuf {
        let parent = if self.random.below(3) == 0 {
            None
        } else {
            self.directory()
        };
        let parent = parent.unwrap_or_default();
        loop {
            let number = self.random.below(self.model.len() + 8);
            let path = parent.join(format!("n{number}"));
            if !self.model.contains_key(&path) {
                return path;
            }
        }
    }

    /// A path and everything below it.
    fn inside(&self, path: &Path) -> Vec<PathBuf> {
        self.model
            .keys()
            .filter(|key| key.starts_with(path))
            .cloned()
            .collect()
    }

    /// The bytes of a file of the model.
    fn content(&mut self, path: &Path) -> &mut Vec<u8> {
        match self.model.get_mut(path) {
            Some(Node::File(bytes)) => bytes,
            other => panic!("{} is no file of the model: {other:?}", path.display()),
        }
    }

    /// Bytes to write: mostly few, sometimes more than a journal record takes.
    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.random.below(10) {
            0..=5 => 1 + self.random.below(5_000),
            6..=8 => 1 + self.random.below(50_000),
            _ => 1 + self.random.below(300_000),
        };
        self.random.bytes(len)
    }
}

/// The value of a step that must succeed.
#[track_caller]
fn done<T>(what: &str, path: &Path, result: std::io::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("cannot {what} {}: {error}", path.display()))
}

/// What differs between a directory and the part of `model` below `under`; empty when nothing does.
pub(crate) fn compare(found_at: &Path, model: &Model, under: &Path) -> Vec<String> {
    let mut differences = Vec::new();
    let mut found = BTreeMap::new();
    if let Err(error) = read_nodes(found_at, Path::new(""), &mut found) {
        differences.push(format!("{}: {error}", found_at.display()));
        return differences;
    }
    let expected = model
        .iter()
        .filter_map(|(path, node)| Some((path.strip_prefix(under).ok()?, node)))
        .filter(|(path, _)| !path.as_os_str().is_empty());
    for (path, node) in expected {
        match (node, found.remove(path)) {
            (_, None) => differences.push(format!("{}: missing", path.display())),
            (Node::Directory(_), Some(None)) => {}
            (Node::File(bytes), Some(Some(there))) if *bytes == there => {}
            (Node::File(bytes), Some(Some(there))) => differences.push(format!(
                "{}: {} bytes, should be {}; first difference at {:?}",
                path.display(),
                there.len(),
                bytes.len(),
                bytes.iter().zip(&there).position(|(a, b)| a != b)
            )),
            (_, Some(_)) => differences.push(format!("{}: of another kind", path.display())),
        }
    }
    differences.extend(
        found
            .keys()
            .map(|path| format!("{}: should not be there", path.display())),
    );
    differences
}

/// Reads every entry below `directory`: the bytes of files, none for directories.
fn read_nodes(
    directory: &Path,
    name: &Path,
    found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>,
) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = name.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            read_nodes(&entry.path(), &name, found)?;
            found.insert(name, None);
        } else {
            found.insert(name, Some(fs::read(entry.path())?));
        }
    }
    Ok(())
}

/// A time as a name below `.versions`, in UTC with nanoseconds.
fn stamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).expect("after 1970");
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}-{:02}-{:02}.{:09}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_nanos()
    )
}

/// The date of a day since 1970-01-01.
fn date(mut day: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while day >= if leap(year) { 366 } else { 365 } {
        day -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if day < length {
            return (year, month, day + 1);
        }
        day -= length;
    }
    unreachable!("a day beyond December")
}

#[test]
fn a_stamp_is_a_date() {
    let of = |seconds| stamp(UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(of(0), "1970-01-01T00-00-00.000000000Z");
    assert_eq!(of(951_827_696), "2000-02-29T12-34-56.000000000Z");
    assert_eq!(of(1_795_209_608), "2026-11-20T21-20-08.000000000Z");
}
