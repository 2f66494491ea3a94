//! Removal of names: unlink, rmdir, and the deletion of unlinked inodes that no process uses any more.
//!
//! Invariant: a removed name keeps its versions in the history. An inode that is still open becomes an orphan (row `C O`), which
//! is deleted after its last handle is released.

use crate::store::commit::txn::Txn;
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{Dentry, DentryRef};
use crate::store::model::version::{
    Author, Displaced, EndOp, Ino, Kind, Stat, Time, Timestamp, XattrPresence,
};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryLocation, DirectoryRow, EntryState, LastVersion,
};
use crate::store::tree::Tree;
use crate::store::tree::inode::LinkState;
use crate::store::tree::locked::{LockedInode, find};
use crate::store::tree::row_writer::{NameRemoval, Unbinding, VersionEnd, goes_on, removal_burst};

impl Tree {
    /// Removes a name that does not lead to a directory. Its versions stay in the history; an open inode stays usable.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`.
    pub async fn unlink(
        &self,
        parent: Ino,
        name: &[u8],
        _author: &Author,
    ) -> Result<Displaced, StoreError> {
        self.room_for_names().await;
        loop {
            let entry = self
                .entry(parent, name)
                .await?
                .ok_or(StoreError::NotFound)?;
            let mut locked = self.lock_all(&[parent, entry.ino]).await?;
            self.check_not_restored(&[parent]).await?;
            let now = self.entry(parent, name).await?;
            if let Some(now) = now.filter(|now| now.ino == entry.ino) {
                let dentry = DentryRef::new(parent, name).to_dentry();
                return self.unlink_locked(&mut locked, &dentry, now).await;
            }
        }
    }

    /// Removes an empty directory. Its past contents stay in the history.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`.
    pub async fn rmdir(
        &self,
        parent: Ino,
        name: &[u8],
        _author: &Author,
    ) -> Result<Displaced, StoreError> {
        self.room_for_names().await;
        let _gate = self.renames.lock().await;
        loop {
            let entry = self
                .entry(parent, name)
                .await?
                .ok_or(StoreError::NotFound)?;
            let is_directory =
                matches!(&entry.body, DentryBody::Own { node, .. } if node.kind == Kind::Directory);
            if !is_directory {
                return Err(StoreError::NotDirectory);
            }
            let mut locked = self.lock_all(&[parent, entry.ino]).await?;
            self.check_not_restored(&[parent, entry.ino]).await?;
            let now = self.entry(parent, name).await?;
            if let Some(now) = now.filter(|now| now.ino == entry.ino) {
                let dentry = DentryRef::new(parent, name).to_dentry();
                return self.rmdir_locked(&mut locked, &dentry, &now).await;
            }
        }
    }
}

impl Tree {
    /// Removes a name of a locked inode from its locked directory. `entry` was read under these locks.
    pub(crate) async fn unlink_locked(
        &self,
        locked: &mut [LockedInode],
        dentry: &Dentry,
        mut entry: DentryRow,
    ) -> Result<Displaced, StoreError> {
        let (parent, ino) = (dentry.parent, entry.ino);
        let target = find(locked, ino).ok_or(StoreError::NotFound)?;
        let file = target.as_file().ok_or(StoreError::IsDirectory)?;
        if !file.flushes.is_empty() {
            self.save_flushes(target).await?;
            // The save has written the entry anew.
            let saved = self.entry(parent, &dentry.name).await?;
            entry = saved.ok_or(StoreError::NotFound)?;
        }
        let answer = self.core.clock.begin();
        let at = answer.at();
        let dependencies = self.order_in(parent, &dentry.name, ino).await?;
        let mut txn = self.commit.txn(at, dependencies);
        txn.delete(keys::entry(parent, &dentry.name));
        let file = target.as_file().ok_or(StoreError::IsDirectory)?;
        let removal = NameRemoval {
            dentry,
            entry: &entry,
            cause: Unbinding::Removed,
            is_pinned: target.inode.is_pinned(),
        };
        let link_state = self.detach(&mut txn, ino, file, removal);
        let above = find(locked, parent).ok_or(StoreError::NotFound)?;
        let above = above.as_directory().ok_or(StoreError::NotDirectory)?;
        let change = DirectoryRow {
            entries: -1,
            removal_burst: Some(removal_burst(parent, above, at, None)),
            ..DirectoryRow::default()
        };
        let change = self.touch(&mut txn, parent, change);
        let time = txn.time;
        self.commit.enqueue(txn)?;
        if let Some(mut directory) = find(locked, parent).and_then(LockedInode::directory) {
            directory.merge(change);
        }
        let target = find(locked, ino).ok_or(StoreError::NotFound)?;
        Ok(self.moved_out(target, link_state, time))
    }

    /// Updates the cached inode after one of its names was removed, and returns its last stat.
    pub(crate) fn moved_out(
        &self,
        target: &mut LockedInode,
        link_state: LinkState,
        time: Time,
    ) -> Displaced {
        let ino = target.inode.ino;
        let pinned = target.inode.is_pinned();
        let Some(mut file) = target.file() else {
            let stat = Stat {
                ino,
                generation: 0,
                kind: Kind::Directory,
                attrs: crate::store::model::version::Attrs::default(),
                nlink: 0,
                blocks: 0,
                content_stamp: 0,
                xattrs: XattrPresence::Possible,
            };
            let xattrs = Vec::new();
            return Displaced { stat, xattrs };
        };
        file.lose_name(link_state, time);
        let (stat, xattrs) = (file.stat(ino), file.node.xattrs.clone());
        if file.link_state == LinkState::Unlinked {
            self.inodes.release_dirty(ino);
            if !pinned {
                target.evict();
            }
        }
        Displaced { stat, xattrs }
    }

