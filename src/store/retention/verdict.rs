//! The verdict on a version that has ended: which rule of the policy keeps it, and until when.
//!
//! All reads are of one snapshot and cost at most seven rows for a file, however long the history of its name is.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::Bytes;

use crate::store::index::directory_policies::DirectoryPolicies;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::policy::{Due, Policy, TimeRule};
use crate::store::model::version::{Kind, Timestamp, VersionId};
use crate::store::retention::Retention;
use crate::store::retention::line::{Line, LineReader};
use crate::store::retention::policies::PolicyReader;
use crate::store::retention::protection::Protection;
use crate::store::retention::removed::RemovedReader;
use crate::store::retention::report::{KeptBy, KeptUntil, RetentionReport};
use crate::store::retention::shown::{EndedVersion, ShownVersion, shown_versions};
use crate::store::schema::keys;
use crate::store::schema::rows::{InodeRow, LabelPin, VersionRecord};
use crate::store::tree::version_record::VersionRows;

/// What retention does with a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No rule keeps it. The name is one that showed it; `None` if none does any more.
    Drop(Option<Dentry>),
    /// A rule of time keeps it.
    KeepByTime(TimeRule, Due),
    /// It is one of the last versions of this name, which exists, or of one of those that `names_of` stands for.
    KeepLast(Dentry),
    /// It is the last version of this removed name, up to and without this timestamp.
    KeepRemoved(Timestamp, Dentry),
    /// This label shows it.
    KeepLabel(LabelPin),
    /// It is held, up to and without this timestamp.
    KeepHold(Timestamp),
}

impl Verdict {
    /// Returns what keeps the version; `None` if nothing does.
    pub(crate) fn kept_by(&self) -> Option<KeptBy> {
        match self {
            Self::Drop(_) => None,
            Self::KeepByTime(rule, _) => Some(KeptBy::Time(*rule)),
            Self::KeepLast(_) => Some(KeptBy::Last),
            Self::KeepRemoved(..) => Some(KeptBy::Removed),
            Self::KeepLabel(_) => Some(KeptBy::Label),
            Self::KeepHold(_) => Some(KeptBy::Hold),
        }
    }
}

/// Adds a verdict on a version to a report. A name's binding to a hard-linked inode is no version: the inode's states are.
pub(crate) fn count(report: &mut RetentionReport, version: &EndedVersion, verdict: &Verdict) {
    let Some(node) = &version.record.node else {
        return;
    };
    match (verdict, verdict.kept_by()) {
        (_, Some(by)) => report.keep(by, node.space()),
        (Verdict::Drop(name), None) => report.drop_of(name.as_ref(), node.space()),
        (_, None) => {}
    }
}

/// Gives verdicts on versions, as one snapshot of the rows shows them.
pub(crate) struct Judge<'a> {
    rows: Snapshot,
    policies: PolicyReader<'a>,
    now: Timestamp,
    protection: Protection,
    removed: RemovedReader,
    /// Keys of records that the next verdicts are likely to read.
    likely: BTreeSet<Bytes>,
}

impl Retention {
    /// Returns a judge by a policy of the namespace, those of directories, and what users protect.
    ///
    /// # Errors
    /// Errors of the index.
    pub(crate) async fn judge<'a>(
        &self,
        rows: Snapshot,
        policy: &'a Policy,
        now: Timestamp,
    ) -> Result<Judge<'a>, StoreError> {
        let protection = self.protection().await?;
        let directories = DirectoryPolicies::read(&rows).await?;
        Ok(Judge {
            rows,
            policies: PolicyReader::new(policy, directories),
            now,
            protection,
            removed: RemovedReader::new(now),
            likely: BTreeSet::new(),
        })
    }
}

