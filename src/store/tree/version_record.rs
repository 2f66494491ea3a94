//! Version records: the rows of versions that have ended, and their filing for retention.
//!
//! Invariant: a record and its filing (`G X`) are written and deleted in one batch, and the record says where it is filed. What is filed
//! under a label is counted in the same batch (`G a` 4 and 5).

use bytes::Bytes;

use crate::store::commit::txn::Txn;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::policy::{Due, Policy};
use crate::store::model::version::{Ino, Timestamp, VersionId};
use crate::store::schema::amounts;
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::rows::{Filing, LabelPin, VersionRecord};
use crate::store::schema::tables::{LinkedVersionTable, RowTable, VersionTable};

/// The version records of a name, or of a hard-linked inode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum VersionRows {
    Of(Dentry),
    Linked(Ino),
}

impl VersionRows {
    pub(crate) fn decode(&self, value: &[u8]) -> Result<VersionRecord, StoreError> {
        match self {
            Self::Of(_) => VersionTable::decode(value),
            Self::Linked(_) => LinkedVersionTable::decode(value),
        }
    }

    pub(crate) fn key(&self, id: VersionId) -> Bytes {
        match self {
            Self::Of(slot) => keys::closed(slot.parent, &slot.name, id).bytes(),
            Self::Linked(ino) => keys::linked_closed(*ino, id).bytes(),
        }
    }

    /// The name under which a record is filed that is kept because of it.
    pub(crate) fn name(&self) -> Dentry {
        match self {
            Self::Of(slot) => slot.clone(),
            Self::Linked(ino) => retention_keys::names_of(*ino),
        }
    }

    /// Returns the inode under whose lock a record is changed.
    pub(crate) fn locked_by(&self) -> Ino {
        match self {
            Self::Of(slot) => slot.parent,
            Self::Linked(ino) => *ino,
        }
    }

    /// The end of the keys of all records, exclusive.
    pub(crate) fn end(&self) -> Bytes {
        keys::after(&match self {
            Self::Of(slot) => keys::history(slot.parent, &slot.name),
            Self::Linked(ino) => keys::linked_history(*ino),
        })
    }

    /// Writes a record that stays filed where it is.
    pub(crate) fn put(&self, txn: &mut Txn, record: &VersionRecord) {
        let id = record.stamp.id;
        match self {
            Self::Of(slot) => txn.put(keys::closed(slot.parent, &slot.name, id), record),
            Self::Linked(ino) => txn.put(keys::linked_closed(*ino, id), record),
        }
    }

    /// Replaces a record by one of the same version that shows fewer bytes, and stays filed where it is.
    pub(crate) fn shrink(&self, txn: &mut Txn, old: &VersionRecord, new: &VersionRecord) {
        if let Filing::Label(label) = &old.filed {
            count_labeled(txn, *label, old, -1);
            count_labeled(txn, *label, new, 1);
        }
        self.put(txn, new);
    }

    /// Deletes a record and its filing.
    pub(crate) fn delete(&self, txn: &mut Txn, record: &VersionRecord) {
        let id = record.stamp.id;
        self.unfile(txn, record);
        match self {
            Self::Of(slot) => txn.delete(keys::closed(slot.parent, &slot.name, id)),
            Self::Linked(ino) => txn.delete(keys::linked_closed(*ino, id)),
        }
    }

    /// Files a record anew, and writes it.
    pub(crate) fn file(&self, txn: &mut Txn, record: &mut VersionRecord, filing: Filing) {
        if record.filed != filing {
            self.unfile(txn, record);
            if let Filing::Label(label) = &filing {
                count_labeled(txn, *label, record, 1);
            }
        }
        let key = self.key(record.stamp.id);
        match &filing {
            Filing::Nowhere => {}
            Filing::Due(at) => txn.put(retention_keys::due(*at, &key), &()),
            Filing::Last(name) => txn.put(retention_keys::kept(name, &key), &()),
            Filing::Label(label) => txn.put(retention_keys::labeled(*label, &key), &()),
            Filing::Removed(at, name) => {
                txn.put(retention_keys::due(*at, &key), &());
                txn.put(retention_keys::kept(name, &key), &());
            }
            Filing::Until(at) => {
                txn.put(retention_keys::due(*at, &key), &());
                txn.put(retention_keys::kept(&self.name(), &key), &());
            }
        }
        record.filed = filing;
        self.put(txn, record);
    }

    /// Writes a record, and files it at the time at which the rules of time stop keeping it.
    pub(crate) fn file_by_time(
        &self,
        txn: &mut Txn,
        record: &mut VersionRecord,
        policy: Option<&Policy>,
    ) {
        let due = policy.map(|policy| policy.due(record.span()));
        let filing = match due {
            None | Some(Due::Never) => Filing::Nowhere,
            Some(Due::At(at)) => Filing::Due(at),
        };
        self.file(txn, record, filing);
    }

    /// Reads where the records of the name continue: the first one that began at or before `at`, with its key.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn newest_at(
        &self,
        rows: &Snapshot,
        at: Timestamp,
    ) -> Result<Option<VersionRecord>, StoreError> {
        let from = match self {
            Self::Of(slot) => keys::history_at(slot.parent, &slot.name, at),
            Self::Linked(ino) => keys::linked_history_at(*ino, at),
        };
        let found = rows.first(from, self.end()).await?;
        found.map(|(_, value)| self.decode(&value)).transpose()
    }

    fn unfile(&self, txn: &mut Txn, record: &VersionRecord) {
        let key = self.key(record.stamp.id);
        match &record.filed {
            Filing::Nowhere => {}
            Filing::Due(at) => txn.delete(retention_keys::due(*at, &key)),
            Filing::Last(name) => txn.delete(retention_keys::kept(name, &key)),
            Filing::Label(label) => {
                txn.delete(retention_keys::labeled(*label, &key));
                count_labeled(txn, *label, record, -1);
            }
            Filing::Removed(at, name) => {
                txn.delete(retention_keys::due(*at, &key));
                txn.delete(retention_keys::kept(name, &key));
            }
            Filing::Until(at) => {
                txn.delete(retention_keys::due(*at, &key));
                txn.delete(retention_keys::kept(&self.name(), &key));
            }
        }
    }
}

/// Counts a version under the label that it is filed under, `by` times.
fn count_labeled(txn: &mut Txn, label: LabelPin, record: &VersionRecord, by: i64) {
    if let Some(bytes) = record.version_bytes() {
        let bytes = bytes.cast_signed().saturating_mul(by);
        txn.merge(amounts::labeled_bytes(label), &bytes);
        txn.merge(amounts::labeled_versions(label), &by);
    }
}
