//! How many names an inode had at a timestamp: a row whenever the number changes, from the first link on.
//!
//! A name is counted for as long as it was bound, like stat(2) counts it, wherever it was. Rows are written in the operation
//! that adds or removes the name, which holds the inode's lock, so that their numbers follow one another.

use crate::store::history::History;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::tables::{LinkCountTable, RowTable};

impl History {
    /// How many names led to an inode at a timestamp at which some name did.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn link_count_at(&self, ino: Ino, at: Timestamp) -> Result<u32, StoreError> {
        let from = keys::link_count(ino, at);
        let end = keys::after(&keys::link_counts(ino));
        match self.core.index.first(from.bytes(), end).await? {
            Some((_, value)) => LinkCountTable::decode(&value),
            // Before its first link it had one name.
            None => Ok(1),
        }
    }
}
