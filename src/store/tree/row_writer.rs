//! Row writer: the rows that make a state current, end a version, or bind, move and remove a name.
//!
//! The functions only add rows to a transaction; the callers hold the locks and update the cached inodes.
//!
//! Invariants: a version that stops being current leaves a version record (`H V`, or `H W` for a hard-linked inode) in the same
//! batch. `G R` counts each content once per row that references it.

use std::time::Duration;

use crate::store::commit::txn::Txn;
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{Dentry, UsageChange};
use crate::store::model::version::{
    Author, EndOp, Ino, Op, Origin, Retained, Stamp, Timestamp, VersionId,
};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryRow, EntryState, ExpiryRow, InodeRow, InodeState, LastVersion,
    LinkedRow, LocationRow, OrphanRow, RemovalBurst, VersionRecord,
};
use crate::store::schema::tables::{RowTable, VersionTable};
use crate::store::tree::Tree;
use crate::store::tree::inode::{CachedDirectory, FileInode, LinkState};

/// A name that a rename takes away within this time of its creation is transient: it is in no list of versions.
pub(crate) const TRANSIENT_MAX: Duration = Duration::from_secs(10);
/// Longest gap between two removals of one removal burst.
const BURST_GAP: Duration = Duration::from_secs(60);

/// Why an inode loses a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unbinding {
    /// The name is removed.
    Removed,
    /// Another inode takes the name.
    Replaced,
    /// An unborn inode takes the name: the old version stays the latest one until the new inode has a version.
    ReplacedUnborn,
}

/// When and how a version or a binding ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VersionEnd {
    pub(crate) at: Timestamp,
    pub(crate) op: EndOp,
}

impl VersionEnd {
    pub(crate) fn new(at: Timestamp, op: EndOp) -> Self {
        Self { at, op }
    }
}

/// The removal of one name of an inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameRemoval<'a> {
    pub(crate) slot: &'a Dentry,
    pub(crate) entry: &'a DentryRow,
    pub(crate) cause: Unbinding,
    /// Whether the inode has users, so that it outlives its last name.
    pub(crate) is_pinned: bool,
}

/// The name that a rename binds an inode to.
#[derive(Clone, Debug)]
pub(crate) struct BindTarget {
    pub(crate) slot: Dentry,
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
    /// Writes the row that says that an inode has `count` names from this operation on.
    pub(crate) fn count_links(&self, txn: &mut Txn, ino: Ino, count: u32) {
        let key = keys::link_count(ino, txn.timestamp);
        txn.put(key, &count);
    }

    pub(crate) fn stamp(
        &self,
        at: Timestamp,
        op: Op,
        author: &Author,
        origin: Option<Origin>,
    ) -> Stamp {
        let id = VersionId {
            timestamp: at,
            suffix: self.suffix(),
        };
        Stamp {
            id,
            op,
            author: author.clone(),
            host: self.core.config.host.clone(),
            origin,
        }
    }

    /// Writes the row of a file inode's current state.
    pub(crate) fn current_rows(
        &self,
        txn: &mut Txn,
        ino: Ino,
        file: &FileInode,
        node: &InodeState,
        state: &EntryState,
        alive_since: Timestamp,
    ) {
        match &file.link_state {
            LinkState::Single { place, bound, .. } => {
                let body = DentryBody::Own {
                    node: node.clone(),
                    state: state.clone(),
                };
                let entry = DentryRow {
                    ino,
                    bound: *bound,
                    alive_since,
                    body,
                };
                txn.put(keys::entry(place.parent, &place.name), &entry);
            }
            LinkState::HardLinked { nlink, .. } => {
                let row = LinkedRow {
                    node: node.clone(),
                    state: state.clone(),
                    nlink: *nlink,
                };
                txn.put(keys::inode(ino), &InodeRow::Linked(Box::new(row)));
            }
            LinkState::Unlinked => {
                let orphan = OrphanRow { node: node.clone() };
                txn.put(keys::orphan(ino), &orphan);
                return;
            }
        }
        match (state, &file.state) {
            (EntryState::Version(_), EntryState::Version(_)) => {}
            (EntryState::Version(_), _) => txn.delete(keys::provisional(ino)),
            (_, _) => txn.put(keys::provisional(ino), &()),
        }
    }

