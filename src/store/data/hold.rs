//! Reads of historical contents whose versions may be deleted meanwhile: the content is pinned before the read, and verified to
//! be referenced after it.

use bytes::Bytes;

use crate::store::data::DataStore;
use crate::store::data::pins::Pin;
use crate::store::model::error::StoreError;
use crate::store::model::role::Role;
use crate::store::model::version::{ContentRef, PastEntry, Retained};
use crate::store::schema::keys;
use crate::sync::lock;

impl DataStore {
    /// As [`DataStore::hold`], after verifying that the version still exists: its bytes stay readable until the pin is dropped,
    /// also if the version is deleted meanwhile.
    ///
    /// # Errors
    /// `Stale` when the version has been deleted, `Corrupt` when only its name is left, errors of the meta store.
    pub async fn hold_standing(&self, entry: &PastEntry) -> Result<Option<Pin>, StoreError> {
        if entry.kept == Retained::Nothing {
            return Err(deleted());
        }
        let Some(mut pin) = self.hold(entry) else {
            return Ok(None);
        };
        if !self.is_shown(pin.content).await? {
            return Err(StoreError::Stale);
        }
        pin.shown = true;
        *lock(&self.pins.shown).entry(pin.content).or_default() += 1;
        Ok(Some(pin))
    }

    /// Pins the content of a historical version, which keeps it readable; `None` if the version has no content. Does not verify
    /// that the version still exists.
    pub fn hold(&self, entry: &PastEntry) -> Option<Pin> {
        let content = entry.content.reference()?;
        Some(self.pins.pin(content))
    }

    /// Tells whether any row shows a content.
    pub(crate) async fn is_shown(&self, content: ContentRef) -> Result<bool, StoreError> {
        let count: Option<i64> = self.core.index.row(&keys::count(content)).await?;
        Ok(count.is_some_and(|count| count > 0))
    }

    /// Tells whether the range rows of a content are complete: a row shows the content, or, in the writer, showed it when an existing pin
    /// was made.
    pub(crate) async fn is_readable(&self, content: ContentRef) -> Result<bool, StoreError> {
        // The writer of a follower's index does not see the pins of the follower.
        let is_writer = matches!(self.core.role, Role::Writer);
        let held = is_writer && lock(&self.pins.shown).contains_key(&content);
        Ok(held || self.is_shown(content).await?)
    }

    /// Returns `read`, the result of a read of a content, if the content's range rows were complete during the read. Called
    /// after the read: a content that no row shows is never shown again, so if a row shows it now, one did during the read, and
    /// its range rows are not deleted before that.
    ///
    /// # Errors
    /// `Stale` when the rows may have been incomplete; the error of the read; errors of the meta store.
    pub(crate) async fn verify_referenced(
        &self,
        content: ContentRef,
        read: Result<Bytes, StoreError>,
    ) -> Result<Bytes, StoreError> {
        if let (Role::Follower(follower), Err(StoreError::Corrupt(_))) = (&self.core.role, &read) {
            // A segment is deleted a grace period after the last row that cites it. If it is missing, the state of the index
            // that this follower shows is older than that: the newer state tells whether the content was deleted.
            follower.look_again().await;
        }
        match self.is_readable(content).await? {
            true => read,
            false => Err(StoreError::Stale),
        }
    }
}

/// Returns the error of reading a deleted version that has no older version in its place.
pub(crate) fn deleted() -> StoreError {
    StoreError::Corrupt("this version was deleted, and there is none before it".to_owned())
}
