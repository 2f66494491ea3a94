//! The live tree: what names lead to, how they are made, moved and removed, and what that leaves in the past.

pub(crate) mod attrs;
pub(crate) mod create;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod transition;
pub(crate) mod tree;
