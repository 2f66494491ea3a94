//! A namespace mounted by the real program, in directories of its own.
//!
//! Invariant: dropping the value unmounts and ends the daemon, in every state that a test leaves.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::place::Place;
use super::shell::{self, CommandResult};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_rewindfs");
/// The time limit of a mount, a drain or an unmount.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// Whether cache, journal and staging files are kept between two mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// They are kept, as after a crash of the daemon.
    Kept,
    /// They are deleted, as after the loss of the machine.
    Wiped,
}

/// A mount and its directories.
pub(crate) struct TestMount {
    /// The store of the namespace.
    place: Place,
    /// Further flags of `mount`.
    flags: Vec<String>,
    /// A command prefix that starts the program; may be empty.
    starter: Vec<String>,
    /// Holds the mount point, the cache and the log.
    directory: tempfile::TempDir,
    /// The daemon, unless it was killed or unmounted.
    daemon: Option<Child>,
    /// The daemon's process number for the watchdog; 0 while there is none.
    watched: Arc<AtomicU32>,
    /// Dropping it ends the watchdog.
    _watchdog: Sender<()>,
}

impl TestMount {
    /// Mounts `place` with further flags.
    #[track_caller]
    pub(crate) fn start(place: &Place, flags: &[&str]) -> Self {
        Self::start_by(&[], place, flags)
    }

    /// Mounts `place` with a daemon that may have at most `limit` files open.
    #[track_caller]
    pub(crate) fn start_with_open_files(most: u32, place: &Place) -> Self {
        let limit = format!("--nofile={most}:{most}");
        Self::start_by(&["prlimit", &limit], place, &[])
    }

    /// Mounts `place` with a daemon that has this umask.
    #[track_caller]
    pub(crate) fn start_with_umask(umask: &str, place: &Place) -> Self {
        let script = format!("umask {umask}; exec \"$@\"");
        Self::start_by(&["sh", "-c", &script, "sh"], place, &[])
    }