    /// Writes the rows that make `node` a version and end the last one; returns since when the name exists.
    pub(crate) fn version_rows(
        &self,
        txn: &mut Txn,
        ino: Ino,
        file: &FileInode,
        node: &InodeState,
        stamp: &Stamp,
    ) -> Timestamp {
        let at = stamp.id.timestamp;
        if !matches!(file.state, EntryState::Version(_)) {
            txn.unreference_content(&file.node.content);
        }
        let alive_since = match &file.state {
            EntryState::Unborn { .. } => {
                self.close_behind(txn, ino, file, VersionEnd::new(at, EndOp::Replaced))
            }
            _ => self.close_behind(txn, ino, file, VersionEnd::new(at, EndOp::Superseded)),
        };
        txn.reference_content(&node.content);
        self.current_rows(
            txn,
            ino,
            file,
            node,
            &EntryState::Version(stamp.clone()),
            alive_since,
        );
        alive_since
    }

    /// Ends the last version of a file inode's name. Returns since when the name exists; the time of `end` if it had no version.
    pub(crate) fn close_behind(
        &self,
        txn: &mut Txn,
        ino: Ino,
        file: &FileInode,
        end: VersionEnd,
    ) -> Timestamp {
        let Some(last) = file.last_version(ino) else {
            return end.at;
        };
        match &file.link_state {
            LinkState::Single { place, .. } => self.close(txn, place, &last, end),
            LinkState::HardLinked { place, .. } => {
                let closed = VersionRecord {
                    ino,
                    end: end.at,
                    end_op: end.op,
                    stamp: last.stamp.clone(),
                    node: Some(last.node),
                    kept: Retained::Whole,
                };
                txn.put(keys::linked_closed(ino, last.stamp.id), &closed);
                let ended = ExpiryRow {
                    id: last.stamp.id,
                    end_op: end.op,
                };
                txn.put(keys::ended(end.at, place.parent, &place.name), &ended);
            }
            LinkState::Unlinked => {}
        }
        last.alive_since
    }

    /// Writes the version record of an ended version of a directory entry.
    pub(crate) fn close(&self, txn: &mut Txn, slot: &Dentry, last: &LastVersion, end: VersionEnd) {
        let closed = VersionRecord {
            ino: last.ino,
            end: end.at,
            end_op: end.op,
            stamp: last.stamp.clone(),
            node: Some(last.node.clone()),
            kept: Retained::Whole,
        };
        self.close_row(txn, slot, &closed);
    }

    pub(crate) fn close_row(&self, txn: &mut Txn, slot: &Dentry, closed: &VersionRecord) {
        let id = closed.stamp.id;
        txn.put(keys::closed(slot.parent, &slot.name, id), closed);
        txn.put(
            keys::ended(closed.end, slot.parent, &slot.name),
            &ExpiryRow {
                id,
                end_op: closed.end_op,
            },
        );
    }

    /// Ends the binding of a name to a hard-linked inode. The record has no state: the inode's own records (`H W`) have it.
    pub(crate) fn unbind(
        &self,
        txn: &mut Txn,
        slot: &Dentry,
        ino: Ino,
        stamp: &Stamp,
        end: VersionEnd,
    ) {
        let closed = VersionRecord {
            ino,
            end: end.at,
            end_op: end.op,
            stamp: stamp.clone(),
            node: None,
            kept: Retained::Whole,
        };
        self.close_row(txn, slot, &closed);
    }

    /// Changes a directory's times and counters. The caller merges the returned row into the cached directory after the enqueue.
    pub(crate) fn touch(
        &self,
        txn: &mut Txn,
        directory: Ino,
        change: DirectoryRow,
    ) -> DirectoryRow {
        let time = txn.time;
        let row = DirectoryRow {
            mtime: Some((txn.timestamp, time)),
            ctime: Some((txn.timestamp, time)),
            ..change
        };
        txn.merge(keys::inode(directory), &InodeRow::Directory(row.clone()));
        row
    }

