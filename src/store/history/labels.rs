//! Changes of labels: make, rename, remove, hold.
//!
//! The path of a label: its timestamp is given (`FormingLabels`); flushed states up to it become versions; every operation up to it is
//! waited for until the bucket has it; then one operation writes the label's rows, and is waited for too. A crash before that
//! operation leaves no label; after it the label is there, and everything it shows was in the bucket before.
//!
//! Invariants: a label's timestamp is final when its rows are queued. A label and the rows that lead to it (`G T`, `G Y`) change in one
//! operation, under the lock of its directory.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::store::commit::operation::Operation;
use crate::store::commit::txn::Txn;
use crate::store::history::History;
use crate::store::history::label_reads::Label;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Author, Ino, Timestamp};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::label_keys::{self, LabelSlot};
use crate::store::schema::label_rows::LabelRow;
use crate::store::schema::retention_keys;
use crate::store::schema::rows::LabelPin;
use crate::store::tree::create::NAME_MAX;
use crate::store::tree::locked::{LockedInode, find};
use crate::sync::Arc;

/// How long a label waits for calls that are being answered before it looks for newly flushed states again.
const ANSWERS_WAIT: Duration = Duration::from_millis(50);

/// Checks the name of a label: up to 255 bytes that begin with a letter or `_`, without `/` and NUL. Other first characters belong to
/// times and to the names of `.versions`.
///
/// # Errors
/// `Invalid`, with what a name must be.
pub fn check_label_name(name: &[u8]) -> Result<(), StoreError> {
    let text = name.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let first = text.chars().next();
    let is_label = first.is_some_and(|first| first.is_alphabetic() || first == '_');
    match is_label && name.len() <= NAME_MAX && !name.iter().any(|byte| b"/\0".contains(byte)) {
        true => Ok(()),
        false => Err(StoreError::Invalid(format!(
            "label {:?}: a label begins with a letter or _ and has up to {NAME_MAX} bytes",
            String::from_utf8_lossy(name)
        ))),
    }
}

impl History {
    /// Makes a label of a live directory over its present state, and waits until the bucket has the label and what it shows. Files
    /// that are being written show their last version.
    ///
    /// # Errors
    /// `Invalid` for a name that is none and an expiry in the past; `Exists`, `NotFound`, `NotDirectory`; `ReadOnly` on a follower;
    /// `Unavailable`, `Fenced`. After `Unavailable` the label may have been made.
    pub async fn create_label(
        &self,
        directory: Ino,
        name: &[u8],
        expires: Option<Timestamp>,
        author: &Author,
    ) -> Result<Label, StoreError> {
        check_label_name(name)?;
        self.core.health.check()?;
        if expires.is_some_and(|expires| expires <= self.core.now()) {
            return Err(in_the_past("expiry"));
        }
        self.check_free(directory, name).await?;
        let slot = LabelSlot {
            directory,
            name: Bytes::copy_from_slice(name),
        };
        let forming = self.forming_labels.begin(&self.core.clock, slot.clone());
        self.make_final(forming.timestamp()).await?;
        let row = LabelRow {
            timestamp: forming.timestamp(),
            made: forming.timestamp(),
            author: author.clone(),
            host: self.core.config.host.clone(),
            expires,
            hold: None,
        };
        let (label, operation) = self.enqueue_new(slot, row).await?;
        drop(forming);
        self.commit.wait_durable(&operation).await?;
        Ok(label)
    }

    /// Renames a label of a directory. What it shows stays.
    ///
    /// # Errors
    /// `Invalid` for a name that is none; `NotFound`, `Exists`; those of a change.
    pub async fn rename_label(
        &self,
        directory: Ino,
        from: &[u8],
        to: &[u8],
    ) -> Result<(), StoreError> {
        check_label_name(to)?;
        let owner = self.owner_of(directory, from).await?;
        let _locked = self.tree.inodes.lock_all(&[owner]).await;
        let old = self.label_row(owner, from).await?;
        self.check_free(directory, to).await?;
        let answer = self.core.clock.begin();
        let mut txn = self.label_txn(answer.at(), owner, from);
        txn.touch(label_keys::label(owner, to));
        delete_rows(&mut txn, owner, from, &old);
        put_rows(&mut txn, owner, to, &old);
        self.commit.enqueue(txn)?;
        Ok(())
    }

