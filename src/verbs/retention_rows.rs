//! The rows of `policy`, `prune`, `stats` and `why`.

use serde::{Deserialize, Serialize};

use super::path::PathText;

/// A word of the retention policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyWord {
    /// The word.
    pub word: String,
    /// Its value in force; null where the namespace has no policy and keeps every version.
    pub value: Option<String>,
    /// Its value in a stricter policy that is not in force yet, if it is another one.
    pub pending: Option<String>,
    /// From when on that is in force, in nanoseconds since 1970.
    pub pending_from_ns: Option<u64>,
    /// The directory that limits it to this value; null where that of the namespace holds.
    pub directory: Option<PathText>,
}

/// Versions that a prune dropped, or would drop, or that a rule keeps though no rule of time does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneRow {
    /// What they are: `dropped`, `kept` (by a rule), or `name` (those dropped of one name).
    pub what: String,
    /// The rule that keeps them.
    pub rule: Option<String>,
    /// The name, as a path from the root of the namespace.
    pub path: Option<PathText>,
    /// Their number.
    pub versions: u64,
    /// Their bytes without holes; bytes that other versions show too count for each.
    pub bytes: u64,
}

/// A rule that keeps a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRow {
    /// As in [`ReasonRow`].
    pub rule: String,
    /// Until when that rule keeps it, in nanoseconds since 1970; null while something lasts that has no date.
    pub until_ns: Option<u64>,
}

/// A reason for which a version is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonRow {
    /// The path, from the root of the namespace.
    pub path: PathText,
    /// The version, as a TIME.
    pub stamp: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// The rule: a word of the policy, `label`, `hold`, `hard link`; `current`; `everything`: the namespace has no policy;
    /// `none`: the next prune drops the version.
    pub rule: String,
    /// Until when that rule keeps it, in nanoseconds since 1970; null while something lasts that has no date.
    pub until_ns: Option<u64>,
}

/// An amount or a time of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatRow {
    /// What it is: `live`, `history`, `index`, `limit`, `shortened`, `waiting`, `exact`, `next_prune`,
    /// `whole_in`, `thinned_in`, `cut_off_in`, `label`, `name` or `requests_per_day`.
    pub what: String,
    /// The rule, for `exact` a word of the policy; for `waiting` and `shortened` what shortens the history.
    pub rule: Option<String>,
    /// The name, as a path from the root of the namespace; the directory of a label or of a policy.
    pub path: Option<PathText>,
    /// Bytes.
    pub bytes: Option<u64>,
    /// A number: of versions, or of requests.
    pub count: Option<u64>,
    /// The oldest exact time, or since when, in nanoseconds since 1970; null for `exact` and `whole_in` where every time is. For
    /// `cut_off_in` before when nothing is there.
    pub time_ns: Option<u64>,
    /// The label.
    #[serde(default)]
    pub label: Option<PathText>,
}
