//! The past: versions, removed names, the tree at a timestamp, restoring.

pub(crate) mod as_of;
pub(crate) mod delete_version;
pub(crate) mod deleted;
pub(crate) mod digest;
pub(crate) mod finality;
pub(crate) mod links;
pub(crate) mod restore_tree;
pub(crate) mod undelete;
pub(crate) mod version_list;
pub(crate) mod versions;
