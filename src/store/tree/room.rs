//! Room on the cache directory's disk: what hurries when it is nearly full, who waits, and who is told that there is none.
//!
//! What is written takes room until the bucket has it. A write that finds none gives up cached blocks, then waits while
//! something is on its way to the bucket: each step that succeeds may have made room, and the write is tried again. It fails
//! when everything has been brought there and there is still none, or when an attempt has failed since it came and nothing
//! has moved.

use std::time::Duration;

use crate::store::model::error::StoreError;
use crate::store::model::failpoints::Failpoint;
use crate::store::tree::Tree;
use crate::sync::Ordering;

/// Bytes of cached blocks that are given up at once.
const GIVE_UP: u64 = 4 << 20;

/// How often the state is looked at while nothing says that it has changed.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// How long the last files may take to go after the bucket has everything.
const LAST_FILES: Duration = Duration::from_millis(500);

/// How much larger the free room must be than what waits for the bucket, or that is hurried.
const AMPLE: u64 = 2;

/// Tries after which a call that finds no room, though there seems to be some, is told so: a quota, most likely.
const TRIES: u32 = 3;

/// A call that may find no room.
#[derive(Debug)]
pub(crate) struct SpaceWait<'a> {
    tree: &'a Tree,
    progress: u64,
    failed_attempts: u64,
    begun: u64,
    tries: u32,
}

impl Tree {
    /// Fails unless the cache directory takes `len` more bytes; what the bucket has by now makes room.
    pub(crate) fn room(&self, len: u64) -> Result<(), StoreError> {
        let left = match self.data.staging.room(len) {
            Ok(left) => left,
            Err(_) => {
                self.core.journal.trim();
                self.data.staging.room(len)?
            }
        };
        if left < self.data.budget.used().saturating_mul(AMPLE) {
            self.space.press();
        }
        Ok(())
    }

    /// What a call needs that may have to wait for room; made before it is tried.
    pub(crate) fn waiting(&self) -> SpaceWait<'_> {
        SpaceWait {
            tree: self,
            progress: *self.core.health.progress().borrow(),
            failed_attempts: self.commit.failed_attempts(),
            begun: self.space.begun.load(Ordering::SeqCst),
            tries: 0,
        }
    }

    /// Waits while the disk has hardly room for names and what is on its way may make some. Then the call itself is to find
    /// out: it needs little.
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
    /// Waits until there may be more room than before, for a call that found none for `len` bytes.
    ///
    /// # Errors
    /// `NoSpace` when none is to be expected.
    pub(crate) async fn more(&mut self, len: u64) -> Result<(), StoreError> {
        let tree = self.tree;
        tree.core.health.check()?;
        if tree.data.extents.give_up(GIVE_UP) > 0 {
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
            if tree.commit.failed_attempts() > self.failed_attempts || idle >= LAST_FILES {
                return Err(StoreError::NoSpace);
            }
            let all_there = *tree.space.ended.borrow() > self.begun;
            if all_there || tree.core.health.failpoints.before(Failpoint::Pack) {
                idle += SCAN_INTERVAL;
                // The last holder of a file that the bucket has may let it go a moment later.
                if self.tries < TRIES && tree.data.staging.room(len).is_ok() {
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
