//! The row `G A`: which operations the index has.

use serde::{Deserialize, Serialize};

use crate::store::model::ids::BatchId;

/// Which operations of one writer epoch the index has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochWatermark {
    pub(crate) epoch: u64,
    /// The index has every operation up to this number.
    pub(crate) upto: u64,
    /// Operations with a higher number that it has too, ascending.
    pub(crate) out_of_order: Vec<u64>,
    /// Ids from this one on were free when that writer opened the namespace; `u64::MAX` where that is not known.
    pub(crate) first_id: u64,
}

/// `G A`: which operations the index has, and the counters of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppliedRow {
    pub(crate) watermarks: Vec<EpochWatermark>,
    /// The newest batch.
    pub(crate) batch: BatchId,
    /// The newest batch of the writer before that of `batch`. It reveals a missing batch between two writers.
    pub(crate) before: BatchId,
    /// The next number for an inode, a lineage, a write session or a staging file.
    pub(crate) next_id: u64,
    /// The clock of the namespace: no timestamp at or below it is given again.
    pub(crate) clock: u64,
    /// The low watermark after this batch: the oldest timestamp that was not committed.
    pub(crate) low_watermark: u64,
    pub(crate) bytes: i64,
    pub(crate) files: i64,
}

impl AppliedRow {
    /// Returns the row without its watermarks.
    pub(crate) fn summary(&self) -> Self {
        Self {
            watermarks: Vec::new(),
            ..*self
        }
    }

    /// Makes the next batch of the writer of `epoch` the newest, and returns its number.
    pub(crate) fn next_batch(&mut self, epoch: u64) -> u64 {
        let number = match self.batch.epoch == epoch {
            true => self.batch.number + 1,
            false => {
                self.before = self.batch;
                1
            }
        };
        self.batch = BatchId { epoch, number };
        number
    }

    /// Tells whether its newest batch is the next one after that of `older`.
    pub(crate) fn follows(&self, older: &Self) -> bool {
        let BatchId { epoch, number } = self.batch;
        match epoch == older.batch.epoch {
            true => number == older.batch.number + 1,
            false => epoch > older.batch.epoch && number == 1 && self.before == older.batch,
        }
    }

    /// Tells whether the index has an operation.
    pub(crate) fn contains(&self, epoch: u64, number: u64) -> bool {
        self.watermarks
            .iter()
            .any(|m| m.epoch == epoch && (number <= m.upto || m.out_of_order.contains(&number)))
    }

    /// Tells whether the index has an operation of this epoch with a higher number.
    pub(crate) fn contains_after(&self, epoch: u64, number: u64) -> bool {
        self.watermarks.iter().any(|m| {
            m.epoch == epoch
                && (m.upto > number || m.out_of_order.iter().any(|later| *later > number))
        })
    }

    /// Adds the watermark of a writer that begins. It tells later writers that the epoch existed and which ids the writer
    /// may have used.
    pub(crate) fn begin(&mut self, epoch: u64) {
        let first_id = self.next_id.max(2);
        self.mark(epoch).first_id = first_id;
    }

    fn mark(&mut self, epoch: u64) -> &mut EpochWatermark {
        // Searched from the end: most calls are for the newest epoch, which is last.
        let at = match self.watermarks.iter().rposition(|m| m.epoch == epoch) {
            Some(at) => at,
            None => {
                self.watermarks.push(EpochWatermark {
                    epoch,
                    upto: 0,
                    out_of_order: Vec::new(),
                    first_id: u64::MAX,
                });
                self.watermarks.len() - 1
            }
        };
        &mut self.watermarks[at]
    }

    /// Records that the index has an operation, and raises the watermark over numbers without a gap.
    pub(crate) fn add(&mut self, epoch: u64, number: u64) {
        let mark = self.mark(epoch);
        mark.out_of_order.push(number);
        mark.out_of_order.sort_unstable();
        while mark
            .out_of_order
            .first()
            .is_some_and(|n| *n <= mark.upto + 1)
        {
            mark.upto = mark.upto.max(mark.out_of_order.remove(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_rises_when_the_missing_number_is_added() {
        let mut applied = AppliedRow::default();
        for n in [1, 3, 4, 2, 7] {
            applied.add(5, n);
        }
        assert_eq!(
            applied.watermarks,
            [EpochWatermark {
                epoch: 5,
                upto: 4,
                out_of_order: vec![7],
                first_id: u64::MAX
            }]
        );
        assert!(applied.contains(5, 3) && applied.contains(5, 7) && !applied.contains(5, 6));
        assert!(!applied.contains(4, 1));
    }
}
