//! The current state of a namespace's rows, and the two changes of it: an operation is queued, a batch is committed.
//!
//! Path: an operation's rows enter the current snapshot under its write lock, all at once ([`Index::apply`]). A commit gives the
//! batch to the meta store, takes the meta store's snapshot, removes the committed operations' changes from a copy of the queued
//! rows, and then, under the write lock, adds to the copy what was queued meanwhile and replaces both ([`Index::commit`]). The
//! lock is held for what was queued meanwhile only: a batch may have thousands of rows, and every call reads the index.
//! A reader takes a copy of the current snapshot and reads only from the copy: it never sees half of a change, and never waits
//! for one.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::meta::{Batch, Commit, MetaRead, MetaStore};
use crate::store::index::lineage_changes::{LineageChanges, LineageStamp};
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::schema::tables::{RowKey, RowTable};
use crate::sync::{Arc, RwLock, read, write};

/// The rows of a namespace: stored ones and, over them, those of queued operations.
#[derive(Debug)]
pub(crate) struct Index {
    /// The stored rows as they are at each read, for readers that need no queued row.
    rows: Arc<dyn MetaRead>,
    /// Where batches are committed; `None` where another process is the writer.
    written: Option<Arc<dyn MetaStore>>,
    current: RwLock<CurrentRows>,
}

/// The rows of a namespace in one state, and which state of a lineage they show.
#[derive(Debug)]
pub(crate) struct StampedSnapshot {
    pub(crate) rows: Snapshot,
    pub(crate) stamp: LineageStamp,
}

/// The current state, and what is queued while a commit works on a copy of it.
#[derive(Debug)]
struct CurrentRows {
    snapshot: Snapshot,
    lineages: LineageChanges,
    /// The operations that were queued since the copy was made, with their places; `None` while there is no copy.
    added: Option<Vec<(u64, Batch)>>,
}

impl CurrentRows {
    fn new(stored: Arc<dyn MetaRead>) -> RwLock<Self> {
        RwLock::new(Self {
            snapshot: Snapshot::new(stored),
            lineages: LineageChanges::default(),
            added: None,
        })
    }
}

impl Index {
    /// Returns the index of the one writer of `meta`. From now on all commits go through [`Index::commit`].
    ///
    /// # Errors
    /// Errors of the meta store.
    pub(crate) async fn of_writer(meta: Arc<dyn MetaStore>) -> Result<Self, StoreError> {
        let current = CurrentRows::new(meta.snapshot().await?);
        let rows = Arc::clone(&meta) as Arc<dyn MetaRead>;
        let written = Some(meta);
        Ok(Self {
            rows,
            written,
            current,
        })
    }

    /// Returns the index of a follower: another process writes the rows, and no operation is queued here.
    pub(crate) fn of_follower(rows: Arc<dyn MetaRead>) -> Self {
        Self {
            current: CurrentRows::new(Arc::clone(&rows)),
            rows,
            written: None,
        }
    }

    /// Returns the rows as they are now. Reads that must agree with each other use one snapshot.
    pub(crate) fn snapshot(&self) -> Snapshot {
        read(&self.current).snapshot.clone()
    }

    /// Returns the rows as they are now, with the stamp of a lineage in them.
    pub(crate) fn stamped_snapshot(&self, cid: u64) -> StampedSnapshot {
        let mut current = write(&self.current);
        StampedSnapshot {
            stamp: current.lineages.stamp(cid),
            rows: current.snapshot.clone(),
        }
    }

    /// Returns how many rows were read, those that did not exist included.
    #[cfg(test)]
    pub(crate) fn rows_read(&self) -> u64 {
        let current = read(&self.current);
        current.snapshot.read.load(crate::sync::Ordering::SeqCst)
    }

    /// Returns how many scans were made.
    #[cfg(test)]
    pub(crate) fn searches(&self) -> u64 {
        let current = read(&self.current);
        current
            .snapshot
            .searched
            .load(crate::sync::Ordering::SeqCst)
    }

    /// Returns the stored rows, without what is queued.
    pub(crate) fn rows(&self) -> &Arc<dyn MetaRead> {
        &self.rows
    }

