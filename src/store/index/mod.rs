//! The rows of a namespace as a reader sees them: the stored index and, over it, what is acknowledged and not yet stored.

pub(crate) mod applied;
pub(crate) mod changed_hours;
pub(crate) mod current;
pub(crate) mod directory_policies;
pub(crate) mod health;
pub(crate) mod interval_tree;
pub(crate) mod lineage_changes;
pub(crate) mod provisional;
mod queued_rows;
pub(crate) mod snapshot;
pub(crate) mod timestamps;
