//! The rows of the answers. The names of the fields are those of `--json`: docs/CONFIGURATION.md lists them, and they only get more.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::error::VerbError;
use super::path::PathText;
use crate::fs::past::stamp::{Precision, print};
use crate::store::{Kind, Time, Timestamp};

/// A row of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "snake_case")]
pub enum VerbRow {
    /// Of `versions`.
    Version(VersionRow),
    /// Of `ls`.
    Entry(EntryRow),
    /// Of `log`.
    Change(ChangeRow),
    /// The last of an answer that is not complete.
    Truncated(TruncatedRow),
    /// Of `cat`.
    Bytes(BytesRow),
}

/// A state of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// The path that was asked for, from the root of the namespace.
    pub path: PathText,
    /// When the state began, as a TIME that leads to this state and no later one.
    pub stamp: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// When the state ended; null for the current one.
    pub ended_ns: Option<u64>,
    /// What made it: `create`, `write`, `truncate`, `rename`, `link`, `undelete`, `recovered`, `conflict`, `restore`, `import`.
    pub op: String,
    /// `file`, `symlink`, `fifo`, `socket`, `char_device` or `block_device`.
    pub kind: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its permission bits, octal.
    pub mode: String,
    /// Who made it, the number of a user on that machine.
    pub user: u32,
    /// The machine on which it was made.
    pub host: String,
    /// The program that made it; empty if unknown.
    pub program: String,
    /// The path that a rename or an undelete took it from; null if none did.
    pub renamed_from: Option<PathText>,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow {
    /// Its path from the root of the namespace.
    pub path: PathText,
    /// Its name.
    pub name: PathText,
    /// As in a version, or `directory`.
    pub kind: String,
    /// Its permission bits, octal.
    pub mode: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its length in bytes.
    pub size: u64,
    /// Its modification time in nanoseconds since 1970.
    pub modified_ns: i64,
    /// When its state began, as a TIME.
    pub stamp: String,
    /// The target of a symbolic link; null for everything else.
    pub target: Option<PathText>,
}

/// A change of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// The path that changed, from the root of the namespace.
    pub path: PathText,
    /// When, as a TIME.
    pub stamp: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// As in a version; or `delete`, or `move` to another directory. The fields below are null for these two.
    pub op: String,
    /// As in a version, or `directory`.
    pub kind: Option<String>,
    /// Its length in bytes; null for a directory.
    pub size: Option<u64>,
    /// Bytes in segments that the state is read from; null for anything but a file.
    pub stored: Option<u64>,
    /// Who changed it, the number of a user on that machine.
    pub user: Option<u32>,
    /// The machine on which it was changed.
    pub host: Option<String>,
    /// The program that changed it; empty if unknown.
    pub program: Option<String>,
    /// The path that a rename or an undelete took it from; null if none did.
    pub renamed_from: Option<PathText>,
}

/// An answer has more rows than are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TruncatedRow {
    /// How many were sent.
    pub limit: u64,
}

/// Bytes of a file, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BytesRow {
    /// The bytes, in base64.
    #[serde(with = "super::base64_text")]
    pub bytes: Bytes,
}

/// Where the rows of an answer go.
#[derive(Debug, Clone)]
pub struct RowSender(mpsc::Sender<VerbRow>);

impl RowSender {
    /// Returns a sender, and the receiver of what it sends: at most `ahead` rows wait between the two.
    #[must_use]
    pub fn channel(ahead: usize) -> (Self, mpsc::Receiver<VerbRow>) {
        let (sender, receiver) = mpsc::channel(ahead);
        (Self(sender), receiver)
    }

    /// Passes a row on; waits while the receiver is slow.
    ///
    /// # Errors
    /// `Unread` when the receiver is gone.
    pub async fn put_row(&self, row: VerbRow) -> Result<(), VerbError> {
        self.0.send(row).await.map_err(|_| VerbError::Unread)
    }

    /// Waits until the receiver is gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// Prints a timestamp as a TIME that leads to what began at it and nothing later.
pub(super) fn stamp(at: Timestamp) -> String {
    print(at, Precision::Nanos)
}

/// Prints permission bits.
pub(super) fn mode(bits: u32) -> String {
    format!("{bits:04o}")
}

/// Returns a file time in nanoseconds since 1970, as near as 64 bits have it.
pub(super) fn nanoseconds(time: Time) -> i64 {
    let seconds = time.seconds.saturating_mul(1_000_000_000);
    seconds.saturating_add(i64::from(time.nanos))
}

/// Returns the name of a type of inode.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice => "char_device",
        Kind::BlockDevice => "block_device",
    }
}

/// Returns a path as a row has it.
pub(super) fn path_text(bytes: &[u8]) -> PathText {
    PathText(Bytes::copy_from_slice(bytes))
}
