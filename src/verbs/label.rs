//! `label`: the names of a directory's moments, and their changes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::VerbError;
use super::path::{PathText, TimedPath};
use super::reader::{NodeState, PathReader};
use super::rows::{LabelEntry, RowSender, VerbRow, path_text, stamp};
use crate::fs::past::until::parse_until;
use crate::store::{Author, Ino, Label, LabelKeeps, Namespace, StoreError, Timestamp};

/// A change of one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRequest {
    /// The directory.
    pub path: PathText,
    /// The label.
    pub label: PathText,
    /// What is done to it.
    pub change: LabelChange,
}

/// What is done to a label. Times are a TIME to come, or a duration from now (`30d`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelChange {
    /// It is made over the present state, and waits until the bucket has that.
    Create {
        /// When it is removed; without one it stays.
        expires: Option<String>,
    },
    /// It gets another name.
    Rename {
        /// The name.
        to: PathText,
    },
    /// It is removed.
    Delete,
    /// It cannot be removed until then.
    Hold {
        /// The end of the hold.
        until: String,
    },
    /// Its hold ends now.
    Release,
}

/// Which labels are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelScope {
    /// Those of the directory.
    Directory,
    /// Also those of all directories below it, also of removed ones.
    Tree,
}

/// Sends the labels of a directory in ascending order of names, or those of a tree in the order of their paths.
pub(super) async fn labels(
    reader: &PathReader,
    path: &TimedPath,
    scope: LabelScope,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let failed = VerbError::at(path);
    let directory = directory(reader, path).await?;
    let view = reader.view();
    let mut entries = Vec::new();
    match scope {
        LabelScope::Directory => {
            let above = PathText::of_names(&path.names());
            for label in view.labels(directory).await.map_err(&failed)? {
                let keeps = view.label_keeps(&label).await.map_err(&failed)?;
                entries.push(entry(above.clone(), &label, keeps));
            }
        }
        LabelScope::Tree => {
            let top = path.names();
            for label in view.all_labels().await.map_err(&failed)? {
                let place = reader.directory_path(label.directory).await?;
                if TimedPath::of(place.clone()).names().starts_with(&top) {
                    let keeps = view.label_keeps(&label).await.map_err(&failed)?;
                    entries.push(entry(place, &label, keeps));
                }
            }
            entries.sort_by(|a, b| (&a.path, a.time_ns).cmp(&(&b.path, b.time_ns)));
        }
    }
    for entry in entries {
        rows.put_row(VerbRow::Label(entry)).await?;
    }
    Ok(())
}

/// Makes a change of a label, and sends the label as it is then; a removed one as it was.
pub(super) async fn change_label(
    namespace: &Namespace,
    request: &LabelRequest,
    author: &Author,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let LabelRequest {
        path,
        label: name,
        change,
    } = request;
    let reader = PathReader::new(namespace).await;
    let place = TimedPath::of(path.clone());
    let refused = |error: StoreError| refusal(request, error);
    let history = namespace.history();
    let label = &name.0[..];
    if let LabelChange::Create { expires } = change {
        let expires = expires.as_deref().map(|text| end(&reader, &place, text));
        let Some(NodeState::Directory(directory)) = reader.node_at(&place.names(), None).await?
        else {
            return Err(reader.missing(&place).await?);
        };
        let made = history.create_label(directory, label, expires.transpose()?, author);
        let made = made.await.map_err(refused)?;
        return send(path, &made, LabelKeeps::default(), rows).await;
    }
    let directory = directory(&reader, &place).await?;
    let find = async |name: &[u8]| {
        let found = history.view().label(directory, name).await;
        found.and_then(|label| label.ok_or(StoreError::NotFound))
    };
    let before = find(label).await.map_err(refused)?;
    let keeps = history.view().label_keeps(&before).await;
    let keeps = keeps.map_err(refused)?;
    let after: &Bytes = match change {
        LabelChange::Create { .. } => &name.0,
        LabelChange::Rename { to } => {
            let renamed = history.rename_label(directory, label, &to.0).await;
            renamed.map_err(refused)?;
            &to.0
        }
        LabelChange::Delete => {
            history
                .remove_label(directory, label)
                .await
                .map_err(refused)?;
            return send(path, &before, keeps, rows).await;
        }
        LabelChange::Hold { until } => {
            let until = end(&reader, &place, until)?;
            let held = history.hold_label(directory, label, until).await;
            held.map_err(refused)?;
            &name.0
        }
        LabelChange::Release => {
            let released = history.release_label(directory, label).await;
            released.map_err(refused)?;
            &name.0
        }
    };
    let now = find(after).await.map_err(refused)?;
    send(path, &now, keeps, rows).await
}

/// Returns the error for a change that the store refuses.
fn refusal(request: &LabelRequest, error: StoreError) -> VerbError {
    let path = TimedPath::of(request.path.clone()).to_string();
    match error {
        StoreError::Exists => VerbError::LabelExists {
            path,
            label: match &request.change {
                LabelChange::Rename { to } => to.to_string(),
                _ => request.label.to_string(),
            },
        },
        StoreError::NotFound => VerbError::NoLabel {
            path,
            label: request.label.to_string(),
        },
        other => VerbError::at(&path)(other),
    }
}

/// Sends a label. The change is made, whether or not its row is read.
async fn send(
    path: &PathText,
    label: &Label,
    keeps: LabelKeeps,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let path = PathText::of_names(&TimedPath::of(path.clone()).names());
    let row = VerbRow::Label(entry(path, label, keeps));
    rows.put_row(row).await.ok();
    Ok(())
}

fn entry(path: PathText, label: &Label, keeps: LabelKeeps) -> LabelEntry {
    LabelEntry {
        path,
        label: path_text(&label.name),
        stamp: stamp(label.timestamp),
        time_ns: label.timestamp.0,
        expires_ns: label.expires.map(|at| at.0),
        held_until_ns: label.hold.map(|at| at.0),
        user: label.author.uid,
        host: label.host.clone(),
        program: label.author.process.clone(),
        keeps_versions: keeps.versions,
        keeps_bytes: keeps.bytes,
    }
}

/// Returns the directory of a path, which may be removed. If nothing of its name is kept any more, a label still leads to it.
pub(super) async fn directory(reader: &PathReader, path: &TimedPath) -> Result<Ino, VerbError> {
    let names = path.names();
    if let Some(directory) = reader.directory_or_removed(&names).await? {
        return Ok(directory);
    }
    let labels = reader.view().all_labels().await;
    for label in labels.map_err(VerbError::at(path))? {
        let place = reader.directory_path(label.directory).await?;
        if TimedPath::of(place).names() == names {
            return Ok(label.directory);
        }
    }
    Err(reader.missing(path).await?)
}

/// Reads when something ends.
pub(super) fn end(
    reader: &PathReader,
    path: &TimedPath,
    text: &str,
) -> Result<Timestamp, VerbError> {
    parse_until(text.as_bytes(), reader.now).map_err(|why| VerbError::End {
        path: path.to_string(),
        why: why.to_string(),
    })
}
