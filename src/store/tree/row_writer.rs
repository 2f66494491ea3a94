//! Row writer: the rows that make a state current, end a version, or bind, move and remove a name.
//!
//! The functions only add rows to a transaction; the callers hold the locks and update the cached inodes.
//!
//! Invariants: a version that stops being current leaves a version record (`H V`, or `H W` for a hard-linked inode) in the same
//! batch. `G R` counts each content once per row that references it.

use std::time::Duration;

use crate::store::commit::txn::Txn;
use crate::store::index::interval_tree;
use crate::store::model::ids::{Dentry, UsageChange};
use crate::store::model::version::{
    Author, EndOp, Ino, Op, Origin, Retained, Stamp, Timestamp, VersionId,
};
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::rows::{
    BindingRow, DentryBody, DentryRow, DirectoryRow, EntryState, Filing, InodeRow, InodeState,
    LastVersion, LinkedRow, LocationRow, OrphanRow, RemovalBurst, VersionRecord,
};
use crate::store::tree::Tree;
use crate::store::tree::inode::{CachedDirectory, FileInode, LinkState};
use crate::store::tree::review::{names_of, review};
use crate::store::tree::version_record::VersionRows;

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
pub(crate) struct VersionEnd<'a> {
    at: Timestamp,
    op: EndOp,
    /// The name that a rename moved the inode to.
    to: Option<&'a Dentry>,
}

impl<'a> VersionEnd<'a> {
    pub(crate) fn new(at: Timestamp, op: EndOp) -> Self {
        Self { at, op, to: None }
    }

    /// The end of a version whose inode a rename moved to `to`.
    pub(crate) fn moved(at: Timestamp, op: EndOp, to: &'a Dentry) -> Self {
        let to = Some(to);
        Self { at, op, to }
    }

    /// Returns the record of a version that ends; `node` is `None` for a binding to a hard-linked inode. The record is not filed.
    pub(crate) fn record(
        self,
        ino: Ino,
        stamp: Stamp,
        node: Option<InodeState>,
        alive_since: Timestamp,
    ) -> VersionRecord {
        VersionRecord {
            ino,
            end: self.at,
            end_op: self.op,
            stamp,
            node,
            kept: Retained::Whole,
            alive_since,
            moved_to: self.to.cloned(),
            own_end: None,
            recorded: None,
            filed: Filing::Nowhere,
        }
    }
}

/// The removal of one name of an inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameRemoval<'a> {
    pub(crate) dentry: &'a Dentry,
    pub(crate) entry: &'a DentryRow,
    pub(crate) cause: Unbinding,
    /// Whether the inode has users, so that it outlives its last name.
    pub(crate) is_pinned: bool,
}

impl Tree {
    /// Writes the row that says that an inode has `count` names from this operation on.
    pub(crate) fn count_links(&self, txn: &mut Txn, ino: Ino, count: u32) {
        let key = keys::link_count(ino, txn.timestamp);
        txn.put(key, &count);
    }

    /// Writes that a name of the namespace changed at `at`, unless the hour has that row already.
    pub(crate) fn note_change(&self, txn: &mut Txn, at: Timestamp) {
        if let Some(hour) = self.core.changed_hours.needs_row(at) {
            txn.put(retention_keys::changed_hour(hour), &());
        }
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
            LinkState::Single {
                place,
                bound,
                older,
                ..
            } => {
                let body = DentryBody::Own {
                    node: node.clone(),
                    state: state.clone(),
                };
                let entry = DentryRow {
                    ino,
                    bound: *bound,
                    alive_since,
                    body,
                    older: *older,
                };
                txn.put(keys::entry(place.parent, &place.name), &entry);
            }
            LinkState::HardLinked { nlink, older, .. } => {
                let row = LinkedRow {
                    node: node.clone(),
                    state: state.clone(),
                    nlink: *nlink,
                    older: *older,
                };
                txn.put(keys::inode(ino), &InodeRow::Linked(Box::new(row)));
            }
            LinkState::Unlinked => {
                let orphan = OrphanRow { node: node.clone() };
                txn.put(keys::orphan(ino), &orphan);
                return;
            }
        }
        if let EntryState::Version(stamp) = state {
            self.note_change(txn, stamp.id.timestamp);
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
        end: VersionEnd<'_>,
    ) -> Timestamp {
        let Some(last) = file.last_version(ino) else {
            return end.at;
        };
        match &file.link_state {
            LinkState::Single { place, older, .. } => {
                review(txn, place, *older);
                self.close(txn, place, &last, end);
            }
            LinkState::HardLinked { older, .. } => {
                review(txn, &names_of(ino), *older);
                let stamp = last.stamp.clone();
                let record = end.record(ino, stamp, Some(last.node), last.alive_since);
                let _filed = self.close_record(txn, &VersionRows::Linked(ino), record);
            }
            LinkState::Unlinked => {}
        }
        last.alive_since
    }

    /// Writes the version record of an ended version of a directory entry.
    pub(crate) fn close(
        &self,
        txn: &mut Txn,
        dentry: &Dentry,
        last: &LastVersion,
        end: VersionEnd<'_>,
    ) {
        let (stamp, node) = (last.stamp.clone(), Some(last.node.clone()));
        let record = end.record(last.ino, stamp, node, last.alive_since);
        let _filed = self.close_record(txn, &VersionRows::Of(dentry.clone()), record);
    }

