//! Drops versions, and the names of hard-linked inodes that show none of them any more.
//!
//! The version before a dropped one, in the same life of its name, is extended over its time. Names of a hard-linked inode that began
//! with the dropped state, or during it, begin with the next state instead: the past never shows a state under a name that did not have
//! it. Each name is changed by an operation of its own, the state goes last, so that the next run completes what a crash interrupted.

use std::ops::Range;

use bytes::Bytes;

use crate::store::commit::txn::Txn;
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::failpoints::PlantedFault;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{EndOp, Ino, Kind, Op, Retained, Stamp, Timestamp, VersionId};
use crate::store::retention::Retention;
use crate::store::retention::carry_out::Outcome;
use crate::store::retention::drop_progress::OlderRecord;
use crate::store::retention::protection::Protection;
use crate::store::retention::shown::{BoundName, EndedVersion, bound_during};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    BindingRow, DentryBody, DentryRow, DirectoryLocation, Filing, InodeRow, VersionRecord,
};
use crate::store::schema::tables::{DirectoryLocationTable, LinkCountTable, RowKey, RowTable};
use crate::store::tree::version_record::VersionRows;
use crate::sync::lock;

impl Retention {
    /// Drops a version.
    ///
    /// # Errors
    /// Errors of the index; those of the queue.
    pub(super) async fn drop_version(
        &self,
        version: &EndedVersion,
        protection: &Protection,
    ) -> Result<Outcome, StoreError> {
        match &version.list {
            VersionRows::Of(name) => self.drop_record(version, name, protection).await,
            VersionRows::Linked(ino) => self.drop_state(version, *ino, protection).await,
        }
    }

    /// Drops a record of a name. The record before it in the same life is extended over its time; without one, nothing is left of
    /// the time.
    async fn drop_record(
        &self,
        version: &EndedVersion,
        name: &Dentry,
        protection: &Protection,
    ) -> Result<Outcome, StoreError> {
        // A hold is set under the lock of the directory; states of a hard-linked inode change under that of the inode.
        let wanted = match version.record.node {
            Some(_) => vec![name.parent],
            None => vec![name.parent, version.record.ino],
        };
        let _locked = self.tree.inodes.lock_all(&wanted).await;
        if self.is_outdated(protection) || !self.is_unchanged(version).await? {
            return Ok(Outcome::Changed);
        }
        let EndedVersion { list, record } = version;
        let mut txn = self.retention_txn(list);
        let older = self.remove_record(&mut txn, name, record).await?;
        if record.node.is_none() {
            self.file_shown(&mut txn, name, record).await?;
        }
        self.queue(txn)?;
        self.note_dropped(version, older);
        Ok(Outcome::Done)
    }

    /// Files the states of a hard-linked inode as due that the binding of this record showed, once it goes: those that no other name shows, and
    /// those that a rule of time keeps, where the policies of directories may differ: that of this name counts no longer.
    async fn file_shown(
        &self,
        txn: &mut Txn,
        name: &Dentry,
        binding: &VersionRecord,
    ) -> Result<(), StoreError> {
        let (ino, id) = (binding.ino, binding.stamp.id);
        let list = VersionRows::Linked(ino);
        let rows = self.core.index.snapshot();
        let (mut before, is_one) = (binding.own_end(), self.core.directory_policies().is_empty());
        while before > id.timestamp {
            let at = Timestamp(before.0 - 1);
            let Some(mut state) = list.newest_at(&rows, at).await? else {
                break;
            };
            before = state.stamp.id.timestamp;
            let bound = bound_during(&rows, ino, &(before..state.end)).await?;
            let is_this = |bound: &BoundName| bound.name == *name && bound.id == id;
            let by_time = matches!(state.filed, Filing::Due(_) | Filing::Nowhere);
            if bound.iter().all(is_this) || by_time && !is_one {
                txn.touch(keys::inode(ino));
                list.file(txn, &mut state, Filing::Due(binding.own_end()));
            }
        }
        Ok(())
    }

