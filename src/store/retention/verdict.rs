//! The verdict on a version that has ended: which rule of the policy keeps it, and until when.
//!
//! All reads are of one snapshot and cost at most seven rows for a file, however long the history of its name is.

use std::collections::HashMap;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::policy::{Due, HOUR, Policy, Term, TimeRule};
use crate::store::model::version::{EndOp, Ino, Kind, Retained, Timestamp};
use crate::store::retention::protection::Protection;
use crate::store::retention::report::{KeptBy, KeptUntil, RetentionReport};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryLocation, LabelPin, VersionRecord,
};
use crate::store::schema::tables::{DirectoryLocationTable, RowTable, VersionTable};
use crate::store::tree::version_record::VersionRows;

/// What retention does with a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No rule keeps it.
    Drop,
    /// A rule of time keeps it.
    KeepByTime(TimeRule, Due),
    /// It is one of the last versions of this name, which exists.
    KeepLast(Dentry),
    /// It is the last version of a removed name, up to and without this timestamp.
    KeepRemoved(Timestamp),
    /// This label shows it.
    KeepLabel(LabelPin),
    /// It is held, up to and without this timestamp.
    KeepHold(Timestamp),
    /// It belongs to a file with several names.
    KeepHardLink,
}

impl Verdict {
    /// Returns what keeps the version; `None` if nothing does.
    pub(crate) fn kept_by(&self) -> Option<KeptBy> {
        match self {
            Self::Drop => None,
            Self::KeepByTime(rule, _) => Some(KeptBy::Time(*rule)),
            Self::KeepLast(_) => Some(KeptBy::Last),
            Self::KeepRemoved(_) => Some(KeptBy::Removed),
            Self::KeepLabel(_) => Some(KeptBy::Label),
            Self::KeepHold(_) => Some(KeptBy::Hold),
            Self::KeepHardLink => Some(KeptBy::HardLink),
        }
    }
}

/// Adds a verdict on a version to a report.
pub(crate) fn count(report: &mut RetentionReport, version: &EndedVersion, verdict: &Verdict) {
    let node = version.record.node.as_ref();
    let bytes = node.map_or(0, |node| node.space());
    match (verdict.kept_by(), &version.list) {
        (Some(by), _) => report.keep(by, bytes),
        (None, VersionRows::Of(name)) => report.drop_of(name, bytes),
        (None, VersionRows::Linked(_)) => {}
    }
}

/// A version that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndedVersion {
    pub(crate) list: VersionRows,
    pub(crate) record: VersionRecord,
}

impl EndedVersion {
    /// Reads the record with this key; `None` if it is gone.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn read(
        rows: &Snapshot,
        key: &bytes::Bytes,
    ) -> Result<Option<Self>, StoreError> {
        let list = match VersionTable::has(key) {
            true => keys::record_slot(key).map(VersionRows::Of),
            false => keys::leading_ino(key).map(VersionRows::Linked),
        };
        let list = list.ok_or_else(|| StoreError::Corrupt("G X key: no version".to_owned()))?;
        let Some(value) = rows.get(key).await? else {
            return Ok(None);
        };
        let record = list.decode(&value)?;
        Ok(Some(Self { list, record }))
    }

    pub(crate) fn key(&self) -> bytes::Bytes {
        self.list.key(self.record.stamp.id)
    }
}

/// What is known about a removed directory.
#[derive(Clone, Copy, Debug)]
struct RemovedDirectory {
    /// The directory that it was removed from.
    parent: Ino,
    /// Timestamp of the first removal of the burst that emptied it.
    first: Timestamp,
    /// Until when its tree is offered for an undelete; 0 if it is not.
    until: Timestamp,
}

