//! Carries out verdicts: drops a version, or files it anew under what keeps it.
//!
//! Path: the verdict was given on a snapshot; here the locks are taken, the version and what the verdict rests on are read again,
//! and one operation is queued. If something has changed meanwhile, nothing is done, and the run asks for a new verdict.

use crate::store::commit::txn::Txn;
use crate::store::model::error::StoreError;
use crate::store::model::failpoints::PlantedFault;
use crate::store::model::ids::Dentry;
use crate::store::model::policy::Due;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::retention::Retention;
use crate::store::retention::protection::Protection;
use crate::store::retention::shown::EndedVersion;
use crate::store::retention::verdict::Verdict;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{DentryRow, DirectoryRow, Filing, InodeRow, OlderVersions};
use crate::store::tree::locked::{LockedInode, find};
use crate::store::tree::review::names_of;
use crate::store::tree::version_record::VersionRows;

/// Whether a verdict was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
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
        let failpoints = &self.core.health.failpoints;
        match verdict {
            Verdict::Drop(_) => self.drop_version(version, protection).await,
            Verdict::KeepByTime(_, Due::At(at)) => self.refile(version, Filing::Due(*at)).await,
            Verdict::KeepByTime(_, Due::Never) => self.refile(version, Filing::Nowhere).await,
            Verdict::KeepLabel(_) if failpoints.takes(PlantedFault::ShortLabel) => {
                self.drop_version(version, protection).await
            }
            Verdict::KeepLabel(label) => self.refile(version, Filing::Label(*label)).await,
            Verdict::KeepHold(until) => self.refile(version, Filing::Until(*until)).await,
            Verdict::KeepLast(name) if name.name.is_empty() => {
                self.keep_last_linked(version, name.parent).await
            }
            Verdict::KeepLast(name) => self.keep_last(version, name).await,
            Verdict::KeepRemoved(until, name) => self.keep_removed(version, *until, name).await,
        }
    }

    /// Begins an operation on the records of a version's list.
    pub(super) fn retention_txn(&self, list: &VersionRows) -> Txn {
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
    pub(super) async fn is_unchanged(&self, version: &EndedVersion) -> Result<bool, StoreError> {
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
            self.queue(txn)?;
        }
        Ok(Outcome::Done)
    }

    /// Files a version under the name that keeps it, and marks the name, so that its next change lists it for review.
    async fn keep_last(
        &self,
        version: &EndedVersion,
        name: &Dentry,
    ) -> Result<Outcome, StoreError> {
        let directory = version.list.locked_by();
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
        self.queue(txn)?;
        if let Some(mut file) = find(&mut locked, ino).and_then(LockedInode::file) {
            file.set_older(older);
        }
        Ok(Outcome::Done)
    }

    /// Files a version under the hard-linked inode of a name that keeps it, and marks the inode, so that its next change lists all its
    /// names for review.
    async fn keep_last_linked(
        &self,
        version: &EndedVersion,
        ino: Ino,
    ) -> Result<Outcome, StoreError> {
        let wanted = [version.list.locked_by(), ino];
        let mut locked = self.tree.inodes.lock_all(&wanted).await;
        let row = self.core.index.row(&keys::inode(ino)).await?;
        let Some(InodeRow::Linked(mut row)) = row else {
            return Ok(Outcome::Changed);
        };
        if !self.is_unchanged(version).await? {
            return Ok(Outcome::Changed);
        }
        let filing = Filing::Last(names_of(ino));
        let older = OlderVersions::Held;
        if version.record.filed == filing && row.older == older {
            return Ok(Outcome::Done);
        }
        let mut txn = self.retention_txn(&version.list);
        txn.touch(keys::inode(ino));
        let mut record = version.record.clone();
        version.list.file(&mut txn, &mut record, filing);
        row.older = older;
        txn.put(keys::inode(ino), &InodeRow::Linked(row));
        self.queue(txn)?;
        if let Some(mut file) = find(&mut locked, ino).and_then(LockedInode::file) {
            file.set_older(older);
        }
        Ok(Outcome::Done)
    }

    /// Files a version of a removed name, and marks its directory, so that a creation of the name lists it for review.
    async fn keep_removed(
        &self,
        version: &EndedVersion,
        until: Timestamp,
        name: &Dentry,
    ) -> Result<Outcome, StoreError> {
        let directory = name.parent;
        let wanted = [version.list.locked_by(), directory];
        let mut locked = self.tree.inodes.lock_all(&wanted).await;
        if let Some(directory) = find(&mut locked, directory) {
            self.tree.load_known(directory).await?;
        }
        let entry = keys::entry(directory, &name.name);
        if self.core.index.get(&entry).await?.is_some() || !self.is_unchanged(version).await? {
            return Ok(Outcome::Changed);
        }
        let filing = match &version.list {
            VersionRows::Of(_) => Filing::Until(until),
            VersionRows::Linked(_) => Filing::Removed(until, name.clone()),
        };
        let mut txn = self.retention_txn(&version.list);
        txn.touch(entry);
        let mut record = version.record.clone();
        version.list.file(&mut txn, &mut record, filing);
        let mut change = None;
        let live = find(&mut locked, directory);
        let live = live.as_ref().and_then(|live| live.as_directory());
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
        self.queue(txn)?;
        let live = find(&mut locked, directory).and_then(LockedInode::directory);
        if let (Some(mut live), Some(change)) = (live, change) {
            live.merge(change);
        }
        Ok(Outcome::Done)
    }
}