    /// Adds the rows that remove a record of a name. Returns the record before it.
    async fn remove_record(
        &self,
        txn: &mut Txn,
        name: &Dentry,
        record: &VersionRecord,
    ) -> Result<Option<VersionId>, StoreError> {
        let list = VersionRows::Of(name.clone());
        let begins_life =
            record.stamp.op == Op::Create && record.alive_since == record.stamp.id.timestamp;
        let older = match begins_life {
            // A search would pass over the rows of all dropped versions of the name.
            true => None,
            false => self.older(&list, record.stamp.id).await?,
        };
        let failpoints = &self.core.health.failpoints;
        match &record.node {
            Some(_) if failpoints.takes(PlantedFault::StuckCounter) => {}
            Some(node) => txn.unreference_content(&node.content),
            None => txn.delete(keys::binding(record.ino, record.stamp.id, name)),
        }
        list.delete(txn, record);
        if let Some(life) = ended_life(older.as_ref(), record) {
            let rows = self.core.index.snapshot();
            interval_tree::remove(&rows, &mut txn.rows, name.parent, &name.name, life).await?;
        }
        let before = older.as_ref().map(|older| older.stamp.id);
        if let Some(older) = older
            && !failpoints.takes(PlantedFault::NoExtension)
        {
            let end = older_end(record);
            extend(txn, &list, older, end);
        }
        if let Some(location) = self.location(record).await? {
            txn.delete(location);
        }
        Ok(before)
    }

    /// Returns the record before another one in its list, if its end is the beginning of that one.
    async fn older(
        &self,
        list: &VersionRows,
        id: VersionId,
    ) -> Result<Option<VersionRecord>, StoreError> {
        let known = lock(&self.drops).older(list, id.timestamp);
        match known {
            Some(OlderRecord::Nothing) => return Ok(None),
            Some(OlderRecord::Extended(older)) => {
                let value = self.core.index.get(&list.key(older)).await?;
                let record = value.map(|value| list.decode(&value)).transpose()?;
                // No two records of a list are of the same time.
                if let Some(record) = record.filter(|record| record.end == id.timestamp) {
                    return Ok(Some(record));
                }
            }
            None => {}
        }
        let key = list.key(id);
        let behind: Bytes = [&key[..], &[0]].concat().into();
        let found = self.core.index.first(behind, list.end()).await?;
        let older = found.map(|(_, value)| list.decode(&value)).transpose()?;
        Ok(older.filter(|older| older.end == id.timestamp))
    }

    /// Notes which record is before the version that follows a dropped one.
    fn note_dropped(&self, dropped: &EndedVersion, older: Option<VersionId>) {
        let older = older.map_or(OlderRecord::Nothing, OlderRecord::Extended);
        lock(&self.drops).note(&dropped.list, dropped.record.end, older);
    }

    /// Returns the key of the row that says where a directory was during a version of its name; `None` for a file.
    async fn location(
        &self,
        record: &VersionRecord,
    ) -> Result<Option<RowKey<DirectoryLocationTable>>, StoreError> {
        let is_directory = matches!(&record.node, Some(node) if node.kind == Kind::Directory);
        if !is_directory {
            return Ok(None);
        }
        let end = record.own_end();
        let from = keys::directory_location(record.ino, Timestamp(end.0.saturating_sub(1)));
        let until = keys::after(&keys::directory_locations(record.ino));
        let Some((key, value)) = self.core.index.first(from.bytes(), until).await? else {
            return Ok(None);
        };
        let location: DirectoryLocation = DirectoryLocationTable::decode(&value)?;
        match location.end == end {
            true => Ok(Some(RowKey::scanned(key)?)),
            false => Ok(None),
        }
    }
}

/// Hard-linked inodes.
impl Retention {
    /// Drops a state of a hard-linked inode.
    async fn drop_state(
        &self,
        version: &EndedVersion,
        ino: Ino,
        protection: &Protection,
    ) -> Result<Outcome, StoreError> {
        loop {
            let Some(begun) = self.begun_with(version, ino).await? else {
                break;
            };
            match self.cut(version, ino, &begun, protection).await? {
                Outcome::Done => {}
                Outcome::Changed => return Ok(Outcome::Changed),
            }
        }
        let _locked = self.tree.inodes.lock_all(&[ino]).await;
        let is_outdated = self.is_outdated(protection) || !self.is_unchanged(version).await?;
        if is_outdated || self.begun_with(version, ino).await?.is_some() {
            return Ok(Outcome::Changed);
        }
        let EndedVersion { list, record } = version;
        let older = self.older(list, record.stamp.id).await?;
        let mut txn = self.retention_txn(list);
        if let Some(node) = &record.node {
            txn.unreference_content(&node.content);
        }
        list.delete(&mut txn, record);
        let before = older.as_ref().map(|older| older.stamp.id);
        match older {
            Some(older) => extend(&mut txn, list, older, older_end(record)),
            None => self.forget_link_counts(&mut txn, ino, record.end).await?,
        }
        self.queue(txn)?;
        self.note_dropped(version, before);
        Ok(Outcome::Done)
    }

