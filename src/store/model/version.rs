//! Types of the store's interface: ids, timestamps, attributes, versions.
//!
//! Invariant: each [`Timestamp`] of a namespace is given once; a [`VersionId`] and the bytes it names never change.

use std::fmt;

use crate::cache::Referent;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Number of an inode. A number is never given twice in a namespace; an undelete gives a directory its old number again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ino(pub u64);

/// The inode number of the root directory of every namespace.
pub const ROOT: Ino = Ino(1);

/// A point of the namespace's own clock, in nanoseconds since the Unix epoch; strictly increasing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the timestamp as a file time.
    pub fn time(self) -> Time {
        Time {
            seconds: (self.0 / 1_000_000_000).cast_signed(),
            nanos: u32::try_from(self.0 % 1_000_000_000).unwrap_or(0),
        }
    }
}

/// Id of a version: its timestamp and a suffix. It prints as 39 digits, `_`, 8 hex digits, so that ids sort by time as
/// text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId {
    /// When the version began.
    pub timestamp: Timestamp,
    /// Distinguishes versions of different writers with the same timestamp.
    pub suffix: u32,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:039}_{:08x}", self.timestamp.0, self.suffix)
    }
}

impl std::str::FromStr for VersionId {
    type Err = crate::store::model::error::StoreError;

    /// Reads what `Display` prints: 39 digits, `_`, 8 hex digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text
            .split_once('_')
            .filter(|(at, suffix)| at.len() == 39 && suffix.len() == 8);
        let plain = parts.filter(|(at, suffix)| {
            let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
            at.bytes().all(|c| c.is_ascii_digit()) && suffix.bytes().all(hex)
        });
        let id = plain.and_then(|(at, suffix)| {
            Some(Self {
                timestamp: Timestamp(at.parse().ok()?),
                suffix: u32::from_str_radix(suffix, 16).ok()?,
            })
        });
        id.ok_or_else(|| Self::Err::Invalid(format!("{text:?} is not a version id")))
    }
}

/// A file time as in POSIX: seconds since the epoch, possibly negative, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds, 0..1,000,000,000.
    pub nanos: u32,
}

/// Limit, in nanoseconds: while the machine's clock is less than this behind a file's last change, the next change still
/// gets a later time than the last one.
const BEHIND_MAX: i128 = 1_000_000_000;

impl Time {
    /// Returns the time as a timestamp; one before 1970 as 0.
    pub(crate) fn timestamp(self) -> Timestamp {
        let seconds = u64::try_from(self.seconds).unwrap_or(0);
        let nanos = seconds.saturating_mul(1_000_000_000);
        Timestamp(nanos.saturating_add(u64::from(self.nanos)))
    }

    /// Returns the time of a change of bytes at `now` on the machine's clock, after a change with the time `last`. If the
    /// clock stands still or goes back by less than a second, the result is `last` plus one nanosecond: other bytes
    /// always have another time, by which the kernel of a follower, and tools that compare times and lengths, see the
    /// change.
    pub(crate) fn of_change(now: Self, last: Self) -> Self {
        let count = |time: Self| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        if !(0..BEHIND_MAX).contains(&(count(last) - count(now))) {
            return now;
        }
        match last.nanos {
            999_999_999 => Self {
                seconds: last.seconds.saturating_add(1),
                nanos: 0,
            },
            nanos => Self {
                nanos: nanos + 1,
                ..last
            },
        }
    }
}

/// The type of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// Attributes of an inode, as in stat(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attrs {
    /// The 12 permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device; 0 otherwise.
    pub rdev: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
}

/// A live inode as stat(2) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Inode number.
    pub ino: Ino,
    /// Distinguishes an undeleted directory from the removed one that had the same number.
    pub generation: u64,
    /// Its type.
    pub kind: Kind,
    /// Its attributes.
    pub attrs: Attrs,
    /// Number of names; for a directory 2 plus the number of its subdirectories.
    pub nlink: u32,
    /// Number of blocks of 512 bytes.
    pub blocks: u64,
    /// Changes whenever the bytes change: the kernel may keep its page cache over an open if the stamp is unchanged.
    pub content_stamp: u64,
    /// Whether it has extended attributes.
    pub xattrs: XattrPresence,
}

