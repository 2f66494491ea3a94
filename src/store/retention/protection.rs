//! What users protect from retention: labels, and holds on versions.
//!
//! Both are read once for a run: a label that is made later shows a time after everything that is due; a hold that is set later, and a
//! label that is removed, are noticed before the next verdict.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::store::history::label_reads::{DirectoryThen, LocationMemo};
use crate::store::history::view::PastView;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Ino, Timestamp, VersionId};
use crate::store::retention::Retention;
use crate::store::retention::shown::ShownVersion;
use crate::store::schema::keys;
use crate::store::schema::label_keys::{self, LabelPoint};
use crate::store::schema::rows::{LabelPin, VersionRecord};
use crate::store::schema::tables::{HoldTable, RowTable};

/// A held version.
#[derive(Clone, Copy, Debug)]
struct Held {
    until: Timestamp,
    /// The directory of the name under which it was held.
    directory: Ino,
}

/// The labels and holds of a namespace.
#[derive(Debug)]
pub(crate) struct Protection {
    /// In ascending order of their timestamps.
    labels: Vec<LabelPoint>,
    holds: BTreeMap<(Ino, VersionId), Held>,
    /// How often that had changed when it was read.
    protection_changes: u64,
    view: PastView,
    memo: LocationMemo,
}

impl Retention {
    /// Reads all labels and holds.
    ///
    /// # Errors
    /// Errors of the index.
    pub(crate) async fn protection(&self) -> Result<Protection, StoreError> {
        let protection_changes = self.core.protection_changes.load(Ordering::SeqCst);
        let all = Timestamp(0)..Timestamp(u64::MAX);
        let mut labels = self.history.labels_between(all, usize::MAX).await?;
        let expired = self.history.expired_labels(self.now()).await?;
        labels.retain(|label| !expired.contains(&label.slot));
        let (from, end) = (HoldTable::all(), keys::after(&HoldTable::all()));
        let mut holds = BTreeMap::new();
        for (key, value) in self.core.index.scan(from, end, usize::MAX).await? {
            let row = HoldTable::decode(&value)?;
            let held = Held {
                until: row.until,
                directory: row.directory,
            };
            holds.extend(label_keys::held_version(&key).map(|version| (version, held)));
        }
        Ok(Protection {
            labels,
            holds,
            protection_changes,
            view: self.history.view(),
            memo: LocationMemo::default(),
        })
    }

    /// Tells whether a hold was set, or a label removed, since they were read.
    pub(crate) fn is_outdated(&self, protection: &Protection) -> bool {
        self.core.protection_changes.load(Ordering::SeqCst) != protection.protection_changes
    }
}

impl Protection {
    /// Returns until when a version is held; `None` if it is not held.
    pub(crate) fn hold(&self, record: &VersionRecord) -> Option<Timestamp> {
        let held = self.holds.get(&(record.ino, record.stamp.id));
        held.map(|held| held.until)
    }

    /// Returns the held states of an inode, and until when each is held.
    pub(crate) fn holds_of(&self, ino: Ino) -> impl Iterator<Item = (VersionId, Timestamp)> + '_ {
        let first = VersionId {
            timestamp: Timestamp(0),
            suffix: 0,
        };
        let held = self.holds.range((ino, first)..);
        held.take_while(move |((of, _), _)| *of == ino)
            .map(|((_, id), held)| (*id, held.until))
    }

    /// Returns until when a version is held that was in a directory, or below it, as a version of the directory's name shows it: without
    /// that one, nothing would lead there.
    ///
    /// # Errors
    /// Errors of the index.
    pub(crate) async fn hold_below(
        &mut self,
        record: &VersionRecord,
    ) -> Result<Option<Timestamp>, StoreError> {
        let Self {
            holds, view, memo, ..
        } = self;
        let mut longest = None;
        for ((_, id), held) in holds.iter() {
            let directory = DirectoryThen {
                directory: record.ino,
                at: id.timestamp.max(record.stamp.id.timestamp),
            };
            if Some(held.until) > longest
                && id.timestamp < record.end
                && view.is_below(held.directory, directory, memo).await?
            {
                longest = Some(held.until);
            }
        }
        Ok(longest)
    }

    /// Returns a label that shows a version of a name, or that is reached only through it.
    ///
    /// # Errors
    /// Errors of the index.
    pub(crate) async fn label(
        &mut self,
        version: &ShownVersion,
    ) -> Result<Option<LabelPin>, StoreError> {
        if self.labels.is_empty() {
            return Ok(None);
        }
        let Self {
            labels, view, memo, ..
        } = self;
        let from = labels.partition_point(|label| label.timestamp < version.time.start);
        for (at, label) in labels.iter().enumerate() {
            if label.timestamp >= version.time.end {
                break;
            }
            let shows = at >= from && view.label_shows(label, version.name.parent, memo).await?;
            // The labels of a removed directory are found through the name that it had, and the names above that.
            let leads = match version.directory {
                Some(directory) => {
                    let above = DirectoryThen {
                        directory,
                        at: label.timestamp,
                    };
                    view.is_below(label.slot.directory, above, memo).await?
                }
                None => false,
            };
            if shows || leads {
                return Ok(Some(LabelPin {
                    timestamp: label.timestamp,
                    directory: label.slot.directory,
                }));
            }
        }
        Ok(None)
    }
}
