//! Move rows: the rows of a rename, which end the state of an inode under its old name and bind the inode to the new one.
//!
//! The functions only add rows to a transaction; the caller holds the locks and updates the cached inodes.

use std::time::Duration;

use crate::store::commit::txn::Txn;
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::ignored_names::is_backup_of;
use crate::store::model::version::{EndOp, Ino, Op, Stamp, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryLocation, DirectoryRow, EntryState, InodeRow, InodeState,
    LastVersion, LinkedRow, OlderVersions, VersionRecord,
};
use crate::store::schema::tables::{RowTable, VersionTable};
use crate::store::tree::Tree;
use crate::store::tree::inode::{CachedDirectory, FileInode, LinkState};
use crate::store::tree::review::{names_of, review};
use crate::store::tree::row_writer::VersionEnd;
use crate::store::tree::version_record::VersionRows;

/// A name that a rename takes away within this time of its creation is transient: it is in no list of versions. A rename to the
/// name of a backup does not make it transient.
pub(crate) const TRANSIENT_MAX: Duration = Duration::from_secs(10);
/// Longest time between the end of a name and its next version that belongs to one save.
const REWRITE_MAX: Duration = Duration::from_secs(10);
/// Version records that are read at once after the newest one.
const LIFE_CHUNK: usize = 128;

/// Tells whether a version that began at `began` under a name that did not exist since `ended` continues the line of versions.
pub(crate) fn is_rewrite(ended: Timestamp, began: Timestamp) -> bool {
    began.0.saturating_sub(ended.0) < REWRITE_MAX.as_nanos() as u64
}

/// The name that a rename binds an inode to.
#[derive(Clone, Debug)]
pub(crate) struct BindTarget {
    pub(crate) dentry: Dentry,
    pub(crate) at: Timestamp,
    /// Since when the name has existed; `None` for a new name.
    pub(crate) alive_since: Option<Timestamp>,
    /// The version that an unborn inode hides until its first save.
    pub(crate) behind: Option<Box<LastVersion>>,
    pub(crate) stamp: Stamp,
    /// Both names are exchanged: the old name continues to exist, so its version is never transient.
    pub(crate) exchanged: bool,
}

impl Tree {
    /// Ends a file inode's state under its old name in a rename; returns whether a version record of the old name references it.
    pub(crate) async fn leave(
        &self,
        txn: &mut Txn,
        ino: Ino,
        file: &FileInode,
        entry: &DentryRow,
        dentry: &Dentry,
        arrival: &BindTarget,
    ) -> Result<bool, StoreError> {
        let at = txn.timestamp;
        let since = entry.alive_since;
        let young = at.0.saturating_sub(since.0) < TRANSIENT_MAX.as_nanos() as u64;
        if let DentryBody::Linked(stamp) = &entry.body {
            let end = VersionEnd::moved(at, EndOp::RenamedTo, &arrival.dentry);
            review(txn, dentry, entry.older);
            self.unbind(txn, dentry, ino, stamp, since.min(at), end);
            interval_tree::add(
                &mut txn.rows,
                dentry.parent,
                &dentry.name,
                since.min(at)..at,
            );
            return Ok(true);
        }
        let is_transient = young
            && !arrival.exchanged
            && !is_backup_of(&dentry.name, &arrival.dentry.name)
            && !matches!(file.state, EntryState::Unborn { behind: Some(_) })
            && self.mark_transient(txn, dentry, since, &file.state).await?;
        let end_op = if is_transient {
            EndOp::Transient
        } else {
            EndOp::RenamedTo
        };
        let end = VersionEnd::moved(at, end_op, &arrival.dentry);
        let since = self.close_behind(txn, ino, file, end);
        if since < at {
            interval_tree::add(&mut txn.rows, dentry.parent, &dentry.name, since..at);
        }
        Ok(!matches!(file.state, EntryState::Unborn { .. }))
    }

