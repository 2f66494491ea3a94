//! The inodes whose current state is unborn or provisional (rows `C U`), and a lower bound of their numbers (row `G U`).
//!
//! Nearly every inode has a `C U` row for a short time. The index keeps the tombstones of deleted rows until it is compacted;
//! without the lower bound, a mount would read a million of them to find the few rows that exist. Invariant: no committed `C U`
//! row has an inode number below that of `G U`; both change in the same batch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::meta::{Batch, Change};
use crate::store::index::current::Index;
use crate::store::model::error::StoreError;
use crate::store::model::version::Ino;
use crate::store::schema::keys;
use crate::store::schema::tables::{ProvisionalTable, RowTable};

/// The inode numbers that have a committed `C U` row, and the committed lower bound of `G U`.
#[derive(Debug, Default)]
pub(crate) struct ProvisionalStates {
    rows: BTreeSet<u64>,
    recorded: u64,
}

/// How a batch changes [`ProvisionalStates`]; [`ProvisionalStates::committed`] applies it.
#[derive(Debug)]
pub(crate) struct ProvisionalChange {
    /// By inode number: whether the batch adds (`true`) or deletes its row.
    changes: BTreeMap<u64, bool>,
    /// The lower bound after the batch.
    lowest: u64,
}

impl ProvisionalStates {
    /// Reads the rows and the lower bound. Called before an operation is queued: the index also shows queued rows.
    ///
    /// # Errors
    /// Errors of the meta store; `Corrupt` when `G U` cannot be decoded.
    pub(crate) async fn load(index: &Index) -> Result<Self, StoreError> {
        let recorded = index.row(&keys::lowest_provisional()).await?;
        let recorded = recorded.unwrap_or(0);
        let (from, to) = (
            keys::provisional(Ino(recorded)),
            keys::after(&ProvisionalTable::PREFIX),
        );
        let rows = index.scan(from.bytes(), to, usize::MAX).await?;
        Ok(Self {
            rows: rows
                .iter()
                .filter_map(|(key, _)| keys::trailing_ino(key))
                .map(|ino| ino.0)
                .collect(),
            recorded,
        })
    }

    /// Returns the key at which a scan over all committed `C U` rows begins.
    pub(crate) fn first(&self) -> Bytes {
        keys::provisional(Ino(self.recorded)).bytes()
    }

    /// Adds to `batch` the lower bound that its commit makes true, if that differs from the committed one. `next` is the lower
    /// bound when no row is left: every inode that is created later has that number or a higher one.
    pub(crate) fn prepare(&self, batch: &mut Batch, next: u64) -> ProvisionalChange {
        let mut changes = BTreeMap::new();
        for (key, change) in batch.rows() {
            if ProvisionalTable::has(key)
                && let Some(ino) = keys::trailing_ino(key)
            {
                changes.insert(ino.0, !matches!(change, Change::Delete));
            }
        }
        let stays = self.rows.iter().find(|ino| !changes.contains_key(*ino));
        let comes = changes.iter().find(|(_, stands)| **stands);
        let lowest = stays
            .into_iter()
            .chain(comes.map(|(ino, _)| ino))
            .copied()
            .min()
            .unwrap_or(next);
        if lowest != self.recorded {
            keys::lowest_provisional().put(batch, &lowest);
        }
        ProvisionalChange { changes, lowest }
    }

    /// Applies the change of a batch that was committed.
    pub(crate) fn committed(&mut self, settling: ProvisionalChange) {
        for (ino, stands) in settling.changes {
            if stands {
                self.rows.insert(ino);
            } else {
                self.rows.remove(&ino);
            }
        }
        self.recorded = settling.lowest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::MemoryStore;
    use crate::store::schema::merge;
    use crate::sync::Arc;

    /// Commits puts (`true`) and deletes of `C U` rows. Returns the lower bound and the number of rows that are read back.
    async fn after(
        index: &Index,
        provisional: &mut ProvisionalStates,
        changes: &[(u64, bool)],
    ) -> (u64, usize) {
        let mut batch = Batch::new();
        for (ino, stands) in changes {
            let key = keys::provisional(Ino(*ino));
            if *stands {
                key.put(&mut batch, &());
            } else {
                key.delete(&mut batch);
            }
        }
        let settling = provisional.prepare(&mut batch, 100);
        index.commit(&[], &[], batch).await.unwrap();
        provisional.committed(settling);
        let found = ProvisionalStates::load(index).await.unwrap();
        assert_eq!(found.rows, provisional.rows);
        assert_eq!(found.recorded, provisional.recorded);
        (found.recorded, found.rows.len())
    }

    #[tokio::test]
    async fn no_row_is_below_the_recorded_lower_bound() {
        let index = Index::of_writer(Arc::new(MemoryStore::new(merge::merge)))
            .await
            .unwrap();
        let mut provisional = ProvisionalStates::load(&index).await.unwrap();
        assert_eq!(provisional.first(), *keys::provisional(Ino(0)));
        let all = &mut provisional;
        assert_eq!(after(&index, all, &[(7, true), (9, true)]).await, (7, 2));
        assert_eq!(after(&index, all, &[(7, false), (8, true)]).await, (8, 2));
        assert_eq!(
            after(&index, all, &[(3, true)]).await,
            (3, 3),
            "a lower inode gets a row later"
        );
        assert_eq!(after(&index, all, &[(4, true), (4, false)]).await, (3, 3));
        let none = [(3, false), (8, false), (9, false)];
        assert_eq!(
            after(&index, all, &none).await,
            (100, 0),
            "no row is left: the next inode number"
        );
        assert_eq!(after(&index, all, &[(5, true)]).await, (5, 1));
    }
}
