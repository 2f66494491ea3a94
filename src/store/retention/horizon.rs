//! Horizons: which times of the past are exact.
//!
//! A time is exact if every version is kept that stood at it. Above the horizon of `keep-within` every time is; above the horizon of a
//! tier of the grid, every grid time of the tier. A run raises the horizons, durably, before it drops a version below them; nothing
//! lowers them.

use crate::store::history::horizons::Horizons;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::policy::Policy;
use crate::store::model::version::Timestamp;
use crate::store::retention::Retention;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::retention_keys;

impl Retention {
    /// Raises the horizons to what a run at `now` may drop, and waits until they are durable. Returns whether one was raised.
    ///
    /// # Errors
    /// Errors of the index and the queue.
    pub(crate) async fn raise_horizons(
        &self,
        rows: &Snapshot,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let old = Horizons::read(rows).await?;
        let new = old.raised(policy, now);
        self.thin_changed_hours(&new).await?;
        let directories = self.raise_directory_horizons(policy, &new, now).await?;
        if new == old {
            return Ok(directories);
        }
        let dependencies = Dependencies {
            touches: vec![retention_keys::horizon(0).bytes()],
            ..Dependencies::default()
        };
        let mut txn = self.commit.txn(self.core.clock.begin().at(), dependencies);
        for (tier, at) in new.rows() {
            txn.put(retention_keys::horizon(tier), &at);
        }
        let raised = self.commit.enqueue(txn)?;
        self.commit.wait_durable(&raised).await?;
        Ok(true)
    }
}
