//! Ordered rows with atomic batches: the index of a namespace, and the local journal that runs ahead of it.
//!
//! This room knows bytes: keys, values and how two values of a key merge. What they mean belongs to the store above.
//! Invariant: a batch is visible whole or not at all, and what survives a crash is a prefix of the commits in their
//! order that holds at least everything [`MetaStore::durable`] returned for.
//! Two implementations answer for it: [`SlateStore`] on the bucket and [`MemoryStore`], its twin for tests.

mod commit;
mod error;
mod journal;
#[cfg(test)]
mod memory;
mod slate;

#[cfg(test)]
mod contract;

pub(crate) use error::MetaError;
pub(crate) use journal::{Journal, JournalError, JournalToken, Recovered};
#[cfg(test)]
pub(crate) use memory::MemoryStore;
pub(crate) use slate::{
    BadObject, Inspection, LastWriterState, Reason, SlateConfig, SlateFollower, SlateStore, inspect,
};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

use crate::sync::Arc;

/// The longest key a row may have, in bytes.
pub(crate) const KEY_MAX: usize = 65_535;

/// How a key's older and newer value become one; values and operands share one encoding.
///
/// Two laws, because the engine merges operands with each other before it meets the row below them: merging is
/// associative, and merging onto nothing (`None`) gives a value that reads as the operand itself.
pub(crate) type MergeFn = fn(key: &[u8], existing: Option<&[u8]>, operand: &[u8]) -> Bytes;

/// What happens to one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// The row has this value afterwards.
    Put(Bytes),
    /// The row is gone afterwards.
    Delete,
    /// The row's value is merged with this operand.
    Merge(Bytes),
}

/// Changes that take effect together, in the order they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    rows: Vec<(Bytes, Change)>,
}

impl Batch {
    /// Makes a batch without changes.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Sets a row.
    pub(crate) fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.rows.push((key.into(), Change::Put(value.into())));
    }

    /// Removes a row.
    pub(crate) fn delete(&mut self, key: impl Into<Bytes>) {
        self.rows.push((key.into(), Change::Delete));
    }

    /// Merges an operand into a row.
    pub(crate) fn merge(&mut self, key: impl Into<Bytes>, operand: impl Into<Bytes>) {
        self.rows.push((key.into(), Change::Merge(operand.into())));
    }

    /// Adds the changes of `other` after those of this batch.
    pub(crate) fn append(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    /// Tells whether there is no change.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Shows the changes in their order.
    #[must_use]
    pub(crate) fn rows(&self) -> &[(Bytes, Change)] {
        &self.rows
    }

    /// Gives the changes away, in their order.
    pub(crate) fn into_rows(self) -> Vec<(Bytes, Change)> {
        self.rows
    }

    /// Bytes of all keys and values.
    pub(crate) fn bytes(&self) -> usize {
        let len = |change: &Change| match change {
            Change::Put(value) | Change::Merge(value) => value.len(),
            Change::Delete => 0,
        };
        self.rows
            .iter()
            .map(|(key, change)| key.len() + len(change))
            .sum()
    }

    /// Refuses keys that no engine of ours stores.
    fn check(&self) -> Result<(), MetaError> {
        match self
            .rows
            .iter()
            .find(|(key, _)| key.is_empty() || key.len() > KEY_MAX)
        {
            None => Ok(()),
            Some((key, _)) => Err(MetaError::Corrupt(format!(
                "a key of {} bytes; 1 to {KEY_MAX} are possible",
                key.len()
            ))),
        }
    }

    /// Reduces the batch to one change per key.
    fn fold(self, merge: MergeFn) -> BTreeMap<Bytes, Change> {
        let mut folded: BTreeMap<Bytes, Change> = BTreeMap::new();
        for (key, change) in self.rows {
            let change = match (change, folded.get(&key)) {
                (Change::Merge(new), Some(Change::Put(old))) => {
                    Change::Put(merge(&key, Some(old), &new))
                }
                (Change::Merge(new), Some(Change::Merge(old))) => {
                    Change::Merge(merge(&key, Some(old), &new))
                }
                (Change::Merge(new), Some(Change::Delete)) => Change::Put(merge(&key, None, &new)),
                (change, _) => change,
            };
            folded.insert(key, change);
        }
        folded
    }
}

/// A commit's place in the order of its store; later commits are greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Commit(u64);

