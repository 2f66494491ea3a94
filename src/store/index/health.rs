//! How a writer is: what failed, whether it may go on, and what is not yet in the bucket.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

use crate::store::model::error::StoreError;
use crate::store::model::failpoints::Failpoints;
use crate::store::model::version::Timestamp;
use crate::sync::{Mutex, lock};

/// How the writer is: what failed, and whether it may go on.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) failures: AtomicU64,
    stuck: AtomicU64,
    last: Mutex<Option<String>>,
    stopped: Mutex<Option<StoreError>>,
    notes: Mutex<Vec<String>>,
    pub(crate) conflicts: Mutex<RecoveredConflicts>,
    bytes: AtomicI64,
    files: AtomicI64,
    /// fsync and drain in progress: operations that must not wait for company.
    pub(crate) expedited: Mutex<HashSet<u64>>,
    pub(crate) expedite: Notify,
    draining: AtomicUsize,
    /// Counts steps that succeeded on the way to the bucket.
    progress: watch::Sender<u64>,
    pub(crate) failpoints: Failpoints,
}

impl Health {
    /// Fails once the writer has lost its place or has ended.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        lock(&self.stopped).clone().map_or(Ok(()), Err)
    }

    pub(crate) fn failed(&self, text: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last) = Some(text.to_owned());
    }

    /// Why the last attempt failed.
    pub(crate) fn last(&self) -> Option<String> {
        lock(&self.last).clone()
    }

    /// Something could not even be sent on its way.
    pub(crate) fn set_back(&self) {
        self.stuck.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts what failed on the way to the bucket, requests of the index apart.
    pub(crate) fn failed_attempts(&self) -> u64 {
        self.failures.load(Ordering::SeqCst) + self.stuck.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self, error: StoreError) {
        lock(&self.stopped).get_or_insert(error);
        self.expedite.notify_waiters();
    }

    /// Something has come further on its way to the bucket.
    pub(crate) fn moved(&self) {
        self.progress.send_modify(|steps| *steps += 1);
    }

    /// How many steps succeeded, to be waited on.
    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// While the guard lives, nothing waits for company on its way.
    pub(crate) fn drain(&self) -> DrainGuard<'_> {
        self.draining.fetch_add(1, Ordering::SeqCst);
        self.expedite.notify_waiters();
        DrainGuard(self)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn is_fenced(&self) -> bool {
        matches!(*lock(&self.stopped), Some(StoreError::Fenced))
    }

    /// Something that status must tell, such as bytes that did not verify at replay.
    pub(crate) fn note(&self, text: String) {
        lock(&self.notes).push(text);
    }

    /// What the writer of a namespace that is only read says it holds.
    pub(crate) fn uses(&self, bytes: i64, files: i64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.files.store(files, Ordering::Relaxed);
    }

    /// What went wrong since the mount, for people: notes, `troubles` of the object store, the last failed attempt, why
    /// nothing more is written.
    pub(crate) fn report(&self, troubles: Vec<String>) -> Vec<String> {
        let mut failures = lock(&self.notes).clone();
        failures.extend(troubles);
        if let Some(last) = lock(&self.last).as_ref() {
            let times = self.failures.load(Ordering::Relaxed);
            failures.push(format!("{times} failed attempts, the last: {last}"));
        }
        let stopped = lock(&self.stopped);
        let why = stopped
            .as_ref()
            .filter(|why| !matches!(why, StoreError::ReadOnly));
        failures.extend(why.map(ToString::to_string));
        failures
    }

    /// What the namespace holds.
    pub(crate) fn usage(&self) -> Usage {
        let positive = |n: &AtomicI64| n.load(Ordering::Relaxed).max(0).cast_unsigned();
        Usage {
            bytes: positive(&self.bytes),
            files: positive(&self.files),
        }
    }

    pub(crate) fn use_more(&self, bytes: i64, files: i64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.files.fetch_add(files, Ordering::Relaxed);
    }
}

/// A caller waits for everything.
#[derive(Debug)]
pub(crate) struct DrainGuard<'a>(&'a Health);

impl Drop for DrainGuard<'_> {
    fn drop(&mut self) {
        self.0.draining.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a namespace holds, from memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of live files that are not holes.
    pub bytes: u64,
    /// Live inodes.
    pub files: u64,
}

/// What is not yet in the bucket, and what went wrong on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadBacklog {
    /// Files with content or writes that the bucket does not have.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Acknowledged operations that are not durable.
    pub operations: u64,
    /// Timestamp of the oldest of them.
    pub oldest: Option<Timestamp>,
    /// What went wrong since the mount: why the last attempt failed, what a replay had to leave out, why nothing more can be
    /// written.
    pub failures: Vec<String>,
}

/// What this mount made of a journal that another writer had overtaken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredConflicts {
    /// Versions marked `conflict`.
    pub versions: u64,
    /// Names that have them, as paths from the root; the first hundred.
    pub places: Vec<String>,
    /// Operations without content, and contents that later ones replaced: they were dropped.
    pub dropped: u64,
}