    #[track_caller]
    fn start_by(starter: &[&str], place: &Place, flags: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("mount")
            .tempdir()
            .expect("a scratch directory");
        for name in ["files", "cache"] {
            std::fs::create_dir(directory.path().join(name)).expect("a scratch directory");
        }
        let watched = Arc::new(AtomicU32::new(0));
        let mut mount = Self {
            place: place.clone(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            starter: starter.iter().map(|word| (*word).to_owned()).collect(),
            directory,
            daemon: None,
            _watchdog: watch(Arc::clone(&watched)),
            watched,
        };
        mount.mount();
        mount
    }

    /// The mount point.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// A path below the mount point.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// The cache directory.
    pub(crate) fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    /// Starts the daemon and waits until it serves. A stale mount of a killed daemon is replaced.
    #[track_caller]
    pub(crate) fn mount(&mut self) {
        assert!(self.daemon.is_none(), "mounted already");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log");
        // The daemon must not outlive a killed test: setpriv sets the parent-death signal.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .args(&self.starter)
            .arg(PROGRAM)
            .args(mount_arguments(&self.place, &self.root(), &self.cache()))
            .arg("--foreground")
            .args(self.takeover())
            .args(&self.flags)
            .envs(self.place.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        let child = command
            .spawn()
            .expect("setpriv (util-linux) starts the daemon");
        self.watched.store(child.id(), Ordering::Relaxed);
        let daemon = self.daemon.insert(child);
        let root = self.directory.path().join("files");
        let mut ended = None;
        let mounted = super::wait_until(COMMAND_LIMIT, || {
            ended = daemon.try_wait().expect("wait for a child");
            ended.is_some() || answers(&root)
        });
        if mounted && ended.is_none() {
            return;
        }
        panic!("{command:?} did not mount ({ended:?})\n{}", self.log_tail());
    }

    /// The flags that take the namespace from a daemon that a test has killed or stopped, unless the test says what to do about it.
    fn takeover(&self) -> &'static [&'static str] {
        let told = |flag: &String| {
            let words = ["--takeover", "--standby", "--read-only", "--at"];
            words.iter().any(|word| flag.starts_with(word))
                || flag
                    .split(',')
                    .any(|word| word == "ro" || word.starts_with("at="))
        };
        match self.flags.iter().any(told) {
            true => &[],
            false => &["--takeover", "now"],
        }
    }

    /// Kills the daemon with SIGKILL. The stale mount stays.
    pub(crate) fn kill9(&mut self) {
        self.watched.store(0, Ordering::Relaxed);
        let mut daemon = self.daemon.take().expect("a daemon to kill");
        daemon.kill().expect("kill -9");
        daemon.wait().expect("wait for a child");
    }

    /// Mounts again after [`Self::kill9`].
    #[track_caller]
    pub(crate) fn recover(&mut self, cache: Cache) {
        self.prepare_cache(cache);
        self.mount();
    }

    /// Unmounts with `rewindfs umount` and mounts again.
    #[track_caller]
    pub(crate) fn remount(&mut self, cache: Cache) {
        self.umount();
        self.prepare_cache(cache);
        self.mount();
    }

    /// `rewindfs umount`; fails unless it succeeds, the daemon exits with status 0 and nothing stays mounted.
    #[track_caller]
    pub(crate) fn umount(&mut self) {
        let root = self.root();
        self.checked(&["umount", &root.to_string_lossy()]);
        let mut daemon = self.daemon.take().expect("a daemon to unmount");
        self.watched.store(0, Ordering::Relaxed);
        let mut status = None;
        super::wait_until(COMMAND_LIMIT, || {
            status = daemon.try_wait().expect("wait for a child");
            status.is_some()
        });
        if status.is_none() {
            daemon.kill().ok();
            daemon.wait().ok();
        }
        let good = status.is_some_and(|status| status.success());
        assert!(
            good,
            "after umount the daemon exited with {status:?}\n{}",
            self.log_tail()
        );
        assert!(
            !is_mounted(&root),
            "still mounted after umount\n{}",
            self.log_tail()
        );
    }

    /// `rewindfs drain`.
    #[track_caller]
    pub(crate) fn drain(&self) {
        self.checked(&["drain", &self.root().to_string_lossy()]);
    }

    /// `rewindfs status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        let text = self.checked(&["status", &self.root().to_string_lossy(), "--json"]);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("status is no JSON ({error}):\n{text}"))
    }

    /// Runs a script in the mount point; fails with its output and the daemon's log.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.sh_within(script, Duration::from_secs(300))
    }

    /// Runs a script in the mount point, with a bound of its own.
    #[track_caller]
    pub(crate) fn sh_within(&self, script: &str, limit: Duration) -> String {
        self.stdout_or_fail(shell::sh_within(&self.root(), script, limit))
    }

    /// The daemon's process number.
    pub(crate) fn daemon_id(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon").id()
    }

    /// The daemon's log.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The end of the daemon's log, for messages.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!("-- the daemon's log ends:\n{}", lines[from..].join("\n"))
    }

    /// Waits until the daemon ends by itself, as after SIGTERM. Returns its exit status, `None` if it did not end within `limit`.
    pub(crate) fn ended(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let daemon = self.daemon.as_mut().expect("a daemon");
        let mut status = None;
        super::wait_until(limit, || {
            status = daemon.try_wait().expect("wait for a child");
            status.is_some()
        });
        if status.is_some() {
            self.watched.store(0, Ordering::Relaxed);
            self.daemon = None;
        }
        status
    }

    /// Runs a command of the program; fails unless it succeeds.
    #[track_caller]
    fn checked(&self, arguments: &[&str]) -> String {
        self.stdout_or_fail(self.ran(arguments))
    }

    fn ran(&self, arguments: &[&str]) -> CommandResult {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .envs(self.place.variables.iter().cloned());
        shell::run(&mut command, COMMAND_LIMIT)
    }

    /// The output of `rewindfs check` for a namespace without a mount.
    #[track_caller]
    pub(crate) fn check_log(&self, namespace: &str) -> String {
        let mut arguments = vec!["check", &self.place.url, "--namespace", namespace];
        if let Some(endpoint) = &self.place.endpoint {
            arguments.extend(["--endpoint", endpoint]);
        }
        // The S3 server of the tests answers InternalError to a listing while objects in it are deleted, as a running mount does.
        let mut ran = self.ran(&arguments);
        super::wait_until(COMMAND_LIMIT, || {
            let again = ran.code != Some(0) && ran.stderr.contains("<Code>InternalError</Code>");
            if again {
                ran = self.ran(&arguments);
            }
            !again
        });
        self.stdout_or_fail(ran)
    }

    /// The standard output of a successful command; else fails with its output and the daemon's log.
    #[track_caller]
    fn stdout_or_fail(&self, ran: CommandResult) -> String {
        assert!(
            ran.code == Some(0),
            "the command failed: {ran}\n{}",
            self.log_tail()
        );
        ran.stdout
    }

    /// Deletes the cache if `cache` is [`Cache::Wiped`].
    fn prepare_cache(&self, cache: Cache) {
        if cache == Cache::Wiped {
            std::fs::remove_dir_all(self.cache()).expect("delete the cache");
            std::fs::create_dir(self.cache()).expect("an empty cache");
        }
    }

    /// The file of the daemon's log.
    fn log_path(&self) -> PathBuf {
        self.directory.path().join("daemon.log")
    }
}

