//! Drain: waits until the bucket has every change, retrying failed attempts, and detects when an attempt makes no more progress. So does a write
//! that waits for room.

use std::time::Duration;

use tokio::time::Instant;

use crate::cache::BudgetPermit;
use crate::store::model::error::StoreError;
use crate::store::tree::Tree;

/// Stall limit while the object store refuses the requests: no retry helps until the configuration changes.
const REFUSED_MAX: Duration = Duration::from_secs(10);

/// Pause between two attempts. The backend applies its own backoff to the requests.
const PAUSE: Duration = Duration::from_millis(200);

impl Tree {
    pub(crate) async fn drain_all(&self) -> Result<(), StoreError> {
        loop {
            match self.drain_once().await {
                Err(StoreError::Unavailable(why)) => tracing::debug!(%why, "still draining"),
                Err(StoreError::NoSpace) => tracing::debug!("still draining: the disk is full"),
                outcome => return outcome,
            }
            self.core.health.check()?;
            self.core.sleep(PAUSE).await;
        }
    }

    /// Makes every change that exists now durable, in the bucket and in the log. Fails with the first failed attempt.
    pub(crate) async fn drain_once(&self) -> Result<(), StoreError> {
        self.write_back_all(None).await?;
        self.commit
            .wait_all_durable(&self.commit.queue.all())
            .await?;
        self.commit.upload_log(true).await?;
        self.core.journal.trim();
        Ok(())
    }

    /// Waits for room for `len` bytes in the dirty budget.
    ///
    /// # Errors
    /// `Unavailable` if nothing reaches the bucket for the time that the configuration sets.
    pub(crate) async fn room_in_budget(&self, len: u64) -> Result<BudgetPermit, StoreError> {
        let Some(limit) = self.core.config.backend_timeout else {
            return Ok(self.data.budget.acquire(len).await);
        };
        tokio::select! {
            biased;
            permit = self.data.budget.acquire(len) => Ok(permit),
            stalled = self.stalled(limit) => Err(stalled),
        }
    }

    /// Waits until there has been no progress for `stall`, and returns an error with the reason.
    pub(crate) async fn stalled(&self, stall: Duration) -> StoreError {
        let mut progress = self.core.health.progress();
        let mut moved = Instant::now();
        loop {
            if let Ok(Ok(())) = tokio::time::timeout(PAUSE, progress.changed()).await {
                moved = Instant::now();
            }
            let limit = match self.core.backend.is_refused() {
                true => stall.min(REFUSED_MAX),
                false => stall,
            };
            if moved.elapsed() >= limit {
                return StoreError::Unavailable(self.standstill(moved.elapsed()).into());
            }
        }
    }

    fn standstill(&self, since: Duration) -> String {
        let mut text = format!("nothing has moved for {} s", since.as_secs());
        let failures = self.core.backend.lane_failures();
        for failure in &failures {
            text.push_str(&format!("; {failure}"));
        }
        if failures.is_empty()
            && let Some(last) = self.core.health.last()
        {
            text.push_str(&format!("; the last failed attempt: {last}"));
        }
        text
    }
}
