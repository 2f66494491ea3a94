//! The versioned store: namespaces, the tree, versions, contents, commits. It owns every row of the index.

mod admin;
pub mod blob;
mod check;
mod commit;
mod core;
mod data;
mod follower;
mod forget;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gc;
mod history;
mod index;
mod lease;
mod model;
mod namespace;
mod rebuild;
mod recovery;
mod replay;
mod retention;
mod salvage;
mod schema;
mod tree;

pub use admin::{
    DeletionStep, HalfMade, LastWrite, NamespaceInfo, NamespaceState, create_namespace,
    delete_namespace, list_namespaces, namespace_state, parse_setting, set_namespace,
    show_namespace,
};
pub use check::{
    CheckConfig, CheckReport, CheckStep, DataReads, Finding, Findings, LogRepair, MoreDamage,
    OrphanCount, Orphans, RepairReport, Subject, check_log, repair,
};
pub use commit::Committer;
pub use data::DataStore;
pub use data::pins::Pin;
pub use data::read_ahead::ReadAhead;
pub use follower::{FollowConfig, OnDamage};
pub use forget::Forgetter;
pub use forget::carry_out::ForgetSteps;
pub use forget::report::{
    ForgetPlan, ForgetRequest, ForgetStep, ForgottenVersion, ShownBy, ShownName,
};
pub use gc::Gc;
pub use gc::task::{GRACE, GcCounters};
pub use gc::temp_files::sweep_orphans;
pub use history::History;
pub use history::damaged::VersionDamage;
pub use history::deleted::{RemovedName, RemovedNames};
pub use history::directory_horizons::{DirectoryHorizons, DirectoryReach, Wholeness};
pub use history::finality::Finality;
pub use history::holds::HeldVersion;
pub use history::horizons::Horizons;
pub use history::label_expiry::LapsedStep;
pub use history::label_reads::{Label, LabelKeeps};
pub use history::labels::check_label_name;
pub use history::restore::AddedNames;
pub use history::restore_lock::{CompletedRestore, RestoredStep};
pub use history::restore_progress::{LeftName, Restored};
pub use history::version_list::{Predecessor, VersionList};
pub use history::versions::DirectoryChange;
pub use history::view::PastView;
pub use index::health::{RecoveredConflicts, UploadBacklog, Usage};
pub use lease::status::{LeaseStanding, LeaseStatus};
pub use model::config::{CheckpointLimits, GcMode, Linger, NamespaceConfig, Owner, check_name};
pub use model::error::{Outage, StoreError};
pub use model::ids::DentryRef;
pub use model::memory_shares::MEMORY_MIN;
pub use model::policy::{Due, HistoryMax, Policy, PolicyError, Term, Tier, TimeRule, VersionSpan};
pub use model::takeover::{AwaitedWriter, LeaseTime, LeaseTimes, Takeover, WaitProgress};
pub use model::tree_changes::{ChangedName, TreeChanges};
pub use model::version::{
    AttrChange, Attrs, Author, Content, ContentRef, Displaced, EndOp, Ino, Kind, Op, Origin,
    PastEntry, ROOT, Retained, SharedState, Stamp, Stat, Time, Timestamp, VersionId, XattrPresence,
};
pub use namespace::DRAIN_TIMEOUT;
pub use namespace::Namespace;
pub use rebuild::report::{
    LostObject, LostTime, NewerSegments, RebuildLosses, RebuildOutcome, RebuildReport, RebuildStep,
    RebuiltFrom, UuidOrigin,
};
pub use rebuild::{LastWriter, OnLosses, RebuildRequest, last_writer, rebuild_namespace};
pub use replay::sorted::Spill;
pub use retention::Retention;
pub use retention::amounts::Amounts;
pub use retention::brake::Brake;
pub use retention::cap::HistorySize;
pub use retention::directory_policies::DirectoryPolicy;
pub use retention::policy_change::{InForce, POLICY_DELAY, PolicyChange};
pub use retention::report::HistoryState;
pub use retention::report::{
    KeptBy, KeptUntil, LARGEST_MAX, LastRun, PrunedName, RetentionReport, VersionAmount,
};
pub use retention::run::RunOptions;
pub use retention::stats::{NamesBelow, StoreSizes};
pub use retention::task::HORIZON_GRACE;
pub use retention::why::{EndedState, KeptReasons};
pub use salvage::{LocalDirectory, SalvageReport, SalvagedFile, StateOrigin};
pub use schema::retention_rows::{AheadDrops, CapRow, WaitingCause, WaitingDrops};
pub use tree::Tree;
pub(crate) use tree::attributes::changed_xattrs;
pub use tree::attributes::{XATTRS_MAX, XattrMode};
pub use tree::create::{LINK_MAX, NAME_MAX, NewNode, check_entry_name};
pub use tree::file::{File, LEN_MAX};
pub use tree::flush::PendingFlush;
pub use tree::lookup::DirectoryListing;
pub use tree::reflink::CloneSource;
pub use tree::rename::{RenameMode, Renamed};
pub(crate) use tree::running::ProgramUse;
pub use tree::seek::Whence;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
