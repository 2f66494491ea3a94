//! The command's side: finds the daemon of a mountpoint and sends a request.

use super::{ControlError, Request, Response, RuntimeFile, RuntimePaths, StatusReport};
use crate::verbs::VerbRow;
use rustix::fs::OFlags;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often `/proc` is read while a process is expected to end: a command has no runtime that could wait for a pidfd.
const LOOK: Duration = Duration::from_millis(10);

/// How often a caller may do something during its wait for an answer.
const MEANWHILE: Duration = Duration::from_secs(1);

/// The longest line that a daemon may answer, in bytes.
const ANSWER_MAX: u64 = 16 << 20;

/// The longest runtime file, in bytes: a path of 4,096 bytes, each written as a number.
const RUNTIME_FILE_MAX: u64 = 64 << 10;

/// What a daemon answered.
#[derive(Debug)]
pub struct DaemonAnswer {
    /// The answer.
    pub response: Response,
    /// The daemon's process.
    pub pid: u32,
}

/// A connection to a daemon.
struct Connection {
    stream: UnixStream,
    /// The daemon's process.
    pid: u32,
}

/// Asks the daemon that serves `mountpoint`, which must be resolved, and waits for its answer without a limit. The
/// daemon is looked up in `directories`.
///
/// # Errors
/// [`ControlError::NotFound`] when none serves it, [`ControlError::NoAnswer`] when it ended instead of answering.
pub fn ask(
    directories: &[PathBuf],
    mountpoint: &Path,
    request: Request,
) -> Result<DaemonAnswer, ControlError> {
    ask_while(directories, mountpoint, request, || {})
}

/// As [`ask`], but calls `meanwhile` each second of the wait.
///
/// # Errors
/// As [`ask`].
pub fn ask_while(
    directories: &[PathBuf],
    mountpoint: &Path,
    request: Request,
    meanwhile: impl FnMut(),
) -> Result<DaemonAnswer, ControlError> {
    let Connection { stream, pid } = connection(directories, mountpoint)?;
    let no_answer = |why: String| ControlError::NoAnswer {
        path: mountpoint.display().to_string(),
        why,
    };
    let line =
        exchange(stream, request, meanwhile).map_err(|error| no_answer(error.to_string()))?;
    match serde_json::from_slice(&line) {
        Ok(response) => Ok(DaemonAnswer { response, pid }),
        Err(_) if line.is_empty() => Err(no_answer("it ended".to_owned())),
        Err(error) => Err(no_answer(error.to_string())),
    }
}

/// Asks for the status of the daemon that serves `mountpoint`; `None` if none serves it any more. Waits for `patience` at most.
///
/// # Errors
/// [`ControlError::NoAnswer`] from a daemon that does not answer in time.
pub fn status_of(
    directories: &[PathBuf],
    mountpoint: &Path,
    patience: Duration,
) -> Result<Option<StatusReport>, ControlError> {
    let Ok(Connection { mut stream, .. }) = connection(directories, mountpoint) else {
        return Ok(None);
    };
    let no_answer = |why: String| ControlError::NoAnswer {
        path: mountpoint.display().to_string(),
        why,
    };
    let asking = || -> io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(patience))?;
        let mut text = serde_json::to_vec(&Request::Status)?;
        text.push(b'\n');
        stream.write_all(&text)?;
        let mut line = Vec::new();
        read_answer(&mut BufReader::new(stream), &mut line)?;
        Ok(line)
    };
    let line = asking().map_err(|error| no_answer(error.to_string()))?;
    match serde_json::from_slice(&line) {
        Ok(Response::Status(status)) => Ok(Some(*status)),
        Ok(_) => Err(no_answer("it sent no status".to_owned())),
        // It ended between the two.
        Err(_) if line.is_empty() => Ok(None),
        Err(error) => Err(no_answer(error.to_string())),
    }
}

/// Sends a verb to the daemon that serves `mountpoint`, which must be resolved, and passes each row to `each` until that breaks. Returns the
/// answer after the last row; `None` if `each` broke.
///
/// # Errors
/// As [`ask`].
pub fn ask_rows(
    directories: &[PathBuf],
    mountpoint: &Path,
    request: &Request,
    mut each: impl FnMut(VerbRow) -> ControlFlow<()>,
) -> Result<Option<Response>, ControlError> {
    let Connection { mut stream, .. } = connection(directories, mountpoint)?;
    let no_answer = |why: String| ControlError::NoAnswer {
        path: mountpoint.display().to_string(),
        why,
    };
    let failed = |error: io::Error| no_answer(error.to_string());
    let text = serde_json::to_string(request).map_err(|error| failed(error.into()))?;
    stream
        .write_all(format!("{text}\n").as_bytes())
        .map_err(failed)?;
    let mut answers = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        read_answer(&mut answers, &mut line).map_err(failed)?;
        if line.is_empty() {
            return Err(no_answer("it ended".to_owned()));
        }
        match serde_json::from_slice(&line).map_err(|error| failed(error.into()))? {
            Response::Row { row } => {
                if each(*row).is_break() {
                    return Ok(None);
                }
            }
            Response::Failed { message } if message.starts_with("not a command: unknown") => {
                return Err(ControlError::OlderDaemon(mountpoint.display().to_string()));
            }
            answer => return Ok(Some(answer)),
        }
    }
}

