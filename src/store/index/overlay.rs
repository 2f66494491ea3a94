//! What is queued, laid over what the meta store has: the rows the live tree and the past read.
//!
//! Invariant: a row is in the overlay from the moment its operation is acknowledged until the meta store shows it. Merged rows
//! are read between commits, never across one, so no operand counts twice.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::meta::{Batch, Change, Commit, MetaRead, MetaStore};
use crate::store::model::error::StoreError;
use crate::store::schema::merge;
use crate::store::schema::tables::{RowKey, RowTable};
use crate::sync::{Arc, RwLock, read, write};

/// Rows of the meta store under the rows of queued operations.
#[derive(Debug)]
pub(crate) struct Index {
    rows: Arc<dyn MetaRead>,
    /// Where operations go; none where another process writes.
    written: Option<Arc<dyn MetaStore>>,
    queued: RwLock<BTreeMap<Bytes, Vec<(u64, Change)>>>,
    /// Odd while a batch is on its way from the overlay into the meta store.
    turn: AtomicU64,
    /// Odd while rows of contents are being rearranged; what was read across a change is read again.
    arrangement: AtomicU64,
    /// Rows that were looked at one by one or in scans.
    #[cfg(test)]
    read: AtomicU64,
}

impl Index {
    pub(crate) fn new(meta: Arc<dyn MetaStore>) -> Self {
        Self::over(Arc::clone(&meta) as Arc<dyn MetaRead>, Some(meta))
    }

    /// The rows that another process writes: nothing is ever laid over them.
    pub(crate) fn following(rows: Arc<dyn MetaRead>) -> Self {
        Self::over(rows, None)
    }

    fn over(rows: Arc<dyn MetaRead>, written: Option<Arc<dyn MetaStore>>) -> Self {
        Self {
            rows,
            written,
            queued: RwLock::default(),
            turn: AtomicU64::new(0),
            arrangement: AtomicU64::new(0),
            #[cfg(test)]
            read: AtomicU64::new(0),
        }
    }

    /// How many rows were looked at, those that were not there included.
    #[cfg(test)]
    pub(crate) fn rows_read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }

    /// The rows without what is queued.
    pub(crate) fn rows(&self) -> &Arc<dyn MetaRead> {
        &self.rows
    }

    /// Where operations are committed.
    pub(crate) fn writer(&self) -> Result<&Arc<dyn MetaStore>, StoreError> {
        self.written.as_ref().ok_or(StoreError::ReadOnly)
    }

    /// Lays the rows of operation `order` over everything older.
    pub(crate) fn lay(&self, order: u64, rows: &Batch) {
        let mut queued = write(&self.queued);
        for (key, change) in rows.rows() {
            let stack = queued.entry(key.clone()).or_default();
            let at = stack.partition_point(|(o, _)| *o <= order);
            stack.insert(at, (order, change.clone()));
        }
    }

    /// Applies rows that show the same contents in another arrangement: a reader sees all of them or none.
    pub(crate) fn rearrange(&self, order: u64, rows: &Batch) {
        self.arrangement.fetch_add(1, Ordering::SeqCst);
        self.lay(order, rows);
        self.arrangement.fetch_add(1, Ordering::SeqCst);
    }

    /// A number that is even, and the same as before, if no content was rearranged since.
    pub(crate) fn arrangement(&self) -> u64 {
        self.arrangement.load(Ordering::SeqCst)
    }

    /// Keys of `start..end` that may have a row, those that merge included.
    pub(crate) async fn keys(
        &self,
        start: Bytes,
        end: Bytes,
    ) -> Result<BTreeSet<Bytes>, StoreError> {
        let mut keys: BTreeSet<Bytes> = read(&self.queued)
            .range::<Bytes, _>((Bound::Included(&start), Bound::Excluded(&end)))
            .map(|(key, _)| key.clone())
            .collect();
        let mut scan = self.rows.scan(start..end).await?;
        while let Some((key, _)) = scan.next().await? {
            keys.insert(Bytes::copy_from_slice(&key));
        }
        Ok(keys)
    }

    /// Whether an operation on its way changes the row.
    pub(crate) fn is_queued(&self, key: &[u8]) -> bool {
        read(&self.queued).contains_key(key)
    }

    /// Commits `batch`, which holds the rows of `orders`, and takes those off the overlay.
    pub(crate) async fn commit(
        &self,
        orders: &[u64],
        keys: &[Bytes],
        batch: Batch,
    ) -> Result<Commit, StoreError> {
        let written = self.writer()?;
        self.turn.fetch_add(1, Ordering::SeqCst);
        let result = written.commit(batch).await;
        if result.is_ok() {
            let mut queued = write(&self.queued);
            for key in keys {
                if let Some(stack) = queued.get_mut(key) {
                    stack.retain(|(o, _)| orders.binary_search(o).is_err());
                    if stack.is_empty() {
                        queued.remove(key);
                    }
                }
            }
        }
        self.turn.fetch_add(1, Ordering::SeqCst);
        Ok(result?)
    }

    /// The row at `key`, or `None`.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        #[cfg(test)]
        self.read.fetch_add(1, Ordering::SeqCst);
        loop {
            let turn = self.turn.load(Ordering::SeqCst);
            let stack = read(&self.queued).get(key).cloned().unwrap_or_default();
            let settled = stack
                .iter()
                .rposition(|(_, c)| !matches!(c, Change::Merge(_)));
            let base = match settled.map(|at| &stack[at].1) {
                Some(Change::Put(value)) => Some(value.clone()),
                Some(_) => None,
                None => self.rows.get(key).await?,
            };
            let operands = &stack[settled.map_or(0, |at| at + 1)..];
            if settled.is_some() || operands.is_empty() {
                return Ok(fold(key, base, operands));
            }
            if turn.is_multiple_of(2) && turn == self.turn.load(Ordering::SeqCst) {
                return Ok(fold(key, base, operands));
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Up to `limit` rows of `start..end`, ascending. Rows that merge are not scanned this way.
    pub(crate) async fn scan(
        &self,
        start: Bytes,
        end: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let queued = self.queued_rows(&start, &end, limit);
        let mut over = queued.into_iter().peekable();
        let mut under = self.rows.scan(start..end).await?;
        let mut below = under.next().await?;
        let mut found = Vec::new();
        while found.len() < limit {
            let from_queue = match (over.peek(), &below) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((a, _)), Some((b, _))) => a <= b,
            };
            if from_queue {
                let Some((key, value)) = over.next() else {
                    break;
                };
                if below.as_ref().is_some_and(|(b, _)| *b == key) {
                    below = under.next().await?;
                }
                found.extend(value.map(|value| (key, value)));
            } else {
                found.extend(below.take());
                if found.len() < limit {
                    below = under.next().await?;
                }
            }
        }
        #[cfg(test)]
        self.read
            .fetch_add(found.len().max(1) as u64, Ordering::SeqCst);
        Ok(found)
    }

    /// What queued operations make of rows of `start..end`, up to the `limit`th row that is there: no caller looks behind it.
    fn queued_rows(&self, start: &Bytes, end: &Bytes, limit: usize) -> Vec<(Bytes, Option<Bytes>)> {
        let (mut rows, mut there) = (Vec::new(), 0);
        let queued = read(&self.queued);
        for (key, stack) in queued.range::<Bytes, _>((Bound::Included(start), Bound::Excluded(end)))
        {
            if there == limit {
                break;
            }
            match stack.last().map(|(_, change)| change) {
                Some(Change::Put(value)) => {
                    there += 1;
                    rows.push((key.clone(), Some(value.clone())));
                }
                Some(Change::Delete) => rows.push((key.clone(), None)),
                Some(Change::Merge(_)) | None => {}
            }
        }
        rows
    }

    /// The first key of `start..end` that a queued operation changes.
    pub(crate) fn first_queued(&self, start: &Bytes, end: &Bytes) -> Option<Bytes> {
        read(&self.queued)
            .range::<Bytes, _>((Bound::Included(start), Bound::Excluded(end)))
            .next()
            .map(|(key, _)| key.clone())
    }

    /// The first row of `start..end`.
    pub(crate) async fn first(
        &self,
        start: Bytes,
        end: Bytes,
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        Ok(self.scan(start, end, 1).await?.pop())
    }

    /// The row at `key`, decoded.
    pub(crate) async fn row<T: RowTable>(
        &self,
        key: &RowKey<T>,
    ) -> Result<Option<T::Value>, StoreError> {
        match self.get(key).await? {
            Some(value) => Ok(Some(T::decode(&value)?)),
            None => Ok(None),
        }
    }
}

