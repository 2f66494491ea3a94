//! Background tasks: write-back of dirty files (by age, and when the dirty budget or the disk is nearly full), and the deletion
//! of unlinked inodes that no process uses any more.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::store::model::error::StoreError;
use crate::store::model::version::{Ino, Op, Timestamp};
use crate::store::tree::Tree;
use crate::store::tree::flush::FLUSH_AGE_MAX;
use crate::store::tree::inode::{FlushedState, VersionTimestamp};
use crate::sync::{Arc, lock};

/// Pause after a failed attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// Writes that no flush recorded are written back after this time.
const DIRTY_AGE_MAX: Duration = Duration::from_secs(30);
/// A flushed state whose handle is not released within this time becomes a version: it keeps the journal.
const FLUSH_HELD_MAX: Duration = Duration::from_secs(600);

/// What is nearly used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressed {
    /// The budget of dirty bytes.
    Memory,
    /// The disk of the cache directory.
    Disk,
}

impl Tree {
    pub(crate) fn start(self: &Arc<Self>, orphans: mpsc::UnboundedReceiver<Ino>) {
        drop(self.core.tasks.spawn("age", Arc::clone(self).age_loop()));
        let pressure = Arc::clone(self).pressure_loop();
        drop(self.core.tasks.spawn("pressure", pressure));
        let reap = Arc::clone(self).reap_loop(orphans);
        drop(self.core.tasks.spawn("reap", reap));
    }

    /// Enqueues all dirty files as provisional states. `age` limits this to files whose oldest flush, or whose oldest unsaved
    /// change, is at least that old.
    ///
    /// # Errors
    /// The first failure; the other files are enqueued nevertheless.
    pub(crate) async fn write_back_all(
        &self,
        age: Option<(Duration, Duration)>,
    ) -> Result<(), StoreError> {
        self.core.health.check()?;
        let mut first = Ok(());
        for inode in self.inodes.dirty_inodes() {
            if let Err(error) = self.write_back_aged(inode.ino, age).await {
                tracing::warn!(ino = inode.ino.0, %error, "write-back of a file failed; retrying later");
                first = first.and(Err(error));
            }
        }
        first
    }

    /// Makes versions of the states that were flushed up to `at`, without waiting for the release of their handles.
    ///
    /// # Errors
    /// The first failure; the states that are left stay flushed.
    pub(crate) async fn save_flushed(&self, at: Timestamp) -> Result<(), StoreError> {
        self.room_for_names().await;
        self.save_where(|flush| flush.at <= at).await?;
        Ok(())
    }

    /// Makes versions of the states that were flushed at least `age` ago, whose handles are still open.
    ///
    /// # Errors
    /// As for [`Tree::save_flushed`].
    pub(crate) async fn save_held(&self, age: Duration) -> Result<(), StoreError> {
        self.save_where(|flush| flush.since.elapsed() >= age)
            .await?;
        Ok(())
    }

    /// Makes versions of the flushed states up to the last one of each file that is meant. Returns the number of files. It does not wait
    /// for disk space: the task that makes it calls this.
    async fn save_where(
        &self,
        is_meant: impl Fn(&FlushedState) -> bool,
    ) -> Result<usize, StoreError> {
        let mut saved = 0;
        for inode in self.inodes.dirty_inodes() {
            let mut locked = match self.lock(inode.ino).await {
                Ok(locked) => locked,
                Err(StoreError::NotFound) => continue,
                Err(error) => return Err(error),
            };
            let file = locked.as_file();
            let flushed = file.and_then(|file| file.flushes.iter().rfind(|flush| is_meant(flush)));
            if let Some(last) = flushed.map(|last| last.at) {
                self.save_upto(&mut locked, last, Op::Write).await?;
                saved += 1;
            }
        }
        Ok(saved)
    }

    async fn write_back_aged(
        &self,
        ino: Ino,
        age: Option<(Duration, Duration)>,
    ) -> Result<(), StoreError> {
        let mut locked = match self.lock(ino).await {
            Ok(locked) => locked,
            Err(StoreError::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(file) = locked.as_file() else {
            return Ok(());
        };
        let is_flush_old = file
            .flushes
            .first()
            .is_some_and(|f| age.is_none_or(|(max, _)| f.since.elapsed() >= max));
        let is_change_old = file
            .dirty_since
            .is_some_and(|since| age.is_none_or(|(_, max)| since.elapsed() >= max));
        if !is_flush_old && !is_change_old {
            return Ok(());
        }
        let author = file
            .flushes
            .last()
            .map_or_else(|| file.author.clone(), |f| f.author.clone());
        self.write_back(&mut locked, &author).await?;
        for flush in locked.as_file().into_iter().flat_map(|file| &file.flushes) {
            *lock(&flush.timestamp_state) = VersionTimestamp::Expired;
        }
        Ok(())
    }

    async fn age_loop(self: Arc<Self>) {
        while !self.core.tasks.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = self.core.tasks.stopped() => return,
            }
            // The failure is logged in `write_back_all`, and the next pass retries.
            let written = self
                .write_back_all(Some((FLUSH_AGE_MAX, DIRTY_AGE_MAX)))
                .await;
            if written.is_ok()
                && let Err(error) = self.save_held(FLUSH_HELD_MAX).await
            {
                tracing::warn!(%error, "a closed state whose handle is still open did not become a version; retrying later");
            }
        }
    }

    async fn pressure_loop(self: Arc<Self>) {
        while !self.core.tasks.is_stopped() {
            let pressed = tokio::select! {
                () = self.data.budget.pressure() => Pressed::Memory,
                () = self.space.pressure() => Pressed::Disk,
                () = self.core.tasks.stopped() => return,
            };
            if self.core.health.is_fenced() {
                return;
            }
            let draining = self.core.health.drain();
            let pass = self.space.begin();
            match self.relieve(pressed).await {
                Ok(()) => self.space.end(pass),
                Err(error) => {
                    self.core.health.set_back();
                    tracing::warn!(%error, "write-back for disk space or the dirty budget failed; retrying, writers wait");
                    self.core.sleep(PAUSE).await;
                }
            }
            drop(draining);
        }
    }

    /// Makes every change durable. For disk space, flushed states then become versions: until then, they keep the journal.
    async fn relieve(&self, pressed: Pressed) -> Result<(), StoreError> {
        self.drain_once().await?;
        match pressed {
            Pressed::Memory => Ok(()),
            Pressed::Disk => match self.save_where(|_| true).await {
                Ok(0) => Ok(()),
                Ok(_) => self.drain_once().await,
                Err(error) => {
                    tracing::warn!(%error, "a closed state whose handle is still open did not become a version; it keeps the journal");
                    Ok(())
                }
            },
        }
    }

    async fn reap_loop(self: Arc<Self>, mut orphans: mpsc::UnboundedReceiver<Ino>) {
        loop {
            let ino = tokio::select! {
                ino = orphans.recv() => ino,
                () = self.core.tasks.stopped() => return,
            };
            let Some(ino) = ino else { return };
            if let Err(error) = self.reap(ino).await {
                tracing::warn!(ino = ino.0, %error, "cannot delete an unlinked inode; the next mount deletes it");
            }
        }
    }
}