/// Gives verdicts on versions, as one snapshot of the rows shows them.
pub(crate) struct Judge<'a> {
    rows: Snapshot,
    policy: &'a Policy,
    now: Timestamp,
    protection: Protection,
    /// Directories that were looked up; `None`: it exists.
    removed: HashMap<Ino, Option<RemovedDirectory>>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(
        rows: Snapshot,
        policy: &'a Policy,
        now: Timestamp,
        protection: Protection,
    ) -> Self {
        Self {
            rows,
            policy,
            now,
            protection,
            removed: HashMap::new(),
        }
    }

    pub(crate) fn protection(&self) -> &Protection {
        &self.protection
    }

    pub(crate) fn renew_protection(&mut self, protection: Protection) {
        self.protection = protection;
    }

    /// Replaces the snapshot by a newer one.
    pub(crate) fn renew(&mut self, rows: Snapshot) {
        self.rows = rows;
        self.removed.clear();
    }

    /// Decides about a version.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn verdict(&mut self, version: &EndedVersion) -> Result<Verdict, StoreError> {
        let record = &version.record;
        let rules = self.policy.rules(record.span());
        let longest = rules.into_iter().max_by_key(|(_, due)| *due);
        if let Some((rule, due)) = longest.filter(|(_, due)| *due > Due::At(self.now)) {
            return Ok(Verdict::KeepByTime(rule, due));
        }
        let (VersionRows::Of(slot), Some(node)) = (&version.list, &record.node) else {
            return Ok(Verdict::KeepHardLink);
        };
        if let Some(until) = self
            .protection
            .hold(record)
            .filter(|until| *until > self.now)
        {
            return Ok(Verdict::KeepHold(until));
        }
        if let Some(label) = self.protection.label(slot, record).await? {
            return Ok(Verdict::KeepLabel(label));
        }
        if record.end_op == EndOp::Transient {
            return Ok(Verdict::Drop);
        }
        if node.kind != Kind::Directory && record.kept != Retained::Nothing {
            match self.line(slot, record).await? {
                Line::Live(name) => return Ok(Verdict::KeepLast(name)),
                Line::HardLinked => return Ok(Verdict::KeepHardLink),
                Line::Over => {}
            }
        }
        match self.removed_until(slot, record).await? {
            Some(until) if until > self.now => Ok(Verdict::KeepRemoved(until)),
            _ => Ok(Verdict::Drop),
        }
    }
}

impl Judge<'_> {
    /// Returns every rule that keeps a version whatever its age, and until when.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn beyond_time(
        &mut self,
        version: &EndedVersion,
    ) -> Result<Vec<(KeptBy, KeptUntil)>, StoreError> {
        let record = &version.record;
        let (VersionRows::Of(slot), Some(node)) = (&version.list, &record.node) else {
            return Ok(vec![(KeptBy::HardLink, KeptUntil::Open)]);
        };
        let mut reasons = Vec::new();
        let hold = self.protection.hold(record);
        reasons.extend(
            hold.filter(|until| *until > self.now)
                .map(|until| (KeptBy::Hold, KeptUntil::At(until))),
        );
        if self.protection.label(slot, record).await?.is_some() {
            reasons.push((KeptBy::Label, KeptUntil::Open));
        }
        if record.end_op == EndOp::Transient {
            return Ok(reasons);
        }
        if node.kind != Kind::Directory && record.kept != Retained::Nothing {
            match self.line(slot, record).await? {
                Line::Live(_) => reasons.push((KeptBy::Last, KeptUntil::Open)),
                Line::HardLinked => reasons.push((KeptBy::HardLink, KeptUntil::Open)),
                Line::Over => {}
            }
        }
        let removed = self.removed_until(slot, record).await?;
        reasons.extend(
            removed
                .filter(|until| *until > self.now)
                .map(|until| (KeptBy::Removed, KeptUntil::At(until))),
        );
        Ok(reasons)
    }
}

/// Where the line of versions after an ended one leads.
enum Line {
    /// To this name, which exists, over fewer ended versions than `keep-last` says.
    Live(Dentry),
    /// To a state of a file with several names.
    HardLinked,
    /// To an end, or over enough ended versions.
    Over,
}

impl Judge<'_> {
    /// Follows the line of versions from an ended one to the name that has it now, through renames.
    async fn line(&self, slot: &Dentry, record: &VersionRecord) -> Result<Line, StoreError> {
        let (mut name, mut last) = (slot.clone(), record.clone());
        let mut newer = 0;
        while newer < self.policy.last {
            let came = match (last.end_op, last.moved_to) {
                (EndOp::RenamedTo, Some(to)) => {
                    name = to;
                    Arrival::Moved
                }
                (EndOp::Superseded | EndOp::Replaced, _) => Arrival::Stayed,
                _ => return Ok(Line::Over),
            };
            let at = last.end;
            // A name that existed before the rename has a line of its own.
            let goes_on = |alive_since: Timestamp| came == Arrival::Stayed || alive_since == at;
            let list = VersionRows::Of(name.clone());
            match list.newest_at(&self.rows, at).await? {
                Some(next) if next.stamp.id.timestamp == at => {
                    if !goes_on(next.alive_since) {
                        return Ok(Line::Over);
                    }
                    if next.node.is_none() {
                        return Ok(Line::HardLinked);
                    }
                    newer += u32::from(next.kept != Retained::Nothing);
                    last = next;
                }
                _ => {
                    let entry = self.rows.row(&keys::entry(name.parent, &name.name)).await?;
                    return Ok(match entry.and_then(|entry| shown(&entry)) {
                        Some((began, alive_since)) if began == at && goes_on(alive_since) => {
                            Line::Live(name)
                        }
                        _ => Line::Over,
                    });
                }
            }
        }
        Ok(Line::Over)
    }
}

