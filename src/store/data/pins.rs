//! Contents somebody reads or refers to without a row that shows them: their rows stay while they are held.

use std::collections::HashMap;

use bytes::Bytes;

use crate::cache::{Fixed, Source};
use crate::store::follower::Role;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, PastEntry, Retained};
use crate::store::namespace::{Namespace, Shared};
use crate::store::schema::keys;
use crate::sync::{Arc, Mutex, lock};

/// The lineages that are held, and how often.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    held: Mutex<HashMap<u64, usize>>,
    /// States that a row still showed when they were held.
    shown: Mutex<HashMap<ContentRef, usize>>,
}

/// A hold on the bytes of a content; given back when dropped.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    content: ContentRef,
    shown: bool,
}

impl Namespace {
    /// As [`Namespace::hold`], having made sure that its version still stood: what it showed is read from now on until the
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
        if !self.0.is_shown(pin.content).await? {
            return Err(StoreError::Stale);
        }
        pin.shown = true;
        *lock(&self.0.pins.shown).entry(pin.content).or_default() += 1;
        Ok(Some(pin))
    }

    /// Keeps the bytes of a state of the past readable, also when its version is removed meanwhile; `None` where it has none.
    pub fn hold(&self, entry: &PastEntry) -> Option<Pin> {
        let content = entry.content.reference()?;
        Some(self.0.pins.pin(content))
    }
}

/// What reading a version says that was deleted and had none before it.
pub(crate) fn deleted() -> StoreError {
    StoreError::Corrupt("this version was deleted, and there is none before it".to_owned())
}

impl Shared {
    /// Whether any row shows a content.
    pub(crate) async fn is_shown(&self, content: ContentRef) -> Result<bool, StoreError> {
        let count: Option<i64> = self.index.row("G R", &keys::count(content)).await?;
        Ok(count.is_some_and(|count| count > 0))
    }

    /// Whether the rows of a content that was read could be relied upon: it is shown, or was when somebody took hold of it.
    pub(crate) async fn is_readable(&self, content: ContentRef) -> Result<bool, StoreError> {
        let held = lock(&self.pins.shown).contains_key(&content);
        Ok(held || self.is_shown(content).await?)
    }
}

impl Shared {
    /// What was read of a content, if it could be relied upon. Asked after the read: until here its rows were complete.
    pub(crate) async fn verify_referenced(
        &self,
        content: ContentRef,
        read: Result<Bytes, StoreError>,
    ) -> Result<Bytes, StoreError> {
        if let (Role::Follower(follower), Err(StoreError::Corrupt(_))) = (&self.role, &read) {
            // What a state needs goes a grace period after the state: this one is that old, and a newer one tells more.
            follower.look_again().await;
        }
        match self.is_readable(content).await? {
            true => read,
            false => Err(StoreError::Stale),
        }
    }
}

impl Pins {
    /// Holds a content.
    pub(crate) fn pin(self: &Arc<Self>, content: ContentRef) -> Pin {
        *lock(&self.held).entry(content.cid).or_default() += 1;
        Pin {
            pins: Arc::clone(self),
            content,
            shown: false,
        }
    }

    /// Holds every content that a state's spans refer to.
    pub(crate) fn pin_all(self: &Arc<Self>, map: &Fixed) -> Vec<Arc<Pin>> {
        let referred = map.spans().filter_map(|span| match span.source {
            Source::Reference { of, .. } => Some(Arc::new(self.pin(ContentRef::of(of)))),
            _ => None,
        });
        referred.collect()
    }

    /// Whether anybody holds a state of the lineage.
    pub(crate) fn is_pinned(&self, cid: u64) -> bool {
        lock(&self.held).contains_key(&cid)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.shown {
            let mut shown = lock(&self.pins.shown);
            if let Some(count) = shown.get_mut(&self.content) {
                *count -= 1;
                if *count == 0 {
                    shown.remove(&self.content);
                }
            }
        }
        let mut held = lock(&self.pins.held);
        if let Some(count) = held.get_mut(&self.content.cid) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.content.cid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::version::Timestamp;

    #[test]
    fn a_lineage_is_held_until_its_last_pin_is_dropped() {
        let pins = Arc::new(Pins::default());
        let of = |timestamp| ContentRef {
            cid: 7,
            timestamp: Timestamp(timestamp),
        };
        let (one, two) = (pins.pin(of(1)), pins.pin(of(2)));
        drop(one);
        assert!(pins.is_pinned(7) && !pins.is_pinned(1));
        drop(two);
        assert!(!pins.is_pinned(7));
    }
}
