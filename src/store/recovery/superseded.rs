//! Analysis of a journal whose writer lost the namespace: which epochs were superseded, and what their operations did.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use crate::meta::{Batch, Change, JournalToken};
use crate::store::commit::txn::Guards;
use crate::store::data::contents::PendingContent;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{Ino, Kind, Op, Stamp};
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::journal_record::{OperationRecord, Record};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, EntryState, InodeRow, InodeState, RangeRow, VersionRecord,
};
use crate::store::schema::tables::{
    DentryTable, InodeTable, LocationTable, RangeTable, RowTable, VersionTable,
};
use crate::sync::Arc;

/// The writers of the namespace that did not write this journal.
#[derive(Debug, Default)]
pub(crate) struct ForeignWriters {
    /// Per epoch, the first inode or content id that was free when the writer started.
    first_ids: BTreeMap<u64, u64>,
}

impl ForeignWriters {
    /// Finds the writers that have a watermark in the bucket and no record in the journal. Journal files are deleted
    /// oldest first, so every own epoch after the oldest remaining one still has a record.
    pub(crate) fn new(applied: &AppliedRow, records: &[(Record, JournalToken)]) -> Self {
        let own: HashSet<u64> = records
            .iter()
            .filter_map(|(record, _)| match record {
                Record::Epoch { epoch }
                | Record::Journaled { epoch, .. }
                | Record::Batch { epoch, .. }
                | Record::Open { epoch, .. } => Some(*epoch),
                Record::Operation(operation) => Some(operation.epoch),
                _ => None,
            })
            .collect();
        let watermarks = applied
            .watermarks
            .iter()
            .map(|mark| (mark.epoch, mark.first_id));
        Self {
            first_ids: watermarks
                .filter(|(epoch, _)| !own.contains(epoch))
                .collect(),
        }
    }

    /// Returns the lowest id that a later writer than `epoch` may have given: from it on, an id means something else in
    /// the bucket. `None` if no foreign writer came after `epoch`.
    pub(crate) fn since(&self, epoch: u64) -> Option<u64> {
        let later = self.first_ids.range(epoch.saturating_add(1)..);
        later.map(|(_, first_id)| *first_id).min()
    }
}

/// What an operation does to names.
#[derive(Debug, Default)]
pub(crate) struct NameEffects {
    /// Inodes that are moved from one directory entry to another.
    pub(crate) moved: Vec<(Ino, Dentry, Dentry)>,
    /// Inodes that lose their last name.
    pub(crate) unlinked: Vec<Ino>,
}

/// A directory entry and its row after the operation; `None` when the entry is removed.
type NameEffect = (Dentry, Option<DentryRow>);

impl NameEffects {
    pub(crate) fn of(rows: &Batch) -> Self {
        let all = named(rows);
        let mut moved = Vec::new();
        for (to, entry) in &all {
            let Some(entry) = entry else { continue };
            let left = all.iter().filter(|(from, other)| {
                from != to && other.as_ref().is_none_or(|other| other.ino != entry.ino)
            });
            moved.extend(left.map(|(from, _)| (entry.ino, from.clone(), to.clone())));
        }
        let unlinked = rows.rows().iter().filter_map(|(key, change)| match change {
            Change::Delete if LocationTable::has(key) => keys::trailing_ino(key),
            _ => None,
        });
        Self {
            unlinked: unlinked.collect(),
            moved,
        }
    }
}

fn named(rows: &Batch) -> Vec<NameEffect> {
    let rows = rows.rows().iter();
    rows.filter(|(key, _)| DentryTable::has(key))
        .filter_map(|(key, change)| {
            let dentry = keys::dentry(key)?;
            match change {
                Change::Put(value) => Some((dentry, Some(DentryTable::decode(value).ok()?))),
                Change::Delete => Some((dentry, None)),
                Change::Merge(_) => None,
            }
        })
        .collect()
}

/// An acknowledged operation that did not reach the bucket before another writer took the namespace.
#[derive(Debug)]
pub(crate) struct SupersededOperation {
    pub(crate) record: OperationRecord,
    /// The bytes of the operation; contents have the ids of the acknowledged operation.
    pub(crate) pending: Option<Arc<PendingContent>>,
    /// The last directory entry of the state that the operation writes.
    pub(crate) dentry: Option<Dentry>,
    pub(crate) held: Guards,
    pub(crate) token: JournalToken,
}

impl SupersededOperation {
    pub(crate) fn new(
        record: OperationRecord,
        pending: Option<Arc<PendingContent>>,
        held: Guards,
        token: JournalToken,
    ) -> Self {
        let mut superseded = Self {
            record,
            pending,
            dentry: None,
            held,
            token,
        };
        let content = superseded.record.content.as_ref();
        superseded.dentry = match (content, superseded.state()) {
            (Some(content), _) => Some(content.place.clone()),
            (None, Some((ino, ..))) => named(&superseded.record.rows)
                .into_iter()
                .find(|(_, entry)| entry.as_ref().is_some_and(|e| e.ino == ino))
                .map(|(dentry, _)| dentry)
                .or_else(|| record_slot(&superseded.record.rows, ino)),
            (None, None) => None,
        };
        superseded
    }

