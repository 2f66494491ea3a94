//! The queue: acknowledged operations that are not durable, and the order in which they are committed.
//!
//! Invariants:
//! - An operation is put into a batch only when its content is uploaded and every operation it waits for is committed or
//!   in the same batch. It waits for each earlier operation that touches one of its rows, or that created, moved or
//!   removed a directory on its path. One that removes a directory waits for every earlier operation in that directory.
//! - Numbers are given under the lock that is held over the append to the journal (`journaled`), so their order is that of the journal.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::meta::{Batch, Commit, Journal, JournalToken};
use crate::store::commit::operation::{Operation, OperationStage};
use crate::store::commit::queue_state::{Operations, QueueState};
use crate::store::commit::txn::{Guards, Txn};
use crate::store::model::error::StoreError;
use crate::store::model::ids::OperationId;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::journal_record::{OperationRecord, Record};
use crate::sync::{Arc, Mutex, lock};
use crate::task::lock_slow;

/// Number of operations that change their stage under one lock: a foreground call waits for no more.
const PART: usize = 64;

/// The queue of one namespace's writer.
#[derive(Debug)]
pub(crate) struct Queue {
    journal: Arc<Journal>,
    epoch: u64,
    /// Number of the last operation in the journal. Locked from there until the operation is in `inner`, so that numbers, journal
    /// and overlay have one order. The lock covers a write to the journal; readers of the queue take only `inner`.
    journaled: Mutex<u64>,
    inner: Mutex<QueueState>,
    /// Notified when an operation is queued, uploaded, committed or durable.
    changed: Arc<Notify>,
}

/// Count of the operations that are not durable, without garbage collection.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueBacklog {
    /// Files with content that is not durable.
    pub(crate) files: HashSet<Ino>,
    /// Number of operations.
    pub(crate) operations: u64,
    /// Timestamp of the oldest one.
    pub(crate) oldest: Option<Timestamp>,
}

impl Queue {
    pub(crate) fn new(journal: Arc<Journal>, epoch: u64, changed: Arc<Notify>) -> Self {
        Self {
            journal,
            epoch,
            journaled: Mutex::default(),
            inner: Mutex::default(),
            changed,
        }
    }

    /// Appends the operation to the journal and queues it. `apply` adds its rows to the overlay, before another operation
    /// is queued.
    ///
    /// # Errors
    /// `NoSpace`, `Unavailable` if the append fails; nothing was changed.
    pub(crate) fn push(
        &self,
        txn: Txn,
        next_id: u64,
        apply: impl FnOnce(u64, &Batch),
    ) -> Result<Arc<Operation>, StoreError> {
        let mut journaled = lock_slow(&self.journaled);
        self.append(&mut journaled, txn, next_id, apply)
    }

    /// As [`Queue::push`], if `holds` returns `true`. No other operation is queued between that call and this operation.
    pub(crate) fn push_if(
        &self,
        txn: Txn,
        next_id: u64,
        holds: impl FnOnce() -> bool,
        apply: impl FnOnce(u64, &Batch),
    ) -> Result<Option<Arc<Operation>>, StoreError> {
        let mut journaled = lock_slow(&self.journaled);
        if !holds() {
            return Ok(None);
        }
        self.append(&mut journaled, txn, next_id, apply).map(Some)
    }

    fn append(
        &self,
        journaled: &mut u64,
        txn: Txn,
        next_id: u64,
        apply: impl FnOnce(u64, &Batch),
    ) -> Result<Arc<Operation>, StoreError> {
        let number = *journaled + 1;
        let record = OperationRecord {
            epoch: self.epoch,
            number,
            timestamp: txn.timestamp,
            rows: txn.rows.clone(),
            dependencies: txn.dependencies.clone(),
            content: txn.content.as_ref().map(|(_, record)| record.clone()),
            byteless_flush: txn.byteless_flush.clone(),
            usage: txn.usage,
            next_id,
        };
        let epoch = self.epoch;
        let head = Record::Journaled { epoch, number }.encode();
        let record = Record::Operation(Box::new(record)).encode();
        let token = self.journal.append_with_head(&head, &record)?;
        *journaled = number;
        let id = OperationId {
            epoch: self.epoch,
            number,
        };
        let operation = lock(&self.inner).enter(txn, id, token, apply);
        self.changed.notify_waiters();
        Ok(operation)
    }

    /// Queues an operation that is already in the journal, with its own epoch and number.
    pub(crate) fn replay(
        &self,
        txn: Txn,
        id: OperationId,
        token: JournalToken,
        apply: impl FnOnce(u64, &Batch),
    ) -> Arc<Operation> {
        let operation = lock(&self.inner).enter(txn, id, token, apply);
        self.changed.notify_waiters();
        operation
    }

    /// Tells whether a directory move is queued; if so, dependencies must include the ancestors of an operation.
    pub(crate) fn moves_in_flight(&self) -> bool {
        !lock(&self.inner).moves.is_empty()
    }

    /// Returns the oldest timestamp of an acknowledged operation that is not committed and not in `some`, which are
    /// sorted by order. It takes at most one step more than `some` has operations, however long the queue is: every
    /// lookup of the past calls it.
    pub(crate) fn oldest_without(&self, some: &[Arc<Operation>]) -> Option<Timestamp> {
        let inner = lock(&self.inner);
        let is_other = |order: &u64| some.binary_search_by_key(order, |s| s.order).is_err();
        let mut uncommitted = inner.uncommitted.iter();
        let oldest = uncommitted.find(|(_, order)| is_other(order));
        oldest.map(|(timestamp, _)| *timestamp)
    }

    /// Returns the order of the newest operation.
    pub(crate) fn newest(&self) -> u64 {
        lock(&self.inner).order
    }

