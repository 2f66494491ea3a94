//! Undelete: restores a removed name with its last content, under the same name or another one. No byte is copied.
//!
//! Steps: read the last state of the name; for a directory, collect its last tree (`restore_tree.rs`), in early batches if it is
//! large; lock both directories and the target of the new name; read everything again; replace the target; in one batch bind the
//! new name, make the rest of the tree live, and mark the old name's version record as undeleted, which removes the name from
//! the list of removed names.
//!
//! Invariant: a crash before that batch leaves at most a pending tree, which the next mount deletes; after the batch the
//! complete tree is live.

use crate::store::commit::txn::Txn;
use crate::store::history::History;
use crate::store::history::deleted::RemovedRow;
use crate::store::history::restore_tree::{RestoreAs, RestoreItem, RestoreTree};
use crate::store::index::timestamps::Reservation;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{Dentry, DentryRef};
use crate::store::model::version::{
    Author, EndOp, Ino, Kind, Op, Origin, Stat, VersionId, XattrPresence,
};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{DentryRow, DirectoryRow, OlderVersions, VersionRecord};
use crate::store::tree::locked::{LockedInode, find};
use crate::store::tree::rename::{RenameEffects, RenameMode, Renamed, is_directory};
use crate::store::tree::review::review;
use crate::store::tree::version_record::VersionRows;
use std::sync::atomic::Ordering;

/// What is restored, and under which name.
struct UndeleteTarget<'a> {
    from: Dentry,
    to: Dentry,
    /// The version record that was read before the locks were taken.
    version: VersionId,
    mode: RenameMode,
    author: &'a Author,
    /// The tree, for a directory.
    tree: Option<RestoreTree>,
}

impl History {
    /// Restores the last state of a removed name as `to`; a directory with the tree it had just before it was emptied. The new
    /// name's list of versions continues the old one's. Files get new inode numbers; a directory keeps its number unless a live
    /// inode has it.
    ///
    /// # Errors
    /// `NotFound` when the name was not removed or is live again; those of `Tree::rename` for the target of the new name;
    /// `Invalid` for an exchange; `Stale` when the name was created and removed again during the call.
    pub async fn undelete(
        &self,
        from: DentryRef<'_>,
        to: DentryRef<'_>,
        mode: RenameMode,
        author: &Author,
    ) -> Result<Renamed, StoreError> {
        crate::store::tree::create::check_entry_name(to.name)?;
        if mode == RenameMode::Exchange {
            return Err(StoreError::Invalid(
                "undelete cannot exchange two names".to_owned(),
            ));
        }
        let history = self;
        let gone = history.view().gone(from.parent, from.name).await?;
        let gone = gone.ok_or(StoreError::NotFound)?;
        let kind = gone.version.node.kind;
        if kind == Kind::Directory {
            history.check_no_steps()?;
        }
        let _turn = match kind {
            Kind::Directory => Some(history.restore_lock.turn.lock().await),
            _ => None,
        };
        if history.tree.stat(to.parent).await?.kind != Kind::Directory {
            return Err(StoreError::NotDirectory);
        }
        let target = history.tree.entry(to.parent, to.name).await?;
        history.check_target(kind, target.as_ref(), mode).await?;
        let tree = if kind == Kind::Directory {
            let (top, max) = (gone.version.ino, &history.restore_lock.entries_max);
            history.sweep_left(top).await?;
            let gathered = self.gather_tree(top, gone.at, max.load(Ordering::Relaxed), author);
            match gathered.await {
                Ok(tree) => Some(tree),
                Err(error) => {
                    history.sweep_left(top).await?;
                    return Err(error);
                }
            }
        } else {
            None
        };
        let mut back = UndeleteTarget {
            from: from.to_dentry(),
            to: to.to_dentry(),
            version: gone.closed.stamp.id,
            mode,
            author,
            tree,
        };
        let bound = history.restore_name(&mut back).await;
        let Some(tree) = back.tree else { return bound };
        if bound.is_err() {
            if tree.ahead.is_some() {
                history.sweep_tree(tree.top().ino).await?;
            }
            return bound;
        }
        for directory in &tree.directories {
            history.tree.inodes.revive(*directory).await;
        }
        let Renamed { moved, replaced } = bound?;
        let moved = history.tree.stat(moved.ino).await?;
        Ok(Renamed { moved, replaced })
    }
}

impl History {
    /// Checks that an inode of `kind` may replace `target`.
    async fn check_target(
        &self,
        kind: Kind,
        target: Option<&DentryRow>,
        mode: RenameMode,
    ) -> Result<(), StoreError> {
        let Some(target) = target else { return Ok(()) };
        if mode == RenameMode::NoReplace {
            return Err(StoreError::Exists);
        }
        match (kind == Kind::Directory, is_directory(target)) {
            (true, false) => Err(StoreError::NotDirectory),
            (false, true) => Err(StoreError::IsDirectory),
            (true, true) => self.tree.check_empty(target.ino).await,
            (false, false) => Ok(()),
        }
    }

    async fn restore_name(&self, back: &mut UndeleteTarget<'_>) -> Result<Renamed, StoreError> {
        loop {
            let target = self.tree.entry(back.to.parent, &back.to.name).await?;
            let directories = back.tree.is_some() || target.as_ref().is_some_and(is_directory);
            let _gate = if directories {
                Some(self.tree.renames.lock().await)
            } else {
                None
            };
            let mut wanted = vec![back.from.parent, back.to.parent];
            wanted.extend(target.as_ref().map(|target| target.ino));
            let mut locked = self.tree.lock_all(&wanted).await?;
            self.tree.check_not_restored(&wanted).await?;
            let now = self.tree.entry(back.to.parent, &back.to.name).await?;
            if now.as_ref().map(|now| now.ino) == target.as_ref().map(|target| target.ino) {
                return self.bind_locked(&mut locked, back).await;
            }
        }
    }

