//! Single versions of a file's name: the one that began within a span of time, and the newest few.
//!
//! Each is found by a seek, however many versions the name has. Older versions may lie under another name, from which a rename or
//! an undelete brought the file: reading a whole list tells where ([`Predecessor`]), and then they are found by a seek as well.
//! Invariant: what is found here is in the list of [`History::history`], and the other way round.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::store::history::History;
use crate::store::history::as_of::{Binding, HistoricalVersion, last_of};
use crate::store::model::error::StoreError;
use crate::store::model::version::{
    EndOp, Ino, Kind, Op, PastEntry, Retained, Timestamp, VersionId,
};
use crate::store::schema::keys;
use crate::store::schema::rows::{DentryBody, InodeRow, VersionRecord};
use crate::store::schema::tables::{LinkedVersionTable, RowTable, VersionTable};

/// Rows read at once behind the first one, where that is no version of a file.
const SKIP_CHUNK: usize = 128;
/// Any time.
const ALWAYS: RangeInclusive<Timestamp> = Timestamp(0)..=Timestamp(u64::MAX);

/// Every version of a name, and where those before its own lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionList {
    /// The versions, oldest first, the current one last.
    pub versions: Vec<PastEntry>,
    /// The names the list goes on under, youngest first.
    pub predecessors: Vec<Predecessor>,
}

/// A part of a history that lies under another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    pub(super) directory: Ino,
    pub(super) name: Bytes,
    /// When the first and the last version of the part began.
    pub(super) began: RangeInclusive<Timestamp>,
    pub(super) successor: Successor,
}

/// The version that goes on from a [`Predecessor`]: the list leads there as long as this version exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Successor {
    pub(super) directory: Ino,
    pub(super) name: Bytes,
    pub(super) version: VersionId,
}

/// A name in a directory.
#[derive(Clone, Copy)]
struct DentryRef<'a> {
    parent: Ino,
    name: &'a [u8],
}

/// Whether a version came from another name.
fn has_predecessor(entry: &PastEntry) -> bool {
    entry.renamed_from.is_some() && matches!(entry.op, Op::Rename | Op::Undelete)
}

impl History {
    /// The newest version of a file that began within `began` under its own name; none of its predecessors'.
    ///
    /// # Errors
    /// Failures of the store.
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

    /// The newest version of a file that began within `began` in an earlier part of its history; `None` as well where the history
    /// does not lead there any more.
    ///
    /// # Errors
    /// Failures of the store.
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

    /// Whether a history still goes on in `part`.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn leads_to(&self, part: &Predecessor) -> Result<bool, StoreError> {
        let successor = &part.successor;
        let at = successor.version.timestamp;
        let found = self.file_version(successor.directory, &successor.name, at..=at);
        Ok(found
            .await?
            .is_some_and(|found| found.version == successor.version))
    }

    /// The newest `count` versions of a file, oldest first.
    ///
    /// # Errors
    /// Failures of the store.
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

impl History {
    /// Whether a name has a version of a file.
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

    /// The newest version of a file that began within `began`. Closed ones are looked at first, because most are.
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
            // What was current at the first look may be closed at the second.
            None => self.closed_within(dentry, began).await,
        }
    }

    /// The same, the current one looked at first.
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
        let Some(entry) = self.tree.entry(parent, name).await? else {
            return Ok(None);
        };
        match entry.body {
            DentryBody::Own { node, state } => {
                let last = last_of(entry.ino, &node, &state, entry.alive_since);
                let last = last.filter(|last| last.node.kind != Kind::Directory);
                let last = last.filter(|last| began.contains(&last.stamp.id.timestamp));
                Ok(last.map(|last| HistoricalVersion::of(last, None)))
            }
            DentryBody::Linked(stamp) => {
                let binding = Binding {
                    ino: entry.ino,
                    stamp: &stamp,
                    until: None,
                    kept: Retained::Whole,
                };
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
            let rows = self.core.index.scan(from, end.clone(), limit).await?;
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
                // Older ones began and ended before.
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

    /// The newest version in a closed row that began within `began`, if the row is one for a list of versions of a file.
    async fn within_closed(
        &self,
        closed: VersionRecord,
        began: &RangeInclusive<Timestamp>,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        if closed.end_op == EndOp::Transient || closed.kept == Retained::Nothing {
            return Ok(None);
        }
        let Some(node) = closed.node else {
            let binding = Binding {
                ino: closed.ino,
                stamp: &closed.stamp,
                until: Some(closed.end),
                kept: closed.kept,
            };
            return self.linked_within(&binding, began).await;
        };
        let is_meant = node.kind != Kind::Directory && began.contains(&closed.stamp.id.timestamp);
        Ok(is_meant.then_some(HistoricalVersion {
            ino: closed.ino,
            node,
            stamp: closed.stamp,
            ended: Some(closed.end),
            kept: closed.kept,
            shared: None,
        }))
    }

    /// The newest version of a hard-linked inode that a binding shows and that began there within `began`.
    async fn linked_within(
        &self,
        binding: &Binding<'_>,
        began: &RangeInclusive<Timestamp>,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        let last = binding
            .until
            .map(|until| Timestamp(until.0.saturating_sub(1)));
        let mut at = last.map_or(*began.end(), |last| last.min(*began.end()));
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

    /// The newest state of a hard-linked inode that began at or before a timestamp.
    pub(super) async fn linked_before(
        &self,
        ino: Ino,
        at: Timestamp,
    ) -> Result<Option<HistoricalVersion>, StoreError> {
        if let Some(InodeRow::Linked(row)) = self.core.index.row(&keys::inode(ino)).await? {
            let last = last_of(ino, &row.node, &row.state, Timestamp(0));
            if let Some(last) = last.filter(|last| last.stamp.id.timestamp <= at) {
                return Ok(Some(HistoricalVersion::of(last, None)));
            }
        }
        let end = keys::after(&keys::linked_history(ino));
        let mut from = keys::linked_history_at(ino, at);
        while let Some((key, value)) = self.core.index.first(from, end.clone()).await? {
            let closed: VersionRecord = LinkedVersionTable::decode(&value)?;
            if let Some(node) = closed.node {
                return Ok(Some(HistoricalVersion {
                    ino,
                    node,
                    stamp: closed.stamp,
                    ended: Some(closed.end),
                    kept: closed.kept,
                    shared: None,
                }));
            }
            from = [&key[..], &[0]].concat().into();
        }
        Ok(None)
    }
}
