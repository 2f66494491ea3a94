//! Carries out verdicts: drops a version, or files it anew under what keeps it.
//!
//! Path: the verdict was given on a snapshot; here the locks are taken, the version and what the verdict rests on are read again,
//! and one operation is queued. If something has changed meanwhile, nothing is done, and the run asks for a new verdict.

use std::ops::Range;

use bytes::Bytes;

use crate::store::commit::txn::Txn;
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::policy::Due;
use crate::store::model::version::{EndOp, Ino, Kind, Retained, Timestamp};
use crate::store::retention::Retention;
use crate::store::retention::protection::Protection;
use crate::store::retention::verdict::{EndedVersion, Verdict};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryRow, DirectoryLocation, DirectoryRow, Filing, InodeRow, OlderVersions, VersionRecord,
};
use crate::store::schema::tables::{DirectoryLocationTable, RowKey, RowTable};
use crate::store::tree::locked::{LockedInode, find};
use crate::store::tree::version_record::VersionRows;

/// Whether a verdict was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The version before it belongs to a file with several names, so that the version stays.
    Kept,
    /// What the verdict rests on has changed: a new verdict is needed.
    Changed,
}

impl Retention {
    /// Carries out a verdict.
    ///
    /// # Errors
    /// Errors of the index; those of the queue, after which nothing is changed.
    pub(crate) async fn carry_out(
        &self,
        version: &EndedVersion,
        verdict: &Verdict,
        protection: &Protection,
    ) -> Result<Outcome, StoreError> {
        let directory = version.list.locked_by();
        match verdict {
            Verdict::Drop => self.drop_version(version, directory, protection).await,
            Verdict::KeepByTime(_, Due::At(at)) => self.refile(version, Filing::Due(*at)).await,
            Verdict::KeepByTime(_, Due::Never) | Verdict::KeepHardLink => {
                self.refile(version, Filing::Nowhere).await
            }
            Verdict::KeepLabel(label) => self.refile(version, Filing::Label(*label)).await,
            Verdict::KeepHold(until) => self.refile(version, Filing::Until(*until)).await,
            Verdict::KeepLast(name) => self.keep_last(version, directory, name).await,
            Verdict::KeepRemoved(until) => self.keep_removed(version, directory, *until).await,
        }
    }

    /// Begins an operation on the records of a version's list.
    fn retention_txn(&self, list: &VersionRows) -> Txn {
        let touches = match list {
            VersionRows::Of(slot) => vec![keys::entry(slot.parent, &slot.name).bytes()],
            VersionRows::Linked(ino) => vec![keys::inode(*ino).bytes()],
        };
        let dependencies = Dependencies {
            touches,
            ..Dependencies::default()
        };
        self.commit.txn(self.core.clock.begin().at(), dependencies)
    }

    /// Tells whether the record still is as it was when the verdict was given.
    async fn is_unchanged(&self, version: &EndedVersion) -> Result<bool, StoreError> {
        let value = self.core.index.get(&version.key()).await?;
        let record = value.map(|value| version.list.decode(&value)).transpose()?;
        Ok(record.as_ref() == Some(&version.record))
    }

    /// Files a version anew.
    pub(crate) async fn refile(
        &self,
        version: &EndedVersion,
        filing: Filing,
    ) -> Result<Outcome, StoreError> {
        let directory = version.list.locked_by();
        let _locked = self.tree.inodes.lock_all(&[directory]).await;
        if !self.is_unchanged(version).await? {
            return Ok(Outcome::Changed);
        }
        if version.record.filed != filing {
            let mut txn = self.retention_txn(&version.list);
            let mut record = version.record.clone();
            version.list.file(&mut txn, &mut record, filing);
            self.commit.enqueue(txn)?;
        }
        Ok(Outcome::Done)
    }

    /// Files a version under the name that keeps it, and marks the name, so that its next change lists it for review.
    async fn keep_last(
        &self,
        version: &EndedVersion,
        directory: Ino,
        name: &Dentry,
    ) -> Result<Outcome, StoreError> {
        let key = keys::entry(name.parent, &name.name);
        let Some(entry) = self.core.index.row(&key).await? else {
            return Ok(Outcome::Changed);
        };
        let wanted = [directory, name.parent, entry.ino];
        let mut locked = self.tree.inodes.lock_all(&wanted).await;
        let now: Option<DentryRow> = self.core.index.row(&key).await?;
        if now.as_ref() != Some(&entry) || !self.is_unchanged(version).await? {
            return Ok(Outcome::Changed);
        }
        let filing = Filing::Last(name.clone());
        if version.record.filed == filing && entry.older == OlderVersions::Held {
            return Ok(Outcome::Done);
        }
        let mut txn = self.retention_txn(&version.list);
        let order = self.tree.order_in(name.parent, &name.name, entry.ino);
        let order = order.await?;
        txn.dependencies.touches.extend(order.touches);
        txn.dependencies.within = order.within;
        txn.dependencies.below = order.below;
        let mut record = version.record.clone();
        version.list.file(&mut txn, &mut record, filing);
        let older = OlderVersions::Held;
        let ino = entry.ino;
        txn.put(key, &DentryRow { older, ..entry });
        self.commit.enqueue(txn)?;
        if let Some(mut file) = find(&mut locked, ino).and_then(LockedInode::file) {
            file.set_older(older);
        }
        Ok(Outcome::Done)
    }

