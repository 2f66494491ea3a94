//! Drain and the end: waiting until the bucket has everything, over failed attempts, and ending without that.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::follower::Role;
use crate::store::model::error::StoreError;
use crate::store::namespace::{Namespace, Shared};

/// How long a drain waits unless told otherwise while nothing moves.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a reason must have stood that no retry mends.
const REFUSED_MAX: Duration = Duration::from_secs(10);

/// After a failed attempt; how long the next one is held back is the store's matter.
const PAUSE: Duration = Duration::from_millis(200);

impl Namespace {
    /// As [`Namespace::drain_within`] five minutes.
    ///
    /// # Errors
    /// As [`Namespace::drain_within`].
    pub async fn drain(&self) -> Result<(), StoreError> {
        self.drain_within(DRAIN_TIMEOUT).await
    }

    /// Waits until everything acknowledged is in the bucket, open files included, and logged. Failed attempts are made again;
    /// it gives up when nothing has moved for `stall`, or when credentials that this process cannot renew have been refused
    /// for a while.
    ///
    /// # Errors
    /// `Unavailable` says why nothing moves; what is missing stays queued. `Fenced`: it never will be.
    pub async fn drain_within(&self, stall: Duration) -> Result<(), StoreError> {
        if matches!(self.0.role, Role::Follower(_)) {
            return Ok(());
        }
        self.0.health.check()?;
        let _draining = self.0.health.drain();
        tokio::select! {
            drained = self.0.drain_all() => drained,
            stalled = self.0.stalled(stall) => Err(stalled),
        }
    }

    /// Drains and stops writing. The tasks it was opened with end soon after: a caller that opens the same cache directory again
    /// joins them before.
    ///
    /// # Errors
    /// As [`Namespace::drain`]; the journal keeps what is not in the bucket.
    pub async fn close(&self) -> Result<(), StoreError> {
        if let Role::Follower(follower) = &self.0.role {
            self.0.tasks.stop();
            return follower.close().await;
        }
        self.0.gc.end().await;
        let drained = self.drain().await;
        self.0.health.stop(StoreError::Closed);
        self.0.tasks.stop();
        let closed = self.0.index.writer()?.close().await;
        drained?;
        Ok(closed?)
    }

    /// Stops writing without the bucket: what it does not have lies in the cache directory, on its disk to stay, for the next
    /// open. The index is left as a crash would leave it.
    ///
    /// # Errors
    /// `Unavailable` when the local disk fails.
    pub async fn abandon(&self) -> Result<(), StoreError> {
        if matches!(self.0.role, Role::Follower(_)) {
            return self.close().await;
        }
        self.0.health.stop(StoreError::Closed);
        self.0.journal.freeze();
        self.0.tasks.stop();
        let directory = self.0.config.cache_dir.clone();
        let sync = move || -> std::io::Result<()> {
            Ok(rustix::fs::syncfs(std::fs::File::open(directory)?)?)
        };
        let synced = self.0.tasks.blocking("sync-cache", sync).await;
        let synced = synced.map_err(|_| StoreError::Closed)?;
        synced.map_err(|error| StoreError::Unavailable(format!("the cache directory: {error}")))
    }
}

impl Shared {
    async fn drain_all(&self) -> Result<(), StoreError> {
        loop {
            match self.drain_once().await {
                Err(StoreError::Unavailable(why)) => tracing::debug!(why, "still draining"),
                Err(StoreError::NoSpace) => tracing::debug!("still draining: the disk is full"),
                outcome => return outcome,
            }
            self.health.check()?;
            self.sleep(PAUSE).await;
        }
    }

    /// Brings everything there is now to the bucket and into the log, unless an attempt fails.
    pub(crate) async fn drain_once(&self) -> Result<(), StoreError> {
        self.write_back_all(None).await?;
        self.bring(&self.queue.all()).await?;
        self.upload_log(true).await?;
        self.journal.trim();
        Ok(())
    }

    /// Waits until nothing has moved for `stall`, and says why.
    async fn stalled(&self, stall: Duration) -> StoreError {
        let mut progress = self.health.progress();
        let mut moved = Instant::now();
        loop {
            if let Ok(Ok(())) = tokio::time::timeout(PAUSE, progress.changed()).await {
                moved = Instant::now();
            }
            let limit = match self.backend.is_refused() {
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
        let troubles = self.backend.troubles();
        for trouble in &troubles {
            text.push_str(&format!("; {trouble}"));
        }
        if troubles.is_empty()
            && let Some(last) = self.health.last()
        {
            text.push_str(&format!("; the last failed attempt: {last}"));
        }
        text
    }
}