    /// Deletes the orphan row of an unlinked inode, after its last user has released it.
    pub(crate) async fn reap(&self, ino: Ino) -> Result<(), StoreError> {
        let Ok(mut locked) = self.lock(ino).await else {
            return Ok(());
        };
        let is_orphan = locked
            .as_file()
            .is_some_and(|file| file.link_state == LinkState::Unlinked);
        if !is_orphan || locked.inode.is_pinned() {
            return Ok(());
        }
        self.drop_orphan(ino).await?;
        locked.evict();
        Ok(())
    }

    /// Enqueues the deletion of an unlinked inode's orphan row.
    pub(crate) async fn drop_orphan(&self, ino: Ino) -> Result<(), StoreError> {
        let Some(orphan) = self.core.index.row(&keys::orphan(ino)).await? else {
            return Ok(());
        };
        let answer = self.core.clock.begin();
        let dependencies = Dependencies {
            touches: vec![keys::inode(ino).bytes()],
            ..Dependencies::default()
        };
        let mut txn = self.commit.txn(answer.at(), dependencies);
        txn.delete(keys::orphan(ino));
        txn.unreference_content(&orphan.node.content);
        self.commit.enqueue(txn)?;
        Ok(())
    }

    async fn rmdir_locked(
        &self,
        locked: &mut [LockedInode],
        dentry: &Dentry,
        entry: &DentryRow,
    ) -> Result<Displaced, StoreError> {
        let (parent, ino) = (dentry.parent, entry.ino);
        let directory = find(locked, ino)
            .and_then(LockedInode::directory)
            .ok_or(StoreError::NotDirectory)?;
        let (mut stat, xattrs) = (directory.stat(ino), directory.node.xattrs.clone());
        self.check_empty(ino).await?;
        let answer = self.core.clock.begin();
        let at = answer.at();
        let dependencies = self.order_in(parent, &dentry.name, ino).await?;
        let mut txn = self.commit.txn(at, dependencies);
        txn.delete(keys::entry(parent, &dentry.name));
        let run = self.remove_directory(&mut txn, locked, dentry, entry, EndOp::Deleted);
        let above = find(locked, parent).ok_or(StoreError::NotFound)?;
        let above = above.as_directory().ok_or(StoreError::NotDirectory)?;
        let change = DirectoryRow {
            entries: -1,
            directories: -1,
            removal_burst: Some(removal_burst(parent, above, at, run)),
            ..DirectoryRow::default()
        };
        let change = self.touch(&mut txn, parent, change);
        (stat.nlink, stat.attrs.ctime) = (0, txn.time);
        self.commit.enqueue(txn)?;
        if let Some(mut directory) = find(locked, parent).and_then(LockedInode::directory) {
            directory.merge(change);
        }
        if let Some(removed) = find(locked, ino) {
            removed.evict();
        }
        Ok(Displaced { stat, xattrs })
    }

    /// Fails with `NotEmpty` if a directory has entries.
    pub(crate) async fn check_empty(&self, directory: Ino) -> Result<(), StoreError> {
        let from = keys::entries(directory);
        let end = keys::after(&from);
        match self.core.index.first(from, end).await? {
            Some(_) => Err(StoreError::NotEmpty),
            None => Ok(()),
        }
    }

    /// Writes the rows of a directory's removal. Returns where the directory's removal burst began, if the burst still goes on.
    pub(crate) fn remove_directory(
        &self,
        txn: &mut Txn,
        locked: &mut [LockedInode],
        dentry: &Dentry,
        entry: &DentryRow,
        end_op: EndOp,
    ) -> Option<Timestamp> {
        let (at, ino) = (txn.timestamp, entry.ino);
        txn.dependencies.removes.push(ino);
        txn.usage.files -= 1;
        let DentryBody::Own {
            state: EntryState::Version(stamp),
            ..
        } = &entry.body
        else {
            return None;
        };
        let directory = find(locked, ino).and_then(LockedInode::directory)?;
        let run = match &directory.row.removal_burst {
            Some((_, Some(run))) => Some(**run),
            _ => None,
        };
        let mut node = directory.node_now(ino);
        // History shows the mtime from before the removal burst: the removals that emptied the directory belong to its deletion.
        node.attrs.mtime = run.map_or(node.attrs.mtime, |run| run.mtime);
        let last = LastVersion {
            ino,
            node,
            stamp: stamp.clone(),
            alive_since: entry.alive_since,
        };
        self.close(txn, dentry, &last, VersionEnd::new(at, end_op));
        if end_op == EndOp::Deleted {
            interval_tree::add_removed(
                &mut txn.rows,
                dentry.parent,
                &dentry.name,
                entry.alive_since..at,
            );
        }
        txn.delete(keys::inode(ino));
        let since = directory.row.place.as_ref().map_or(at, |(since, _)| *since);
        let directory_location = DirectoryLocation {
            parent: dentry.parent,
            name: dentry.name.clone(),
            end: at,
            removal_burst: Some(run.map_or(at, |run| run.first)),
            generation: directory.row.generation,
        };
        txn.put(keys::directory_location(ino, since), &directory_location);
        run.filter(|run| goes_on(run, at)).map(|run| run.first)
    }
}
