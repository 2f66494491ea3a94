//! A queued operation.

use bytes::Bytes;
use tokio::sync::watch;

use crate::cache::BudgetPermit;
use crate::meta::{Batch, Commit};
use crate::store::commit::txn::Guards;
use crate::store::data::contents::PendingContent;
use crate::store::model::ids::UsageChange;
use crate::store::model::version::{Ino, Timestamp};
use crate::sync::{Arc, Mutex, lock};

/// Stage of an operation between its acknowledgement and the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperationStage {
    /// In the journal and in the overlay.
    Queued,
    /// In a batch that is being committed.
    Leaving,
    /// The index shows it.
    Committed(Commit),
    /// The bucket has it.
    Durable,
}

/// A queued operation.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Place in the queue; ascends in the order of the acknowledgements.
    pub(crate) order: u64,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) content: Option<Arc<PendingContent>>,
    pub(crate) usage: UsageChange,
    pub(crate) since: tokio::time::Instant,
    pub(super) rows: Mutex<Vec<Batch>>,
    /// Operations that must be committed before it or in the same batch.
    pub(super) waits_for: Vec<u64>,
    /// Keys of the rows that it touches.
    pub(super) touches: Vec<Bytes>,
    /// Directories whose names it changes.
    pub(super) within: Vec<Ino>,
    /// Directories that it creates, moves, removes or replaces.
    pub(super) shapes: Vec<Ino>,
    /// It is garbage collection: it changes no inode and no name, and answers no call.
    pub(super) is_gc: bool,
    pub(super) held: Mutex<Guards>,
    pub(super) stage: watch::Sender<OperationStage>,
}

impl Operation {
    pub(crate) fn stage(&self) -> watch::Receiver<OperationStage> {
        self.stage.subscribe()
    }

    pub(crate) fn is_committed(&self) -> bool {
        matches!(
            *self.stage.borrow(),
            OperationStage::Committed(_) | OperationStage::Durable
        )
    }

    /// Returns everything it writes, the range rows of its content included.
    pub(crate) fn batches(&self) -> Vec<Batch> {
        lock(&self.rows).clone()
    }

    pub(crate) fn add_rows(&self, rows: Batch) {
        lock(&self.rows).push(rows);
    }

    /// Keeps a share of the dirty budget until the operation is durable; if it is durable already, until it is dropped.
    pub(crate) fn keep(&self, permit: Option<BudgetPermit>) {
        lock(&self.held).permit = permit;
    }

    /// Tells whether its content, if it has one, is uploaded.
    pub(super) fn is_ready(&self) -> bool {
        self.content.as_ref().is_none_or(|c| c.is_uploaded())
    }
}
