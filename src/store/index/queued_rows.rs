//! Changes of rows by queued operations: an ordered map whose copies share their nodes.
//!
//! A copy costs as much as a pointer and does not change when the map it was made from does: that is what makes a
//! snapshot of the index cheap.

use std::ops::Range;

use bytes::Bytes;
use imbl::OrdMap;

use crate::meta::{Batch, Change};
use crate::store::schema::merge;

/// A change of a row: the row's key, the place of the operation in the queue, and the change's place among all changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ChangeKey {
    row: Bytes,
    order: u64,
    serial: u64,
}

impl ChangeKey {
    /// Returns the first key that a change of the row can have.
    fn first(row: Bytes) -> Self {
        Self {
            row,
            order: 0,
            serial: 0,
        }
    }

    /// Returns the last key that a change of the row can have.
    fn last(row: Bytes) -> Self {
        Self {
            row,
            order: u64::MAX,
            serial: u64::MAX,
        }
    }
}

/// The changes of queued operations by row, those of one row in the order of their operations.
#[derive(Clone, Debug, Default)]
pub(super) struct QueuedRows {
    changes: OrdMap<ChangeKey, Change>,
    /// Number of changes that were ever added: the next one's serial number.
    serial: u64,
}

/// What the changes of a row make of the row that is stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QueuedRow {
    /// The row has this value, or is deleted, whatever is stored.
    Known(Option<Bytes>),
    /// The operands are merged into what is stored, oldest first; without operands the stored row is unchanged.
    Merged(Vec<Bytes>),
}

impl QueuedRows {
    /// Adds the changes of the operation at place `order`, over those of every older operation.
    pub(super) fn add(&mut self, order: u64, rows: &Batch) {
        for (row, change) in rows.rows() {
            self.serial += 1;
            let key = ChangeKey {
                row: row.clone(),
                order,
                serial: self.serial,
            };
            self.changes.insert(key, change.clone());
        }
    }

    /// Removes the changes that the operations at the places `orders`, ascending, made to `rows`.
    pub(super) fn remove(&mut self, orders: &[u64], rows: &[Bytes]) {
        for row in rows {
            let all = ChangeKey::first(row.clone())..=ChangeKey::last(row.clone());
            let of_these = self.changes.range(all).map(|(key, _)| key);
            let of_these = of_these.filter(|key| orders.binary_search(&key.order).is_ok());
            for key in of_these.cloned().collect::<Vec<_>>() {
                self.changes.remove(&key);
            }
        }
    }

    /// Tells whether a queued operation changes the row.
    pub(super) fn has(&self, row: &[u8]) -> bool {
        let row = Bytes::copy_from_slice(row);
        let all = ChangeKey::first(row.clone())..=ChangeKey::last(row);
        self.changes.range(all).next().is_some()
    }

    /// Returns what the changes of a row make of it.
    pub(super) fn row(&self, row: &[u8]) -> QueuedRow {
        if self.changes.is_empty() {
            return QueuedRow::Merged(Vec::new());
        }
        let bytes = Bytes::copy_from_slice(row);
        let all = ChangeKey::first(bytes.clone())..=ChangeKey::last(bytes);
        let mut operands = Vec::new();
        for (_, change) in self.changes.range(all).rev() {
            let base = match change {
                Change::Merge(operand) => {
                    operands.push(operand.clone());
                    continue;
                }
                Change::Put(value) => Some(value.clone()),
                Change::Delete => None,
            };
            operands.reverse();
            return QueuedRow::Known(merge_all(row, base, &operands));
        }
        operands.reverse();
        QueuedRow::Merged(operands)
    }

    /// Returns the keys of `start..end` that have changes, ascending.
    pub(super) fn keys(&self, start: &Bytes, end: &Bytes) -> impl Iterator<Item = &Bytes> {
        let range = ChangeKey::first(start.clone())..ChangeKey::first(end.clone());
        let mut before: Option<&Bytes> = None;
        self.changes.range(range).filter_map(move |(key, _)| {
            let is_new = before != Some(&key.row);
            before = Some(&key.row);
            is_new.then_some(&key.row)
        })
    }

    /// Returns the rows of `range` that have changes, ascending. A deleted row is `None`. Changes that merge are left out.
    pub(super) fn rows(
        &self,
        range: &Range<Bytes>,
    ) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        let first = |row: &Bytes| ChangeKey::first(row.clone());
        let changes = self.changes.range(first(&range.start)..first(&range.end));
        let mut values = changes
            .filter_map(|(key, change)| match change {
                Change::Put(value) => Some((&key.row, Some(value))),
                Change::Delete => Some((&key.row, None)),
                Change::Merge(_) => None,
            })
            .peekable();
        std::iter::from_fn(move || {
            let (row, mut value) = values.next()?;
            while let Some((_, later)) = values.next_if(|(next, _)| *next == row) {
                value = later;
            }
            Some((row.clone(), value.cloned()))
        })
    }
}

/// Merges operands into a row, oldest first.
pub(super) fn merge_all(key: &[u8], base: Option<Bytes>, operands: &[Bytes]) -> Option<Bytes> {
    match operands {
        [] => base,
        _ => Some(merge::merge(key, base.as_deref(), operands)),
    }
}
