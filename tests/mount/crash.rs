//! kill -9 of the daemon while eight writers create, overwrite, append, patch, rename and save through a temporary file.
//!
//! Afterwards every acknowledged state is complete, and every file is in a state that a call left. With the cache wiped,
//! every fsynced file exists. There are ten rounds, or a hundred with `REWINDFS_TEST_LONG=1`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::crash_log::{Files, History};
use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::random::{Random, seed};
use crate::support::{scale, tree, wait_until};

/// How many processes write.
const WRITERS: usize = 8;

/// The errors of a call whose daemon has ended.
const GONE: [rustix::io::Errno; 2] = [rustix::io::Errno::NOTCONN, rustix::io::Errno::CONNABORTED];

/// The writers of one round; killed when dropped.
pub(crate) struct Writers {
    /// The processes.
    children: Vec<Child>,
    /// Their directories' parent.
    directory: PathBuf,
    /// Where their logs are.
    logs: PathBuf,
}

impl Writers {
    /// Starts the writers in `directory` and waits until each has begun.
    pub(crate) fn start(directory: &Path, logs: &Path, seed: u64) -> Self {
        fs::create_dir_all(logs).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mount/writer.py");
        let spawn = |number: usize| {
            Command::new("python3")
                .arg(&script)
                .arg(directory.join(format!("w{number}")))
                .arg(logs.join(number.to_string()))
                .args([number.to_string(), (seed % 1_000_000_007).to_string()])
                .stdin(Stdio::null())
                .spawn()
                .expect("python3 starts a writer")
        };
        let writers = Self {
            children: (0..WRITERS).map(spawn).collect(),
            directory: directory.to_path_buf(),
            logs: logs.to_path_buf(),
        };
        let begun = wait_until(Duration::from_secs(60), || {
            (0..WRITERS)
                .all(|n| fs::metadata(logs.join(n.to_string())).is_ok_and(|log| log.len() > 500))
        });
        assert!(begun, "not every writer has begun within a minute");
        writers
    }

    /// Kills the writers themselves.
    pub(crate) fn kill(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Waits until every writer has ended by itself because its daemon has ended.
    fn wait(&mut self) {
        let ended = wait_until(Duration::from_secs(60), || {
            self.children
                .iter_mut()
                .all(|child| child.try_wait().is_ok_and(|status| status.is_some()))
        });
        assert!(
            ended,
            "a writer still hangs a minute after its daemon was killed"
        );
        for child in &mut self.children {
            let status = child.wait().unwrap();
            assert!(status.success(), "a writer failed by itself: {status}");
        }
    }

    /// Replays the writers' logs.
    pub(crate) fn histories(&self) -> Vec<History> {
        (0..WRITERS)
            .map(|number| History::read(&self.logs.join(number.to_string()), number))
            .collect()
    }

    /// The directory of one writer.
    pub(crate) fn place(&self, number: usize) -> PathBuf {
        self.directory.join(format!("w{number}"))
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The files of one writer's directory; none if the directory itself is not there.
pub(crate) fn read_files(directory: &Path) -> Files {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Files::new(),
        entries => {
            entries.unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()))
        }
    };
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            bytes,
        )
    };
    entries.map(read).collect()
}

/// Fails if `wrong` is not empty, with all of it in the message.
fn fail_with(wrong: &[String], what: &str, mount: &TestMount) {
    let shown: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(
        wrong.is_empty(),
        "{what}: {} findings:\n  {}\n{}",
        wrong.len(),
        shown.join("\n  "),
        mount.log_tail()
    );
}

/// Parameters of one round.
pub(crate) struct Round<'a> {
    /// Its number, for its directory.
    pub(crate) number: usize,
    /// The seed of the writers.
    pub(crate) seed: u64,
    /// Whether the cache is kept for the next mount.
    pub(crate) cache: Cache,
    /// Errors that a call may have before the daemon is killed.
    pub(crate) may_fail: &'a [rustix::io::Errno],
}

/// One round: starts the writers, runs `meanwhile`, kills the daemon, mounts again and compares. Returns the number of
/// acknowledged calls.
pub(crate) fn round(
    mount: &mut TestMount,
    logs: &Path,
    round: &Round<'_>,
    meanwhile: impl FnOnce(),
) -> usize {
    let (number, cache) = (round.number, round.cache);
    let directory = mount.path(format!("round-{number}"));
    fs::create_dir(&directory).unwrap();
    if cache == Cache::Wiped {
        mount.drain();
    }
    let mut writers = Writers::start(&directory, &logs.join(number.to_string()), round.seed);
    meanwhile();
    mount.kill9();
    writers.wait();
    mount.recover(cache);
    let what = format!("round {number}, cache {cache:?}");
    let mut wrong = Vec::new();
    let (mut calls, mut syncs, mut names) = (0, 0, 0);
    for (number, history) in writers.histories().iter().enumerate() {
        let errno = history.errno.expect("a writer ends by a failed call");
        let mut expected = GONE.iter().chain(round.may_fail);
        let expected = expected.any(|expected| expected.raw_os_error() == errno);
        // The kernel's own EIO: the kill came while it handed the call to the daemon, which logs each EIO that it answers.
        let is_cut_off = errno == rustix::io::Errno::IO.raw_os_error();
        let log = mount.log_tail();
        assert!(
            expected || is_cut_off && !log.contains("ERROR"),
            "{what}: writer {number} ended by errno {errno} before the daemon was killed\n{log}"
        );
        let place = writers.place(number);
        let found = read_files(&place);
        (calls, syncs, names) = (
            calls + history.calls,
            syncs + history.syncs,
            names + found.len(),
        );
        match cache {
            Cache::Kept => {
                wrong.extend(history.check_kept(&found));
                wrong.extend(history.check_versions(|name| versions(&place, name)));
            }
            Cache::Wiped => wrong.extend(history.check_wiped(&found)),
        }
    }
    println!("{what}: {calls} answered calls, {syncs} fsyncs, {names} files compared");
    fail_with(&wrong, &what, mount);
    calls
}

/// The contents of every state of a name, oldest first.
fn versions(directory: &Path, name: &str) -> Vec<Vec<u8>> {
    let states = directory.join(".versions/@files").join(name);
    let entries = fs::read_dir(&states)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", states.display()));
    let stamps: BTreeMap<String, PathBuf> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .filter(|(stamp, _)| stamp != "latest" && stamp != "previous")
        .collect();
    stamps
        .values()
        .map(|path| {
            fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
        })
        .collect()
}

/// Ten rounds (a hundred in the long mode) on one namespace; in the end a mount with an empty cache must show the same tree.
fn rounds(cache: Cache) {
    let mut random = Random::new(seed());
    let (store, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    for number in 0..scale(10, 100) {
        let moment = Duration::from_millis(100 + random.below(1200) as u64);
        let meanwhile = || std::thread::sleep(moment);
        let seed = random.next();
        let particular = Round {
            number,
            seed,
            cache,
            may_fail: &[],
        };
        round(&mut mount, logs.path(), &particular, meanwhile);
    }
    let before = tree::read_tree(&mount.root());
    mount.remount(Cache::Wiped);
    tree::assert_equal(
        "after a clean remount with an empty cache",
        &before,
        &tree::read_tree(&mount.root()),
    );
    mount.umount();
    println!("{}", mount.check_log("main"));
}

#[test]
fn a_killed_daemon_loses_no_acknowledged_change() {
    rounds(Cache::Kept);
}

#[test]
fn a_lost_machine_loses_no_fsynced_change() {
    rounds(Cache::Wiped);
}
