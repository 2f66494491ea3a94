//! Holds on single versions: a held version cannot be deleted until the hold ends.
//!
//! A hold is a row of its own, keyed by the inode and the version: it stands from before the version has a record, and does not move
//! when the file gets or loses names. Invariant: a hold and the row that leads to it (`G Y`) change in one operation.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::store::history::History;
use crate::store::history::labels::{held_until, in_the_past, shown};
use crate::store::history::view::PastView;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{Dentry, DentryRef};
use crate::store::model::version::{
    Author, Ino, Kind, PastEntry, ROOT, Retained, Timestamp, VersionId,
};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::label_keys;
use crate::store::schema::label_rows::HoldRow;
use crate::store::schema::rows::{DentryBody, InodeRow, OlderVersions, VersionRecord};
use crate::store::schema::tables::{
    DirectoryLocationTable, HoldTable, LinkedVersionTable, RowTable, VersionTable,
};
use crate::store::tree::review::{names_of, review};
use crate::sync::Arc;

impl PastView {
    /// Returns until when a version of an inode is held; `None` if it is not held. The time may be over.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn hold_of(&self, ino: Ino, id: VersionId) -> Result<Option<Timestamp>, StoreError> {
        let row = self.rows.row(&label_keys::hold(ino, id)).await?;
        Ok(row.map(|row| row.until))
    }
}

impl PastView {
    /// Returns until when versions of an inode are held.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn holds(&self, ino: Ino) -> Result<HashMap<VersionId, Timestamp>, StoreError> {
        let from = label_keys::holds(ino);
        let rows = self.rows.scan(from.clone(), keys::after(&from), usize::MAX);
        let mut holds = HashMap::new();
        for (key, value) in rows.await? {
            let row = HoldTable::decode(&value)?;
            holds.extend(label_keys::held_version(&key).map(|(_, id)| (id, row.until)));
        }
        Ok(holds)
    }
}

/// A version that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldVersion {
    /// The directory in which it had its name when it was held.
    pub directory: Ino,
    /// The name.
    pub name: Bytes,
    /// When it began.
    pub began: Timestamp,
    /// Until when it is held.
    pub until: Timestamp,
    /// Who held it.
    pub author: Author,
    /// The host that it was held on.
    pub host: String,
}

impl PastView {
    /// Returns all holds on versions that are not over at `now`.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn all_holds(&self, now: Timestamp) -> Result<Vec<HeldVersion>, StoreError> {
        let (from, end) = (HoldTable::all(), keys::after(&HoldTable::all()));
        let mut holds = Vec::new();
        for (key, value) in self.rows.scan(from, end, usize::MAX).await? {
            let row = HoldTable::decode(&value)?;
            let Some((_, id)) = label_keys::held_version(&key).filter(|_| row.until > now) else {
                continue;
            };
            holds.push(HeldVersion {
                directory: row.directory,
                name: row.name,
                began: id.timestamp,
                until: row.until,
                author: row.author,
                host: row.host,
            });
        }
        Ok(holds)
    }
}

