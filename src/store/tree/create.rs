//! Creation of directory entries: files, directories, symbolic links, special files, and hard links to existing inodes.
//!
//! Invariants: the parent directory is locked while a name in it is created. A new regular file is unborn: it is in the live
//! tree but in no version until a handle on it is released. An inode gets a second name only after its dirty bytes were
//! written back, so that no name ever leads to a state whose bytes are missing.

use bytes::Bytes;

use crate::store::commit::txn::Txn;
use crate::store::model::config::Owner;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{Dentry, UsageChange};
use crate::store::model::policy::Policy;
use crate::store::model::version::{
    Attrs, Author, Content, EndOp, Ino, Kind, Op, Origin, ROOT, Stamp, Stat, Time, Timestamp,
};
use crate::store::schema::amounts;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryRow, EntryState, InodeRow, InodeState, LinkedRow, OlderVersions,
};
use crate::store::tree::Tree;
use crate::store::tree::file::File;
use crate::store::tree::inode::{CachedDirectory, CachedInode, FileInode, LinkState};
use crate::store::tree::locked::{LockedInode, find};
use crate::store::tree::lookup::DirectoryListing;
use crate::store::tree::review::{names_of, review};
use crate::store::tree::row_writer::VersionEnd;
use crate::sync::Arc;

/// Largest length of a name in bytes (NAME_MAX of POSIX limits.h).
pub const NAME_MAX: usize = 255;
/// Largest number of names of an inode (LINK_MAX of POSIX limits.h).
pub const LINK_MAX: u32 = 65_000;

/// An inode to create.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// File type.
    pub kind: Kind,
    /// The 12 permission bits.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Device number, for a device node.
    pub rdev: u64,
    /// Target of a symbolic link.
    pub target: Bytes,
    /// Initial extended attributes.
    pub xattrs: Vec<(Bytes, Bytes)>,
}

/// Checks a name with the rules that every change of the tree applies.
///
/// # Errors
/// `Invalid` for an empty name, `.`, `..`, or a name with `/` or NUL; `TooLarge` for a name longer than [`NAME_MAX`].
pub fn check_entry_name(name: &[u8]) -> Result<(), StoreError> {
    if name.len() > NAME_MAX {
        return Err(StoreError::TooLarge);
    }
    if name.is_empty()
        || name == b"."
        || name == b".."
        || name.iter().any(|b| matches!(b, 0 | b'/'))
    {
        return Err(StoreError::Invalid(format!(
            "name {:?}",
            String::from_utf8_lossy(name)
        )));
    }
    Ok(())
}

/// The names of an inode that gets one more.
struct SharedNames {
    /// One of them.
    place: Dentry,
    nlink: u32,
    older: OlderVersions,
}

