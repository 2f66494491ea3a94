//! Why a verb has no answer. Each message begins with the path that it is about.

use crate::fs::past::stamp::{Precision, print};
use crate::store::{StoreError, Timestamp};

/// The times that an error suggests: those at which the path shows a state, on both sides of the one that was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NearestTimes {
    /// When the last state before began.
    pub(super) before: Option<Timestamp>,
    /// When the first state after began.
    pub(super) after: Option<Timestamp>,
}

impl std::fmt::Display for NearestTimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stamp = |at| print(at, Precision::Nanos);
        match (self.before, self.after) {
            (Some(before), Some(after)) => write!(
                f,
                "; the nearest kept times are {} and {}",
                stamp(before),
                stamp(after)
            ),
            (Some(one), None) | (None, Some(one)) => {
                write!(f, "; the nearest kept time is {}", stamp(one))
            }
            (None, None) => Ok(()),
        }
    }
}

/// Why a verb has no answer, or not the whole answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerbError {
    /// Nothing has or had this name.
    #[error("{path}: does not exist, and nothing of it is kept")]
    Missing {
        /// The path.
        path: String,
    },
    /// Nothing has this name, and what follows its `@` is no TIME.
    #[error(
        "{path}: does not exist, and \"{text}\" is no time and no label here: times are -30s, -15m, -2h, -3d, -1w, 2026-11-20, 2026-11-20T21-26, \
         '2026-11-20 21:26:48+0100' and the stamps that `rewindfs versions` prints with --json"
    )]
    NoTime {
        /// The path.
        path: String,
        /// What follows the `@`.
        text: String,
    },
    /// The name has a past, and does not exist now.
    #[error("{path}: does not exist now{nearest}: write PATH@TIME")]
    Removed {
        /// The path.
        path: String,
        /// When it did.
        nearest: NearestTimes,
    },
    /// The name did not exist at the time.
    #[error("{path}: did not exist then{nearest}")]
    NotThen {
        /// The path with its time.
        path: String,
        /// When it did.
        nearest: NearestTimes,
    },
    /// The time is in the future, or before 1970.
    #[error("{path}: the time is in the future, or before 1970{nearest}")]
    NoSuchTime {
        /// The path with its time.
        path: String,
        /// When the path existed.
        nearest: NearestTimes,
    },
    /// A directory was named where a file is needed.
    #[error("{path}: is a directory; `rewindfs ls` lists one, `rewindfs log` tells its changes")]
    IsDirectory {
        /// The path.
        path: String,
    },
    /// A path without a time was named where a version is needed.
    #[error(
        "{path}: write PATH@TIME; `rewindfs versions --json` prints the stamps of its versions"
    )]
    TimeNeeded {
        /// The path.
        path: String,
    },
    /// A directory was to be held.
    #[error(
        "{path}: is a directory; `rewindfs label create` names what it shows, and a label can be held"
    )]
    HoldOfDirectory {
        /// The path.
        path: String,
    },
    /// Something else was named where a regular file is needed.
    #[error("{path}: is a {kind}, not a regular file")]
    NotFile {
        /// The path.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A path leads through something that is no directory.
    #[error("{path}: is not a directory")]
    NotDirectory {
        /// The part of the path that is no directory.
        path: String,
    },
    /// A file was compared with a directory.
    #[error("{old} and {new}: one is a directory and the other is not: compare two of a kind")]
    Unlike {
        /// One path.
        old: String,
        /// The other.
        new: String,
    },
    /// A name that exists was to be undeleted.
    #[error(
        "{path}: exists; `rewindfs undelete` restores what was removed, and `rewindfs restore {path}@TIME` an earlier state"
    )]
    NotRemoved {
        /// The path.
        path: String,
    },
    /// A name that was moved away was to be undeleted.
    #[error("{path}: was moved away and not removed{nearest}: `rewindfs log` tells where to")]
    Moved {
        /// The path.
        path: String,
        /// When it existed.
        nearest: NearestTimes,
    },
    /// A name has no directory to be restored in.
    #[error(
        "{path}: its directory {directory} does not exist: restore that first, or name another path with --to"
    )]
    NoDirectory {
        /// The path.
        path: String,
        /// The directory.
        directory: String,
    },
    /// The path of something that is restored exists.
    #[error("{path}: exists; name another path with --to")]
    Exists {
        /// The path.
        path: String,
    },
    /// The name of the past was to be given to something else.
    #[error("{path}: the name is reserved for the past; name another path with --to")]
    Reserved {
        /// The path.
        path: String,
    },
    /// Something else than its name shows what was to be forgotten.
    #[error("{path}: nothing is forgotten, because {by}")]
    ShownElsewhere {
        /// The path.
        path: String,
        /// What shows it, and what can be done.
        by: String,
    },
    /// Versions of other names show the bytes of versions that were deleted.
    #[error(
        "{path}: its versions are deleted, but the same bytes are in {by}: forget that too, and the bytes of all go"
    )]
    VersionsElsewhere {
        /// The path.
        path: String,
        /// The versions.
        by: String,
    },
    /// States that were written over a version that was deleted have its bytes in their stored form.
    #[error(
        "{path}: its versions are deleted, but some of their bytes, which nothing shows, are in the stored form of {by}: save such a file anew \
         (cp --reflink=never FILE FILE.new && mv FILE.new FILE), and forget its ended versions (rewindfs forget FILE --yes); the bytes of all go then"
    )]
    StoredElsewhere {
        /// The path.
        path: String,
        /// The states.
        by: String,
    },
    /// The root directory was named where a name in it is needed.
    #[error("/: is the root directory, which cannot be removed; name a path in it")]
    IsRoot,
    /// A label of this name exists.
    #[error("{path}: has a label {label} already; `rewindfs label list` prints those it has")]
    LabelExists {
        /// The directory.
        path: String,
        /// The label.
        label: String,
    },
    /// A directory has no such label.
    #[error("{path}: has no label {label}; `rewindfs label list` prints those it has")]
    NoLabel {
        /// The directory.
        path: String,
        /// The label.
        label: String,
    },
    /// The end of a label or of a hold cannot be.
    #[error("{path}: {why}")]
    End {
        /// The directory.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A pattern cannot be read.
    #[error("{pattern}: is no pattern: {why}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// No state has a matching line.
    #[error("{path}: no state has a line with {pattern}")]
    NoMatch {
        /// The path.
        path: String,
        /// The pattern.
        pattern: String,
    },
    /// The store failed.
    #[error("{path}: {source}")]
    Store {
        /// The path that was read.
        path: String,
        /// Its error.
        source: StoreError,
    },
    /// The receiver of the rows has read enough.
    #[error("the rows are not read any more")]
    Unread,
}

impl VerbError {
    /// Returns a function that names `path` in an error of the store.
    pub(super) fn at<P: ToString>(path: &P) -> impl Fn(StoreError) -> Self + use<P> {
        let path = path.to_string();
        move |source| Self::Store {
            path: path.clone(),
            source,
        }
    }
}
