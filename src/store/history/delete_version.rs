//! Deletion of single versions, and what takes the place of a deleted version.
//!
//! An ended version: the version before it under the same name is extended over the deleted one's time and becomes `Thinned`.
//! Without a predecessor the record stays, without content (`Retained::Nothing`).
//!
//! The current version: its predecessor becomes the current state again. Its content is shared, not continued, because the
//! lineage has later states; the next write begins a new lineage. Without a predecessor the name is removed.
//!
//! Invariant: all rows change in one batch, reference counts included, under the locks of the directory and the inode. Garbage
//! collection deletes the bytes later.

use bytes::Bytes;

use crate::store::commit::txn::Txn;
use crate::store::history::History;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{Dentry, DentryRef};
use crate::store::model::version::{Content, EndOp, Ino, Kind, Retained, Timestamp, VersionId};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, EntryState, InodeRow, InodeState, VersionRecord,
};
use crate::store::schema::tables::{RowTable, VersionTable};
use crate::store::tree::locked::{LockedFile, LockedInode, find};
use crate::store::tree::version_record::VersionRows;

/// Where a version of a name is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
enum VersionTarget {
    /// It is the name's current state.
    Current(Ino),
    /// It is the current state of a hard-linked inode.
    Linked(Ino),
    /// It has ended; its record belongs to this name only.
    Closed(VersionRecord),
    /// It has ended; its record belongs to a hard-linked inode, and so to all its names.
    LinkedClosed(VersionRecord),
}

impl VersionTarget {
    /// Returns the inode whose rows the deletion changes; `None` if only the name's own record changes.
    fn ino(&self) -> Option<Ino> {
        match self {
            Self::Current(ino) | Self::Linked(ino) => Some(*ino),
            Self::LinkedClosed(closed) => Some(closed.ino),
            Self::Closed(_) => None,
        }
    }

    /// Returns the version's inode, and when it ended.
    fn span(&self) -> (Ino, Option<Timestamp>) {
        match self {
            Self::Current(ino) | Self::Linked(ino) => (*ino, None),
            Self::LinkedClosed(closed) | Self::Closed(closed) => (closed.ino, Some(closed.end)),
        }
    }
}

impl History {
    /// Deletes a version of a name; the version before it is extended over its time. If the deleted version is the current one,
    /// its predecessor becomes current again; without a predecessor the name is removed. A state of a hard-linked file is
    /// deleted for all its names.
    ///
    /// # Errors
    /// `NotFound` if the name has no such version, `IsDirectory`; `Held` while a hold or a label protects it; `Busy` while the file has changes that are not a version yet,
    /// and for a version that link(2) made of another name's state.
    pub async fn delete_version(
        &self,
        directory: Ino,
        name: &[u8],
        id: VersionId,
    ) -> Result<(), StoreError> {
        let slot = Dentry::new(directory, Bytes::copy_from_slice(name));
        loop {
            let target = self.find_version(&slot, id).await?;
            let wanted = [Some(directory), target.ino()];
            let wanted: Vec<Ino> = wanted.into_iter().flatten().collect();
            // An ended version may be in a removed directory, which has no rows to load: the locks are taken without loading.
            let mut locked = match &target {
                VersionTarget::Closed(_) => self.tree.inodes.lock_all(&wanted).await,
                VersionTarget::LinkedClosed(_) => self.tree.inodes.lock_all(&wanted).await,
                VersionTarget::Current(_) | VersionTarget::Linked(_) => {
                    self.tree.lock_all(&wanted).await?
                }
            };
            if self.find_version(&slot, id).await? != target {
                continue;
            }
            if let VersionTarget::Current(_) | VersionTarget::Linked(_) = &target {
                self.tree.check_not_restored(&wanted).await?;
            }
            let (ino, ended) = target.span();
            self.check_unprotected(DentryRef::new(directory, name), ino, id, ended)
                .await?;
            return match target {
                VersionTarget::Closed(closed) => {
                    self.delete_record(&slot, &VersionRows::Of(slot.clone()), closed)
                        .await
                }
                VersionTarget::LinkedClosed(closed) => {
                    let list = VersionRows::Linked(closed.ino);
                    self.delete_record(&slot, &list, closed).await
                }
                VersionTarget::Current(ino) | VersionTarget::Linked(ino) => {
                    self.delete_current(&mut locked, &slot, ino, id).await
                }
            };
        }
    }
}

