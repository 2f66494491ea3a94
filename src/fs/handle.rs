//! Open files and directories, and what a file's handle has changed.
//!
//! Invariant: the changes of a handle are flushed by its last FLUSH, at the latest by its release, and become a version exactly
//! once, at the release. A handle is in the table from its open to its release; the table's locks are leaf locks.

use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::fs::listings::SharedSnapshot;
use crate::fs::past::{PastNode, PinnedTimes};
use crate::store::{Author, File, Ino, PendingFlush, Pin, ProgramUse, ReadAhead, StoreError};
use crate::sync::{Arc, AtomicU64, Mutex, OnceLock, Ordering, lock};
use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::Mutex as AsyncMutex;

/// One open handle.
#[derive(Clone)]
pub(crate) enum Handle {
    /// A live regular file.
    File(Arc<OpenFile>),
    /// A regular file of the past.
    Past(Arc<OpenPast>),
    /// A text of the past that was made when it was opened.
    Text(Bytes),
    /// A directory, live or past.
    Dir(Arc<OpenDir>),
}

/// What a file was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading only.
    Read,
    /// Writing at the offsets the caller names.
    Write,
    /// Writing at the end, wherever that is (`O_APPEND`).
    Append,
}

impl Access {
    /// Reads it from open(2)'s flags.
    pub(crate) fn from_flags(flags: i32) -> Self {
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            Self::Read
        } else if flags & libc::O_APPEND != 0 {
            Self::Append
        } else {
            Self::Write
        }
    }

    /// Tells whether it allows writing.
    pub(crate) fn writes(self) -> bool {
        self != Self::Read
    }
}

/// Whether a mapping of a handle can change the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// It was opened for reading and writing, as a shared mapping needs.
    Possible,
    /// It was not.
    Impossible,
}

impl Mapping {
    /// Reads it from open(2)'s flags.
    pub(crate) fn from_flags(flags: i32) -> Self {
        match flags & libc::O_ACCMODE == libc::O_RDWR {
            true => Self::Possible,
            false => Self::Impossible,
        }
    }
}

/// The state of a handle's changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It changed nothing: its release makes no version.
    Unchanged,
    /// It has changed something since the last flush.
    Changed,
    /// The last flush has all its changes.
    Flushed,
}

/// An open live file.
pub(crate) struct OpenFile {
    /// The contents, shared by all handles of the inode.
    pub(crate) file: Arc<File>,
    /// What it was opened for.
    pub(crate) access: Access,
    mapping: Mapping,
    opener: Caller,
    /// That it runs as a program, for as long as the handle is open.
    runs: Option<ProgramUse>,
    author: OnceLock<Author>,
    /// How it is read.
    read_ahead: Arc<ReadAhead>,
    progress: Mutex<Progress>,
    // Locked during the store's flush and save, so that a late FLUSH and the release do not overlap. Taken before `progress`.
    flushed: AsyncMutex<Option<PendingFlush>>,
}

impl OpenFile {
    /// A handle that `opener` opened with open(2)'s flags and that has changed nothing yet.
    ///
    /// The author of its changes is read from `/proc` here if the flags allow a change, because the process may have ended when
    /// the change is saved. Most opens are for reading only: those read nothing.
    pub(crate) fn new(file: Arc<File>, opener: &Caller, flags: i32) -> Self {
        let open = Self::by(file, opener, OnceLock::new(), flags);
        if open.access.writes() || flags & libc::O_TRUNC != 0 {
            open.author();
        }
        open
    }

    /// A handle of a file that `author` has just created, for the caller who is this author.
    pub(crate) fn created(file: Arc<File>, author: Author, opener: &Caller, flags: i32) -> Self {
        Self::by(file, opener, OnceLock::from(author), flags)
    }

    /// The same handle, of a file that runs as a program.
    pub(crate) fn running(self, runs: Option<ProgramUse>) -> Self {
        Self { runs, ..self }
    }

    /// The handle `open`, which reads only, of the same file in the namespace that is served now.
    pub(crate) fn reopened(open: &Self, file: Arc<File>, runs: Option<ProgramUse>) -> Self {
        Self {
            file,
            access: open.access,
            mapping: open.mapping,
            opener: open.opener,
            runs,
            author: open.author.clone(),
            read_ahead: Arc::default(),
            progress: Mutex::new(Progress::Unchanged),
            flushed: AsyncMutex::new(None),
        }
    }

