//! Values by which retention finds versions again.

use serde::{Deserialize, Serialize};

use crate::store::model::ids::Dentry;
use crate::store::model::policy::{Policy, Tier};
use crate::store::model::version::{Ino, Timestamp};

/// Whether retention keeps ended versions of a name for no other reason than that the name exists (`keep-last`). An operation that
/// ends a version of such a name, or the name itself, lists the name for review (row `G Z`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OlderVersions {
    /// No version is kept for that reason.
    #[default]
    NotHeld,
    /// At least one version is, or was before the last review.
    Held,
}

/// Where retention finds a version record again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Filing {
    /// Nowhere: the rules of time keep the version for ever.
    Nowhere,
    /// In row `G X`, in the order of the times at which the rules of time stop keeping versions.
    Due(Timestamp),
    /// In row `G F` of this name: one of the last versions of a name that exists. Without a name in the directory: of a name of
    /// that hard-linked inode.
    Last(Dentry),
    /// In row `G X` at this time and in row `G F` of its own name, or of those of its hard-linked inode: the last version of a
    /// removed name, or one that is held.
    Until(Timestamp),
    /// In row `G P` of this label: the label shows the version.
    Label(LabelPin),
    /// In row `G X` at this time and in row `G F` of this name: a state of a hard-linked inode that was the last one of the name,
    /// which is removed.
    Removed(Timestamp, Dentry),
}

/// `H B`: a name of a hard-linked inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BindingRow {
    /// When the name ceased to lead to the inode; `None` while it does.
    pub(crate) end: Option<Timestamp>,
}

/// What a label shows: a directory, as of a timestamp. No two labels show the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LabelPin {
    pub(crate) timestamp: Timestamp,
    pub(crate) directory: Ino,
}

/// `G C`: a policy that is stricter than the one in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingPolicy {
    pub(crate) policy: Policy,
    /// When it was set.
    pub(crate) set: Timestamp,
    /// From when on it is in force.
    pub(crate) from: Timestamp,
}

/// `G d`: the policy to which `history-max` has shortened that of the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapRow {
    /// The shortened policy; only its terms count.
    pub policy: Policy,
    /// Since when the policy has been shortened without a break.
    pub since: Timestamp,
}

/// `G f`: versions of a name that are being forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForgottenRow {
    /// The lineages of their contents, and those with rows that cite the same extents, ascending.
    pub(crate) lineages: Vec<u64>,
    /// The parts of extents that only they showed.
    pub(crate) extents: Vec<ForgottenPart>,
    /// The inline bytes that only they showed.
    pub(crate) inline: Vec<ForgottenInline>,
}

/// A part of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForgottenPart {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    /// Where the extent begins in its segment.
    pub(crate) offset: u32,
    /// Where the part begins in the extent.
    pub(crate) start: u32,
    /// Where it ends.
    pub(crate) end: u32,
}

/// Inline bytes by their hash: the bytes themselves are to be nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForgottenInline {
    pub(crate) hash: [u8; 16],
    pub(crate) len: u32,
}

/// Versions that go before they are due as they were filed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AheadDrops {
    /// Their number.
    pub versions: u64,
    /// Their bytes without holes; bytes that other versions show too count for each.
    pub bytes: u64,
    /// The bytes of all versions that have ended, counted alike.
    pub all: u64,
}

impl AheadDrops {
    /// Tells whether they have more than a quarter of the bytes of all versions that have ended.
    pub(crate) fn are_many(&self) -> bool {
        self.bytes > self.all / 4
    }
}

/// Why versions are to go ahead of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitingCause {
    /// A stricter policy.
    Policy,
    /// `history-max`.
    HistoryMax,
}

/// `G b`: drops that wait for a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingDrops {
    /// Why they would go.
    pub cause: WaitingCause,
    /// Since when they have been waiting.
    pub since: Timestamp,
    /// What they are, as of the last look.
    pub drops: AheadDrops,
}

/// `G q`: the policies that a directory has or had, and which times are exact in spite of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectoryPolicyRow {
    /// In ascending order. They do not overlap.
    pub(crate) spans: Vec<PolicySpan>,
    /// The oldest time at which every version is kept that stood then, as far as these policies keep it.
    pub(crate) within: Timestamp,
    /// Likewise, of the grid times of each tier.
    pub(crate) tiers: [Timestamp; Tier::ALL.len()],
}

/// A policy of a directory, and when it was in force: for versions that ended then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PolicySpan {
    pub(crate) from: Timestamp,
    /// `None` while it is in force.
    pub(crate) until: Option<Timestamp>,
    pub(crate) policy: Policy,
}

impl PolicySpan {
    /// Tells whether the policy was in force for versions that ended at `at`.
    pub(crate) fn has(&self, at: Timestamp) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }
}
