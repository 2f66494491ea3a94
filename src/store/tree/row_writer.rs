//! How names change hands: the rows by which a state becomes current, a version, or part of the past.
//!
//! Invariant: whatever stops being current while it is a version leaves a closed version behind (`H V`, `H W`) in the same batch, and
//! `G R` counts each content once per row that shows it.

use std::time::Duration;

use crate::store::commit::queue::Draft;
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::version::{
    Author, Content, EndOp, Ino, Kept, Op, Origin, Stamp, Timestamp, VersionId,
};
use crate::store::namespace::Shared;
use crate::store::schema::keys;
use crate::store::schema::rows::{
    Body, Closed, DirectoryRow, Ended, Entry, InodeRow, Last, LinkedRow, Node, Orphan, Place, Shed,
    State, decode, encode,
};
use crate::store::tree::inode::{Directory, Home, Leaf};
use bytes::Bytes;

/// A name that leaves by a rename so soon after it was made is in no list of versions.
pub(crate) const TRACELESS: Duration = Duration::from_secs(10);
/// A removal so soon after the last one belongs to the same run.
const SHED_GAP: Duration = Duration::from_secs(60);

/// How an inode loses a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It is removed.
    Removed,
    /// Another takes the name.
    Replaced,
    /// As `Replaced`, by a state that is not born yet: the old version stands until the birth.
    ReplacedUnborn,
}

/// What is put under a name by a rename.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) slot: (Ino, Bytes),
    pub(crate) at: Timestamp,
    /// Since when the name has existed, if it did.
    pub(crate) alive_since: Option<Timestamp>,
    /// The version it is put over, when it is unborn itself.
    pub(crate) behind: Option<Box<Last>>,
    pub(crate) stamp: Stamp,
    /// The old name goes to another inode at once: it has not gone, and keeps its trace however young it is.
    pub(crate) exchanged: bool,
}

impl Shared {
    /// Adds `by` to how many rows show a content.
    pub(crate) fn count(&self, draft: &mut Draft, content: &Content, by: i64) {
        if let Some(content) = content.reference() {
            draft.rows.merge(keys::count(content), encode(&by));
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
            instant: at,
            suffix: self.suffix(),
        };
        Stamp {
            id,
            op,
            author: author.clone(),
            host: self.config.host.clone(),
            origin,
        }
    }

    /// The row of a leaf's current state.
    pub(crate) fn current_rows(
        &self,
        draft: &mut Draft,
        (ino, leaf): (Ino, &Leaf),
        node: &Node,
        state: &State,
        alive_since: Timestamp,
    ) {
        match &leaf.home {
            Home::Slot { place, bound, .. } => {
                let body = Body::Own {
                    node: node.clone(),
                    state: state.clone(),
                };
                let entry = Entry {
                    ino,
                    bound: *bound,
                    alive_since,
                    body,
                };
                draft
                    .rows
                    .put(keys::entry(place.0, &place.1), encode(&entry));
            }
            Home::Linked { nlink, .. } => {
                let row = LinkedRow {
                    node: node.clone(),
                    state: state.clone(),
                    nlink: *nlink,
                };
                draft
                    .rows
                    .put(keys::inode(ino), encode(&InodeRow::Linked(Box::new(row))));
            }
            Home::Orphan => {
                let orphan = Orphan { node: node.clone() };
                draft.rows.put(keys::orphan(ino), encode(&orphan));
                return;
            }
        }
        match (state, &leaf.state) {
            (State::Version(_), State::Version(_)) => {}
            (State::Version(_), _) => draft.rows.delete(keys::unsettled(ino)),
            (_, _) => draft.rows.put(keys::unsettled(ino), encode(&())),
        }
    }

    /// The rows by which `node` becomes a version; returns since when the name exists.
    pub(crate) fn version_rows(
        &self,
        draft: &mut Draft,
        (ino, leaf): (Ino, &Leaf),
        node: &Node,
        stamp: &Stamp,
    ) -> Timestamp {
        let at = stamp.id.instant;
        if !matches!(leaf.state, State::Version(_)) {
            self.count(draft, &leaf.node.content, -1);
        }
        let alive_since = match &leaf.state {
            State::Unborn { .. } => self.close_behind(draft, ino, leaf, (at, EndOp::Replaced)),
            _ => self.close_behind(draft, ino, leaf, (at, EndOp::Superseded)),
        };
        self.count(draft, &node.content, 1);
        self.current_rows(
            draft,
            (ino, leaf),
            node,
            &State::Version(stamp.clone()),
            alive_since,
        );
        alive_since
    }

