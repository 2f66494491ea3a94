//! The lock of an inode, and the guards through which its cached state is changed.
//!
//! [`Inode::lock`] waits for the lock and returns a [`LockedInode`], which owns the mutex guard and the inode. The guard gives
//! the state to read, and [`LockedFile`] or [`LockedDir`] to change it. These two have the mutating methods and borrow the
//! [`LockedInode`]; the state itself ([`FileInode`], [`CachedDirectory`]) is reached through `Deref` only. A change without the
//! lock therefore does not compile. The one owner of a state without a lock is [`UnnamedFile`]: no cache leads to its inode, so
//! exclusive access to the value takes the place of the lock.
//!
//! Invariants: a change of an inode, or of a name in a directory, holds that inode's lock. Several locks are taken in ascending
//! order of inode numbers (`InodeCache::lock_all`); a new inode's number is above every other. Locks are held across index reads
//! and journal appends, never across an upload. The guard's drop publishes the inode's stat and a directory's parent, which readers
//! get without the lock.
//!
//! A change of the cached state follows the enqueue of the operation that makes it, so that a refused operation changes nothing.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::OwnedMutexGuard;

use crate::cache::{BudgetPermit, DirtyMap, DirtySnapshot, Source, StagingFile};
use crate::meta::JournalToken;
use crate::store::data::pins::Pin;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{Attrs, Author, Ino, Stat, Time, Timestamp};
use crate::store::schema::rows::{DirectoryRow, EntryState, InodeState, OlderVersions};
use crate::store::tree::inode::{
    CachedDirectory, CachedInode, FileInode, FlushedState, LinkState, WriteSession,
};
use crate::sync::{Arc, RwLock, lock, read, write};

/// A cached inode.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    /// Number of open files and other users; while there are any, the inode outlives its last name.
    pub(crate) pins: AtomicUsize,
    live: RwLock<Option<Stat>>,
    /// The directory that a loaded directory is in.
    above: RwLock<Option<Ino>>,
    state: Arc<tokio::sync::Mutex<CachedInode>>,
}

impl Inode {
    /// Creates an inode that is not in the cache.
    pub(crate) fn unshared(ino: Ino) -> Arc<Self> {
        Arc::new(Self {
            ino,
            pins: AtomicUsize::new(0),
            live: RwLock::new(None),
            above: RwLock::new(None),
            state: Arc::new(tokio::sync::Mutex::new(CachedInode::No)),
        })
    }

    /// Returns the stat without taking the lock, if the inode is loaded.
    pub(crate) fn live(&self) -> Option<Stat> {
        read(&self.live).clone()
    }

    /// Returns the directory that this one is in without taking the lock, if it is a directory and loaded.
    pub(crate) fn parent(&self) -> Option<Ino> {
        *read(&self.above)
    }

    /// Waits for the inode's lock.
    pub(crate) async fn lock(self: &Arc<Self>) -> LockedInode {
        LockedInode {
            inode: Arc::clone(self),
            guard: Arc::clone(&self.state).lock_owned().await,
            may_differ: false,
        }
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::SeqCst) > 0
    }
}

/// The lock of an inode; dropping the lock publishes the inode's stat and a directory's place if the cached state may have changed.
pub(crate) struct LockedInode {
    pub(crate) inode: Arc<Inode>,
    guard: OwnedMutexGuard<CachedInode>,
    /// Whether the published stat may differ from the cached state.
    may_differ: bool,
}

impl LockedInode {
    pub(crate) fn ino(&self) -> Ino {
        self.inode.ino
    }

    /// Returns the cached state.
    pub(crate) fn cached(&self) -> &CachedInode {
        &self.guard
    }

