//! From an acknowledged operation to a durable commit: transactions, queue, uploads, batches, the log beside the index.

pub(crate) mod batching;
pub(crate) mod enqueue;
pub(crate) mod epoch_object;
pub(crate) mod log;
pub(crate) mod log_object;
pub(crate) mod operation;
pub(crate) mod pipeline;
pub(crate) mod queue;
mod queue_state;
pub(crate) mod resolved;
pub(crate) mod review_lists;
pub(crate) mod row_list;
pub(crate) mod txn;
pub(crate) mod uploader;

use crate::store::commit::epoch_object::EpochObject;
use crate::store::commit::log::Log;
use crate::store::commit::queue::Queue;
use crate::store::commit::resolved::ResolvedSegments;
use crate::store::commit::review_lists::ReviewLists;
use crate::store::core::Core;
use crate::store::data::DataStore;
use crate::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// The writer of a namespace's index: it queues acknowledged operations, commits them in batches and makes them durable.
#[derive(Debug)]
pub struct Committer {
    pub(crate) core: Arc<Core>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) queue: Queue,
    pub(crate) log: Log,
    pub(crate) epoch_object: EpochObject,
    pub(crate) resolved: Mutex<ResolvedSegments>,
    pub(crate) review_lists: ReviewLists,
    /// Wakes the task that flushes, because many operations wait for it.
    pub(crate) many_committed: Notify,
}

impl Committer {
    /// Makes a committer with an empty queue; `opened` is when the namespace was opened, in nanoseconds since 1970.
    pub(crate) fn new(core: Arc<Core>, data: Arc<DataStore>, opened: u64) -> Self {
        let (backend, host) = (core.backend.clone(), core.config.host.as_str());
        Self {
            queue: Queue::new(
                Arc::clone(&core.journal),
                core.epoch,
                Arc::clone(&core.changed),
            ),
            log: Log::new(backend.clone(), core.epoch),
            epoch_object: EpochObject::new(backend, core.epoch, host, opened),
            resolved: Mutex::default(),
            review_lists: ReviewLists::default(),
            many_committed: Notify::new(),
            core,
            data,
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // The fields drop their journal tokens. Freezing the journal first keeps the files with changes that the bucket
        // lacks.
        self.core.journal.freeze();
    }
}