fn fold(key: &[u8], base: Option<Bytes>, operands: &[(u64, Change)]) -> Option<Bytes> {
    operands
        .iter()
        .fold(base, |value, (_, change)| match change {
            Change::Merge(operand) => Some(merge::merge(key, value.as_deref(), operand)),
            Change::Put(_) | Change::Delete => value,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::MemoryStore;
    use crate::store::model::version::{ContentRef, Timestamp};
    use crate::store::schema::keys;
    use crate::store::schema::tables::CountTable;

    fn counter() -> RowKey<CountTable> {
        keys::count(ContentRef {
            cid: 1,
            timestamp: Timestamp(1),
        })
    }

    fn plus(n: i64) -> Batch {
        let mut batch = Batch::new();
        counter().merge(&mut batch, &n);
        batch
    }

    async fn count(index: &Index) -> i64 {
        index.row(&counter()).await.unwrap().unwrap_or(0)
    }

    #[tokio::test]
    async fn queued_rows_hide_and_extend_what_is_committed() {
        let index = Index::new(Arc::new(MemoryStore::new(merge::merge)));
        let (a, b) = (Bytes::from_static(b"CDa"), Bytes::from_static(b"CDb"));
        let mut first = Batch::new();
        first.put(a.clone(), Bytes::from_static(b"1"));
        first.put(b.clone(), Bytes::from_static(b"1"));
        index.lay(1, &first);
        index
            .commit(&[1], &[a.clone(), b.clone()], first)
            .await
            .unwrap();
        let mut second = Batch::new();
        second.delete(a.clone());
        second.put(Bytes::from_static(b"CDc"), Bytes::from_static(b"2"));
        index.lay(2, &second);
        let all = index
            .scan(Bytes::from_static(b"CD"), Bytes::from_static(b"CE"), 9)
            .await
            .unwrap();
        let names: Vec<_> = all.iter().map(|(k, _)| k.slice(2..)).collect();
        assert_eq!(names, [&b"b"[..], b"c"]);
        assert_eq!(index.get(&a).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_operand_counts_once_before_and_after_its_commit() {
        let index = Index::new(Arc::new(MemoryStore::new(merge::merge)));
        index.lay(1, &plus(2));
        index.lay(2, &plus(3));
        assert_eq!(count(&index).await, 5);
        index
            .commit(&[1], &[counter().bytes()], plus(2))
            .await
            .unwrap();
        assert_eq!(count(&index).await, 5);
        index
            .commit(&[2], &[counter().bytes()], plus(3))
            .await
            .unwrap();
        assert_eq!(count(&index).await, 5);
    }
}
