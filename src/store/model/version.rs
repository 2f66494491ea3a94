//! The words of the blob store: ids, timestamps, attributes, and what is known of a version.
//!
//! Invariant: an [`Timestamp`] of a namespace is given once; a [`VersionId`] and the bytes it names never change.

use std::fmt;

use crate::cache::Referent;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Number of an inode, unique in its namespace for ever; a directory's id is its inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ino(pub u64);

/// The root directory of every namespace.
pub const ROOT: Ino = Ino(1);

/// A point of the namespace's own clock, nanoseconds since the Unix epoch, strictly increasing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The file time that this timestamp is.
    pub fn time(self) -> Time {
        Time {
            seconds: (self.0 / 1_000_000_000).cast_signed(),
            nanos: u32::try_from(self.0 % 1_000_000_000).unwrap_or(0),
        }
    }
}

/// Name of a version: its timestamp and a suffix, printed as 39 digits, `_`, 8 hex digits, so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId {
    /// When the state was fixed.
    pub timestamp: Timestamp,
    /// Tells apart what different writers may have fixed at one timestamp.
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
        id.ok_or_else(|| Self::Err::Invalid(format!("{text:?} is no version id")))
    }
}

/// A file time as POSIX has it: seconds since the epoch, possibly negative, and nanoseconds below a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Whole seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds, 0..1,000,000,000.
    pub nanos: u32,
}

/// How far behind a file's last change the machine's clock may be and the next one is still dated after it, in nanoseconds.
const BEHIND_MAX: i128 = 1_000_000_000;

impl Time {
    /// The time of a change of bytes at `now` on the machine's clock, where the one before it has the time `last`. A clock
    /// that stands still or goes back by a little moves on by a nanosecond, so that other bytes have another time: a kernel
    /// that follows, and tools that compare times and lengths, see the change by it.
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

/// What an inode is.
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
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// Attributes of an inode, as stat(2) knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attrs {
    /// The 12 permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device, else 0.
    pub rdev: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
}

/// A live inode as stat(2) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Number.
    pub ino: Ino,
    /// Tells a number that came back (an undeleted directory) from its earlier life.
    pub generation: u64,
    /// What it is.
    pub kind: Kind,
    /// Its attributes.
    pub attrs: Attrs,
    /// Names that lead to it; for a directory 2 plus its subdirectories.
    pub nlink: u32,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Changes whenever the bytes change: an open whose stamp is unchanged may keep the page cache.
    pub content_stamp: u64,
}

/// An inode that lost a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Displaced {
    /// As stat(2) shows it from then on.
    pub stat: Stat,
    /// Its extended attributes.
    pub xattrs: Vec<(Bytes, Bytes)>,
}

/// Who saved a state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// User number of the caller.
    pub uid: u32,
    /// Name of the program, as /proc/PID/comm has it; empty where unknown.
    pub process: String,
}

/// How a version came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// The name was made.
    Create,
    /// A handle that changed content was released.
    Write,
    /// truncate(2) by path.
    Truncate,
    /// The name was made by a rename.
    Rename,
    /// The name was made by link(2).
    Link,
    /// It came back out of `@deleted`.
    Undelete,
    /// It was open when the daemon ended, and found by the next mount.
    Recovered,
    /// It was acknowledged by a writer that had lost its place.
    Conflict,
    /// It was put back from the past.
    Restore,
    /// It was brought in with a time and an id of its own.
    Import,
}

/// How a version ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndOp {
    /// A newer state of the same inode.
    Superseded,
    /// The name was removed.
    Deleted,
    /// The name left by a rename.
    RenamedTo,
    /// Another inode was renamed over the name.
    Replaced,
    /// The name left by a rename within moments of its making: a time shows it, no list of versions does.
    Transient,
    /// The name was removed, and what it led to came back since, here or under another name.
    Undeleted,
}

/// What a version that has ended still shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retained {
    /// Itself, for the time it stood.
    #[default]
    Whole,
    /// Itself, and in the place of younger versions that were deleted: its end is theirs.
    Thinned,
    /// Only that the name was there: the version was deleted, and there was none before it. Reading it fails.
    Nothing,
}

/// Which bytes a version has: a lineage and a timestamp of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentRef {
    /// Lineage.
    pub cid: u64,
    /// State of the lineage.
    pub timestamp: Timestamp,
}

impl ContentRef {
    /// As a dirty map's spans name it.
    pub(crate) fn referent(self) -> Referent {
        Referent(self.cid, self.timestamp.0)
    }

    /// What a dirty map's span names.
    pub(crate) fn of(referent: Referent) -> Self {
        Self {
            cid: referent.0,
            timestamp: Timestamp(referent.1),
        }
    }
}

/// What an inode holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Nothing: an empty file, a directory, a device.
    Empty,
    /// Bytes of a lineage; their length is the attributes' size.
    Bytes(ContentRef),
    /// Where a symbolic link points.
    Target(Bytes),
    /// Bytes of another file's lineage (a copy, an undeleted file): what is written over them begins a new lineage.
    Shared(ContentRef),
}

impl Content {
    /// Returns the stored bytes, of this file's lineage or another file's; `None` where there are none.
    pub fn reference(&self) -> Option<ContentRef> {
        match self {
            Self::Bytes(content) | Self::Shared(content) => Some(*content),
            Self::Empty | Self::Target(_) => None,
        }
    }
}

/// Where a name made by a rename came from.
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
    /// How it came to be.
    pub op: Op,
    /// Who made it.
    pub author: Author,
    /// Machine it was made on.
    pub host: String,
    /// Where the name came from, when a rename made it.
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
    /// Change time; the machine's clock where absent.
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

/// A state of a name in the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEntry {
    /// Inode that bore the name then.
    pub ino: Ino,
    /// What it was.
    pub kind: Kind,
    /// Attributes the state ended with.
    pub attrs: Attrs,
    /// Extended attributes it ended with.
    pub xattrs: Vec<(Bytes, Bytes)>,
    /// Its bytes.
    pub content: Content,
    /// Bytes of it that are not holes.
    pub allocated: u64,
    /// Its id; in a slot of a hard-linked inode the later of binding and state.
    pub version: VersionId,
    /// When it ended; `None` for the current one.
    pub ended: Option<Timestamp>,
    /// How it came to be.
    pub op: Op,
    /// Who made it.
    pub author: Author,
    /// Machine it was made on.
    pub host: String,
    /// Name the slot was renamed from.
    pub renamed_from: Option<Origin>,
    /// What is left of it.
    pub kept: Retained,
    /// Of one of several names of an inode: the state that all of them show.
    pub shared: Option<Box<SharedState>>,
}

/// A state of an inode with several names, whichever name it is seen under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedState {
    /// When, how and by whom it was made.
    pub stamp: Stamp,
    /// When it ended; `None` for the current one.
    pub ended: Option<Timestamp>,
}

impl PastEntry {
    /// The same as all names of its inode have it: not the name's version, but the inode's.
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

    /// Whether its attributes can no longer change; under another name its state may stand longer than under this one.
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
    fn another_change_has_another_time_near_the_machines_clock() {
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
    fn an_instant_is_a_file_time() {
        assert_eq!(
            Timestamp(1_500_000_000).time(),
            Time {
                seconds: 1,
                nanos: 500_000_000
            }
        );
    }
}
