//! Removed names of a directory, and the last state of each (`.versions/@deleted`).
//!
//! A name is a removed name while its newest version record says `Deleted` and no live entry has the name. A name that a rename
//! took away is none, and an undeleted name is none any more.

use std::collections::btree_set;

use bytes::Bytes;

use crate::store::history::History;
use crate::store::history::as_of::HistoricalVersion;
use crate::store::history::view::PastView;
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::ignored_names::is_ignored;
use crate::store::model::version::{EndOp, Ino, Kind, PastEntry, Retained, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::VersionRecord;
use crate::store::schema::tables::{RowTable, VersionTable};
use crate::sync::Arc;

/// The last state of a removed name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedName {
    /// The state itself.
    pub entry: PastEntry,
    /// Timestamp for a read of that state: for a directory, just before the removal burst that emptied it.
    pub at: Timestamp,
}

/// A removed name with its rows.
pub(super) struct RemovedRow {
    /// The name's newest version record, or the record of its binding to a hard-linked inode.
    pub(super) closed: VersionRecord,
    pub(super) version: HistoricalVersion,
    pub(super) at: Timestamp,
}

/// The removed names of a directory in ascending order; the last state of each is read on demand.
#[derive(Debug)]
pub struct RemovedNames {
    history: Arc<History>,
    directory: Ino,
    names: btree_set::IntoIter<Bytes>,
}

impl RemovedNames {
    /// Returns the next name and its last state; `None` after the last name.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn next(&mut self) -> Result<Option<(Bytes, RemovedName)>, StoreError> {
        for name in self.names.by_ref() {
            if let Some(gone) = self.history.view().gone(self.directory, &name).await? {
                return Ok(Some((name, gone.into_removed())));
            }
        }
        Ok(None)
    }
}

impl RemovedRow {
    pub(super) fn into_removed(self) -> RemovedName {
        RemovedName {
            entry: self.version.into_entry(),
            at: self.at,
        }
    }
}

impl History {
    /// Lists the names that were removed from a directory and are not live now, without the ignored ones.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn deleted(self: &Arc<Self>, directory: Ino) -> Result<RemovedNames, StoreError> {
        let mut names = interval_tree::removed(&self.core.index.snapshot(), directory).await?;
        names.retain(|name| !is_ignored(name));
        Ok(RemovedNames {
            history: Arc::clone(self),
            directory,
            names: names.into_iter(),
        })
    }
}

impl PastView {
    /// Returns the last state of a removed name, and for a directory the timestamp of its last tree; `None` if the name is live
    /// or was not removed.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn deleted_tree_at(
        &self,
        directory: Ino,
        name: &[u8],
    ) -> Result<Option<RemovedName>, StoreError> {
        let gone = self.gone(directory, name).await?;
        Ok(gone.map(RemovedRow::into_removed))
    }
}

impl PastView {
    /// Returns the last state of a removed name with its rows; `None` if the name is live or was not removed.
    pub(super) async fn gone(
        &self,
        directory: Ino,
        name: &[u8],
    ) -> Result<Option<RemovedRow>, StoreError> {
        if self.entry(directory, name).await?.is_some() {
            return Ok(None);
        }
        let from = keys::history(directory, name);
        let Some((_, value)) = self.rows.first(from.clone(), keys::after(&from)).await? else {
            return Ok(None);
        };
        let closed: VersionRecord = VersionTable::decode(&value)?;
        if closed.end_op != EndOp::Deleted {
            return Ok(None);
        }
        let last = Timestamp(closed.end.0.saturating_sub(1));
        let Some(version) = self.version_at(directory, name, None, last).await? else {
            return Ok(None);
        };
        // The name's versions were deleted: there is nothing to undelete.
        if version.kept == Retained::Nothing {
            return Ok(None);
        }
        let at = match version.node.kind {
            Kind::Directory => match self.location_row_at(version.ino, last).await? {
                Some(directory_location) => Timestamp(
                    directory_location
                        .removal_burst
                        .unwrap_or(directory_location.end)
                        .0
                        .saturating_sub(1),
                ),
                None => last,
            },
            _ => last,
        };
        Ok(Some(RemovedRow {
            closed,
            version,
            at,
        }))
    }
}
