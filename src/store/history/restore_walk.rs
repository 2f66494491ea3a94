//! The walk of a stepped restore through the tree of then, or through the live one, page by page.
//!
//! In memory are one page of names for each directory from the restored one down to that of the walk. What a mount needs to go on is in
//! the row: the directories and the last name seen in each.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use crate::store::history::label_reads::LocationMemo;
use crate::store::history::restore_plan::LiveName;
use crate::store::history::view::PastView;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{Ino, PastEntry, Time, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::restore_rows::{RestoreFrame, RestorePhase, SteppedRestoreRow};
use crate::store::schema::rows::DentryRow;
use crate::store::schema::tables::{DentryTable, RowTable};

/// Names that are read at once.
const PAGE: usize = 256;

/// A name of then.
#[derive(Clone, Debug)]
pub(super) struct NameThen {
    pub(super) name: Bytes,
    pub(super) entry: PastEntry,
}

/// A directory of the walk, with the names of it that were read and not seen yet.
#[derive(Debug)]
struct OpenFrame {
    frame: RestoreFrame,
    then: VecDeque<NameThen>,
    live: VecDeque<LiveName>,
}

impl OpenFrame {
    fn new(frame: RestoreFrame) -> Self {
        Self {
            frame,
            then: VecDeque::new(),
            live: VecDeque::new(),
        }
    }
}

/// A stepped restore that is going on.
#[derive(Debug)]
pub(super) struct RestoreWalk {
    /// The restored directory.
    pub(super) directory: Ino,
    /// What is queued, but for the frames.
    pub(super) row: SteppedRestoreRow,
    frames: Vec<OpenFrame>,
    /// Where directories were; of one phase.
    pub(super) memo: LocationMemo,
    /// Names that stay as they are, as far as the walk has come to them.
    pub(super) left: BTreeSet<Dentry>,
}

impl RestoreWalk {
    /// Goes on where a row says.
    pub(super) fn new(directory: Ino, row: SteppedRestoreRow) -> Self {
        let frames = row.walk.iter().cloned().map(OpenFrame::new).collect();
        Self {
            directory,
            left: row.left.iter().cloned().collect(),
            row,
            frames,
            memo: LocationMemo::default(),
        }
    }

    /// Begins a phase at the restored directory.
    pub(super) fn begin(&mut self, phase: RestorePhase) {
        self.row.phase = phase;
        self.frames = vec![OpenFrame::new(top_frame(self.directory, self.row.former))];
    }

    /// Returns the row for the place that the walk is at.
    pub(super) fn here(&self) -> SteppedRestoreRow {
        SteppedRestoreRow {
            walk: self.frames.iter().map(|open| open.frame.clone()).collect(),
            left: self.left.iter().cloned().collect(),
            ..self.row.clone()
        }
    }

    /// Returns the directory that the walk is in; `None` at the end.
    pub(super) fn frame(&self) -> Option<RestoreFrame> {
        self.frames.last().map(|open| open.frame.clone())
    }

    /// Goes into a directory.
    pub(super) fn enter(&mut self, former: Option<Ino>, number: Ino, mtime: Option<Time>) {
        self.frames.push(OpenFrame::new(RestoreFrame {
            former,
            number,
            mtime,
            after: None,
        }));
    }

    /// Leaves the directory that the walk is in.
    pub(super) fn leave(&mut self) {
        self.frames.pop();
    }

    /// Records that a name was seen.
    pub(super) fn seen(&mut self, name: Bytes) {
        if let Some(open) = self.frames.last_mut() {
            open.frame.after = Some(name);
        }
    }

    /// Returns the next name of then in the directory that the walk is in; `None` after the last.
    pub(super) async fn next_then(
        &mut self,
        view: &PastView,
    ) -> Result<Option<NameThen>, StoreError> {
        let at = self.row.at;
        let Some(open) = self.frames.last_mut() else {
            return Ok(None);
        };
        let Some(former) = open.frame.former else {
            return Ok(None);
        };
        if open.then.is_empty() {
            let after = open.frame.after.as_ref();
            open.then = view.names_then(former, after, at, PAGE).await?.into();
        }
        Ok(open.then.pop_front())
    }

    /// Lets a name of then be the next one again.
    pub(super) fn put_back(&mut self, name: NameThen) {
        if let Some(open) = self.frames.last_mut() {
            open.then.push_front(name);
        }
    }

    /// Returns the next live name in the directory that the walk is in; `None` after the last.
    pub(super) async fn next_live(
        &mut self,
        view: &PastView,
    ) -> Result<Option<LiveName>, StoreError> {
        let Some(open) = self.frames.last_mut() else {
            return Ok(None);
        };
        if open.live.is_empty() {
            let directory = open.frame.number;
            let after = open.frame.after.as_ref();
            let page = view.live_names(directory, after, PAGE).await?;
            open.live = page.into();
        }
        Ok(open.live.pop_front())
    }
}

/// The beginning of a walk.
pub(super) fn top_frame(directory: Ino, former: Ino) -> RestoreFrame {
    RestoreFrame {
        former: Some(former),
        number: directory,
        mtime: None,
        after: None,
    }
}

/// Returns the first key behind a name in a directory's entries.
fn entries_after(directory: Ino, after: Option<&Bytes>) -> Bytes {
    match after {
        None => keys::entries(directory),
        Some(name) => [&keys::entry(directory, name)[..], &[0]].concat().into(),
    }
}

impl PastView {
    /// Returns the live names of a directory that follow a name, at most `max`.
    pub(super) async fn live_names(
        &self,
        directory: Ino,
        after: Option<&Bytes>,
        max: usize,
    ) -> Result<Vec<LiveName>, StoreError> {
        let end = keys::after(&keys::entries(directory));
        let from = entries_after(directory, after);
        let mut names = Vec::new();
        for (key, value) in self.rows.scan(from, end, max).await? {
            let slot = Dentry::new(directory, keys::entry_name(&key));
            let row = DentryTable::decode(&value)?;
            names.push(LiveName { slot, row });
        }
        Ok(names)
    }

    /// Returns the first name of a directory behind a name that has a version record.
    async fn recorded_after(
        &self,
        directory: Ino,
        after: Option<&Bytes>,
    ) -> Result<Option<Bytes>, StoreError> {
        let all = keys::histories(directory);
        let from = match after {
            None => all.clone(),
            Some(name) => keys::after(&keys::history(directory, name)),
        };
        let found = self.rows.first(from, keys::after(&all)).await?;
        let name = found.map(|(key, _)| {
            let slot = keys::record_slot(&key).map(|slot| slot.name);
            slot.ok_or_else(|| StoreError::Corrupt("H V key: no name".to_owned()))
        });
        name.transpose()
    }

    /// Lists what a directory held at a timestamp, in ascending order of names, from behind a name on: at most `max` names, and none
    /// only if there are no more. Reads a row or two for each name that the directory has or had.
    pub(super) async fn names_then(
        &self,
        directory: Ino,
        after: Option<&Bytes>,
        at: Timestamp,
        max: usize,
    ) -> Result<Vec<NameThen>, StoreError> {
        let mut found = Vec::new();
        let mut recorded = self.recorded_after(directory, after).await?;
        let page = self.live_names(directory, after, max).await?;
        let mut last = page.last().map(|name| name.slot.name.clone());
        let mut live: VecDeque<LiveName> = page.into();
        while found.len() < max {
            if live.is_empty() && last.is_some() {
                live = self.live_names(directory, last.as_ref(), max).await?.into();
                last = live.back().map(|name| name.slot.name.clone());
            }
            let first = live.front().map(|name| name.slot.name.clone());
            let name = match (first, &recorded) {
                (None, None) => break,
                (Some(live), None) => live,
                (None, Some(recorded)) => recorded.clone(),
                (Some(live), Some(recorded)) => live.min(recorded.clone()),
            };
            let current: Option<DentryRow> = match live.front() {
                Some(first) if first.slot.name == name => live.pop_front().map(|name| name.row),
                _ => None,
            };
            if recorded.as_ref() == Some(&name) {
                recorded = self.recorded_after(directory, Some(&name)).await?;
            }
            let version = self.version_at(directory, &name, current.as_ref(), at);
            if let Some(version) = version.await? {
                let entry = version.into_entry();
                found.push(NameThen { name, entry });
            }
        }
        Ok(found)
    }
}