    /// Returns a name that shows the inode from this state on, and no state before it.
    async fn begun_with(
        &self,
        version: &EndedVersion,
        ino: Ino,
    ) -> Result<Option<BoundName>, StoreError> {
        let EndedVersion { list, record } = version;
        let start = record.stamp.id.timestamp;
        let has_older = self.older(list, record.stamp.id).await?.is_some();
        let rows = self.core.index.snapshot();
        let bound = bound_during(&rows, ino, &(start..record.end)).await?;
        let shows_older = |name: &BoundName| has_older && name.id.timestamp < start;
        Ok(bound.into_iter().find(|name| !shows_older(name)))
    }

    /// Lets a name begin with the state after this one; a name that shows no other state of the inode goes.
    async fn cut(
        &self,
        version: &EndedVersion,
        ino: Ino,
        begun: &BoundName,
        protection: &Protection,
    ) -> Result<Outcome, StoreError> {
        let BoundName { name, id, end } = begun;
        let _locked = self.tree.inodes.lock_all(&[ino, name.parent]).await;
        if self.is_outdated(protection) || !self.is_unchanged(version).await? {
            return Ok(Outcome::Changed);
        }
        let list = VersionRows::Of(name.clone());
        let mut txn = self.retention_txn(&list);
        txn.touch(keys::inode(ino));
        let next = match begun.goes_on_after(version.record.end) {
            true => self.state_from(ino, version.record.end).await?,
            false => None,
        };
        let key = keys::closed(name.parent, &name.name, *id);
        let record: Option<VersionRecord> = self.core.index.row(&key).await?;
        match (record, next) {
            (Some(record), None) if end.is_some() => {
                let _older = self.remove_record(&mut txn, name, &record).await?;
            }
            (Some(record), Some(next)) if end.is_some() => {
                self.extend_before(&mut txn, &list, *id, &next).await?;
                list.delete(&mut txn, &record);
                let filed = match &record.filed {
                    // The shorter time may show at no grid time any more: the run decides anew.
                    Filing::Due(_) => Filing::Due(record.own_end()),
                    filed => filed.clone(),
                };
                let mut later = VersionRecord {
                    stamp: next,
                    filed: Filing::Nowhere,
                    ..record
                };
                list.file(&mut txn, &mut later, filed);
                self.rebind(&mut txn, ino, begun, later.stamp.id);
            }
            (None, Some(next)) if end.is_none() => {
                let key = keys::entry(name.parent, &name.name);
                let entry: Option<DentryRow> = self.core.index.row(&key).await?;
                let Some(entry) = entry.filter(|entry| leads_by(entry, ino, *id)) else {
                    return Ok(Outcome::Changed);
                };
                self.extend_before(&mut txn, &list, *id, &next).await?;
                let order = self.tree.order_in(name.parent, &name.name, ino).await?;
                txn.dependencies.touches.extend(order.touches);
                txn.dependencies.within = order.within;
                txn.dependencies.below = order.below;
                self.rebind(&mut txn, ino, begun, next.id);
                let body = DentryBody::Linked(next);
                txn.put(key, &DentryRow { body, ..entry });
            }
            _ => return Ok(Outcome::Changed),
        }
        self.queue(txn)?;
        Ok(Outcome::Done)
    }

    /// Moves the beginning of a name's binding.
    fn rebind(&self, txn: &mut Txn, ino: Ino, begun: &BoundName, id: VersionId) {
        txn.delete(keys::binding(ino, begun.id, &begun.name));
        let row = BindingRow { end: begun.end };
        txn.put(keys::binding(ino, id, &begun.name), &row);
    }

