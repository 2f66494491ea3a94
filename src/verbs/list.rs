//! `versions` and `ls`: the states of a file, and the entries of a directory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::sync::Arc;
use bytes::Bytes;

use super::error::VerbError;
use super::path::{PathText, TimedPath};
use super::reader::{NodeState, PathReader, TimedName};
use super::retention::kept_by;
use super::rows::{
    EntryRow, MomentRow, RowSender, VerbRow, VersionRow, kind_name, mode, nanoseconds, path_text,
    stamp,
};
use crate::fs::past::attributes;
use crate::fs::past::thin::thin_with_below;
use crate::store::{EndedState, Kind, Origin, PastEntry, Retained, Timestamp, VersionList};

/// The states of a file, and the names under which they are stored.
pub(super) struct FileStates {
    place: TimedName,
    list: VersionList,
}

impl FileStates {
    /// Reads the states of a file that began up to the time of the path.
    pub(super) async fn read(reader: &PathReader, path: &TimedPath) -> Result<Self, VerbError> {
        let failed = VerbError::at(path);
        let is_directory = || VerbError::IsDirectory {
            path: path.to_string(),
        };
        let place = reader.timed_name(path).await?.ok_or_else(is_directory)?;
        let list = reader.view().history(place.directory, &place.name).await;
        let mut list = list.map_err(&failed)?;
        let states = &mut list.versions;
        states.retain(|state| state.version.timestamp <= place.until);
        if !states.is_empty() && states.iter().all(|state| state.kind == Kind::Directory) {
            return Err(is_directory());
        }
        states.retain(|state| state.kind != Kind::Directory && state.kept != Retained::Nothing);
        match states.is_empty() {
            true => Err(reader.missing(path).await?),
            false => Ok(Self { place, list }),
        }
    }

    /// Returns the states, oldest first.
    pub(super) fn into_states(self) -> Vec<Arc<PastEntry>> {
        self.list.versions
    }

    /// Returns the states with the names under which they are stored, oldest first.
    fn named(&self) -> Vec<EndedState<'_>> {
        let of = |entry| {
            let state: &PastEntry = entry;
            let (directory, name) = match self.list.earlier_name(state.version.timestamp) {
                Some(earlier) => (earlier.parent, Bytes::copy_from_slice(earlier.name)),
                None => (self.place.directory, self.place.name.clone()),
            };
            EndedState {
                directory,
                name,
                entry,
            }
        };
        self.list.versions.iter().map(Arc::as_ref).map(of).collect()
    }
}

/// Sends the states of a file, or the moments of a directory that `.versions` lists, oldest first.
pub(super) async fn versions(
    reader: &PathReader,
    path: &TimedPath,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let failed = VerbError::at(path);
    let shown = PathText::of_names(&path.names());
    let mut holds = HashMap::new();
    let states = match FileStates::read(reader, path).await {
        Err(VerbError::IsDirectory { .. }) => return moments(reader, path, rows).await,
        read => read?,
    };
    let kept = kept_by(reader, &states.named()).await.map_err(&failed)?;
    for (state, kept_by) in states.into_states().into_iter().zip(kept) {
        let renamed_from = former_path(reader, state.renamed_from.as_ref()).await?;
        let held = PastEntry::clone(&state).of_inode();
        let of_inode = match holds.entry(held.ino) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let read = reader.view().holds(held.ino).await;
                place.insert(read.map_err(&failed)?)
            }
        };
        let until = of_inode.get(&held.version).copied();
        let row = VersionRow {
            held_until_ns: until.map(|until| until.0),
            kept_by,
            ..version_row(shown.clone(), &state, renamed_from)
        };
        rows.put_row(VerbRow::Version(row)).await?;
    }
    Ok(())
}

