//! The state of a mount: which attempts failed, whether the writer has ended, and the counters that status output shows.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

use crate::store::model::error::StoreError;
use crate::store::model::failpoints::Failpoints;
use crate::store::model::version::Timestamp;
use crate::sync::{Mutex, lock};

/// The failures and the progress of a mount, and why its writer has ended.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Number of failed attempts: uploads of contents and of the log, commits, flushes, and a follower's refreshes.
    pub(crate) failures: AtomicU64,
    /// Number of failed write-backs.
    stuck: AtomicU64,
    /// The reason of the last failed attempt.
    last: Mutex<Option<String>>,
    /// Why nothing more is written.
    stopped: Mutex<Option<StoreError>>,
    notes: Mutex<Vec<String>>,
    pub(crate) conflicts: Mutex<RecoveredConflicts>,
    bytes: AtomicI64,
    files: AtomicI64,
    /// Places in the queue of the operations that a caller waits for; they are uploaded and committed without delay.
    pub(crate) expedited: Mutex<HashSet<u64>>,
    /// Ends the delays of the upload and commit tasks when a caller begins to wait, a drain begins or the writer ends.
    pub(crate) expedite: Notify,
    /// Notified when the writer ends.
    pub(crate) ended: Notify,
    /// Number of drains in progress.
    draining: AtomicUsize,
    /// Counts the uploads, commits and flushes that succeeded.
    progress: watch::Sender<u64>,
    pub(crate) failpoints: Failpoints,
}

impl Health {
    /// Fails once nothing more can be written.
    ///
    /// # Errors
    /// The error that ended the writer: `Fenced` when another writer has taken the namespace, `Closed` when the namespace is
    /// closed; `ReadOnly` on a follower.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        lock(&self.stopped).clone().map_or(Ok(()), Err)
    }

    /// Counts a failed attempt and keeps its reason.
    pub(crate) fn failed(&self, text: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last) = Some(text.to_owned());
    }

    /// Returns why the last failed attempt failed; `None` if none has failed since the mount.
    pub(crate) fn last(&self) -> Option<String> {
        lock(&self.last).clone()
    }

    /// Counts a failed write-back.
    pub(crate) fn set_back(&self) {
        self.stuck.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns how many attempts failed since the mount, write-backs included. Failed single requests to the object store are
    /// counted by `Backend::setbacks`.
    pub(crate) fn failed_attempts(&self) -> u64 {
        self.failures.load(Ordering::SeqCst) + self.stuck.load(Ordering::SeqCst)
    }

    /// Ends the writer with an error, which [`Health::check`] returns from now on. The first error stays.
    pub(crate) fn stop(&self, error: StoreError) {
        lock(&self.stopped).get_or_insert(error);
        self.expedite.notify_waiters();
        self.ended.notify_waiters();
    }

    /// Counts an upload, commit or flush that succeeded.
    pub(crate) fn moved(&self) {
        self.progress.send_modify(|steps| *steps += 1);
    }

    /// Returns a receiver of the number of uploads, commits and flushes that succeeded.
    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Begins a drain: until the guard is dropped, uploads and commits are not delayed to share a segment or a batch.
    pub(crate) fn drain(&self) -> DrainGuard<'_> {
        self.draining.fetch_add(1, Ordering::SeqCst);
        self.expedite.notify_waiters();
        DrainGuard(self)
    }

    /// Tells whether a drain is in progress.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst) > 0
    }

    /// Tells whether the writer has ended because another writer has taken the namespace.
    pub(crate) fn is_fenced(&self) -> bool {
        matches!(*lock(&self.stopped), Some(StoreError::Fenced))
    }

    /// Adds a line to the failures that status output shows, such as journal bytes that a replay could not read.
    pub(crate) fn note(&self, text: String) {
        lock(&self.notes).push(text);
    }

    /// Sets the usage of a follower's namespace to what its writer has committed: bytes and inodes.
    pub(crate) fn uses(&self, bytes: i64, files: i64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.files.store(files, Ordering::Relaxed);
    }

    /// Returns the failures since the mount as lines for users: the notes, `failing_lanes` (why the object store delays requests),
    /// the last failed attempt, and why nothing more is written.
    pub(crate) fn report(&self, failing_lanes: Vec<String>) -> Vec<String> {
        let mut failures = lock(&self.notes).clone();
        failures.extend(failing_lanes);
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

    /// Returns the bytes and inodes that the namespace holds.
    pub(crate) fn usage(&self) -> Usage {
        let positive = |n: &AtomicI64| n.load(Ordering::Relaxed).max(0).cast_unsigned();
        Usage {
            bytes: positive(&self.bytes),
            files: positive(&self.files),
        }
    }

    /// Adds to the usage the bytes and inodes of an operation; negative numbers subtract.
    pub(crate) fn use_more(&self, bytes: i64, files: i64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.files.fetch_add(files, Ordering::Relaxed);
    }
}

/// A drain in progress; dropping the guard ends it.
#[derive(Debug)]
pub(crate) struct DrainGuard<'a>(&'a Health);

impl Drop for DrainGuard<'_> {
    fn drop(&mut self) {
        self.0.draining.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a namespace holds, from counters in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of live files that are not holes.
    pub bytes: u64,
    /// Number of live inodes.
    pub files: u64,
}

/// What is not yet in the bucket, and which attempts failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadBacklog {
    /// Number of files with content or writes that the bucket does not have.
    pub files: u64,
    /// Bytes that wait for the bucket, as the dirty budget counts them.
    pub bytes: u64,
    /// Number of acknowledged operations that are not durable.
    pub operations: u64,
    /// Timestamp of the oldest of these operations.
    pub oldest: Option<Timestamp>,
    /// The failures since the mount: what a replay of the journal left out, why the last attempt failed, why nothing more can
    /// be written.
    pub failures: Vec<String>,
}

/// What this mount recovered from the journal of a writer that was fenced before its operations were committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredConflicts {
    /// Number of conflict versions that were made.
    pub versions: u64,
    /// The names that have such versions, as paths from the root; at most the first 100.
    pub places: Vec<String>,
    /// Number of operations of which no version was made: they had no content that could be recovered, or their content was
    /// provisional and a later operation replaced it.
    pub dropped: u64,
}
