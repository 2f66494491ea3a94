//! Link counts of the past: one row for each change of an inode's number of names, from the first link(2) on.
//!
//! A name counts for as long as it was bound, in any directory, as in st_nlink. Invariant: the operation that adds or removes
//! the name writes the row under the inode's lock, so that each number follows from the one before.

use crate::store::history::view::PastView;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::tables::{LinkCountTable, RowTable};

impl PastView {
    /// Returns the number of names of an inode at a timestamp at which it had at least one.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn link_count_at(&self, ino: Ino, at: Timestamp) -> Result<u32, StoreError> {
        let from = keys::link_count(ino, at);
        let end = keys::after(&keys::link_counts(ino));
        match self.rows.first(from.bytes(), end).await? {
            Some((_, value)) => LinkCountTable::decode(&value),
            // Before its first link(2) an inode has exactly one name.
            None => Ok(1),
        }
    }
}