impl History {
    async fn find_version(
        &self,
        slot: &Dentry,
        id: VersionId,
    ) -> Result<VersionTarget, StoreError> {
        let entry = self.tree.entry(slot.parent, &slot.name).await?;
        if let Some(DentryRow {
            ino,
            body: DentryBody::Own { node, state },
            ..
        }) = &entry
            && let Some(target) = own_state(*ino, node, state, id)?
        {
            return Ok(target);
        }
        let key = keys::closed(slot.parent, &slot.name, id);
        if let Some(closed) = self.core.index.row(&key).await?
            && let Some(node) = &closed.node
        {
            return match (node.kind, closed.kept) {
                (Kind::Directory, _) => Err(StoreError::IsDirectory),
                (_, Retained::Nothing) => Err(StoreError::NotFound),
                _ => Ok(VersionTarget::Closed(closed)),
            };
        }
        self.find_linked(slot, entry.as_ref(), id).await
    }

    /// Finds the version among those of the hard-linked inodes that the name is or was bound to.
    async fn find_linked(
        &self,
        slot: &Dentry,
        entry: Option<&DentryRow>,
        id: VersionId,
    ) -> Result<VersionTarget, StoreError> {
        let mut bound = Vec::new();
        if let Some(entry) = entry
            && let DentryBody::Linked(stamp) = &entry.body
        {
            bound.push((entry.ino, stamp.id));
        }
        let from = keys::history(slot.parent, &slot.name);
        let rows = self
            .core
            .index
            .scan(from.clone(), keys::after(&from), usize::MAX);
        for (_, value) in rows.await? {
            let closed: VersionRecord = VersionTable::decode(&value)?;
            if closed.node.is_none() && closed.kept != Retained::Nothing {
                bound.push((closed.ino, closed.stamp.id));
            }
        }
        for (ino, _) in &bound {
            let row: Option<InodeRow> = self.core.index.row(&keys::inode(*ino)).await?;
            if let Some(InodeRow::Linked(row)) = row
                && own_state(*ino, &row.node, &row.state, id)?.is_some()
            {
                return Ok(VersionTarget::Linked(*ino));
            }
            let key = keys::linked_closed(*ino, id);
            let closed: Option<VersionRecord> = self.core.index.row(&key).await?;
            if let Some(closed) = closed.filter(|closed| closed.kept != Retained::Nothing) {
                return Ok(VersionTarget::LinkedClosed(closed));
            }
        }
        if bound.iter().any(|(_, stamp)| *stamp == id) {
            return Err(StoreError::Busy(
                "link(2) made this version of another name's state: delete it there".to_owned(),
            ));
        }
        Err(StoreError::NotFound)
    }

    /// Returns the version before another in a list, if its end is the beginning of that one.
    async fn older(
        &self,
        list: &VersionRows,
        id: VersionId,
    ) -> Result<Option<VersionRecord>, StoreError> {
        let behind = [&list.key(id)[..], &[0]].concat();
        let Some((_, value)) = self.core.index.first(behind.into(), list.end()).await? else {
            return Ok(None);
        };
        let closed = list.decode(&value)?;
        Ok(Some(closed).filter(|older| older.end == id.timestamp && older.node.is_some()))
    }

    fn delete_version_txn(&self, slot: &Dentry, list: &VersionRows) -> Txn {
        let mut dependencies = Dependencies {
            touches: vec![keys::entry(slot.parent, &slot.name).bytes()],
            ..Dependencies::default()
        };
        if let VersionRows::Linked(ino) = list {
            dependencies.touches.push(keys::inode(*ino).bytes());
        }
        self.commit.txn(self.core.clock.begin().at(), dependencies)
    }

    async fn delete_record(
        &self,
        slot: &Dentry,
        list: &VersionRows,
        closed: VersionRecord,
    ) -> Result<(), StoreError> {
        let mut txn = self.delete_version_txn(slot, list);
        let older = self.older(list, closed.stamp.id).await?;
        delete_rows(&mut txn, list, closed, older);
        self.commit.enqueue(txn)?;
        Ok(())
    }

    async fn delete_current(
        &self,
        locked: &mut [LockedInode],
        slot: &Dentry,
        ino: Ino,
        id: VersionId,
    ) -> Result<(), StoreError> {
        let file = find(locked, ino).and_then(LockedInode::file);
        let file = file.ok_or(StoreError::IsDirectory)?;
        if file.is_dirty() || !file.flushes.is_empty() || file.session.is_some() {
            return Err(being_written());
        }
        let is_linked = matches!(
            file.link_state,
            crate::store::tree::inode::LinkState::HardLinked { .. }
        );
        let list = match is_linked {
            true => VersionRows::Linked(ino),
            false => VersionRows::Of(slot.clone()),
        };
        let older = self.older(&list, id).await?;
        match older.filter(|older| older.kept != Retained::Nothing) {
            Some(VersionRecord {
                node: Some(node), ..
            }) if node.kind == Kind::Directory => Err(StoreError::IsDirectory),
            Some(older) => self.revive(file, slot, &list, older).await,
            None => self.remove_with(locked, slot, ino, id).await,
        }
    }

