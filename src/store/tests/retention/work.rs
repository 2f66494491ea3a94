//! What walks do: the names they use, and the policies that they set.

use super::words::{DAY, DEFAULT, HOUR, UNLIMITED, Words};
use crate::store::model::failpoints::PlantedFault;

pub(super) const FILES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
/// Names that directories get.
pub(super) const FOLDERS: [&str; 6] = ["u", "v", "w", "x", "y", "z"];

/// The policies that a walk sets in turn.
pub(super) const POLICIES: [Words; 4] = [
    DEFAULT,
    Words {
        within: 5 * HOUR,
        hourly: 2 * DAY,
        daily: 15 * DAY,
        weekly: 0,
        last: 1,
        removed: 4 * DAY,
        max: None,
    },
    Words {
        within: 3 * DAY,
        hourly: 20 * DAY,
        daily: 120 * DAY,
        weekly: 500 * DAY,
        last: 5,
        removed: 50 * DAY,
        max: None,
    },
    Words {
        max: Some(150_000),
        ..DEFAULT
    },
];

/// What directories say in turn. Not `keep-last`: whether a version counts that the same run drops depends on which of the two the run takes first.
pub(super) const LIMITS: [Words; 5] = [
    Words {
        within: HOUR,
        hourly: 0,
        daily: 0,
        weekly: 0,
        ..UNLIMITED
    },
    Words {
        within: 6 * HOUR,
        hourly: 3 * DAY,
        daily: 0,
        weekly: 0,
        removed: 2 * DAY,
        ..UNLIMITED
    },
    Words {
        daily: 10 * DAY,
        weekly: 0,
        removed: 0,
        ..UNLIMITED
    },
    Words {
        hourly: 0,
        weekly: 40 * DAY,
        ..UNLIMITED
    },
    // More than the namespace keeps.
    Words {
        within: 300 * DAY,
        ..UNLIMITED
    },
];

/// What a walk does.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub(super) directories: usize,
    /// In each directory.
    pub(super) names: usize,
    pub(super) days: u32,
    pub(super) steps: u32,
    /// Whether the policy changes.
    pub(super) policies: bool,
    /// Whether directories have policies of their own.
    pub(super) limits: bool,
    /// Whether directories are removed with their trees and undeleted, and versions and labels are held.
    pub(super) trees: bool,
    /// Approximate size of an object of a checkpoint of the log.
    pub(super) part_bytes: usize,
    /// After how many days each a run is cut by a crash.
    pub(super) crashes: u32,
    /// After how many days each the counters are recounted, which reads every row.
    pub(super) recounts: u32,
    pub(super) fault: Option<PlantedFault>,
}
