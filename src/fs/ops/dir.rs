//! opendir, readdir, releasedir.
//!
//! A handle shows the names as they were when it was opened or rewound. Attributes of the live tree are looked up when they are
//! given, because the kernel keeps them from then on. Attributes of the past are those that the listing has read.

use crate::fs::dir_snapshot::{DirSnapshot, UnreadNames};
use crate::fs::handle::{DirSource, Handle, OpenDir};
use crate::fs::listings::{self, SharedSnapshot};
use crate::fs::past::{Found, ListedName, Listing, PastNode};
use crate::fs::{Caller, Entry, FileSystem, FsError, FsResult, Node, Opened};
use crate::store::{Ino, Kind, Stat, Time};
use crate::sync::Arc;
use std::hash::{DefaultHasher, Hash, Hasher};
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
        let (source, lasting, listed, time) = match self.node(ino)? {
            Node::Live(ino) => {
                let stat = self.live_stat(ino, None).await?;
                if stat.kind != Kind::Directory {
                    return Err(FsError::NotDirectory);
                }
                let source = DirSource::Live(ino, stat.generation);
                let listed = self.kept_listing(ino, &stat);
                (source, !self.config().read_only, listed, None)
            }
            Node::Past(node) => {
                let lasting = self.past().check_opendir(&node).await?;
                let time = self.past().in_use(&node);
                (DirSource::Past(node), lasting, None, time)
            }
        };
        let past = matches!(source, DirSource::Past(_));
        let keep_cache = lasting && (past || listed.is_some());
        let open = OpenDir {
            source,
            opener: *caller,
            time,
            snapshot: AsyncMutex::new(listed),
        };
        Ok(Opened {
            handle: self.handles.insert(Handle::Dir(Arc::new(open))),
            keep_cache,
            no_flush: true,
            cache_dir: lasting,
            direct: false,
        })
    }

    /// A number that changes with the names of a live directory, its place, and at the latest when the kernel drops the entries that came
    /// with its listing: the next listing brings them again, where each would be looked up by itself.
    fn listing_stamp(&self, directory: &Stat) -> u64 {
        let now = self.namespace().wall();
        let period =
            now.seconds / i64::try_from(self.config().live_ttl.as_secs().max(1)).unwrap_or(1);
        let Time { seconds, nanos } = directory.attrs.ctime;
        let mut hash = DefaultHasher::new();
        (directory.content_stamp, directory.generation).hash(&mut hash);
        (seconds, nanos, period).hash(&mut hash);
        hash.finish()
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
        let mut held = open.snapshot.lock().await;
        let listing = match &*held {
            // rewinddir(3) shows what is new.
            Some(taken) if offset != 0 => self.listing_of(taken, &open.source, offset),
            _ => self.snapshot(ino, &open.source).await?,
        };
        *held = Some(Arc::clone(&listing));
        let full = plus.then_some(&open.opener);
        let first = usize::try_from(listings::position(offset))
            .map_err(|_| FsError::Invalid("offset".to_owned()))?;
        let mut names = listing.names.lock().await;
        let mut given = 0_usize;
        for position in first.. {
            let place = ListingPlace {
                position,
                next_offset: listing.offset(position as u64 + 1),
            };
            match self.give(&open.source, &mut names, place, full, sink).await {
                Ok(ReaddirStep::Yes) => given += 1,
                Ok(ReaddirStep::Gone) => {}
                Ok(ReaddirStep::NoRoom | ReaddirStep::NoMore) => break,
                // Names that were given are counted as looked up, so the kernel must get them; the next call returns the error.
                Err(_) if given > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if let (DirSource::Live(dir, _), Some(stamp), Some(len)) =
            (&open.source, names.stamp(), names.complete_len())
        {
            self.listings.keep(*dir, stamp, len, &listing);
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

    /// Gives the name at `place`; with its attributes as the caller `full` finds them.
    async fn give(
        &self,
        source: &DirSource,
        snapshot: &mut DirSnapshot,
        place: ListingPlace,
        full: Option<&Caller>,
        sink: &mut dyn DirSink,
    ) -> FsResult<ReaddirStep> {
        let position = place.position;
        let Some(listed) = snapshot.at(position, self.past()).await? else {
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
            next_offset: place.next_offset,
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
        let mut entry = self.past().enter(node, name, found).await?;
        entry.stat = self.shown(entry.stat);
        Ok(entry)
    }

    /// The names of a directory as they are now: those of another handle if they are the same.
    async fn snapshot(&self, ino: u64, source: &DirSource) -> FsResult<Arc<SharedSnapshot>> {
        let (dir, generation) = match source {
            DirSource::Live(dir, generation) => (*dir, *generation),
            DirSource::Past(node) => {
                let (listed, rest) = match self.past().list(node).await? {
                    Listing::Whole(listed) => (listed, None),
                    Listing::Drawn(names) => (Vec::new(), Some(UnreadNames::Past(names))),
                };
                let names = DirSnapshot::new(ino, node.parent(), listed, rest);
                return Ok(self.listings.snapshot(names));
            }
        };
        let parent = self.namespace().tree().parent(dir).await?;
        let stat = self.namespace().tree().stat(dir).await?;
        if stat.generation != generation {
            return Err(FsError::NotFound);
        }
        // Read before the names, so that names of a later state are kept under a stamp that is outdated.
        let stamp = self.listing_stamp(&stat);
        if let Some(listing) = self.listings.get(dir, stamp) {
            return Ok(listing);
        }
        let rest = UnreadNames::Live(self.namespace().tree().list(dir).await?);
        let mut names = DirSnapshot::new(ino, parent.0, Vec::new(), Some(rest));
        if !self.config().read_only {
            names = names.stamped(stamp);
        }
        Ok(self.listings.snapshot(names))
    }

    /// The listing in which `offset` means a position: that of the handle, or the one that the kernel has copied since.
    fn listing_of(
        &self,
        taken: &Arc<SharedSnapshot>,
        source: &DirSource,
        offset: u64,
    ) -> Arc<SharedSnapshot> {
        let other = match source {
            DirSource::Live(dir, _) if !taken.has_made(offset) => self.listings.newest(*dir),
            DirSource::Live(..) | DirSource::Past(_) => None,
        };
        let made = other.filter(|other| other.has_made(offset));
        made.unwrap_or_else(|| Arc::clone(taken))
    }

    /// The names of a live directory, if the kernel may still use what it has of them. Changes of the writer's own kernel make it drop what
    /// it keeps; the stamp tells about the others. A follower's directory may get an older name after a newer one, and the stamp stays.
    fn kept_listing(&self, directory: Ino, stat: &Stat) -> Option<Arc<SharedSnapshot>> {
        if self.config().read_only {
            return None;
        }
        let stamp = self.listing_stamp(stat);
        let unchanged = self.live.opened(directory, stamp);
        self.listings.get(directory, stamp).filter(|_| unchanged)
    }
}

/// A position in a listing, and where to go on after it.
#[derive(Clone, Copy)]
struct ListingPlace {
    position: usize,
    next_offset: u64,
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
