//! Space on the cache directory's disk: when uploads are expedited, which calls wait, and when a call fails with `NoSpace`.
//!
//! Written bytes occupy disk space until the bucket has them. A write that finds no space first evicts cached blocks, then waits
//! while something is being uploaded: each completed step may have freed space, and the write is tried again. The
//! write fails when everything has been uploaded and there is still no space, or when an attempt failed since the write began
//! and there was no progress.

use std::time::Duration;

use crate::store::model::error::StoreError;
use crate::store::model::failpoints::Failpoint;
use crate::store::tree::Tree;
use crate::sync::Ordering;

/// Bytes of cached blocks that are evicted at once.
const EVICTION_STEP: u64 = 4 << 20;

/// Poll interval while no progress is reported.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// How long the deletion of the last staging files may take after the bucket has everything.
const DELETION_TIME_MAX: Duration = Duration::from_millis(500);

/// Uploads are expedited when free space is less than this many times the bytes that wait for the bucket.
const SPACE_FACTOR: u64 = 2;

/// Attempts after which a call fails although the disk seems to have space: a quota is the likely reason.
const ATTEMPTS_MAX: u32 = 3;

/// The state of a call that may have to wait for disk space.
#[derive(Debug)]
pub(crate) struct SpaceWait<'a> {
    tree: &'a Tree,
    progress: u64,
    failed_attempts: u64,
    begun: u64,
    tries: u32,
}

impl Tree {
    /// Fails unless the cache directory takes `len` more bytes; trims the journal of durable records if there is no space.
    pub(crate) fn room(&self, len: u64) -> Result<(), StoreError> {
        let left = match self.data.staging.room(len) {
            Ok(left) => left,
            Err(_) => {
                self.core.journal.trim();
                self.data.staging.room(len)?
            }
        };
        if left < self.data.budget.used().saturating_mul(SPACE_FACTOR) {
            self.space.press();
        }
        Ok(())
    }

    /// Starts the wait state of a call. To be created before the first attempt, so that no later progress is missed.
    pub(crate) fn waiting(&self) -> SpaceWait<'_> {
        SpaceWait {
            tree: self,
            progress: *self.core.health.progress().borrow(),
            failed_attempts: self.commit.failed_attempts(),
            begun: self.space.begun.load(Ordering::SeqCst),
            tries: 0,
        }
    }

    /// Waits while the disk has hardly any space for metadata and pending uploads may free some. Returns in either case: the call
    /// needs little and reports `NoSpace` itself.
    pub(crate) async fn room_for_names(&self) {
        let mut waiting = None;
        while self.data.staging.is_scarce() {
            let waiting = waiting.get_or_insert_with(|| self.waiting());
            if waiting.more(0).await.is_err() {
                return;
            }
        }
    }
}

impl SpaceWait<'_> {
    /// Waits until there may be more space, after a call found none for `len` bytes.
    ///
    /// # Errors
    /// `NoSpace` when no more space can be expected.
    pub(crate) async fn more(&mut self, len: u64) -> Result<(), StoreError> {
        let tree = self.tree;
        tree.core.health.check()?;
        if tree.data.extents.give_up(EVICTION_STEP) > 0 {
            return Ok(());
        }
        let mut progress = tree.core.health.progress();
        let mut idle = Duration::ZERO;
        loop {
            let moved = *progress.borrow_and_update();
            if moved > self.progress {
                *self = SpaceWait {
                    progress: moved,
                    ..tree.waiting()
                };
                return Ok(());
            }
            tree.core.health.check()?;
            if tree.commit.failed_attempts() > self.failed_attempts || idle >= DELETION_TIME_MAX {
                return Err(StoreError::NoSpace);
            }
            let all_there = *tree.space.ended.borrow() > self.begun;
            if all_there || tree.core.health.failpoints.before(Failpoint::Pack) {
                idle += SCAN_INTERVAL;
                // The last holder of an uploaded staging file may release the file a moment after the upload.
                if self.tries < ATTEMPTS_MAX && tree.data.staging.room(len).is_ok() {
                    self.tries += 1;
                    return Ok(());
                }
            } else {
                tree.space.press();
            }
            let _timeout = tokio::time::timeout(SCAN_INTERVAL, progress.changed()).await;
        }
    }
}
