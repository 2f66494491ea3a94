//! How a command reaches the daemon of a mount: a request and an answer of one JSON line each, over a Unix socket. Before the
//! answer to a verb come its rows, one line each, as fast as the command reads them.
//!
//! Each mount has two files in the runtime directory, `PID.json` (which mountpoint) and `PID.sock`, both for its user alone.
//! A command finds the mount by its mountpoint and never enters the mount, so that it works on one that does not answer.
//! Invariant: a command that finds the files of an ended daemon removes them, and it uses a file only after the socket has
//! answered.

mod client;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod server;

pub use client::{
    DaemonAnswer, ask, ask_rows, ask_while, mountpoints, mounts_of, predecessor, status_of,
    wait_for_end,
};
pub use server::Control;

use crate::verbs::{ChangeVerb, ReadVerb, VerbRow};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A request of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Request {
    /// Return the status of the mount.
    Status,
    /// Upload everything acknowledged, then answer.
    Drain {
        /// The longest time without progress, in milliseconds; by default the mount's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// Drain, unmount, end; then answer.
    Shutdown {
        /// Unmount even while a file is open.
        lazy: bool,
        /// Do not drain: changes that are not in the bucket stay in the cache directory.
        #[serde(default)]
        keep: bool,
        /// As for [`Request::Drain`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// Send the rows of a verb that reads, then answer.
    Read {
        /// The verb.
        verb: ReadVerb,
    },
    /// Make the changes of a verb and send its rows, then answer. The changes are made even if the command ends meanwhile.
    Change {
        /// The verb.
        verb: ChangeVerb,
    },
}

/// An answer of the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Response {
    /// The status of the mount.
    Status(Box<StatusReport>),
    /// The request is done.
    Done,
    /// The request is done, with a remark for the user.
    Remark {
        /// The remark, for a person.
        message: String,
    },
    /// A row of the answer; another answer follows.
    Row {
        /// The row.
        row: Box<VerbRow>,
    },
    /// The request failed.
    Failed {
        /// Why, for a person.
        message: String,
    },
}

/// The status of a mount. Times are in nanoseconds since 1970 unless the name says otherwise, sizes in bytes.
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
    /// The namespace's id.
    #[serde(default)]
    pub uuid: String,
    /// `read-write`, `read-only` or `standby`; `read-write, mounted read-only` once mount(8) was told to refuse changes.
    pub mode: String,
    /// When close(2) returns: `release`, `close` or `interval`.
    pub sync_on: String,
    /// When it was mounted.
    pub mounted_ns: u64,
    /// With `read-only`, the timestamp up to which the writer's changes are shown.
    pub shown_ns: Option<u64>,
    /// With `--at`, the time whose whole tree is shown.
    pub at: Option<ShownTime>,
    /// Whether another writer has taken the namespace; every change is refused then.
    pub fenced: bool,
    /// The lease of a mount that writes.
    #[serde(default)]
    pub lease: Option<LeaseReport>,
    /// The conflicts that this mount found: changes that another writer had superseded.
    pub conflicts: ConflictReport,
    /// Changes that are not yet in the bucket.
    pub pending: BacklogReport,
    /// The size of the live tree.
    pub usage: UsageReport,
    /// The history, once it was looked at; a writer looks every minute.
    #[serde(default)]
    pub history: Option<HistoryReport>,
    /// The restore of a large directory that an earlier mount began and this one has completed.
    #[serde(default)]
    pub completed_restore: Option<CompletedReport>,
    /// Objects deleted from the bucket since the mount, and those to be deleted.
    pub reclaimed: ReclaimReport,
    /// Requests to the store since the mount.
    pub requests: RequestReport,
    /// The task that panicked; every call is EIO then.
    pub poisoned: Option<String>,
}

/// The right to answer as the namespace's writer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseReport {
    /// How long it lasts without another heartbeat in the bucket, in milliseconds.
    pub remaining_ms: u64,
    /// How often it was over and not renewed in time; every call was EIO then.
    pub lapses: u64,
    /// The machine of a process that waits for the namespace.
    pub watched_by: Option<String>,
}