    /// Files a version of a removed name, and marks its directory, so that a creation of the name lists it for review.
    async fn keep_removed(
        &self,
        version: &EndedVersion,
        directory: Ino,
        until: Timestamp,
    ) -> Result<Outcome, StoreError> {
        let VersionRows::Of(slot) = &version.list else {
            return Ok(Outcome::Changed);
        };
        // A removed directory has no row to load; no name is created in it.
        let mut locked = match self.tree.lock(directory).await {
            Ok(locked) => vec![locked],
            Err(StoreError::NotFound) => self.tree.inodes.lock_all(&[directory]).await,
            Err(error) => return Err(error),
        };
        let entry = keys::entry(slot.parent, &slot.name);
        if self.core.index.get(&entry).await?.is_some() || !self.is_unchanged(version).await? {
            return Ok(Outcome::Changed);
        }
        let mut txn = self.retention_txn(&version.list);
        let mut record = version.record.clone();
        version
            .list
            .file(&mut txn, &mut record, Filing::Until(until));
        let mut change = None;
        let live = locked.first().and_then(LockedInode::as_directory);
        if live.is_some_and(|live| live.row.keeps_removed.is_none()) {
            let row = DirectoryRow {
                keeps_removed: Some((txn.timestamp, ())),
                ..DirectoryRow::default()
            };
            txn.merge(keys::inode(directory), &InodeRow::Directory(row.clone()));
            txn.dependencies.within.push(directory);
            txn.dependencies.below = self.tree.ancestors(directory).await?;
            change = Some(row);
        }
        self.commit.enqueue(txn)?;
        let live = locked.first_mut().and_then(LockedInode::directory);
        if let (Some(mut live), Some(change)) = (live, change) {
            live.merge(change);
        }
        Ok(Outcome::Done)
    }
}

impl Retention {
    /// Drops a version. The version before it in the same life of the name is extended over its time; without one, nothing is left
    /// of the time.
    async fn drop_version(
        &self,
        version: &EndedVersion,
        directory: Ino,
        protection: &Protection,
    ) -> Result<Outcome, StoreError> {
        // A hold is set under the lock of the directory.
        let _locked = self.tree.inodes.lock_all(&[directory]).await;
        if self.is_outdated(protection) || !self.is_unchanged(version).await? {
            return Ok(Outcome::Changed);
        }
        let (EndedVersion { list, record }, VersionRows::Of(slot)) = (version, &version.list)
        else {
            return Ok(Outcome::Kept);
        };
        let older = self.older(list, record).await?;
        if older.as_ref().is_some_and(|older| older.node.is_none()) {
            return Ok(Outcome::Kept);
        }
        let mut txn = self.retention_txn(list);
        if let Some(node) = &record.node {
            txn.unreference_content(&node.content);
        }
        list.delete(&mut txn, record);
        if let Some(life) = ended_life(older.as_ref(), record) {
            let rows = self.core.index.snapshot();
            interval_tree::remove(&rows, &mut txn.rows, slot.parent, &slot.name, life).await?;
        }
        if let Some(older) = older {
            extend(&mut txn, list, older, record);
        }
        if let Some(location) = self.location(record).await? {
            txn.delete(location);
        }
        self.commit.enqueue(txn)?;
        Ok(Outcome::Done)
    }

    /// Returns the version before another one in its list, if its end is the beginning of that one.
    async fn older(
        &self,
        list: &VersionRows,
        record: &VersionRecord,
    ) -> Result<Option<VersionRecord>, StoreError> {
        let key = list.key(record.stamp.id);
        let behind: Bytes = [&key[..], &[0]].concat().into();
        let found = self.core.index.first(behind, list.end()).await?;
        let older = found.map(|(_, value)| list.decode(&value)).transpose()?;
        Ok(older.filter(|older| older.end == record.stamp.id.timestamp))
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

/// Extends a version over the time of the dropped one after it.
fn extend(txn: &mut Txn, list: &VersionRows, older: VersionRecord, dropped: &VersionRecord) {
    let kept = match older.kept {
        Retained::Nothing => Retained::Nothing,
        Retained::Whole | Retained::Thinned => Retained::Thinned,
    };
    let thinned = VersionRecord {
        end: dropped.end,
        end_op: dropped.end_op,
        moved_to: dropped.moved_to.clone(),
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
        EndOp::Deleted | EndOp::Undeleted | EndOp::RenamedTo | EndOp::Transient => true,
        EndOp::Superseded | EndOp::Replaced => false,
    }
}