impl Judge<'_> {
    pub(crate) fn protection(&self) -> &Protection {
        &self.protection
    }

    pub(crate) fn renew_protection(&mut self, protection: Protection) {
        self.protection = protection;
    }

    /// Replaces the snapshot by a newer one.
    pub(crate) fn renew(&mut self, rows: Snapshot) {
        self.rows = rows;
        self.removed.renew();
    }

    /// Names the records of the next verdicts, by their keys: the line of a version leads over those that are due after it.
    pub(crate) fn read_likely(&mut self, records: BTreeSet<Bytes>) {
        self.likely = records;
    }

    /// Decides about a version.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn verdict(&mut self, version: &EndedVersion) -> Result<Verdict, StoreError> {
        let rules = self.rules(version).await?;
        let longest = rules.into_iter().max_by_key(|(_, due)| *due);
        if let Some((rule, due)) = longest.filter(|(_, due)| *due > Due::At(self.now)) {
            return Ok(Verdict::KeepByTime(rule, due));
        }
        if let Some(until) = self.held_until(version).await? {
            return Ok(Verdict::KeepHold(until));
        }
        let shown = shown_versions(&self.rows, version).await?;
        for one in &shown {
            if let Some(label) = self.protection.label(one).await? {
                return Ok(Verdict::KeepLabel(label));
            }
        }
        let mut removed = None;
        for one in shown.iter().filter(|one| !one.is_transient()) {
            // A version without bytes is a part of the line too: without it the older ones would lead to nothing.
            if one.directory.is_none()
                && let Line::Live(name) = self.line(one).await?
            {
                return Ok(Verdict::KeepLast(name));
            }
            let until = self.removed_until(one).await?;
            removed = removed.max(until.map(|until| (until, &one.name)));
        }
        Ok(match removed.filter(|(until, _)| *until > self.now) {
            Some((until, name)) => Verdict::KeepRemoved(until, name.clone()),
            None => Verdict::Drop(shown.into_iter().next().map(|one| one.name)),
        })
    }

    /// Returns the rules of time that keep or kept a version, and until when each does: where several names showed it, as long as any
    /// does.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn rules(
        &mut self,
        version: &EndedVersion,
    ) -> Result<Vec<(TimeRule, Due)>, StoreError> {
        let span = version.record.span();
        let mut all = Vec::new();
        let is_state = matches!(version.list, VersionRows::Linked(_));
        if is_state || !self.policies.is_one() {
            let shown = shown_versions(&self.rows, version).await?;
            if shown.is_empty() {
                // The names that showed the state went by a shorter policy.
                return Ok(Vec::new());
            }
            let limited = if self.policies.is_one() {
                &[][..]
            } else {
                &shown
            };
            for one in limited {
                all.extend(self.policy_of(one).await?.rules(span));
                // Where a directory was says which policy its versions and those below had.
                if one.directory.is_some() {
                    let longest = self.policies.namespace().longest_until(span.end);
                    all.extend(longest.map(|due| (TimeRule::Within, due)));
                }
            }
            all.sort();
            // Of each rule the longest.
            all.reverse();
            all.dedup_by_key(|(rule, _)| *rule);
        }
        Ok(match all.is_empty() {
            true => self.policies.namespace().rules(span),
            false => all,
        })
    }

    /// Returns the policy for a version as a name shows it.
    async fn policy_of(&mut self, version: &ShownVersion) -> Result<Cow<'_, Policy>, StoreError> {
        let directory = version.name.parent;
        let policy = self.policies.at(&self.rows, directory, version.own_end);
        policy.await
    }

    async fn line(&mut self, version: &ShownVersion) -> Result<Line, StoreError> {
        let last = self.policy_of(version).await?.last;
        let reader = LineReader {
            rows: &self.rows,
            last,
            likely: &self.likely,
        };
        reader.follow(version).await
    }

    async fn removed_until(
        &mut self,
        version: &ShownVersion,
    ) -> Result<Option<Timestamp>, StoreError> {
        let Self {
            rows,
            policies,
            removed,
            ..
        } = self;
        removed.until(rows, policies, version).await
    }

    /// Returns until when a version is held, or a version in a directory that it is, if one is. A name's binding to a hard-linked inode is held while a state is that it
    /// shows.
    async fn held_until(
        &mut self,
        version: &EndedVersion,
    ) -> Result<Option<Timestamp>, StoreError> {
        let record = &version.record;
        let held = |until: &Timestamp| *until > self.now;
        if let Some(node) = &record.node {
            let own = self.protection.hold(record);
            let below = match node.kind {
                Kind::Directory => self.protection.hold_below(record).await?,
                _ => None,
            };
            return Ok(own.max(below).filter(held));
        }
        let mut longest = None;
        for (id, until) in self.protection.holds_of(record.ino) {
            if id.timestamp < record.own_end() && self.is_shown(record, id).await? {
                longest = longest.max(Some(until).filter(held));
            }
        }
        Ok(longest)
    }

    /// Tells whether a version that began before a name's binding ended is a state of the hard-linked inode, and had not ended when the binding
    /// began: a version from before the inode had several names is none.
    async fn is_shown(&self, binding: &VersionRecord, id: VersionId) -> Result<bool, StoreError> {
        let ino = binding.ino;
        let state: Option<VersionRecord> = self.rows.row(&keys::linked_closed(ino, id)).await?;
        if let Some(state) = state {
            return Ok(binding.stamp.id.timestamp < state.end);
        }
        let row: Option<InodeRow> = self.rows.row(&keys::inode(ino)).await?;
        let current = match &row {
            Some(InodeRow::Linked(row)) => row.state.shown_stamp(),
            _ => None,
        };
        Ok(current.is_some_and(|stamp| stamp.id == id))
    }
}

impl Judge<'_> {
    /// Returns every rule that keeps a version whatever its age, and until when.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn beyond_time(
        &mut self,
        version: &EndedVersion,
    ) -> Result<Vec<(KeptBy, KeptUntil)>, StoreError> {
        let mut reasons = Vec::new();
        let hold = self.held_until(version).await?;
        reasons.extend(hold.map(|until| (KeptBy::Hold, KeptUntil::At(until))));
        for one in shown_versions(&self.rows, version).await? {
            if self.protection.label(&one).await?.is_some() {
                reasons.push((KeptBy::Label, KeptUntil::Open));
            }
            if one.is_transient() {
                continue;
            }
            if one.directory.is_none() && self.line(&one).await? != Line::Over {
                reasons.push((KeptBy::Last, KeptUntil::Open));
            }
            let removed = self.removed_until(&one).await?;
            let removed = removed.filter(|until| *until > self.now);
            reasons.extend(removed.map(|until| (KeptBy::Removed, KeptUntil::At(until))));
        }
        reasons.sort_by_key(|(by, _)| by.clone());
        reasons.dedup();
        Ok(reasons)
    }
}
