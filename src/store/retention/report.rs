//! The report of a run: how many versions and bytes go, and what keeps the others.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::store::model::ids::Dentry;
use crate::store::model::policy::TimeRule;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::retention_rows::WaitingDrops;

/// Why a version is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptBy {
    /// A rule of time.
    Time(TimeRule),
    /// `keep-last`: it is one of the last versions of a name that exists.
    Last,
    /// `keep-removed`: it is the last version of a removed name, or in a removed directory.
    Removed,
    /// A label shows it.
    Label,
    /// It is held.
    Hold,
    /// It is a former name of a file whose state of then is the current one.
    HardLink,
}

/// Until when a rule keeps a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptUntil {
    /// Up to and without this timestamp.
    At(Timestamp),
    /// As long as something lasts that has no date: a name, a label, a policy that keeps it for ever.
    Open,
}

/// How many names with the most dropped bytes a report has.
pub const LARGEST_MAX: usize = 20;
/// How many names are counted before those with the fewest bytes are forgotten.
const NAMES_MAX: usize = 10_000;

/// A number of versions and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionAmount {
    /// Number of versions.
    pub versions: u64,
    /// Their bytes without holes. Bytes that other versions show too count for each.
    pub bytes: u64,
}

impl VersionAmount {
    fn add(&mut self, bytes: u64) {
        self.versions += 1;
        self.bytes += bytes;
    }
}

/// The dropped versions of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedName {
    /// The name's directory.
    pub directory: Ino,
    /// The name.
    pub name: Bytes,
    /// The versions.
    pub amount: VersionAmount,
}

/// What a run looked at and did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Versions that no rule keeps.
    pub dropped: VersionAmount,
    /// Versions that a rule keeps, of those that were looked at: the others are not due by the rules of time.
    pub kept: BTreeMap<KeptBy, VersionAmount>,
    /// Drops ahead of time that wait for a confirmation.
    pub waiting: Option<WaitingDrops>,
    /// Dropped versions by name: a directory's inode number, and a name in it.
    names: BTreeMap<Dentry, VersionAmount>,
}

impl RetentionReport {
    /// Returns how many versions were looked at.
    pub fn examined(&self) -> u64 {
        let kept: u64 = self.kept.values().map(|kept| kept.versions).sum();
        self.dropped.versions + kept
    }

    /// Returns the names with the most dropped bytes, the largest first.
    pub fn largest(&self) -> Vec<PrunedName> {
        let names = self.names.iter().map(|(name, amount)| PrunedName {
            directory: name.parent,
            name: name.name.clone(),
            amount: *amount,
        });
        let mut names: Vec<_> = names.collect();
        names.sort_by_key(|pruned| std::cmp::Reverse(pruned.amount.bytes));
        names.truncate(LARGEST_MAX);
        names
    }

    /// Counts a version of so many bytes that a rule keeps.
    pub(crate) fn keep(&mut self, by: KeptBy, bytes: u64) {
        self.kept.entry(by).or_default().add(bytes);
    }

    /// Counts a version that no rule keeps, of a name if one shows it.
    pub(crate) fn drop_of(&mut self, name: Option<&Dentry>, bytes: u64) {
        self.dropped.add(bytes);
        let Some(name) = name else {
            return;
        };
        self.names.entry(name.clone()).or_default().add(bytes);
        if self.names.len() > NAMES_MAX {
            let mut bytes: Vec<u64> = self.names.values().map(|amount| amount.bytes).collect();
            bytes.sort_unstable();
            let median = bytes[bytes.len() / 2];
            self.names.retain(|_, amount| amount.bytes > median);
        }
    }
}

/// A run of this process that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRun {
    /// When it ended.
    pub at: Timestamp,
    /// What it did.
    pub report: RetentionReport,
}

/// What a status tells about the history, as of the last look; a writer looks every minute, and after each run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryState {
    /// Bytes of the history; `None`: not counted yet.
    pub bytes: Option<u64>,
    /// Its limit in bytes; `None`: none.
    pub max: Option<u64>,
    /// Since when `history-max` has shortened the policy.
    pub shortened: Option<Timestamp>,
    /// Drops that wait for a confirmation.
    pub waiting: Option<WaitingDrops>,
    /// Why nothing is dropped.
    pub stopped: Option<String>,
}
