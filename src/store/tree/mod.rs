//! The live tree: inodes, names, open files.

pub(crate) mod attributes;
pub(crate) mod create;
pub(crate) mod disk_space;
pub(crate) mod drain;
pub(crate) mod file;
pub(crate) mod flush;
pub(crate) mod flush_content;
pub(crate) mod flush_late;
pub(crate) mod inode;
pub(crate) mod lookup;
pub(crate) mod put;
pub(crate) mod reflink;
pub(crate) mod rename;
pub(crate) mod row_writer;
pub(crate) mod unchanged;
pub(crate) mod unlink;