/// The history of the namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryReport {
    /// Its bytes; null while they are not counted.
    pub bytes: Option<u64>,
    /// What `history-max` means now; null without a limit.
    pub max_bytes: Option<u64>,
    /// Since when `history-max` has shortened the policy; null if it has not.
    pub shortened_ns: Option<u64>,
    /// Versions that only `rewindfs prune --confirm` drops.
    pub waiting_versions: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Why nothing is dropped.
    pub stopped: Option<String>,
}

/// The time whose whole tree a mount shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownTime {
    /// The time as the user wrote it.
    pub asked: String,
    /// What it meant at the mount.
    pub asked_ns: u64,
    /// The timestamp that is shown, as a name of `.versions`.
    pub stamp: String,
    /// The timestamp that is shown. It is less than `asked_ns` where that was after the newest state in the bucket, or where the tree is not
    /// kept whole any more.
    pub ns: u64,
    /// Whether a later state up to the time that was asked for is not kept whole.
    #[serde(default)]
    pub pruned: bool,
}

/// A restore that a mount has completed for an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedReport {
    /// The path of the directory, from the root directory on.
    pub path: String,
    /// The time whose state it has, in nanoseconds since 1970.
    pub as_of_ns: u64,
    /// The number of changes.
    pub changes: u64,
    /// The paths that stay as they are, because what they showed was forgotten, or their policy does not keep it.
    pub left: Vec<String>,
}

/// Changes that are not yet in the bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogReport {
    /// Files with content that only this machine has.
    pub files: u64,
    /// Their bytes that are not in the bucket.
    pub bytes: u64,
    /// Operations that are not durable.
    pub operations: u64,
    /// When the oldest of them was acknowledged.
    pub oldest_ns: Option<u64>,
    /// Its age in milliseconds.
    pub oldest_age_ms: Option<u64>,
    /// Failures since the mount, one line each.
    pub failures: Vec<String>,
}

/// Acknowledged changes that another writer had superseded, found by the mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictReport {
    /// Versions marked `conflict`.
    pub versions: u64,
    /// Paths of the files that have them, from the root of the namespace; the first hundred.
    pub places: Vec<String>,
    /// Operations without content, which were dropped.
    pub dropped: u64,
}

/// The size of the live tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, directories, links and special files.
    pub files: u64,
}

/// Objects that no version shows any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimReport {
    /// Bytes deleted from the bucket.
    pub bytes: u64,
    /// The deleted objects.
    pub objects: u64,
    /// Bytes that are deleted after the grace period.
    pub waiting_bytes: u64,
    /// Their objects.
    pub waiting_objects: u64,
    /// Bytes of uncited segments of ended writers, which are kept longer.
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

/// Why a daemon did not answer or could not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No daemon of this user serves that mountpoint.
    #[error("no rewindfs of this user is mounted at {0}")]
    NotFound(String),
    /// The daemon ended, or sent something that is no answer.
    #[error("the rewindfs at {path} did not answer: {why}")]
    NoAnswer {
        /// The mountpoint.
        path: String,
        /// What happened.
        why: String,
    },
    /// The daemon does not know the request.
    #[error(
        "the rewindfs at {0} is of an older version, which does not know this command: unmount it, then mount it again"
    )]
    OlderDaemon(String),
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

/// The content of `PID.json`: the mountpoint and the namespace by which a command finds the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RuntimeFile {
    pid: u32,
    /// Bytes, because a path need not be UTF-8.
    mountpoint: Vec<u8>,
    /// The namespace's id; empty from an older daemon.
    #[serde(default)]
    uuid: String,
}

impl RuntimeFile {
    fn new(pid: u32, mountpoint: &Path, uuid: &str) -> Self {
        Self {
            pid,
            mountpoint: mountpoint.as_os_str().as_bytes().to_vec(),
            uuid: uuid.to_owned(),
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
