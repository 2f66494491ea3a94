//! The in-memory implementation of the index: an ordered map under one lock, for tests and as the reference in comparisons.
//!
//! It can be reopened, which is a crash: commits that were not made durable are lost and the earlier writer is fenced.
//! Invariant: `live` is `durable` plus the `pending` batches in their order.

use super::{
    Batch, Change, Commit, MergeFn, MetaError, MetaRead, MetaState, MetaStore, ReplacedObjects,
    RowScan,
};
use crate::sync::{Arc, Mutex, MutexGuard, lock};
use async_trait::async_trait;
use bytes::Bytes;
use imbl::OrdMap;
use std::ops::Range;
use tokio::sync::watch;

type MemoryRows = OrdMap<Bytes, Bytes>;

/// What outlives a writer, and what does not.
#[derive(Debug)]
struct MemoryIndex {
    live: Arc<MemoryRows>,
    durable: Arc<MemoryRows>,
    pending: Vec<(Commit, Batch)>,
    newest: Commit,
    epoch: u64,
}

/// One writer of an index in memory.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    shared: Arc<Mutex<MemoryIndex>>,
    merge: MergeFn,
    epoch: u64,
    /// Shared by all writers of the index: the epoch of the newest one.
    newest: watch::Sender<u64>,
    closed: watch::Sender<bool>,
}

impl MemoryStore {
    /// Makes an empty index and opens it.
    #[must_use]
    pub(crate) fn new(merge: MergeFn) -> Self {
        let shared = MemoryIndex {
            live: Arc::default(),
            durable: Arc::default(),
            pending: Vec::new(),
            newest: Commit::default(),
            epoch: 1,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            merge,
            epoch: 1,
            newest: watch::Sender::new(1),
            closed: watch::Sender::new(false),
        }
    }

    /// Opens the same index as a newer writer, as after a crash: only what is durable is there.
    #[must_use]
    pub(crate) fn reopen(&self) -> Self {
        let mut shared = lock(&self.shared);
        shared.live = Arc::clone(&shared.durable);
        shared.pending.clear();
        shared.epoch += 1;
        let epoch = shared.epoch;
        self.newest.send_replace(epoch);
        Self {
            shared: Arc::clone(&self.shared),
            merge: self.merge,
            epoch,
            newest: self.newest.clone(),
            closed: watch::Sender::new(false),
        }
    }

    /// Gives the rows to work on, if this writer may still.
    fn rows(&self) -> Result<MutexGuard<'_, MemoryIndex>, MetaError> {
        if *self.closed.borrow() {
            return Err(MetaError::Closed("closed on request".to_owned()));
        }
        let shared = lock(&self.shared);
        if shared.epoch > self.epoch {
            return Err(MetaError::Fenced("a newer writer is open".to_owned()));
        }
        Ok(shared)
    }

    fn view(&self) -> Result<MemoryView, MetaError> {
        Ok(MemoryView(Arc::clone(&self.rows()?.live)))
    }
}

/// Applies `batch` to `rows`, change by change.
fn apply(rows: &mut MemoryRows, batch: &Batch, merge: MergeFn) {
    for (key, change) in batch.rows() {
        match change {
            Change::Put(value) => {
                rows.insert(key.clone(), value.clone());
            }
            Change::Delete => {
                rows.remove(key);
            }
            Change::Merge(operand) => {
                let existing = rows.get(key).map(AsRef::as_ref);
                let value = merge(key, existing, std::slice::from_ref(operand));
                rows.insert(key.clone(), value);
            }
        }
    }
}

#[async_trait]
impl MetaRead for MemoryStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.view()?.get(key).await
    }

    async fn scan(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        self.view()?.scan(range).await
    }
}

#[async_trait]
impl MetaStore for MemoryStore {
    async fn commit(&self, batch: Batch) -> Result<Commit, MetaError> {
        batch.check()?;
        let mut shared = self.rows()?;
        if !batch.is_empty() {
            apply(Arc::make_mut(&mut shared.live), &batch, self.merge);
            let commit = Commit(shared.newest.0 + 1);
            shared.newest = commit;
            shared.pending.push((commit, batch));
        }
        Ok(shared.newest)
    }

    async fn durable(&self, commit: Commit) -> Result<(), MetaError> {
        let mut shared = self.rows()?;
        let later = shared.pending.partition_point(|(at, _)| *at <= commit);
        let ready: Vec<_> = shared.pending.drain(..later).collect();
        let durable = Arc::make_mut(&mut shared.durable);
        for (_, batch) in ready {
            apply(durable, &batch, self.merge);
        }
        Ok(())
    }

    async fn snapshot(&self) -> Result<Arc<dyn MetaRead>, MetaError> {
        Ok(Arc::new(self.view()?))
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn state(&self) -> MetaState {
        if *self.closed.borrow() {
            MetaState::Closed
        } else if *self.newest.borrow() > self.epoch {
            MetaState::Fenced
        } else {
            MetaState::Open
        }
    }

    async fn ended(&self) -> MetaState {
        let (mut newest, mut closed) = (self.newest.subscribe(), self.closed.subscribe());
        // Neither wait can fail: both senders live in `self`.
        tokio::select! {
            _ = newest.wait_for(|newest| *newest > self.epoch) => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
        self.state()
    }

    async fn rewrite(&self, _parts: &[u8]) -> Result<ReplacedObjects, MetaError> {
        // It has no values but the newest.
        self.rows().map(|_| ReplacedObjects::default())
    }

    async fn delete_replaced(
        &self,
        _parts: &[u8],
        _replaced: &ReplacedObjects,
    ) -> Result<ReplacedObjects, MetaError> {
        Ok(ReplacedObjects::default())
    }

    async fn close(&self) -> Result<(), MetaError> {
        if self.state() == MetaState::Closed {
            return Ok(());
        }
        let newest = lock(&self.shared).newest;
        self.durable(newest).await?;
        self.closed.send_replace(true);
        Ok(())
    }
}

/// The rows at one moment.
#[derive(Debug)]
struct MemoryView(Arc<MemoryRows>);

#[async_trait]
impl MetaRead for MemoryView {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        Ok(self.0.get(key).cloned())
    }

    async fn scan(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        let rows: Vec<_> = if range.start < range.end {
            let rows = self.0.range(range);
            rows.map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        } else {
            Vec::new()
        };
        Ok(Box::new(MemoryScan(rows.into_iter())))
    }
}

struct MemoryScan(std::vec::IntoIter<(Bytes, Bytes)>);

#[async_trait]
impl RowScan for MemoryScan {
    async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, MetaError> {
        Ok(self.0.next())
    }
}
