//! `label hold` and `label release` of a version, and the list of what is held.

use serde::{Deserialize, Serialize};

use super::error::VerbError;
use super::label::{self, LabelScope};
use super::path::{PathText, TimedPath};
use super::reader::{NodeState, PathReader};
use super::rows::{HeldRow, RowSender, VerbRow, stamp};
use crate::store::{Author, DentryRef, Namespace, Timestamp};

/// A change of the hold of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionHoldRequest {
    /// The file with the time at which it shows the version.
    pub path: TimedPath,
    /// What is done.
    pub change: VersionHoldChange,
}

/// What is done to the hold of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionHoldChange {
    /// It cannot be deleted until then: a TIME to come, or a duration from now (`30d`).
    Hold {
        /// The end of the hold.
        until: String,
    },
    /// Its hold ends now.
    Release,
}

/// Holds or releases a version, and sends it as it is then.
pub(super) async fn change_hold(
    namespace: &Namespace,
    request: &VersionHoldRequest,
    author: &Author,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let reader = PathReader::new(namespace).await;
    let path = &reader.with_time(&request.path).await?;
    let entry = match reader.state(path).await?.node {
        NodeState::Directory(_) => {
            let path = path.to_string();
            return Err(VerbError::HoldOfDirectory { path });
        }
        NodeState::Other(entry) => entry,
    };
    let Some(name) = reader.timed_name(path).await? else {
        return Err(VerbError::IsRoot);
    };
    let failed = VerbError::at(path);
    let slot = DentryRef::new(name.directory, &name.name);
    let history = namespace.history();
    let until = match &request.change {
        VersionHoldChange::Hold { until } => {
            let until = label::end(&reader, path, until)?;
            let held = history.hold_version(slot, &entry, until, author).await;
            held.map_err(failed)?;
            Some(until)
        }
        VersionHoldChange::Release => {
            let released = history.release_version(slot, &entry).await;
            released.map_err(failed)?;
            None
        }
    };
    let began = entry.version.timestamp;
    let row = HeldRow {
        path: PathText::of_names(&path.names()),
        stamp: stamp(began),
        time_ns: began.0,
        held_until_ns: until.map(|until| until.0),
        user: author.uid,
        host: namespace.host().to_owned(),
        program: author.process.clone(),
    };
    // The change is made, whether or not its row is read.
    rows.put_row(VerbRow::Held(row)).await.ok();
    Ok(())
}

/// Sends the held versions of a directory's names, or those of a tree, in the order of their paths.
pub(super) async fn holds(
    reader: &PathReader,
    path: &TimedPath,
    scope: LabelScope,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let top = path.names();
    let directory = label::directory(reader, path).await?;
    let now = reader.now.max(Timestamp(reader.namespace.env().now()));
    let holds = reader.view().all_holds(now).await;
    let mut found = Vec::new();
    for held in holds.map_err(VerbError::at(path))? {
        let above = reader.directory_path(held.directory).await?;
        let is_meant = match scope {
            LabelScope::Directory => held.directory == directory,
            LabelScope::Tree => TimedPath::of(above.clone()).names().starts_with(&top),
        };
        if is_meant {
            found.push(HeldRow {
                path: above.join(&held.name),
                stamp: stamp(held.began),
                time_ns: held.began.0,
                held_until_ns: Some(held.until.0),
                user: held.author.uid,
                host: held.host,
                program: held.author.process,
            });
        }
    }
    found.sort_by(|a, b| (&a.path, a.time_ns).cmp(&(&b.path, b.time_ns)));
    for row in found {
        rows.put_row(VerbRow::Held(row)).await?;
    }
    Ok(())
}