    /// Removes one name of a file inode. Returns the link state that remains.
    pub(crate) fn detach(
        &self,
        txn: &mut Txn,
        ino: Ino,
        file: &FileInode,
        removal: NameRemoval<'_>,
    ) -> LinkState {
        let NameRemoval {
            slot,
            entry,
            cause,
            is_pinned,
        } = removal;
        let at = txn.timestamp;
        let end_op = if cause == Unbinding::Removed {
            EndOp::Deleted
        } else {
            EndOp::Replaced
        };
        if let DentryBody::Linked(stamp) = &entry.body {
            self.unbind(txn, slot, ino, stamp, VersionEnd::new(at, end_op));
            if cause == Unbinding::Removed {
                interval_tree::add_removed(
                    &mut txn.rows,
                    slot.parent,
                    &slot.name,
                    entry.alive_since.min(at)..at,
                );
            }
            if let Some(link_state) = self.fewer_links(txn, ino, file) {
                return link_state;
            }
            txn.delete(keys::inode(ino));
            self.close_behind(txn, ino, file, VersionEnd::new(at, end_op));
        } else if cause != Unbinding::ReplacedUnborn {
            let alive_since = self.close_behind(txn, ino, file, VersionEnd::new(at, end_op));
            if cause == Unbinding::Removed && alive_since < at {
                interval_tree::add_removed(&mut txn.rows, slot.parent, &slot.name, alive_since..at);
            }
        }
        txn.delete(keys::place(ino));
        let counted = !matches!(file.state, EntryState::Version(_));
        if counted {
            txn.delete(keys::provisional(ino));
        }
        txn.usage = UsageChange {
            bytes: txn
                .usage
                .bytes
                .wrapping_sub(file.node.space().cast_signed()),
            files: txn.usage.files - 1,
        };
        if is_pinned {
            txn.put(
                keys::orphan(ino),
                &OrphanRow {
                    node: file.node.clone(),
                },
            );
            if !counted {
                txn.reference_content(&file.node.content);
            }
        } else if counted {
            txn.unreference_content(&file.node.content);
        }
        LinkState::Unlinked
    }

    /// Removes one name of a hard-linked inode; `None` if it was the last one.
    fn fewer_links(&self, txn: &mut Txn, ino: Ino, file: &FileInode) -> Option<LinkState> {
        let LinkState::HardLinked { place, nlink } = &file.link_state else {
            return None;
        };
        if *nlink <= 1 {
            return None;
        }
        self.count_links(txn, ino, nlink - 1);
        let mut node = file.node.clone();
        node.attrs.ctime = txn.time;
        let row = LinkedRow {
            node,
            state: file.state.clone(),
            nlink: nlink - 1,
        };
        txn.put(keys::inode(ino), &InodeRow::Linked(Box::new(row)));
        Some(LinkState::HardLinked {
            place: place.clone(),
            nlink: nlink - 1,
        })
    }

    /// Ends a file inode's state under its old name in a rename; returns whether a version record of the old name references it.
    pub(crate) async fn leave(
        &self,
        txn: &mut Txn,
        ino: Ino,
        file: &FileInode,
        entry: &DentryRow,
        slot: &Dentry,
        exchanged: bool,
    ) -> Result<bool, StoreError> {
        let at = txn.timestamp;
        let since = entry.alive_since;
        let young = at.0.saturating_sub(since.0) < TRANSIENT_MAX.as_nanos() as u64;
        if let DentryBody::Linked(stamp) = &entry.body {
            self.unbind(txn, slot, ino, stamp, VersionEnd::new(at, EndOp::RenamedTo));
            interval_tree::add(&mut txn.rows, slot.parent, &slot.name, since.min(at)..at);
            return Ok(true);
        }
        let passed = young
            && !exchanged
            && !matches!(file.state, EntryState::Unborn { behind: Some(_) })
            && !self.is_undeleted(&file.state, slot, since).await?;
        if passed {
            self.transient_since(txn, slot, since).await?;
        }
        let end_op = if passed {
            EndOp::Transient
        } else {
            EndOp::RenamedTo
        };
        let since = self.close_behind(txn, ino, file, VersionEnd::new(at, end_op));
        if since < at {
            interval_tree::add(&mut txn.rows, slot.parent, &slot.name, since..at);
        }
        Ok(!matches!(file.state, EntryState::Unborn { .. }))
    }