/// How the line came to a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Stayed,
    Moved,
}

/// Returns when the version began that the past shows for an entry, and since when the name exists; `None` if it shows none.
fn shown(entry: &DentryRow) -> Option<(Timestamp, Timestamp)> {
    match &entry.body {
        DentryBody::Own { node, state } => {
            let shown = state.shown(entry.ino, node, entry.alive_since)?;
            Some((shown.stamp.id.timestamp, shown.alive_since))
        }
        DentryBody::Linked(stamp) => Some((stamp.id.timestamp, entry.alive_since)),
    }
}

impl Judge<'_> {
    /// Returns until when a version is kept as the last one of a removed name, or in the tree of a removed directory.
    async fn removed_until(
        &mut self,
        slot: &Dentry,
        record: &VersionRecord,
    ) -> Result<Option<Timestamp>, StoreError> {
        if self.policy.removed == Term::Off || !self.is_last(slot, record).await? {
            return Ok(None);
        }
        let mut until = None;
        if record.end.0.saturating_sub(record.alive_since.0) >= HOUR {
            let first = self.burst(record).await?.unwrap_or(record.end);
            until = self.policy.removed_until(first);
        }
        let mut directory = slot.parent;
        while let Some(removed) = self.removed_directory(directory).await? {
            let is_in_tree =
                record.stamp.id.timestamp < removed.first && removed.first <= record.end;
            if is_in_tree && removed.until > self.now {
                until = until.max(Some(removed.until));
                break;
            }
            directory = removed.parent;
        }
        Ok(until)
    }

    /// Tells whether the name of a version does not exist now, and the version is its newest one.
    async fn is_last(&self, slot: &Dentry, record: &VersionRecord) -> Result<bool, StoreError> {
        let entry = keys::entry(slot.parent, &slot.name);
        if self.rows.get(&entry).await?.is_some() {
            return Ok(false);
        }
        let list = VersionRows::Of(slot.clone());
        let newest = list.newest_at(&self.rows, Timestamp(u64::MAX)).await?;
        Ok(newest.is_some_and(|newest| newest.stamp.id == record.stamp.id))
    }

    /// Returns the first removal of the burst that emptied a removed directory; `None` for anything else.
    async fn burst(&self, record: &VersionRecord) -> Result<Option<Timestamp>, StoreError> {
        let is_directory = matches!(&record.node, Some(node) if node.kind == Kind::Directory);
        if !is_directory || record.end_op != EndOp::Deleted {
            return Ok(None);
        }
        let last = self.last_location(record.ino).await?;
        Ok(last.and_then(|last| last.removal_burst))
    }

    async fn last_location(&self, directory: Ino) -> Result<Option<DirectoryLocation>, StoreError> {
        let from = keys::directory_locations(directory);
        let found = self.rows.first(from.clone(), keys::after(&from)).await?;
        found
            .map(|(_, value)| DirectoryLocationTable::decode(&value))
            .transpose()
    }

    /// Returns what is known about a removed directory; `None` if the directory exists, or was never known.
    async fn removed_directory(
        &mut self,
        directory: Ino,
    ) -> Result<Option<RemovedDirectory>, StoreError> {
        if let Some(known) = self.removed.get(&directory) {
            return Ok(*known);
        }
        let found = match self.rows.get(&keys::inode(directory)).await? {
            Some(_) => None,
            None => self.read_removed(directory).await?,
        };
        self.removed.insert(directory, found);
        Ok(found)
    }

    async fn read_removed(&self, directory: Ino) -> Result<Option<RemovedDirectory>, StoreError> {
        let Some(place) = self.last_location(directory).await? else {
            return Ok(None);
        };
        let mut removed = RemovedDirectory {
            parent: place.parent,
            first: place.removal_burst.unwrap_or(place.end),
            until: Timestamp(0),
        };
        let slot = Dentry::new(place.parent, place.name);
        let list = VersionRows::Of(slot.clone());
        let newest = list.newest_at(&self.rows, Timestamp(u64::MAX)).await?;
        let record = newest.filter(|newest| {
            let life = newest.end.0.saturating_sub(newest.alive_since.0);
            newest.ino == directory && newest.end_op == EndOp::Deleted && life >= HOUR
        });
        let entry = keys::entry(slot.parent, &slot.name);
        if record.is_some() && self.rows.get(&entry).await?.is_none() {
            let until = self.policy.removed_until(removed.first);
            removed.until = until.unwrap_or(Timestamp(0));
        }
        Ok(Some(removed))
    }
}