impl Tree {
    /// Returns the stat of the inode that `name` in `parent` leads to; `None` if there is no such name.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Option<Stat>, StoreError> {
        match self.entry(parent, name).await? {
            Some(entry) => match self.stat_entry(&entry).await {
                Ok(stat) => Ok(Some(stat)),
                Err(StoreError::NotFound) => Ok(None),
                Err(error) => Err(error),
            },
            None => Ok(None),
        }
    }

    /// Lists the names of a directory in ascending byte order.
    ///
    /// # Errors
    /// `NotFound` if the inode does not exist any more, `NotDirectory`.
    pub async fn list(self: &Arc<Self>, directory: Ino) -> Result<DirectoryListing, StoreError> {
        match self.stat(directory).await?.kind {
            Kind::Directory => Ok(DirectoryListing::new(Arc::clone(self), directory)),
            _ => Err(StoreError::NotDirectory),
        }
    }

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// `NotFound` if the inode does not exist any more; `Invalid` if the inode is not a symbolic link.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes, StoreError> {
        let locked = self.lock(ino).await?;
        match locked.as_file().map(|file| &file.node.content) {
            Some(Content::Target(target)) => Ok(target.clone()),
            _ => Err(StoreError::Invalid("not a symbolic link".to_owned())),
        }
    }

    /// Creates an inode and a name for it. A regular file gets its first version when a handle on it is released; a file that was
    /// never opened becomes an empty version at the next mount.
    ///
    /// # Errors
    /// `Exists`, `NotFound` if the directory does not exist any more, `NotDirectory`, `NoSpace`.
    pub async fn create(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        node: NewNode,
        author: &Author,
    ) -> Result<Stat, StoreError> {
        Ok(self.create_locked(parent, name, node, author).await?.0)
    }

    /// Creates a regular file as [`Tree::create`] does and opens the file in the same step.
    ///
    /// # Errors
    /// As for [`Tree::create`].
    pub async fn create_open(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        node: NewNode,
        author: &Author,
    ) -> Result<(Stat, Arc<File>), StoreError> {
        let (stat, locked) = self.create_locked(parent, name, node, author).await?;
        Ok((stat, self.pin(&locked)))
    }

    /// Adds a name to an inode, as link(2) does.
    ///
    /// # Errors
    /// `Exists`, `NotFound`, `IsDirectory` for a directory, `TooManyLinks` beyond [`LINK_MAX`].
    pub async fn link(
        &self,
        ino: Ino,
        parent: Ino,
        name: &[u8],
        author: &Author,
    ) -> Result<Stat, StoreError> {
        check_entry_name(name)?;
        self.room_for_names().await;
        self.link_locked(ino, parent, name, author).await?;
        self.stat(ino).await
    }
}

impl Tree {
    async fn create_locked(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        new: NewNode,
        author: &Author,
    ) -> Result<(Stat, LockedInode), StoreError> {
        check_entry_name(name)?;
        self.room_for_names().await;
        let mut above = self.lock_to_change(parent).await?;
        above.as_directory().ok_or(StoreError::NotDirectory)?;
        if self.entry(parent, name).await?.is_some() {
            return Err(StoreError::Exists);
        }
        let dentry = Dentry::new(parent, Bytes::copy_from_slice(name));
        let older = self
            .kept_removed(std::slice::from_mut(&mut above), &dentry)
            .await?;
        let answer = self.core.clock.begin();
        let (at, ino) = (answer.at(), Ino(self.core.new_id()));
        let dependencies = self.order_in(parent, name, ino).await?;
        let mut txn = self.commit.txn(at, dependencies);
        review(&mut txn, &dentry, older);
        let node = node_of(&new, txn.time);
        let cached = self.new_rows(&mut txn, ino, &dentry, &node, author);
        txn.usage = UsageChange {
            bytes: node.space().cast_signed(),
            files: 1,
        };
        let change = DirectoryRow {
            entries: 1,
            directories: i64::from(node.kind == Kind::Directory),
            removal_burst: Some((at, None)),
            ..DirectoryRow::default()
        };
        let change = self.touch(&mut txn, parent, change);
        let mut fresh = self.inodes.get(ino).lock().await;
        self.commit.enqueue(txn)?;
        if let Some(mut directory) = above.directory() {
            directory.merge(change);
        }
        fresh.load(cached);
        let stat = fresh.stat()?;
        if node.kind == Kind::File {
            self.inodes.keep_dirty(&fresh.inode);
        }
        Ok((stat, fresh))
    }

    fn new_rows(
        &self,
        txn: &mut Txn,
        ino: Ino,
        dentry: &Dentry,
        node: &InodeState,
        author: &Author,
    ) -> CachedInode {
        let at = txn.timestamp;
        let born = node.kind != Kind::File;
        let state = if born {
            EntryState::Version(self.stamp(at, Op::Create, author, None))
        } else {
            txn.put(keys::provisional(ino), &());
            EntryState::Unborn { behind: None }
        };
        let alive_since = if born { at } else { Timestamp(u64::MAX) };
        let body = DentryBody::Own {
            node: node.clone(),
            state: state.clone(),
        };
        let entry = DentryRow {
            ino,
            bound: at,
            alive_since,
            body,
            older: OlderVersions::NotHeld,
        };
        txn.put(keys::entry(dentry.parent, &dentry.name), &entry);
        if node.kind == Kind::Directory {
            self.note_change(txn, at);
            txn.dependencies.makes.push(ino);
            let time = node.attrs.mtime;
            let row = DirectoryRow {
                place: Some((at, dentry.clone())),
                mtime: Some((at, time)),
                ctime: Some((at, time)),
                ..DirectoryRow::default()
            };
            txn.merge(keys::inode(ino), &InodeRow::Directory(row.clone()));
            return CachedInode::Directory(Box::new(CachedDirectory {
                row,
                node: node.clone(),
                place: dentry.clone(),
            }));
        }
        self.put_location(txn, ino, dentry);
        let link_state = LinkState::Single {
            place: dentry.clone(),
            bound: at,
            alive_since,
            older: OlderVersions::NotHeld,
        };
        CachedInode::File(Box::new(FileInode::new(link_state, node.clone(), state)))
    }

