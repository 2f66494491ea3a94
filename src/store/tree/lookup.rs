//! Lookups in the live tree: a name to its entry, an inode number to its cached inode, a directory to the list of its names.
//!
//! The rows come from the overlay and the index. A stat prefers the cached inode, which includes unsaved writes.

use bytes::Bytes;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{DIRECTORIES_ABOVE_MAX, Dentry};
use crate::store::model::version::{Attrs, Content, Ino, Kind, ROOT, Stat};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryRow, EntryState, InodeRow, InodeState, LocationRow, OrphanRow,
};
use crate::store::schema::tables::{DentryTable, RowTable};
use crate::store::tree::Tree;
use crate::store::tree::inode::{
    CachedDirectory, CachedInode, FileInode, LinkState, content_stamp, stat,
};
use crate::store::tree::locked::LockedInode;
use crate::sync::Arc;

/// Number of directory entries read in one scan.
const LISTING_CHUNK: usize = 1024;

impl Tree {
    /// Returns the directory entry of `name`; `None` if there is no such name.
    pub(crate) async fn entry(
        &self,
        directory: Ino,
        name: &[u8],
    ) -> Result<Option<DentryRow>, StoreError> {
        self.core.index.row(&keys::entry(directory, name)).await
    }

    /// Locks an inode and loads its rows. Fails with `NotFound` when the inode has neither a name nor a user.
    pub(crate) async fn lock(&self, ino: Ino) -> Result<LockedInode, StoreError> {
        let mut locked = self.inodes.get(ino).lock().await;
        self.load(&mut locked).await?;
        Ok(locked)
    }

    /// Locks several inodes as [`Tree::lock`] does, in ascending order.
    pub(crate) async fn lock_all(&self, wanted: &[Ino]) -> Result<Vec<LockedInode>, StoreError> {
        let mut all = self.inodes.lock_all(wanted).await;
        for locked in &mut all {
            self.load(locked).await?;
        }
        Ok(all)
    }

