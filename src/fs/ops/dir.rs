//! opendir, readdir, releasedir.
//!
//! A handle shows the names as they were when it was opened or rewound. Attributes of the live tree are looked up when they are
//! given, because the kernel keeps them from then on. Attributes of the past are those that the listing has read.

use crate::fs::handle::{DirSnapshot, DirSource, Handle, OpenDir, UnreadNames};
use crate::fs::past::{Found, ListedName, Listing, PastNode};
use crate::fs::{Caller, Entry, FileSystem, FsError, FsResult, Node, Opened};
use crate::store::Kind;
use crate::sync::Arc;
use tokio::sync::Mutex as AsyncMutex;

/// One name of a directory.
#[derive(Debug)]
pub struct DirEntry<'a> {
    /// Its node's number.
    pub ino: u64,
    /// Where to go on after it.
    pub next_offset: u64,
    /// Its node's kind.
    pub kind: Kind,
    /// The name.
    pub name: &'a [u8],
    /// The result of a lookup of the name, which is then counted; always `None` for `.` and `..`.
    pub full: Option<&'a Entry>,
}

/// Whether an entry was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Taken; there may be room for more.
    Left,
    /// Not taken: there was no room for it.
    Full,
}

/// Where entries go: a kernel's buffer or a list.
pub trait DirSink: Send {
    /// Takes an entry if there is room for it.
    fn add(&mut self, entry: DirEntry<'_>) -> Room;
}

impl FileSystem {
    /// Opens a directory.
    ///
    /// # Errors
    /// `NotDirectory`; `Stale` when the inode was removed; `NotFound` in the past where the policy of a directory keeps less.
    pub async fn opendir(&self, caller: &Caller, ino: u64) -> FsResult<Opened> {
        let (source, lasting, time) = match self.node(ino)? {
            Node::Live(ino) => {
                let stat = self.live_stat(ino, None).await?;
                if stat.kind != Kind::Directory {
                    return Err(FsError::NotDirectory);
                }
                (DirSource::Live(ino, stat.generation), false, None)
            }
            Node::Past(node) => {
                let lasting = self.past.check_opendir(&node).await?;
                let time = self.past.in_use(&node);
                (DirSource::Past(node), lasting, time)
            }
        };
        let open = OpenDir {
            source,
            opener: *caller,
            time,
            snapshot: AsyncMutex::new(None),
        };
        Ok(Opened {
            handle: self.handles.insert(Handle::Dir(Arc::new(open))),
            keep_cache: lasting,
            no_flush: true,
            cache_dir: lasting,
            direct: false,
        })
    }

    /// Gives the names from position `offset` on to `sink` until it is full; with `plus` also their attributes.
    ///
    /// # Errors
    /// `BadHandle`; those of the store, if no entry was given before.
    pub async fn readdir(
        &self,
        ino: u64,
        handle: u64,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> FsResult<()> {
        self.admit()?;
        let open = self.handles.dir(handle)?;
        let mut snapshot = open.snapshot.lock().await;
        if offset == 0 {
            // rewinddir(3) shows what is new.
            *snapshot = None;
        }
        let snapshot = match &mut *snapshot {
            Some(taken) => taken,
            untaken => untaken.insert(self.snapshot(ino, &open.source).await?),
        };
        let full = plus.then_some(&open.opener);
        let first = usize::try_from(offset).map_err(|_| FsError::Invalid("offset".to_owned()))?;
        let mut given = 0_usize;
        for position in first.. {
            match self
                .give(&open.source, snapshot, position, full, sink)
                .await
            {
                Ok(ReaddirStep::Yes) => given += 1,
                Ok(ReaddirStep::Gone) => {}
                Ok(ReaddirStep::NoRoom | ReaddirStep::NoMore) => break,
                // Names that were given are counted as looked up, so the kernel must get them; the next call returns the error.
                Err(_) if given > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Closes a directory.
    ///
    /// # Errors
    /// `BadHandle`.
    pub async fn releasedir(&self, _ino: u64, handle: u64) -> FsResult<()> {
        self.handles.remove(handle).map(drop)
    }

    /// Gives the name at `position`; with its attributes as the caller `full` finds them.
    async fn give(
        &self,
        source: &DirSource,
        snapshot: &mut DirSnapshot,
        position: usize,
        full: Option<&Caller>,
        sink: &mut dyn DirSink,
    ) -> FsResult<ReaddirStep> {
        let Some(listed) = snapshot.at(position, &self.past).await? else {
            return Ok(ReaddirStep::NoMore);
        };
        let ListedName {
            ino,
            kind,
            name,
            found,
        } = listed;
        let name: &[u8] = name;
        let mut entry = DirEntry {
            ino: *ino,
            next_offset: position as u64 + 1,
            kind: *kind,
            name,
            full: None,
        };
        let Some(caller) = full.filter(|_| position >= 2) else {
            return Ok(match sink.add(entry) {
                Room::Left => ReaddirStep::Yes,
                Room::Full => ReaddirStep::NoRoom,
            });
        };
        let found = match (source, found.take()) {
            (DirSource::Past(node), Some(found)) => self.enter_past(node, name, found).await,
            (DirSource::Past(node), None) => self.lookup(caller, node.number(), name).await,
            (DirSource::Live(dir, _), _) => self.lookup(caller, dir.0, name).await,
        };
        let full = match found {
            Ok(full) => full,
            Err(FsError::NotFound) => return Ok(ReaddirStep::Gone),
            Err(error) => return Err(error),
        };
        entry.ino = full.stat.ino.0;
        entry.kind = full.stat.kind;
        entry.full = Some(&full);
        match sink.add(entry) {
            Room::Left => Ok(ReaddirStep::Yes),
            Room::Full => {
                self.forget(full.stat.ino.0, 1);
                Ok(ReaddirStep::NoRoom)
            }
        }
    }

    /// The result of a lookup of a name that a listing of the past found.
    async fn enter_past(&self, node: &PastNode, name: &[u8], found: Found) -> FsResult<Entry> {
        let mut entry = self.past.enter(node, name, found).await?;
        entry.stat = self.shown(entry.stat);
        Ok(entry)
    }

    async fn snapshot(&self, ino: u64, source: &DirSource) -> FsResult<DirSnapshot> {
        match source {
            DirSource::Live(dir, generation) => {
                let parent = self.namespace.tree().parent(*dir).await?;
                if self.namespace.tree().stat(*dir).await?.generation != *generation {
                    return Err(FsError::NotFound);
                }
                let rest = UnreadNames::Live(self.namespace.tree().list(*dir).await?);
                Ok(DirSnapshot::new(ino, parent.0, Vec::new(), Some(rest)))
            }
            DirSource::Past(node) => {
                let (listed, rest) = match self.past.list(node).await? {
                    Listing::Whole(listed) => (listed, None),
                    Listing::Drawn(names) => (Vec::new(), Some(UnreadNames::Past(names))),
                };
                Ok(DirSnapshot::new(ino, node.parent(), listed, rest))
            }
        }
    }
}

/// The outcome of one position.
enum ReaddirStep {
    /// The sink has it.
    Yes,
    /// The name was removed after the snapshot.
    Gone,
    /// The sink is full.
    NoRoom,
    /// There are no more names.
    NoMore,
}
