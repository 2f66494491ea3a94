//! Single versions of a file's name: the one that began within a range of time, and the newest few.
//!
//! Each version is found by a seek, however many versions the name has. Older versions may be stored under another name, from
//! which a rename or an undelete moved the file: a read of the whole list returns where ([`Predecessor`]), and they are then
//! found by a seek as well.
//!
//! Invariant: a version is found here exactly if it is in the list of [`PastView::history`].

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::store::history::as_of::{Binding, HistoricalVersion};
use crate::store::history::view::PastView;
use crate::store::model::error::StoreError;
use crate::store::model::ids::DentryRef;
use crate::store::model::version::{
    EndOp, Ino, Kind, Op, PastEntry, Retained, Timestamp, VersionId,
};
use crate::store::schema::keys;
use crate::store::schema::rows::{DentryBody, InodeRow, VersionRecord};
use crate::store::schema::tables::{LinkedVersionTable, RowTable, VersionTable};
use crate::sync::Arc;

/// Rows read at once after a first row that is not a version of a file.
const SKIP_CHUNK: usize = 128;
/// The range of all timestamps.
const ALWAYS: RangeInclusive<Timestamp> = Timestamp(0)..=Timestamp(u64::MAX);

/// Every version of a name, and the names under which earlier versions are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionList {
    /// The versions, oldest first, the current one last.
    pub versions: Vec<Arc<PastEntry>>,
    /// The earlier names that the list continues under, youngest first.
    pub predecessors: Vec<Predecessor>,
}

/// A part of a history that is stored under another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    pub(super) directory: Ino,
    pub(super) name: Bytes,
    /// When the first and the last version of the part began.
    pub(super) began: RangeInclusive<Timestamp>,
    pub(super) successor: Successor,
}

/// The version that follows a [`Predecessor`]: the list includes the predecessor while this version exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Successor {
    pub(super) directory: Ino,
    pub(super) name: Bytes,
    pub(super) version: VersionId,
}

impl VersionList {
    /// Returns the name under which the version is stored that began at `began`; `None` if it is the name of the list.
    #[must_use]
    pub fn earlier_name(&self, began: Timestamp) -> Option<DentryRef<'_>> {
        let mut parts = self.predecessors.iter();
        let part = parts.find(|part| part.began.contains(&began))?;
        Some(DentryRef::new(part.directory, &part.name))
    }
}

/// Tells whether a version came from another name.
fn has_predecessor(entry: &PastEntry) -> bool {
    entry.renamed_from.is_some() && matches!(entry.op, Op::Rename | Op::Undelete | Op::Restore)
}

impl PastView {
    /// Returns the newest version of a file that began within `began` under this name; earlier names are not searched.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn file_version(
        &self,
        directory: Ino,
        name: &[u8],
        began: RangeInclusive<Timestamp>,
    ) -> Result<Option<PastEntry>, StoreError> {
        let dentry = DentryRef {
            parent: directory,
            name,
        };
        let found = self.file_version_at(dentry, &began).await?;
        Ok(found.map(HistoricalVersion::into_entry))
    }

    /// Returns the newest version of a file that began within `began` in an earlier part of its history. The caller checks with
    /// `PastView::leads_to` that the history still includes the part.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn earlier_file_version(
        &self,
        part: &Predecessor,
        began: &RangeInclusive<Timestamp>,
    ) -> Result<Option<PastEntry>, StoreError> {
        let (first, last) = (
            *began.start().max(part.began.start()),
            *began.end().min(part.began.end()),
        );
        if first > last {
            return Ok(None);
        }
        self.file_version(part.directory, &part.name, first..=last)
            .await
    }

    /// Tells whether a history still continues in `part`.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn leads_to(&self, part: &Predecessor) -> Result<bool, StoreError> {
        let successor = &part.successor;
        let at = successor.version.timestamp;
        let found = self.file_version(successor.directory, &successor.name, at..=at);
        Ok(found
            .await?
            .is_some_and(|found| found.version == successor.version))
    }

    /// Returns the newest `count` versions of a file, oldest first.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn newest_file_versions(
        &self,
        directory: Ino,
        name: &[u8],
        count: usize,
    ) -> Result<Vec<PastEntry>, StoreError> {
        let dentry = DentryRef {
            parent: directory,
            name,
        };
        let (mut newest, mut began) = (Vec::with_capacity(count), ALWAYS);
        while newest.len() < count
            && let Some(found) = self.newest_within(dentry, &began).await?
        {
            let start = found.stamp.id.timestamp;
            newest.push(found.into_entry());
            let Some(before) = start.0.checked_sub(1) else {
                break;
            };
            began = Timestamp(0)..=Timestamp(before);
        }
        if newest.len() < count && newest.last().is_some_and(has_predecessor) {
            let mut all = self.versions(directory, name).await?;
            all.retain(|entry| entry.kind != Kind::Directory);
            return Ok(all.split_off(all.len().saturating_sub(count)));
        }
        newest.reverse();
        Ok(newest)
    }
}

impl PastView {
    /// Tells whether a name has a version of a file.
    pub(super) async fn has_file_versions(
        &self,
        directory: Ino,
        name: &[u8],
    ) -> Result<bool, StoreError> {
        let dentry = DentryRef {
            parent: directory,
            name,
        };
        Ok(self.newest_within(dentry, &ALWAYS).await?.is_some())
    }

