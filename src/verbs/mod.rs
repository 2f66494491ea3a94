//! The verbs that read the past of a path: `ls`, `versions`, `log`, `cat`, `diff`, `grep`, `policy`, `why`, and those that change: `undelete`, `restore`, `label`, `prune`, `forget`. A verb is
//! run against an open namespace, that of a mount's daemon, or a follower or a writer that a command opens on a bucket, and sends rows
//! (`rows.rs`), which a command prints as a table or as JSON.
//!
//! Invariant: a verb that reads changes nothing, and holds one directory or one file's list of versions, of a log the newest changes up to a limit,
//! and of a comparison the names that one side lacks; rows that are ready wait until their receiver takes them.

mod base64_text;
mod cat;
mod change;
mod directory_policy;
mod error;
mod forget;
mod forget_row;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod grep;
mod label;
mod label_time;
mod list;
mod log;
mod log_patch;
mod path;
mod reader;
mod request;
mod retention;
mod retention_rows;
mod rows;
mod stats;
mod text_diff;
mod tree_diff;
mod version_hold;

pub use change::{ChangeVerb, change};
pub use directory_policy::{DirectoryPolicyChange, DirectoryPolicyRequest};
pub use error::{NearestTimes, VerbError};
pub use forget::ForgetVerb;
pub use forget_row::ForgetRow;
pub use grep::pattern;
pub use label::{LabelChange, LabelRequest, LabelScope};
pub use log::is_change;
pub use path::{PathText, TimedPath};
pub use request::{
    DiffContents, DiffRequest, GrepRequest, GrepStates, LogFilter, LogPatches, ReadVerb,
};
pub use retention::{PolicyRequest, PruneRequest};
pub use retention_rows::{KeptRow, PolicyWord, PruneRow, ReasonRow, StatRow};
pub use rows::{
    AsOfRow, BytesRow, COMPARED_MAX, ChangeRow, ComparedKind, DiffSide, DifferenceRow, EntryRow,
    HeldRow, LabelEntry, MatchRow, MomentRow, PathDifference, RestoredRow, RowSender, SideRow,
    TruncatedRow, VerbRow, VersionRow,
};
pub use text_diff::{ContentDiff, DiffLine, LineDiff, LineRole};
pub use version_hold::{VersionHoldChange, VersionHoldRequest};

use crate::store::Namespace;
use reader::PathReader;

/// Sends the rows that answer `verb`.
///
/// # Errors
/// [`VerbError`] names the path that has no answer. Rows that were sent before are right.
pub async fn run(
    namespace: &Namespace,
    verb: &ReadVerb,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let reader = PathReader::new(namespace).await;
    match &reader.with_label_times(verb).await? {
        ReadVerb::Versions { path } => list::versions(&reader, path, rows).await,
        ReadVerb::Ls { path } => list::ls(&reader, path, rows).await,
        ReadVerb::Log {
            path,
            filter,
            patches,
        } => {
            let list = log::changes(&reader, path, filter).await?;
            log::send(&reader, list, *patches, rows).await
        }
        ReadVerb::Diff(request) => tree_diff::diff(&reader, request, rows).await,
        ReadVerb::Preview { path } => {
            let path = &reader.with_time(path).await?;
            tree_diff::preview(&reader, path, rows).await
        }
        ReadVerb::Grep(request) => grep::grep(&reader, request, rows).await,
        ReadVerb::Labels { path, scope } => label::labels(&reader, path, *scope, rows).await,
        ReadVerb::Holds { path, scope } => version_hold::holds(&reader, path, *scope, rows).await,
        ReadVerb::Cat { path } => cat::cat(&reader, path, rows).await,
        ReadVerb::Policy { path: None } => retention::policy(namespace, rows).await,
        ReadVerb::Policy { path: Some(path) } => {
            directory_policy::policy(&reader, path, rows).await
        }
        ReadVerb::PrunePreview { settings } => retention::preview(&reader, settings, rows).await,
        ReadVerb::ForgetPreview(request) => forget::preview(&reader, request, rows).await,
        ReadVerb::Stats { path } => stats::stats(&reader, path, rows).await,
        ReadVerb::Why { path } => retention::why(&reader, path, rows).await,
    }
}