    /// Tells whether the name's life began with an undelete. Such a name has history, so it is not transient however young it is.
    async fn is_undeleted(
        &self,
        state: &EntryState,
        slot: &Dentry,
        since: Timestamp,
    ) -> Result<bool, StoreError> {
        let current = state.shown_stamp();
        if let Some(stamp) = current.filter(|stamp| stamp.id.timestamp <= since) {
            return Ok(stamp.op == Op::Undelete);
        }
        let from = keys::history_at(slot.parent, &slot.name, since);
        let until = keys::after(&keys::history(slot.parent, &slot.name));
        let Some((_, value)) = self.core.index.first(from, until).await? else {
            return Ok(false);
        };
        let first: VersionRecord = VersionTable::decode(&value)?;
        Ok(first.stamp.id.timestamp == since && first.stamp.op == Op::Undelete)
    }

    /// Changes the records of a directory entry's ended versions that began at or after `since` to `Transient`.
    async fn transient_since(
        &self,
        txn: &mut Txn,
        slot: &Dentry,
        since: Timestamp,
    ) -> Result<(), StoreError> {
        let from = keys::history(slot.parent, &slot.name);
        let until = keys::history_at(
            slot.parent,
            &slot.name,
            Timestamp(since.0.saturating_sub(1)),
        );
        for (_, value) in self.core.index.scan(from, until, usize::MAX).await? {
            let closed: VersionRecord = VersionTable::decode(&value)?;
            self.close_row(
                txn,
                slot,
                &VersionRecord {
                    end_op: EndOp::Transient,
                    ..closed
                },
            );
        }
        Ok(())
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
        if let LinkState::HardLinked { nlink, .. } = &file.link_state {
            let link_state = self.bind_linked(txn, ino, file, *nlink, arrival, &node);
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
        };
        txn.put(keys::entry(arrival.slot.parent, &arrival.slot.name), &entry);
        self.put_location(txn, ino, &arrival.slot);
        (
            LinkState::Single {
                place: arrival.slot.clone(),
                bound: at,
                alive_since,
            },
            node,
            state,
        )
    }

    /// Binds a hard-linked inode to a new name in place of one of its old ones, and writes the changed ctime to the inode's row.
    fn bind_linked(
        &self,
        txn: &mut Txn,
        ino: Ino,
        file: &FileInode,
        nlink: u32,
        arrival: &BindTarget,
        node: &InodeState,
    ) -> LinkState {
        let entry = DentryRow {
            ino,
            bound: arrival.at,
            alive_since: arrival.alive_since.unwrap_or(arrival.at),
            body: DentryBody::Linked(arrival.stamp.clone()),
        };
        txn.put(keys::entry(arrival.slot.parent, &arrival.slot.name), &entry);
        self.put_location(txn, ino, &arrival.slot);
        let row = LinkedRow {
            node: node.clone(),
            state: file.state.clone(),
            nlink,
        };
        txn.put(keys::inode(ino), &InodeRow::Linked(Box::new(row)));
        LinkState::HardLinked {
            place: arrival.slot.clone(),
            nlink,
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

    pub(crate) fn put_location(&self, txn: &mut Txn, ino: Ino, slot: &Dentry) {
        let place = LocationRow {
            directory: slot.parent,
            name: slot.name.clone(),
        };
        txn.put(keys::place(ino), &place);
    }
}

/// Returns a directory's removal burst after a removal at `at`; `child` is where the burst of a removed subdirectory began.
pub(crate) fn removal_burst(
    ino: Ino,
    directory: &CachedDirectory,
    at: Timestamp,
    child: Option<Timestamp>,
) -> (Timestamp, Option<Box<RemovalBurst>>) {
    let begins = child.unwrap_or(at);
    let run = match &directory.row.removal_burst {
        Some((_, Some(run))) if goes_on(run, begins) => RemovalBurst {
            first: run.first.min(begins),
            last: at,
            mtime: run.mtime,
        },
        _ => RemovalBurst {
            first: begins,
            last: at,
            mtime: directory.node_now(ino).attrs.mtime,
        },
    };
    (at, Some(Box::new(run)))
}

/// Tells whether a removal at `at` belongs to a removal burst.
pub(crate) fn goes_on(run: &RemovalBurst, at: Timestamp) -> bool {
    at.0.saturating_sub(run.last.0) <= BURST_GAP.as_nanos() as u64
}