    /// Tells whether every operation up to order `upto` is durable.
    pub(crate) fn is_durable(&self, upto: u64) -> bool {
        let inner = lock(&self.inner);
        let first = |operations: &Operations| operations.keys().next().copied();
        let oldest = |o: Option<u64>| o.is_none_or(|o| o > upto);
        oldest(first(&inner.operations)) && oldest(first(&inner.committed))
    }

    /// Returns the operations whose contents are not uploaded, in order.
    pub(crate) fn not_uploaded(&self) -> Vec<Arc<Operation>> {
        let operations = self.operations();
        let waiting = operations.values().filter(|o| !o.is_ready());
        waiting.cloned().collect()
    }

    /// Returns the operations that are not committed.
    fn operations(&self) -> Operations {
        lock(&self.inner).operations.clone()
    }

    /// Returns the operations that are committed and not durable, and those that are not committed.
    fn both(&self) -> (Operations, Operations) {
        let inner = lock(&self.inner);
        (inner.committed.clone(), inner.operations.clone())
    }

    /// Returns the operation and all operations it waits for, directly or indirectly, that are not committed.
    pub(crate) fn needed_by(&self, order: u64) -> Vec<Arc<Operation>> {
        let operations = self.operations();
        let mut needed = BTreeMap::new();
        let mut open = vec![order];
        while let Some(order) = open.pop() {
            if let Some(operation) = operations.get(&order)
                && needed.insert(order, Arc::clone(operation)).is_none()
            {
                open.extend(&operation.waits_for);
            }
        }
        needed.into_values().collect()
    }

    /// Returns the operations that can be committed now, in order, with about `bytes_max` bytes of rows at most, and
    /// marks them as `Leaving`.
    pub(crate) fn take_batch(&self, bytes_max: usize) -> Vec<Arc<Operation>> {
        // Others only add operations to the queue meanwhile: this caller is the one that commits them.
        let operations = self.operations();
        let mut gone: HashSet<u64> = HashSet::new();
        let (mut bytes, mut leaving) = (0, Vec::new());
        for operation in operations.values() {
            let free = |o: &u64| gone.contains(o) || !operations.contains_key(o);
            if operation.is_ready() && operation.waits_for.iter().all(free) {
                bytes += lock(&operation.rows)
                    .iter()
                    .map(Batch::bytes)
                    .sum::<usize>();
                operation.stage.send_replace(OperationStage::Leaving);
                gone.insert(operation.order);
                leaving.push(Arc::clone(operation));
                if bytes >= bytes_max {
                    break;
                }
            }
        }
        leaving
    }

    /// Puts operations back to `Queued` after their batch failed.
    pub(crate) fn put_back(&self, operations: &[Arc<Operation>]) {
        for operation in operations {
            operation.stage.send_replace(OperationStage::Queued);
        }
    }

    /// Marks operations as `Committed`: the index shows them.
    pub(crate) fn committed(&self, operations: &[Arc<Operation>], commit: Commit) {
        for part in operations.chunks(PART) {
            lock(&self.inner).committed(part, commit);
            for operation in part {
                let stage = OperationStage::Committed(commit);
                operation.stage.send_replace(stage);
            }
        }
        self.changed.notify_waiters();
    }

    /// Returns the number of operations that are committed and not marked as `Durable`.
    pub(crate) fn committed_len(&self) -> usize {
        lock(&self.inner).committed.len()
    }

    /// Returns the commit of the newest operation that is committed and not marked as `Durable`; `None` if there is none.
    pub(crate) fn newest_committed(&self) -> Option<Commit> {
        lock(&self.inner).newest_committed()
    }

    /// Marks the operations up to `commit` as `Durable` and returns them with what they kept, which the caller releases.
    pub(crate) fn durable(&self, commit: Commit) -> Vec<(Arc<Operation>, Guards)> {
        let mut done = Vec::new();
        loop {
            let part = lock(&self.inner).next_durable(commit);
            let Some(part) = part else {
                break;
            };
            done.extend(part.into_iter().map(|operation| {
                operation.stage.send_replace(OperationStage::Durable);
                let held = std::mem::take(&mut *lock(&operation.held));
                (operation, held)
            }));
        }
        self.changed.notify_waiters();
        done
    }

    /// Returns the last operation that touches `key`, and with `directory` also those that change names in it; only
    /// operations that are not durable.
    pub(crate) fn last_on(&self, key: &Bytes, directory: Option<Ino>) -> Vec<Arc<Operation>> {
        let (committed, operations, mut found) = {
            let inner = lock(&self.inner);
            let found: Vec<_> = inner.last_touching(key).into_iter().collect();
            (inner.committed.clone(), inner.operations.clone(), found)
        };
        if let Some(directory) = directory {
            let both = committed.values().chain(operations.values());
            found.extend(both.filter(|o| o.within.contains(&directory)).cloned());
        }
        found
    }

    /// Returns all operations that are not durable, newest last.
    pub(crate) fn all(&self) -> Vec<Arc<Operation>> {
        let (committed, operations) = self.both();
        let both = committed.values().chain(operations.values());
        both.cloned().collect()
    }

    /// Counts the operations that are not durable.
    pub(crate) fn backlog(&self) -> QueueBacklog {
        let (committed, operations) = self.both();
        let mut backlog = QueueBacklog::default();
        let all = committed.values().chain(operations.values());
        for operation in all.filter(|o| !o.is_gc) {
            backlog.operations += 1;
            let oldest = backlog.oldest.unwrap_or(operation.timestamp);
            backlog.oldest = Some(oldest.min(operation.timestamp));
            let content = operation.content.as_ref();
            backlog.files.extend(content.map(|content| content.ino));
        }
        backlog
    }
}

#[cfg(test)]
mod tests;