    /// Tells whether the file runs as a program through this handle.
    pub(crate) fn is_program(&self) -> bool {
        self.runs.is_some()
    }

    fn by(file: Arc<File>, opener: &Caller, author: OnceLock<Author>, flags: i32) -> Self {
        Self {
            file,
            access: Access::from_flags(flags),
            mapping: Mapping::from_flags(flags),
            opener: *opener,
            runs: None,
            author,
            read_ahead: Arc::default(),
            progress: Mutex::new(Progress::Unchanged),
            flushed: AsyncMutex::new(None),
        }
    }

    /// The user and the process that opened it. A write from the page cache has no caller, so the opener counts as the author of
    /// every change. A handle that only reads needs an author when it writes back what other handles changed (fsync, or the source
    /// of a copy): its process is asked for its name then.
    pub(crate) fn author(&self) -> &Author {
        self.author.get_or_init(|| self.opener.author())
    }

    /// Reads up to `len` bytes at `offset`, and has fetched ahead what a reader in order needs next.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn read(&self, offset: u64, len: u32) -> Result<Bytes, StoreError> {
        self.file.read_ahead(&self.read_ahead, offset, len).await;
        self.file.read(offset, len).await
    }

    /// Notes a change. Called after the store has it, so that a flush without the change never clears the mark.
    pub(crate) fn mark_changed(&self) {
        *lock(&self.progress) = Progress::Changed;
    }

    /// Tells whether the handle changed anything since it was opened.
    pub(crate) fn has_changed(&self) -> bool {
        *lock(&self.progress) != Progress::Unchanged
    }

    /// FLUSH: records the present state of the file, which replaces the state of this handle's earlier flush.
    ///
    /// # Errors
    /// Those of the store; the changes are then not flushed.
    pub(crate) async fn flush(&self) -> FsResult<()> {
        let mut flushed = self.flushed.lock().await;
        self.flush_locked(&mut flushed).await
    }

    /// RELEASE: the flushed state becomes a version. Changes after the last FLUSH, by a mapping that outlived its descriptor, are
    /// flushed first.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn release(&self) -> FsResult<()> {
        let mut flushed = self.flushed.lock().await;
        if *lock(&self.progress) == Progress::Changed {
            self.flush_locked(&mut flushed).await?;
        }
        if let Some(state) = flushed.take() {
            self.file.save(state).await?;
        }
        Ok(())
    }

    async fn flush_locked(&self, flushed: &mut Option<PendingFlush>) -> FsResult<()> {
        if !self.has_changed() {
            return Ok(());
        }
        *lock(&self.progress) = Progress::Flushed;
        match self.file.flush(self.author(), flushed.clone()).await {
            Ok(state) => {
                *flushed = state;
                Ok(())
            }
            Err(error) => {
                self.mark_changed();
                Err(error.into())
            }
        }
    }
}

/// An open file of the past.
pub(crate) struct OpenPast {
    /// Which one.
    pub(crate) node: Arc<PastNode>,
    /// Its bytes.
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) bytes: Option<Pin>,
    /// How it is read.
    pub(crate) read_ahead: Arc<ReadAhead>,
    /// The times it shows.
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) times: Option<PinnedTimes>,
}

/// An open directory.
pub(crate) struct OpenDir {
    /// Which one.
    pub(crate) source: DirSource,
    /// The process that opened it, for which its names are looked up.
    pub(crate) opener: Caller,
    /// The time it shows, if it is of the past.
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) time: Option<PinnedTimes>,
    /// The names that the reader sees; taken by the open if the kernel has them, else by the first READDIR, and again at each rewind.
    pub(crate) snapshot: AsyncMutex<Option<Arc<SharedSnapshot>>>,
}

/// A directory that can be opened.
#[derive(Clone)]
pub(crate) enum DirSource {
    /// Of the live tree, with its generation: a directory that was removed and restored is another one.
    Live(Ino, u64),
    /// Of the past.
    Past(Arc<PastNode>),
}

/// All open handles of a mount.
#[derive(Default)]
pub(crate) struct HandleTable {
    last: AtomicU64,
    open: DashMap<u64, Handle>,
    /// The writable handles per inode: a page-cache write names any of them.
    writers: DashMap<Ino, Vec<(u64, Arc<OpenFile>)>>,
}