    /// Returns the stored rows in one state, which later commits do not change, without what is queued. Not for keeping, as a
    /// [`Snapshot`].
    pub(crate) fn stored(&self) -> Arc<dyn MetaRead> {
        Arc::clone(&read(&self.current).snapshot.stored)
    }

    /// Returns where batches are committed.
    ///
    /// # Errors
    /// `ReadOnly` on a follower.
    pub(crate) fn writer(&self) -> Result<&Arc<dyn MetaStore>, StoreError> {
        self.written.as_ref().ok_or(StoreError::ReadOnly)
    }

    /// Adds the rows of the operation at place `order`, over those of every older operation. A reader sees all of them or none.
    pub(crate) fn apply(&self, order: u64, rows: &Batch) {
        let mut current = write(&self.current);
        current.snapshot.queued.add(order, rows);
        current.lineages.add(rows);
        if let Some(added) = &mut current.added {
            added.push((order, rows.clone()));
        }
    }

    /// Tells whether a queued operation changes the row.
    pub(crate) fn is_queued(&self, key: &[u8]) -> bool {
        read(&self.current).snapshot.queued.has(key)
    }

    /// Returns the first key of `start..end` that a queued operation changes.
    pub(crate) fn first_queued(&self, start: &Bytes, end: &Bytes) -> Option<Bytes> {
        let current = read(&self.current);
        current.snapshot.queued.keys(start, end).next().cloned()
    }

    /// Commits `batch`: the changes that the operations at the places `orders`, ascending, made to the rows `keys`, and rows of
    /// the commit's own.
    ///
    /// # Errors
    /// Errors of the meta store. The operations stay queued then, and readers see no difference.
    pub(crate) async fn commit(
        &self,
        orders: &[u64],
        keys: &[Bytes],
        batch: Batch,
    ) -> Result<Commit, StoreError> {
        let written = self.writer()?;
        let commit = written.commit(batch).await?;
        // Only a meta store that takes no further commit fails here: the batch is not applied a second time.
        let stored = written.snapshot().await?;
        let mut queued = {
            let mut current = write(&self.current);
            current.added = Some(Vec::new());
            current.snapshot.queued.clone()
        };
        queued.remove(orders, keys);
        let mut current = write(&self.current);
        for (order, rows) in current.added.take().unwrap_or_default() {
            queued.add(order, &rows);
        }
        let before = (
            std::mem::replace(&mut current.snapshot.stored, stored),
            std::mem::replace(&mut current.snapshot.queued, queued),
        );
        drop(current);
        // Freed without the lock: they may be the last copies of thousands of rows.
        drop(before);
        Ok(commit)
    }

    /// Returns the row at `key` of the current state; `None` if there is none.
    ///
    /// # Errors
    /// Errors of the meta store.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.snapshot().get(key).await
    }

    /// Returns the row at `key` of the current state, decoded; `None` if there is none.
    ///
    /// # Errors
    /// Errors of the meta store; `Corrupt` when the row cannot be decoded.
    pub(crate) async fn row<T: RowTable>(
        &self,
        key: &RowKey<T>,
    ) -> Result<Option<T::Value>, StoreError> {
        self.snapshot().row(key).await
    }

    /// Returns up to `limit` rows of `start..end` of the current state; see [`Snapshot::scan`].
    ///
    /// # Errors
    /// Errors of the meta store.
    pub(crate) async fn scan(
        &self,
        start: Bytes,
        end: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.snapshot().scan(start, end, limit).await
    }

    /// Returns the first row of `start..end` of the current state; `None` if there is none.
    ///
    /// # Errors
    /// Errors of the meta store.
    pub(crate) async fn first(
        &self,
        start: Bytes,
        end: Bytes,
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.snapshot().first(start, end).await
    }

    /// Returns the keys of `start..end` that may have a row in the current state; see [`Snapshot::keys`].
    ///
    /// # Errors
    /// Errors of the meta store.
    pub(crate) async fn keys(
        &self,
        start: Bytes,
        end: Bytes,
    ) -> Result<BTreeSet<Bytes>, StoreError> {
        self.snapshot().keys(start, end).await
    }
}

#[cfg(test)]
mod tests;