    /// Loads a locked inode, unless it is gone.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn load_known(&self, locked: &mut LockedInode) -> Result<(), StoreError> {
        match self.load(locked).await {
            Ok(()) | Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn load(&self, locked: &mut LockedInode) -> Result<(), StoreError> {
        let ino = locked.inode.ino;
        match locked.cached() {
            CachedInode::No => {}
            CachedInode::Evicted => return Err(StoreError::NotFound),
            CachedInode::Directory(_) | CachedInode::File(_) => return Ok(()),
        }
        let cached = self.read_inode(ino).await?.ok_or(StoreError::NotFound)?;
        locked.load(cached);
        Ok(())
    }

    pub(crate) async fn read_inode(&self, ino: Ino) -> Result<Option<CachedInode>, StoreError> {
        let rows = self.core.index.snapshot();
        match rows.row(&keys::inode(ino)).await? {
            Some(InodeRow::Directory(row)) => return read_directory(&rows, row).await,
            Some(InodeRow::Linked(row)) => {
                let place = place(&rows, ino)
                    .await?
                    .unwrap_or(Dentry::new(ROOT, Bytes::new()));
                let link_state = LinkState::HardLinked {
                    place,
                    nlink: row.nlink,
                    older: row.older,
                };
                return Ok(Some(CachedInode::File(Box::new(FileInode::new(
                    link_state, row.node, row.state,
                )))));
            }
            None => {}
        }
        if let Some(place) = place(&rows, ino).await?
            && let Some(entry) = rows.row(&keys::entry(place.parent, &place.name)).await?
            && entry.ino == ino
            && let DentryBody::Own { node, state } = entry.body
        {
            let link_state = LinkState::Single {
                place,
                bound: entry.bound,
                alive_since: entry.alive_since,
                older: entry.older,
            };
            return Ok(Some(CachedInode::File(Box::new(FileInode::new(
                link_state, node, state,
            )))));
        }
        let orphan: Option<OrphanRow> = rows.row(&keys::orphan(ino)).await?;
        Ok(orphan.map(|orphan| {
            CachedInode::File(Box::new(FileInode::new(
                LinkState::Unlinked,
                orphan.node,
                EntryState::Unborn { behind: None },
            )))
        }))
    }

    /// Returns the stat of an inode, unsaved writes included.
    ///
    /// # Errors
    /// `NotFound` when the inode has neither a name nor a user.
    pub async fn stat(&self, ino: Ino) -> Result<Stat, StoreError> {
        if let Some(inode) = self.inodes.known(ino)
            && let Some(stat) = inode.live()
        {
            return if stat.nlink > 0 || inode.is_pinned() {
                Ok(stat)
            } else {
                Err(StoreError::NotFound)
            };
        }
        self.lock(ino).await?.stat()
    }

    /// Returns the stat of the inode that an entry leads to, unsaved writes included.
    pub(crate) async fn stat_entry(&self, entry: &DentryRow) -> Result<Stat, StoreError> {
        match &entry.body {
            DentryBody::Own { node, .. } if node.kind != Kind::Directory => {
                let live = self.inodes.known(entry.ino).and_then(|inode| inode.live());
                Ok(live
                    .unwrap_or_else(|| stat(entry.ino, node, &node.attrs, 1, content_stamp(node))))
            }
            DentryBody::Own { .. } | DentryBody::Linked(_) => self.stat(entry.ino).await,
        }
    }

    /// Returns the ancestors of `directory` that an operation depends on: none unless a rename of a directory is in the queue.
    pub(crate) async fn ancestors(&self, directory: Ino) -> Result<Vec<Ino>, StoreError> {
        if self.commit.queue.moves_in_flight() {
            self.lineage(directory).await
        } else {
            Ok(Vec::new())
        }
    }

    /// Returns all ancestors of `directory`, nearest first.
    ///
    /// # Errors
    /// As [`Self::parent`]; `Corrupt` for directories that are in each other.
    pub(crate) async fn lineage(&self, directory: Ino) -> Result<Vec<Ino>, StoreError> {
        let (mut above, mut at) = (Vec::new(), directory);
        while at != ROOT {
            if above.len() == DIRECTORIES_ABOVE_MAX {
                return Err(StoreError::Corrupt(format!(
                    "directory {} is in a circle of directories",
                    directory.0
                )));
            }
            at = self.parent(at).await?;
            above.push(at);
        }
        Ok(above)
    }

    /// Returns the parent directory; the root is its own parent.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`.
    pub async fn parent(&self, directory: Ino) -> Result<Ino, StoreError> {
        if directory == ROOT {
            return Ok(ROOT);
        }
        match self.core.index.row(&keys::inode(directory)).await? {
            Some(InodeRow::Directory(row)) => row
                .place
                .map(|(_, Dentry { parent, name: _ })| parent)
                .ok_or(StoreError::NotFound),
            Some(InodeRow::Linked(_)) => Err(StoreError::NotDirectory),
            None => Err(StoreError::NotFound),
        }
    }

    /// Returns the dependencies of an operation that changes a name in `directory`.
    pub(crate) async fn order_in(
        &self,
        directory: Ino,
        name: &[u8],
        ino: Ino,
    ) -> Result<Dependencies, StoreError> {
        Ok(Dependencies {
            touches: vec![
                keys::entry(directory, name).bytes(),
                keys::inode(ino).bytes(),
            ],
            within: vec![directory],
            below: self.ancestors(directory).await?,
            ..Dependencies::default()
        })
    }
}

/// Returns a directory with the entry that leads to it; `None` if it was removed.
async fn read_directory(
    rows: &Snapshot,
    row: DirectoryRow,
) -> Result<Option<CachedInode>, StoreError> {
    let Some((_, place)) = row.place.clone() else {
        return Ok(None);
    };
    let Some(entry) = rows.row(&keys::entry(place.parent, &place.name)).await? else {
        return Ok(None);
    };
    match entry.body {
        DentryBody::Own { node, .. } => {
            let directory = CachedDirectory { row, node, place };
            Ok(Some(CachedInode::Directory(Box::new(directory))))
        }
        DentryBody::Linked(_) => Err(StoreError::Corrupt(format!(
            "directory {} is hard-linked",
            entry.ino.0
        ))),
    }
}

/// Returns the entry that leads to an inode; for a hard-linked one, one of them.
async fn place(rows: &Snapshot, ino: Ino) -> Result<Option<Dentry>, StoreError> {
    let place: Option<LocationRow> = rows.row(&keys::place(ino)).await?;
    Ok(place.map(|place| Dentry::new(place.directory, place.name)))
}

/// The names of a directory in ascending order, read in chunks on demand.
#[derive(Debug)]
pub struct DirectoryListing {
    tree: Arc<Tree>,
    directory: Ino,
    next: Option<Bytes>,
    chunk: std::vec::IntoIter<(Bytes, Bytes)>,
}

impl DirectoryListing {
    pub(crate) fn new(tree: Arc<Tree>, directory: Ino) -> Self {
        Self::starting_at(tree, directory, b"")
    }

    /// Lists the names from `name` on.
    pub(crate) fn starting_at(tree: Arc<Tree>, directory: Ino, name: &[u8]) -> Self {
        let next = Some(keys::entry(directory, name).bytes());
        Self {
            tree,
            directory,
            next,
            chunk: Vec::new().into_iter(),
        }
    }

    /// Returns the next name and its stat; `None` after the last. A name that is created or removed during the listing may or may
    /// not appear; every other name appears once.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Stat)>, StoreError> {
        loop {
            if let Some((key, value)) = self.chunk.next() {
                let entry: DentryRow = DentryTable::decode(&value)?;
                match self.tree.stat_entry(&entry).await {
                    Ok(stat) => return Ok(Some((keys::entry_name(&key), stat))),
                    Err(StoreError::NotFound) => continue,
                    Err(error) => return Err(error),
                }
            }
            let Some(from) = self.next.take() else {
                return Ok(None);
            };
            let end = keys::after(&keys::entry(self.directory, b""));
            let rows = self.tree.core.index.scan(from, end, LISTING_CHUNK).await?;
            if rows.len() == LISTING_CHUNK {
                self.next = rows.last().map(|(key, _)| [&key[..], &[0]].concat().into());
            }
            self.chunk = rows.into_iter();
        }
    }
}

/// Returns the state of a new root directory.
pub(crate) fn root_node(
    uid: u32,
    gid: u32,
    time: crate::store::model::version::Time,
) -> InodeState {
    InodeState {
        kind: Kind::Directory,
        attrs: Attrs {
            mode: 0o755,
            uid,
            gid,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            ..Attrs::default()
        },
        xattrs: Vec::new(),
        content: Content::Empty,
        allocated: 0,
    }
}
