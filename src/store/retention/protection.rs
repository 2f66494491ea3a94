//! What users protect from retention: labels, and holds on versions.
//!
//! Both are read once for a run: a label that is made later shows a time after everything that is due; a hold that is set later, and a
//! label that is removed, are noticed before the next verdict.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::store::history::directories_above::{Above, Removed};
use crate::store::history::label_reads::LocationMemo;
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

/// A directory with labels, or with held versions, that was below another one for a time.
#[derive(Clone, Debug)]
struct Below {
    directory: Ino,
    above: Above,
}

/// The labels and holds of a namespace.
#[derive(Debug)]
pub(crate) struct Protection {
    /// In ascending order of their timestamps.
    labels: Vec<LabelPoint>,
    holds: BTreeMap<(Ino, VersionId), Held>,
    /// By the directory above; `None`: not read yet.
    below: Option<HashMap<Ino, Vec<Below>>>,
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
            below: None,
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

    /// Returns until when a version is held that may be reached only through this version of a directory's name: since it was made, its directory
    /// was this one, or below it or removed from there, for a part of the time that this version shows.
    ///
    /// # Errors
    /// Errors of the index.
    pub(crate) async fn hold_below(
        &mut self,
        record: &VersionRecord,
    ) -> Result<Option<Timestamp>, StoreError> {
        let time = record.stamp.id.timestamp..record.own_end();
        let below = self.below(record.ino, &time).await?;
        let holds = self.holds.iter();
        let led = holds.filter(|((_, id), held)| below.lead_to(held.directory, id.timestamp));
        Ok(led.map(|(_, held)| held.until).max())
    }

    /// Returns the directories with labels or held versions that were a directory, or below it, during a time.
    async fn below(
        &mut self,
        directory: Ino,
        time: &Range<Timestamp>,
    ) -> Result<BelowDuring, StoreError> {
        if self.below.is_none() {
            let labeled = self.labels.iter().map(|label| label.slot.directory);
            let held = self.holds.values().map(|held| held.directory);
            let directories: BTreeSet<Ino> = labeled.chain(held).collect();
            let mut below: HashMap<Ino, Vec<Below>> = HashMap::new();
            for directory in directories {
                let all = self.view.directories_above(directory, Removed::WhereItWas);
                for above in all.await? {
                    let of = below.entry(above.directory).or_default();
                    of.push(Below { directory, above });
                }
            }
            self.below = Some(below);
        }
        let all = self.below.iter().flat_map(|below| below.get(&directory));
        let mut last = HashMap::new();
        for Below { directory, above } in all.flatten() {
            if let Some(time) = above.during(time) {
                let end = last.entry(*directory).or_insert(time.end);
                *end = time.end.max(*end);
            }
        }
        Ok(BelowDuring { last })
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
        // The labels of a removed directory are found through the names that it has had since, and the names above those.
        let below = match version.directory {
            Some(directory) => {
                let time = version.time.start..version.own_end;
                self.below(directory, &time).await?
            }
            None => BelowDuring::default(),
        };
        let Self {
            labels, view, memo, ..
        } = self;
        let from = labels.partition_point(|label| label.timestamp < version.time.start);
        for (at, label) in labels.iter().enumerate() {
            if label.timestamp >= version.time.end {
                break;
            }
            let shows = at >= from && view.label_shows(label, version.name.parent, memo).await?;
            let leads = below.lead_to(label.slot.directory, label.timestamp);
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

/// Directories that were another one, or below it, during a time.
#[derive(Debug, Default)]
struct BelowDuring {
    /// The last end of such a part of the time, for each of them.
    last: HashMap<Ino, Timestamp>,
}

impl BelowDuring {
    /// Tells whether a directory was one of them at `since` or later.
    fn lead_to(&self, directory: Ino, since: Timestamp) -> bool {
        self.last.get(&directory).is_some_and(|last| since < *last)
    }
}
