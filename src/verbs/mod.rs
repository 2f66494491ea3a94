//! The verbs that read the past of a path: `versions`, `ls`. A verb is run against an open namespace, that of a mount's
//! daemon or a follower of a bucket, and sends rows (`rows.rs`), which a command prints as a table or as JSON.
//!
//! Invariant: a verb changes nothing, and holds no more rows than its receiver has asked for and one directory or one file's
//! list of versions.

mod error;
mod list;
mod path;
mod reader;
mod request;
mod rows;

pub use error::{NearestTimes, VerbError};
pub use path::{PathText, TimedPath};
pub use request::ReadVerb;
pub use rows::{EntryRow, RowSender, VerbRow, VersionRow};

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
    match verb {
        ReadVerb::Versions { path } => list::versions(&reader, path, rows).await,
        ReadVerb::Ls { path } => list::ls(&reader, path, rows).await,
    }
}
