//! `log`: what changed under a path, newest first.
//!
//! A change that is a version knows who made it; the end of a name (`delete`, `move`) does not. A move within the tree that is shown
//! is one change, the rename of the new name. Rows are sent when all directories have been read, because each has a history of its
//! own; of those only the newest [`CHANGES_MAX`] are kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::error::VerbError;
use super::list::former_path;
use super::log_patch::Patch;
use super::path::{PathText, TimedPath};
use super::reader::{PathReader, TimedName};
use super::request::{LogFilter, LogPatches};
use super::rows::{ChangeRow, RowSender, TruncatedRow, VerbRow, kind_name, stamp};
use crate::fs::past::attributes;
use crate::fs::past::stamp::TimeName;
use crate::store::{DentryRef, DirectoryChange, EndOp, Ino, Kind, Origin, Timestamp, VersionList};

/// The most changes in one answer.
const CHANGES_MAX: usize = 100_000;

/// Which directories a log tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// One directory.
    Directory,
    /// A directory and all below it.
    Tree,
}

/// The place of a change in a log: changes of one operation share a timestamp.
type ChangeOrder = (Timestamp, u64);

/// The newest changes that pass a filter.
#[derive(Debug)]
struct ChangeList<'a> {
    filter: &'a LogFilter,
    since: Timestamp,
    until: Timestamp,
    max: usize,
    changes: BTreeMap<ChangeOrder, PathChange>,
    /// The names that renames took away, with the timestamps: their ends are told by the renames.
    moved: BTreeSet<(Timestamp, Ino, Bytes)>,
    /// Whether older changes were dropped.
    dropped: bool,
    added: u64,
}

/// A change and the path it happened to.
#[derive(Debug)]
struct PathChange {
    directory: Ino,
    path: PathText,
    change: DirectoryChange,
}

impl ChangeList<'_> {
    fn add(&mut self, directory: Ino, path: PathText, change: DirectoryChange) {
        if let DirectoryChange::Stood { entry, .. } = &change
            && let Some(Origin { directory, name }) = &entry.renamed_from
        {
            let moved = (change.at(), *directory, name.clone());
            self.moved.insert(moved);
        }
        if !self.passes(&change) {
            return;
        }
        self.added += 1;
        let key = (change.at(), self.added);
        let change = PathChange {
            directory,
            path,
            change,
        };
        self.changes.insert(key, change);
        // The end of a name may be dropped in the end, so that as many again are kept.
        if self.changes.len() > self.max.saturating_mul(2) {
            self.changes.pop_first();
            self.dropped = true;
            let oldest = self.changes.first_key_value().map(|((at, _), _)| *at);
            while self
                .moved
                .first()
                .is_some_and(|(at, ..)| Some(*at) < oldest)
            {
                self.moved.pop_first();
            }
        }
    }

    fn passes(&self, change: &DirectoryChange) -> bool {
        if !(self.since..=self.until).contains(&change.at()) {
            return false;
        }
        let filter = self.filter;
        let is_wanted = |op: &str| filter.ops.is_empty() || filter.ops.iter().any(|o| o == op);
        match change {
            DirectoryChange::Stood { entry, .. } => {
                is_wanted(attributes::op(entry.op))
                    && filter.user.is_none_or(|user| user == entry.author.uid)
                    && (filter.program.as_ref())
                        .is_none_or(|program| *program == entry.author.process)
            }
            DirectoryChange::Left { how, .. } => {
                is_wanted(end_name(*how)) && filter.user.is_none() && filter.program.is_none()
            }
        }
    }

    /// Returns the changes, newest first, without the ends of names that a rename tells.
    fn into_newest(mut self) -> (Vec<PathChange>, bool) {
        let moved = std::mem::take(&mut self.moved);
        let is_told = |found: &PathChange| match &found.change {
            DirectoryChange::Left {
                name,
                at,
                how: EndOp::RenamedTo,
            } => moved.contains(&(*at, found.directory, name.clone())),
            _ => false,
        };
        let mut newest: Vec<PathChange> = self.changes.into_values().rev().collect();
        newest.retain(|found| !is_told(found));
        let is_cut = self.dropped || newest.len() > self.max;
        newest.truncate(self.max);
        (newest, is_cut)
    }
}