/// Sends the times and labels that `.versions` of a directory lists, oldest first; with a time, those up to it.
async fn moments(reader: &PathReader, path: &TimedPath, rows: &RowSender) -> Result<(), VerbError> {
    let failed = VerbError::at(path);
    let names = path.names();
    let (directory, until) = match reader.timestamp(path).await? {
        Some(at) => (reader.directory(path).await?, at),
        None => (reader.directory_or_removed(&names).await?, reader.now),
    };
    let Some(directory) = directory else {
        return Err(reader.missing(path).await?);
    };
    let view = reader.view();
    let mut changes = view.changes(directory, usize::MAX).await.map_err(&failed)?;
    let mut below = view.changed_hours(directory).await.map_err(&failed)?;
    for times in [&mut changes, &mut below] {
        times.retain(|at| *at <= reader.now);
    }
    let row = |at: Timestamp| MomentRow {
        path: PathText::of_names(&names),
        stamp: stamp(at),
        time_ns: at.0,
        kind: kind_name(Kind::Directory).to_owned(),
        label: None,
        expires_ns: None,
        held_until_ns: None,
    };
    let times = thin_with_below(&changes, &below, reader.clock)
        .into_iter()
        .map(row);
    let labels = view.labels(directory).await.map_err(&failed)?;
    let labels = labels.into_iter().map(|label| MomentRow {
        label: Some(path_text(&label.name)),
        expires_ns: label.expires.map(|at| at.0),
        held_until_ns: label.hold.map(|at| at.0),
        ..row(label.timestamp)
    });
    let mut moments: Vec<MomentRow> = times.chain(labels).collect();
    moments.retain(|row| row.time_ns <= until.0);
    moments.sort_by(|a, b| (a.time_ns, &a.label).cmp(&(b.time_ns, &b.label)));
    for row in moments {
        rows.put_row(VerbRow::Moment(row)).await?;
    }
    Ok(())
}

/// Returns the path of a former name: of the directory that it was in, as that is called now.
pub(super) async fn former_path(
    reader: &PathReader,
    origin: Option<&Origin>,
) -> Result<Option<PathText>, VerbError> {
    match origin {
        Some(Origin { directory, name }) => {
            Ok(Some(reader.directory_path(*directory).await?.join(name)))
        }
        None => Ok(None),
    }
}

fn version_row(path: PathText, state: &PastEntry, renamed_from: Option<PathText>) -> VersionRow {
    VersionRow {
        path,
        stamp: stamp(state.version.timestamp),
        time_ns: state.version.timestamp.0,
        ended_ns: state.ended.map(|end| end.0),
        op: attributes::op(state.op).to_owned(),
        kind: kind_name(state.kind).to_owned(),
        size: state.attrs.size,
        mode: mode(state.attrs.mode),
        user: state.author.uid,
        host: state.host.clone(),
        program: state.author.process.clone(),
        renamed_from,
        held_until_ns: None,
        kept_by: Vec::new(),
    }
}

/// Sends the entries of a directory in ascending order of names, or the one of a file.
pub(super) async fn ls(
    reader: &PathReader,
    path: &TimedPath,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let state = reader.state(path).await?;
    let names = path.names();
    let directory = match state.node {
        NodeState::Directory(directory) => directory,
        NodeState::Other(entry) => {
            let (above, name) = match names.split_last() {
                Some((name, above)) => (above, name.clone()),
                None => (&names[..], Bytes::new()),
            };
            let row = entry_row(reader, &PathText::of_names(above), &name, &entry);
            return rows.put_row(VerbRow::Entry(row)).await;
        }
    };
    let above = PathText::of_names(&names);
    let entries = reader.view().list_at(directory, state.at).await;
    for (name, entry) in entries.map_err(VerbError::at(path))? {
        let row = entry_row(reader, &above, &name, &entry);
        rows.put_row(VerbRow::Entry(row)).await?;
    }
    Ok(())
}

fn entry_row(reader: &PathReader, above: &PathText, name: &[u8], entry: &PastEntry) -> EntryRow {
    let target = (entry.kind == Kind::Symlink)
        .then(|| path_text(&reader.namespace.history().target_past(entry)));
    EntryRow {
        path: above.join(name),
        name: path_text(name),
        kind: kind_name(entry.kind).to_owned(),
        mode: mode(entry.attrs.mode),
        uid: entry.attrs.uid,
        gid: entry.attrs.gid,
        size: entry.attrs.size,
        modified_ns: nanoseconds(entry.attrs.mtime),
        stamp: stamp(entry.version.timestamp),
        target,
    }
}
