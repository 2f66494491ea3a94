//! What a restore leaves for its undo: the state just before it stays for 30 days, whatever the policy.
//!
//! A restored directory gets a label that shows it at the timestamp before the restore, a restored file a hold on the version that the
//! restore ends. Both are rows of the restore's own operation, so that retention never finds an ended version without what keeps it.
//!
//! Invariant: what the label shows was live while the locks of the restore were held; it ends with the restore or later.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use crate::store::commit::txn::Txn;
use crate::store::history::History;
use crate::store::history::labels::put_rows;
use crate::store::history::restore_plan::is_directory;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::policy::DAY;
use crate::store::model::version::{Author, Ino, Timestamp, VersionId};
use crate::store::schema::keys;
use crate::store::schema::label_keys;
use crate::store::schema::label_rows::{HoldRow, LabelRow};
use crate::store::schema::rows::OlderVersions;
use crate::store::tree::review::review;

/// For how long the state before a restore stays, in nanoseconds.
const UNDO_TIME: u64 = 30 * DAY;

/// What keeps the state before a restore.
#[derive(Debug)]
pub(super) enum KeptBefore {
    /// The name did not exist.
    Nothing,
    /// A new label of the directory that the name led to.
    Label { directory: Ino, name: String },
    /// A hold on the version that the name showed.
    Hold {
        slot: Dentry,
        ino: Ino,
        version: VersionId,
        /// The hold that it has already.
        old: Option<HoldRow>,
        /// Names that the hold keeps no longer.
        left: BTreeSet<Dentry>,
    },
}

impl History {
    /// Finds what keeps the state of a name just before `at`. The caller holds the locks of a restore.
    pub(super) async fn kept_before(
        &self,
        slot: &Dentry,
        at: Timestamp,
    ) -> Result<KeptBefore, StoreError> {
        let Some(row) = self.tree.entry(slot.parent, &slot.name).await? else {
            return Ok(KeptBefore::Nothing);
        };
        if is_directory(&row) {
            let directory = row.ino;
            let name = self.free_label(directory, at).await?;
            return Ok(KeptBefore::Label { directory, name });
        }
        let view = self.view();
        let shown = view.entry_at(slot.parent, &slot.name, Timestamp(u64::MAX));
        let Some(shown) = shown.await? else {
            return Ok(KeptBefore::Nothing);
        };
        let shown = shown.of_inode();
        let (ino, version) = (shown.ino, shown.version);
        let old: Option<HoldRow> = self.core.index.row(&label_keys::hold(ino, version)).await?;
        let left = self.left_by_hold(ino, version, old.as_ref(), slot.parent);
        Ok(KeptBefore::Hold {
            slot: slot.clone(),
            ino,
            version,
            left: left.await?,
            old,
        })
    }

    /// Returns a name for the label of a directory before a restore at `at`.
    async fn free_label(&self, directory: Ino, at: Timestamp) -> Result<String, StoreError> {
        let second = i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_second(second).unwrap_or_default();
        let first = format!("before-restore-{}", time.strftime("%Y-%m-%dT%H-%M-%S"));
        let (view, mut name) = (self.view(), first.clone());
        for number in 2_u64.. {
            if view.label(directory, name.as_bytes()).await?.is_none() {
                break;
            }
            name = format!("{first}-{number}");
        }
        Ok(name)
    }

    /// Writes the rows of what keeps the state just before the operation.
    pub(super) fn put_kept(&self, txn: &mut Txn, kept: &KeptBefore, author: &Author) {
        let at = txn.timestamp;
        let until = Timestamp(at.0.saturating_add(UNDO_TIME));
        match kept {
            KeptBefore::Nothing => {}
            KeptBefore::Label { directory, name } => {
                let row = LabelRow {
                    timestamp: Timestamp(at.0.saturating_sub(1)),
                    made: at,
                    author: author.clone(),
                    host: self.core.config.host.clone(),
                    expires: Some(until),
                    hold: None,
                };
                txn.touch(keys::inode(*directory));
                txn.touch(label_keys::label(*directory, name.as_bytes()));
                put_rows(txn, *directory, name.as_bytes(), &row);
            }
            KeptBefore::Hold {
                slot,
                ino,
                version,
                old,
                left,
            } => {
                if old.as_ref().is_some_and(|old| old.until >= until) {
                    return;
                }
                for name in left {
                    review(txn, name, OlderVersions::Held);
                }
                let key = label_keys::hold(*ino, *version);
                if let Some(old) = old {
                    txn.delete(label_keys::lapse(old.until, &key));
                }
                let row = HoldRow {
                    until,
                    directory: slot.parent,
                    name: slot.name.clone(),
                    author: author.clone(),
                    host: self.core.config.host.clone(),
                };
                txn.touch(keys::inode(*ino));
                txn.put(label_keys::lapse(until, &key), &());
                txn.put(key, &row);
            }
        }
    }

    /// Lets a running prune read the holds again. Called when the operation is queued.
    pub(super) fn note_kept(&self, kept: &KeptBefore) {
        if let KeptBefore::Hold { .. } = kept {
            self.core.protection_changes.fetch_add(1, Ordering::SeqCst);
        }
    }
}