    /// Reads the removed name again, under the locks.
    async fn gone_still(
        &self,
        locked: &mut [LockedInode],
        back: &UndeleteTarget<'_>,
    ) -> Result<RemovedRow, StoreError> {
        for directory in [back.from.parent, back.to.parent] {
            find(locked, directory)
                .and_then(LockedInode::directory)
                .ok_or(StoreError::NotDirectory)?;
        }
        let gone = self.view().gone(back.from.parent, &back.from.name).await?;
        let gone = gone.ok_or(StoreError::NotFound)?;
        if gone.closed.stamp.id != back.version {
            // The name was created and removed again since the first read.
            return Err(StoreError::Stale);
        }
        Ok(gone)
    }

    async fn bind_locked(
        &self,
        locked: &mut [LockedInode],
        back: &mut UndeleteTarget<'_>,
    ) -> Result<Renamed, StoreError> {
        let gone = self.gone_still(locked, back).await?;
        let target = self.tree.entry(back.to.parent, &back.to.name).await?;
        self.check_target(gone.version.node.kind, target.as_ref(), back.mode)
            .await?;
        if let Some(found) = target.as_ref().and_then(|target| find(locked, target.ino)) {
            self.tree.save_flushes(found).await?;
        }
        let target = self.tree.entry(back.to.parent, &back.to.name).await?;
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(
            answer.at(),
            self.return_dependencies(back, target.as_ref()).await?,
        );
        let closed = VersionRecord {
            end_op: EndOp::Undeleted,
            ..gone.closed
        };
        VersionRows::Of(back.from.clone()).put(&mut txn, &closed);
        review(&mut txn, &back.from, OlderVersions::Held);
        review(&mut txn, &back.to, OlderVersions::Held);
        let mut after = Vec::new();
        if let Some(target) = &target {
            self.tree
                .replace_target(&mut txn, locked, &back.to, target, false, &mut after)?;
        }
        let item = RestoreItem {
            slot: back.to.clone(),
            origin: None,
            entry: gone.version.into_entry(),
            what: match &back.tree {
                Some(tree) => RestoreAs::Directory {
                    number: tree.top(),
                    names: tree.names,
                    since: tree.ahead.as_ref().map(Reservation::at),
                },
                None => RestoreAs::Leaf,
            },
        };
        let ino = self.return_rows(&mut txn, back, &item, target.as_ref());
        let change = DirectoryRow {
            entries: i64::from(target.is_none()),
            directories: i64::from(back.tree.is_some())
                - i64::from(target.as_ref().is_some_and(is_directory)),
            removal_burst: Some((txn.timestamp, None)),
            ..DirectoryRow::default()
        };
        let change = self.tree.touch(&mut txn, back.to.parent, change);
        let time = txn.time;
        self.commit.enqueue(txn)?;
        if let Some(mut directory) = find(locked, back.to.parent).and_then(LockedInode::directory) {
            directory.merge(change);
        }
        let replaced = after
            .into_iter()
            .find_map(|change: RenameEffects| self.tree.apply(locked, change, time));
        let moved = match back.tree {
            // The directory's inode is loaded after the caller has released the locks.
            Some(_) => returned(ino, &item),
            None => self.tree.stat(ino).await?,
        };
        Ok(Renamed { moved, replaced })
    }

    /// Returns the dependencies of the operation.
    async fn return_dependencies(
        &self,
        back: &UndeleteTarget<'_>,
        target: Option<&DentryRow>,
    ) -> Result<Dependencies, StoreError> {
        let other = target.map_or(back.to.parent, |target| target.ino);
        let mut dependencies = self
            .tree
            .order_in(back.to.parent, &back.to.name, other)
            .await?;
        dependencies
            .touches
            .push(keys::entry(back.from.parent, &back.from.name).bytes());
        if let Some(tree) = &back.tree {
            let top = tree.top().ino;
            dependencies.touches.push(keys::pending(top).bytes());
            // Later operations on inodes of the tree depend on this operation, and so do waits for such an inode to be durable.
            let all = tree.directories.iter().chain(&tree.sent);
            dependencies
                .touches
                .extend(all.map(|ino| keys::inode(*ino).bytes()));
            dependencies.makes.extend(&tree.directories);
        }
        Ok(dependencies)
    }

    /// Writes the rows of the restored name and of all entries below it that are in no early batch.
    fn return_rows(
        &self,
        txn: &mut Txn,
        back: &mut UndeleteTarget<'_>,
        item: &RestoreItem,
        target: Option<&DentryRow>,
    ) -> Ino {
        let at = txn.timestamp;
        let origin = Origin {
            directory: back.from.parent,
            name: back.from.name.clone(),
        };
        let stamp = self.tree.stamp(at, Op::Undelete, back.author, Some(origin));
        let alive_since = target.map_or(at, |target| target.alive_since.min(at));
        let ino = self.back_rows(txn, item, stamp, alive_since);
        if let Some(tree) = &mut back.tree {
            for item in tree.items.drain(..) {
                let _number = self.item_rows(txn, &item, back.author);
            }
            if tree.ahead.is_some() {
                txn.delete(keys::pending(tree.top().ino));
            }
        }
        ino
    }
}

/// Returns the stat of a restored directory before its inode is loaded.
fn returned(ino: Ino, item: &RestoreItem) -> Stat {
    Stat {
        ino,
        generation: 0,
        kind: Kind::Directory,
        attrs: item.entry.attrs.clone(),
        nlink: 2,
        blocks: 0,
        content_stamp: 0,
        xattrs: XattrPresence::Possible,
    }
}
