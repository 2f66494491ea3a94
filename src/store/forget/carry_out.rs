//! Forgets versions: deletes them one by one, and then their bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::store::forget::Forgetter;
use crate::store::forget::line::LineRows;
use crate::store::forget::report::{ForgetPlan, ForgetRequest, ForgetStep, ShownBy};
use crate::store::forget::shown_bytes::ShownBytes;
use crate::store::model::error::StoreError;
use crate::store::model::role::Role;
use crate::store::schema::forget_keys;
use crate::store::schema::keys;
use crate::store::schema::retention_rows::ForgottenRow;
use crate::store::schema::tables::{ForgottenTable, RowKey, RowTable};

/// How long an upload may make no progress before forgetting gives up.
const STALL: Duration = Duration::from_secs(300);

/// Where the steps of forgetting are told.
pub type ForgetSteps = UnboundedSender<ForgetStep>;

/// The row of a name that is being forgotten.
type BegunForget = (RowKey<ForgottenTable>, ForgottenRow);

impl Forgetter {
    /// Deletes the versions of a request, and returns when their bytes are gone from the bucket and from this machine. Returns the plan;
    /// nothing is done if something stands in the way of it, and the bytes stay if versions of other names show them. A call after a crash, or after an error, goes on.
    ///
    /// # Errors
    /// `Busy` while another call forgets something; `ReadOnly` on a follower; `Held` by a label or hold that was made meanwhile; errors of the
    /// index and the bucket. What was done until then stays done.
    pub async fn carry_out(
        &self,
        request: &ForgetRequest,
        steps: &ForgetSteps,
    ) -> Result<ForgetPlan, StoreError> {
        if !matches!(self.core.role, Role::Writer) {
            return Err(StoreError::ReadOnly);
        }
        let Ok(_turn) = self.turn.try_lock() else {
            return Err(StoreError::Busy(
                "another forget of this namespace is running: wait until it has ended".to_owned(),
            ));
        };
        // Inline bytes stay where they are found until they are gone.
        let _paused = self.gc.pause_inline().await;
        // The rows of all contents are scanned, and those that are queued would be missed.
        self.drain().await?;
        let plan = self.plan(request).await?;
        let is_nothing = plan.versions.is_empty() && !plan.is_begun;
        if is_nothing || plan.is_refused() {
            return Ok(plan);
        }
        self.begin(request, &plan).await?;
        for version in &plan.versions {
            let name = &version.name;
            let deleted = self
                .history
                .delete_version(name.directory, &name.name, version.id);
            match deleted.await {
                // It was dropped meanwhile, or is a part of one that was deleted just now.
                Ok(()) | Err(StoreError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        self.drain().await?;
        steps
            .send(ForgetStep::Deleted(plan.versions.len() as u64))
            .ok();
        let own = forget_keys::forgotten(request.directory, &request.name);
        let mut unshown = Vec::new();
        for (key, row) in self.begun().await? {
            let shown_by = self.still_shown_by(&row).await?;
            if shown_by.is_empty() {
                unshown.push((key, row));
            } else if *key == *own {
                // Its row stays: the last call, after which nothing shows the bytes, makes those of all go.
                return Ok(ForgetPlan { shown_by, ..plan });
            }
        }
        let lineages = unshown.iter().flat_map(|(_, row)| &row.lineages).copied();
        let segments = self.purge_rows(&lineages.collect(), steps).await?;
        let mut gone = Vec::new();
        for (key, row) in unshown {
            let shown_by = self.stored_by(&row).await?;
            if shown_by.is_empty() {
                gone.push(key);
            } else if *key == *own {
                return Ok(ForgetPlan { shown_by, ..plan });
            }
        }
        self.purge(&segments, steps).await?;
        let mut txn = self.gc.gc_txn(Vec::new());
        for key in gone {
            txn.touch(key.clone());
            txn.delete(key);
        }
        self.commit.enqueue(txn)?;
        self.drain().await?;
        Ok(plan)
    }

    /// Returns the states whose stored form still has bytes of versions that are deleted, though none shows them.
    async fn stored_by(&self, row: &ForgottenRow) -> Result<Vec<ShownBy>, StoreError> {
        let mut bytes = ShownBytes::default();
        bytes.add_row(row);
        let own = row.lineages.iter().copied().collect();
        let lineages = self.lineages_with(&bytes, &own).await?;
        if lineages.showing.is_empty() {
            return Ok(Vec::new());
        }
        let stored_by = self.states_of(&lineages).await?;
        match stored_by.is_empty() {
            true => Err(StoreError::Busy(
                "the versions are deleted, but rows with their bytes wait for their deletion: repeat the command".to_owned(),
            )),
            false => Ok(stored_by),
        }
    }

    /// Returns what shows bytes of versions that are deleted.
    async fn still_shown_by(&self, row: &ForgottenRow) -> Result<Vec<ShownBy>, StoreError> {
        let mut bytes = ShownBytes::default();
        bytes.add_row(row);
        let own = row.lineages.iter().copied().collect();
        let lineages = self.lineages_with(&bytes, &own).await?;
        self.other_showers(&LineRows::default(), &bytes, &lineages.showing)
            .await
    }

    /// Writes which lineages are being forgotten, durably, before the first version is deleted.
    async fn begin(&self, request: &ForgetRequest, plan: &ForgetPlan) -> Result<(), StoreError> {
        let key = forget_keys::forgotten(request.directory, &request.name);
        let row: Option<ForgottenRow> = self.core.index.row(&key).await?;
        let before = row.unwrap_or_default();
        let mut bytes = ShownBytes::default();
        bytes.add_row(&before);
        bytes.add_row(&plan.row);
        let lineages = before.lineages.iter().chain(&plan.row.lineages).copied();
        let lineages: BTreeSet<u64> = lineages.collect();
        let mut txn = self.gc.gc_txn(vec![key.clone().bytes()]);
        let row = ForgottenRow {
            lineages: lineages.into_iter().collect(),
            ..bytes.to_row()
        };
        txn.put(key, &row);
        let begun = self.commit.enqueue(txn)?;
        self.commit.wait_durable(&begun).await
    }

    /// Returns what is being forgotten, also what a crash or an error left.
    async fn begun(&self) -> Result<Vec<BegunForget>, StoreError> {
        let (from, end) = (ForgottenTable::all(), keys::after(&ForgottenTable::all()));
        let rows = self.core.index.scan(from, end, usize::MAX).await?;
        let of = |(key, value): (bytes::Bytes, bytes::Bytes)| {
            let row = ForgottenTable::decode(&value)?;
            Ok((RowKey::scanned(key)?, row))
        };
        rows.into_iter().map(of).collect()
    }

    /// Makes every change so far durable and logged.
    pub(super) async fn drain(&self) -> Result<(), StoreError> {
        let _draining = self.core.health.drain();
        tokio::select! {
            drained = self.tree.drain_all() => drained,
            stalled = self.tree.stalled(STALL) => Err(stalled),
        }
    }
}
