//! Attributes and extended attributes of live inodes.
//!
//! Invariant: a change of attributes rewrites the current state in place and makes no version. It applies to flushed states that
//! wait for their release too, so that the version made of such a state has the new attributes, and to the last version while a
//! provisional state hides it: that version is what is left if no other one follows.

use bytes::Bytes;

use crate::store::model::error::StoreError;
use crate::store::model::version::{AttrChange, Ino, Stat, Time, Timestamp};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryRow, EntryState, InodeRow, InodeState,
};
use crate::store::tree::Tree;
use crate::store::tree::inode::CachedInode;
use crate::store::tree::locked::{LockedDir, LockedFile, LockedInode};

/// Largest total size of an inode's extended attributes in bytes, names included: enough for one value of 64 KiB with a name of
/// 255 bytes.
pub const XATTRS_MAX: usize = LIST_MAX + 255;

/// Largest size of the list of attribute names in bytes, each with its NUL: the limit of listxattr(2) (XATTR_LIST_MAX).
const LIST_MAX: usize = 64 << 10;

/// Whether the attribute must exist before it is set, as the flags of setxattr(2) say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// It may exist or not.
    Any,
    /// It must not exist (XATTR_CREATE).
    Create,
    /// It must exist (XATTR_REPLACE).
    Replace,
}

impl Tree {
    /// Changes attributes of the current state and returns the new stat. Makes no version.
    ///
    /// # Errors
    /// `NotFound` if the inode does not exist any more, `NoSpace` when the journal cannot take the change.
    pub async fn set_attrs(&self, ino: Ino, change: AttrChange) -> Result<Stat, StoreError> {
        self.room_for_names().await;
        let mut locked = self.lock_to_change(ino).await?;
        self.change(&mut locked, |node, now| change.apply(&mut node.attrs, now))
            .await?;
        locked.stat()
    }

    /// Returns the value of an extended attribute; `None` if the inode has no such attribute.
    ///
    /// # Errors
    /// `NotFound` if the inode does not exist any more.
    pub async fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self
            .xattrs(ino)
            .await?
            .into_iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value))
    }

    /// Returns the names of all extended attributes.
    ///
    /// # Errors
    /// `NotFound` if the inode does not exist any more.
    pub async fn list_xattrs(&self, ino: Ino) -> Result<Vec<Bytes>, StoreError> {
        Ok(self
            .xattrs(ino)
            .await?
            .into_iter()
            .map(|(name, _)| name)
            .collect())
    }

    async fn xattrs(&self, ino: Ino) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let locked = self.lock(ino).await?;
        match locked.cached() {
            CachedInode::Directory(directory) => Ok(directory.node.xattrs.clone()),
            CachedInode::File(file) => Ok(file.node.xattrs.clone()),
            CachedInode::No | CachedInode::Evicted => Err(StoreError::NotFound),
        }
    }

    /// Sets an extended attribute; removes the attribute if `value` is `None`.
    ///
    /// # Errors
    /// `Exists` or `NoAttribute` as `mode` requires; `NoAttribute` when a removal finds none; `NoSpace` beyond [`XATTRS_MAX`].
    pub async fn set_xattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: Option<Bytes>,
        mode: XattrMode,
    ) -> Result<(), StoreError> {
        self.room_for_names().await;
        let mut locked = self.lock_to_change(ino).await?;
        let old = match locked.cached() {
            CachedInode::Directory(directory) => &directory.node.xattrs,
            CachedInode::File(file) => &file.node.xattrs,
            CachedInode::No | CachedInode::Evicted => return Err(StoreError::NotFound),
        };
        let new = changed_xattrs(old, name, value, mode)?;
        self.change(&mut locked, |node, now| {
            node.xattrs.clone_from(&new);
            node.attrs.ctime = now;
        })
        .await
    }
}

