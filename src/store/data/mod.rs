//! The bytes of files: segments, extents, contents that wait for their upload.

pub(crate) mod extent_map;
pub(crate) mod hard_link;
pub(crate) mod inline_compaction;
pub(crate) mod pins;
pub(crate) mod retry_upload;
pub(crate) mod segment;
pub(crate) mod upload;
