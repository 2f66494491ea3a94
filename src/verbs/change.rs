//! The verbs that change the tree: they run on the namespace of its writer, and each is one operation of the store.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::VerbError;
use super::label::{self, LabelRequest};
use super::path::{PathText, TimedPath};
use super::reader::{NodeState, PathReader};
use super::rows::{RestoredRow, RowSender, VerbRow, kind_name, stamp};
use crate::store::{
    Author, ChangedName, DentryRef, Ino, Kind, Namespace, RenameMode, StoreError, TreeChanges,
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
    /// Makes, renames, removes, holds or releases a label of a directory.
    Label(LabelRequest),
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
        ChangeVerb::Label(request) => {
            let author = author(namespace);
            label::change_label(namespace, request, &author, rows).await?;
            // The kernel keeps no name of a label.
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
        kind: kind_name(moved.kind).to_owned(),
        size: (moved.kind != Kind::Directory).then_some(moved.attrs.size),
        undo: None,
    };
    // The change is made, whether or not its row is read.
    rows.put_row(VerbRow::Restored(row)).await.ok();
    Ok(changes)
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
