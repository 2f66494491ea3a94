//! Labels that are being made: their timestamp is given, and their rows are not queued yet.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::store::index::timestamps::Timestamps;
use crate::store::model::version::Timestamp;
use crate::store::schema::label_keys::{LabelPoint, LabelSlot};
use crate::sync::{Arc, Mutex, lock};

/// The labels of a namespace that are being made. Retention counts them: what they show must not go while they wait for the bucket.
#[derive(Debug, Default)]
pub(crate) struct FormingLabels {
    /// A leaf lock, over the clock only.
    labels: Mutex<BTreeMap<Timestamp, LabelSlot>>,
}

/// A label that is being made. After the drop it is made, or given up.
#[derive(Debug)]
pub(crate) struct FormingLabel<'a> {
    labels: &'a FormingLabels,
    timestamp: Timestamp,
}

impl FormingLabels {
    /// Begins a label that shows its directory as of now.
    pub(crate) fn begin(&self, clock: &Arc<Timestamps>, slot: LabelSlot) -> FormingLabel<'_> {
        let mut labels = lock(&self.labels);
        // Given under the lock: who sees a later timestamp sees this label.
        let timestamp = clock.begin().at();
        labels.insert(timestamp, slot);
        FormingLabel {
            labels: self,
            timestamp,
        }
    }

    /// Returns those that show a timestamp in `span`.
    pub(crate) fn within(&self, span: &Range<Timestamp>) -> Vec<LabelPoint> {
        let labels = lock(&self.labels);
        let within = labels.range(span.clone());
        let points = within.map(|(timestamp, slot)| LabelPoint {
            timestamp: *timestamp,
            slot: slot.clone(),
        });
        points.collect()
    }
}

impl FormingLabel<'_> {
    /// Returns the timestamp that the label will show.
    pub(crate) fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}

impl Drop for FormingLabel<'_> {
    fn drop(&mut self) {
        lock(&self.labels.labels).remove(&self.timestamp);
    }
}
