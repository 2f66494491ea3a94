//! Ordered rows with atomic batches: the index of a namespace in the bucket, and the local journal of changes that it does not
//! contain yet.
//!
//! Keys and values are bytes here; their meaning, and how two values of a key merge, belong to the store above.
//! Invariant: a batch is visible as a whole or not at all. After a crash the index has a prefix of the commits in their order,
//! which includes every commit for which [`MetaStore::durable`] has returned.
//! [`SlateStore`] is the implementation on the bucket, `MemoryStore` the one in memory for tests.

mod bounded;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod group_flush;
mod journal;
#[cfg(test)]
mod memory;
mod slate;

#[cfg(test)]
mod contract;

pub(crate) use bounded::list_of_at_most;
pub(crate) use error::MetaError;
pub(crate) use journal::{
    Journal, JournalError, JournalSnapshot, JournalToken, Recovered, is_in_use,
};
#[cfg(test)]
pub(crate) use memory::MemoryStore;
pub(crate) use slate::{
    BadObject, Inspection, LastWriterState, Reason, SlateConfig, SlateFollower, SlateStore,
    TableDisk, inspect,
};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::sync::Arc;

/// The maximal length of a key, in bytes.
pub(crate) const KEY_MAX: usize = 65_535;

/// Merges operands, at least one and the oldest first, into a value; values and operands have the same encoding.
///
/// The engine merges operands with each other before it reads the row they apply to. Therefore the function must be
/// associative, and a merge of one operand into `None` must return a value that decodes as the operand itself.
pub(crate) type MergeFn = fn(key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes;

/// A change of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// Sets the value.
    Put(Bytes),
    /// Deletes the row.
    Delete,
    /// Merges this operand into the value.
    Merge(Bytes),
}

/// The most rows of a batch that are decoded: those of an operation on a tree of 100,000 names, many times over.
const ROWS_MAX: usize = 8 << 20;

/// Changes that take effect together, in the order they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    #[serde(deserialize_with = "list_of_at_most::<ROWS_MAX, _, _>")]
    rows: Vec<(Bytes, Change)>,
}

impl Batch {
    /// Creates an empty batch.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Creates an empty batch with room for `rows` changes.
    #[must_use]
    pub(crate) fn with_room(rows: usize) -> Self {
        Self {
            rows: Vec::with_capacity(rows),
        }
    }

    /// Sets a row.
    pub(crate) fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.rows.push((key.into(), Change::Put(value.into())));
    }

    /// Deletes a row.
    pub(crate) fn delete(&mut self, key: impl Into<Bytes>) {
        self.rows.push((key.into(), Change::Delete));
    }

    /// Merges an operand into a row.
    pub(crate) fn merge(&mut self, key: impl Into<Bytes>, operand: impl Into<Bytes>) {
        self.rows.push((key.into(), Change::Merge(operand.into())));
    }

    /// Appends the changes of `other`.
    pub(crate) fn append(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    /// Tells whether the batch has no changes.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the changes in order.
    #[must_use]
    pub(crate) fn rows(&self) -> &[(Bytes, Change)] {
        &self.rows
    }

    /// Converts the batch into its changes, in order.
    pub(crate) fn into_rows(self) -> Vec<(Bytes, Change)> {
        self.rows
    }

    /// The size of the encoded batch at most, in bytes.
    pub(crate) fn encoded_max(&self) -> usize {
        // Beside a key and a value: their lengths of up to four bytes each, and the kind of the change.
        self.bytes() + self.rows.len() * 9 + 10
    }

    /// The size of all keys and values, in bytes.
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

    /// Checks the lengths of all keys.
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

    /// Reduces the batch to one change per key. The operands of a row are merged in one call: the row of a segment has an operand for each
    /// file in it.
    fn fold(self, merge: MergeFn) -> BTreeMap<Bytes, Change> {
        let mut changes: BTreeMap<Bytes, RowChanges> = BTreeMap::new();
        for (key, change) in self.rows {
            let of_row = changes.entry(key).or_default();
            match change {
                Change::Merge(operand) => of_row.operands.push(operand),
                last => *of_row = RowChanges::beginning_with(last),
            }
        }
        let changes = changes.into_iter();
        changes
            .filter_map(|(key, of_row)| {
                let folded = of_row.folded(&key, merge)?;
                Some((key, folded))
            })
            .collect()
    }
}

/// The changes of a row in a batch, from the last one that is no merge.
#[derive(Debug, Default)]
struct RowChanges {
    /// A put or a deletion.
    first: Option<Change>,
    /// What is merged into it, oldest first.
    operands: Vec<Bytes>,
}

impl RowChanges {
    fn beginning_with(first: Change) -> Self {
        Self {
            first: Some(first),
            operands: Vec::new(),
        }
    }

