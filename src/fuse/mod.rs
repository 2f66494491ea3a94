//! The kernel's dispatcher: the only room that names `fuser`.
//!
//! It turns the kernel's requests into calls of [`FileSystem`](crate::fs::FileSystem) and their results into replies,
//! mounts and unmounts. It decides nothing about files.
//! Invariants: a dispatch thread never waits, every request becomes one task; every request is answered, at the latest
//! when its deadline passes; what a result after the deadline granted is undone; RELEASE is
//! answered at once and executed afterwards; a panic becomes EIO and poisons the file system, and the session continues.

mod adapter;
mod dispatcher;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod mountpoint;
mod negotiate;
mod reply;
mod session;
mod thread_end;

pub use mountpoint::{MountError, Unmount, resolve, serving, unmount};
pub use session::{Configuration, MountAccess, MountFlag, Mounted};