/// Whether an inode has extended attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrPresence {
    /// It may have some.
    #[default]
    Possible,
    /// It has none.
    Absent,
}

impl XattrPresence {
    /// Returns the presence of `attributes`, all that an inode has.
    pub(crate) fn of(attributes: &[(Bytes, Bytes)]) -> Self {
        match attributes.is_empty() {
            true => Self::Absent,
            false => Self::Possible,
        }
    }
}

/// An inode from which a name was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Displaced {
    /// Its attributes after the removal.
    pub stat: Stat,
    /// Its extended attributes.
    pub xattrs: Vec<(Bytes, Bytes)>,
}

/// The author of a state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// User id of the caller.
    pub uid: u32,
    /// Name of the program, as in /proc/PID/comm; empty if unknown.
    pub process: String,
}

/// The operation that made a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// The name was created.
    Create,
    /// A handle that changed the content was closed.
    Write,
    /// truncate(2) by path.
    Truncate,
    /// A rename created the name.
    Rename,
    /// link(2) created the name.
    Link,
    /// It was restored out of `@deleted`.
    Undelete,
    /// The file was open when the daemon ended; the next mount saved its state.
    Recovered,
    /// It was acknowledged by a writer that was fenced before the commit.
    Conflict,
    /// It restores an older state.
    Restore,
    /// It was imported with a time and an id of another store.
    Import,
}

/// The operation that ended a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndOp {
    /// The inode has a newer state.
    Superseded,
    /// The name was removed.
    Deleted,
    /// A rename moved the inode to another name.
    RenamedTo,
    /// Another inode was renamed over the name.
    Replaced,
    /// A rename moved the inode to another name soon after its creation: the name is visible at its time, but in no list of
    /// versions.
    Transient,
    /// The name was removed; what it led to was undeleted later, under this name or another one.
    Undeleted,
    /// The name was removed after a later version, which retention has dropped since: what is left is not its last state.
    Expired,
}

/// What deletions of versions have left of a version that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retained {
    /// The version, for the time in which it was current.
    #[default]
    Whole,
    /// The version; younger versions after it were deleted, and it ends when the last of them ended.
    Thinned,
    /// Only that the name existed: the version was deleted, and there was none before it. Reading it fails.
    Nothing,
}

/// The stored bytes of a state: a lineage and a timestamp in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentRef {
    /// Id of the lineage.
    pub cid: u64,
    /// Timestamp of the state in the lineage.
    pub timestamp: Timestamp,
}

impl ContentRef {
    /// Returns the name of the content in the spans of a dirty map.
    pub(crate) fn referent(self) -> Referent {
        Referent(self.cid, self.timestamp.0)
    }

    /// Returns the content that a span of a dirty map names.
    pub(crate) fn of(referent: Referent) -> Self {
        Self {
            cid: referent.0,
            timestamp: Timestamp(referent.1),
        }
    }
}

/// The content of an inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Nothing: an empty file, a directory, a device.
    Empty,
    /// Bytes of a lineage; the length is `Attrs::size`.
    Bytes(ContentRef),
    /// Target of a symbolic link.
    Target(Bytes),
    /// Bytes of another file's lineage (a copy, an undeleted file): the next write begins a new lineage.
    Shared(ContentRef),
}

impl Content {
    /// Returns the stored bytes, of this file's lineage or another file's; `None` if nothing is stored.
    pub fn reference(&self) -> Option<ContentRef> {
        match self {
            Self::Bytes(content) | Self::Shared(content) => Some(*content),
            Self::Empty | Self::Target(_) => None,
        }
    }
}

/// The former name of an inode that a rename moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Directory the name was in.
    pub directory: Ino,
    /// Name it had there.
    pub name: Bytes,
}

/// Identity of a version: when, how and by whom it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Its id.
    pub id: VersionId,
    /// The operation that made it.
    pub op: Op,
    /// Its author.
    pub author: Author,
    /// The machine on which it was made.
    pub host: String,
    /// The former name, if a rename made it.
    pub origin: Option<Origin>,
}