    /// Closes the last version of a leaf's name; returns since when the name exists, `end` where it had none.
    pub(crate) fn close_behind(
        &self,
        draft: &mut Draft,
        ino: Ino,
        leaf: &Leaf,
        end: (Timestamp, EndOp),
    ) -> Timestamp {
        let last = match &leaf.state {
            State::Version(stamp) => Some(Last {
                ino,
                node: leaf.node.clone(),
                stamp: stamp.clone(),
                alive_since: crate::store::tree::flush::alive(leaf),
            }),
            State::Provisional(last) => Some(Last::clone(last)),
            State::Unborn { behind } => behind.as_deref().cloned(),
        };
        let Some(last) = last else { return end.0 };
        match &leaf.home {
            Home::Slot { place, .. } => self.close(draft, place, &last, end),
            Home::Linked { place, .. } => {
                let closed = Closed {
                    ino,
                    end: end.0,
                    end_op: end.1,
                    stamp: last.stamp.clone(),
                    node: Some(last.node),
                    kept: Kept::Whole,
                };
                draft
                    .rows
                    .put(keys::linked_closed(ino, last.stamp.id), encode(&closed));
                let ended = Ended {
                    id: last.stamp.id,
                    end_op: end.1,
                };
                draft
                    .rows
                    .put(keys::ended(end.0, place.0, &place.1), encode(&ended));
            }
            Home::Orphan => {}
        }
        last.alive_since
    }

    /// A closed version of a slot.
    pub(crate) fn close(
        &self,
        draft: &mut Draft,
        slot: &(Ino, Bytes),
        last: &Last,
        end: (Timestamp, EndOp),
    ) {
        let closed = Closed {
            ino: last.ino,
            end: end.0,
            end_op: end.1,
            stamp: last.stamp.clone(),
            node: Some(last.node.clone()),
            kept: Kept::Whole,
        };
        self.close_row(draft, slot, &closed);
    }

    pub(crate) fn close_row(&self, draft: &mut Draft, slot: &(Ino, Bytes), closed: &Closed) {
        let id = closed.stamp.id;
        draft
            .rows
            .put(keys::closed(slot.0, &slot.1, id), encode(closed));
        draft.rows.put(
            keys::ended(closed.end, slot.0, &slot.1),
            encode(&Ended {
                id,
                end_op: closed.end_op,
            }),
        );
    }

    /// A name's binding to a hard-linked inode ends.
    pub(crate) fn unbind(
        &self,
        draft: &mut Draft,
        slot: &(Ino, Bytes),
        ino: Ino,
        stamp: &Stamp,
        end: (Timestamp, EndOp),
    ) {
        let closed = Closed {
            ino,
            end: end.0,
            end_op: end.1,
            stamp: stamp.clone(),
            node: None,
            kept: Kept::Whole,
        };
        self.close_row(draft, slot, &closed);
    }

    /// Changes a directory's times and counters; the caller merges the result into what it has loaded.
    pub(crate) fn touch(
        &self,
        draft: &mut Draft,
        directory: Ino,
        change: DirectoryRow,
    ) -> DirectoryRow {
        let time = draft.time;
        let row = DirectoryRow {
            mtime: Some((draft.instant, time)),
            ctime: Some((draft.instant, time)),
            ..change
        };
        draft.rows.merge(
            keys::inode(directory),
            encode(&InodeRow::Directory(row.clone())),
        );
        row
    }

    /// A leaf loses its only or one of its names. Returns where it hangs afterwards.
    pub(crate) fn detach(
        &self,
        draft: &mut Draft,
        (ino, leaf): (Ino, &Leaf),
        entry: &Entry,
        slot: &(Ino, Bytes),
        how: (Leaving, bool),
    ) -> Home {
        let (leaving, pinned) = how;
        let at = draft.instant;
        let end_op = if leaving == Leaving::Removed {
            EndOp::Deleted
        } else {
            EndOp::Replaced
        };
        if let Body::Linked(stamp) = &entry.body {
            self.unbind(draft, slot, ino, stamp, (at, end_op));
            if leaving == Leaving::Removed {
                interval_tree::add_removed(
                    &mut draft.rows,
                    slot.0,
                    &slot.1,
                    (entry.alive_since.min(at), at),
                );
            }
            if let Some(home) = self.fewer_links(draft, (ino, leaf)) {
                return home;
            }
            draft.rows.delete(keys::inode(ino));
            self.close_behind(draft, ino, leaf, (at, end_op));
        } else if leaving != Leaving::ReplacedUnborn {
            let alive_since = self.close_behind(draft, ino, leaf, (at, end_op));
            if leaving == Leaving::Removed && alive_since < at {
                interval_tree::add_removed(&mut draft.rows, slot.0, &slot.1, (alive_since, at));
            }
        }
        draft.rows.delete(keys::place(ino));
        let counted = !matches!(leaf.state, State::Version(_));
        if counted {
            draft.rows.delete(keys::unsettled(ino));
        }
        draft.usage = (
            draft.usage.0.wrapping_sub(leaf.node.space().cast_signed()),
            draft.usage.1 - 1,
        );
        if pinned {
            draft.rows.put(
                keys::orphan(ino),
                encode(&Orphan {
                    node: leaf.node.clone(),
                }),
            );
            if !counted {
                self.count(draft, &leaf.node.content, 1);
            }
        } else if counted {
            self.count(draft, &leaf.node.content, -1);
        }
        Home::Orphan
    }

