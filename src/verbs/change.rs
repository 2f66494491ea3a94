//! The verbs that change the tree: they run on the namespace of its writer, and each is one operation of the store.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::directory_policy::{self, DirectoryPolicyRequest};
use super::error::VerbError;
use super::forget::{self, ForgetVerb};
use super::label::{self, LabelRequest};
use super::path::{PathText, TimedPath};
use super::reader::{NodeState, PathReader};
use super::retention::{self, PolicyRequest, PruneRequest};
use super::rows::{RestoredRow, RowSender, VerbRow, kind_name, stamp};
use super::version_hold::{self, VersionHoldRequest};
use crate::store::{
    AddedNames, Author, ChangedName, DentryRef, Ino, Kind, Namespace, PastEntry, RenameMode,
    Restored, StoreError, Timestamp, TreeChanges,
};

/// A verb that changes the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum ChangeVerb {
    /// Restores a removed name with its last state; a directory with all below it.
    Undelete {
        /// The removed name.
        path: PathText,
        /// The path it is restored as, if not its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<PathText>,
    },
    /// Makes a path show again what it showed at its time; a directory with all below it.
    Restore {
        /// The path with its time.
        path: TimedPath,
        /// A new path that gets that state, if the path itself keeps its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<PathText>,
        /// Whether names that were added to a directory since stay.
        #[serde(default)]
        keep_new: bool,
    },
    /// Drops every version that nothing keeps.
    Prune(PruneRequest),
    /// Deletes the ended versions of a file with their bytes.
    Forget(ForgetVerb),
    /// Sets words of the retention policy.
    SetPolicy(PolicyRequest),
    /// Sets words of the policy of a directory.
    #[serde(rename = "set-directory-policy")]
    SetDirectoryPolicy(DirectoryPolicyRequest),
    /// Makes, renames, removes, holds or releases a label of a directory.
    Label(LabelRequest),
    /// Holds or releases a version.
    #[serde(rename = "hold-version")]
    HoldVersion(VersionHoldRequest),
}

/// The name of the program in the author of what a verb changes.
const PROGRAM: &str = "rewindfs";

/// Makes the changes of `verb`, and sends the rows that tell them. `reserved` is the name that shows the past, which nothing else may
/// have. Returns what changed, for a mount whose kernel keeps parts of it.
///
/// # Errors
/// [`VerbError`] names the path; nothing is changed then.
pub async fn change(
    namespace: &Namespace,
    verb: &ChangeVerb,
    reserved: &[u8],
    rows: &RowSender,
) -> Result<TreeChanges, VerbError> {
    match verb {
        ChangeVerb::Undelete { path, to } => {
            let to = to.as_ref().unwrap_or(path);
            undelete(namespace, path, to, reserved, rows).await
        }
        ChangeVerb::Restore { path, to, keep_new } => {
            let added = match keep_new {
                true => AddedNames::Keep,
                false => AddedNames::Remove,
            };
            let place = ReservedName(reserved);
            let reader = PathReader::new(namespace).await;
            let path = &reader.with_time(path).await?;
            match to {
                Some(to) => restore_as(namespace, path, to, place, rows).await,
                None => restore(namespace, path, added, rows).await,
            }
        }
        ChangeVerb::Prune(request) => {
            retention::prune(namespace, *request, rows).await?;
            Ok(TreeChanges::default())
        }
        ChangeVerb::Forget(request) => {
            forget::forget(namespace, request, rows).await?;
            // No live name changes, and nothing that the kernel keeps of the past outlives a minute.
            Ok(TreeChanges::default())
        }
        ChangeVerb::SetPolicy(request) => {
            retention::set_policy(namespace, request, rows).await?;
            Ok(TreeChanges::default())
        }
        ChangeVerb::SetDirectoryPolicy(request) => {
            directory_policy::set_policy(namespace, request, rows).await?;
            Ok(TreeChanges::default())
        }
        ChangeVerb::Label(request) => {
            let author = author(namespace);
            label::change_label(namespace, request, &author, rows).await?;
            // The kernel keeps no name of a label.
            Ok(TreeChanges::default())
        }
        ChangeVerb::HoldVersion(request) => {
            let author = author(namespace);
            version_hold::change_hold(namespace, request, &author, rows).await?;
            Ok(TreeChanges::default())
        }
    }
}

