//! The queue: acknowledged operations that are not durable, and the order in which they are committed.
//!
//! Invariants:
//! - An operation is put into a batch only when its content is uploaded and every operation it waits for is committed or
//!   in the same batch. It waits for each earlier operation that touches one of its rows, or that created, moved or
//!   removed a directory on its path. One that removes a directory waits for every earlier operation in that directory.
//! - Numbers are given under the lock that is held over the append to the journal (`journaled`), so their order is that of the journal.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::cache::BudgetPermit;
use crate::meta::{Batch, Commit, Journal, JournalToken};
use crate::store::commit::txn::{Guards, Txn};
use crate::store::data::contents::PendingContent;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{OperationId, UsageChange};
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::journal_record::{Dependencies, OperationRecord, Record};
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
    rows: Mutex<Vec<Batch>>,
    /// Operations that must be committed before it or in the same batch.
    waits_for: Vec<u64>,
    /// Directories whose names it changes.
    within: Vec<Ino>,
    /// It is garbage collection: it changes no inode and no name, and answers no call.
    is_gc: bool,
    held: Mutex<Guards>,
    stage: watch::Sender<OperationStage>,
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

    fn is_ready(&self) -> bool {
        self.content.as_ref().is_none_or(|c| c.is_uploaded())
    }
}

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

