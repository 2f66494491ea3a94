//! What forgetting tells: what goes, what stands in the way, and how far it is.

use bytes::Bytes;

use crate::store::model::ids::Dentry;
use crate::store::model::version::{Ino, PastEntry, Timestamp, VersionId};
use crate::store::schema::retention_rows::ForgottenRow;

/// What is to be forgotten: versions of a name, with those from before its renames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgetRequest {
    /// The directory of the name.
    pub directory: Ino,
    /// The name, which may be removed.
    pub name: Bytes,
    /// Only versions that ended at or before this time; `None`: all that have ended.
    pub before: Option<Timestamp>,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShownName {
    /// The directory.
    pub directory: Ino,
    /// The name.
    pub name: Bytes,
}

impl From<Dentry> for ShownName {
    fn from(dentry: Dentry) -> Self {
        Self {
            directory: dentry.parent,
            name: dentry.name,
        }
    }
}

/// A version that is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgottenVersion {
    /// The name under which it is recorded.
    pub name: ShownName,
    /// Its id, for a hard-linked inode that of the inode's state.
    pub id: VersionId,
    /// The state.
    pub entry: PastEntry,
}

/// What would go, and what stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgetPlan {
    /// The versions, oldest first.
    pub versions: Vec<ForgottenVersion>,
    /// Stored bytes that only these versions show.
    pub bytes: u64,
    /// The number of states of the name that stay.
    pub stay: u64,
    /// Whether one of them is the current one.
    pub has_current: bool,
    /// What else shows these bytes.
    pub shown_by: Vec<ShownBy>,
    /// What shows a few bytes that are the same, and of which no row tells whether they are a copy.
    pub shown_alike: Vec<ShownBy>,
    /// Whether the bytes of versions that are deleted already have to go.
    pub is_begun: bool,
    /// What is to be remembered until the bytes are gone.
    pub(crate) row: ForgottenRow,
}

impl ForgetPlan {
    /// Tells whether something stands in the way of the deletion.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let mut shown_by = self.shown_by.iter();
        shown_by.any(ShownBy::is_in_the_way)
    }
}

/// Something that shows a version, or its bytes, and that forgetting leaves alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownBy {
    /// A label of a directory.
    Label {
        /// The directory.
        directory: Ino,
        /// The label.
        name: Bytes,
    },
    /// A hold on the version that began then, until a time.
    Hold {
        /// The name under which the version is recorded.
        name: ShownName,
        /// When the version began.
        began: Timestamp,
        /// The end of the hold.
        until: Timestamp,
    },
    /// The current state of a name: a file with a copy of the bytes that was made without moving them.
    Name(ShownName),
    /// Another name of the same hard-linked file, which exists.
    Link(ShownName),
    /// A version of another name, which began then and has ended: a copy too. It does not stand in the way of the deletion, but the bytes
    /// stay until it is forgotten as well.
    Version(ShownName, Timestamp),
    /// The current state of a name: it was written over a state with the bytes, and does not show them, but they are in its stored form.
    /// They stay until the file is saved anew, and the state forgotten too.
    Stored(ShownName),
    /// A file without a name that a program has open.
    OpenFile,
}

impl ShownBy {
    /// Tells whether it stands in the way of the deletion; if not, only the bytes stay because of it.
    #[must_use]
    pub fn is_in_the_way(&self) -> bool {
        !matches!(self, Self::Version(..) | Self::Stored(_))
    }
}

/// A step of forgetting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForgetStep {
    /// So many versions are deleted.
    Deleted(u64),
    /// A program reads one of the versions: their bytes go when it has closed it.
    WaitsForReaders,
    /// Their rows are deleted; so many segments are to go, and so many are copied without their bytes.
    Rows {
        /// Segments to be deleted.
        dead: u64,
        /// Segments that were copied.
        copied: u64,
    },
    /// The log has a checkpoint without them.
    Log,
    /// The index's tables are rewritten.
    Index,
    /// Followers get so many seconds to read the newer state.
    WaitsForFollowers(u64),
    /// The listing of the bucket lacks so many objects that it had.
    Objects(u64),
    /// This machine's journal and cache do not have them.
    Local,
}
