//! The pin of a restore: retention keeps what the restored time shows, as a label would, until the restore is done.
//!
//! Invariant: a prune that read what is protected before a pin began, or before it ended, reads it again before its next verdict.

use std::ops::Deref;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::store::history::History;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::label_keys::{LabelPoint, LabelSlot};
use crate::store::schema::retention_keys;
use crate::store::schema::rows::LabelPin;
use crate::sync::Arc;

/// Keeps a restored time; its drop ends that. A restore in steps that is not done keeps its time beyond it, for the mount that goes on.
#[must_use]
pub(crate) struct RestorePin<H: Deref<Target = History>> {
    history: H,
}

impl History {
    /// Lets retention keep what a directory and all below it showed, while a restore goes back to it.
    pub(crate) fn pin_restored(&self, pin: LabelPin) -> RestorePin<&Self> {
        self.begin_pin(pin);
        RestorePin { history: self }
    }

    /// Does what [`Self::pin_restored`] does, for a task.
    pub(super) fn pin_resumed(self: &Arc<Self>, pin: LabelPin) -> RestorePin<Arc<Self>> {
        self.begin_pin(pin);
        RestorePin {
            history: Arc::clone(self),
        }
    }

    fn begin_pin(&self, pin: LabelPin) {
        self.restore_lock.pin(LabelPoint {
            timestamp: pin.timestamp,
            slot: LabelSlot {
                directory: pin.directory,
                name: Bytes::from_static(b"restore"),
            },
        });
        self.core.protection_changes.fetch_add(1, Ordering::SeqCst);
    }

    fn end_pin(&self) {
        let filed = self.restore_lock.unpin();
        // A run that knows the restored time would file versions under it once more.
        self.core.protection_changes.fetch_add(1, Ordering::SeqCst);
        let Some(LabelPoint { timestamp, slot }) = filed else {
            return;
        };
        let pin = LabelPin {
            timestamp,
            directory: slot.directory,
        };
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(answer.at(), Dependencies::default());
        let at = txn.timestamp;
        let key = retention_keys::removed_label(pin);
        txn.touch(key.clone());
        txn.put(key, &at);
        if let Err(error) = self.commit.enqueue(txn) {
            tracing::debug!(%error, "what a restore kept is not reviewed");
        }
    }
}

impl<H: Deref<Target = History>> Drop for RestorePin<H> {
    fn drop(&mut self) {
        if self.history.tree.under_restore.directory().is_none() {
            self.history.end_pin();
        }
    }
}