    /// Extends the record before another one, which will begin with `next`.
    async fn extend_before(
        &self,
        txn: &mut Txn,
        list: &VersionRows,
        id: VersionId,
        next: &Stamp,
    ) -> Result<(), StoreError> {
        if let Some(older) = self.older(list, id).await? {
            let to = ExtendedEnd {
                end: next.id.timestamp,
                op: older.end_op,
                moved_to: older.moved_to.clone(),
            };
            extend(txn, list, older, to);
        }
        Ok(())
    }

    /// Returns the stamp of the state of a hard-linked inode that begins at a time; `None` if none does.
    async fn state_from(&self, ino: Ino, at: Timestamp) -> Result<Option<Stamp>, StoreError> {
        let row = self.core.index.row(&keys::inode(ino)).await?;
        if let Some(InodeRow::Linked(row)) = row
            && let Some(stamp) = row.state.shown_stamp()
            && stamp.id.timestamp == at
        {
            return Ok(Some(stamp.clone()));
        }
        let rows = self.core.index.snapshot();
        let record = VersionRows::Linked(ino).newest_at(&rows, at).await?;
        let stamp = record.map(|record| record.stamp);
        Ok(stamp.filter(|stamp| stamp.id.timestamp == at))
    }

    /// Deletes the link counts that no state after `at` needs.
    async fn forget_link_counts(
        &self,
        txn: &mut Txn,
        ino: Ino,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let needed = self.state_from(ino, at).await?.is_some();
        let from = keys::link_count(ino, at).bytes();
        let until = keys::after(&keys::link_counts(ino));
        let counts = self.core.index.scan(from, until, usize::MAX).await?;
        for (key, _) in counts.into_iter().skip(usize::from(needed)) {
            txn.delete(RowKey::<LinkCountTable>::scanned(key)?);
        }
        Ok(())
    }
}

/// Tells whether an entry leads to a hard-linked inode by the stamp with this id.
fn leads_by(entry: &DentryRow, ino: Ino, id: VersionId) -> bool {
    entry.ino == ino && matches!(&entry.body, DentryBody::Linked(stamp) if stamp.id == id)
}

/// When and how the time ended over which an older version is extended.
struct ExtendedEnd {
    end: Timestamp,
    op: EndOp,
    moved_to: Option<Dentry>,
}

/// The end of a record that goes. The last state of a removed name goes with it: an older one must not be offered as such.
fn older_end(gone: &VersionRecord) -> ExtendedEnd {
    ExtendedEnd {
        end: gone.end,
        op: match gone.end_op {
            EndOp::Deleted => EndOp::Expired,
            op => op,
        },
        moved_to: gone.moved_to.clone(),
    }
}

/// Extends a version over the time of what is gone after it.
fn extend(txn: &mut Txn, list: &VersionRows, older: VersionRecord, to: ExtendedEnd) {
    let kept = match older.kept {
        Retained::Nothing => Retained::Nothing,
        Retained::Whole | Retained::Thinned => Retained::Thinned,
    };
    let thinned = VersionRecord {
        end: to.end,
        end_op: to.op,
        moved_to: to.moved_to,
        kept,
        own_end: Some(older.own_end()),
        ..older
    };
    list.put(txn, &thinned);
}

/// Returns the interval of the name that no version needs once `dropped` is gone: that of its whole life, if it is the last one of
/// it. An exchange of two names ends an interval, and the name goes on: of such intervals the longest one is needed.
fn ended_life(older: Option<&VersionRecord>, dropped: &VersionRecord) -> Option<Range<Timestamp>> {
    let ended = match older {
        Some(older) if older.alive_since != dropped.alive_since => None,
        Some(older) => Some(older),
        None => Some(dropped),
    };
    let ended = ended.filter(|ended| ends_life(ended.end_op))?;
    Some(ended.alive_since..ended.end)
}

/// Tells whether the name ended with the version.
fn ends_life(end_op: EndOp) -> bool {
    match end_op {
        EndOp::Deleted
        | EndOp::Undeleted
        | EndOp::RenamedTo
        | EndOp::Transient
        | EndOp::Expired => true,
        EndOp::Superseded | EndOp::Replaced => false,
    }
}