/// Whether a mount at `root` answers. A stale mount of a killed daemon has cached attributes but fails statfs(2); without a
/// mount the directory is on another kind of file system.
fn answers(root: &Path) -> bool {
    const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;
    rustix::fs::statfs(root).is_ok_and(|found| found.f_type as u64 == FUSE_SUPER_MAGIC)
}

impl Drop for TestMount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        self.watched.store(0, Ordering::Relaxed);
        force_unmount(&self.root());
        if let Some(daemon) = &mut self.daemon {
            daemon.kill().ok();
            daemon.wait().ok();
        }
        // The mount of a killed daemon may exist a little longer.
        force_unmount(&self.root());
    }
}

/// The arguments of `mount` for a place and its two directories.
pub(crate) fn mount_arguments(place: &Place, root: &Path, cache: &Path) -> Vec<String> {
    let mut arguments = vec![
        "mount".to_owned(),
        place.url.clone(),
        root.display().to_string(),
    ];
    arguments.extend(["--cache-dir".to_owned(), cache.display().to_string()]);
    if let Some(endpoint) = &place.endpoint {
        arguments.extend(["--endpoint".to_owned(), endpoint.clone()]);
    }
    arguments
}

/// Whether something is mounted at `point`, stale or not.
pub(crate) fn is_mounted(point: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("the table of mounts");
    table.lines().any(|line| {
        line.split(' ')
            .nth(4)
            .is_some_and(|at| Path::new(at) == point)
    })
}

/// Unmounts `point` lazily; does nothing where nothing is mounted.
pub(crate) fn force_unmount(point: &Path) {
    for program in [&["umount", "-l"][..], &["fusermount3", "-uz"]] {
        if !is_mounted(point) {
            return;
        }
        Command::new(program[0])
            .args(&program[1..])
            .arg(point)
            .stderr(Stdio::null())
            .status()
            .ok();
    }
    assert!(!is_mounted(point), "cannot unmount {}", point.display());
}

/// Kills a daemon that runs longer than any test, so that callers blocked in the kernel return. Ends when the sender is
/// dropped.
fn watch(watched: Arc<AtomicU32>) -> Sender<()> {
    let (sender, receiver) = channel();
    let limit = super::scale(Duration::from_secs(14 * 60), Duration::from_secs(110 * 60));
    std::thread::spawn(move || {
        if receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            let daemon = watched.swap(0, Ordering::Relaxed);
            if daemon != 0 {
                eprintln!("the mount hangs: killing its daemon after {limit:?}");
                Command::new("kill")
                    .args(["-9", &daemon.to_string()])
                    .status()
                    .ok();
            }
        }
    });
    sender
}
