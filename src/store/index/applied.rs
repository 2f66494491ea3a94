//! Watermarks of earlier writers, in a row of their own: every batch rewrites the row `G A`, so watermarks that no longer
//! change are archived in the row `G W`.
//!
//! The applied watermarks are those of both rows. An archived watermark that changes again, because an operation of that
//! writer's epoch is committed later, is written to `G A` as well; for an epoch that is in both rows, `G A` holds.

use crate::meta::Batch;
use crate::store::index::current::Index;
use crate::store::model::error::StoreError;
use crate::store::schema::applied_row::{AppliedRow, EpochWatermark};
use crate::store::schema::keys;

/// Maximum number of watermarks in `G A`. When there would be more, all but those of the newest epochs are archived in `G W`.
const MARKS_MAX: usize = 32;
/// Number of newest epochs whose watermarks stay in `G A` then.
const NEWEST: usize = 8;

/// The watermarks in `G W`, ascending by epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ArchivedWatermarks(Vec<EpochWatermark>);

impl ArchivedWatermarks {
    /// Reads the `G A` row, with the archived watermarks added to it, and the archived watermarks alone.
    ///
    /// # Errors
    /// Errors of the meta store; `Corrupt` when a row cannot be decoded.
    pub(crate) async fn load(index: &Index) -> Result<(AppliedRow, Self), StoreError> {
        let row: Option<AppliedRow> = index.row(&keys::applied()).await?;
        let mut applied = row.unwrap_or_default();
        let row: Option<Vec<EpochWatermark>> = index.row(&keys::archived_watermarks()).await?;
        let old = Self(row.unwrap_or_default());
        old.join(&mut applied);
        Ok((applied, old))
    }

    /// Adds to `applied` the archived watermarks of those epochs that it has no watermark of.
    fn join(&self, applied: &mut AppliedRow) {
        let newer = std::mem::take(&mut applied.watermarks);
        let is_old = |mark: &&EpochWatermark| newer.iter().all(|n| n.epoch != mark.epoch);
        applied.watermarks = self.0.iter().filter(is_old).cloned().collect();
        applied.watermarks.extend(newer);
    }

    /// Adds to `batch` the row `G A` for `applied`, and the row `G W` if watermarks are archived. Returns the archived
    /// watermarks as they are once the batch is committed; `None` if they do not change.
    pub(crate) fn put(&self, applied: &AppliedRow, batch: &mut Batch) -> Option<Self> {
        let rest = |old: &Self| AppliedRow {
            watermarks: old.without(&applied.watermarks),
            ..*applied
        };
        let mut row = rest(self);
        let mut moved = None;
        if row.watermarks.len() > MARKS_MAX {
            let mut all = applied.watermarks.clone();
            all.sort_unstable_by_key(|mark| mark.epoch);
            all.truncate(all.len() - NEWEST);
            let old = Self(all);
            keys::archived_watermarks().put(batch, &old.0);
            row = rest(&old);
            moved = Some(old);
        }
        keys::applied().put(batch, &row);
        moved
    }

    /// Returns the watermarks that differ from their archived copy or have none.
    fn without(&self, watermarks: &[EpochWatermark]) -> Vec<EpochWatermark> {
        let is_here = |mark: &&EpochWatermark| {
            let at = self.0.binary_search_by_key(&mark.epoch, |old| old.epoch);
            at.is_ok_and(|at| self.0[at] == **mark)
        };
        watermarks
            .iter()
            .filter(|mark| !is_here(mark))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{MemoryStore, MetaRead, MetaStore};
    use crate::store::schema::merge::merge;
    use crate::store::schema::tables::{AppliedTable, ArchivedWatermarkTable, RowTable};

    async fn cached(index: &MemoryStore) -> (AppliedRow, ArchivedWatermarks, usize) {
        let row = index.get(&keys::applied()).await.unwrap();
        let mut applied = row.map_or_else(AppliedRow::default, |row| {
            AppliedTable::decode(&row).unwrap()
        });
        let own = applied.watermarks.len();
        let row = index.get(&keys::archived_watermarks()).await.unwrap();
        let old = ArchivedWatermarks(row.map_or_else(Vec::new, |row| {
            ArchivedWatermarkTable::decode(&row).unwrap()
        }));
        old.join(&mut applied);
        (applied, old, own)
    }

    #[tokio::test]
    async fn every_watermark_is_read_back_and_few_are_in_each_batch() {
        let index = MemoryStore::new(merge);
        let mut moved = 0;
        for epoch in 1..=200 {
            let (mut applied, mut old, own) = cached(&index).await;
            assert!(own <= MARKS_MAX, "{own}");
            assert_eq!(applied.watermarks.len() as u64, epoch - 1);
            applied.begin(epoch);
            // Every seventh writer also commits an operation of an earlier epoch.
            let late = (epoch % 7 == 0).then_some(epoch / 2);
            for (epoch, number) in [(epoch, 1), (epoch, 2)]
                .into_iter()
                .chain(late.map(|e| (e, 3)))
            {
                applied.add(epoch, number);
                let mut batch = Batch::new();
                if let Some(next) = old.put(&applied, &mut batch) {
                    old = next;
                    moved += 1;
                }
                let _commit = index.commit(batch).await.unwrap();
            }
            assert_eq!(cached(&index).await.1, old);
        }
        let (applied, ..) = cached(&index).await;
        for epoch in 1..=200 {
            assert!(applied.contains(epoch, 2), "{epoch}");
            let has_late = (7..=200).step_by(7).any(|later| later / 2 == epoch);
            assert_eq!(applied.contains(epoch, 3), has_late, "{epoch}");
        }
        assert!((5..20).contains(&moved), "{moved}");
    }
}
