//! Refuses changes at and below a directory that is being restored in steps.
//!
//! A call that changes something takes its inode locks and then asks [`Tree::check_not_restored`]. So after the directory is set and
//! every inode in the cache was locked once ([`Tree::begin_restored`]), each such call is either queued or will be refused.

use std::collections::BTreeSet;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Ino, ROOT};
use crate::store::schema::keys;
use crate::store::schema::rows::{InodeRow, LocationRow};
use crate::store::schema::tables::{BindingTable, RowTable};
use crate::store::tree::Tree;
use crate::store::tree::locked::LockedInode;

impl Tree {
    /// Refuses changes at and below a directory, and waits for the calls that change something already.
    pub(crate) async fn begin_restored(&self, directory: Ino) {
        self.under_restore.set(directory);
        for inode in self.inodes.used() {
            drop(inode.lock().await);
        }
    }

    /// Fails if one of these inodes is at or below a directory that is being restored in steps. The caller has locked them.
    ///
    /// # Errors
    /// `Busy`; errors of the index.
    pub(crate) async fn check_not_restored(&self, inodes: &[Ino]) -> Result<(), StoreError> {
        let Some(directory) = self.under_restore.directory() else {
            return Ok(());
        };
        for ino in inodes {
            if self.is_at_or_below(*ino, directory).await? {
                return Err(StoreError::Busy(
                    "its directory is being restored; nothing in it changes until that is done"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Locks an inode that the call changes.
    ///
    /// # Errors
    /// As [`Tree::lock`]; `Busy` while its directory is being restored in steps.
    pub(crate) async fn lock_to_change(&self, ino: Ino) -> Result<LockedInode, StoreError> {
        let locked = self.lock(ino).await?;
        self.check_not_restored(&[ino]).await?;
        Ok(locked)
    }

    /// Fails if a file cannot be opened for writing now, since its directory is being restored.
    ///
    /// # Errors
    /// `Busy`; errors of the index.
    pub async fn check_writable(&self, ino: Ino) -> Result<(), StoreError> {
        self.check_not_restored(&[ino]).await
    }

    /// Tells whether an inode is a directory, or is below it under one of its names.
    pub(crate) async fn is_at_or_below(
        &self,
        ino: Ino,
        directory: Ino,
    ) -> Result<bool, StoreError> {
        let rows = self.core.index.snapshot();
        let (mut open, mut seen) = (vec![ino], BTreeSet::new());
        while let Some(at) = open.pop() {
            if at == directory {
                return Ok(true);
            }
            if at == ROOT || at == Ino(0) || !seen.insert(at) {
                continue;
            }
            match rows.row(&keys::inode(at)).await? {
                Some(InodeRow::Directory(row)) => {
                    open.extend(row.place.map(|(_, place)| place.parent));
                }
                Some(InodeRow::Linked(_)) => open.extend(directories_of(&rows, at).await?),
                None => {
                    let place: Option<LocationRow> = rows.row(&keys::place(at)).await?;
                    open.extend(place.map(|place| place.directory));
                }
            }
        }
        Ok(false)
    }
}

/// Returns the directories in which a hard-linked inode has names.
async fn directories_of(rows: &Snapshot, ino: Ino) -> Result<BTreeSet<Ino>, StoreError> {
    let from = keys::bindings(ino);
    let end = keys::after(&from);
    let mut directories = BTreeSet::new();
    for (key, value) in rows.scan(from, end, usize::MAX).await? {
        if BindingTable::decode(&value)?.end.is_none() {
            directories.extend(keys::bound_name(&key).map(|(_, name)| name.parent));
        }
    }
    Ok(directories)
}
