//! The state of a cached inode: the contents of its rows, and the changes since.
//!
//! The types here are changed only through the guards of `locked.rs`: code without a guard has no mutable access.

use crate::cache::{BudgetPermit, DirtyMap, DirtySnapshot, StagingFile};
use crate::meta::JournalToken;
use crate::store::data::pins::Pin;
use crate::store::index::timestamps::Reservation;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{
    Attrs, Author, ContentRef, Ino, Kind, Stat, Timestamp, XattrPresence,
};
use crate::store::schema::rows::{
    DirectoryRow, EntryState, InodeState, LastVersion, OlderVersions,
};
use crate::sync::{Arc, Mutex};

/// The cached part of an inode.
#[derive(Debug)]
pub(crate) enum CachedInode {
    /// Nothing is loaded yet.
    No,
    /// A directory.
    Directory(Box<CachedDirectory>),
    /// Any inode that is not a directory.
    File(Box<FileInode>),
    /// The inode has neither a name nor a user any more.
    Evicted,
}

/// A directory as its rows describe it, queued rows included.
#[derive(Debug)]
pub(crate) struct CachedDirectory {
    pub(crate) row: DirectoryRow,
    pub(crate) node: InodeState,
    pub(crate) place: Dentry,
}

/// The names of an inode that is not a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// Exactly one name.
    Single {
        place: Dentry,
        bound: Timestamp,
        alive_since: Timestamp,
        older: OlderVersions,
    },
    /// Has, or had, several names; `place` is one of them.
    HardLinked {
        place: Dentry,
        nlink: u32,
        older: OlderVersions,
    },
    /// No name; the inode exists only for its open files.
    Unlinked,
}

/// A file, symbolic link or special file.
#[derive(Debug)]
pub(crate) struct FileInode {
    pub(crate) link_state: LinkState,
    /// The state in the inode's row.
    pub(crate) node: InodeState,
    pub(crate) state: EntryState,
    /// Attributes as stat(2) shows them: unsaved writes included.
    pub(crate) attrs: Attrs,
    /// Content that the unsaved writes are applied over, and its length in bytes.
    pub(crate) base: Option<ContentBase>,
    pub(crate) map: DirtyMap,
    /// The state of the dirty map that is already in the queue.
    pub(crate) saved: Option<DirtySnapshot>,
    pub(crate) session: Option<WriteSession>,
    /// Flushed states whose handles are not released yet, oldest first.
    pub(crate) flushes: Vec<Arc<FlushedState>>,
    pub(crate) permit: Option<BudgetPermit>,
    /// Pins on contents that spans of the dirty map reference.
    pub(crate) holds: Vec<Arc<Pin>>,
    pub(crate) author: Author,
    pub(crate) dirty_since: Option<tokio::time::Instant>,
    /// Content stamp at load time; the stamp in stat is this plus the number of the last change.
    loaded_stamp: u64,
}

/// The writes of one inode since its last saved state: where they are recorded.
#[derive(Debug)]
pub(crate) struct WriteSession {
    pub(crate) id: u64,
    /// Keeps the journal from the session's first record on.
    pub(crate) token: JournalToken,
    /// Staging files; all except the last are closed.
    pub(crate) files: Vec<Arc<StagingFile>>,
}

impl WriteSession {
    /// Returns the staging file that takes further bytes, if there is room.
    pub(crate) fn staging_file(&self) -> Option<&Arc<StagingFile>> {
        self.files.last()
    }

    /// Releases the staging files: no state needs the recorded bytes any more.
    pub(crate) fn finish(self) {
        for file in self.files {
            file.finished();
        }
    }
}

/// The state of a file at a FLUSH request.
#[derive(Debug)]
pub(crate) struct FlushedState {
    pub(crate) at: Timestamp,
    pub(crate) timestamp_state: Mutex<VersionTimestamp>,
    pub(crate) map: DirtySnapshot,
    pub(crate) base: Option<ContentBase>,
    /// Keeps the rows of the base while the state waits.
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) hold: Option<Pin>,
    pub(crate) attrs: Mutex<Attrs>,
    pub(crate) author: Author,
    pub(crate) since: tokio::time::Instant,
    pub(crate) supersession: Supersession,
    pub(crate) session: Option<u64>,
    /// Keeps the journal from the write session's first record on.
    pub(crate) token: Option<JournalToken>,
    /// Pins on contents that the map references.
    pub(crate) holds: Vec<Arc<Pin>>,
}

/// How a flushed state relates to the inode's dirty map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supersession {
    /// The flushed state is an earlier state of this dirty map.
    Current,
    /// The flushed state is older than every change in the dirty map.
    Superseded,
}

/// Whether a flushed state may still become a version at its own timestamp.
#[derive(Debug)]
pub(crate) enum VersionTimestamp {
    /// Allowed: the reservation keeps history at this timestamp from becoming final before the state is saved.
    Reserved(#[allow(dead_code, reason = "held for its drop")] Reservation),
    /// Allowed: the state was replayed from the journal, before history can be read.
    Recovered,
    /// Not allowed: the state waited too long and gets the timestamp of its release.
    Expired,
}

impl FileInode {
    pub(crate) fn new(link_state: LinkState, node: InodeState, state: EntryState) -> Self {
        let len = node.attrs.size;
        let base = node.content.reference();
        let base = base.map(|content| ContentBase { content, len });
        Self {
            loaded_stamp: content_stamp(&node),
            link_state,
            attrs: node.attrs.clone(),
            node,
            state,
            base,
            map: DirtyMap::new(),
            saved: None,
            session: None,
            flushes: Vec::new(),
            permit: None,
            holds: Vec::new(),
            author: Author::default(),
            dirty_since: None,
        }
    }

