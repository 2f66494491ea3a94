//! The way of an operation into the index: queue, batches, commits, the log beside the index.

pub(crate) mod batching;
pub(crate) mod enqueue;
pub(crate) mod epoch_object;
pub(crate) mod log;
pub(crate) mod pipeline;
pub(crate) mod queue;
pub(crate) mod resolved;
pub(crate) mod txn;
pub(crate) mod uploader;

use crate::store::commit::epoch_object::EpochObject;
use crate::store::commit::log::Log;
use crate::store::commit::queue::Queue;
use crate::store::commit::resolved::ResolvedSegments;
use crate::store::core::Core;
use crate::store::data::DataStore;
use crate::sync::{Arc, Mutex};

/// The writer of a namespace's index: takes operations in the order of their acknowledgement, and makes them durable.
#[derive(Debug)]
pub struct Committer {
    pub(crate) core: Arc<Core>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) queue: Queue,
    pub(crate) log: Log,
    pub(crate) epoch_object: EpochObject,
    pub(crate) resolved: Mutex<ResolvedSegments>,
}

impl Committer {
    /// An empty queue over `core`; `opened`: when the namespace was opened, nanoseconds since 1970.
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
            core,
            data,
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // Journal tokens go with the fields: the journal must keep the files that the bucket lacks.
        self.core.journal.freeze();
    }
}
