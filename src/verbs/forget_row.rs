//! The rows of `forget`.

use serde::{Deserialize, Serialize};

use super::path::PathText;

/// A version that `forget` deletes, or what it tells about all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetRow {
    /// What it is: `version` (one that goes), `stays` (how many states of the file stay), `also`
    /// (versions of other names that show the same bytes), `alike` (what shows a few bytes that are the same, a copy or by chance), `would_go` (all versions that would go, in a
    /// preview), `deleted` (all versions that were deleted), `step` (how far it is), `gone` (the bytes are gone).
    pub what: String,
    /// The name under which the version is recorded, as a path from the root of the namespace.
    pub path: Option<PathText>,
    /// When the version began, as a TIME.
    pub stamp: Option<String>,
    /// The same in nanoseconds since 1970.
    pub time_ns: Option<u64>,
    /// When it ended, in nanoseconds since 1970.
    pub ended_ns: Option<u64>,
    /// The number of versions.
    pub versions: Option<u64>,
    /// Of a version its length in bytes; of all, the stored bytes that only they show.
    pub bytes: Option<u64>,
    /// What is told, for a person.
    pub note: Option<String>,
}
