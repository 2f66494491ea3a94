//! rewindfs: mount a bucket as a directory; every saved version of every file stays reachable under `.versions/`.
//!
//! The rooms, top to bottom; imports go downward only:
//!
//! - [`cli`], [`daemon`], [`control`], [`config`]: commands; builds the stack, mounts, drains in reverse
//! - [`verbs`]: questions about the past of a path, answered in rows; [`fuse`]: the kernel's requests
//! - [`fs`]: POSIX semantics, and the past as files
//! - [`store`]: the versioned blob store; owns every row
//! - `cache`: bytes on this machine; `meta`: ordered rows with atomic batches
//! - [`backend`]: the object store
//! - [`env`](mod@env), [`task`]: clock and ids; named tasks with one stop signal

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "#[tokio::test] expands to block_on; the rest of the list judges the program, not its tests"
    )
)]

#[cfg(all(feature = "cli", feature = "fuse"))]
pub mod cli;
#[cfg(all(feature = "cli", feature = "fuse"))]
pub mod config;
#[cfg(all(feature = "cli", feature = "fuse"))]
pub mod control;
#[cfg(all(feature = "cli", feature = "fuse"))]
pub mod daemon;
#[cfg(feature = "fuse")]
pub mod fuse;
#[cfg(all(feature = "cli", feature = "fuse"))]
pub mod verbs;

pub mod fs;
pub mod store;

mod cache;
mod meta;

pub mod backend;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;

pub mod env;
mod sync;
pub mod task;