impl History {
    /// Holds a version that `slot` shows, until `until`.
    ///
    /// # Errors
    /// `Invalid` for a time in the past; `Held` if it is held longer already; `IsDirectory`; `NotFound` if it was deleted; those of a
    /// change.
    pub async fn hold_version(
        &self,
        slot: DentryRef<'_>,
        entry: &PastEntry,
        until: Timestamp,
        author: &Author,
    ) -> Result<(), StoreError> {
        self.core.health.check()?;
        if until <= self.core.now() {
            return Err(in_the_past("hold"));
        }
        if entry.kind == Kind::Directory {
            return Err(StoreError::IsDirectory);
        }
        let entry = entry.clone().of_inode();
        let (ino, id) = (entry.ino, entry.version);
        // The locks under which a version is deleted or gets its record.
        let _locked = self.tree.inodes.lock_all(&[slot.parent, ino]).await;
        if !self.has_version(slot, ino, id).await? {
            return Err(StoreError::NotFound);
        }
        let key = label_keys::hold(ino, id);
        let old: Option<HoldRow> = self.core.index.row(&key).await?;
        if let Some(old) = old.as_ref().filter(|old| old.until > until) {
            let what = format!("the version of {}", shown(slot.name));
            return Err(held_until(&what, old.until));
        }
        let left = self
            .left_by_hold(ino, id, old.as_ref(), slot.parent)
            .await?;
        let dependencies = Dependencies {
            touches: vec![
                keys::inode(ino).bytes(),
                keys::entry(slot.parent, slot.name).bytes(),
            ],
            ..Dependencies::default()
        };
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(answer.at(), dependencies);
        if let Some(old) = &old {
            txn.delete(label_keys::lapse(old.until, &key));
        }
        for name in left {
            review(&mut txn, &name, OlderVersions::Held);
        }
        let row = HoldRow {
            until,
            directory: slot.parent,
            name: slot.to_dentry().name,
            author: author.clone(),
            host: self.core.config.host.clone(),
        };
        txn.put(label_keys::lapse(until, &key), &());
        txn.put(key, &row);
        self.commit.enqueue(txn)?;
        self.core.protection_changes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Ends the hold of a version that `slot` shows or showed. What only the hold kept is due at the next run.
    ///
    /// # Errors
    /// `Invalid` if it is not held; those of a change.
    pub async fn release_version(
        &self,
        slot: DentryRef<'_>,
        entry: &PastEntry,
    ) -> Result<(), StoreError> {
        self.core.health.check()?;
        let entry = entry.clone().of_inode();
        let _locked = self.tree.inodes.lock_all(&[slot.parent, entry.ino]).await;
        let key = label_keys::hold(entry.ino, entry.version);
        let row: Option<HoldRow> = self.core.index.row(&key).await?;
        let Some(row) = row.filter(|row| row.until > self.core.now()) else {
            return Err(StoreError::Invalid(format!(
                "the version of {} is not held",
                shown(slot.name)
            )));
        };
        let dependencies = Dependencies {
            touches: vec![
                keys::inode(entry.ino).bytes(),
                keys::entry(slot.parent, slot.name).bytes(),
            ],
            ..Dependencies::default()
        };
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(answer.at(), dependencies);
        txn.delete(label_keys::lapse(row.until, &key));
        txn.delete(key);
        // A run that met the hold has filed the version until its end, and so what leads to it.
        review(&mut txn, &slot.to_dentry(), OlderVersions::Held);
        review(&mut txn, &names_of(entry.ino), OlderVersions::Held);
        for name in self
            .leading_to(entry.ino, row.directory, entry.version)
            .await?
        {
            review(&mut txn, &name, OlderVersions::Held);
        }
        self.commit.enqueue(txn)?;
        self.core.protection_changes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Returns the names that a hold keeps no longer beside its version, because the version is held in another directory from now on.
    pub(super) async fn left_by_hold(
        &self,
        ino: Ino,
        id: VersionId,
        old: Option<&HoldRow>,
        directory: Ino,
    ) -> Result<BTreeSet<Dentry>, StoreError> {
        match old.filter(|old| old.directory != directory) {
            Some(old) => self.leading_to(ino, old.directory, id).await,
            None => Ok(BTreeSet::new()),
        }
    }

    /// Returns the names that a hold on a version keeps beside it: those that led to its hard-linked inode, and those that the directories
    /// above it have had since.
    async fn leading_to(
        &self,
        ino: Ino,
        directory: Ino,
        id: VersionId,
    ) -> Result<BTreeSet<Dentry>, StoreError> {
        let rows = self.core.index.snapshot();
        let (from, end) = (keys::bindings(ino), keys::after(&keys::bindings(ino)));
        let bound = rows.scan(from, end, usize::MAX).await?;
        let bound = bound.iter().filter_map(|(key, _)| keys::bound_name(key));
        let mut names: BTreeSet<Dentry> = bound.map(|(_, name)| name).collect();
        let (mut open, mut seen) = (vec![directory], BTreeSet::new());
        while let Some(directory) = open.pop() {
            if directory == ROOT || !seen.insert(directory) {
                continue;
            }
            if let Some(InodeRow::Directory(row)) = rows.row(&keys::inode(directory)).await? {
                open.extend(row.place.map(|(_, place)| place.parent));
            }
            let from = keys::directory_locations(directory);
            let end = keys::after(&from);
            for (_, value) in rows.scan(from, end, usize::MAX).await? {
                let place = DirectoryLocationTable::decode(&value)?;
                if id.timestamp < place.end {
                    open.push(place.parent);
                    names.insert(Dentry::new(place.parent, place.name));
                }
            }
        }
        Ok(names)
    }

    /// Fails if a hold or a label protects a version.
    pub(super) async fn check_unprotected(
        &self,
        slot: DentryRef<'_>,
        ino: Ino,
        id: VersionId,
        ended: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let view = self.view();
        let hold = view.hold_of(ino, id).await?;
        if let Some(hold) = hold.filter(|hold| *hold > self.core.now()) {
            let what = format!("the version of {}", shown(slot.name));
            return Err(held_until(&what, hold));
        }
        let span = id.timestamp..ended.unwrap_or(Timestamp(u64::MAX));
        let mut memo = Default::default();
        for label in self.labels_between(span, usize::MAX).await? {
            if view.label_shows(&label, slot.parent, &mut memo).await? {
                return Err(StoreError::Held(format!(
                    "label {} shows the version of {}: remove the label first",
                    shown(&label.slot.name),
                    shown(slot.name)
                )));
            }
        }
        Ok(())
    }

    /// Tells whether a version of an inode, which the name shows or showed, is not deleted.
    async fn has_version(
        &self,
        slot: DentryRef<'_>,
        ino: Ino,
        id: VersionId,
    ) -> Result<bool, StoreError> {
        let is = |record: &VersionRecord| record.node.is_some() && record.kept != Retained::Nothing;
        let key = keys::closed(slot.parent, slot.name, id);
        if let Some(value) = self.core.index.get(&key).await?
            && is(&VersionTable::decode(&value)?)
        {
            return Ok(true);
        }
        if let Some(value) = self.core.index.get(&keys::linked_closed(ino, id)).await?
            && is(&LinkedVersionTable::decode(&value)?)
        {
            return Ok(true);
        }
        let current = |stamp: Option<&crate::store::model::version::Stamp>| {
            stamp.is_some_and(|stamp| stamp.id == id)
        };
        if let Some(entry) = self.tree.entry(slot.parent, slot.name).await?
            && let DentryBody::Own { state, .. } = &entry.body
            && current(state.shown_stamp())
        {
            return Ok(true);
        }
        let row: Option<InodeRow> = self.core.index.row(&keys::inode(ino)).await?;
        if matches!(row, Some(InodeRow::Linked(row)) if current(row.state.shown_stamp())) {
            return Ok(true);
        }
        // A version from before a rename, whose record is under the earlier name.
        let list = self.view().history(slot.parent, slot.name).await?;
        let mut versions = list.versions.into_iter();
        Ok(versions.any(|version| {
            let version = Arc::unwrap_or_clone(version).of_inode();
            (version.ino, version.version) == (ino, id) && version.kept != Retained::Nothing
        }))
    }
}
