//! The way of an operation into the index: queue, batches, commits, the log beside the index.

pub(crate) mod batching;
pub(crate) mod epoch_object;
pub(crate) mod log;
pub(crate) mod pipeline;
pub(crate) mod queue;
