//! Commands with a deadline. The message of a failure has the script and its output.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The default time limit of a script.
const SCRIPT_LIMIT: Duration = Duration::from_secs(300);

/// The result of a command.
#[derive(Debug)]
pub(crate) struct CommandResult {
    /// The command line.
    what: String,
    /// Its exit status; `None` when a signal ended it, as at its deadline.
    pub(crate) code: Option<i32>,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
    /// How long it took.
    pub(crate) took: Duration,
}

impl fmt::Display for CommandResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.code.map_or("ended by a signal".to_owned(), |code| {
            format!("exit status {code}")
        });
        writeln!(
            f,
            "{}\n-- {status} after {:.1} s",
            self.what,
            self.took.as_secs_f64()
        )?;
        writeln!(f, "-- stdout:\n{}", shortened(&self.stdout))?;
        write!(f, "-- stderr:\n{}", shortened(&self.stderr))
    }
}

impl CommandResult {
    /// Its standard output; fails unless the exit status is 0.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.code == Some(0), "the command failed: {self}");
        self.stdout
    }
}

/// The first and last lines of an output that is too long for a message.
fn shortened(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= 80 {
        return text.to_owned();
    }
    let (head, tail) = (lines[..40].join("\n"), lines[lines.len() - 40..].join("\n"));
    format!("{head}\n   ... {} lines ...\n{tail}", lines.len() - 80)
}

/// Runs `command` to its end, or kills it at `limit`, so that a mount that does not answer cannot block the tests.
pub(crate) fn run(command: &mut Command, limit: Duration) -> CommandResult {
    let what = format!("{command:?}");
    // Files, not pipes: a background daemon may keep the descriptors open.
    let directory = tempfile::tempdir().expect("a scratch directory");
    let paths = [
        directory.path().join("stdout"),
        directory.path().join("stderr"),
    ];
    let [stdout, stderr] = paths
        .each_ref()
        .map(|path| std::fs::File::create(path).expect("a scratch file"));
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
    let mut status = None;
    let ended = super::wait_until(limit, || {
        status = child.try_wait().expect("wait for a child");
        status.is_some()
    });
    let took = start.elapsed();
    if !ended {
        // The command has a process group of its own, so that its children are killed too.
        if let Some(group) = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
        }
        child.kill().ok();
        // A killed command may still be blocked in the kernel until the daemon's own deadline: wait once more, then give up.
        super::wait_until(Duration::from_secs(30), || {
            child.try_wait().is_ok_and(|status| status.is_some())
        });
    }
    let [stdout, stderr] = paths.map(|path| {
        String::from_utf8_lossy(&std::fs::read(path).expect("the output")).into_owned()
    });
    CommandResult {
        what,
        code: status.and_then(|status| status.code()),
        stdout,
        stderr,
        took,
    }
}

/// Runs a script by `sh -eu` in `directory` and returns its standard output; fails with its whole output.
#[track_caller]
pub(crate) fn sh(directory: &Path, script: &str) -> String {
    sh_within(directory, script, SCRIPT_LIMIT).ok()
}

/// Runs a script by `sh -eu` in `directory`, with a bound of its own.
pub(crate) fn sh_within(directory: &Path, script: &str, limit: Duration) -> CommandResult {
    let mut command = Command::new("sh");
    command
        .args(["-euc", script])
        .current_dir(directory)
        .env("LC_ALL", "C")
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "A U Thor")
        .env("GIT_AUTHOR_EMAIL", "author@example.org")
        .env("GIT_COMMITTER_NAME", "A U Thor")
        .env("GIT_COMMITTER_EMAIL", "author@example.org");
    let mut ran = run(&mut command, limit);
    ran.what = format!("in {}:\n{}", directory.display(), script.trim());
    ran
}
