//! Names that retention reviews: those that keep ended versions, by existing (`keep-last`) or by not existing (`keep-removed`).
//!
//! Invariant: an operation after which such a name may keep fewer versions lists the name in row `G Z`, in its own batch.

use crate::store::commit::txn::Txn;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
pub(crate) use crate::store::schema::retention_keys::names_of;
use crate::store::schema::rows::OlderVersions;
use crate::store::tree::Tree;
use crate::store::tree::locked::{LockedInode, find};

/// Lists a name for review, because one of its versions or the name itself begins or ends, if versions are kept for the name.
pub(crate) fn review(txn: &mut Txn, name: &Dentry, older: OlderVersions) {
    match older {
        OlderVersions::NotHeld => {}
        OlderVersions::Held => {
            let at = txn.timestamp;
            txn.put(retention_keys::review(name), &at);
        }
    }
}

impl Tree {
    /// Tells whether retention keeps versions of a name that does not exist now. Its directory is one of the locked inodes.
    ///
    /// # Errors
    /// Errors of the index.
    pub(crate) async fn kept_removed(
        &self,
        locked: &mut [LockedInode],
        name: &Dentry,
    ) -> Result<OlderVersions, StoreError> {
        let directory = find(locked, name.parent);
        let keeps = directory
            .and_then(|directory| directory.as_directory())
            .is_some_and(|directory| directory.row.keeps_removed.is_some());
        if !keeps {
            return Ok(OlderVersions::NotHeld);
        }
        let from = retention_keys::kept_of(name);
        let end = keys::after(&from);
        Ok(match self.core.index.first(from, end).await? {
            Some(_) => OlderVersions::Held,
            None => OlderVersions::NotHeld,
        })
    }
}
