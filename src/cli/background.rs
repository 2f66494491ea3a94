//! A mount in the background: a second process of this program, with `--foreground`, and a socket over which it reports.
//!
//! The socket is the child's standard input, so that no descriptor number and no file is passed on; it is closed when the
//! parent ends. Life: the parent waits for one line; the child writes it when the mount answers or cannot be made; a child
//! that ends before closes the socket, which the parent sees at once.

use super::error::CliError;
use crate::fuse::serving;
use crate::sync::{Mutex, lock};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The line a child writes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReadinessMessage {
    /// The mount is not made yet; says what it waits for. Another line follows.
    Waiting { message: String },
    /// The mount answers; there may be a remark about it.
    Ready { remark: Option<String> },
    /// The mount could not be made.
    Failed {
        message: String,
        /// Whether the command line can never work.
        usage: bool,
    },
}

/// Where the outcome of mounting is reported.
#[derive(Debug)]
pub(super) enum ReadinessPipe {
    /// Nowhere: this process is in the foreground and prints its own messages.
    None,
    /// The process that started this one.
    Parent(Mutex<UnixStream>),
}

impl ReadinessPipe {
    /// Reports that the mount answers, with a remark if there is one.
    ///
    /// # Errors
    /// The parent has ended.
    pub(super) fn ready(&self, remark: Option<String>) -> io::Result<()> {
        if let (Self::None, Some(remark)) = (self, &remark) {
            eprintln!("rewindfs: {remark}");
        }
        self.write(&ReadinessMessage::Ready { remark })
    }

    /// Reports what the mount waits for.
    ///
    /// # Errors
    /// The parent has ended.
    pub(super) fn waiting(&self, message: &str) -> io::Result<()> {
        if let Self::None = self {
            eprintln!("rewindfs: {message}");
        }
        let message = message.to_owned();
        self.write(&ReadinessMessage::Waiting { message })
    }

    /// Reports why there is no mount.
    pub(super) fn refused(&self, cli_error: &CliError) {
        let line = ReadinessMessage::Failed {
            message: cli_error.message.clone(),
            usage: cli_error.status() == 2,
        };
        if let Err(error) = self.write(&line) {
            tracing::debug!(%error, "the parent has ended");
        }
    }

    fn write(&self, line: &ReadinessMessage) -> io::Result<()> {
        let Self::Parent(stream) = self else {
            return Ok(());
        };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        lock(stream).write_all(&text)
    }
}

/// Starts a second process of this program with `arguments`, which are a whole command line, and waits until its mount at
/// `mountpoint` answers. Its output is appended to `log`, or dropped.
///
/// # Errors
/// The error that the other process reported, with its exit status; or that it ended without a report.
pub(super) fn launch(
    arguments: &[OsString],
    log: Option<&Path>,
    mountpoint: &Path,
) -> Result<(), CliError> {
    let failed = |error: io::Error| {
        CliError::failure(format!("cannot start a process for the mount: {error}"))
    };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let (stdout, stderr) = match log {
        Some(path) => {
            let file = open_log(path)?;
            (
                Stdio::from(file.try_clone().map_err(failed)?),
                Stdio::from(file),
            )
        }
        None => (Stdio::null(), Stdio::null()),
    };
    let program = std::env::current_exe().map_err(failed)?;
    let child = Command::new(program)
        .args(arguments.iter().skip(1).take(1))
        // Before a `--` that may follow.
        .args(["--foreground", "--report-on-stdin"])
        .args(arguments.iter().skip(2))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(failed)?;
    if let Some(remark) = receive_report(ours, child)? {
        eprintln!("rewindfs: {remark}");
    }
    match serving(mountpoint) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CliError::failure(format!(
            "{}: the mount does not answer",
            mountpoint.display()
        ))),
        Err(error) => Err(CliError::failure(error)),
    }
}

/// Waits for the line of `child`; returns its remark about the mount.
fn receive_report(stream: UnixStream, mut child: Child) -> Result<Option<String>, CliError> {
    let mut lines = BufReader::new(stream);
    let (mut line, mut read);
    loop {
        line = String::new();
        read = lines.read_line(&mut line);
        match serde_json::from_str(&line) {
            Ok(ReadinessMessage::Waiting { message }) => eprintln!("rewindfs: {message}"),
            _ => break,
        }
    }
    match serde_json::from_str(&line) {
        Ok(ReadinessMessage::Ready { remark }) => Ok(remark),
        Ok(ReadinessMessage::Failed {
            message,
            usage: true,
        }) => Err(CliError::usage(message)),
        Ok(ReadinessMessage::Failed {
            message,
            usage: false,
        }) => Err(CliError::failure(message)),
        Ok(ReadinessMessage::Waiting { .. }) | Err(_) => {
            let ended = match (read, child.wait()) {
                (Ok(_), Ok(status)) => status.to_string(),
                (Err(error), _) | (_, Err(error)) => error.to_string(),
            };
            Err(CliError::failure(format!(
                "the mount's process ended before the mount answered ({ended}); use --log FILE to see why"
            )))
        }
    }
}

/// Opens `path` for appending; only its owner may read it, since it contains names of files.
///
/// # Errors
/// A failure that names it.
pub(super) fn open_log(path: &Path) -> Result<File, CliError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| CliError::failure(format!("--log {}: {error}", path.display())))
}

/// Makes this process, which was started by [`launch`], independent of the terminal and of the current directory.
///
/// # Errors
/// A failure when standard input is not the socket that [`launch`] passes.
pub(super) fn detach() -> Result<ReadinessPipe, CliError> {
    let failed = |error: io::Error| CliError::failure(format!("--report-on-stdin: {error}"));
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let stream = UnixStream::from(stdin);
    stream.peer_addr().map_err(failed)?;
    let readiness = ReadinessPipe::Parent(Mutex::new(stream));
    // It fails only for the leader of a process group, which needs no new session.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/").map_err(failed)?;
    Ok(readiness)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).spawn().unwrap()
    }

    #[test]
    fn the_report_of_the_child_reaches_the_parent() {
        for (cli_error, status) in [(CliError::usage("a"), 2), (CliError::failure("b"), 1)] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let readiness = ReadinessPipe::Parent(Mutex::new(theirs));
            readiness.waiting("for another writer").unwrap();
            readiness.refused(&cli_error);
            let received = receive_report(ours, child("true")).unwrap_err();
            assert_eq!((&received, received.status()), (&cli_error, status));
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let remark = Some("c".to_owned());
        let readiness = ReadinessPipe::Parent(Mutex::new(theirs));
        readiness.ready(remark.clone()).unwrap();
        assert_eq!(receive_report(ours, child("true")), Ok(remark));
    }

    #[test]
    fn a_child_that_ends_without_a_report_is_a_failure() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let received = receive_report(ours, child("exit 7")).unwrap_err();
        assert!(
            received.message.contains("exit status: 7"),
            "{}",
            received.message
        );
        assert_eq!(received.status(), 1);
    }

    #[test]
    fn a_parent_that_has_ended_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(
            ReadinessPipe::Parent(Mutex::new(theirs))
                .ready(None)
                .is_err()
        );
    }
}