    /// Removes a label of a directory. What only it kept is due from then on.
    ///
    /// # Errors
    /// `NotFound`; `Held` while it is held; those of a change.
    pub async fn remove_label(&self, directory: Ino, name: &[u8]) -> Result<(), StoreError> {
        let owner = self.owner_of(directory, name).await?;
        let _locked = self.tree.inodes.lock_all(&[owner]).await;
        let row = self.label_row(owner, name).await?;
        if let Some(hold) = row.hold.filter(|hold| *hold > self.core.now()) {
            return Err(held_until(&format!("label {}", shown(name)), hold));
        }
        let answer = self.core.clock.begin();
        let mut txn = self.label_txn(answer.at(), owner, name);
        delete_rows(&mut txn, owner, name, &row);
        self.commit.enqueue(txn)?;
        // A run that knows the label would file versions under it once more.
        self.core.protection_changes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Holds a label of a directory: it cannot be removed until `until`.
    ///
    /// # Errors
    /// `Invalid` for a time in the past; `Held` if it is held longer already; `NotFound`; those of a change.
    pub async fn hold_label(
        &self,
        directory: Ino,
        name: &[u8],
        until: Timestamp,
    ) -> Result<(), StoreError> {
        if until <= self.core.now() {
            return Err(in_the_past("hold"));
        }
        let owner = self.owner_of(directory, name).await?;
        let _locked = self.tree.inodes.lock_all(&[owner]).await;
        let row = self.label_row(owner, name).await?;
        match row.hold {
            Some(hold) if hold > until => Err(held_until(&format!("label {}", shown(name)), hold)),
            hold => self.set_hold(owner, name, &LabelRow { hold, ..row }, Some(until)),
        }
    }

    /// Ends the hold of a label of a directory.
    ///
    /// # Errors
    /// `Invalid` if it is not held; `NotFound`; those of a change.
    pub async fn release_label(&self, directory: Ino, name: &[u8]) -> Result<(), StoreError> {
        let owner = self.owner_of(directory, name).await?;
        let _locked = self.tree.inodes.lock_all(&[owner]).await;
        let row = self.label_row(owner, name).await?;
        match row.hold {
            None => Err(StoreError::Invalid(format!(
                "label {} is not held",
                shown(name)
            ))),
            Some(_) => self.set_hold(owner, name, &row, None),
        }
    }
}

impl History {
    /// Waits until the state at `at` is final and in the bucket. Flushed states up to `at` become versions.
    async fn make_final(&self, at: Timestamp) -> Result<(), StoreError> {
        loop {
            self.tree.save_flushed(at).await?;
            // A flush that was being answered has its state only now.
            let released = self.core.clock.wait_released(at);
            if tokio::time::timeout(ANSWERS_WAIT, released).await.is_ok() {
                break;
            }
            self.core.health.check()?;
        }
        let mut shown = self.commit.queue.all();
        shown.retain(|operation| operation.timestamp <= at);
        self.commit.wait_all_durable(&shown).await
    }

    async fn enqueue_new(
        &self,
        slot: LabelSlot,
        row: LabelRow,
    ) -> Result<(Label, Arc<Operation>), StoreError> {
        let LabelSlot { directory, name } = &slot;
        let mut locked = self.tree.lock_all(&[*directory]).await?;
        find(&mut locked, *directory)
            .and_then(LockedInode::directory)
            .ok_or(StoreError::NotDirectory)?;
        self.check_free(*directory, name).await?;
        let answer = self.core.clock.begin();
        let row = LabelRow {
            made: answer.at(),
            ..row
        };
        let mut txn = self.label_txn(answer.at(), *directory, name);
        put_rows(&mut txn, *directory, name, &row);
        let operation = self.commit.enqueue(txn)?;
        Ok((Label::of(slot, row), operation))
    }

