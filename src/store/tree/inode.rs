//! The inode cache: one lock per inode, the contents of its rows, and the changes since.
//!
//! Invariants: a change of an inode, or of a name in a directory, holds that inode's lock. Several locks are taken in ascending
//! order of inode numbers. Locks are held across index reads and journal appends, never across an upload. A dirty inode stays
//! cached, because its changes are in no row yet.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use tokio::sync::OwnedMutexGuard;

use crate::cache::{BudgetPermit, DirtyMap, DirtySnapshot, StagingFile};
use crate::meta::JournalToken;
use crate::store::data::pins::Pin;
use crate::store::index::timestamps::Reservation;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{Attrs, Author, ContentRef, Ino, Kind, Stat, Timestamp};
use crate::store::schema::rows::{DirectoryRow, EntryState, InodeState};
use crate::sync::{Arc, Mutex, RwLock, Weak, lock, read, write};

/// Number of recently loaded inodes that stay cached without a user.
const RECENT_MAX: usize = 16_384;

/// A cached inode.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    /// Number of open files and other users; while there are any, the inode outlives its last name.
    pub(crate) pins: AtomicUsize,
    live: RwLock<Option<Stat>>,
    state: Arc<tokio::sync::Mutex<CachedInode>>,
}

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
    },
    /// Has, or had, several names; `place` is one of them.
    HardLinked { place: Dentry, nlink: u32 },
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

    /// Splits off the dirty-budget permit for the bytes of a flushed state; takes the whole permit if no later change exists.
    pub(crate) fn room_of(&mut self, map: &DirtySnapshot, clean: bool) -> Option<BudgetPermit> {
        if clean {
            return self.permit.take();
        }
        self.permit
            .as_mut()
            .map(|permit| permit.split(map.bytes().min(permit.bytes())))
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

    /// Returns what to keep of a queued state after the rebase: only its change number if there are no newer changes, so that its
    /// staging file can be deleted.
    pub(crate) fn rest_of(&mut self, state: &DirtySnapshot) -> DirtySnapshot {
        if state.seq() == self.map.seq() {
            self.map.fix()
        } else {
            state.clone()
        }
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
        }
    }
}

/// The lock of an inode; dropping the lock publishes the inode's new stat.
pub(crate) struct LockedInode {
    pub(crate) inode: Arc<Inode>,
    guard: OwnedMutexGuard<CachedInode>,
}

impl LockedInode {
    pub(crate) fn cached(&mut self) -> &mut CachedInode {
        &mut self.guard
    }

    pub(crate) fn file(&mut self) -> Option<&mut FileInode> {
        match &mut *self.guard {
            CachedInode::File(file) => Some(file),
            _ => None,
        }
    }

    pub(crate) fn directory(&mut self) -> Option<&mut CachedDirectory> {
        match &mut *self.guard {
            CachedInode::Directory(directory) => Some(directory),
            _ => None,
        }
    }
}

impl Drop for LockedInode {
    fn drop(&mut self) {
        let stat = match &*self.guard {
            CachedInode::No | CachedInode::Evicted => None,
            CachedInode::Directory(directory) => Some(directory.stat(self.inode.ino)),
            CachedInode::File(file) => Some(file.stat(self.inode.ino)),
        };
        *write(&self.inode.live) = stat;
    }
}

impl Inode {
    /// Creates an inode that is not in the cache.
    pub(crate) fn unshared(ino: Ino) -> Arc<Self> {
        Arc::new(Self {
            ino,
            pins: AtomicUsize::new(0),
            live: RwLock::new(None),
            state: Arc::new(tokio::sync::Mutex::new(CachedInode::No)),
        })
    }

    /// Returns the stat without taking the lock, if the inode is loaded.
    pub(crate) fn live(&self) -> Option<Stat> {
        read(&self.live).clone()
    }

    pub(crate) async fn lock(self: &Arc<Self>) -> LockedInode {
        LockedInode {
            inode: Arc::clone(self),
            guard: Arc::clone(&self.state).lock_owned().await,
        }
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::SeqCst) > 0
    }
}

/// The cached inodes of a namespace.
#[derive(Debug, Default)]
pub(crate) struct InodeCache {
    table: DashMap<Ino, Weak<Inode>>,
    recent: Mutex<VecDeque<Arc<Inode>>>,
    /// Inodes with changes that the queue lacks, or with a state that is not a version; they stay cached.
    dirty_inodes: Mutex<std::collections::HashMap<Ino, Arc<Inode>>>,
}

impl InodeCache {
    /// Returns the cached inode; adds one that is not loaded if there is none.
    pub(crate) fn get(&self, ino: Ino) -> Arc<Inode> {
        if let Some(known) = self.known(ino) {
            return known;
        }
        let fresh = Inode::unshared(ino);
        let mut slot = self.table.entry(ino).or_default();
        if let Some(known) = slot.upgrade() {
            return known;
        }
        *slot = Arc::downgrade(&fresh);
        drop(slot);
        let evicted = {
            let mut recent = lock(&self.recent);
            recent.push_back(Arc::clone(&fresh));
            if recent.len() > RECENT_MAX {
                recent.pop_front()
            } else {
                None
            }
        };
        if let Some(old) = evicted {
            self.let_go(old);
        }
        fresh
    }

    /// Returns the inode if it is cached.
    pub(crate) fn known(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.table.get(&ino)?.upgrade()
    }

    /// Makes a restored directory usable again: the next access loads its new rows instead of failing with `NotFound`.
    pub(crate) async fn revive(&self, ino: Ino) {
        if let Some(inode) = self.known(ino) {
            let mut locked = inode.lock().await;
            if matches!(locked.cached(), CachedInode::Evicted) {
                *locked.cached() = CachedInode::No;
            }
        }
    }

    /// Evicts every inode without a user and returns the others.
    pub(crate) fn used(&self) -> Vec<Arc<Inode>> {
        lock(&self.recent).clear();
        self.table.retain(|_, weak| weak.strong_count() > 0);
        self.table.iter().filter_map(|e| e.upgrade()).collect()
    }

    fn let_go(&self, inode: Arc<Inode>) {
        let ino = inode.ino;
        drop(inode);
        self.table
            .remove_if(&ino, |_, weak| weak.strong_count() == 0);
    }

    /// Keeps an inode cached until [`InodeCache::settle`].
    pub(crate) fn keep_dirty(&self, inode: &Arc<Inode>) {
        lock(&self.dirty_inodes).insert(inode.ino, Arc::clone(inode));
    }

    pub(crate) fn settle(&self, ino: Ino) {
        let _old = lock(&self.dirty_inodes).remove(&ino);
    }

    /// Returns every inode with changes that are not in a queued version.
    pub(crate) fn dirty_inodes(&self) -> Vec<Arc<Inode>> {
        lock(&self.dirty_inodes).values().cloned().collect()
    }
}

/// Locks several inodes, each once, in ascending order; [`find`] selects one of the locks.
pub(crate) async fn lock_all(inodes: &InodeCache, wanted: &[Ino]) -> Vec<LockedInode> {
    let mut dependencies: Vec<Ino> = wanted.to_vec();
    dependencies.sort_unstable();
    dependencies.dedup();
    let mut locked = Vec::with_capacity(dependencies.len());
    for ino in dependencies {
        locked.push(inodes.get(ino).lock().await);
    }
    locked
}

/// Returns the lock of `ino` among those taken by [`lock_all`].
pub(crate) fn find(locked: &mut [LockedInode], ino: Ino) -> Option<&mut LockedInode> {
    locked.iter_mut().find(|l| l.inode.ino == ino)
}