    /// One of several names goes; `None` when it was the last.
    fn fewer_links(&self, draft: &mut Draft, (ino, leaf): (Ino, &Leaf)) -> Option<Home> {
        let Home::Linked { place, nlink } = &leaf.home else {
            return None;
        };
        if *nlink <= 1 {
            return None;
        }
        self.count_links(draft, ino, nlink - 1);
        let mut node = leaf.node.clone();
        node.attrs.ctime = draft.time;
        let row = LinkedRow {
            node,
            state: leaf.state.clone(),
            nlink: nlink - 1,
        };
        draft
            .rows
            .put(keys::inode(ino), encode(&InodeRow::Linked(Box::new(row))));
        Some(Home::Linked {
            place: place.clone(),
            nlink: nlink - 1,
        })
    }

    /// A leaf's current state leaves its slot by a rename; returns whether it left a trace there.
    pub(crate) async fn leave(
        &self,
        draft: &mut Draft,
        (ino, leaf): (Ino, &Leaf),
        entry: &Entry,
        slot: &(Ino, Bytes),
        exchanged: bool,
    ) -> Result<bool, StoreError> {
        let at = draft.instant;
        let since = entry.alive_since;
        let young = at.0.saturating_sub(since.0) < TRACELESS.as_nanos() as u64;
        if let Body::Linked(stamp) = &entry.body {
            self.unbind(draft, slot, ino, stamp, (at, EndOp::RenamedTo));
            interval_tree::add(&mut draft.rows, slot.0, &slot.1, (since.min(at), at));
            return Ok(true);
        }
        let passed = young
            && !exchanged
            && !matches!(leaf.state, State::Unborn { behind: Some(_) })
            && !self.came_back((ino, leaf), slot, since).await?;
        if passed {
            self.pass_since(draft, slot, since).await?;
        }
        let end_op = if passed {
            EndOp::Passed
        } else {
            EndOp::RenamedTo
        };
        let since = self.close_behind(draft, ino, leaf, (at, end_op));
        if since < at {
            interval_tree::add(&mut draft.rows, slot.0, &slot.1, (since, at));
        }
        Ok(!matches!(leaf.state, State::Unborn { .. }))
    }

    /// Whether a name began with a return from the removed ones: it has history to go on with, however young it is.
    async fn came_back(
        &self,
        (ino, leaf): (Ino, &Leaf),
        slot: &(Ino, Bytes),
        since: Timestamp,
    ) -> Result<bool, StoreError> {
        let current = self.last_version(ino, leaf).map(|last| last.stamp);
        if let Some(stamp) = current.filter(|stamp| stamp.id.instant <= since) {
            return Ok(stamp.op == Op::Undelete);
        }
        let from = keys::history_at(slot.0, &slot.1, since);
        let until = keys::after(&keys::history(slot.0, &slot.1));
        let Some((_, value)) = self.view.first(from, until).await? else {
            return Ok(false);
        };
        let first: Closed = decode("H V", &value)?;
        Ok(first.stamp.id.instant == since && first.stamp.op == Op::Undelete)
    }

    /// Marks the closed versions of a slot that began at or after `since` as those of a name in passing.
    async fn pass_since(
        &self,
        draft: &mut Draft,
        slot: &(Ino, Bytes),
        since: Timestamp,
    ) -> Result<(), StoreError> {
        let from = keys::history(slot.0, &slot.1);
        let until = keys::history_at(slot.0, &slot.1, Timestamp(since.0.saturating_sub(1)));
        for (_, value) in self.view.scan(from, until, usize::MAX).await? {
            let closed: Closed = decode("H V", &value)?;
            self.close_row(
                draft,
                slot,
                &Closed {
                    end_op: EndOp::Passed,
                    ..closed
                },
            );
        }
        Ok(())
    }