/// Waits until the process `pid` has ended, for `patience` at most; returns whether it has.
#[must_use]
pub fn wait_for_end(pid: u32, patience: Duration) -> bool {
    let looks = patience.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        if has_ended(pid) {
            return true;
        }
        #[allow(clippy::disallowed_methods, reason = "a command has no runtime")]
        std::thread::sleep(LOOK);
    }
    false
}

/// Whether the process `pid` does not exist, or is a zombie.
fn has_ended(pid: u32) -> bool {
    let Ok(line) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The state follows the name, which is in parentheses and may contain parentheses.
    let state = line
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('Z' | 'X'))
}

fn exchange(
    mut stream: UnixStream,
    request: Request,
    mut meanwhile: impl FnMut(),
) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(&request)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    stream.set_read_timeout(Some(MEANWHILE))?;
    let (mut line, mut answers) = (Vec::new(), BufReader::new(stream));
    loop {
        match read_answer(&mut answers, &mut line) {
            Ok(()) => return Ok(line),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => meanwhile(),
            Err(error) => return Err(error),
        }
    }
}

/// Reads the rest of a line behind what is in `line` already. At the end of the connection `line` may be empty or incomplete.
fn read_answer(answers: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    let rest = ANSWER_MAX.saturating_sub(line.len() as u64);
    answers.take(rest).read_until(b'\n', line)?;
    match line.len() as u64 == ANSWER_MAX && !line.ends_with(b"\n") {
        true => Err(io::Error::other("its answer does not end")),
        false => Ok(()),
    }
}

/// Connects to the daemon that serves `mountpoint`.
fn connection(directories: &[PathBuf], mountpoint: &Path) -> Result<Connection, ControlError> {
    let found = directories
        .iter()
        .find_map(|directory| find(directory, mountpoint));
    found.ok_or_else(|| ControlError::NotFound(mountpoint.display().to_string()))
}

/// Returns the mountpoints that the runtime files in `directories` name, also those of daemons that have ended.
#[must_use]
pub fn mountpoints(directories: &[PathBuf]) -> Vec<PathBuf> {
    directories
        .iter()
        .flat_map(|directory| runtime_files(directory))
        .map(|runtime_file| runtime_file.mountpoint())
        .collect()
}

/// Returns the mountpoints of daemons that may have mounted the namespace with the id `uuid`, also of those that have ended.
#[must_use]
pub fn mounts_of(directories: &[PathBuf], uuid: &str) -> Vec<PathBuf> {
    directories
        .iter()
        .flat_map(|directory| runtime_files(directory))
        .filter(|runtime_file| runtime_file.uuid.is_empty() || runtime_file.uuid == uuid)
        .map(|runtime_file| runtime_file.mountpoint())
        .collect()
}

/// Connects to the daemon whose runtime file in `directory` names `mountpoint`.
fn find(directory: &Path, mountpoint: &Path) -> Option<Connection> {
    runtime_files(directory)
        .filter(|runtime_file| runtime_file.mountpoint() == mountpoint)
        .find_map(|runtime_file| connect(directory, &runtime_file))
}

/// The process of a daemon that served `mountpoint` and has not ended, by its runtime file in `directory`.
#[must_use]
pub fn predecessor(directory: &Path, mountpoint: &Path) -> Option<u32> {
    find(directory, mountpoint).map(|connection| connection.pid)
}

/// Removes the runtime files of ended daemons from `directory`.
pub(super) fn sweep(directory: &Path) {
    for runtime_file in runtime_files(directory) {
        drop(connect(directory, &runtime_file));
    }
}

/// The runtime files in `directory` that can be read.
fn runtime_files(directory: &Path) -> impl Iterator<Item = RuntimeFile> {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .filter_map(|path| serde_json::from_slice(&read_runtime_file(&path).ok()?).ok())
}

/// Reads a runtime file. Root reads those of other users, so neither a link is followed nor a pipe waited for.
fn read_runtime_file(path: &Path) -> io::Result<Vec<u8>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(RUNTIME_FILE_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// Connects to the daemon of `runtime_file`; removes the files of a daemon that has ended.
fn connect(directory: &Path, runtime_file: &RuntimeFile) -> Option<Connection> {
    let pid = runtime_file.pid;
    let paths = RuntimePaths::new(directory, pid);
    match UnixStream::connect(&paths.socket) {
        Ok(stream) => Some(Connection { stream, pid }),
        Err(error) => {
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) {
                std::fs::remove_file(paths.runtime_file).ok();
                std::fs::remove_file(paths.socket).ok();
            }
            None
        }
    }
}
