//! Drain and the end: waiting until the bucket has everything, over failed attempts, and ending without that.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::model::error::StoreError;
use crate::store::tree::Tree;

/// How long a reason must have stood that no retry mends.
const REFUSED_MAX: Duration = Duration::from_secs(10);

/// After a failed attempt; how long the next one is held back is the store's matter.
const PAUSE: Duration = Duration::from_millis(200);

impl Tree {
    pub(crate) async fn drain_all(&self) -> Result<(), StoreError> {
        loop {
            match self.drain_once().await {
                Err(StoreError::Unavailable(why)) => tracing::debug!(why, "still draining"),
                Err(StoreError::NoSpace) => tracing::debug!("still draining: the disk is full"),
                outcome => return outcome,
            }
            self.core.health.check()?;
            self.core.sleep(PAUSE).await;
        }
    }

    /// Brings everything there is now to the bucket and into the log, unless an attempt fails.
    pub(crate) async fn drain_once(&self) -> Result<(), StoreError> {
        self.write_back_all(None).await?;
        self.commit.bring(&self.commit.queue.all()).await?;
        self.commit.upload_log(true).await?;
        self.core.journal.trim();
        Ok(())
    }

    /// Waits until nothing has moved for `stall`, and says why.
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
                return StoreError::Unavailable(self.standstill(moved.elapsed()));
            }
        }
    }

    fn standstill(&self, since: Duration) -> String {
        let mut text = format!("nothing has moved for {} s", since.as_secs());
        let troubles = self.core.backend.troubles();
        for trouble in &troubles {
            text.push_str(&format!("; {trouble}"));
        }
        if troubles.is_empty()
            && let Some(last) = self.core.health.last()
        {
            text.push_str(&format!("; the last failed attempt: {last}"));
        }
        text
    }
}