/// Returns the extended attributes `old` with `name` set to `value`, or without `name` if `value` is `None`.
///
/// # Errors
/// `Exists` or `NoAttribute` as `mode` requires; `NoAttribute` when a removal finds none; `NoSpace` beyond [`XATTRS_MAX`].
pub(crate) fn changed_xattrs(
    old: &[(Bytes, Bytes)],
    name: &[u8],
    value: Option<Bytes>,
    mode: XattrMode,
) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let found = old.iter().any(|(n, _)| n == name);
    match (found, mode, &value) {
        (true, XattrMode::Create, _) => return Err(StoreError::Exists),
        (false, XattrMode::Replace, _) | (false, _, None) => {
            return Err(StoreError::NoAttribute);
        }
        _ => {}
    }
    let mut new: Vec<(Bytes, Bytes)> = old.iter().filter(|(n, _)| n != name).cloned().collect();
    new.extend(value.map(|value| (Bytes::copy_from_slice(name), value)));
    new.sort();
    let bytes: usize = new.iter().map(|(n, v)| n.len() + v.len()).sum();
    let list: usize = new.iter().map(|(n, _)| n.len() + 1).sum();
    if bytes > XATTRS_MAX || list > LIST_MAX {
        return Err(StoreError::NoSpace);
    }
    Ok(new)
}

impl Tree {
    /// Sets mtime and ctime of a locked inode after a call that changed no byte, such as a truncate to the present size.
    pub(crate) async fn date(&self, locked: &mut LockedInode) -> Result<(), StoreError> {
        self.change(locked, |node, now| {
            node.attrs.mtime = Time::of_change(now, node.attrs.mtime);
            node.attrs.ctime = node.attrs.mtime;
        })
        .await
    }

    /// Changes the attributes of a locked inode's current state.
    async fn change(
        &self,
        locked: &mut LockedInode,
        how: impl Fn(&mut InodeState, Time),
    ) -> Result<(), StoreError> {
        let ino = locked.ino();
        let answer = self.core.clock.begin();
        let at = answer.at();
        if let Some(directory) = locked.directory() {
            return self.change_directory(ino, directory, how, at).await;
        }
        match locked.file() {
            Some(file) => self.change_file(file, how, at).await,
            None => Err(StoreError::NotFound),
        }
    }

    async fn change_directory(
        &self,
        ino: Ino,
        mut directory: LockedDir<'_>,
        how: impl FnOnce(&mut InodeState, Time),
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let dentry = directory.place.clone();
        let old = self
            .entry(dentry.parent, &dentry.name)
            .await?
            .ok_or(StoreError::NotFound)?;
        let DentryBody::Own { state, .. } = old.body else {
            return Err(StoreError::Corrupt(
                "a directory whose entry is a hard link".to_owned(),
            ));
        };
        let mut node = directory.node.clone();
        node.attrs = directory.stat(ino).attrs;
        how(&mut node, self.core.clock.wall());
        let row = DirectoryRow {
            mtime: Some((at, node.attrs.mtime)),
            ctime: Some((at, node.attrs.ctime)),
            atime: Some((at, node.attrs.atime)),
            ..DirectoryRow::default()
        };
        let dependencies = Dependencies {
            touches: vec![
                keys::entry(dentry.parent, &dentry.name).bytes(),
                keys::inode(ino).bytes(),
            ],
            within: Vec::from_iter((dentry.parent != Ino(0)).then_some(dentry.parent)),
            ..Dependencies::default()
        };
        let mut txn = self.commit.txn(at, dependencies);
        let body = DentryBody::Own {
            node: node.clone(),
            state,
        };
        txn.put(
            keys::entry(dentry.parent, &dentry.name),
            &DentryRow { body, ..old },
        );
        txn.merge(keys::inode(ino), &InodeRow::Directory(row.clone()));
        self.commit.enqueue(txn)?;
        directory.set_node(node, row);
        Ok(())
    }

    async fn change_file(
        &self,
        mut file: LockedFile<'_>,
        how: impl Fn(&mut InodeState, Time),
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut live = InodeState {
            attrs: file.attrs.clone(),
            ..file.node.clone()
        };
        let wall = self.core.clock.wall();
        how(&mut live, wall);
        let mut state = file.state.clone();
        if let EntryState::Provisional(last) = &mut state {
            how(&mut last.node, wall);
        }
        let mut node = live.clone();
        node.attrs.size = file.node.attrs.size;
        let mut txn = self.file_txn(file.ino(), &file, at).await?;
        self.current_rows(
            &mut txn,
            file.ino(),
            &file,
            &node,
            &state,
            file.alive_since(),
        );
        self.commit.enqueue(txn)?;
        file.set_attrs(live.attrs, node, state);
        Ok(())
    }
}
