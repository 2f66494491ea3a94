//! Pins on contents that are read or referenced while no row may show them: garbage collection leaves a lineage as it is while
//! a pin on one of its contents exists.

use std::collections::HashMap;

use crate::cache::{DirtySnapshot, Source};
use crate::store::model::version::ContentRef;
use crate::sync::{Arc, Mutex, lock};

/// The pinned contents of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// By lineage: the number of pins on its contents.
    held: Mutex<HashMap<u64, usize>>,
    /// By content: the number of pins that were made while a row showed it.
    pub(crate) shown: Mutex<HashMap<ContentRef, usize>>,
}

/// Keeps the range rows and segments of a content until it is dropped.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    pub(crate) content: ContentRef,
    /// Whether the pin is counted in [`Pins::shown`].
    pub(crate) shown: bool,
}

impl Pins {
    /// Pins a content.
    pub(crate) fn pin(self: &Arc<Self>, content: ContentRef) -> Pin {
        *lock(&self.held).entry(content.cid).or_default() += 1;
        Pin {
            pins: Arc::clone(self),
            content,
            shown: false,
        }
    }

    /// Pins every content that the spans of a state reference.
    pub(crate) fn pin_all(self: &Arc<Self>, map: &DirtySnapshot) -> Vec<Arc<Pin>> {
        let referred = map.spans().filter_map(|span| match span.source {
            Source::Reference { of, .. } => Some(Arc::new(self.pin(ContentRef::of(of)))),
            _ => None,
        });
        referred.collect()
    }

    /// Tells whether a pin on a content of the lineage exists.
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
    fn a_lineage_is_pinned_until_its_last_pin_is_dropped() {
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
