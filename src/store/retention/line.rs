//! The line of versions of a name: from one that has ended to the name that has the file now, through renames.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{EndOp, Ino, Retained, Timestamp};
use crate::store::retention::shown::{NameAfter, ShownVersion};
use crate::store::schema::keys;
use crate::store::schema::rows::{DentryBody, DentryRow, InodeRow, VersionRecord};
use crate::store::schema::tables::{RowTable, VersionTable};
use crate::store::tree::review::names_of;
use crate::store::tree::version_record::VersionRows;

/// Where the line of versions after an ended one leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Over fewer ended versions than `keep-last` says to a name that exists: this one, or one of those that `names_of` stands for.
    Live(Dentry),
    /// To an end, or over enough ended versions.
    Over,
}

/// The name that has the next version of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// The same name has it.
    Stayed,
    /// A rename moved the file to this name.
    Moved(Dentry),
}

impl Next {
    /// Returns where a line goes on after a record of a name; `None` if it ends there.
    fn after(op: EndOp, moved_to: Option<&Dentry>) -> Option<Self> {
        match (op, moved_to) {
            (EndOp::RenamedTo, Some(to)) => Some(Self::Moved(to.clone())),
            (EndOp::Superseded | EndOp::Replaced, _) => Some(Self::Stayed),
            _ => None,
        }
    }
}

/// A version that begins where another one ended.
struct LineVersion {
    /// Since when its name has existed without a gap.
    alive_since: Timestamp,
    ended: LineEnd,
}

enum LineEnd {
    /// It has not; versions that the name keeps are filed under this.
    Current(Dentry),
    /// It has.
    Ended {
        at: Timestamp,
        next: Option<Next>,
        /// 1 if lists of versions have it.
        listed: u32,
    },
}

/// Follows lines of versions, as one snapshot shows them.
pub(super) struct LineReader<'a> {
    pub(super) rows: &'a Snapshot,
    /// How many ended versions `keep-last` keeps.
    pub(super) last: u32,
    /// Keys of records that are likely to be on the line: a read of a row costs less than a search for it.
    pub(super) likely: &'a BTreeSet<Bytes>,
}