    /// Tells whether a name that is less than [`TRANSIENT_MAX`] old is transient, and changes the records of its ended versions to
    /// `Transient` if it is. A name has history, however young it is, if its life began with an undelete, or if a version that was
    /// not transient ended shortly before: a program that saves had renamed or removed it.
    async fn mark_transient(
        &self,
        txn: &mut Txn,
        dentry: &Dentry,
        since: Timestamp,
        state: &EntryState,
    ) -> Result<bool, StoreError> {
        let (ended, previous) = self.records_of_life(dentry, since).await?;
        let of_current = state.shown_stamp();
        let first = ended.last().map(|first| &first.stamp).or(of_current);
        let is_undeleted =
            first.is_some_and(|first| first.id.timestamp <= since && first.op == Op::Undelete);
        let is_rewritten = previous.is_some_and(|previous| {
            previous.end_op != EndOp::Transient && is_rewrite(previous.end, since)
        });
        if is_undeleted || is_rewritten {
            return Ok(false);
        }
        let rows = VersionRows::Of(dentry.clone());
        for closed in ended {
            let end_op = EndOp::Transient;
            rows.put(txn, &VersionRecord { end_op, ..closed });
        }
        Ok(true)
    }

    /// Returns the records of a name's ended versions that began at or after `since`, and of the newest one before, newest first.
    async fn records_of_life(
        &self,
        dentry: &Dentry,
        since: Timestamp,
    ) -> Result<(Vec<VersionRecord>, Option<VersionRecord>), StoreError> {
        let mut from = keys::history(dentry.parent, &dentry.name);
        let until = keys::after(&from);
        // Most transient names have no ended version.
        let (mut life, mut limit) = (Vec::new(), 1);
        loop {
            let rows = self.core.index.scan(from, until.clone(), limit).await?;
            let is_last = rows.len() < limit;
            let Some((key, _)) = rows.last() else {
                return Ok((life, None));
            };
            from = keys::after(key);
            for (_, value) in &rows {
                let record: VersionRecord = VersionTable::decode(value)?;
                if record.stamp.id.timestamp < since {
                    return Ok((life, Some(record)));
                }
                life.push(record);
            }
            if is_last {
                return Ok((life, None));
            }
            limit = LIFE_CHUNK;
        }
    }

    /// Binds a file inode to its new name. `traced` says whether the old name kept a version. Returns the inode's link state,
    /// node and entry state.
    pub(crate) fn bind(
        &self,
        txn: &mut Txn,
        ino: Ino,
        file: &FileInode,
        arrival: &BindTarget,
        traced: bool,
    ) -> (LinkState, InodeState, EntryState) {
        let at = arrival.at;
        let mut node = file.node.clone();
        node.attrs.ctime = txn.time;
        if let LinkState::HardLinked { nlink, older, .. } = &file.link_state {
            let row = LinkedRow {
                node: node.clone(),
                state: file.state.clone(),
                nlink: *nlink,
                older: *older,
            };
            let link_state = self.bind_linked(txn, ino, row, arrival);
            return (link_state, node, file.state.clone());
        }
        let born = !matches!(file.state, EntryState::Unborn { .. });
        let alive_since = match (born, &arrival.behind) {
            (true, _) => arrival.alive_since.unwrap_or(at),
            (false, Some(last)) => last.alive_since,
            (false, None) => Timestamp(u64::MAX),
        };
        let state = self.moved_state(txn, file, arrival, alive_since, traced);
        let body = DentryBody::Own {
            node: node.clone(),
            state: state.clone(),
        };
        let entry = DentryRow {
            ino,
            bound: at,
            alive_since,
            body,
            older: OlderVersions::NotHeld,
        };
        txn.put(
            keys::entry(arrival.dentry.parent, &arrival.dentry.name),
            &entry,
        );
        self.put_location(txn, ino, &arrival.dentry);
        (
            LinkState::Single {
                place: arrival.dentry.clone(),
                bound: at,
                alive_since,
                older: OlderVersions::NotHeld,
            },
            node,
            state,
        )
    }

