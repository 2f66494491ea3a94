//! Reads of labels: those of a directory, and those that show a version.
//!
//! Labels belong to a directory's number, so they follow its renames and outlive its removal. A directory shows also the labels of
//! directories that were removed from its path: a tree that is removed and made anew does not hide them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use bytes::Bytes;

use crate::store::history::History;
use crate::store::history::view::PastView;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Author, Ino, ROOT, Timestamp};
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::label_keys::{self, LabelPoint, LabelSlot};
use crate::store::schema::label_rows::LabelRow;
use crate::store::schema::rows::LabelPin;
use crate::store::schema::tables::{LabelTable, RowTable};

/// The most directories above a directory that are looked at.
const DEPTH_MAX: usize = 4096;
/// How many locations a walk remembers, at most.
const REMEMBERED_MAX: usize = 65_536;

/// A named snapshot of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The directory.
    pub directory: Ino,
    /// Its name.
    pub name: Bytes,
    /// The timestamp as of which it shows the directory; final, and in the bucket.
    pub timestamp: Timestamp,
    /// When it was made.
    pub made: Timestamp,
    /// Who made it.
    pub author: Author,
    /// The host that it was made on.
    pub host: String,
    /// When it is removed, unless a hold is longer.
    pub expires: Option<Timestamp>,
    /// Until when it cannot be removed.
    pub hold: Option<Timestamp>,
}

impl Label {
    pub(super) fn of(slot: LabelSlot, row: LabelRow) -> Self {
        Self {
            directory: slot.directory,
            name: slot.name,
            timestamp: row.timestamp,
            made: row.made,
            author: row.author,
            host: row.host,
            expires: row.expires,
            hold: row.hold,
        }
    }
}

/// What is filed under a label: versions that it keeps beyond the rules of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelKeeps {
    /// Their number.
    pub versions: u64,
    /// Their bytes without holes; bytes that other versions show too count for each.
    pub bytes: u64,
}

/// A directory as of a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectoryThen {
    pub(crate) directory: Ino,
    pub(crate) at: Timestamp,
}

/// Where directories were, as far as a walk from names up to a label has read it. For one run only: what a retention run deletes
/// may be in it.
#[derive(Debug, Default)]
pub(crate) struct LocationMemo {
    parents: HashMap<(Ino, Timestamp), Option<Ino>>,
}