/// Returns who makes the changes of a verb: the user of this process.
fn author(namespace: &Namespace) -> Author {
    Author {
        uid: namespace.owner().uid,
        process: PROGRAM.to_owned(),
    }
}

/// A directory that exists, and a name in it that may not.
#[derive(Debug, Clone)]
struct NamePlace {
    directory: Ino,
    name: Bytes,
}

impl NamePlace {
    /// Finds the directory of `path`.
    async fn find(reader: &PathReader, path: &PathText) -> Result<Self, VerbError> {
        let whole = TimedPath {
            path: path.clone(),
            time: None,
        };
        let names = whole.names();
        let Some((name, above)) = names.split_last() else {
            return Err(VerbError::IsRoot);
        };
        match reader.node_at(above, None).await? {
            Some(NodeState::Directory(directory)) => Ok(Self {
                directory,
                name: name.clone(),
            }),
            Some(NodeState::Other(_)) => Err(VerbError::NotDirectory {
                path: PathText::of_names(above).to_string(),
            }),
            None => Err(VerbError::NoDirectory {
                path: whole.to_string(),
                directory: PathText::of_names(above).to_string(),
            }),
        }
    }

    fn dentry(&self) -> DentryRef<'_> {
        DentryRef::new(self.directory, &self.name)
    }

    fn changed(&self) -> ChangedName {
        ChangedName {
            directory: self.directory,
            name: self.name.clone(),
        }
    }
}

async fn undelete(
    namespace: &Namespace,
    path: &PathText,
    to: &PathText,
    reserved: &[u8],
    rows: &RowSender,
) -> Result<TreeChanges, VerbError> {
    let reader = PathReader::new(namespace).await;
    let from = NamePlace::find(&reader, path).await?;
    let target = NamePlace::find(&reader, to).await?;
    if target.name == reserved {
        return Err(VerbError::Reserved {
            path: to.to_string(),
        });
    }
    let author = author(namespace);
    let restored = namespace.history().undelete(
        from.dentry(),
        target.dentry(),
        RenameMode::NoReplace,
        &author,
    );
    let moved = match restored.await {
        Ok(renamed) => renamed.moved,
        Err(StoreError::NotFound) => {
            return Err(not_removed(namespace, &reader, &from, path).await?);
        }
        Err(StoreError::Exists) => {
            return Err(VerbError::Exists {
                path: to.to_string(),
            });
        }
        Err(error) => return Err(VerbError::at(path)(error)),
    };
    let changes = TreeChanges {
        names: vec![target.changed()],
        inodes: vec![from.directory, target.directory],
        removed: Vec::new(),
    };
    let now = namespace.now();
    let view = namespace.history().view();
    let state = view.entry_at(target.directory, &target.name, now).await;
    let began = state
        .map_err(VerbError::at(to))?
        .map_or(now, |state| state.version.timestamp);
    let row = RestoredRow {
        path: to.clone(),
        from: path.clone(),
        stamp: stamp(began),
        time_ns: began.0,
        as_of: None,
        kind: kind_name(moved.kind).to_owned(),
        size: (moved.kind != Kind::Directory).then_some(moved.attrs.size),
        changes: 1,
        undo: None,
        left: Vec::new(),
    };
    // The change is made, whether or not its row is read.
    rows.put_row(VerbRow::Restored(row)).await.ok();
    Ok(changes)
}

/// The name that shows the past.
#[derive(Clone, Copy)]
struct ReservedName<'a>(&'a [u8]);

/// What a path showed at its time.
struct FormerState {
    entry: PastEntry,
    at: Timestamp,
}

impl FormerState {
    async fn find(reader: &PathReader, path: &TimedPath) -> Result<Self, VerbError> {
        let state = reader.state(path).await?;
        let at = state.at;
        let entry = match state.node {
            NodeState::Other(entry) => Some(*entry),
            NodeState::Directory(directory) => {
                let view = reader.view();
                let entry = view.directory_entry_at(directory, at).await;
                entry.map_err(VerbError::at(path))?
            }
        };
        match entry {
            Some(entry) => Ok(Self { entry, at }),
            None => Err(reader.missing(path).await?),
        }
    }
}