/// The changes that a log shows.
pub(super) struct ShownChanges {
    /// Newest first.
    changes: Vec<PathChange>,
    /// The name, if it is the log of one.
    of_name: Option<TimedName>,
    /// Whether there are more than one answer may have.
    is_cut: bool,
}

/// Returns the changes under a path.
pub(super) async fn changes(
    reader: &PathReader,
    path: &TimedPath,
    filter: &LogFilter,
) -> Result<ShownChanges, VerbError> {
    let until = match reader.timestamp(path).await? {
        Some(at) => at,
        None => reader.now,
    };
    let mut list = ChangeList {
        since: match &filter.since {
            Some(time) => reader.first_of(path, time)?,
            None => Timestamp(0),
        },
        until: match &filter.until {
            Some(time) => until.min(reader.last_of(path, time)?),
            None => until,
        },
        filter,
        max: match filter.count {
            Some(count) => usize::try_from(count)
                .unwrap_or(CHANGES_MAX)
                .min(CHANGES_MAX),
            None => CHANGES_MAX,
        },
        changes: BTreeMap::new(),
        moved: BTreeSet::new(),
        dropped: false,
        added: 0,
    };
    let names = path.names();
    let shown = PathText::of_names(&names);
    let directory = match path.time {
        Some(_) => reader.directory(path).await?,
        None => reader.directory_or_removed(&names).await?,
    };
    let of_name = match directory {
        Some(directory) => {
            let reach = match filter.recursive {
                true => Reach::Tree,
                false => Reach::Directory,
            };
            directory_changes(reader, directory, shown, reach, &mut list).await?;
            None
        }
        None => Some(name_changes(reader, path, shown, &mut list).await?),
    };
    let is_counted = filter
        .count
        .is_some_and(|count| count <= CHANGES_MAX as u64);
    let (changes, is_cut) = list.into_newest();
    Ok(ShownChanges {
        changes,
        of_name,
        is_cut: is_cut && !is_counted,
    })
}

/// Sends changes, each with its difference from the state before if `patches` says so.
pub(super) async fn send(
    reader: &PathReader,
    shown: ShownChanges,
    patches: LogPatches,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let earlier = match (patches, &shown.of_name) {
        (LogPatches::OfFiles, Some(name)) => {
            let list = reader.view().history(name.directory, &name.name).await;
            list.map_err(VerbError::at(&"the history of a file"))?
        }
        _ => VersionList::default(),
    };
    for found in shown.changes {
        let (directory, change) = (found.directory, found.change.clone());
        let row = change_row(reader, found).await?;
        let (path, former) = (row.path.clone(), row.renamed_from.clone());
        rows.put_row(VerbRow::Change(row)).await?;
        if patches == LogPatches::OfFiles {
            // A state from before a rename is stored under the name that it had.
            let stored = earlier.earlier_name(change.at());
            let path = match stored {
                Some(name) => reader.directory_path(name.parent).await?.join(name.name),
                None => path,
            };
            let patch = Patch {
                reader,
                stored: stored.unwrap_or(DentryRef::new(directory, change.name())),
                path,
                former,
            };
            patch.send_patch(&change, rows).await?;
        }
    }
    if shown.is_cut {
        let limit = CHANGES_MAX as u64;
        rows.put_row(VerbRow::Truncated(TruncatedRow { limit }))
            .await?;
    }
    Ok(())
}

/// Collects the changes of one name that is no directory, and returns the name.
async fn name_changes(
    reader: &PathReader,
    path: &TimedPath,
    shown: PathText,
    list: &mut ChangeList<'_>,
) -> Result<TimedName, VerbError> {
    let Some(place) = reader.timed_name(path).await? else {
        return Err(reader.missing(path).await?);
    };
    let view = reader.view();
    let changes = view.name_log(place.directory, &place.name).await;
    let changes = changes.map_err(VerbError::at(path))?;
    if changes.iter().all(|change| change.at() > place.until) {
        return Err(reader.missing(path).await?);
    }
    for change in changes {
        list.add(place.directory, shown.clone(), change);
    }
    Ok(place)
}

