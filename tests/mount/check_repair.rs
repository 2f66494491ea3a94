//! `rewindfs check` and `check --repair` on a bucket with one damaged object of each class: what a mount shows, what a check says, what a
//! repair does. Each test prints the rows of the table in docs/RELIABILITY.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::mount::{
    Cache, PROGRAM, TestMount, force_unmount, is_mounted, mount_arguments,
};
use crate::support::place::Place;
use crate::support::shell::{self, CommandResult};

/// The time within which a command ends.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Saves three files, each with bytes of its own and in a segment of its own.
pub(crate) fn save(mount: &TestMount) {
    for file in ["a", "b", "c"] {
        mount.sh(&format!("head -c 100000 /dev/urandom > {file}"));
        mount.drain();
    }
}

/// Reads every file and every version; a line for each, also for what cannot be read.
pub(crate) const READ: &str = "for f in a b c .versions/@files/*/2*; do \
                    sha256sum $f 2> /dev/null || echo \"unreadable $f\"; done";

/// How an object is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    Lost,
    Cut,
    Flipped,
}

const HARMS: [Harm; 3] = [Harm::Lost, Harm::Cut, Harm::Flipped];

impl Harm {
    fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Cut => "cut",
            Self::Flipped => "a byte changed",
        }
    }

    pub(crate) fn apply(self, object: &Path) {
        let mut bytes = fs::read(object).unwrap();
        match self {
            Self::Lost => return fs::remove_file(object).unwrap(),
            Self::Cut => bytes.truncate(bytes.len() / 2),
            Self::Flipped => {
                let at = bytes.len() / 3;
                bytes[at] ^= 0x20;
            }
        }
        fs::write(object, bytes).unwrap();
    }
}

