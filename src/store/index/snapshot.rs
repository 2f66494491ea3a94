//! One state of a namespace's rows: the stored rows and, over them, the changes of queued operations.
//!
//! Invariant: a snapshot of a writer never changes. It shows each acknowledged operation whole or not at all, and each exactly
//! once, whether the operation is queued or committed. A follower's stored rows may become newer between two reads.

use std::cmp;
use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use crate::meta::MetaRead;
use crate::store::index::queued_rows::{QueuedRow, QueuedRows, merge_all};
use crate::store::model::error::StoreError;
use crate::store::schema::tables::{RowKey, RowTable};
use crate::sync::Arc;
#[cfg(test)]
use crate::sync::{AtomicU64, Ordering};

/// A scan of at most so many rows reads nothing ahead.
const FEW: usize = 8;

/// The rows of a namespace in one state. A copy costs a few reference counts.
///
/// Not for keeping: the meta store does not drop old rows as long as a snapshot of them exists.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(super) stored: Arc<dyn MetaRead>,
    pub(super) queued: QueuedRows,
    /// Number of rows that were read, those that did not exist included.
    #[cfg(test)]
    pub(super) read: Arc<AtomicU64>,
    /// Number of scans.
    #[cfg(test)]
    pub(super) searched: Arc<AtomicU64>,
}

impl Snapshot {
    pub(super) fn new(stored: Arc<dyn MetaRead>) -> Self {
        Self {
            stored,
            queued: QueuedRows::default(),
            #[cfg(test)]
            read: Arc::default(),
            #[cfg(test)]
            searched: Arc::default(),
        }
    }

    /// Returns the row at `key`; `None` if there is none.
    ///
    /// # Errors
    /// Errors of the meta store.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        #[cfg(test)]
        self.read.fetch_add(1, Ordering::SeqCst);
        match self.queued.row(key) {
            QueuedRow::Known(value) => Ok(value),
            QueuedRow::Merged(operands) => {
                Ok(merge_all(key, self.stored.get(key).await?, &operands))
            }
        }
    }

    /// Returns the row at `key`, decoded; `None` if there is none.
    ///
    /// # Errors
    /// Errors of the meta store; `Corrupt` when the row cannot be decoded.
    pub(crate) async fn row<T: RowTable>(
        &self,
        key: &RowKey<T>,
    ) -> Result<Option<T::Value>, StoreError> {
        match self.get(key).await? {
            Some(value) => Ok(Some(T::decode(&value)?)),
            None => Ok(None),
        }
    }

    /// Returns up to `limit` rows of `start..end`, ascending. Not for tables whose rows are merged.
    ///
    /// # Errors
    /// Errors of the meta store.
    pub(crate) async fn scan(
        &self,
        start: Bytes,
        end: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut found = Vec::new();
        let reads_ahead = limit > FEW;
        self.visit(start..end, limit, reads_ahead, |key, value| {
            found.push((key, value));
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        Ok(found)
    }

    /// Gives the rows of `range` to `visit`, ascending, until it breaks. Nothing is read behind the row at which it breaks, where many deleted
    /// rows may follow. Not for tables whose rows are merged.
    ///
    /// # Errors
    /// Errors of the meta store, and that of `visit`.
    pub(crate) async fn scan_until(
        &self,
        range: Range<Bytes>,
        visit: impl FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, StoreError> + Send,
    ) -> Result<(), StoreError> {
        self.visit(range, usize::MAX, false, visit).await
    }

    /// Gives all rows of `range` to `visit`, ascending, so that they are not in memory at the same time. Not for tables whose rows are merged.
    ///
    /// # Errors
    /// Errors of the meta store, and that of `visit`.
    pub(crate) async fn scan_each(
        &self,
        range: Range<Bytes>,
        mut visit: impl FnMut(Bytes, Bytes) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let go_on = |key, value| visit(key, value).map(ControlFlow::Continue);
        self.visit(range, usize::MAX, true, go_on).await
    }

    async fn visit(
        &self,
        range: Range<Bytes>,
        limit: usize,
        reads_ahead: bool,
        mut visit: impl FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, StoreError> + Send,
    ) -> Result<(), StoreError> {
        if range.is_empty() {
            return Ok(());
        }
        #[cfg(test)]
        self.searched.fetch_add(1, Ordering::SeqCst);
        let mut over = self.queued.rows(&range).peekable();
        let mut under = match reads_ahead {
            true => self.stored.scan(range.clone()).await?,
            false => self.stored.seek(range.clone()).await?,
        };
        // `None`: the next stored row is not read yet.
        let mut below: Option<Option<(Bytes, Bytes)>> = None;
        let mut count = 0;
        while count < limit {
            if below.is_none() {
                below = Some(under.next().await?);
            }
            let stored = below.as_ref().and_then(Option::as_ref);
            let first = match (over.peek(), stored) {
                (None, None) => break,
                (Some(_), None) => cmp::Ordering::Less,
                (None, Some(_)) => cmp::Ordering::Greater,
                (Some((queued, _)), Some((stored, _))) => queued.cmp(stored),
            };
            let row = if first.is_gt() {
                below.take().flatten()
            } else {
                if first.is_eq() {
                    below = None;
                }
                let queued = over.next();
                queued.and_then(|(key, value)| Some((key, value?)))
            };
            let Some((key, value)) = row else { continue };
            count += 1;
            if visit(key, value)?.is_break() {
                break;
            }
        }
        #[cfg(test)]
        self.read.fetch_add(count.max(1) as u64, Ordering::SeqCst);
        Ok(())
    }

    /// Returns the first row of `start..end`; `None` if there is none.
    ///
    /// # Errors
    /// Errors of the meta store.
    pub(crate) async fn first(
        &self,
        start: Bytes,
        end: Bytes,
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        Ok(self.scan(start, end, 1).await?.pop())
    }

    /// Returns the keys of `start..end` that may have a row, those of merged rows included.
    ///
    /// # Errors
    /// Errors of the meta store.
    pub(crate) async fn keys(
        &self,
        start: Bytes,
        end: Bytes,
    ) -> Result<BTreeSet<Bytes>, StoreError> {
        let mut keys: BTreeSet<Bytes> = self.queued.keys(&start, &end).cloned().collect();
        let mut scan = self.stored.scan(start..end).await?;
        while let Some((key, _)) = scan.next().await? {
            keys.insert(Bytes::copy_from_slice(&key));
        }
        Ok(keys)
    }
}
