//! Garbage collection: versions that are gone, dead segments, copies of half-dead ones, leftovers of crashed writers.

pub(crate) mod compaction;
pub(crate) mod lineage;
pub(crate) mod segments;
pub(crate) mod task;
pub(crate) mod temp_files;
pub(crate) mod uncited;