    /// Makes a predecessor the current state again.
    async fn revive(
        &self,
        mut file: LockedFile<'_>,
        slot: &Dentry,
        list: &VersionRows,
        older: VersionRecord,
    ) -> Result<(), StoreError> {
        let (answer, ino) = (self.core.clock.begin(), file.ino());
        let mut txn = self.tree.file_txn(ino, &file, answer.at()).await?;
        txn.touch(keys::entry(slot.parent, &slot.name));
        txn.unreference_content(&file.node.content);
        list.delete(&mut txn, &older);
        let Some(mut node) = older.node else {
            return Err(StoreError::Corrupt(
                "H V: a version without a node".to_owned(),
            ));
        };
        // The reference count does not change: the current row references the content instead of the version record.
        if let Some(content) = node.content.reference() {
            node.content = Content::Shared(content);
            txn.touch(keys::count(content));
        }
        node.attrs.ctime = txn.time;
        txn.usage.bytes = node.grown_from(&file.node);
        let state = EntryState::Version(older.stamp);
        self.tree
            .current_rows(&mut txn, ino, &file, &node, &state, file.alive_since());
        self.commit.enqueue(txn)?;
        file.reset(node, state);
        Ok(())
    }

    /// Removes a name together with its only version.
    async fn remove_with(
        &self,
        locked: &mut [LockedInode],
        slot: &Dentry,
        ino: Ino,
        id: VersionId,
    ) -> Result<(), StoreError> {
        let entry = self.tree.entry(slot.parent, &slot.name).await?;
        if let Some(entry) = entry.filter(|entry| entry.ino == ino) {
            self.tree.unlink_locked(locked, slot, entry).await?;
        }
        for list in [VersionRows::Of(slot.clone()), VersionRows::Linked(ino)] {
            let value = self.core.index.get(&list.key(id)).await?;
            let closed = value.map(|value| list.decode(&value)).transpose()?;
            if let Some(closed) = closed.filter(|closed| closed.node.is_some()) {
                return self.delete_record(slot, &list, closed).await;
            }
        }
        // Other names of the inode still show the version: it is deleted from this name's history only.
        let from = keys::history(slot.parent, &slot.name);
        let rows = self
            .core
            .index
            .scan(from.clone(), keys::after(&from), usize::MAX);
        let list = VersionRows::Of(slot.clone());
        let mut txn = self.delete_version_txn(slot, &list);
        for (_, value) in rows.await? {
            let closed: VersionRecord = VersionTable::decode(&value)?;
            if closed.node.is_none() && closed.ino == ino && closed.end_op != EndOp::Transient {
                let kept = Retained::Nothing;
                list.put(&mut txn, &VersionRecord { kept, ..closed });
            }
        }
        self.commit.enqueue(txn)?;
        Ok(())
    }
}

/// Writes the rows that delete an ended version; `older` is the version before it.
fn delete_rows(
    txn: &mut Txn,
    list: &VersionRows,
    closed: VersionRecord,
    older: Option<VersionRecord>,
) {
    let Some(node) = closed.node.clone() else {
        return;
    };
    txn.unreference_content(&node.content);
    let Some(older) = older else {
        let node = InodeState {
            content: Content::Empty,
            xattrs: Vec::new(),
            allocated: 0,
            ..node
        };
        let name_only = VersionRecord {
            node: Some(node),
            kept: Retained::Nothing,
            ..closed.clone()
        };
        list.shrink(txn, &closed, &name_only);
        return;
    };
    list.delete(txn, &closed);
    let kept = match older.kept {
        Retained::Nothing => Retained::Nothing,
        Retained::Whole | Retained::Thinned => Retained::Thinned,
    };
    let own_end = Some(older.own_end());
    let thinned = VersionRecord {
        end: closed.end,
        end_op: closed.end_op,
        moved_to: closed.moved_to,
        kept,
        own_end,
        ..older
    };
    list.put(txn, &thinned);
}

/// Returns the current state if it is the version; `Busy` if the version is the last one before an unsaved state.
fn own_state(
    ino: Ino,
    node: &InodeState,
    state: &EntryState,
    id: VersionId,
) -> Result<Option<VersionTarget>, StoreError> {
    if state.shown_stamp().is_none_or(|stamp| stamp.id != id) {
        return Ok(None);
    }
    match state.hidden() {
        Some(_) => Err(being_written()),
        None if node.kind == Kind::Directory => Err(StoreError::IsDirectory),
        None => Ok(Some(VersionTarget::Current(ino))),
    }
}

fn being_written() -> StoreError {
    StoreError::Busy("the file is being written; close it first".to_owned())
}
