//! `policy --path`: policies of directories.

use serde::{Deserialize, Serialize};

use super::error::VerbError;
use super::path::{PathText, TimedPath};
use super::reader::{NodeState, PathReader};
use super::retention_rows::PolicyWord;
use super::rows::{RowSender, VerbRow};
use crate::store::{DirectoryPolicy, Ino, Namespace, Policy, StoreError};

/// A change of a directory's policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryPolicyRequest {
    /// The directory.
    pub path: PathText,
    /// What is changed.
    pub change: DirectoryPolicyChange,
}

/// What is changed in a directory's policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectoryPolicyChange {
    /// `WORD=VALUE`, each over the directory's own policy.
    Set(Vec<String>),
    /// It has none of its own any more.
    Inherit,
}

/// Sends the words that hold in a directory, and which directory limits each.
pub(super) async fn policy(
    reader: &PathReader,
    path: &TimedPath,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let failed = || VerbError::at(path);
    let retention = reader.namespace.retention();
    let directory = directory(reader, path).await?;
    let namespace = retention.policy().await.map_err(failed())?;
    let pending = retention.pending_policy().await.map_err(failed())?;
    let own = retention.directory_policies(directory).await;
    let own = own.map_err(failed())?;
    let limited = |policy: Policy| {
        let limits = own.iter();
        limits.fold(policy, |policy, own| policy.limited_by(&own.policy))
    };
    let words = namespace.clone().unwrap_or_default().settings();
    let held = namespace.map(limited).map(|policy| policy.settings());
    let later = pending.map(|(policy, from)| (limited(policy).settings(), from));
    for (at, (word, value)) in words.into_iter().enumerate() {
        let held = held.as_ref().map(|held| held[at].1.clone());
        let limits = held.as_ref().filter(|held| **held != value);
        let directory = match limits.and_then(|held| limited_at(&own, at, held)) {
            Some(directory) => Some(reader.directory_path(directory).await?),
            None => None,
        };
        let later = later.as_ref().map(|(later, from)| (&later[at].1, from));
        let later = later.filter(|(later, _)| Some(*later) != held.as_ref());
        let row = PolicyWord {
            word: word.to_owned(),
            pending: later.map(|(later, _)| later.clone()),
            pending_from_ns: later.map(|(_, from)| from.0),
            value: held,
            directory,
        };
        rows.put_row(VerbRow::Policy(row)).await?;
    }
    Ok(())
}

/// Returns the nearest directory whose own policy has this value of a word.
fn limited_at(own: &[DirectoryPolicy], word: usize, value: &str) -> Option<Ino> {
    let mut limits = own.iter();
    let found = limits.find(|own| {
        let words = own.policy.settings();
        words.get(word).is_some_and(|(_, own)| own == value)
    });
    found.map(|own| own.directory)
}

/// Changes the policy of a directory, and sends the words that hold in it then.
pub(super) async fn set_policy(
    namespace: &Namespace,
    request: &DirectoryPolicyRequest,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let reader = PathReader::new(namespace).await;
    let path = TimedPath::of(request.path.clone());
    let failed = || VerbError::at(&path);
    let retention = namespace.retention();
    let directory = directory(&reader, &path).await?;
    let change = |own: Option<Policy>| match &request.change {
        DirectoryPolicyChange::Inherit => Ok(None),
        DirectoryPolicyChange::Set(settings) => {
            let mut policy = own.unwrap_or_else(Policy::unlimited);
            for setting in settings {
                let set = policy.set_for_directory(setting);
                set.map_err(|error| StoreError::Invalid(error.to_string()))?;
            }
            Ok(Some(policy))
        }
    };
    let set = retention.change_directory_policy(directory, change).await;
    set.map_err(failed())?;
    tracing::info!(path = %request.path, "the retention policy of a directory was changed");
    policy(&reader, &path, rows).await
}

async fn directory(reader: &PathReader, path: &TimedPath) -> Result<Ino, VerbError> {
    match reader.state(path).await?.node {
        NodeState::Directory(directory) => Ok(directory),
        NodeState::Other(_) => Err(VerbError::at(path)(StoreError::NotDirectory)),
    }
}