    /// A leaf arrives under a name. Returns its new home and state; `traced` says whether its old slot kept a version.
    pub(crate) fn arrive(
        &self,
        draft: &mut Draft,
        (ino, leaf): (Ino, &Leaf),
        arrival: &Arrival,
        traced: bool,
    ) -> (Home, Node, State) {
        let at = arrival.at;
        let mut node = leaf.node.clone();
        node.attrs.ctime = draft.time;
        if let Home::Linked { nlink, .. } = &leaf.home {
            let home = self.arrive_linked(draft, (ino, leaf, *nlink), arrival, &node);
            return (home, node, leaf.state.clone());
        }
        let born = !matches!(leaf.state, State::Unborn { .. });
        let alive_since = match (born, &arrival.behind) {
            (true, _) => arrival.alive_since.unwrap_or(at),
            (false, Some(last)) => last.alive_since,
            (false, None) => Timestamp(u64::MAX),
        };
        let state = self.moved_state(draft, leaf, (arrival, alive_since), traced);
        let body = Body::Own {
            node: node.clone(),
            state: state.clone(),
        };
        let entry = Entry {
            ino,
            bound: at,
            alive_since,
            body,
        };
        draft
            .rows
            .put(keys::entry(arrival.slot.0, &arrival.slot.1), encode(&entry));
        self.put_place(draft, ino, &arrival.slot);
        (
            Home::Slot {
                place: arrival.slot.clone(),
                bound: at,
                alive_since,
            },
            node,
            state,
        )
    }

    /// One of several names arrives elsewhere; its inode's row has the new change time.
    fn arrive_linked(
        &self,
        draft: &mut Draft,
        (ino, leaf, nlink): (Ino, &Leaf, u32),
        arrival: &Arrival,
        node: &Node,
    ) -> Home {
        let entry = Entry {
            ino,
            bound: arrival.at,
            alive_since: arrival.alive_since.unwrap_or(arrival.at),
            body: Body::Linked(arrival.stamp.clone()),
        };
        draft
            .rows
            .put(keys::entry(arrival.slot.0, &arrival.slot.1), encode(&entry));
        self.put_place(draft, ino, &arrival.slot);
        let row = LinkedRow {
            node: node.clone(),
            state: leaf.state.clone(),
            nlink,
        };
        draft
            .rows
            .put(keys::inode(ino), encode(&InodeRow::Linked(Box::new(row))));
        Home::Linked {
            place: arrival.slot.clone(),
            nlink,
        }
    }

    /// The state a leaf has under its new name.
    fn moved_state(
        &self,
        draft: &mut Draft,
        leaf: &Leaf,
        (arrival, alive_since): (&Arrival, Timestamp),
        traced: bool,
    ) -> State {
        match &leaf.state {
            State::Version(_) => {
                if traced {
                    self.count(draft, &leaf.node.content, 1);
                }
                State::Version(arrival.stamp.clone())
            }
            State::Provisional(last) => {
                if traced {
                    self.count(draft, &last.node.content, 1);
                }
                let last = Last {
                    stamp: arrival.stamp.clone(),
                    alive_since,
                    ..Last::clone(last)
                };
                State::Provisional(Box::new(last))
            }
            State::Unborn { .. } => State::Unborn {
                behind: arrival.behind.clone(),
            },
        }
    }

    pub(crate) fn put_place(&self, draft: &mut Draft, ino: Ino, slot: &(Ino, Bytes)) {
        let place = Place {
            directory: slot.0,
            name: slot.1.clone(),
        };
        draft.rows.put(keys::place(ino), encode(&place));
    }

    /// The last version of a leaf's name, as it stands behind something unborn.
    pub(crate) fn last_version(&self, ino: Ino, leaf: &Leaf) -> Option<Box<Last>> {
        match &leaf.state {
            State::Version(stamp) => Some(Box::new(Last {
                ino,
                node: leaf.node.clone(),
                stamp: stamp.clone(),
                alive_since: crate::store::tree::flush::alive(leaf),
            })),
            State::Provisional(last) => Some(last.clone()),
            State::Unborn { behind } => behind.clone(),
        }
    }
}

/// How a removal at `at` continues a directory's run of removals; `child` is where the run of a removed directory began.
pub(crate) fn shed(
    (ino, directory): (Ino, &Directory),
    at: Timestamp,
    child: Option<Timestamp>,
) -> (Timestamp, Option<Box<Shed>>) {
    let begins = child.unwrap_or(at);
    let run = match &directory.row.shed {
        Some((_, Some(run))) if goes_on(run, begins) => Shed {
            first: run.first.min(begins),
            last: at,
            mtime: run.mtime,
        },
        _ => Shed {
            first: begins,
            last: at,
            mtime: directory.node_now(ino).attrs.mtime,
        },
    };
    (at, Some(Box::new(run)))
}

/// Whether a removal at `at` belongs to a run.
pub(crate) fn goes_on(run: &Shed, at: Timestamp) -> bool {
    at.0.saturating_sub(run.last.0) <= SHED_GAP.as_nanos() as u64
}
