//! Contents that are read or referenced without a row that shows them: their rows stay while a pin exists.

use std::collections::HashMap;

use crate::cache::{DirtySnapshot, Source};
use crate::store::model::version::ContentRef;
use crate::sync::{Arc, Mutex, lock};

/// The lineages that are held, and how often.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    held: Mutex<HashMap<u64, usize>>,
    /// States that a row still showed when they were held.
    pub(crate) shown: Mutex<HashMap<ContentRef, usize>>,
}

/// A hold on the bytes of a content; given back when dropped.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    pub(crate) content: ContentRef,
    pub(crate) shown: bool,
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
    pub(crate) fn pin_all(self: &Arc<Self>, map: &DirtySnapshot) -> Vec<Arc<Pin>> {
        let referred = map.spans().filter_map(|span| match span.source {
            Source::Reference { of, .. } => Some(Arc::new(self.pin(ContentRef::of(of)))),
            _ => None,
        });
        referred.collect()
    }

    /// Tells whether a pin on a state of the lineage exists.
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
