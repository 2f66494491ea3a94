//! Contents of the past that are read while their versions may go: held first, looked at after the read.

use bytes::Bytes;

use crate::store::data::DataStore;
use crate::store::data::pins::Pin;
use crate::store::model::error::StoreError;
use crate::store::model::role::Role;
use crate::store::model::version::{ContentRef, PastEntry, Retained};
use crate::store::schema::keys;
use crate::sync::lock;

impl DataStore {
    /// As [`DataStore::hold`], having made sure that its version still stood: what it showed is read from now on until the
    /// hold is dropped.
    ///
    /// # Errors
    /// `Stale` when the version has been removed, `Corrupt` where only its name is left.
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

    /// Keeps the bytes of a state of the past readable, also when its version is removed meanwhile; `None` where it has none.
    pub fn hold(&self, entry: &PastEntry) -> Option<Pin> {
        let content = entry.content.reference()?;
        Some(self.pins.pin(content))
    }

    /// Whether any row shows a content.
    pub(crate) async fn is_shown(&self, content: ContentRef) -> Result<bool, StoreError> {
        let count: Option<i64> = self.core.index.row(&keys::count(content)).await?;
        Ok(count.is_some_and(|count| count > 0))
    }

    /// Whether the rows of a content that was read could be relied upon: a row shows it, or showed it when it was pinned.
    pub(crate) async fn is_readable(&self, content: ContentRef) -> Result<bool, StoreError> {
        let held = lock(&self.pins.shown).contains_key(&content);
        Ok(held || self.is_shown(content).await?)
    }

    /// What was read of a content, if it could be relied upon. Asked after the read: until here its rows were complete.
    pub(crate) async fn verify_referenced(
        &self,
        content: ContentRef,
        read: Result<Bytes, StoreError>,
    ) -> Result<Bytes, StoreError> {
        if let (Role::Follower(follower), Err(StoreError::Corrupt(_))) = (&self.core.role, &read) {
            // What a state needs goes a grace period after the state: this one is that old, and a newer one tells more.
            follower.look_again().await;
        }
        match self.is_readable(content).await? {
            true => read,
            false => Err(StoreError::Stale),
        }
    }
}

/// What reading a version says that was deleted and had none before it.
pub(crate) fn deleted() -> StoreError {
    StoreError::Corrupt("this version was deleted, and there is none before it".to_owned())
}