impl HandleTable {
    /// Adds `handle`; returns its number, which is never used twice.
    pub(crate) fn insert(&self, handle: Handle) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        if let Handle::File(open) = &handle
            && open.access.writes()
        {
            let mut writers = self.writers.entry(open.file.ino()).or_default();
            writers.push((number, Arc::clone(open)));
        }
        self.open.insert(number, handle);
        number
    }

    /// Takes a handle out, for its release.
    ///
    /// # Errors
    /// `BadHandle` when it is not open.
    pub(crate) fn remove(&self, number: u64) -> FsResult<Handle> {
        let (_, handle) = self.open.remove(&number).ok_or(FsError::BadHandle)?;
        if let Handle::File(open) = &handle {
            self.writers.remove_if_mut(&open.file.ino(), |_, writers| {
                writers.retain(|(other, _)| *other != number);
                writers.is_empty()
            });
        }
        Ok(handle)
    }

    /// Puts another file behind the number of an open handle that reads only.
    pub(crate) fn replace(&self, number: u64, open: Arc<OpenFile>) {
        if let Some(mut handle) = self.open.get_mut(&number) {
            *handle = Handle::File(open);
        }
    }

    /// Finds a handle.
    ///
    /// # Errors
    /// `BadHandle` when it is not open.
    pub(crate) fn get(&self, number: u64) -> FsResult<Handle> {
        let handle = self.open.get(&number).ok_or(FsError::BadHandle)?;
        Ok(handle.clone())
    }

    /// Finds a handle of a live file.
    ///
    /// # Errors
    /// `BadHandle` when it is not open or something else; `ReadOnly` when it is of the past.
    pub(crate) fn file(&self, number: u64) -> FsResult<Arc<OpenFile>> {
        match self.get(number)? {
            Handle::File(open) => Ok(open),
            Handle::Past(..) | Handle::Text(_) => Err(FsError::ReadOnly),
            Handle::Dir(_) => Err(FsError::BadHandle),
        }
    }

    /// Finds a handle of a live file that is open for writing.
    ///
    /// # Errors
    /// As [`Self::file`], and `BadHandle` when it is open for reading only.
    pub(crate) fn writer(&self, number: u64) -> FsResult<Arc<OpenFile>> {
        let open = self.file(number)?;
        if open.access.writes() {
            Ok(open)
        } else {
            Err(FsError::BadHandle)
        }
    }

    /// Finds a handle of a directory.
    ///
    /// # Errors
    /// `BadHandle` when it is not open or a file.
    pub(crate) fn dir(&self, number: u64) -> FsResult<Arc<OpenDir>> {
        match self.get(number)? {
            Handle::Dir(open) => Ok(open),
            Handle::File(_) | Handle::Past(..) | Handle::Text(_) => Err(FsError::BadHandle),
        }
    }

    /// Any handle through which `ino` can be written.
    pub(crate) fn any_writer(&self, ino: Ino) -> Option<Arc<OpenFile>> {
        let writers = self.writers.get(&ino)?;
        writers.first().map(|(_, open)| Arc::clone(open))
    }

    /// Whether the kernel may have changes of `ino` from mappings that were not written back.
    pub(crate) fn may_be_mapped(&self, ino: Ino) -> bool {
        let possible = |(_, open): &(u64, Arc<OpenFile>)| open.mapping == Mapping::Possible;
        let writers = self.writers.get(&ino);
        writers.is_some_and(|writers| writers.iter().any(possible))
    }

    /// Notes a change of `ino` that names no handle.
    pub(crate) fn mark_writers(&self, ino: Ino) {
        if let Some(writers) = self.writers.get(&ino) {
            for (_, open) in writers.iter() {
                open.mark_changed();
            }
        }
    }

    /// The numbers of all open handles, in no order.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.open.iter().map(|handle| *handle.key()).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::fs::testing::{ALICE, world};

    #[tokio::test]
    async fn an_open_for_reading_asks_for_no_author() {
        let world = world().await;
        let ino = world.save("a", "text").await;
        for (flags, asks) in [
            (libc::O_RDONLY, false),
            (libc::O_RDWR, true),
            (libc::O_WRONLY | libc::O_APPEND, true),
            (libc::O_RDONLY | libc::O_TRUNC, true),
        ] {
            let handle = world.open(&ALICE, ino, flags).await.unwrap().handle;
            let open = world.handles.file(handle).unwrap();
            assert_eq!(open.author.get().is_some(), asks, "flags {flags:o}");
            assert_eq!(open.author().uid, ALICE.uid);
            world.release(ino, handle).await.unwrap();
        }
    }
}
