//! The rows of the answers. The names of the fields are those of `--json`: docs/CONFIGURATION.md lists them, and they only get more.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::error::VerbError;
use super::forget_row::ForgetRow;
use super::path::PathText;
use super::retention_rows::{KeptRow, PolicyWord, PruneRow, ReasonRow, StatRow};
use crate::fs::past::stamp::{Precision, print};
use crate::store::{Kind, Time, Timestamp};

/// The longest file whose bytes are sent for a comparison of lines.
pub const COMPARED_MAX: u64 = 16 << 20;

/// A row of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "snake_case")]
pub enum VerbRow {
    /// Of `versions`.
    Version(VersionRow),
    /// Of `versions` of a directory.
    Moment(MomentRow),
    /// Of `ls`.
    Entry(EntryRow),
    /// Of `log`.
    Change(ChangeRow),
    /// The last of an answer that is not complete.
    Truncated(TruncatedRow),
    /// Of `cat`; of `diff` after a difference, if the request asks for them.
    Bytes(BytesRow),
    /// Of `grep`.
    Match(MatchRow),
    /// The first of `diff`.
    Compared(ComparedKind),
    /// The first of a preview of `restore`.
    AsOf(AsOfRow),
    /// Of `diff`.
    Difference(DifferenceRow),
    /// Of `undelete` and `restore`.
    Restored(RestoredRow),
    /// Of `label`.
    Label(LabelEntry),
    /// Of `label` for a version.
    Held(HeldRow),
    /// Of `policy`.
    Policy(PolicyWord),
    /// Of `prune`.
    Pruned(PruneRow),
    /// Of `forget`.
    Forget(ForgetRow),
    /// Of `why`.
    Reason(ReasonRow),
    /// Of `stats`.
    Stat(StatRow),
}

/// A label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelEntry {
    /// The path of its directory, from the root of the namespace; the last one of a removed directory.
    pub path: PathText,
    /// Its name.
    pub label: PathText,
    /// What it shows, as a TIME.
    pub stamp: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// When it is removed, in nanoseconds since 1970; null if it stays.
    pub expires_ns: Option<u64>,
    /// Until when it cannot be removed, in nanoseconds since 1970; null if it is not held.
    pub held_until_ns: Option<u64>,
    /// The user who made it.
    pub user: u32,
    /// The host.
    pub host: String,
    /// The program.
    pub program: String,
    /// How many versions are filed under it: the rules of time do not keep them any more, and this label does.
    #[serde(default)]
    pub keeps_versions: u64,
    /// Their bytes without holes; bytes that other versions show too count for each.
    #[serde(default)]
    pub keeps_bytes: u64,
}

/// A version that is held, or was released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow {
    /// Its path when it was held, from the root of the namespace, with the names that its directories have now.
    pub path: PathText,
    /// When it began, as a TIME.
    pub stamp: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// Until when it cannot be deleted, in nanoseconds since 1970; null once it was released.
    pub held_until_ns: Option<u64>,
    /// The user who held or released it.
    pub user: u32,
    /// The host.
    pub host: String,
    /// The program.
    pub program: String,
}

/// What a verb brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredRow {
    /// The path it has now, from the root of the namespace.
    pub path: PathText,
    /// The path whose state it has.
    pub from: PathText,
    /// When it was restored, as a TIME.
    pub stamp: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// The time whose state it has, as a TIME; null for an undelete. A directory gets the state of the newest time up to the one that was
    /// asked for at which it is kept whole.
    pub as_of: Option<String>,
    /// As in a version, or `directory`.
    pub kind: String,
    /// Its length in bytes; null for a directory.
    pub size: Option<u64>,
    /// How many names changed; a removed tree counts as one if it was undeleted.
    pub changes: u64,
    /// The PATH@TIME whose restore undoes this; null where nothing was there before.
    pub undo: Option<PathText>,
    /// Paths below that stay as they are, because what they showed then was forgotten, or their policy does not keep it.
    pub left: Vec<PathText>,
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
    /// Until when it cannot be deleted, in nanoseconds since 1970; null if it is not held.
    #[serde(default)]
    pub held_until_ns: Option<u64>,
    /// What keeps it.
    #[serde(default)]
    pub kept_by: Vec<KeptRow>,
}

/// A time or a label of a directory, as `.versions` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MomentRow {
    /// The path that was asked for, from the root of the namespace.
    pub path: PathText,
    /// When its entries changed, or what the label shows, as a TIME.
    pub stamp: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// `directory`.
    pub kind: String,
    /// The label; null for a time.
    pub label: Option<PathText>,
    /// When the label is removed, in nanoseconds since 1970; null if it stays.
    pub expires_ns: Option<u64>,
    /// Until when the label cannot be removed, in nanoseconds since 1970; null if it is not held.
    pub held_until_ns: Option<u64>,
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
    /// In a comparison, the side that has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<DiffSide>,
    /// The bytes, in base64.
    #[serde(with = "super::base64_text")]
    pub bytes: Bytes,
}

/// A state of a file with a matching line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchRow {
    /// The path that was asked for, from the root of the namespace.
    pub path: PathText,
    /// When the state began, as a TIME that leads to this state and no later one.
    pub stamp: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// When the state ended; null for the current one.
    pub ended_ns: Option<u64>,
    /// Who made it, the number of a user on that machine.
    pub user: u32,
    /// How many lines match.
    pub matches: u64,
    /// The number of the first one, from 1.
    pub line: u64,
    /// The first one, up to 4 KiB of it.
    pub text: PathText,
}

/// A side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiffSide {
    /// What is compared.
    Old,
    /// What it is compared with.
    New,
}

/// The time whose state a restore would bring back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsOfRow {
    /// As a TIME: of a directory the newest time up to the one that was asked for at which it is kept whole.
    pub as_of: String,
    /// The same in nanoseconds since 1970.
    pub as_of_ns: u64,
}

/// What a comparison compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "compared", rename_all = "lowercase")]
pub enum ComparedKind {
    /// Two states of a file.
    Files,
    /// Two directories with all below them.
    Trees,
}

/// A difference between two trees, or two states of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceRow {
    /// What differs.
    pub change: PathDifference,
    /// The path: from the compared directory; of a file, from the root of the namespace.
    pub path: PathText,
    /// The path on the old side, where that is another one; else null.
    pub renamed_from: Option<PathText>,
    /// As in a version, or `directory`.
    pub kind: String,
    /// The old state; null for what was added.
    pub old: Option<SideRow>,
    /// The new state; null for what was removed.
    pub new: Option<SideRow>,
}

/// What differs between two states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathDifference {
    /// Only the new side has it.
    Added,
    /// Only the old side has it.
    Removed,
    /// The bytes, the target or the device.
    Changed,
    /// The name; the content may differ too.
    Renamed,
    /// The permission bits or the owner, and nothing else.
    Mode,
    /// Not known: a version that was forgotten, or a directory that the policy of a directory keeps for a shorter time. What is below is not
    /// compared.
    NotKept,
}

/// A state in a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideRow {
    /// When the state began, as a TIME.
    pub stamp: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its permission bits, octal.
    pub mode: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl DifferenceRow {
    /// Tells whether a request for contents gets the bytes of both sides: of files up to [`COMPARED_MAX`].
    #[must_use]
    pub fn has_lines(&self) -> bool {
        let is_short =
            |side: &Option<SideRow>| side.as_ref().is_none_or(|side| side.size <= COMPARED_MAX);
        let has_bytes = self.kind == "file" && self.change != PathDifference::Mode;
        has_bytes && is_short(&self.old) && is_short(&self.new)
    }
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