/// A change of attributes; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct AttrChange {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access time.
    pub atime: Option<Time>,
    /// Modification time.
    pub mtime: Option<Time>,
    /// Change time; `None` means the machine's clock.
    pub ctime: Option<Time>,
}

impl AttrChange {
    pub(crate) fn apply(&self, attrs: &mut Attrs, now: Time) {
        attrs.mode = self.mode.unwrap_or(attrs.mode);
        attrs.uid = self.uid.unwrap_or(attrs.uid);
        attrs.gid = self.gid.unwrap_or(attrs.gid);
        attrs.atime = self.atime.unwrap_or(attrs.atime);
        attrs.mtime = self.mtime.unwrap_or(attrs.mtime);
        attrs.ctime = self.ctime.unwrap_or(now);
    }
}

/// A version of a name, or its current state, as the past shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEntry {
    /// The inode that had the name.
    pub ino: Ino,
    /// Its type.
    pub kind: Kind,
    /// Its attributes at its end.
    pub attrs: Attrs,
    /// Its extended attributes at its end.
    pub xattrs: Vec<(Bytes, Bytes)>,
    /// Its content.
    pub content: Content,
    /// Bytes that are not holes.
    pub allocated: u64,
    /// Its id. For a name of a hard-linked inode: that of the name's creation or of the inode's state, whichever is later.
    pub version: VersionId,
    /// When it ended; `None` for the current one.
    pub ended: Option<Timestamp>,
    /// The operation that made it.
    pub op: Op,
    /// Its author.
    pub author: Author,
    /// The machine on which it was made.
    pub host: String,
    /// The former name, if a rename made it.
    pub renamed_from: Option<Origin>,
    /// What deletions of versions have left of it.
    pub kept: Retained,
    /// For a hard-linked inode: the state that all of its names show.
    pub shared: Option<Box<SharedState>>,
}

/// A state of a hard-linked inode, independent of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedState {
    /// Its id, operation and author.
    pub stamp: Stamp,
    /// When it ended; `None` for the current one.
    pub ended: Option<Timestamp>,
}

impl PastEntry {
    /// Returns the inode's version instead of the name's; the two differ only for a hard-linked inode.
    #[must_use]
    pub fn of_inode(self) -> Self {
        let Some(shared) = self.shared.clone() else {
            return self;
        };
        let SharedState { stamp, ended } = *shared;
        Self {
            version: stamp.id,
            ended,
            op: stamp.op,
            author: stamp.author,
            host: stamp.host,
            renamed_from: stamp.origin,
            ..self
        }
    }

    /// Tells whether its attributes can no longer change. The state of a hard-linked inode can outlast this name.
    pub fn is_over(&self) -> bool {
        match &self.shared {
            Some(shared) => shared.ended.is_some(),
            None => self.ended.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_ids_sort_as_text_by_time() {
        let early = VersionId {
            timestamp: Timestamp(99),
            suffix: 0xffff_ffff,
        };
        let late = VersionId {
            timestamp: Timestamp(100),
            suffix: 0,
        };
        assert!(early.to_string() < late.to_string());
        assert_eq!(
            late.to_string(),
            "000000000000000000000000000000000000100_00000000"
        );
        assert_eq!(early.to_string().parse::<VersionId>().unwrap(), early);
        for bad in [
            "",
            "100_00000000",
            "+00000000000000000000000000000000000100_00000000",
        ] {
            assert!(bad.parse::<VersionId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_has_a_later_time_than_the_last_one_if_the_clock_is_less_than_a_second_behind() {
        let time = |seconds, nanos| Time { seconds, nanos };
        let now = time(100, 5);
        for (last, expected) in [
            (time(100, 4), now),
            (time(-7, 0), now),
            (time(100, 5), time(100, 6)),
            (time(100, 999_999_999), time(101, 0)),
            (time(101, 4), time(101, 5)),
            (time(101, 5), now),
            (time(i64::MAX, 999_999_999), now),
        ] {
            assert_eq!(Time::of_change(now, last), expected, "{last:?}");
        }
    }

    #[test]
    fn a_timestamp_converts_to_a_file_time() {
        assert_eq!(
            Timestamp(1_500_000_000).time(),
            Time {
                seconds: 1,
                nanos: 500_000_000
            }
        );
    }
}