async fn restore(
    namespace: &Namespace,
    path: &TimedPath,
    added: AddedNames,
    rows: &RowSender,
) -> Result<TreeChanges, VerbError> {
    let reader = PathReader::new(namespace).await;
    let FormerState { entry, at } = FormerState::find(&reader, path).await?;
    let is_root = path.names().is_empty();
    let place = match is_root {
        // The root directory is the empty name in directory 0.
        true => NamePlace {
            directory: Ino(0),
            name: Bytes::new(),
        },
        false => NamePlace::find(&reader, &path.path).await?,
    };
    let live = namespace.tree().lookup(place.directory, &place.name);
    let existed = is_root || live.await.map_err(VerbError::at(path))?.is_some();
    let (kind, size) = (entry.kind, entry.attrs.size);
    let author = author(namespace);
    let history = namespace.history();
    let restored = history.restore(place.dentry(), entry, at, added, &author);
    let restored = restored.await.map_err(VerbError::at(path))?;
    let began = restored.at.unwrap_or(reader.now);
    let before = restored.at.filter(|_| existed);
    let row = RestoredRow {
        path: path.path.clone(),
        from: path.path.clone(),
        stamp: stamp(began),
        time_ns: began.0,
        as_of: Some(stamp(at)),
        kind: kind_name(kind).to_owned(),
        size: (kind != Kind::Directory).then_some(size),
        changes: restored.count as u64,
        undo: before.map(|at| {
            let before = stamp(Timestamp(at.0 - 1));
            PathText([&path.path.0[..], b"@", before.as_bytes()].concat().into())
        }),
        left: left_paths(&reader, &restored).await?,
    };
    // The change is made, whether or not its row is read.
    rows.put_row(VerbRow::Restored(row)).await.ok();
    Ok(restored.changes)
}

async fn restore_as(
    namespace: &Namespace,
    path: &TimedPath,
    to: &PathText,
    reserved: ReservedName<'_>,
    rows: &RowSender,
) -> Result<TreeChanges, VerbError> {
    let reader = PathReader::new(namespace).await;
    let FormerState { entry, at } = FormerState::find(&reader, path).await?;
    let from = reader.timed_name(path).await?;
    let from = from.as_ref();
    let from = from.map(|from| DentryRef::new(from.directory, &from.name));
    let target = NamePlace::find(&reader, to).await?;
    if target.name == reserved.0 {
        return Err(VerbError::Reserved {
            path: to.to_string(),
        });
    }
    let (kind, size) = (entry.kind, entry.attrs.size);
    let author = author(namespace);
    let history = namespace.history();
    let restored = history.restore_as(from, target.dentry(), entry, at, &author);
    let restored = restored.await.map_err(|error| match error {
        StoreError::Exists => VerbError::Exists {
            path: to.to_string(),
        },
        error => VerbError::at(to)(error),
    })?;
    let began = restored.at.unwrap_or(reader.now);
    let row = RestoredRow {
        path: to.clone(),
        from: path.path.clone(),
        stamp: stamp(began),
        time_ns: began.0,
        as_of: Some(stamp(at)),
        kind: kind_name(kind).to_owned(),
        size: (kind != Kind::Directory).then_some(size),
        changes: restored.count as u64,
        undo: None,
        left: left_paths(&reader, &restored).await?,
    };
    rows.put_row(VerbRow::Restored(row)).await.ok();
    Ok(restored.changes)
}

/// Returns the paths that a restore left as they are.
async fn left_paths(reader: &PathReader, restored: &Restored) -> Result<Vec<PathText>, VerbError> {
    let mut paths = Vec::new();
    for left in &restored.left {
        let above = reader.directory_path(left.parent).await?;
        paths.push(above.join(&left.name));
    }
    paths.sort();
    Ok(paths)
}

/// Returns the error for a name that cannot be undeleted.
async fn not_removed(
    namespace: &Namespace,
    reader: &PathReader,
    from: &NamePlace,
    path: &PathText,
) -> Result<VerbError, VerbError> {
    let live = namespace.tree().lookup(from.directory, &from.name).await;
    let path_now = TimedPath {
        path: path.clone(),
        time: None,
    };
    Ok(match live.map_err(VerbError::at(path))? {
        Some(_) => VerbError::NotRemoved {
            path: path.to_string(),
        },
        None => match reader.missing(&path_now).await? {
            // A rename took the name away: nothing of it was removed.
            VerbError::Removed { path, nearest } => VerbError::Moved { path, nearest },
            other => other,
        },
    })
}