/// What a mount shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The mount is refused, with this in the message.
    Refused(&'static str),
    /// Everything.
    All,
    /// Everything but the bytes in the object.
    OneUnreadable,
    /// The mount is refused, or reads fail; nothing wrong is shown.
    NothingWrong,
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// All is well.
    Sound,
    /// All is well, unless bytes of files are read; then this is in what it prints.
    FoundByReading(&'static str),
    /// Exit status 1, with this in what it prints.
    Found(&'static str),
    /// Exit status 1, or all is well.
    Either,
}

/// What a repair does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mended {
    /// It finds nothing to do.
    Nothing,
    /// It prints this, and a second check is sound.
    Mends(&'static str),
    /// It is refused: put the object back, or rebuild the index.
    Refused,
    /// It is refused, or a second check is sound.
    Either,
}

/// What is expected after a damage.
#[derive(Clone, Copy, Debug)]
struct Expected {
    seen: Seen,
    said: Said,
    mended: Mended,
}

/// A namespace whose writer was killed after everything was in the bucket.
pub(crate) struct Origin {
    directory: tempfile::TempDir,
    /// What [`READ`] prints.
    pub(crate) read: String,
}

/// Writes so many rows that the engine writes tables.
const MANY_ROWS: &str = "python3 -c '
import os
for number in range(500):
    file = os.open(\"row-%d\" % number, os.O_CREAT | os.O_WRONLY)
    os.write(file, os.urandom(3800))
    os.fsync(file)
    os.close(file)
'";

impl Origin {
    pub(crate) fn new() -> Self {
        Self::after(":")
    }

    /// Makes the namespace after a script.
    fn after(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let origin = directory.path().join("origin");
        fs::create_dir(&origin).unwrap();
        let place = Place::local(&origin);
        let mut mount = TestMount::start(&place, &[]);
        mount.sh(script);
        save(&mount);
        save(&mount);
        // An unmount moves the rows of the write-ahead log into tables; a kill leaves them there.
        mount.remount(Cache::Kept);
        save(&mount);
        let read = mount.sh(READ);
        assert!(read.lines().count() >= 12, "{read}");
        mount.kill9();
        force_unmount(&mount.root());
        Self { directory, read }
    }

    /// A copy of the bucket.
    pub(crate) fn copy(&self, name: &str) -> Copied {
        let root = self.directory.path().join(name);
        let from = self.directory.path().join("origin");
        let script = format!("cp -a {} {}", from.display(), root.display());
        shell::sh(self.directory.path(), &script);
        Copied {
            place: Place::local(&root),
            namespace: root.join("main"),
        }
    }
}

/// A bucket that a test damages.
pub(crate) struct Copied {
    pub(crate) place: Place,
    /// The namespace's directory in it.
    pub(crate) namespace: PathBuf,
}

impl Copied {
    /// The objects below a part of the namespace that are not empty, sorted.
    pub(crate) fn objects(&self, part: &str) -> Vec<PathBuf> {
        let script = format!("find {part} -type f -size +0 | sort");
        let listed = shell::sh(&self.namespace, &script);
        listed.lines().map(PathBuf::from).collect()
    }

    fn rewindfs(&self, words: &[&str]) -> CommandResult {
        let mut command = Command::new(PROGRAM);
        command.arg(words[0]).arg(&self.place.url).args(&words[1..]);
        if let Some(endpoint) = &self.place.endpoint {
            command.args(["--endpoint", endpoint]);
        }
        command.envs(self.place.variables.iter().cloned());
        shell::run(&mut command, LIMIT)
    }

    pub(crate) fn check(&self, flags: &[&str]) -> CommandResult {
        self.rewindfs(&[&["check"], flags].concat())
    }

    pub(crate) fn repair(&self, flags: &[&str]) -> CommandResult {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path().display().to_string();
        let writer = ["--repair", "--no-writer", "--cache-dir", &cache];
        self.check(&[&writer, flags].concat())
    }

    /// Mounts with an empty cache and reads. Returns what was read, or the refusal of the mount.
    pub(crate) fn mounted(&self, script: &str) -> Result<String, CommandResult> {
        let scratch = tempfile::tempdir().unwrap();
        let (root, cache) = (scratch.path().join("files"), scratch.path().join("cache"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&cache).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .args(mount_arguments(&self.place, &root, &cache))
            .args(["--takeover", "now"])
            .envs(self.place.variables.iter().cloned());
        let mounted = shell::run(&mut command, LIMIT);
        if mounted.code != Some(0) {
            assert!(!is_mounted(&root), "{mounted}");
            return Err(mounted);
        }
        let read = shell::sh_within(&root, script, LIMIT);
        let mut command = Command::new(PROGRAM);
        command.args(["umount", &root.display().to_string(), "--lazy"]);
        shell::run(&mut command, LIMIT);
        force_unmount(&root);
        Ok(read.stdout)
    }
}

/// The paths that could not be read; fails if anything else is not what it was.
#[track_caller]
pub(crate) fn unreadable(read: &str, expected: &str) -> Vec<String> {
    let mut bad = Vec::new();
    for (found, right) in read.lines().zip(expected.lines()) {
        match found.strip_prefix("unreadable ") {
            Some(path) => bad.push(path.to_owned()),
            None => assert_eq!(found, right),
        }
    }
    assert_eq!(read.lines().count(), expected.lines().count(), "{read}");
    bad
}

fn both(ran: &CommandResult) -> String {
    format!("{}{}", ran.stdout, ran.stderr)
}

/// The first line of an output with `word` in it, with the places of this test taken out.
fn line_with(text: &str, word: &str) -> String {
    let line = text.lines().find(|line| line.contains(word));
    line.unwrap_or_default().trim().to_owned()
}

#[track_caller]
fn shows(seen: Seen, bucket: &Copied, origin: &Origin) -> String {
    match (seen, bucket.mounted(READ)) {
        (Seen::Refused(word), Err(refused)) => {
            assert_eq!(refused.code, Some(1), "{refused}");
            assert!(refused.stderr.contains(word), "no {word:?}: {refused}");
            format!("refused: `{word}`")
        }
        (Seen::All, Ok(read)) => {
            assert_eq!(unreadable(&read, &origin.read), Vec::<String>::new());
            "everything".to_owned()
        }
        (Seen::OneUnreadable, Ok(read)) => {
            let bad = unreadable(&read, &origin.read);
            // The state of a file, once as the file and once as its version.
            assert_eq!(bad.len(), 2, "{bad:?}");
            "EIO for its bytes, everything else".to_owned()
        }
        (Seen::NothingWrong, Ok(read)) => {
            for line in read.lines() {
                let is_right = origin.read.contains(line);
                assert!(is_right || line.starts_with("unreadable "), "{line}");
            }
            "mounted, reads fail".to_owned()
        }
        (Seen::NothingWrong, Err(refused)) => {
            assert_eq!(refused.code, Some(1), "{refused}");
            "refused".to_owned()
        }
        (seen, Ok(read)) => panic!("expected {seen:?}: {read}"),
        (seen, Err(refused)) => panic!("expected {seen:?}: {refused}"),
    }
}

#[track_caller]
fn says(said: Said, bucket: &Copied) -> String {
    let told = bucket.check(&[]);
    match said {
        Said::Sound => {
            assert_eq!(told.code, Some(0), "{told}");
            "sound".to_owned()
        }
        Said::FoundByReading(word) => {
            assert_eq!(told.code, Some(0), "{told}");
            let told = bucket.check(&["--read-data"]);
            assert_eq!(told.code, Some(1), "{told}");
            assert!(told.stdout.contains(word), "no {word:?}: {told}");
            format!(
                "with `--read-data` alone: `{}`",
                line_with(&both(&told), word)
            )
        }
        Said::Found(word) => {
            assert_eq!(told.code, Some(1), "{told}");
            assert!(both(&told).contains(word), "no {word:?}: {told}");
            format!("`{}`", line_with(&both(&told), word))
        }
        Said::Either => {
            assert!(matches!(told.code, Some(0 | 1)), "{told}");
            format!("exit status {}", told.code.unwrap())
        }
    }
}

#[track_caller]
fn mends(mended: Mended, bucket: &Copied, origin: &Origin) -> String {
    let told = bucket.repair(&["--read-data"]);
    let second = bucket.check(&["--read-data"]);
    match mended {
        Mended::Nothing => {
            assert_eq!(told.code, Some(0), "{told}");
            let word = "nothing is to be repaired";
            assert!(told.stdout.contains(word), "{told}");
            assert_eq!(second.code, Some(0), "{second}");
            "nothing".to_owned()
        }
        Mended::Mends(word) => {
            assert_eq!(told.code, Some(0), "{told}");
            assert!(told.stdout.contains(word), "no {word:?}: {told}");
            assert_eq!(second.code, Some(0), "{second}");
            let read = bucket.mounted(READ).unwrap();
            unreadable(&read, &origin.read);
            format!("`{}`", line_with(&told.stdout, word))
        }
        Mended::Refused => {
            assert_eq!(told.code, Some(1), "{told}");
            "refused".to_owned()
        }
        Mended::Either => match told.code {
            Some(0) => {
                assert_eq!(second.code, Some(0), "{second}");
                "mends what it can".to_owned()
            }
            _ => {
                assert_eq!(told.code, Some(1), "{told}");
                "refused".to_owned()
            }
        },
    }
}

/// Damages one object of a class in each way, each in a copy of the bucket. `choose` selects it among the objects of `part`.
#[track_caller]
fn each_harm(
    class: &str,
    part: &str,
    choose: fn(Vec<PathBuf>) -> PathBuf,
    expected: [Expected; 3],
) {
    each_harm_of(&Origin::new(), class, part, choose, expected);
}

#[track_caller]
fn each_harm_of(
    origin: &Origin,
    class: &str,
    part: &str,
    choose: fn(Vec<PathBuf>) -> PathBuf,
    expected: [Expected; 3],
) {
    for (harm, expected) in HARMS.into_iter().zip(expected) {
        let bucket = origin.copy(&format!("{harm:?}"));
        let object = choose(bucket.objects(part));
        println!("{class}, {harm:?}: {}", object.display());
        harm.apply(&bucket.namespace.join(&object));
        let said = says(expected.said, &bucket);
        // A mount may write, so it has a bucket of its own.
        let other = origin.copy(&format!("{harm:?}-mounted"));
        harm.apply(&other.namespace.join(&object));
        let seen = shows(expected.seen, &other, origin);
        let mended = mends(expected.mended, &bucket, origin);
        println!("| {class} | {} | {seen} | {said} | {mended} |", harm.word());
    }
}

pub(crate) fn newest(objects: Vec<PathBuf>) -> PathBuf {
    objects.last().expect("an object").clone()
}

fn second(objects: Vec<PathBuf>) -> PathBuf {
    objects.get(1).expect("two objects").clone()
}

const LOST_BYTES: Expected = Expected {
    seen: Seen::OneUnreadable,
    said: Said::Found("100000 of 100000 bytes cannot be read"),
    mended: Mended::Mends("1 contents newly marked as damaged"),
};

const REFUSED: Expected = Expected {
    seen: Seen::Refused("Put the named objects back"),
    said: Said::Found("Put the named objects back"),
    mended: Mended::Refused,
};

const UNNOTICED: Expected = Expected {
    seen: Seen::All,
    said: Said::Sound,
    mended: Mended::Nothing,
};

#[test]
fn a_damaged_segment_is_named_by_path_and_version_and_marked() {
    let changed = Expected {
        said: Said::FoundByReading("do not match their hash"),
        ..LOST_BYTES
    };
    each_harm(
        "segment (`data/`)",
        "data",
        newest,
        [LOST_BYTES, LOST_BYTES, changed],
    );
}

#[test]
fn a_damaged_log_object_is_named_and_the_log_begins_again() {
    let found = |word| Expected {
        seen: Seen::All,
        said: Said::Found(word),
        mended: Mended::Mends("the log begins again"),
    };
    each_harm(
        "log object (`log/`), not the newest",
        "log",
        second,
        [
            found("is missing"),
            found("is damaged"),
            found("is damaged"),
        ],
    );
}

#[test]
fn a_damaged_newest_log_object_is_replaced_by_a_list_of_all_rows() {
    let lost = Expected {
        seen: Seen::All,
        said: Said::Found("which the index has"),
        mended: Mended::Either,
    };
    let bad = Expected {
        seen: Seen::All,
        said: Said::Found("is damaged"),
        mended: Mended::Mends("the log begins again"),
    };
    each_harm(
        "log object (`log/`), the newest",
        "log",
        newest,
        [lost, bad, bad],
    );
}

#[test]
fn a_damaged_manifest_of_the_index_is_refused() {
    let lost = Expected {
        seen: Seen::NothingWrong,
        said: Said::Either,
        mended: Mended::Either,
    };
    each_harm(
        "the engine's manifest (`meta/manifest/`)",
        "meta/manifest",
        newest,
        [lost, REFUSED, REFUSED],
    );
}

#[test]
fn a_damaged_table_of_the_index_is_refused_or_named() {
    let changed = Expected {
        seen: Seen::NothingWrong,
        said: Said::Either,
        mended: Mended::Either,
    };
    each_harm_of(
        &Origin::after(MANY_ROWS),
        "the engine's table (`meta/compacted/`)",
        "meta/compacted",
        newest,
        [REFUSED, REFUSED, changed],
    );
}

#[test]
fn a_damaged_object_of_the_write_ahead_log_is_refused() {
    each_harm(
        "the engine's write-ahead log (`meta/wal/`)",
        "meta/wal",
        newest,
        [REFUSED; 3],
    );
}

#[test]
fn a_damaged_epoch_object_is_not_needed() {
    each_harm(
        "proof of an epoch (`epochs/`)",
        "epochs",
        newest,
        [UNNOTICED; 3],
    );
}

#[test]
fn a_damaged_writer_object_is_not_needed() {
    each_harm(
        "the writer's heartbeat (`writer.json`)",
        "writer.json",
        newest,
        [UNNOTICED; 3],
    );
}

#[test]
fn a_damaged_identity_is_refused() {
    let with = |word| Expected {
        seen: Seen::Refused(word),
        said: Said::Found(word),
        mended: Mended::Refused,
    };
    each_harm(
        "`namespace.json`",
        "namespace.json",
        newest,
        [
            with("namespace.json is missing"),
            with("namespace.json was changed or cut"),
            with("namespace.json was changed or cut"),
        ],
    );
}
