//! Reviews: versions that are kept because of a name or a label, after that has changed.
//!
//! Invariant: what lists versions for review is deleted only after every one of them has a durable verdict, so that a crash lists them
//! again.

use bytes::Bytes;

use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::retention::run::{Decision, PAGE, Run};
use crate::store::retention::{Retention, Settled};
use crate::store::schema::amounts;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::rows::LabelPin;
use crate::store::schema::tables::{RemovedLabelTable, ReviewTable, RowKey, RowTable};

/// A name, or a removed label, whose versions a run has decided about.
struct Reviewed<T> {
    key: RowKey<T>,
    /// What the row had when it was read.
    listed: Timestamp,
    /// The inode under whose lock the row is written.
    lock: Ino,
}

impl Retention {
    /// Reviews the versions of every name that is listed for it.
    ///
    /// # Errors
    /// Errors of the index, and those of the verdicts.
    pub(super) async fn take_reviews(&self, run: &mut Run<'_>) -> Result<(), StoreError> {
        let mut from = ReviewTable::all();
        let end = keys::after(&from);
        loop {
            let rows = self.core.index.snapshot();
            let page = rows.scan(from, end.clone(), PAGE).await?;
            let mut decided = Vec::new();
            for (key, value) in &page {
                let Some(name) = retention_keys::reviewed(key) else {
                    continue;
                };
                if self.take_kept(run, &kept_by_name(&name)).await? == Decision::Made {
                    decided.push(Reviewed {
                        key: retention_keys::review(&name),
                        listed: ReviewTable::decode(value)?,
                        lock: name.parent,
                    });
                }
            }
            self.end_reviews(decided).await?;
            match page.last().filter(|_| page.len() == PAGE) {
                Some((key, _)) => from = [&key[..], &[0]].concat().into(),
                None => return Ok(()),
            }
        }
    }

    /// Reviews the versions that removed labels kept.
    ///
    /// # Errors
    /// Errors of the index, and those of the verdicts.
    pub(super) async fn take_removed_labels(&self, run: &mut Run<'_>) -> Result<(), StoreError> {
        let (from, end) = (
            RemovedLabelTable::all(),
            keys::after(&RemovedLabelTable::all()),
        );
        let rows = self.core.index.snapshot();
        for (key, value) in rows.scan(from, end, usize::MAX).await? {
            let Some(label) = retention_keys::label_place(&key) else {
                continue;
            };
            let records = kept_by_label(label);
            if self.take_kept(run, &records).await? == Decision::Made {
                let decided = Reviewed {
                    key: retention_keys::removed_label(label),
                    listed: RemovedLabelTable::decode(&value)?,
                    lock: label.directory,
                };
                self.end_reviews(vec![decided]).await?;
                self.end_amounts(label).await?;
            }
        }
        Ok(())
    }

    /// Deletes the amounts of a removed label under which no version is filed any more. A label that a restore in steps went back to may
    /// still be there.
    async fn end_amounts(&self, label: LabelPin) -> Result<(), StoreError> {
        // What was filed elsewhere is subtracted by operations that this one does not wait for otherwise.
        if self.settle().await? == Settled::Late {
            return Ok(());
        }
        let from = retention_keys::labeled_by(label);
        let amount = amounts::labeled_versions(label);
        let rows = self.core.index.snapshot();
        let filed = rows.first(from.clone(), keys::after(&from)).await?;
        if filed.is_some() || rows.row(&amount).await?.is_none() {
            return Ok(());
        }
        let dependencies = Dependencies {
            touches: vec![amount.clone().bytes()],
            ..Dependencies::default()
        };
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(answer.at(), dependencies);
        txn.delete(amount);
        txn.delete(amounts::labeled_bytes(label));
        self.commit.enqueue(txn)?;
        Ok(())
    }

    /// Takes all versions that are filed under a name or a label.
    async fn take_kept(
        &self,
        run: &mut Run<'_>,
        records: &KeptRecords,
    ) -> Result<Decision, StoreError> {
        let mut from = records.prefix.clone();
        let end = keys::after(&from);
        let rows = self.core.index.snapshot();
        let mut decision = Decision::Made;
        loop {
            let page = rows.scan(from, end.clone(), PAGE).await?;
            for (key, _) in &page {
                let Some(record) = records.record_in(key) else {
                    continue;
                };
                if self.take(run, &record).await? == Decision::Open {
                    decision = Decision::Open;
                }
            }
            match page.last().filter(|_| page.len() == PAGE) {
                Some((key, _)) => from = [&key[..], &[0]].concat().into(),
                None => return Ok(decision),
            }
            if self.settle().await? == Settled::Late {
                decision = Decision::Open;
            }
        }
    }

    /// Deletes the rows that listed something for review, once all verdicts are durable; else they stay for the next run.
    async fn end_reviews<T: RowTable<Value = Timestamp>>(
        &self,
        decided: Vec<Reviewed<T>>,
    ) -> Result<(), StoreError> {
        if self.settle().await? == Settled::Late {
            return Ok(());
        }
        for reviewed in decided {
            self.end_review(reviewed).await?;
        }
        Ok(())
    }

    /// Deletes the row that listed something for review, under the lock of the operations that write it: a row that was written
    /// meanwhile stays.
    async fn end_review<T: RowTable<Value = Timestamp>>(
        &self,
        reviewed: Reviewed<T>,
    ) -> Result<(), StoreError> {
        let Reviewed { key, listed, lock } = reviewed;
        let _locked = self.tree.inodes.lock_all(&[lock]).await;
        if self.core.index.row(&key).await? != Some(listed) {
            return Ok(());
        }
        let dependencies = Dependencies {
            touches: vec![key.clone().bytes()],
            ..Dependencies::default()
        };
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(answer.at(), dependencies);
        txn.delete(key);
        self.commit.enqueue(txn)?;
        Ok(())
    }
}

/// The rows under which versions are filed that are kept for one reason.
pub(super) struct KeptRecords {
    pub(super) prefix: Bytes,
    /// Returns the key of the version record in the key of such a row; the number is the prefix's length.
    record: fn(usize, &Bytes) -> Option<Bytes>,
}

impl KeptRecords {
    /// Returns the key of the version record in the key of one of the rows.
    pub(super) fn record_in(&self, key: &Bytes) -> Option<Bytes> {
        (self.record)(self.prefix.len(), key)
    }
}

/// The rows of what is kept because of a name.
pub(super) fn kept_by_name(name: &Dentry) -> KeptRecords {
    KeptRecords {
        prefix: retention_keys::kept_of(name),
        record: |prefix, key| (key.len() > prefix).then(|| key.slice(prefix..)),
    }
}

/// The rows of what a label keeps.
pub(super) fn kept_by_label(label: LabelPin) -> KeptRecords {
    KeptRecords {
        prefix: retention_keys::labeled_by(label),
        record: |_, key| retention_keys::labeled_record(key),
    }
}
