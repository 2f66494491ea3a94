//! Which names show a version that has ended: its own name, or those through which a state of a hard-linked inode shows.

use std::ops::Range;

use bytes::Bytes;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{EndOp, Ino, Kind, Timestamp, VersionId};
use crate::store::schema::keys;
use crate::store::schema::rows::VersionRecord;
use crate::store::schema::tables::{BindingTable, RowTable, VersionTable};
use crate::store::tree::version_record::VersionRows;

/// Binding rows that are read at once.
const PAGE: usize = 256;

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
    pub(crate) async fn read(rows: &Snapshot, key: &Bytes) -> Result<Option<Self>, StoreError> {
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

    pub(crate) fn key(&self) -> Bytes {
        self.list.key(self.record.stamp.id)
    }
}

/// A version as one name shows it.
#[derive(Clone, Debug)]
pub(crate) struct ShownVersion {
    pub(crate) name: Dentry,
    /// From when to when.
    pub(crate) time: Range<Timestamp>,
    /// When it ended under the name, before it was extended over later versions that are gone.
    pub(crate) own_end: Timestamp,
    pub(crate) after: NameAfter,
    /// The directory that the version is; `None` for a file.
    pub(crate) directory: Option<Ino>,
}

/// What was with the name after a version.
#[derive(Clone, Debug)]
pub(crate) enum NameAfter {
    /// It led to the same hard-linked inode, and showed the inode's next state.
    SameInode,
    /// Its record ended with the version.
    Ended(NameEnd),
}

/// The end of a record of a name.
#[derive(Clone, Debug)]
pub(crate) struct NameEnd {
    /// The id of the record.
    pub(crate) id: VersionId,
    pub(crate) op: EndOp,
    pub(crate) moved_to: Option<Dentry>,
    /// Since when the name, or the directory that it is, had existed.
    pub(crate) existed_since: Timestamp,
}

impl ShownVersion {
    /// The version, or the binding to a hard-linked inode, of a record of a name.
    fn of_record(name: Dentry, record: &VersionRecord, from: Timestamp) -> Self {
        let is_directory = matches!(&record.node, Some(node) if node.kind == Kind::Directory);
        Self {
            name,
            time: from..record.end,
            own_end: record.own_end(),
            after: NameAfter::Ended(NameEnd {
                id: record.stamp.id,
                op: record.end_op,
                moved_to: record.moved_to.clone(),
                existed_since: existed_since(record),
            }),
            directory: is_directory.then_some(record.ino),
        }
    }

    pub(crate) fn is_transient(&self) -> bool {
        matches!(&self.after, NameAfter::Ended(end) if end.op == EndOp::Transient)
    }
}

/// Returns since when what a record shows had existed when it ended: a directory since it was made, whatever its name was; anything
/// else for as long as the name had.
pub(super) fn existed_since(record: &VersionRecord) -> Timestamp {
    let directory = record.node.as_ref();
    let directory = directory.filter(|node| node.kind == Kind::Directory);
    let made = directory.map(|node| node.attrs.btime.timestamp());
    made.map_or(record.alive_since, |made| made.min(record.alive_since))
}

/// A name of a hard-linked inode, as its `H B` row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoundName {
    pub(crate) name: Dentry,
    /// The id of the name's stamp, from which on it led to the inode.
    pub(crate) id: VersionId,
    /// When it ceased to; `None` while it does.
    pub(crate) end: Option<Timestamp>,
}

impl BoundName {
    /// Tells whether the name led to the inode after a state of it that ended at `at`.
    pub(crate) fn goes_on_after(&self, at: Timestamp) -> bool {
        self.end.is_none_or(|end| at < end)
    }
}

/// Returns the names that led to a hard-linked inode during `time`, the one that began last first.
///
/// # Errors
/// Errors of the index; `Corrupt`.
pub(crate) async fn bound_during(
    rows: &Snapshot,
    ino: Ino,
    time: &Range<Timestamp>,
) -> Result<Vec<BoundName>, StoreError> {
    let (mut from, end) = (keys::bindings(ino), keys::after(&keys::bindings(ino)));
    let mut bound = Vec::new();
    loop {
        let page = rows.scan(from, end.clone(), PAGE).await?;
        for (key, value) in &page {
            let (id, name) = keys::bound_name(key)
                .ok_or_else(|| StoreError::Corrupt("H B key: no name".to_owned()))?;
            let row = BindingTable::decode(value)?;
            if id.timestamp < time.end && row.end.is_none_or(|end| time.start < end) {
                let end = row.end;
                bound.push(BoundName { name, id, end });
            }
        }
        match page.last().filter(|_| page.len() == PAGE) {
            Some((key, _)) => from = [&key[..], &[0]].concat().into(),
            None => return Ok(bound),
        }
    }
}

/// Returns how each name shows a version that has ended; empty for a state of a hard-linked inode that no name shows any more.
///
/// # Errors
/// Errors of the index; `Corrupt`.
pub(crate) async fn shown_versions(
    rows: &Snapshot,
    version: &EndedVersion,
) -> Result<Vec<ShownVersion>, StoreError> {
    let EndedVersion { list, record } = version;
    let start = record.stamp.id.timestamp;
    let ino = match list {
        VersionRows::Of(name) => {
            return Ok(vec![ShownVersion::of_record(name.clone(), record, start)]);
        }
        VersionRows::Linked(ino) => *ino,
    };
    let mut shown = Vec::new();
    for BoundName { name, id, end } in bound_during(rows, ino, &(start..record.end)).await? {
        let from = start.max(id.timestamp);
        if end.is_none_or(|end| record.end < end) {
            shown.push(ShownVersion {
                name,
                time: from..record.end,
                own_end: record.own_end(),
                after: NameAfter::SameInode,
                directory: None,
            });
            continue;
        }
        let key: Bytes = keys::closed(name.parent, &name.name, id).bytes();
        if let Some(value) = rows.get(&key).await? {
            let binding = VersionTable::decode(&value)?;
            let ended = ShownVersion::of_record(name, &binding, from);
            shown.push(ShownVersion {
                // The name may have ended only with a later state that is gone.
                own_end: ended.own_end.min(record.own_end()),
                ..ended
            });
        }
    }
    Ok(shown)
}
