//! How a command reaches the daemon of a mount: one line of JSON asked, one answered, over a Unix socket.
//!
//! Each mount has two files in the runtime directory, `PID.json` (which mountpoint) and `PID.sock`, both for its user alone.
//! A command finds the mount by its mountpoint, never through the mount itself, so that it works on one that hangs.
//! Invariant: a command that finds the files of an ended daemon removes them, and it uses a file only after the socket has
//! answered.

mod client;
mod server;

pub use client::{DaemonAnswer, ask, ask_while, predecessor, wait_for_end};
pub use server::Control;

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What a command asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Request {
    /// How things stand.
    Status,
    /// Answer when everything acknowledged is in the bucket.
    Drain {
        /// How long nothing may move, in milliseconds; else as the mount was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// Drain, unmount, end; answer when that is done.
    Shutdown {
        /// Unmount even while something is open.
        lazy: bool,
        /// Leave what is not in the bucket in the cache directory instead of waiting for it.
        #[serde(default)]
        keep: bool,
        /// As for [`Request::Drain`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Response {
    /// How things stand.
    Status(Box<StatusReport>),
    /// It is done.
    Done,
    /// It is done, and something is to be known.
    Remark {
        /// What, for a person.
        message: String,
    },
    /// It could not be done.
    Failed {
        /// Why, for a person.
        message: String,
    },
}

/// How a mount stands. Times in nanoseconds since 1970 or as named, sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The program's version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// The directory it is mounted on.
    pub mountpoint: String,
    /// The store, without secrets.
    pub url: String,
    /// The namespace's name.
    pub namespace: String,
    /// `read-write` or `read-only`; `read-write, mounted read-only` once mount(8) was told to refuse changes.
    pub mode: String,
    /// When close(2) returns: `release`, `close` or `interval`.
    pub sync_on: String,
    /// When it was mounted.
    pub mounted_ns: u64,
    /// With `read-only`, the instant up to which the past is shown.
    pub shown_ns: Option<u64>,
    /// Whether another writer has taken the namespace: every change is refused since.
    pub fenced: bool,
    /// What this mount made of changes that another writer had overtaken.
    pub conflicts: ConflictReport,
    /// What is not yet in the bucket.
    pub pending: BacklogReport,
    /// What the live tree holds.
    pub usage: UsageReport,
    /// What has left the bucket since it was mounted, and what is to follow.
    pub reclaimed: ReclaimReport,
    /// Requests to the store since it was mounted.
    pub requests: RequestReport,
    /// The task that panicked; every call is EIO since.
    pub poisoned: Option<String>,
}

/// What is not yet in the bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogReport {
    /// Files with contents or writes that are only here.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Operations that are not durable.
    pub operations: u64,
    /// When the oldest of them was answered.
    pub oldest_ns: Option<u64>,
    /// How long ago that was, in milliseconds.
    pub oldest_age_ms: Option<u64>,
    /// What went wrong since the mount, one line each.
    pub failures: Vec<String>,
}

/// Acknowledged changes that another writer had overtaken, found when it was mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictReport {
    /// Versions marked `conflict`.
    pub versions: u64,
    /// Names that have them, from the root of the namespace; the first hundred.
    pub places: Vec<String>,
    /// Operations without content, which were dropped.
    pub dropped: u64,
}

/// What the live tree holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, directories and the rest.
    pub files: u64,
}

/// What nothing shows any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimReport {
    /// Bytes that were removed from the bucket.
    pub bytes: u64,
    /// The objects they were in.
    pub objects: u64,
    /// Bytes that go when the grace period is over.
    pub waiting_bytes: u64,
    /// Their objects.
    pub waiting_objects: u64,
    /// Bytes of segments that nothing cites and that an ended writer left: they wait longer.
    pub uncited_bytes: u64,
    /// Their objects.
    pub uncited_objects: u64,
}

/// Requests to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the name of a request")]
pub struct RequestReport {
    pub put: u64,
    pub get: u64,
    pub list: u64,
    pub delete: u64,
    pub head: u64,
    /// Those that failed.
    pub failures: u64,
    /// Bytes sent.
    pub bytes_up: u64,
    /// Bytes received.
    pub bytes_down: u64,
}

/// Why a mount could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No daemon of this user serves that directory.
    #[error("no rewindfs of this user is mounted at {0}")]
    NotFound(String),
    /// The daemon ended or sent something else than an answer.
    #[error("the rewindfs at {path} did not answer: {why}")]
    NoAnswer {
        /// The mountpoint.
        path: String,
        /// What happened.
        why: String,
    },
    /// The runtime directory cannot be used: name another with `XDG_RUNTIME_DIR`.
    #[error("runtime directory {path}: {why}")]
    Runtime {
        /// The directory or the file in it.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ControlError {
    fn runtime(path: &Path, why: impl std::fmt::Display) -> Self {
        Self::Runtime {
            path: path.display().to_string(),
            why: why.to_string(),
        }
    }
}

/// What `PID.json` says: by which directory a mount is found. Bytes, because a path need not be text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RuntimeFile {
    pid: u32,
    mountpoint: Vec<u8>,
}

impl RuntimeFile {
    fn new(pid: u32, mountpoint: &Path) -> Self {
        Self {
            pid,
            mountpoint: mountpoint.as_os_str().as_bytes().to_vec(),
        }
    }

    fn mountpoint(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.mountpoint.clone()))
    }
}

/// The paths of a daemon's two files.
#[derive(Debug)]
struct RuntimePaths {
    /// `PID.json`.
    runtime_file: PathBuf,
    /// `PID.sock`.
    socket: PathBuf,
}

impl RuntimePaths {
    /// The files of the process `pid` in `directory`.
    fn new(directory: &Path, pid: u32) -> Self {
        Self {
            runtime_file: directory.join(format!("{pid}.json")),
            socket: directory.join(format!("{pid}.sock")),
        }
    }
}

#[cfg(test)]
mod tests;
