//! The queued operations and what orders them, without the journal.
//!
//! The maps of operations are persistent: a copy costs as much as a pointer, so that a caller that looks at all operations does it on
//! a copy, without the lock of the queue.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use imbl::OrdMap;
use tokio::sync::watch;

use crate::meta::{Batch, Commit, JournalToken};
use crate::store::commit::operation::{Operation, OperationStage};
use crate::store::commit::txn::Txn;
use crate::store::model::ids::OperationId;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::journal_record::Dependencies;
use crate::sync::{Arc, Mutex};

/// Operations by their order.
pub(super) type Operations = OrdMap<u64, Arc<Operation>>;

/// The operations that are not durable.
#[derive(Debug, Default)]
pub(super) struct QueueState {
    /// Order of the newest operation.
    pub(super) order: u64,
    pub(super) operations: Operations,
    pub(super) committed: Operations,
    /// The committed operations once more, in parts of batches, oldest first.
    parts: VecDeque<(Commit, Vec<Arc<Operation>>)>,
    /// Timestamp and order of each operation that is acknowledged and not committed: the first has the oldest timestamp.
    pub(super) uncommitted: BTreeSet<(Timestamp, u64)>,
    /// The newest operation that touches a row, by the row's key. Durable operations are left out.
    touched: HashMap<Bytes, u64>,
    /// The newest operation that created, moved, removed or replaced a directory. Committed operations are left out.
    shaped: HashMap<Ino, u64>,
    /// Uncommitted operations that move a directory.
    pub(super) moves: HashSet<u64>,
    /// Uncommitted operations that change names in a directory.
    within: HashMap<Ino, HashSet<u64>>,
}

impl QueueState {
    /// Adds an operation. `apply` adds its rows to the overlay.
    pub(super) fn enter(
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
        let dependencies = txn.dependencies;
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
            is_gc: is_gc(&dependencies),
            shapes: shapes(&dependencies).copied().collect(),
            touches: dependencies.touches,
            within: dependencies.within,
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

    /// Returns the newest operation that touches a row and is not durable.
    pub(super) fn last_touching(&self, key: &Bytes) -> Option<Arc<Operation>> {
        let order = self.touched.get(key)?;
        self.find(*order)
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
        for directory in shapes(dependencies) {
            self.shaped.insert(*directory, number);
        }
        if !dependencies.moves.is_empty() {
            self.moves.insert(number);
        }
    }

    /// Moves operations of one batch to the committed ones.
    pub(super) fn committed(&mut self, operations: &[Arc<Operation>], commit: Commit) {
        for operation in operations {
            let order = operation.order;
            self.operations.remove(&order);
            self.committed.insert(order, Arc::clone(operation));
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
            for directory in &operation.shapes {
                if self.shaped.get(directory) == Some(&order) {
                    self.shaped.remove(directory);
                }
            }
        }
        self.parts.push_back((commit, operations.to_vec()));
    }

    /// Returns the commit of the newest committed operation.
    pub(super) fn newest_committed(&self) -> Option<Commit> {
        self.parts.back().map(|(commit, _)| *commit)
    }

    /// Removes and returns a part of the operations that are durable once `commit` is; `None` if there is none.
    pub(super) fn next_durable(&mut self, commit: Commit) -> Option<Vec<Arc<Operation>>> {
        let is_durable = |part: &mut (Commit, _)| part.0 <= commit;
        let (_, part) = self.parts.pop_front_if(is_durable)?;
        for operation in &part {
            let order = operation.order;
            self.committed.remove(&order);
            for key in &operation.touches {
                if self.touched.get(key) == Some(&order) {
                    self.touched.remove(key);
                }
            }
        }
        Some(part)
    }
}

/// Returns the directories that an operation creates, moves, removes or replaces.
fn shapes(dependencies: &Dependencies) -> impl Iterator<Item = &Ino> {
    let made = dependencies.makes.iter();
    made.chain(&dependencies.moves).chain(&dependencies.removes)
}

/// Tells whether an operation touches only rows of garbage collection.
fn is_gc(dependencies: &Dependencies) -> bool {
    !dependencies.touches.is_empty()
        && dependencies
            .touches
            .iter()
            .all(|key| key.first() == Some(&b'G'))
}
