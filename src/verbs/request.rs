//! The verbs and their arguments, as a command sends them to a daemon.

use serde::{Deserialize, Serialize};

use super::forget::ForgetVerb;
use super::label::LabelScope;
use super::path::TimedPath;

/// A verb that reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum ReadVerb {
    /// The states of a file, oldest first; with a time, those that began up to it.
    Versions {
        /// The file.
        path: TimedPath,
    },
    /// What changed in a directory, or in the history of a file, newest first; with a time, up to then.
    Log {
        /// The directory or file.
        path: TimedPath,
        /// Which changes are sent.
        filter: LogFilter,
        /// Whether each is followed by its difference from the state before.
        #[serde(default)]
        patches: LogPatches,
    },
    /// The differences between two states of a file, or two trees.
    Diff(DiffRequest),
    /// What `restore` would change: the differences between now and then.
    Preview {
        /// The path with its time.
        path: TimedPath,
    },
    /// The states of a file that have a matching line.
    Grep(GrepRequest),
    /// The bytes of a file.
    Cat {
        /// The file.
        path: TimedPath,
    },
    /// The labels of a directory.
    Labels {
        /// The directory, which may be removed.
        path: TimedPath,
        /// Which of them.
        scope: LabelScope,
    },
    /// The held versions of a directory.
    Holds {
        /// The directory, which may be removed.
        path: TimedPath,
        /// Which of them.
        scope: LabelScope,
    },
    /// The words of the retention policy.
    Policy {
        /// The directory in which they hold; the namespace if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<TimedPath>,
    },
    /// What a prune would drop.
    PrunePreview {
        /// `WORD=VALUE`, as if they were in force; if there are none, by the policy in force.
        settings: Vec<String>,
    },
    /// What forgetting the ended versions of a file would do.
    ForgetPreview(ForgetVerb),
    /// How much is live and history, how far back it reaches, and the names at and below a path with the most history.
    Stats {
        /// The directory or file.
        path: TimedPath,
    },
    /// What keeps the state that a path shows at its time.
    Why {
        /// The file with its time.
        path: TimedPath,
    },
    /// The entries of a directory in ascending order of names, or the one of a file.
    Ls {
        /// The directory or file.
        path: TimedPath,
    },
}

impl ReadVerb {
    /// Returns its paths.
    pub(super) fn paths(&mut self) -> Vec<&mut TimedPath> {
        match self {
            Self::Versions { path }
            | Self::Log { path, .. }
            | Self::Cat { path }
            | Self::Ls { path }
            | Self::Preview { path }
            | Self::Why { path }
            | Self::Stats { path }
            | Self::Labels { path, .. }
            | Self::Holds { path, .. } => vec![path],
            Self::Diff(request) => vec![&mut request.old, &mut request.new],
            Self::Grep(request) => vec![&mut request.path],
            Self::ForgetPreview(request) => vec![&mut request.path],
            Self::Policy { path } => path.iter_mut().collect(),
            Self::PrunePreview { .. } => Vec::new(),
        }
    }
}

/// Which changes a log shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogFilter {
    /// Also those below the directory.
    pub recursive: bool,
    /// From the first timestamp of this TIME on.
    pub since: Option<String>,
    /// Up to the last timestamp of this TIME.
    pub until: Option<String>,
    /// By this user.
    pub user: Option<u32>,
    /// By this program.
    pub program: Option<String>,
    /// With one of these operations; all if there are none.
    pub ops: Vec<String>,
    /// The newest so many.
    pub count: Option<u64>,
}

/// What follows the changes of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogPatches {
    /// Nothing.
    #[default]
    Never,
    /// The difference of a file from the state before, with the bytes of both where their lines can be compared.
    OfFiles,
}

/// Two paths to compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffRequest {
    /// The old side.
    pub old: TimedPath,
    /// The new side.
    pub new: TimedPath,
    /// Whether the bytes of files follow their differences.
    pub contents: DiffContents,
}

/// Which bytes follow the differences of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffContents {
    /// None.
    Never,
    /// Those of two states of a file, and none of trees.
    OfFile,
    /// Those of every file that differs.
    OfAll,
}

/// A search through the states of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrepRequest {
    /// The file; with a time, its states up to then.
    pub path: TimedPath,
    /// A regular expression in the syntax of the crate `regex`.
    pub pattern: String,
    /// Whether the pattern is the text itself.
    pub fixed: bool,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Which states are sent.
    pub states: GrepStates,
}

/// Which of the matching states are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrepStates {
    /// The first and the last one.
    FirstAndLast,
    /// All.
    All,
}
