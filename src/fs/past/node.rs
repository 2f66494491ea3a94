//! What a node of the past can do. Each kind of node is a type in a file of its own, which implements [`PastDir`] or [`PastFile`].
//!
//! Invariant: no method here writes, so that the past needs no flag to be read-only.

use super::reader::{Lasting, PastReader};
use super::shown::ShownAttrs;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{CloneSource, Ino, Kind, PastEntry, Pin, ReadAhead, Timestamp, Whence};
use crate::sync::Arc;
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt::Debug;
use std::ops::RangeInclusive;

/// The kinds of nodes, each with the first byte of its identities. Two kinds with one byte do not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum NodeKind {
    ChangeLog = b'J',
    DeletedDir = b'R',
    FilesDir = b'F',
    HelpFile = b'?',
    HistoryDir = b'H',
    LabelDir = b'B',
    Latest = b'L',
    LinkedState = b'K',
    Previous = b'P',
    RemovedDir = b'G',
    RemovedVersionsDir = b'W',
    State = b'S',
    TimeDir = b'T',
    TreeDir = b'D',
    VersionsDir = b'V',
}

/// The bytes that tell one node from another; equal identities are the same node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity(Vec<u8>);

impl Identity {
    /// The identity of a kind of node with its numbers and its name.
    pub(super) fn new(kind: NodeKind, numbers: &[u64], name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(1 + 8 * numbers.len() + name.len());
        bytes.push(kind as u8);
        for number in numbers {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// Its bytes, from which the node's number follows.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The place in the live tree that a node shows the past of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LivePlace<'a> {
    /// A live directory.
    Directory(Ino),
    /// A name in a live directory.
    Name(Ino, &'a Bytes),
    /// The child with this name of the place of the parent node.
    Child(&'a Bytes),
    /// Nothing.
    Nowhere,
}

/// What a hold on a node protects.
#[derive(Debug, Clone)]
pub(crate) enum HoldTarget {
    /// A label.
    Label {
        /// The label's directory.
        directory: Ino,
        /// Its name.
        name: Bytes,
    },
    /// A version of a file.
    Version {
        /// The directory of a name that shows it.
        directory: Ino,
        /// The name.
        name: Bytes,
        /// The version.
        entry: Box<PastEntry>,
    },
}

/// Which copy of a node stays when a lookup finds the node again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refound {
    /// The new one: its attributes are newer.
    New,
    /// The first one: all copies are equal, and the first has remembered what it read.
    First,
}

/// What every node of the past has.
#[async_trait]
pub(crate) trait PastObject: Debug + Send + Sync {
    /// Its identity when it is found as `name` in the node `parent`. The identity of a directory that can be reached on several paths has
    /// its path, because the kernel allows a directory one place only.
    fn identity(&self, parent: u64, name: &[u8]) -> Identity;

    /// The place in the live tree that it shows the past of.
    fn live_place(&self) -> LivePlace<'_>;

    /// Its attributes as they are now.
    ///
    /// # Errors
    /// `Stale` when what it showed was deleted.
    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs>;

    /// Its attributes when a lookup has found it just now.
    ///
    /// # Errors
    /// As [`Self::attributes`].
    async fn found_attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        self.attributes(past).await
    }

    /// The live inode whose attributes it shows, if the kernel may keep these and they can change.
    fn depends_on(&self) -> Option<Ino> {
        None
    }

    /// The timestamp of the version it shows, or as of which it shows a directory.
    fn timestamp(&self) -> Option<Timestamp> {
        None
    }

    /// The timestamps that relative times (`-1m`, `yesterday`) keep meaning while a handle of this node is open.
    fn shown_times(&self) -> Option<RangeInclusive<Timestamp>> {
        None
    }

    /// What a hold on it protects; `None` if it cannot be held.
    fn hold_target(&self) -> Option<HoldTarget> {
        None
    }

    /// Which copy stays when it is found again.
    fn refound(&self) -> Refound {
        Refound::New
    }

    /// The value of an extended attribute: one that tells about the version, one that was set on it, or the access list that guards
    /// its directory.
    ///
    /// # Errors
    /// `Stale` when what it showed was deleted.
    async fn xattr(&self, _past: &PastReader, _name: &[u8]) -> FsResult<Option<Bytes>> {
        Ok(None)
    }

    /// The names of the extended attributes that were set on it.
    ///
    /// # Errors
    /// `Stale` when what it showed was deleted.
    async fn xattr_names(&self, _past: &PastReader) -> FsResult<Vec<Bytes>> {
        Ok(Vec::new())
    }
}

/// A directory of the past.
#[async_trait]
pub(crate) trait PastDir: PastObject {
    /// What `name` in it is to `caller`.
    ///
    /// # Errors
    /// `NotFound`; `Stale` when what it showed was deleted.
    async fn lookup(&self, past: &PastReader, caller: &Caller, name: &[u8]) -> FsResult<Found>;

    /// Its names.
    ///
    /// # Errors
    /// `Stale` when what it showed was deleted: never an empty list.
    async fn list(&self, past: &PastReader) -> FsResult<PastNames>;

    /// Fails if its names cannot be listed. A listing cannot say so: to readdir(3), ENOENT is the end.
    ///
    /// # Errors
    /// `NotFound` when what it showed is not kept; `Stale` when it was deleted.
    async fn check_open(&self, _past: &PastReader) -> FsResult<()> {
        Ok(())
    }

    /// Whether the kernel may keep its names.
    fn is_listed_for_good(&self, _past: &PastReader) -> bool {
        false
    }

    /// Whether a name of a listing is looked up once more when the attributes are asked for.
    fn looks_up_again(&self) -> bool {
        false
    }

    /// The directory whose labels are made, renamed and removed in it.
    fn labels_of(&self) -> Option<Ino> {
        None
    }

    /// The live directory whose removed names it shows, from which a rename is an undelete.
    fn removed_names_of(&self) -> Option<Ino> {
        None
    }
}

/// Anything else of the past.
#[async_trait]
pub(crate) trait PastFile: PastObject {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `Invalid` when it is none.
    fn target(&self, _past: &PastReader) -> FsResult<Bytes> {
        Err(FsError::Invalid("not a symbolic link".to_owned()))
    }

    /// Opens it for reading.
    ///
    /// # Errors
    /// `Stale` when it was deleted, `Corrupt` where only its name is left.
    async fn open(&self, _past: &PastReader) -> FsResult<PastContent> {
        Ok(PastContent::Stored(None))
    }

    /// Reads at most `len` bytes at `offset`; short only at the end.
    ///
    /// # Errors
    /// `Stale` when the version was deleted, `Unavailable`, `Corrupt`.
    async fn read(&self, _past: &PastReader, _offset: u64, _len: u32) -> FsResult<Bytes> {
        Err(FsError::BadHandle)
    }

    /// Begins to fetch what a handle seems to need after a read that is about to be executed.
    async fn read_ahead(
        &self,
        _past: &PastReader,
        _runs: &Arc<ReadAhead>,
        _offset: u64,
        _len: u32,
    ) {
    }

    /// The next data or hole at or after `offset`; `None` after the last. A file that has no holes is data up to its end.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn seek(&self, past: &PastReader, offset: u64, whence: Whence) -> FsResult<Option<u64>> {
        let size = self.attributes(past).await?.attrs.size;
        Ok((offset < size).then_some(match whence {
            Whence::Data => offset,
            Whence::Hole => size,
        }))
    }

    /// Its bytes as a source that a live file can share; `None` where there is no such source.
    fn clone_source(&self, _past: &PastReader) -> Option<CloneSource> {
        None
    }
}

/// The bytes of an open file of the past.
#[derive(Debug)]
pub(crate) enum PastContent {
    /// A text that was made at the open.
    Made(Bytes),
    /// Bytes that are read as they are asked for, and what keeps them from being deleted meanwhile.
    Stored(Option<Pin>),
}

/// A node's type.
#[derive(Debug, Clone)]
pub(crate) enum PastItem {
    /// A directory.
    Dir(Arc<dyn PastDir>),
    /// Anything else.
    File(Arc<dyn PastFile>),
}

impl PastItem {
    /// An item for a directory.
    pub(super) fn dir(dir: impl PastDir + 'static) -> Self {
        Self::Dir(Arc::new(dir))
    }

    /// An item for anything else.
    pub(super) fn file(file: impl PastFile + 'static) -> Self {
        Self::File(Arc::new(file))
    }

    /// What it has whatever its type.
    pub(super) fn object(&self) -> &dyn PastObject {
        match self {
            Self::Dir(dir) => dir.as_ref(),
            Self::File(file) => file.as_ref(),
        }
    }

    /// Its kind.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Dir(_) => Kind::Directory,
            Self::File(file) => file.kind(),
        }
    }
}

/// What a lookup in the past found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The node.
    pub(super) item: PastItem,
    /// Whether the kernel may keep the name.
    pub(super) lasting: Lasting,
}

/// The names in a directory of the past.
pub(crate) enum PastNames {
    /// All of them.
    Whole(Vec<(Bytes, Found)>),
    /// Read as they are asked for.
    Drawn(Box<dyn DrawnNames>),
}

/// Names that are read as they are asked for.
#[async_trait]
pub(crate) trait DrawnNames: Send {
    /// The next name; `None` after the last.
    ///
    /// # Errors
    /// Those of the store.
    async fn next(&mut self) -> FsResult<Option<(Bytes, Found)>>;
}