    async fn link_locked(
        &self,
        ino: Ino,
        parent: Ino,
        name: &[u8],
        author: &Author,
    ) -> Result<(), StoreError> {
        let mut locked = self.lock_all(&[ino, parent]).await?;
        self.check_not_restored(&[ino, parent]).await?;
        find(&mut locked, parent)
            .and_then(LockedInode::directory)
            .ok_or(StoreError::NotDirectory)?;
        if self.entry(parent, name).await?.is_some() {
            return Err(StoreError::Exists);
        }
        let target = find(&mut locked, ino).ok_or(StoreError::NotFound)?;
        target.file().ok_or(StoreError::IsDirectory)?;
        self.save_flushes(target).await?;
        // The bytes are written back first: neither name may lead to a state whose bytes the bucket lacks.
        self.write_back(target, author).await?;
        let dentry = Dentry::new(parent, Bytes::copy_from_slice(name));
        let older = self.kept_removed(&mut locked, &dentry).await?;
        let answer = self.core.clock.begin();
        let at = answer.at();
        let mut txn = self.commit.txn(at, self.order_in(parent, name, ino).await?);
        review(&mut txn, &dentry, older);
        let mut file = find(&mut locked, ino)
            .and_then(LockedInode::file)
            .ok_or(StoreError::NotFound)?;
        let origin = file.place().map(|place| Origin {
            directory: place.parent,
            name: place.name.clone(),
        });
        let SharedNames {
            place,
            nlink,
            older,
        } = self.share(&mut txn, ino, &file, author)?;
        self.count_links(&mut txn, ino, nlink);
        let state = self.shared_state(&mut txn, &file);
        let mut node = file.node.clone();
        node.attrs.ctime = txn.time;
        let row = LinkedRow {
            node: node.clone(),
            state: state.clone(),
            nlink,
            older,
        };
        txn.put(keys::inode(ino), &InodeRow::Linked(Box::new(row)));
        let stamp = self.stamp(at, Op::Link, author, origin);
        self.bind_new(&mut txn, ino, stamp, &dentry);
        let change = DirectoryRow {
            entries: 1,
            removal_burst: Some((at, None)),
            ..DirectoryRow::default()
        };
        let change = self.touch(&mut txn, parent, change);
        self.commit.enqueue(txn)?;
        let link_state = LinkState::HardLinked {
            place,
            nlink,
            older,
        };
        file.set_names(link_state, node, state);
        if let Some(mut directory) = find(&mut locked, parent).and_then(LockedInode::directory) {
            directory.merge(change);
        }
        Ok(())
    }

    /// Binds a new name to a hard-linked inode.
    fn bind_new(&self, txn: &mut Txn, ino: Ino, stamp: Stamp, dentry: &Dentry) {
        let at = txn.timestamp;
        self.begin_binding(txn, ino, stamp.id, dentry);
        let entry = DentryRow {
            ino,
            bound: at,
            alive_since: at,
            body: DentryBody::Linked(stamp),
            older: OlderVersions::NotHeld,
        };
        txn.put(keys::entry(dentry.parent, &dentry.name), &entry);
    }

