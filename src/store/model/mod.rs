//! Types that every floor of the store uses: ids, versions, attributes, errors, configuration. No input or output.

pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod failpoints;
pub(crate) mod ids;
pub(crate) mod ignored_names;
pub(crate) mod memory_shares;
pub(crate) mod policy;
pub(crate) mod role;
pub(crate) mod takeover;
pub(crate) mod tree_changes;
pub(crate) mod version;
