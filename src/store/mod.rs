//! The versioned blob store: namespaces, the tree of slots and ids, versions, contents, the commit queue; owns every row.

mod admin;
mod audit;
pub mod blob;
mod clock;
mod content;
mod error;
mod file;
mod follow;
mod identity;
mod inode;
mod keys;
mod names;
mod namespace;
mod past;
mod queue;
mod reclaim;
mod record;
mod recover;
mod rows;
mod version;

pub use admin::{
    LastWrite, NamespaceInfo, create_namespace, delete_namespace, list_namespaces, parse_setting,
    set_namespace, show_namespace,
};
pub use audit::{Audit, AuditConfig, AuditStep, Finding, Findings, Spill, Subject, audit_log};
pub use content::pin::Pin;
pub use error::StoreError;
pub use file::clone::CloneSource;
pub use file::fix::Fixed;
pub use file::{File, LEN_MAX, Whence};
pub use follow::{FollowConfig, OnDamage};
pub(crate) use names::attrs::changed_xattrs;
pub use names::attrs::{XATTRS_MAX, XattrMode};
pub use names::create::{LINK_MAX, NAME_MAX, NewNode, check_entry_name};
pub use names::rename::{RenameMode, Renamed};
pub use names::tree::Listing;
pub use namespace::{Gather, Namespace, NamespaceConfig, check_name};
pub use past::deleted::{Deleted, Removed};
pub use past::finality::Finality;
pub use past::history::Change;
pub use past::series::{History, Predecessor};
pub use queue::drain::DRAIN_TIMEOUT;
pub use queue::health::{Pending, Usage};
pub use reclaim::orphans::sweep_orphans;
pub use reclaim::upkeep::{GRACE, Reclaim, Reclaimed};
pub use recover::conflict::Conflicts;
pub use version::{
    AttrChange, Attrs, Author, Content, ContentRef, Displaced, EndOp, Ino, Kept, Kind, Op, Origin,
    PastEntry, ROOT, SharedState, Stamp, Stat, Time, Timestamp, VersionId,
};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
