//! Support of the mount tests: a mount, object stores, a proxy that counts, commands with their output.
//!
//! Invariant: every process started here ends when its value is dropped, and every wait has a bound.

pub(crate) mod azure;
pub(crate) mod disk;
pub(crate) mod mount;
pub(crate) mod pjdfstest;
pub(crate) mod place;
pub(crate) mod portal;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod rclone;
pub(crate) mod s3;
pub(crate) mod s3s;
pub(crate) mod samba;
pub(crate) mod sandbox;
pub(crate) mod server;
pub(crate) mod shell;
pub(crate) mod tree;

pub(crate) use server::wait_until;

/// Whether the long mode is on: `REWINDFS_TEST_LONG=1`.
pub(crate) fn long() -> bool {
    std::env::var_os("REWINDFS_TEST_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// `quick` in the ordinary run, `thorough` in the long mode.
pub(crate) fn scale<T>(quick: T, thorough: T) -> T {
    if long() { thorough } else { quick }
}