/// Collects the changes of a directory's entries, and of those below it if `reach` says so.
async fn directory_changes(
    reader: &PathReader,
    directory: Ino,
    path: PathText,
    reach: Reach,
    list: &mut ChangeList<'_>,
) -> Result<(), VerbError> {
    let mut seen = BTreeSet::from([directory]);
    let mut open = VecDeque::from([(directory, path)]);
    while let Some((directory, path)) = open.pop_front() {
        let failed = VerbError::at(&path);
        let view = reader.view();
        let mut below = BTreeSet::new();
        let found = view.each_change(directory, |change| {
            let (DirectoryChange::Stood { name, .. } | DirectoryChange::Left { name, .. }) =
                &change;
            if let DirectoryChange::Stood { name, entry } = &change
                && entry.kind == Kind::Directory
            {
                below.insert(name.clone());
            }
            let path = path.join(name);
            list.add(directory, path, change);
        });
        found.await.map_err(&failed)?;
        if reach == Reach::Directory {
            continue;
        }
        for name in below {
            let found = view.directories_under(directory, &name).await;
            for inside in found.map_err(&failed)? {
                if seen.insert(inside) {
                    open.push_back((inside, path.join(&name)));
                }
            }
        }
    }
    Ok(())
}

async fn change_row(reader: &PathReader, found: PathChange) -> Result<ChangeRow, VerbError> {
    let at = found.change.at();
    let entry = match found.change {
        DirectoryChange::Stood { entry, .. } => entry,
        DirectoryChange::Left { how, .. } => {
            return Ok(ChangeRow {
                path: found.path,
                stamp: stamp(at),
                time_ns: at.0,
                op: end_name(how).to_owned(),
                kind: None,
                size: None,
                stored: None,
                user: None,
                host: None,
                program: None,
                renamed_from: None,
            });
        }
    };
    let stored = match entry.kind {
        Kind::File => match reader.namespace.history().stored_past(&entry).await {
            Ok(stored) => Some(stored),
            Err(error) => return Err(VerbError::at(&found.path)(error)),
        },
        _ => None,
    };
    Ok(ChangeRow {
        path: found.path,
        stamp: stamp(at),
        time_ns: at.0,
        op: attributes::op(entry.op).to_owned(),
        kind: Some(kind_name(entry.kind).to_owned()),
        size: (entry.kind != Kind::Directory).then_some(entry.attrs.size),
        stored,
        user: Some(entry.author.uid),
        renamed_from: former_path(reader, entry.renamed_from.as_ref()).await?,
        host: Some(entry.host),
        program: Some(entry.author.process),
    })
}

/// Returns the name of the end of a name.
fn end_name(how: EndOp) -> &'static str {
    match how {
        EndOp::RenamedTo => "move",
        _ => "delete",
    }
}

/// Returns what a name of an operation is checked against: the names that a log shows.
#[must_use]
pub fn is_change(op: &str) -> bool {
    const OPS: [&str; 12] = [
        "create",
        "write",
        "truncate",
        "rename",
        "link",
        "undelete",
        "recovered",
        "conflict",
        "restore",
        "import",
        "delete",
        "move",
    ];
    OPS.contains(&op)
}

impl PathReader {
    /// Returns the first timestamp that a time means.
    fn first_of(&self, path: &TimedPath, time: &str) -> Result<Timestamp, VerbError> {
        match TimeName::parse(time.as_bytes()) {
            Some(TimeName::Stamp(period)) => Ok(period.first),
            _ => self.last_of(path, time),
        }
    }

    /// Returns the last timestamp that a time means; one in the future is now.
    fn last_of(&self, path: &TimedPath, time: &str) -> Result<Timestamp, VerbError> {
        match TimeName::parse(time.as_bytes()) {
            Some(TimeName::Stamp(period)) => Ok(period.last),
            Some(name @ TimeName::Ago(_)) => Ok(self.resolved(name).unwrap_or(Timestamp(0))),
            None => Err(VerbError::NoTime {
                path: path.to_string(),
                text: time.to_owned(),
            }),
        }
    }
}