    /// Returns the state that the operation writes, if it has bytes of its own or is a new version of a file or
    /// symbolic link: the inode, its state, and the version's stamp unless the state is provisional.
    pub(crate) fn state(&self) -> Option<(Ino, InodeState, Option<Stamp>)> {
        let states = states(&self.record.rows);
        if let Some(content) = &self.record.content {
            let content = Some(content.content);
            return states
                .into_iter()
                .find(|(_, node, _)| node.content.reference() == content);
        }
        let at = self.record.timestamp;
        states.into_iter().find(|(_, node, stamp)| {
            let made = stamp.as_ref().is_some_and(|stamp| {
                let moved = matches!(stamp.op, Op::Rename | Op::Link | Op::Undelete);
                stamp.id.timestamp == at && !moved
            });
            made && matches!(node.kind, Kind::File | Kind::Symlink)
        })
    }

    /// Returns the inodes whose rows the operation writes into directory entries.
    pub(crate) fn nodes(&self) -> Vec<(Dentry, Ino, InodeState)> {
        let named = named(&self.record.rows).into_iter();
        named
            .filter_map(|(dentry, entry)| match entry? {
                DentryRow {
                    ino,
                    body: DentryBody::Own { node, .. },
                    ..
                } => Some((dentry, ino, node)),
                _ => None,
            })
            .collect()
    }
}

/// Returns all states in the rows that an operation writes.
fn states(rows: &Batch) -> Vec<(Ino, InodeState, Option<Stamp>)> {
    let mut all = Vec::new();
    for (key, change) in rows.rows() {
        let Change::Put(value) = change else { continue };
        let found = if DentryTable::has(key) {
            match DentryTable::decode(value) {
                Ok(DentryRow {
                    ino,
                    body: DentryBody::Own { node, state },
                    ..
                }) => Some((ino, node, state)),
                _ => None,
            }
        } else if InodeTable::has(key) {
            match (keys::trailing_ino(key), InodeTable::decode(value)) {
                (Some(ino), Ok(InodeRow::Linked(row))) => Some((ino, row.node, row.state)),
                _ => None,
            }
        } else if VersionTable::has(key) {
            conflict(value).map(|(ino, node, stamp)| (ino, node, EntryState::Version(stamp)))
        } else {
            None
        };
        let Some((ino, node, state)) = found else {
            continue;
        };
        let hidden = state.hidden().cloned();
        let stamp = match state {
            EntryState::Version(stamp) => Some(stamp),
            EntryState::Unborn { .. } | EntryState::Provisional(_) => None,
        };
        all.push((ino, node, stamp));
        all.extend(hidden.map(|last| (last.ino, last.node, Some(last.stamp))));
    }
    all
}

/// Returns the conflict version in a version record; an interrupted recovery wrote it.
fn conflict(value: &[u8]) -> Option<(Ino, InodeState, Stamp)> {
    let closed: VersionRecord = VersionTable::decode(value).ok()?;
    let made = closed.stamp.op == Op::Conflict;
    Some((closed.ino, closed.node.filter(|_| made)?, closed.stamp))
}

/// Returns the directory entry of the conflict version of an inode among the rows.
fn record_slot(rows: &Batch, ino: Ino) -> Option<Dentry> {
    rows.rows().iter().find_map(|(key, change)| match change {
        Change::Put(value) if VersionTable::has(key) && conflict(value)?.0 == ino => {
            keys::record_slot(key)
        }
        _ => None,
    })
}

/// Returns the range rows that an operation writes: lineage, range number, row. Its content uses them as a base.
pub(crate) fn ranges(rows: &Batch) -> Vec<(u64, u64, RangeRow)> {
    let number = |key: &Bytes, at: usize| {
        let bytes = key.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    let rows = rows.rows().iter();
    rows.filter_map(|(key, change)| match change {
        Change::Put(value) if RangeTable::has(key) => Some((
            number(key, 2)?,
            number(key, 10)?,
            RangeTable::decode(value).ok()?,
        )),
        _ => None,
    })
    .collect()
}

/// Describes an operation in a few words, for the log.
pub(crate) fn title(record: &OperationRecord) -> String {
    let show = |dentry: &Dentry| format!("{:?}", String::from_utf8_lossy(&dentry.name));
    let names = named(&record.rows);
    let moved = NameEffects::of(&record.rows).moved;
    if let Some((_, from, to)) = moved.first() {
        return format!("rename of {} to {}", show(from), show(to));
    }
    match names.first() {
        Some((dentry, None)) => format!("removal of {}", show(dentry)),
        Some((dentry, Some(entry))) if !record.dependencies.makes.is_empty() => {
            format!("directory {} (inode {})", show(dentry), entry.ino.0)
        }
        Some((dentry, Some(entry))) if entry.bound == record.timestamp => {
            format!("new name {}", show(dentry))
        }
        Some((dentry, Some(_))) => format!("attributes of {}", show(dentry)),
        None => format!("operation {} of epoch {}", record.number, record.epoch),
    }
}