    /// Writes the record of a version that ends with this operation, and files it. Returns the record as it is filed.
    pub(crate) fn close_record(
        &self,
        txn: &mut Txn,
        rows: &VersionRows,
        mut record: VersionRecord,
    ) -> VersionRecord {
        self.note_change(txn, record.end);
        record.recorded = txn.recorded.filter(|at| *at > record.end);
        rows.file_by_time(txn, &mut record, self.filing_policy(rows).as_deref());
        record
    }

    /// Writes the row by which an inode's names are found: from the stamp with this id on, the name leads to the hard-linked inode.
    pub(crate) fn begin_binding(&self, txn: &mut Txn, ino: Ino, id: VersionId, dentry: &Dentry) {
        let row = BindingRow { end: None };
        txn.put(keys::binding(ino, id, dentry), &row);
    }

    /// Ends the binding of a name to a hard-linked inode. The record has no state: the inode's own records (`H W`) have it.
    pub(crate) fn unbind(
        &self,
        txn: &mut Txn,
        dentry: &Dentry,
        ino: Ino,
        stamp: &Stamp,
        alive_since: Timestamp,
        end: VersionEnd<'_>,
    ) {
        let row = BindingRow { end: Some(end.at) };
        txn.put(keys::binding(ino, stamp.id, dentry), &row);
        let record = end.record(ino, stamp.clone(), None, alive_since);
        let _filed = self.close_record(txn, &VersionRows::Of(dentry.clone()), record);
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
            dentry,
            entry,
            cause,
            is_pinned,
        } = removal;
        let at = txn.timestamp;
        let end = VersionEnd::new(
            at,
            match cause {
                Unbinding::Removed => EndOp::Deleted,
                Unbinding::Replaced | Unbinding::ReplacedUnborn => EndOp::Replaced,
            },
        );
        if let DentryBody::Linked(stamp) = &entry.body {
            let alive_since = entry.alive_since.min(at);
            review(txn, dentry, entry.older);
            self.unbind(txn, dentry, ino, stamp, alive_since, end);
            if cause == Unbinding::Removed {
                interval_tree::add_removed(
                    &mut txn.rows,
                    dentry.parent,
                    &dentry.name,
                    entry.alive_since.min(at)..at,
                );
            }
            if let Some(link_state) = self.fewer_links(txn, ino, file) {
                return link_state;
            }
            txn.delete(keys::inode(ino));
            self.close_behind(txn, ino, file, end);
        } else if cause == Unbinding::ReplacedUnborn {
            review(txn, dentry, entry.older);
        } else {
            let alive_since = self.close_behind(txn, ino, file, end);
            if cause == Unbinding::Removed && alive_since < at {
                interval_tree::add_removed(
                    &mut txn.rows,
                    dentry.parent,
                    &dentry.name,
                    alive_since..at,
                );
            }
        }
        self.detach_last(txn, ino, file, is_pinned);
        LinkState::Unlinked
    }

    /// Removes the last name of a hard-linked inode, whatever number of names its row has.
    pub(crate) fn detach_last_link(
        &self,
        txn: &mut Txn,
        ino: Ino,
        file: &FileInode,
        removal: NameRemoval<'_>,
    ) -> LinkState {
        let NameRemoval {
            dentry,
            entry,
            cause,
            is_pinned,
        } = removal;
        let (at, since) = (txn.timestamp, entry.alive_since.min(txn.timestamp));
        let end = VersionEnd::new(
            at,
            match cause {
                Unbinding::Removed => EndOp::Deleted,
                Unbinding::Replaced | Unbinding::ReplacedUnborn => EndOp::Replaced,
            },
        );
        if let DentryBody::Linked(stamp) = &entry.body {
            self.unbind(txn, dentry, ino, stamp, since, end);
        }
        if cause == Unbinding::Removed {
            interval_tree::add_removed(&mut txn.rows, dentry.parent, &dentry.name, since..at);
        }
        txn.delete(keys::inode(ino));
        self.close_behind(txn, ino, file, end);
        self.detach_last(txn, ino, file, is_pinned);
        LinkState::Unlinked
    }

    /// Writes the rows of an inode that has lost its last name: an orphan row if the inode has users.
    fn detach_last(&self, txn: &mut Txn, ino: Ino, file: &FileInode, is_pinned: bool) {
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
    }

    /// Removes one name of a hard-linked inode; `None` if it was the last one.
    fn fewer_links(&self, txn: &mut Txn, ino: Ino, file: &FileInode) -> Option<LinkState> {
        let LinkState::HardLinked {
            place,
            nlink,
            older,
        } = &file.link_state
        else {
            return None;
        };
        if *nlink <= 1 {
            return None;
        }
        review(txn, &names_of(ino), *older);
        self.count_links(txn, ino, nlink - 1);
        let mut node = file.node.clone();
        node.attrs.ctime = txn.time;
        let row = LinkedRow {
            node,
            state: file.state.clone(),
            nlink: nlink - 1,
            older: *older,
        };
        txn.put(keys::inode(ino), &InodeRow::Linked(Box::new(row)));
        Some(LinkState::HardLinked {
            place: place.clone(),
            nlink: nlink - 1,
            older: *older,
        })
    }

    pub(crate) fn put_location(&self, txn: &mut Txn, ino: Ino, dentry: &Dentry) {
        let place = LocationRow {
            directory: dentry.parent,
            name: dentry.name.clone(),
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