    /// Returns the newest version of a file that began within `began`. Version records are read first, because most versions have
    /// ended.
    async fn file_version_at(
        &self,
        dentry: DentryRef<'_>,
        began: &RangeInclusive<Timestamp>,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        let closed = self.closed_within(dentry, began).await?;
        if let Some(found) = &closed
            && found.ended.is_some_and(|ended| ended > *began.end())
        {
            return Ok(closed);
        }
        match self.current_within(dentry, began).await? {
            Some(current) => Ok(Some(current)),
            // A version that was current at the first read may have ended before the second.
            None => self.closed_within(dentry, began).await,
        }
    }

    /// Returns the same version, but reads the current state first.
    async fn newest_within(
        &self,
        dentry: DentryRef<'_>,
        began: &RangeInclusive<Timestamp>,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        match self.current_within(dentry, began).await? {
            Some(current) => Ok(Some(current)),
            None => self.closed_within(dentry, began).await,
        }
    }

    async fn current_within(
        &self,
        DentryRef { parent, name }: DentryRef<'_>,
        began: &RangeInclusive<Timestamp>,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        let Some(entry) = self.entry(parent, name).await? else {
            return Ok(None);
        };
        match entry.body {
            DentryBody::Own { node, state } => {
                let last = state.shown(entry.ino, &node, entry.alive_since);
                let last = last.filter(|last| last.node.kind != Kind::Directory);
                let last = last.filter(|last| began.contains(&last.stamp.id.timestamp));
                Ok(last.map(|last| HistoricalVersion::of(last, None)))
            }
            DentryBody::Linked(stamp) => {
                let binding = Binding::live(entry.ino, &stamp);
                self.linked_within(&binding, began).await
            }
        }
    }

    async fn closed_within(
        &self,
        DentryRef { parent, name }: DentryRef<'_>,
        began: &RangeInclusive<Timestamp>,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        let end = keys::after(&keys::history(parent, name));
        let mut from = keys::history_at(parent, name, *began.end());
        let mut limit = 1;
        loop {
            let rows = self.rows.scan(from, end.clone(), limit).await?;
            let is_last = rows.len() < limit;
            let Some((key, _)) = rows.last() else {
                return Ok(None);
            };
            from = [&key[..], &[0]].concat().into();
            for (_, value) in rows {
                let closed: VersionRecord = VersionTable::decode(&value)?;
                let start = closed.stamp.id.timestamp;
                if let Some(found) = self.within_closed(closed, began).await? {
                    return Ok(Some(found));
                }
                // Older versions began and ended before the range.
                if start <= *began.start() {
                    return Ok(None);
                }
            }
            if is_last {
                return Ok(None);
            }
            limit = SKIP_CHUNK;
        }
    }

    /// Returns the newest version of a record that began within `began`, if a list of a file's versions shows the record.
    async fn within_closed(
        &self,
        closed: VersionRecord,
        began: &RangeInclusive<Timestamp>,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        if closed.end_op == EndOp::Transient || closed.kept == Retained::Nothing {
            return Ok(None);
        }
        let Some(node) = &closed.node else {
            return self.linked_within(&Binding::ended(&closed), began).await;
        };
        let is_meant = node.kind != Kind::Directory && began.contains(&closed.stamp.id.timestamp);
        Ok(HistoricalVersion::ended(closed).filter(|_| is_meant))
    }

    /// Returns the newest state of a hard-linked inode that a binding shows and that began within `began` under that name.
    async fn linked_within(
        &self,
        binding: &Binding<'_>,
        began: &RangeInclusive<Timestamp>,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        let mut at = binding.state_time(*began.end());
        let first = binding.stamp.id.timestamp.max(*began.start());
        while at >= first
            && let Some(state) = self.linked_before(binding.ino, at).await?
        {
            let start = state.stamp.id.timestamp;
            let shown = binding.shows(state);
            if let Some(shown) = shown
                && shown.kept != Retained::Nothing
                && began.contains(&shown.stamp.id.timestamp)
            {
                return Ok(Some(shown));
            }
            let Some(before) = start.0.checked_sub(1) else {
                break;
            };
            at = Timestamp(before);
        }
        Ok(None)
    }

    /// Returns the newest state of a hard-linked inode that began at or before a timestamp.
    pub(super) async fn linked_before(
        &self,
        ino: Ino,
        at: Timestamp,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        if let Some(InodeRow::Linked(row)) = self.rows.row(&keys::inode(ino)).await? {
            let last = row.state.shown(ino, &row.node, Timestamp(0));
            if let Some(last) = last.filter(|last| last.stamp.id.timestamp <= at) {
                return Ok(Some(HistoricalVersion::of(last, None)));
            }
        }
        let end = keys::after(&keys::linked_history(ino));
        let mut from = keys::linked_history_at(ino, at);
        while let Some((key, value)) = self.rows.first(from, end.clone()).await? {
            let closed: VersionRecord = LinkedVersionTable::decode(&value)?;
            if closed.node.is_some() {
                return Ok(HistoricalVersion::ended(closed));
            }
            from = [&key[..], &[0]].concat().into();
        }
        Ok(None)
    }
}