    /// Returns the inode to change it; `None` unless it is loaded and not a directory.
    pub(crate) fn file(&mut self) -> Option<LockedFile<'_>> {
        self.may_differ = true;
        match &mut *self.guard {
            CachedInode::File(file) => Some(LockedFile {
                inode: &self.inode,
                file,
            }),
            _ => None,
        }
    }

    /// Returns the directory to change it; `None` unless the inode is loaded and a directory.
    pub(crate) fn directory(&mut self) -> Option<LockedDir<'_>> {
        self.may_differ = true;
        match &mut *self.guard {
            CachedInode::Directory(directory) => Some(LockedDir { directory }),
            _ => None,
        }
    }

    /// Returns the inode to read it; `None` unless it is loaded and not a directory.
    pub(crate) fn as_file(&self) -> Option<&FileInode> {
        match &*self.guard {
            CachedInode::File(file) => Some(file),
            _ => None,
        }
    }

    /// Returns the directory to read it; `None` unless the inode is loaded and a directory.
    pub(crate) fn as_directory(&self) -> Option<&CachedDirectory> {
        match &*self.guard {
            CachedInode::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Returns the stat, unsaved writes included. Fails with `NotFound` unless the inode is loaded.
    pub(crate) fn stat(&self) -> Result<Stat, StoreError> {
        stat_of(self.inode.ino, &self.guard).ok_or(StoreError::NotFound)
    }

    /// Replaces the cached state by what the rows say.
    pub(crate) fn load(&mut self, cached: CachedInode) {
        self.may_differ = true;
        *self.guard = cached;
    }

    /// Drops the cached state: the next access reads the rows.
    pub(crate) fn unload(&mut self) {
        self.may_differ = true;
        *self.guard = CachedInode::No;
    }

    /// Records that the inode has neither a name nor a user: later calls fail with `NotFound`. Releases what the inode holds
    /// of the journal, the staging files and the dirty budget.
    pub(crate) fn evict(&mut self) {
        if let Some(mut file) = self.file() {
            file.discard_changes();
        }
        self.may_differ = true;
        *self.guard = CachedInode::Evicted;
    }
}

impl Drop for LockedInode {
    fn drop(&mut self) {
        if self.may_differ {
            *write(&self.inode.live) = stat_of(self.inode.ino, &self.guard);
            let directory = self.as_directory();
            *write(&self.inode.above) = directory.map(|directory| directory.place.parent);
        }
    }
}

/// Returns the stat of a loaded inode.
fn stat_of(ino: Ino, cached: &CachedInode) -> Option<Stat> {
    match cached {
        CachedInode::No | CachedInode::Evicted => None,
        CachedInode::Directory(directory) => Some(directory.stat(ino)),
        CachedInode::File(file) => Some(file.stat(ino)),
    }
}

/// Returns the lock of `ino` among those taken together.
pub(crate) fn find(locked: &mut [LockedInode], ino: Ino) -> Option<&mut LockedInode> {
    locked.iter_mut().find(|l| l.inode.ino == ino)
}

/// A locked directory.
pub(crate) struct LockedDir<'a> {
    directory: &'a mut CachedDirectory,
}

impl Deref for LockedDir<'_> {
    type Target = CachedDirectory;

    fn deref(&self) -> &CachedDirectory {
        self.directory
    }
}

impl LockedDir<'_> {
    /// Merges a change of times and counters that is in the queue.
    pub(crate) fn merge(&mut self, change: DirectoryRow) {
        self.directory.row.merge(change);
    }

    /// Records that the directory has another name.
    pub(crate) fn move_to(&mut self, place: Dentry, change: DirectoryRow) {
        self.directory.place = place;
        self.directory.row.merge(change);
    }

    /// Replaces the attributes.
    pub(crate) fn set_node(&mut self, node: InodeState, change: DirectoryRow) {
        self.directory.node = node;
        self.directory.row.merge(change);
    }
}

/// A locked file, symbolic link or special file.
pub(crate) struct LockedFile<'a> {
    inode: &'a Arc<Inode>,
    file: &'a mut FileInode,
}

impl Deref for LockedFile<'_> {
    type Target = FileInode;

    fn deref(&self) -> &FileInode {
        self.file
    }
}

/// The unsaved writes of a file that the journal of an ended daemon has.
pub(crate) struct RecoveredWrites {
    pub(crate) base: Option<ContentBase>,
    pub(crate) attrs: Attrs,
    pub(crate) map: DirtyMap,
    pub(crate) saved: Option<DirtySnapshot>,
    pub(crate) session: WriteSession,
    pub(crate) flushes: Vec<Arc<FlushedState>>,
    pub(crate) permit: Option<BudgetPermit>,
    pub(crate) holds: Vec<Arc<Pin>>,
    pub(crate) author: Author,
}