    /// Returns the number of the last change that is in the queue.
    pub(crate) fn saved_seq(&self) -> u64 {
        self.saved.as_ref().map_or(0, DirtySnapshot::seq)
    }

    /// Tells whether the write session has bytes in a staging file.
    pub(crate) fn has_staging_file(&self) -> bool {
        let session = self.session.as_ref();
        session.and_then(WriteSession::staging_file).is_some()
    }

    /// Tells whether the queue has a later state than this flushed one.
    pub(crate) fn is_behind(&self, flush: &FlushedState) -> bool {
        flush.supersession == Supersession::Superseded || flush.map.seq() < self.saved_seq()
    }

    /// Tells whether there are changes that the queue does not have.
    pub(crate) fn is_dirty(&self) -> bool {
        self.map.seq() > self.saved_seq()
    }

    /// Tells whether there are changes that neither the queue nor a flushed state has.
    pub(crate) fn is_unflushed(&self) -> bool {
        self.map.seq()
            > self
                .flushes
                .last()
                .map_or(0, |f| f.map.seq())
                .max(self.saved_seq())
    }

    /// Returns since when the inode's name has existed in versions; 0 unless the inode has a single name.
    pub(crate) fn alive_since(&self) -> Timestamp {
        match self.link_state {
            LinkState::Single { alive_since, .. } => alive_since,
            LinkState::HardLinked { .. } | LinkState::Unlinked => Timestamp(0),
        }
    }

    /// Returns the version that the past shows for the inode.
    pub(crate) fn last_version(&self, ino: Ino) -> Option<LastVersion> {
        self.state.shown(ino, &self.node, self.alive_since())
    }

    pub(crate) fn place(&self) -> Option<&Dentry> {
        match &self.link_state {
            LinkState::Single { place, .. } | LinkState::HardLinked { place, .. } => Some(place),
            LinkState::Unlinked => None,
        }
    }

    pub(crate) fn stat(&self, ino: Ino) -> Stat {
        let nlink = match self.link_state {
            LinkState::Single { .. } => 1,
            LinkState::HardLinked { nlink, .. } => nlink,
            LinkState::Unlinked => 0,
        };
        let stamp = self.loaded_stamp.wrapping_add(self.map.seq());
        let mut stat = stat(ino, &self.node, &self.attrs, nlink, stamp);
        if self.is_dirty() {
            let allocated = self.node.allocated.saturating_add(self.map.bytes());
            stat.blocks = allocated.min(self.attrs.size).div_ceil(512);
        }
        stat
    }

    /// Counts the bytes that are not holes in a content of `len` bytes that `map` makes over the inode's base.
    pub(crate) fn allocated(&self, map: &DirtySnapshot, len: u64) -> u64 {
        let (mut own, mut shown) = (0, 0);
        for piece in map.pieces(0..len) {
            let bytes = piece.range.end - piece.range.start;
            match (piece.source, self.base) {
                (Some(crate::cache::Source::Zero), _) | (None, None) => {}
                (Some(_), _) => own += bytes,
                (
                    None,
                    Some(ContentBase {
                        content: _,
                        len: base_len,
                    }),
                ) => {
                    shown += piece
                        .range
                        .end
                        .min(base_len)
                        .saturating_sub(piece.range.start);
                }
            }
        }
        own + shown.min(self.node.allocated)
    }
}

/// Returns a number that differs between contents. The multiplier spreads the numbers, so that adding change numbers to one
/// does not reach the number of another content.
pub(crate) fn content_stamp(node: &InodeState) -> u64 {
    let spread = |content: ContentRef| content.timestamp.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    node.content.reference().map_or(0, spread)
}

/// Returns the stat of an inode that is not a directory.
pub(crate) fn stat(
    ino: Ino,
    node: &InodeState,
    attrs: &Attrs,
    nlink: u32,
    content_stamp: u64,
) -> Stat {
    Stat {
        ino,
        generation: 0,
        kind: node.kind,
        attrs: attrs.clone(),
        nlink,
        blocks: node.allocated.min(attrs.size).div_ceil(512),
        content_stamp,
        xattrs: XattrPresence::of(&node.xattrs),
    }
}

impl CachedDirectory {
    /// Returns the directory's state with the times of its merged row.
    pub(crate) fn node_now(&self, ino: Ino) -> InodeState {
        let mut node = self.node.clone();
        let times = self.stat(ino).attrs;
        (node.attrs.mtime, node.attrs.ctime, node.attrs.atime) =
            (times.mtime, times.ctime, times.atime);
        node
    }

    pub(crate) fn stat(&self, ino: Ino) -> Stat {
        let mut attrs = self.node.attrs.clone();
        let times = [
            (&self.row.mtime, &mut attrs.mtime),
            (&self.row.ctime, &mut attrs.ctime),
            (&self.row.atime, &mut attrs.atime),
        ];
        for (register, time) in times {
            if let Some((_, value)) = register {
                *time = *value;
            }
        }
        attrs.size = 4096;
        Stat {
            ino,
            generation: self.row.generation,
            kind: Kind::Directory,
            attrs,
            nlink: 2 + u32::try_from(self.row.directories.max(0)).unwrap_or(u32::MAX - 2),
            blocks: 8,
            content_stamp: self.row.mtime.as_ref().map_or(0, |(at, _)| at.0),
            xattrs: XattrPresence::of(&self.node.xattrs),
        }
    }
}
