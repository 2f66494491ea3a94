//! Versions with bytes that cannot be read, as a repair has marked them.

use crate::store::history::History;
use crate::store::model::error::StoreError;
use crate::store::model::version::{PastEntry, Timestamp};
use crate::store::schema::damage_keys;

/// What a repair has found out about a version with bytes that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionDamage {
    /// When it was found.
    pub found: Timestamp,
    /// How many bytes of the version cannot be read.
    pub bytes: u64,
}

impl History {
    /// Returns the damage of a state of a file; `None` if none was found by a repair.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn damage_of(&self, entry: &PastEntry) -> Result<Option<VersionDamage>, StoreError> {
        let Some(content) = entry.content.reference() else {
            return Ok(None);
        };
        let row = self.core.index.row(&damage_keys::damaged(content)).await?;
        Ok(row.map(|row| VersionDamage {
            found: row.found,
            bytes: row.bytes,
        }))
    }
}