    /// Binds a hard-linked inode to a new name in place of one of its old ones, and writes the inode's row, which has a new ctime.
    fn bind_linked(
        &self,
        txn: &mut Txn,
        ino: Ino,
        row: LinkedRow,
        arrival: &BindTarget,
    ) -> LinkState {
        let LinkedRow { nlink, older, .. } = row;
        review(txn, &names_of(ino), older);
        self.begin_binding(txn, ino, arrival.stamp.id, &arrival.dentry);
        let entry = DentryRow {
            ino,
            bound: arrival.at,
            alive_since: arrival.alive_since.unwrap_or(arrival.at),
            body: DentryBody::Linked(arrival.stamp.clone()),
            older: OlderVersions::NotHeld,
        };
        txn.put(
            keys::entry(arrival.dentry.parent, &arrival.dentry.name),
            &entry,
        );
        self.put_location(txn, ino, &arrival.dentry);
        txn.put(keys::inode(ino), &InodeRow::Linked(Box::new(row)));
        LinkState::HardLinked {
            place: arrival.dentry.clone(),
            nlink,
            older,
        }
    }

    /// Returns the state of a file inode under its new name; adds a reference to content that the old name's record keeps.
    fn moved_state(
        &self,
        txn: &mut Txn,
        file: &FileInode,
        arrival: &BindTarget,
        alive_since: Timestamp,
        traced: bool,
    ) -> EntryState {
        match &file.state {
            EntryState::Version(_) => {
                if traced {
                    txn.reference_content(&file.node.content);
                }
                EntryState::Version(arrival.stamp.clone())
            }
            EntryState::Provisional(last) => {
                if traced {
                    txn.reference_content(&last.node.content);
                }
                let last = LastVersion {
                    stamp: arrival.stamp.clone(),
                    alive_since,
                    ..LastVersion::clone(last)
                };
                EntryState::Provisional(Box::new(last))
            }
            EntryState::Unborn { .. } => EntryState::Unborn {
                behind: arrival.behind.clone(),
            },
        }
    }

    /// Writes the rows that move a directory to another name. Returns the change of the directory's own row.
    pub(crate) fn move_directory(
        &self,
        txn: &mut Txn,
        entry: &DentryRow,
        from: &Dentry,
        directory: &CachedDirectory,
        arrival: &BindTarget,
    ) -> DirectoryRow {
        let (at, ino) = (arrival.at, entry.ino);
        let place = directory.row.place.as_ref();
        let since = place.map_or(entry.bound, |(since, _)| *since);
        txn.dependencies.moves.push(ino);
        if let DentryBody::Own {
            state: EntryState::Version(stamp),
            ..
        } = &entry.body
        {
            let node = directory.node_now(ino);
            let last = LastVersion {
                ino,
                node: node.clone(),
                stamp: stamp.clone(),
                alive_since: entry.alive_since,
            };
            let end = VersionEnd::moved(at, EndOp::RenamedTo, &arrival.dentry);
            self.close(txn, from, &last, end);
            let life = entry.alive_since..at;
            interval_tree::add(&mut txn.rows, from.parent, &from.name, life);
            let moved = DentryRow {
                ino,
                bound: at,
                alive_since: arrival.alive_since.unwrap_or(at),
                body: DentryBody::Own {
                    node,
                    state: EntryState::Version(arrival.stamp.clone()),
                },
                older: OlderVersions::NotHeld,
            };
            txn.put(
                keys::entry(arrival.dentry.parent, &arrival.dentry.name),
                &moved,
            );
        }
        let directory_location = DirectoryLocation {
            parent: from.parent,
            name: from.name.clone(),
            end: at,
            removal_burst: None,
            generation: directory.row.generation,
        };
        txn.put(keys::directory_location(ino, since), &directory_location);
        let row = DirectoryRow {
            place: Some((at, arrival.dentry.clone())),
            ctime: Some((at, txn.time)),
            ..DirectoryRow::default()
        };
        txn.merge(keys::inode(ino), &InodeRow::Directory(row.clone()));
        row
    }
}