    /// Returns the state for an inode that gets a second name. An unborn file may hide an older version of its first name; that
    /// version belongs to the first name only and ends here.
    fn shared_state(&self, txn: &mut Txn, file: &FileInode) -> EntryState {
        let mut state = file.state.clone();
        if let (EntryState::Unborn { behind }, LinkState::Single { place, .. }) =
            (&mut state, &file.link_state)
            && let Some(last) = behind.take()
        {
            let end = VersionEnd::new(txn.timestamp, EndOp::Replaced);
            self.close(txn, place, &last, end);
        }
        state
    }

    /// Converts a single name to a hard-linked entry, and counts one name more.
    fn share(
        &self,
        txn: &mut Txn,
        ino: Ino,
        file: &FileInode,
        author: &Author,
    ) -> Result<SharedNames, StoreError> {
        let at = txn.timestamp;
        match &file.link_state {
            LinkState::Single {
                place,
                bound,
                alive_since,
                older,
            } => {
                txn.touch(keys::entry(place.parent, &place.name));
                txn.dependencies.within.push(place.parent);
                let stamp = match &file.state {
                    EntryState::Version(stamp) => stamp.clone(),
                    EntryState::Provisional(last) => last.stamp.clone(),
                    EntryState::Unborn { .. } => self.stamp(at, Op::Create, author, None),
                };
                // From now on the inode's row says whether versions are kept: another name's save ends versions of this name too.
                review(txn, place, *older);
                self.begin_binding(txn, ino, stamp.id, place);
                let entry = DentryRow {
                    ino,
                    bound: *bound,
                    alive_since: (*alive_since).min(at),
                    body: DentryBody::Linked(stamp),
                    older: OlderVersions::NotHeld,
                };
                txn.put(keys::entry(place.parent, &place.name), &entry);
                Ok(SharedNames {
                    place: place.clone(),
                    nlink: 2,
                    older: OlderVersions::NotHeld,
                })
            }
            LinkState::HardLinked { nlink, .. } if *nlink >= LINK_MAX => {
                Err(StoreError::TooManyLinks)
            }
            LinkState::HardLinked {
                place,
                nlink,
                older,
            } => {
                review(txn, &names_of(ino), *older);
                Ok(SharedNames {
                    place: place.clone(),
                    nlink: nlink + 1,
                    older: *older,
                })
            }
            LinkState::Unlinked => Err(StoreError::NotFound),
        }
    }

    /// Creates the root directory and the retention policy if the namespace has no root.
    pub(crate) async fn make_root(&self) -> Result<(), StoreError> {
        let index = &self.core.index;
        if let Some(InodeRow::Directory(row)) = index.row(&keys::inode(ROOT)).await?
            && row.place.is_some()
        {
            return Ok(());
        }
        // What a rebuild found in a log without its first object: a root that has only the changes after it, and maybe a policy.
        let has_policy = index.get(&keys::policy()).await?.is_some();
        let has_amount = index.get(&amounts::stored_before()).await?.is_some();
        let answer = self.core.clock.begin();
        let Owner { uid, gid } = self.core.config.owner;
        let mut txn = self.commit.txn(answer.at(), Dependencies::default());
        let node = crate::store::tree::lookup::root_node(uid, gid, txn.time);
        let dentry = Dentry::new(Ino(0), Bytes::new());
        if !has_policy {
            txn.put(keys::policy(), &Policy::default());
        }
        if !has_amount {
            txn.put(amounts::stored_before(), &0);
        }
        self.new_rows(&mut txn, ROOT, &dentry, &node, &Author::default());
        self.commit.enqueue(txn)?;
        Ok(())
    }
}

fn node_of(new: &NewNode, time: Time) -> InodeState {
    let (content, size) = match new.kind {
        Kind::Symlink => (Content::Target(new.target.clone()), new.target.len() as u64),
        _ => (Content::Empty, 0),
    };
    let attrs = Attrs {
        mode: new.mode & 0o7777,
        uid: new.uid,
        gid: new.gid,
        rdev: new.rdev,
        size,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
    };
    InodeState {
        kind: new.kind,
        attrs,
        xattrs: new.xattrs.clone(),
        content,
        allocated: 0,
    }
}
