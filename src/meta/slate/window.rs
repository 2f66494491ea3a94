//! A window of a table: the unit in which tables are read, and kept in memory and on disk.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Attributes, ObjectMeta};

/// The size of a window, in bytes.
pub(super) const WINDOW: u64 = 256 * 1024;

/// A window: the path of the table, and the number of the window.
pub(super) type WindowKey = (Path, u64);

/// The bytes of a window, and the metadata of the table.
#[derive(Debug)]
pub(super) struct TableWindow {
    pub(super) bytes: Bytes,
    pub(super) table: ObjectMeta,
    pub(super) attributes: Attributes,
}

impl TableWindow {
    /// A window of the table `at`, whose length is `table_len`, from this machine's disk. The engine uses the bytes alone.
    pub(super) fn of_disk(at: &Path, table_len: u64, bytes: Bytes) -> Self {
        Self {
            bytes,
            table: ObjectMeta {
                location: at.clone(),
                last_modified: Default::default(),
                size: table_len,
                e_tag: None,
                version: None,
            },
            attributes: Attributes::default(),
        }
    }
}