/// Write sessions, written bytes and what they hold.
impl LockedFile<'_> {
    pub(crate) fn inode(&self) -> &Arc<Inode> {
        self.inode
    }

    pub(crate) fn ino(&self) -> Ino {
        self.inode.ino
    }

    /// Begins a write session. `token` keeps the journal from the session's first record on.
    pub(crate) fn open_session(&mut self, id: u64, token: JournalToken, author: &Author) {
        self.file.session = Some(WriteSession {
            id,
            token,
            files: Vec::new(),
        });
        self.file.author = author.clone();
    }

    /// Adds a staging file to the write session; the one before it takes no more bytes.
    pub(crate) fn add_staging_file(&mut self, file: Arc<StagingFile>) {
        if let Some(session) = &mut self.file.session {
            if let Some(last) = session.files.last() {
                last.close();
            }
            session.files.push(file);
        }
    }

    /// Adds written bytes; the file grows to their end.
    pub(crate) fn write(&mut self, offset: u64, len: u64, source: Source) {
        self.file.map.write(offset, len, source);
        self.extend_to(offset + len);
    }

    /// Adds bytes that belong to another content, which the pin keeps; the file grows to their end.
    pub(crate) fn refer(&mut self, offset: u64, len: u64, source: Source, pin: &Arc<Pin>) {
        self.write(offset, len, source);
        self.file.holds.push(Arc::clone(pin));
    }

    /// Makes the file at least `len` bytes long; the added bytes are a hole.
    pub(crate) fn extend_to(&mut self, len: u64) {
        self.file.attrs.size = self.file.attrs.size.max(len);
    }

    /// Changes the length.
    pub(crate) fn truncate(&mut self, len: u64) {
        self.file.map.truncate(len, self.file.attrs.size);
        self.file.attrs.size = len;
    }

    /// Replaces bytes with a hole.
    pub(crate) fn punch(&mut self, offset: u64, len: u64) {
        self.file.map.punch(offset, len);
    }

    /// Adds a permit of the dirty budget for written bytes.
    pub(crate) fn add_permit(&mut self, permit: BudgetPermit) {
        match &mut self.file.permit {
            Some(held) => held.merge(permit),
            held @ None => *held = Some(permit),
        }
    }

    /// Records that there are changes which the queue lacks, and sets the times of a change of bytes.
    pub(crate) fn mark_dirty(&mut self, now: Time) {
        self.set_change_time(now);
        self.file
            .dirty_since
            .get_or_insert_with(tokio::time::Instant::now);
    }

    /// Sets mtime and ctime.
    pub(crate) fn set_change_time(&mut self, now: Time) {
        self.file.attrs.mtime = now;
        self.file.attrs.ctime = now;
    }

    /// Records that the queue has every change.
    pub(crate) fn mark_clean(&mut self) {
        self.file.dirty_since = None;
    }

    /// Splits off the dirty-budget permit for the bytes of a flushed state; takes the whole permit if no later change exists.
    pub(crate) fn take_permit(&mut self, map: &DirtySnapshot) -> Option<BudgetPermit> {
        if map.seq() == self.file.map.seq() {
            return self.file.permit.take();
        }
        self.file
            .permit
            .as_mut()
            .map(|permit| permit.split(map.bytes().min(permit.bytes())))
    }

    /// Releases what unsaved changes hold: no state needs them any more.
    pub(crate) fn discard_changes(&mut self) {
        if let Some(session) = self.file.session.take() {
            session.finish();
        }
        self.file.permit = None;
        self.file.holds.clear();
    }
}

