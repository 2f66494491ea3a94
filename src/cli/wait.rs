//! `rewindfs drain` and `umount`: send a request to the daemon of a mountpoint, and show on a terminal what they wait for.

use super::error::CliError;
use super::place;
use super::status::{amounts, resolved, unexpected};
use crate::control::{self, ControlError, DaemonAnswer, Request, Response};
use crate::fuse::{Unmount, serving, unmount};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon may take to exit after its answer.
const END_MAX: Duration = Duration::from_secs(15);

/// The options of `rewindfs umount`.
#[derive(Debug)]
pub(super) struct UmountOptions {
    pub(super) how: Unmount,
    /// Without an upload.
    pub(super) keep: bool,
    pub(super) drain_timeout: Option<Duration>,
    /// The caller is umount(8).
    pub(super) helper: bool,
}

/// Waits until everything acknowledged through the mount is in the bucket.
///
/// # Errors
/// A failure that names what could not be uploaded.
pub(super) fn drain(mountpoint: &Path, timeout: Option<Duration>) -> Result<(), CliError> {
    let mountpoint = resolved(mountpoint)?;
    let timeout_ms = milliseconds(timeout)?;
    let answer = ask(&mountpoint, Request::Drain { timeout_ms });
    match answer.map_err(CliError::failure)?.response {
        Response::Done => Ok(()),
        Response::Failed { message } => Err(failure_at(&mountpoint, &message)),
        Response::Status(_) | Response::Remark { .. } | Response::Row { .. } => {
            Err(unexpected(&mountpoint))
        }
    }
}

/// Drains, unmounts and waits for the daemon's end. Unmounts also the stale mount of a killed daemon.
///
/// # Errors
/// A failure when a file is open and the unmount is not lazy, or when an upload failed and `keep` is not set.
pub(super) fn umount(mountpoint: &Path, options: &UmountOptions) -> Result<(), CliError> {
    let mountpoint = resolved(mountpoint)?;
    let request = Request::Shutdown {
        lazy: options.how == Unmount::Lazy,
        keep: options.keep,
        timeout_ms: milliseconds(options.drain_timeout)?,
    };
    match ask(&mountpoint, request) {
        Ok(DaemonAnswer { response, pid }) => match response {
            Response::Done => wait_for_exit(&mountpoint, pid),
            Response::Remark { message } => {
                // A closed pipe is no error: its reader has read enough.
                writeln!(std::io::stdout(), "{message}").ok();
                wait_for_exit(&mountpoint, pid)
            }
            Response::Failed { message } => Err(failure_at(&mountpoint, &message)),
            Response::Status(_) | Response::Row { .. } => Err(unexpected(&mountpoint)),
        },
        // The daemon uploads and ends by itself after its mount was unmounted.
        Err(ControlError::NotFound(_)) if options.helper && is_served(&mountpoint) => {
            unmount(&mountpoint, options.how).map_err(CliError::failure)
        }
        Err(ControlError::NotFound(_)) => unmount_stale(&mountpoint),
        Err(error) => Err(CliError::failure(error)),
    }
}

fn milliseconds(timeout: Option<Duration>) -> Result<Option<u64>, CliError> {
    let Some(timeout) = timeout else {
        return Ok(None);
    };
    if timeout < Duration::from_secs(1) {
        return Err(CliError::usage(format!(
            "--drain-timeout {timeout:?}: must be at least 1s"
        )));
    }
    Ok(Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)))
}

fn is_served(mountpoint: &Path) -> bool {
    matches!(serving(mountpoint), Ok(true))
}

/// Unmounts a mount that no daemon serves any more.
fn unmount_stale(mountpoint: &Path) -> Result<(), CliError> {
    match serving(mountpoint) {
        Ok(true) => Err(CliError::failure(format!(
            "the rewindfs at {} is another user's, or its control socket is gone: use umount(8)",
            mountpoint.display()
        ))),
        Ok(false) => unmount(mountpoint, Unmount::Lazy).map_err(CliError::failure),
        Err(error) => Err(CliError::failure(error)),
    }
}

fn wait_for_exit(mountpoint: &Path, pid: u32) -> Result<(), CliError> {
    if control::wait_for_end(pid, END_MAX) {
        return Ok(());
    }
    Err(CliError::failure(format!(
        "{}: unmounted, but process {pid} has not ended",
        mountpoint.display()
    )))
}

fn ask(mountpoint: &Path, request: Request) -> Result<DaemonAnswer, ControlError> {
    let directories = place::runtime_directories();
    let mut progress = DrainProgress::new(&directories, mountpoint);
    let answer = control::ask_while(&directories, mountpoint, request, || progress.tell());
    progress.end();
    answer
}

fn failure_at(mountpoint: &Path, message: &str) -> CliError {
    let name = mountpoint.display().to_string();
    match message.contains(&name) {
        true => CliError::failure(message),
        false => CliError::failure(format!("{name}: {message}")),
    }
}

/// Shows on standard error, if it is a terminal, what the command waits for: one line that is overwritten, and each new failure
/// on a line of its own.
struct DrainProgress<'a> {
    directories: &'a [PathBuf],
    mountpoint: &'a Path,
    terminal: bool,
    shown: bool,
    reason: String,
}

impl<'a> DrainProgress<'a> {
    fn new(directories: &'a [PathBuf], mountpoint: &'a Path) -> Self {
        Self {
            directories,
            mountpoint,
            terminal: std::io::stderr().is_terminal(),
            shown: false,
            reason: String::new(),
        }
    }

    fn tell(&mut self) {
        if !self.terminal {
            return;
        }
        let answer = control::ask(self.directories, self.mountpoint, Request::Status);
        let Ok(DaemonAnswer {
            response: Response::Status(status),
            ..
        }) = answer
        else {
            return;
        };
        self.end();
        // The same failure has other numbers each time.
        let last = status.pending.failures.last().cloned().unwrap_or_default();
        let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        if words(&last) != words(&self.reason) {
            eprintln!("waiting: {last}");
        }
        self.reason = last;
        if let Some(missing) = amounts(&status.pending) {
            eprint!("waiting for the bucket: {missing}");
            self.shown = true;
        }
    }

    /// Clears the line.
    fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}
