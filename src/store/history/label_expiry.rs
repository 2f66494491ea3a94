//! Removal of expired labels and of holds that have ended, the oldest first.

use std::collections::HashSet;

use bytes::Bytes;

use crate::store::history::History;
use crate::store::history::labels::delete_rows;
use crate::store::model::error::StoreError;
use crate::store::model::version::Timestamp;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::label_keys::{self, LabelSlot};
use crate::store::schema::label_rows::HoldRow;
use crate::store::schema::tables::{HoldTable, LapseTable, RowKey};

/// What a step of the removal did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LapsedStep {
    /// Labels that were removed.
    pub labels: u64,
    /// Holds on versions that were removed.
    pub holds: u64,
    /// How many of the rows that are due were looked at; fewer than the step's limit: there are no more.
    pub looked_at: usize,
}

impl History {
    /// Removes labels that have expired at `now`, unless they are held, and holds on versions that have ended: the oldest first, at most
    /// `max`. Each is an operation of its own; a crash between two leaves the rest for the next call.
    ///
    /// # Errors
    /// Errors of the index, and those of a change; what was removed before stays removed.
    pub async fn remove_lapsed(
        &self,
        now: Timestamp,
        max: usize,
    ) -> Result<LapsedStep, StoreError> {
        let from = label_keys::lapse(Timestamp(0), b"").bytes();
        let end = label_keys::lapsed_end(now);
        let mut step = LapsedStep::default();
        for (due, _) in self.core.index.scan(from, end, max).await? {
            step.looked_at += 1;
            let Some(row) = label_keys::lapsing_row(&due) else {
                continue;
            };
            if let Some(slot) = label_keys::label_slot(&row) {
                step.labels += self.remove_expired(&slot, now).await?;
            } else if label_keys::held_version(&row).is_some() {
                step.holds += self.remove_ended_hold(&due, row).await?;
            }
        }
        Ok(step)
    }

    /// Returns the labels that have expired at `now`, unless they are held, and are not removed yet.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn expired_labels(
        &self,
        now: Timestamp,
    ) -> Result<HashSet<LabelSlot>, StoreError> {
        let from = label_keys::lapse(Timestamp(0), b"").bytes();
        let due = self
            .core
            .index
            .scan(from, label_keys::lapsed_end(now), usize::MAX);
        let rows = due.await?;
        let rows = rows
            .iter()
            .filter_map(|(due, _)| label_keys::lapsing_row(due));
        Ok(rows
            .filter_map(|row| label_keys::label_slot(&row))
            .collect())
    }

    /// Removes a label if it has expired; returns how many were removed.
    async fn remove_expired(&self, slot: &LabelSlot, now: Timestamp) -> Result<u64, StoreError> {
        let LabelSlot { directory, name } = slot;
        let _locked = self.tree.inodes.lock_all(&[*directory]).await;
        let row = match self.label_row(*directory, name).await {
            Ok(row) if row.lapses().is_some_and(|at| at <= now) => row,
            // A user has changed it since the scan.
            Ok(_) | Err(StoreError::NotFound) => return Ok(0),
            Err(error) => return Err(error),
        };
        let answer = self.core.clock.begin();
        let mut txn = self.label_txn(answer.at(), *directory, name);
        delete_rows(&mut txn, *directory, name, &row);
        self.commit.enqueue(txn)?;
        Ok(1)
    }

    /// Removes a hold whose row in the order of lapses is `due`; returns how many were removed.
    async fn remove_ended_hold(&self, due: &Bytes, hold: Bytes) -> Result<u64, StoreError> {
        let Some((ino, _)) = label_keys::held_version(&hold) else {
            return Ok(0);
        };
        let _locked = self.tree.inodes.lock_all(&[ino]).await;
        let key = RowKey::<HoldTable>::scanned(hold)?;
        let row: Option<HoldRow> = self.core.index.row(&key).await?;
        let Some(row) = row else { return Ok(0) };
        let lapse = label_keys::lapse(row.until, &key).bytes();
        if lapse != *due {
            return Ok(0);
        }
        let dependencies = Dependencies {
            touches: vec![keys::inode(ino).bytes()],
            ..Dependencies::default()
        };
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(answer.at(), dependencies);
        txn.delete(RowKey::<LapseTable>::scanned(lapse)?);
        txn.delete(key);
        self.commit.enqueue(txn)?;
        Ok(1)
    }
}