    /// Returns the one change that they are; `None` if there are none.
    fn folded(self, key: &[u8], merge: MergeFn) -> Option<Change> {
        let operands = &self.operands[..];
        match (self.first, operands) {
            (first, []) => first,
            (None, [operand]) => Some(Change::Merge(operand.clone())),
            (None | Some(Change::Merge(_)), _) => Some(Change::Merge(merge(key, None, operands))),
            (Some(Change::Put(value)), _) => Some(Change::Put(merge(key, Some(&value), operands))),
            (Some(Change::Delete), _) => Some(Change::Put(merge(key, None, operands))),
        }
    }
}

/// The position of a commit in the order of its store; later commits are greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Commit(u64);

/// Objects of a store that a rewriting has replaced, by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReplacedObjects {
    pub(crate) keys: BTreeSet<String>,
}

/// The state of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MetaState {
    /// It accepts commits.
    Open,
    /// A newer writer has opened the index; commits that were not durable by then are lost.
    Fenced,
    /// It was closed on request.
    Closed,
    /// The engine has stopped with this error.
    Failed(String),
}

/// Rows in ascending order of their keys, one at a time.
#[async_trait]
pub(crate) trait RowScan: Send {
    /// Returns the next row, or `None` after the last one.
    ///
    /// A value may share its memory with a whole block of the index; copy values that are kept for long.
    async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, MetaError>;
}

/// A consistent view of the rows.
#[async_trait]
pub(crate) trait MetaRead: Send + Sync + std::fmt::Debug {
    /// Reads one row.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError>;

    /// Starts a scan of the rows with keys in `range`, whose end is excluded. A range whose end is before its start is empty.
    async fn scan(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError>;

    /// Starts a scan of which the caller takes a few rows: as [`MetaRead::scan`], but nothing is read ahead.
    async fn seek(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        self.scan(range).await
    }
}

/// The only writer of an index. Reads see a commit as soon as it has returned.
#[async_trait]
pub(crate) trait MetaStore: MetaRead {
    /// Applies a batch atomically. Reads see it when this returns; it is **not durable** yet (see [`MetaStore::durable`]).
    ///
    /// Waits while the engine holds too many bytes that are not in the bucket. If the future is dropped, the batch may have
    /// been applied. For an empty batch, returns the newest commit. A fenced writer may still return Ok.
    async fn commit(&self, batch: Batch) -> Result<Commit, MetaError>;

    /// Waits until the bucket has `commit` and all earlier ones. Concurrent callers share one flush.
    ///
    /// After an error the commit may still become durable; another call tells.
    async fn durable(&self, commit: Commit) -> Result<(), MetaError>;

    /// Takes a snapshot, which later commits do not change. The engine may delete its data after 15 minutes.
    async fn snapshot(&self) -> Result<Arc<dyn MetaRead>, MetaError>;

    /// Writes the rows whose keys begin with one of `parts` anew, so that no object that is in use has a value of them that was deleted
    /// or replaced before the call. Returns the objects that were in use before; [`MetaStore::delete_replaced`] deletes them. It
    /// takes as long as the rows take to be read and written.
    async fn rewrite(&self, parts: &[u8]) -> Result<ReplacedObjects, MetaError>;

    /// Deletes objects that a [`MetaStore::rewrite`] of `parts` has replaced, and returns those that are left. A follower that has not read the newest
    /// state yet reads it when it finds one missing.
    async fn delete_replaced(
        &self,
        parts: &[u8],
        replaced: &ReplacedObjects,
    ) -> Result<ReplacedObjects, MetaError>;

    /// Returns this writer's epoch, which is greater than that of every earlier writer of the index.
    fn epoch(&self) -> u64;

    /// Returns the last known state of the store; sends no request.
    fn state(&self) -> MetaState;

    /// Waits until the store is no longer open, and returns its state.
    async fn ended(&self) -> MetaState;

    /// Makes all commits durable and stops the engine. A second call returns Ok. After `Unavailable` the store is still open.
    async fn close(&self) -> Result<(), MetaError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concat(_key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
        let operands = operands.concat();
        [existing.unwrap_or_default(), &operands].concat().into()
    }

    #[test]
    fn a_batch_can_be_encoded_and_decoded() {
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
    fn folding_leaves_one_change_per_key() {
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
    fn keys_of_invalid_length_are_refused() {
        for (len, fits) in [(0, false), (1, true), (KEY_MAX, true), (KEY_MAX + 1, false)] {
            let mut batch = Batch::new();
            batch.delete(vec![b'C'; len]);
            assert_eq!(batch.check().is_ok(), fits, "{len}");
        }
    }
}
