//! rewindfs: mount a bucket as a directory; every saved version of every file stays reachable under `.versions/`.

pub mod backend;
pub mod cache;
pub mod env;
pub mod fs;
pub mod meta;
pub mod store;
pub mod sync;
pub mod task;
