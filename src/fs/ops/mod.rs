//! The calls, a file per family; each is an inherent impl of [`FileSystem`](crate::fs::FileSystem) under the call's name.

pub(crate) mod attr;
mod changes;
mod create;
pub(crate) mod dir;
mod directory_policy;
pub(crate) mod io;
mod label;
mod link;
mod lookup;
mod remove;
mod rename;
pub(crate) mod space;
mod sync;
mod takeover;
#[cfg(test)]
mod tests;
mod unlinked;
mod xattr;