impl PastView {
    /// Returns the label `name` of a directory, or of one that was removed from the same path.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn label(&self, directory: Ino, name: &[u8]) -> Result<Option<Label>, StoreError> {
        if let Some(label) = self.own_label(directory, name).await? {
            return Ok(Some(label));
        }
        for former in self.former_directories(directory).await? {
            if let Some(label) = self.own_label(former, name).await? {
                return Ok(Some(label));
            }
        }
        Ok(None)
    }

    /// Returns the labels that [`Self::label`] finds, in ascending order of names.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn labels(&self, directory: Ino) -> Result<Vec<Label>, StoreError> {
        let mut found = BTreeMap::new();
        let former = self.former_directories(directory).await?;
        for directory in [directory].into_iter().chain(former) {
            let from = label_keys::labels(directory);
            let rows = self.rows.scan(from.clone(), keys::after(&from), usize::MAX);
            for (key, value) in rows.await? {
                let row = LabelTable::decode(&value)?;
                if let Some(slot) = label_keys::label_slot(&key) {
                    let name = slot.name.clone();
                    found.entry(name).or_insert_with(|| Label::of(slot, row));
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Returns all labels of the namespace, those of a directory in ascending order of names.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn all_labels(&self) -> Result<Vec<Label>, StoreError> {
        let (from, end) = (LabelTable::all(), keys::after(&LabelTable::all()));
        let mut labels = Vec::new();
        for (key, value) in self.rows.scan(from, end, usize::MAX).await? {
            let row = LabelTable::decode(&value)?;
            labels.extend(label_keys::label_slot(&key).map(|slot| Label::of(slot, row)));
        }
        Ok(labels)
    }

    /// Returns what a label keeps that the rules of time do not, as of the last run of retention. Reads two rows.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn label_keeps(&self, label: &Label) -> Result<LabelKeeps, StoreError> {
        let pin = LabelPin {
            timestamp: label.timestamp,
            directory: label.directory,
        };
        let versions = self.rows.row(&amounts::labeled_versions(pin)).await?;
        let bytes = self.rows.row(&amounts::labeled_bytes(pin)).await?;
        let amount = |row: Option<i64>| row.map_or(0, |sum| u64::try_from(sum).unwrap_or(0));
        Ok(LabelKeeps {
            versions: amount(versions),
            bytes: amount(bytes),
        })
    }

    /// Tells whether a directory has labels of its own, also after its removal: they are reached through what is kept of its name.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn has_labels(&self, directory: Ino) -> Result<bool, StoreError> {
        let from = label_keys::labels(directory);
        let first = self.rows.first(from.clone(), keys::after(&from)).await?;
        Ok(first.is_some())
    }

    /// Returns the label `name` of a directory itself.
    pub(super) async fn own_label(
        &self,
        directory: Ino,
        name: &[u8],
    ) -> Result<Option<Label>, StoreError> {
        let row = self.rows.row(&label_keys::label(directory, name)).await?;
        let slot = LabelSlot {
            directory,
            name: Bytes::copy_from_slice(name),
        };
        Ok(row.map(|row| Label::of(slot, row)))
    }

    /// Returns the directories that were removed from the path that a directory has or had, the newest first.
    async fn former_directories(&self, directory: Ino) -> Result<Vec<Ino>, StoreError> {
        let (mut names, mut at) = (Vec::new(), directory);
        while at != ROOT && names.len() < DEPTH_MAX {
            let Some(place) = self.where_now(at).await? else {
                return Ok(Vec::new());
            };
            names.push(place.name);
            at = place.parent;
        }
        let mut there = BTreeSet::from([ROOT]);
        while let Some(name) = names.pop() {
            let mut below = BTreeSet::new();
            for above in there {
                below.extend(self.directories_under(above, &name).await?);
            }
            there = below;
        }
        there.remove(&directory);
        Ok(there.into_iter().rev().collect())
    }

    /// Tells whether a label shows the names of a directory: the directory is the label's or was below it then.
    pub(crate) async fn label_shows(
        &self,
        label: &LabelPoint,
        directory: Ino,
        memo: &mut LocationMemo,
    ) -> Result<bool, StoreError> {
        let above = DirectoryThen {
            directory: label.slot.directory,
            at: label.timestamp,
        };
        self.is_below(directory, above, memo).await
    }

    /// Tells whether a directory was another one at a time, or below it.
    pub(crate) async fn is_below(
        &self,
        directory: Ino,
        above: DirectoryThen,
        memo: &mut LocationMemo,
    ) -> Result<bool, StoreError> {
        let mut at = directory;
        for _ in 0..DEPTH_MAX {
            if at == above.directory {
                return Ok(true);
            }
            match self.parent_at(at, above.at, memo).await? {
                Some(above) => at = above,
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Returns the directory that a directory was in at a timestamp; `None` for the root directory, and if it did not exist then.
    async fn parent_at(
        &self,
        directory: Ino,
        at: Timestamp,
        memo: &mut LocationMemo,
    ) -> Result<Option<Ino>, StoreError> {
        if directory == ROOT {
            return Ok(None);
        }
        if let Some(known) = memo.parents.get(&(directory, at)) {
            return Ok(*known);
        }
        let place = self.place_at(directory, at).await?;
        let parent = place.map(|place| place.parent);
        if memo.parents.len() >= REMEMBERED_MAX {
            memo.parents.clear();
        }
        memo.parents.insert((directory, at), parent);
        Ok(parent)
    }
}

impl History {
    /// Returns the labels that show a timestamp of `span`, in ascending order, at most about `max`; also those that are being made, and the time that a
    /// restore in steps goes back to.
    ///
    /// # Errors
    /// Errors of the index.
    pub(crate) async fn labels_between(
        &self,
        span: Range<Timestamp>,
        max: usize,
    ) -> Result<Vec<LabelPoint>, StoreError> {
        // Read first: a label that is made meanwhile is in the rows.
        let forming = self.forming_labels.within(&span);
        let restored = self.restore_lock.pinned_within(&span);
        let from = label_keys::label_times(span.start);
        let end = label_keys::label_times(span.end);
        let rows = self.core.index.scan(from, end, max).await?;
        let made = rows
            .iter()
            .filter_map(|(key, _)| label_keys::timed_label(key));
        let mut points: Vec<LabelPoint> = made.chain(forming).chain(restored).collect();
        points.sort_unstable();
        points.dedup();
        Ok(points)
    }
}