    fn set_hold(
        &self,
        directory: Ino,
        name: &[u8],
        row: &LabelRow,
        hold: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let answer = self.core.clock.begin();
        let mut txn = self.label_txn(answer.at(), directory, name);
        delete_rows(&mut txn, directory, name, row);
        let row = LabelRow {
            hold,
            ..row.clone()
        };
        put_rows(&mut txn, directory, name, &row);
        self.commit.enqueue(txn)?;
        Ok(())
    }

    /// Returns the directory whose own label `name` is that a directory shows.
    async fn owner_of(&self, directory: Ino, name: &[u8]) -> Result<Ino, StoreError> {
        self.core.health.check()?;
        let label = self.view().label(directory, name).await?;
        Ok(label.ok_or(StoreError::NotFound)?.directory)
    }

    async fn check_free(&self, directory: Ino, name: &[u8]) -> Result<(), StoreError> {
        match self.view().label(directory, name).await? {
            Some(_) => Err(StoreError::Exists),
            None => Ok(()),
        }
    }

    pub(super) async fn label_row(
        &self,
        directory: Ino,
        name: &[u8],
    ) -> Result<LabelRow, StoreError> {
        let key = label_keys::label(directory, name);
        self.core.index.row(&key).await?.ok_or(StoreError::NotFound)
    }

    pub(super) fn label_txn(&self, at: Timestamp, directory: Ino, name: &[u8]) -> Txn {
        let dependencies = Dependencies {
            touches: vec![
                keys::inode(directory).bytes(),
                label_keys::label(directory, name).bytes(),
            ],
            ..Dependencies::default()
        };
        self.commit.txn(at, dependencies)
    }
}

pub(super) fn put_rows(txn: &mut Txn, directory: Ino, name: &[u8], row: &LabelRow) {
    let key = label_keys::label(directory, name);
    txn.put(label_keys::label_time(row.timestamp, directory, name), &());
    if let Some(at) = row.lapses() {
        txn.put(label_keys::lapse(at, &key), &());
    }
    let place = LabelPin {
        timestamp: row.timestamp,
        directory,
    };
    txn.delete(retention_keys::removed_label(place));
    txn.put(key, row);
}

pub(super) fn delete_rows(txn: &mut Txn, directory: Ino, name: &[u8], row: &LabelRow) {
    let key = label_keys::label(directory, name);
    txn.delete(label_keys::label_time(row.timestamp, directory, name));
    if let Some(at) = row.lapses() {
        txn.delete(label_keys::lapse(at, &key));
    }
    txn.delete(key);
    let place = LabelPin {
        timestamp: row.timestamp,
        directory,
    };
    // Retention decides anew about the versions that the label kept.
    let at = txn.timestamp;
    txn.put(retention_keys::removed_label(place), &at);
}

/// Returns the error for a removal that a hold forbids.
pub(super) fn held_until(what: &str, until: Timestamp) -> StoreError {
    // 64 bits of nanoseconds end in the year 2554, well inside the range of dates.
    let until = jiff::Timestamp::from_nanosecond(i128::from(until.0)).unwrap_or_default();
    StoreError::Held(format!(
        "{what} is held until {until}; a hold can be lengthened and not shortened"
    ))
}

pub(super) fn in_the_past(what: &str) -> StoreError {
    StoreError::Invalid(format!("the {what} must end in the future"))
}

pub(super) fn shown(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_begins_with_a_letter_or_an_underscore() {
        for name in [
            &b"a"[..],
            b"_",
            "\u{e9}t\u{e9}".as_bytes(),
            b"before upgrade",
            b"v\xff",
            &[b'x'; 255],
        ] {
            assert!(check_label_name(name).is_ok(), "{name:?}");
        }
        for name in [
            &b""[..],
            b"2026",
            b"-1h",
            b"@log",
            b".x",
            b" x",
            b"\xffx",
            b"a/b",
            b"a\0",
            &[b'x'; 256],
        ] {
            let error = check_label_name(name).unwrap_err();
            assert!(matches!(error, StoreError::Invalid(_)), "{name:?}");
        }
    }
}