/// States: flushed ones, and those that enter the queue.
impl LockedFile<'_> {
    /// Returns the present state of the dirty map; later changes do not affect it.
    pub(crate) fn snapshot(&mut self) -> DirtySnapshot {
        self.file.map.fix()
    }

    pub(crate) fn add_flush(&mut self, flush: Arc<FlushedState>) {
        self.file.flushes.push(flush);
    }

    pub(crate) fn remove_flush(&mut self, flush: &Arc<FlushedState>) {
        self.file.flushes.retain(|f| !Arc::ptr_eq(f, flush));
    }

    pub(crate) fn clear_flushes(&mut self) {
        self.file.flushes.clear();
    }

    /// Replaces the state of the inode's row.
    pub(crate) fn set_state(&mut self, state: EntryState) {
        self.file.state = state;
    }

    /// Replaces the node of the inode's row.
    pub(crate) fn set_node(&mut self, node: InodeState) {
        self.file.node = node;
    }

    /// Sets since when the inode's name exists in versions. Only a single name has such a time.
    pub(crate) fn set_alive_since(&mut self, since: Timestamp) {
        if let LinkState::Single { alive_since, .. } = &mut self.file.link_state {
            *alive_since = since;
        }
    }

    /// Records whether retention keeps versions because the inode has its names.
    pub(crate) fn set_older(&mut self, held: OlderVersions) {
        match &mut self.file.link_state {
            LinkState::Single { older, .. } | LinkState::HardLinked { older, .. } => *older = held,
            LinkState::Unlinked => {}
        }
    }

    /// Records that the queue has the changes of `map`: later changes are changes of that state.
    pub(crate) fn rebase(&mut self, map: &DirtySnapshot) {
        let file = &mut *self.file;
        file.map.rebase(map);
        // Without newer changes only the number of the last change is kept, so that the staging file can be deleted.
        file.saved = Some(if map.seq() == file.map.seq() {
            file.map.fix()
        } else {
            map.clone()
        });
    }

    /// Records that the queue has the state of `map`, whose content the inode's node shows: it is the base of later writes. If
    /// there are no later changes, the operation holds the write session.
    pub(crate) fn continue_from(&mut self, map: &DirtySnapshot) {
        let is_clean = map.seq() == self.file.map.seq();
        let len = self.file.node.attrs.size;
        let shown = self.file.node.content.reference();
        self.file.base = shown.map(|content| ContentBase { content, len });
        self.rebase(map);
        if is_clean {
            self.file.session = None;
            self.file.holds.clear();
            self.file.dirty_since = None;
        }
    }

    /// Adds the unsaved writes that a replay of the journal found.
    pub(crate) fn recover(&mut self, writes: RecoveredWrites) {
        let file = &mut *self.file;
        file.base = writes.base;
        file.attrs = writes.attrs;
        file.map = writes.map;
        file.saved = writes.saved;
        file.session = Some(writes.session);
        file.flushes = writes.flushes;
        file.permit = writes.permit;
        file.holds = writes.holds;
        file.author = writes.author;
        file.dirty_since = Some(tokio::time::Instant::now());
    }

    /// Replaces everything except the names: the inode has no unsaved writes and shows another version.
    pub(crate) fn reset(&mut self, node: InodeState, state: EntryState) {
        *self.file = FileInode::new(self.file.link_state.clone(), node, state);
    }
}

/// Names and attributes.
impl LockedFile<'_> {
    /// Records that a name was added to the inode, or that it was moved. The ctime is that of `node`.
    pub(crate) fn set_names(&mut self, link_state: LinkState, node: InodeState, state: EntryState) {
        self.file.link_state = link_state;
        self.file.attrs.ctime = node.attrs.ctime;
        self.file.node = node;
        self.file.state = state;
    }

    /// Records that the inode lost a name. Without a name, no flushed state becomes a version.
    pub(crate) fn lose_name(&mut self, link_state: LinkState, time: Time) {
        self.file.link_state = link_state;
        self.file.attrs.ctime = time;
        self.file.node.attrs.ctime = time;
        if self.file.link_state == LinkState::Unlinked {
            self.file.flushes.clear();
        }
    }

    /// Records that no row leads to the inode any more; the cached state stays readable for open files.
    pub(crate) fn set_unlinked(&mut self) {
        self.file.link_state = LinkState::Unlinked;
    }

    /// Replaces the attributes, also those of the flushed states, whose lengths stay; `state` has those of a hidden version.
    pub(crate) fn set_attrs(&mut self, attrs: Attrs, node: InodeState, state: EntryState) {
        self.file.attrs = attrs;
        self.file.node = node;
        self.file.state = state;
        for flush in &self.file.flushes {
            let mut flushed = lock(&flush.attrs);
            let size = flushed.size;
            *flushed = self.file.attrs.clone();
            flushed.size = size;
        }
    }
}

/// A file that is in no cache and has no name yet: only its owner reaches it.
#[derive(Debug)]
pub(crate) struct UnnamedFile {
    inode: Arc<Inode>,
    file: FileInode,
}

impl UnnamedFile {
    pub(crate) fn new(ino: Ino, file: FileInode) -> Self {
        Self {
            inode: Inode::unshared(ino),
            file,
        }
    }

    pub(crate) fn ino(&self) -> Ino {
        self.inode.ino
    }

    /// Returns the file to change it. No lock is needed: the caller has the only reference.
    pub(crate) fn locked(&mut self) -> LockedFile<'_> {
        LockedFile {
            inode: &self.inode,
            file: &mut self.file,
        }
    }
}

impl Deref for UnnamedFile {
    type Target = FileInode;

    fn deref(&self) -> &FileInode {
        &self.file
    }
}
