//! The policies of directories, all of them in memory: there are few.

use std::collections::BTreeMap;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::policy::Policy;
use crate::store::model::version::{Ino, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::retention_rows::DirectoryPolicyRow;
use crate::store::schema::tables::{DirectoryPolicyTable, RowTable};

/// The policies of directories, as the rows have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirectoryPolicies {
    rows: BTreeMap<Ino, DirectoryPolicyRow>,
}

impl DirectoryPolicies {
    /// Reads all rows.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn read(rows: &Snapshot) -> Result<Self, StoreError> {
        let all = DirectoryPolicyTable::all();
        let end = keys::after(&all);
        let mut policies = Self::default();
        for (key, value) in rows.scan(all, end, usize::MAX).await? {
            let directory = keys::leading_ino(&key);
            let directory =
                directory.ok_or_else(|| StoreError::Corrupt("G q key: no directory".to_owned()))?;
            let row = DirectoryPolicyTable::decode(&value)?;
            policies.rows.insert(directory, row);
        }
        Ok(policies)
    }

    /// Tells whether no directory has or had a policy.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the row of a directory.
    pub(crate) fn row(&self, directory: Ino) -> Option<&DirectoryPolicyRow> {
        self.rows.get(&directory)
    }

    /// Returns these policies with another row of a directory.
    pub(crate) fn with(&self, directory: Ino, row: DirectoryPolicyRow) -> Self {
        let mut rows = self.rows.clone();
        rows.insert(directory, row);
        Self { rows }
    }

    /// Returns all rows, in ascending order of directories.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Ino, &DirectoryPolicyRow)> {
        self.rows.iter().map(|(directory, row)| (*directory, row))
    }

    /// Returns the policy that a directory itself had at a time; `None` if it had none.
    pub(crate) fn at(&self, directory: Ino, at: Timestamp) -> Option<&Policy> {
        let spans = &self.row(directory)?.spans;
        let span = spans.iter().find(|span| span.has(at));
        span.map(|span| &span.policy)
    }

    /// Returns the policy that a directory itself has now; `None` if it has none.
    pub(crate) fn now(&self, directory: Ino) -> Option<&Policy> {
        let spans = &self.row(directory)?.spans;
        let newest = spans.last().filter(|span| span.until.is_none());
        newest.map(|span| &span.policy)
    }

    /// Limits a policy by that of every directory: nothing ends earlier in any of them.
    pub(crate) fn shortest(&self, policy: &Policy) -> Policy {
        let own = self
            .rows
            .keys()
            .filter_map(|directory| self.now(*directory));
        own.fold(policy.clone(), |policy, own| policy.limited_by(own))
    }

    /// Limits a policy by every one that any directory has or had.
    pub(crate) fn shortest_ever(&self, policy: &Policy) -> Policy {
        let spans = self.rows.values().flat_map(|row| &row.spans);
        spans.fold(policy.clone(), |policy, span| {
            policy.limited_by(&span.policy)
        })
    }
}