#[derive(Debug, Default)]
struct QueueState {
    order: u64,
    operations: BTreeMap<u64, Arc<Operation>>,
    committed: BTreeMap<u64, Arc<Operation>>,
    /// Timestamp and order of each operation that is acknowledged and not committed: the first has the oldest timestamp.
    uncommitted: BTreeSet<(Timestamp, u64)>,
    /// The newest operation that touches a row, by the row's key.
    touched: HashMap<Bytes, u64>,
    /// The newest operation that created, moved, removed or replaced a directory.
    shaped: HashMap<Ino, u64>,
    /// Uncommitted operations that move a directory.
    moves: HashSet<u64>,
    /// Uncommitted operations that change names in a directory.
    within: HashMap<Ino, HashSet<u64>>,
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
        let mut journaled = lock(&self.journaled);
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
        let mut journaled = lock(&self.journaled);
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
        let token = self
            .journal
            .append(&Record::Operation(Box::new(record)).encode())?;
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
        let first = |operations: &BTreeMap<u64, _>| operations.keys().next().copied();
        let oldest = |o: Option<u64>| o.is_none_or(|o| o > upto);
        oldest(first(&inner.operations)) && oldest(first(&inner.committed))
    }

    /// Returns the operations whose contents are not uploaded, in order.
    pub(crate) fn not_uploaded(&self) -> Vec<Arc<Operation>> {
        lock(&self.inner)
            .operations
            .values()
            .filter(|o| !o.is_ready())
            .cloned()
            .collect()
    }

    /// Returns the operation and all operations it waits for, directly or indirectly, that are not committed.
    pub(crate) fn needed_by(&self, order: u64) -> Vec<Arc<Operation>> {
        let inner = lock(&self.inner);
        let mut needed = BTreeMap::new();
        let mut open = vec![order];
        while let Some(order) = open.pop() {
            if let Some(operation) = inner.operations.get(&order)
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
        let inner = lock(&self.inner);
        let mut gone: HashSet<u64> = HashSet::new();
        let mut bytes = 0;
        for operation in inner.operations.values() {
            let free = |o: &u64| gone.contains(o) || !inner.operations.contains_key(o);
            if operation.is_ready() && operation.waits_for.iter().all(free) {
                bytes += lock(&operation.rows)
                    .iter()
                    .map(Batch::bytes)
                    .sum::<usize>();
                operation.stage.send_replace(OperationStage::Leaving);
                gone.insert(operation.order);
                if bytes >= bytes_max {
                    break;
                }
            }
        }
        let mut leaving: Vec<_> = gone
            .iter()
            .filter_map(|o| inner.operations.get(o).cloned())
            .collect();
        leaving.sort_unstable_by_key(|o| o.order);
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
        let mut inner = lock(&self.inner);
        for operation in operations {
            inner
                .committed
                .insert(operation.order, Arc::clone(operation));
            inner.forget(operation);
            operation
                .stage
                .send_replace(OperationStage::Committed(commit));
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Marks the operations up to `commit` as `Durable` and returns them with what they kept, which the caller releases.
    pub(crate) fn durable(&self, commit: Commit) -> Vec<(Arc<Operation>, Guards)> {
        let mut inner = lock(&self.inner);
        let up_to = |o: &Arc<Operation>| matches!(*o.stage.borrow(), OperationStage::Committed(c) if c <= commit);
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut inner.committed)
            .into_iter()
            .partition(|(_, o)| up_to(o));
        inner.committed = rest.into_iter().collect();
        drop(inner);
        let done: Vec<_> = done
            .into_iter()
            .map(|(_, operation)| {
                operation.stage.send_replace(OperationStage::Durable);
                let held = std::mem::take(&mut *lock(&operation.held));
                (operation, held)
            })
            .collect();
        self.changed.notify_waiters();
        done
    }

    /// Returns the last operation that touches `key`, and with `directory` also those that change names in it; only
    /// operations that are not durable.
    pub(crate) fn last_on(&self, key: &Bytes, directory: Option<Ino>) -> Vec<Arc<Operation>> {
        let inner = lock(&self.inner);
        let touching = inner.touched.get(key);
        let mut found: Vec<_> = touching
            .and_then(|order| inner.find(*order))
            .into_iter()
            .collect();
        if let Some(directory) = directory {
            let both = inner.committed.values().chain(inner.operations.values());
            found.extend(both.filter(|o| o.within.contains(&directory)).cloned());
        }
        found
    }

    /// Returns all operations that are not durable, newest last.
    pub(crate) fn all(&self) -> Vec<Arc<Operation>> {
        let inner = lock(&self.inner);
        inner
            .committed
            .values()
            .chain(inner.operations.values())
            .cloned()
            .collect()
    }

    pub(crate) fn backlog(&self) -> QueueBacklog {
        let inner = lock(&self.inner);
        let mut backlog = QueueBacklog::default();
        let all = inner.committed.values().chain(inner.operations.values());
        for operation in all.filter(|o| !o.is_gc) {
            backlog.operations += 1;
            let oldest = backlog.oldest.unwrap_or(operation.timestamp);
            backlog.oldest = Some(oldest.min(operation.timestamp));
            backlog
                .files
                .extend(operation.content.as_ref().map(|content| content.ino));
        }
        backlog
    }
}

/// Tells whether an operation touches only rows of garbage collection.
fn is_gc(dependencies: &Dependencies) -> bool {
    !dependencies.touches.is_empty()
        && dependencies
            .touches
            .iter()
            .all(|key| key.first() == Some(&b'G'))
}

impl QueueState {
    fn enter(
        &mut self,
        txn: Txn,
        id: OperationId,
        token: JournalToken,
        apply: impl FnOnce(u64, &Batch),
    ) -> Arc<Operation> {
        self.order += 1;
        let order = self.order;
        apply(order, &txn.rows);
        let waits_for = self.waits_for(&txn.dependencies);
        self.note(order, &txn.dependencies);
        let mut held = txn.held;
        held.journal.push(token);
        let operation = Arc::new(Operation {
            order,
            epoch: id.epoch,
            number: id.number,
            timestamp: txn.timestamp,
            content: txn.content.map(|(pending, _)| pending),
            usage: txn.usage,
            since: tokio::time::Instant::now(),
            rows: Mutex::new(vec![txn.rows]),
            waits_for,
            is_gc: is_gc(&txn.dependencies),
            within: txn.dependencies.within,
            held: Mutex::new(held),
            stage: watch::Sender::new(OperationStage::Queued),
        });
        if !operation.is_gc {
            self.uncommitted.insert((operation.timestamp, order));
        }
        self.operations.insert(order, Arc::clone(&operation));
        operation
    }

    fn find(&self, order: u64) -> Option<Arc<Operation>> {
        self.operations
            .get(&order)
            .or_else(|| self.committed.get(&order))
            .cloned()
    }

    fn waits_for(&self, dependencies: &Dependencies) -> Vec<u64> {
        let mut waits: Vec<u64> = dependencies
            .touches
            .iter()
            .filter_map(|t| self.touched.get(t).copied())
            .collect();
        let shaped = dependencies
            .within
            .iter()
            .chain(&dependencies.below)
            .chain(&dependencies.makes)
            .chain(&dependencies.moves)
            .chain(&dependencies.removes);
        waits.extend(shaped.filter_map(|d| self.shaped.get(d).copied()));
        waits.extend(
            dependencies
                .removes
                .iter()
                .filter_map(|d| self.within.get(d))
                .flatten(),
        );
        waits.sort_unstable();
        waits.dedup();
        waits
    }

    fn note(&mut self, number: u64, dependencies: &Dependencies) {
        for key in &dependencies.touches {
            self.touched.insert(key.clone(), number);
        }
        for directory in &dependencies.within {
            self.within.entry(*directory).or_default().insert(number);
        }
        for directory in dependencies
            .makes
            .iter()
            .chain(&dependencies.moves)
            .chain(&dependencies.removes)
        {
            self.shaped.insert(*directory, number);
        }
        if !dependencies.moves.is_empty() {
            self.moves.insert(number);
        }
    }

    fn forget(&mut self, operation: &Arc<Operation>) {
        let order = operation.order;
        self.operations.remove(&order);
        self.uncommitted.remove(&(operation.timestamp, order));
        self.moves.remove(&order);
        for directory in &operation.within {
            if let Some(names) = self.within.get_mut(directory) {
                names.remove(&order);
                if names.is_empty() {
                    self.within.remove(directory);
                }
            }
        }
        if self.operations.is_empty() && self.committed.is_empty() {
            self.touched.clear();
            self.shaped.clear();
        } else if self.touched.len() > 4 * (self.operations.len() + self.committed.len()) + 1024 {
            let (queued, committed) = (&self.operations, &self.committed);
            self.touched
                .retain(|_, o| queued.contains_key(o) || committed.contains_key(o));
            self.shaped.retain(|_, o| queued.contains_key(o));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::keys;
    use crate::store::schema::tables::RowKey;

    fn txn(timestamp: u64, touches: Bytes) -> Txn {
        Txn {
            timestamp: Timestamp(timestamp),
            recorded: None,
            time: Timestamp(timestamp).time(),
            rows: Batch::new(),
            dependencies: Dependencies {
                touches: vec![touches],
                ..Dependencies::default()
            },
            content: None,
            byteless_flush: None,
            usage: UsageChange::default(),
            held: Guards::default(),
            unreferenced: Vec::new(),
        }
    }

    #[test]
    fn the_oldest_uncommitted_timestamp_is_that_of_an_answered_call() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(directory.path(), uuid::Uuid::nil()).unwrap();
        let queue = Queue::new(Arc::new(journal), 1, Arc::default());
        let push = |timestamp, key: Bytes| queue.push(txn(timestamp, key), 2, |_, _| {}).unwrap();
        let key = |ino| RowKey::bytes(keys::inode(Ino(ino)));
        assert_eq!(queue.oldest_without(&[]), None);
        let _garbage = push(1, keys::applied().bytes());
        assert_eq!(
            queue.oldest_without(&[]),
            None,
            "garbage collection is left out"
        );
        let (second, first, third) = (push(20, key(2)), push(10, key(3)), push(30, key(4)));
        assert_eq!(queue.oldest_without(&[]), Some(Timestamp(10)));
        assert_eq!(
            queue.oldest_without(&[Arc::clone(&second), Arc::clone(&first)]),
            Some(Timestamp(30))
        );
        queue.committed(&[first], Commit::default());
        assert_eq!(queue.oldest_without(&[]), Some(Timestamp(20)));
        queue.committed(&[second, third], Commit::default());
        assert_eq!(queue.oldest_without(&[]), None);
    }

    #[test]
    fn the_queue_is_read_while_another_operation_is_journaled() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(directory.path(), uuid::Uuid::nil()).unwrap();
        let queue = Queue::new(Arc::new(journal), 1, Arc::default());
        let key = RowKey::bytes(keys::inode(Ino(2)));
        // The lock that covers the write to the journal is held while the condition is asked.
        let read_meanwhile = || {
            std::thread::scope(|scope| {
                let read = || (queue.newest(), queue.all().len(), queue.moves_in_flight());
                scope.spawn(read).join().unwrap() == (0, 0, false)
            })
        };
        let queued = queue.push_if(txn(10, key), 2, read_meanwhile, |_, _| {});
        assert_eq!(queued.unwrap().unwrap().number, 1);
        assert_eq!(queue.newest(), 1);
    }
}
