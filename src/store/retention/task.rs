//! The retention task of a writer: a run each day.

use std::time::Duration;

use crate::store::model::config::GcMode;
use crate::store::model::error::StoreError;
use crate::store::retention::Retention;
use crate::store::retention::brake::Brake;
use crate::store::retention::run::RunOptions;
use crate::sync::Arc;

/// How long horizons are shown to followers before the first drop below them: followers look for a newer state at least this often.
pub const HORIZON_GRACE: Duration = Duration::from_secs(10);
/// How often the amounts are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// From one run to the next.
const EVERY: Duration = Duration::from_secs(86_400);
/// From a run that failed to the next.
const AFTER_FAILURE: Duration = Duration::from_secs(600);

impl Retention {
    pub(crate) fn start(self: &Arc<Self>) {
        if self.core.config.reclaim == GcMode::Always {
            drop(
                self.core
                    .tasks
                    .spawn("retention", Arc::clone(self).run_daily()),
            );
        }
    }

    async fn run_daily(self: Arc<Self>) {
        let mut next = tokio::time::Instant::now() + LOOK;
        loop {
            self.core.sleep(LOOK).await;
            if self.core.tasks.is_stopped() || self.core.health.check().is_err() {
                return;
            }
            let is_reached = self.look_at_amounts().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot read how many bytes the history has");
                false
            });
            if !is_reached && tokio::time::Instant::now() < next {
                continue;
            }
            let options = RunOptions {
                grace: HORIZON_GRACE,
                brake: Brake::Held,
            };
            let wait = match self.run(options).await {
                Ok(report) => {
                    let dropped = report.dropped;
                    if report.examined() > 0 {
                        tracing::info!(
                            dropped = dropped.versions,
                            bytes = dropped.bytes,
                            examined = report.examined(),
                            "history was pruned"
                        );
                    }
                    EVERY
                }
                Err(StoreError::Closed) => return,
                Err(StoreError::Busy(_)) => AFTER_FAILURE,
                Err(error) => {
                    tracing::warn!(%error, "history was not pruned to the end; the next prune goes on");
                    AFTER_FAILURE
                }
            };
            next = tokio::time::Instant::now() + wait;
        }
    }

    /// Counts and records what is to be known about the amounts, and tells whether the history is to be made smaller.
    async fn look_at_amounts(&self) -> Result<bool, StoreError> {
        self.count_stored().await?;
        self.note_live_peak(self.now()).await?;
        let stopped = self.history_state().and_then(|state| state.stopped);
        self.look(stopped).await?;
        self.is_cap_reached().await
    }
}
