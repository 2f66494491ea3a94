//! The states of transient names: a program that saves by a temporary file and a rename leaves a record of the temporary name with the
//! same content. No list of versions has it, but a time in between shows it.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::store::history::as_of::HistoricalVersion;
use crate::store::history::view::PastView;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{EndOp, Ino, Kind, Op, Origin, PastEntry, Retained, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::VersionRecord;
use crate::store::schema::tables::{RowTable, VersionTable};
use crate::sync::Arc;

/// A name, and which of its transient records are meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TransientLife {
    name: Dentry,
    /// When a rename took the file away from it; `None`: all of its transient records.
    until: Option<Timestamp>,
}

/// A state of a transient name.
#[derive(Debug)]
pub(crate) struct TransientState {
    pub(crate) name: Dentry,
    pub(crate) state: PastEntry,
}

impl PastView {
    /// Tells whether a name has transient states that were not deleted.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn was_transient(&self, directory: Ino, name: &[u8]) -> Result<bool, StoreError> {
        let name = Dentry::new(directory, Bytes::copy_from_slice(name));
        Ok(!self.transient_records(&name).await?.is_empty())
    }

    /// Returns the transient states of `name`, and those of the names that renames took its file from; `states` are the versions in its
    /// list.
    pub(crate) async fn transient_states(
        &self,
        name: &Dentry,
        states: &[Arc<PastEntry>],
    ) -> Result<Vec<TransientState>, StoreError> {
        let mut wanted = vec![TransientLife {
            name: name.clone(),
            until: None,
        }];
        let renamed = |state: &Arc<PastEntry>| {
            let origin = state.renamed_from.as_ref();
            origin.and_then(|origin| origin_of(state.op, origin, state.version.timestamp))
        };
        wanted.extend(states.iter().filter_map(renamed));
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        while let Some(next) = wanted.pop() {
            if !seen.insert(next.clone()) {
                continue;
            }
            let mut records = self.transient_records(&next.name).await?;
            if let Some(until) = next.until {
                let last = records.iter().find(|record| record.end == until);
                let life = last.map(|last| last.alive_since);
                records.retain(|record| Some(record.alive_since) == life && record.end <= until);
            }
            for record in records {
                let stamp = &record.stamp;
                let origin = stamp.origin.as_ref();
                wanted.extend(
                    origin.and_then(|origin| origin_of(stamp.op, origin, stamp.id.timestamp)),
                );
                let state = HistoricalVersion::ended(record).map(HistoricalVersion::into_entry);
                found.extend(state.map(|state| TransientState {
                    name: next.name.clone(),
                    state,
                }));
            }
        }
        Ok(found)
    }

    /// Returns the transient records of files under a name that have not been deleted.
    async fn transient_records(&self, name: &Dentry) -> Result<Vec<VersionRecord>, StoreError> {
        let from = keys::history(name.parent, &name.name);
        let end = keys::after(&from);
        let mut records = Vec::new();
        for (_, value) in self.rows.scan(from, end, usize::MAX).await? {
            let record: VersionRecord = VersionTable::decode(&value)?;
            let node = record.node.as_ref();
            let is_file = node.is_some_and(|node| node.kind != Kind::Directory);
            if is_file && record.end_op == EndOp::Transient && record.kept != Retained::Nothing {
                records.push(record);
            }
        }
        Ok(records)
    }
}

/// Returns the name that a rename took a file from, if one did.
fn origin_of(op: Op, origin: &Origin, at: Timestamp) -> Option<TransientLife> {
    (op == Op::Rename).then(|| TransientLife {
        name: Dentry::new(origin.directory, origin.name.clone()),
        until: Some(at),
    })
}
