//! The versioned blob store: namespaces, the tree of slots and ids, versions, contents, the commit queue; owns every row.

mod admin;
mod attrs;
mod audit;
mod behind;
pub mod blob;
mod clock;
mod clone;
mod coalesce;
mod conflict;
mod content;
mod create;
mod deleted;
mod digest;
mod dropping;
mod equal;
mod error;
mod file;
mod fix;
mod follow;
mod groups;
mod halt;
mod history;
mod identity;
mod inode;
mod interval;
mod journaled;
mod keys;
mod linked;
mod log;
mod namespace;
mod orphans;
mod overlay;
mod overtaken;
mod past;
mod pin;
mod pipeline;
mod prepare;
mod put;
mod queue;
mod reclaim;
mod record;
mod recover;
mod remove;
mod rename;
mod replay;
mod rescue;
mod restore;
mod rewrite;
mod rows;
mod seal;
mod segment;
mod sweep;
mod transition;
mod tree;
mod undelete;
mod unsettled;
mod upkeep;
mod version;

pub use admin::{
    LastWrite, NamespaceInfo, create_namespace, delete_namespace, list_namespaces, parse_setting,
    set_namespace, show_namespace,
};
pub use attrs::{XATTRS_MAX, XattrMode};
pub use audit::{Audit, audit_log};
pub use clone::CloneSource;
pub use conflict::Conflicts;
pub use create::{LINK_MAX, NAME_MAX, NewNode, check_entry_name};
pub use deleted::{Deleted, Removed};
pub use error::StoreError;
pub use file::{File, LEN_MAX, Whence};
pub use fix::Fixed;
pub use history::Change;
pub use namespace::{Gather, Namespace, NamespaceConfig, check_name};
pub use orphans::sweep_orphans;
pub use pin::Pin;
pub use pipeline::{Pending, Usage};
pub use rename::{RenameMode, Renamed};
pub use tree::Listing;
pub use upkeep::{GRACE, Reclaim, Reclaimed};
pub use version::{
    AttrChange, Attrs, Author, Content, ContentRef, EndOp, Ino, Instant, Kept, Kind, Op, Origin,
    PastEntry, ROOT, Stamp, Stat, Time, VersionId,
};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