/// How a store stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MetaState {
    /// It works, as far as is known.
    Open,
    /// A newer writer has taken over; what was not durable by then will not be.
    Fenced,
    /// It was closed on request.
    Closed,
    /// The engine stopped by itself, with these words.
    Failed(String),
}

/// Rows in ascending order of their keys, one at a time.
#[async_trait]
pub(crate) trait RowScan: Send {
    /// Gives the next row, `None` after the last one.
    ///
    /// A value may share its memory with a whole block of the index; copy what is kept for long.
    async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, MetaError>;
}

/// A consistent view of the rows.
#[async_trait]
pub(crate) trait MetaRead: Send + Sync + std::fmt::Debug {
    /// Reads one row.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError>;

    /// Starts a scan over the keys in `range` (its end excluded) as they are now. An upside-down range is empty.
    async fn scan(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError>;
}

/// The one writer of an index. Reads see every commit at once.
#[async_trait]
pub(crate) trait MetaStore: MetaRead {
    /// Applies a batch: atomic, visible to reads at return, **not durable** (see [`MetaStore::durable`]).
    ///
    /// Waits while the engine holds too many bytes that are not in the bucket. If the future is dropped, the batch may or
    /// may not have been applied. An empty batch is the newest commit again. A fenced writer may still say Ok.
    async fn commit(&self, batch: Batch) -> Result<Commit, MetaError>;

    /// Waits until the bucket has `commit` and everything before it. Callers at the same time share one flush.
    ///
    /// After an error the commit may still become durable; asking again tells.
    async fn durable(&self, commit: Commit) -> Result<(), MetaError>;

    /// Takes a view that later commits do not change. Not for keeping: the engine lets go of old data after 15 minutes.
    async fn snapshot(&self) -> Result<Arc<dyn MetaRead>, MetaError>;

    /// Tells this writer's epoch, greater than that of every earlier writer of the index.
    fn epoch(&self) -> u64;

    /// Tells how the store stands, without asking the bucket.
    fn state(&self) -> MetaState;

    /// Waits until the store is no longer open and tells why.
    async fn ended(&self) -> MetaState;

    /// Makes every commit durable and stops the engine. Closing again is Ok. `Unavailable` leaves the store open.
    async fn close(&self) -> Result<(), MetaError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concat(_key: &[u8], existing: Option<&[u8]>, operand: &[u8]) -> Bytes {
        [existing.unwrap_or_default(), operand].concat().into()
    }

    #[test]
    fn a_batch_survives_its_encoding() {
        let mut batch = Batch::new();
        batch.put(&b"Ck"[..], &b"v"[..]);
        batch.delete(&b"Hk"[..]);
        let mut more = Batch::new();
        more.merge(&b"G\xff"[..], vec![0, 1, 255]);
        batch.append(more);
        assert_eq!((batch.rows().len(), batch.is_empty()), (3, false));
        let bytes = postcard::to_stdvec(&batch).unwrap();
        assert_eq!(postcard::from_bytes::<Batch>(&bytes).unwrap(), batch);
    }

    #[test]
    fn folding_keeps_the_last_word_of_each_key() {
        let mut batch = Batch::new();
        batch.merge(&b"a"[..], &b"1"[..]);
        batch.merge(&b"a"[..], &b"2"[..]);
        batch.put(&b"b"[..], &b"1"[..]);
        batch.merge(&b"b"[..], &b"2"[..]);
        batch.delete(&b"c"[..]);
        batch.merge(&b"c"[..], &b"2"[..]);
        batch.merge(&b"d"[..], &b"1"[..]);
        batch.delete(&b"d"[..]);
        batch.merge(&b"e"[..], &b"1"[..]);
        batch.put(&b"e"[..], &b"2"[..]);
        let folded: Vec<_> = batch.fold(concat).into_iter().collect();
        let row = |key: &'static str, change| (Bytes::from(key), change);
        assert_eq!(
            folded,
            vec![
                row("a", Change::Merge("12".into())),
                row("b", Change::Put("12".into())),
                row("c", Change::Put("2".into())),
                row("d", Change::Delete),
                row("e", Change::Put("2".into())),
            ]
        );
    }

    #[test]
    fn impossible_keys_are_refused() {
        for (len, fits) in [(0, false), (1, true), (KEY_MAX, true), (KEY_MAX + 1, false)] {
            let mut batch = Batch::new();
            batch.delete(vec![b'C'; len]);
            assert_eq!(batch.check().is_ok(), fits, "{len}");
        }
    }
}