impl LineReader<'_> {
    /// Follows the line of versions from an ended one.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(super) async fn follow(&self, version: &ShownVersion) -> Result<Line, StoreError> {
        let (mut name, mut at) = (version.name.clone(), version.time.end);
        let mut next = match &version.after {
            NameAfter::SameInode => Some(Next::Stayed),
            NameAfter::Ended(end) => Next::after(end.op, end.moved_to.as_ref()),
        };
        let mut newer = 0;
        while newer < self.last {
            // A name that existed before the rename has a line of its own.
            let must_begin = match next {
                None => return Ok(Line::Over),
                Some(Next::Stayed) => false,
                Some(Next::Moved(to)) => {
                    name = to;
                    true
                }
            };
            let Some(found) = self.version_from(&name, at).await? else {
                return Ok(Line::Over);
            };
            if must_begin && found.alive_since != at {
                return Ok(Line::Over);
            }
            match found.ended {
                LineEnd::Current(kept_by) => return Ok(Line::Live(kept_by)),
                LineEnd::Ended {
                    at: end,
                    next: after,
                    listed,
                } => {
                    newer += listed;
                    (at, next) = (end, after);
                }
            }
        }
        Ok(Line::Over)
    }

    /// Returns the version of a name that begins at `at`; `None` if none does.
    async fn version_from(
        &self,
        name: &Dentry,
        at: Timestamp,
    ) -> Result<Option<LineVersion>, StoreError> {
        let list = VersionRows::Of(name.clone());
        let record = match self.likely_from(name, at).await? {
            Some(record) => Some(record),
            None => list.newest_at(self.rows, at).await?,
        };
        let Some(record) = record.filter(|record| at < record.end) else {
            return self.current_from(name, at).await;
        };
        let next = Next::after(record.end_op, record.moved_to.as_ref());
        let alive_since = record.alive_since;
        let own_end = Some(record.own_end());
        let (ended, listed) = if record.node.is_some() {
            if record.stamp.id.timestamp != at {
                return Ok(None);
            }
            (None, u32::from(record.kept != Retained::Nothing))
        } else {
            let seen = at.min(Timestamp(record.own_end().0.saturating_sub(1)));
            match self.state_at(record.ino, seen).await? {
                Some(state) if state.start.max(record.stamp.id.timestamp) == at => {
                    (state.end, state.listed)
                }
                _ => return Ok(None),
            }
        };
        let ended = match ended.filter(|end| Some(*end) < own_end) {
            // The name led to the inode after the state.
            Some(at) => LineEnd::Ended {
                at,
                next: Some(Next::Stayed),
                listed,
            },
            None => LineEnd::Ended {
                at: record.end,
                next,
                listed,
            },
        };
        Ok(Some(LineVersion { alive_since, ended }))
    }

    /// Returns the record of a name that begins at `at`, if it is one of the likely ones.
    async fn likely_from(
        &self,
        name: &Dentry,
        at: Timestamp,
    ) -> Result<Option<VersionRecord>, StoreError> {
        let begin = keys::history_at(name.parent, &name.name, at);
        let found = self.likely.range(begin.clone()..).next();
        let Some(key) = found.filter(|key| key.starts_with(&begin)) else {
            return Ok(None);
        };
        let value = self.rows.get(key).await?;
        value.map(|value| VersionTable::decode(&value)).transpose()
    }

    /// Returns the version that begins at `at` of a name that no record has at that time.
    async fn current_from(
        &self,
        name: &Dentry,
        at: Timestamp,
    ) -> Result<Option<LineVersion>, StoreError> {
        let entry: Option<DentryRow> = self.rows.row(&keys::entry(name.parent, &name.name)).await?;
        let Some(entry) = entry else {
            return Ok(None);
        };
        match &entry.body {
            DentryBody::Own { node, state } => {
                let shown = state.shown(entry.ino, node, entry.alive_since);
                let shown = shown.filter(|shown| shown.stamp.id.timestamp == at);
                Ok(shown.map(|shown| LineVersion {
                    alive_since: shown.alive_since,
                    ended: LineEnd::Current(name.clone()),
                }))
            }
            DentryBody::Linked(stamp) if stamp.id.timestamp <= at => {
                let state = self.state_at(entry.ino, at).await?;
                let state = state.filter(|state| state.start.max(stamp.id.timestamp) == at);
                Ok(state.map(|state| LineVersion {
                    alive_since: entry.alive_since,
                    ended: match state.end {
                        None => LineEnd::Current(names_of(entry.ino)),
                        Some(at) => LineEnd::Ended {
                            at,
                            next: Some(Next::Stayed),
                            listed: state.listed,
                        },
                    },
                }))
            }
            DentryBody::Linked(_) => Ok(None),
        }
    }

    /// Returns the state that a hard-linked inode had at a time.
    async fn state_at(&self, ino: Ino, at: Timestamp) -> Result<Option<LinkedState>, StoreError> {
        if let Some(InodeRow::Linked(row)) = self.rows.row(&keys::inode(ino)).await?
            && let Some(start) = row.state.version().filter(|start| *start <= at)
        {
            return Ok(Some(LinkedState {
                start,
                end: None,
                listed: 1,
            }));
        }
        let record = VersionRows::Linked(ino).newest_at(self.rows, at).await?;
        Ok(record
            .filter(|record| at < record.end)
            .map(|record| LinkedState {
                start: record.stamp.id.timestamp,
                end: Some(record.end),
                listed: u32::from(record.kept != Retained::Nothing),
            }))
    }
}

/// A state of a hard-linked inode.
struct LinkedState {
    start: Timestamp,
    /// `None` for the current one.
    end: Option<Timestamp>,
    /// 1 if lists of versions have it.
    listed: u32,
}
