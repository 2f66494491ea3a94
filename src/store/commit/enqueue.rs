//! Enqueueing of operations, and the low watermark: the timestamp below which history is final.

use crate::meta::Batch;
use crate::store::commit::Committer;
use crate::store::commit::operation::Operation;
use crate::store::commit::txn::{Guards, Txn};
use crate::store::model::error::StoreError;
use crate::store::model::ids::UsageChange;
use crate::store::model::role::Role;
use crate::store::model::version::Timestamp;
use crate::store::schema::journal_record::Dependencies;
use crate::sync::Arc;

impl Committer {
    /// Begins a transaction at `timestamp`.
    pub(crate) fn txn(&self, timestamp: Timestamp, dependencies: Dependencies) -> Txn {
        Txn {
            timestamp,
            recorded: None,
            time: self.core.clock.wall(),
            rows: Batch::new(),
            dependencies,
            content: None,
            byteless_flush: None,
            usage: UsageChange { bytes: 0, files: 0 },
            held: Guards::default(),
            unreferenced: Vec::new(),
        }
    }

    /// Acknowledges an operation: appends it to the journal and adds it to the overlay and the queue.
    ///
    /// # Errors
    /// `Fenced`, `NoSpace`, `Unavailable`; nothing was changed.
    pub(crate) fn enqueue(&self, mut txn: Txn) -> Result<Arc<Operation>, StoreError> {
        self.core.health.check()?;
        txn.close_references();
        let pending = txn.content.as_ref().map(|(pending, _)| Arc::clone(pending));
        let usage = txn.usage;
        if let Some(pending) = &pending {
            self.data.contents.add(pending);
        }
        match self
            .queue
            .push(txn, self.core.next_id(), |dependencies, rows| {
                self.core.index.apply(dependencies, rows);
            }) {
            Ok(operation) => {
                self.core.health.use_more(usage.bytes, usage.files);
                Ok(operation)
            }
            Err(error) => {
                if let Some(pending) = pending {
                    self.data.contents.remove(pending.content);
                }
                Err(error)
            }
        }
    }

    /// As [`Self::enqueue`], if `holds`, which is called under the queue's lock, returns `true`.
    pub(crate) fn enqueue_if(
        &self,
        mut txn: Txn,
        holds: impl FnOnce() -> bool,
    ) -> Result<Option<Arc<Operation>>, StoreError> {
        self.core.health.check()?;
        txn.close_references();
        self.queue
            .push_if(txn, self.core.next_id(), holds, |order, rows| {
                self.core.index.apply(order, rows);
            })
    }

    /// Returns the low watermark: the oldest timestamp that is not committed. History below it is final.
    pub(crate) fn low_watermark(&self) -> Timestamp {
        match &self.core.role {
            Role::Writer => self.low_watermark_without(&[]),
            Role::Follower(follower) => follower.low_watermark(),
        }
    }

    /// Returns the low watermark after the commit of some operations, which ascend by their order in the queue.
    pub(crate) fn low_watermark_without(&self, committed: &[Arc<Operation>]) -> Timestamp {
        // The order of these reads matters. The clock is first: a timestamp that is reserved later is not below `next`. The
        // reservations are before the queue: an operation is reserved first and queued then, so it is seen in one of the
        // two.
        let next = self.core.clock.next();
        let reserved = self.core.clock.oldest_reservation();
        let queued = self.queue.oldest_without(committed);
        reserved.into_iter().chain(queued).min().unwrap_or(next)
    }
}
