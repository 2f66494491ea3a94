//! The tasks between an acknowledged operation and the bucket: pack and upload, commit, make durable, log.
//!
//! Each task wakes when the queue changes or when its interval is over. A failure is recorded in
//! [`Health`](crate::store::index::health::Health) and the work is tried again. Callers that wait for the bucket (fsync,
//! drain) expedite the operations they need.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::backend::Lane;
use crate::meta::{Batch, Commit, MetaState};
use crate::store::commit::Committer;
use crate::store::commit::operation::{Operation, OperationStage};
use crate::store::commit::resolved::ResolvedWatermark;
use crate::store::commit::review_lists::AddedReviews;
use crate::store::data::{contents::UploadState, retry_upload};
use crate::store::model::error::StoreError;
pub(crate) use crate::store::model::failpoints::Failpoint;
use crate::store::model::version::Ino;
use crate::store::schema::journal_record::Record;
use crate::store::schema::keys;
use crate::store::schema::rows::encode_long;
use crate::sync::{Arc, lock};

/// Maximum size of the rows of one batch, bytes; the last operation may exceed it.
const BATCH_MAX: usize = 4 << 20;
/// Delay before a commit when no caller waits, so that more operations share one batch: every batch rewrites `G A` and is logged.
const COMMIT_LINGER: Duration = Duration::from_millis(50);
/// Delay between a change of the queue and the next choice of contents to upload, so that more operations are queued by
/// then; and the longer delay after a choice among many, since each choice looks at all of them.
const SCAN_INTERVAL: Duration = Duration::from_millis(5);
const SCAN_EACH: Duration = Duration::from_micros(10);
const SCAN_INTERVAL_MAX: Duration = Duration::from_millis(50);
/// Interval of checks whether a commit is not durable. A commit that no caller waits for is flushed by the second check.
const FLUSH_CHECK: Duration = Duration::from_millis(500);
/// The number of committed operations from which they are flushed without delay: until then each keeps some kilobytes of memory.
const FLUSH_MANY: usize = 2000;
/// Interval of checks whether the log is to be uploaded.
const LOG_CHECK: Duration = Duration::from_secs(1);
/// Delay after a failed commit or flush.
const PAUSE: Duration = Duration::from_secs(1);
impl Committer {
    /// Waits until all queued changes of a directory and of its names are in the bucket.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`.
    pub async fn sync_directory(&self, directory: Ino) -> Result<(), StoreError> {
        let operations = self.queue.last_on(&keys::inode(directory), Some(directory));
        self.wait_all_durable(&operations).await
    }
}

impl Committer {
    pub(crate) fn start(self: &Arc<Self>) {
        let applied = self.core.applied_now();
        self.core.health.use_more(applied.bytes, applied.files);
        drop(
            self.core
                .tasks
                .spawn("pack-groups", Arc::clone(self).upload_loop()),
        );
        drop(
            self.core
                .tasks
                .spawn("commit", Arc::clone(self).commit_loop()),
        );
        drop(
            self.core
                .tasks
                .spawn("flush", Arc::clone(self).flush_loop()),
        );
        drop(self.core.tasks.spawn("log", Arc::clone(self).log_loop()));
        drop(
            self.core
                .tasks
                .spawn("fence", Arc::clone(self).fence_watch()),
        );
    }

    /// Waits until operations are durable, as [`Self::wait_durable`].
    pub(crate) async fn wait_all_durable(
        &self,
        operations: &[Arc<Operation>],
    ) -> Result<(), StoreError> {
        for operation in operations {
            self.wait_durable(operation).await?;
        }
        Ok(())
    }

    /// Expedites an operation and the operations it depends on, and waits until it is durable.
    ///
    /// # Errors
    /// `Fenced`; `Unavailable` if an attempt on one of these operations fails meanwhile. The operations stay queued.
    pub(crate) async fn wait_durable(&self, operation: &Arc<Operation>) -> Result<(), StoreError> {
        self.core.health.check()?;
        let needed = self.queue.needed_by(operation.order);
        {
            let mut expedited = lock(&self.core.health.expedited);
            expedited.extend(needed.iter().map(|o| o.order));
            // `commit` removed those that were committed before they were added here, so it does not remove them again.
            for operation in needed.iter().filter(|o| o.is_committed()) {
                expedited.remove(&operation.order);
            }
        }
        self.core.health.expedite.notify_waiters();
        let failed_attempts = self.failed_attempts();
        let mut stage = operation.stage();
        let commit = loop {
            match *stage.borrow_and_update() {
                OperationStage::Durable => return Ok(()),
                OperationStage::Committed(commit) => break commit,
                OperationStage::Queued | OperationStage::Leaving => {}
            }
            self.core.health.check()?;
            if self.failed_attempts() > failed_attempts
                && let Some(why) = self.held_up(&needed)
            {
                return Err(StoreError::Unavailable(why.into()));
            }
            let _timeout = tokio::time::timeout(Duration::from_millis(100), stage.changed()).await;
        };
        self.make_durable(commit).await
    }

    /// Counts failed attempts to write to the bucket, and failed health checks.
    pub(crate) fn failed_attempts(&self) -> u64 {
        self.core.health.failed_attempts() + self.core.backend.failed_requests()
    }

    /// Returns why operations are not in the bucket: the last upload of one of them failed, or the circuit breaker of
    /// segments is open.
    fn held_up(&self, needed: &[Arc<Operation>]) -> Option<String> {
        needed.iter().find_map(failed).or_else(|| {
            let not_uploaded =
                |o: &Arc<Operation>| o.content.as_ref().is_some_and(|c| !c.is_uploaded());
            let waits = needed.iter().any(not_uploaded);
            let failure = self
                .core
                .backend
                .lane_failure(Lane::Segments)
                .filter(|_| waits);
            failure.map(|failure| failure.error.to_string())
        })
    }

    /// Waits until `commit` is durable, and releases what its operations kept.
    async fn make_durable(&self, commit: Commit) -> Result<(), StoreError> {
        self.core
            .index
            .writer()?
            .durable(commit)
            .await
            .map_err(StoreError::from)
            .inspect_err(|e| self.core.health.failed(&e.to_string()))?;
        let proof = self.epoch_object.write().await;
        proof.inspect_err(|e| self.core.health.failed(&e.to_string()))?;
        self.log.durable(commit);
        self.core.health.moved();
        for (_, held) in self.queue.durable(commit) {
            for staging in &held.staging {
                staging.finished();
            }
            self.log.hold(commit, held.journal);
        }
        Ok(())
    }

    async fn upload_loop(self: Arc<Self>) {
        let mut busy: HashSet<u64> = HashSet::new();
        let (done, mut finished) = mpsc::unbounded_channel::<Vec<u64>>();
        while !self.core.tasks.is_stopped() {
            let (changed, expedite) = (
                self.core.changed.notified(),
                self.core.health.expedite.notified(),
            );
            while let Ok(orders) = finished.try_recv() {
                for order in orders {
                    busy.remove(&order);
                }
            }
            let waiting: Vec<_> = self
                .queue
                .not_uploaded()
                .into_iter()
                .filter(|o| !busy.contains(&o.order))
                .collect();
            let halted = self.core.health.failpoints.before(Failpoint::Pack)
                || self.core.health.check().is_err();
            let interval = SCAN_INTERVAL + SCAN_EACH * waiting.len() as u32;
            let (pack_groups, wake) = self.pack_groups(if halted { Vec::new() } else { waiting });
            for (group, inline) in pack_groups {
                let orders: Vec<u64> = group.iter().map(|o| o.order).collect();
                busy.extend(&orders);
                let (committer, done) = (Arc::clone(&self), done.clone());
                drop(self.core.tasks.spawn("upload-group", async move {
                    let tries = group.iter().map(failures).max().unwrap_or_default();
                    if tries > 0 {
                        committer.core.sleep(retry_upload::pause(tries)).await;
                    }
                    committer.upload_group(group, inline).await;
                    let _receiver_gone = done.send(orders);
                }));
            }
            tokio::select! {
                () = changed => self.wait_linger(interval.min(SCAN_INTERVAL_MAX)).await,
                () = expedite => {}
                Some(orders) = finished.recv() => for order in orders { busy.remove(&order); },
                () = tokio::time::sleep(wake) => {}
                () = self.core.tasks.stopped() => {}
            }
        }
    }

    async fn commit_loop(self: Arc<Self>) {
        while !self.core.tasks.is_stopped() {
            let changed = self.core.changed.notified();
            self.wait_linger(COMMIT_LINGER).await;
            let halted = self.core.health.failpoints.before(Failpoint::Commit);
            let leaving = if halted {
                Vec::new()
            } else {
                self.queue.take_batch(BATCH_MAX)
            };
            if leaving.is_empty() {
                // Whatever makes an operation ready to be committed notifies `changed` afterwards.
                tokio::select! {
                    () = changed => {}
                    () = self.core.tasks.stopped() => {}
                }
                continue;
            }
            if let Err(error) = self.commit(&leaving).await {
                self.queue.put_back(&leaving);
                if matches!(error, StoreError::Fenced | StoreError::Closed) {
                    self.core.stop_writing(error);
                    return;
                }
                self.core.health.failed(&error.to_string());
                tracing::error!(%error, "commit failed; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Waits for `time`, so that more operations can be queued; returns at once when a caller waits for the bucket.
    async fn wait_linger(&self, time: Duration) {
        let expedite = self.core.health.expedite.notified();
        if !lock(&self.core.health.expedited).is_empty() || self.core.health.is_draining() {
            return;
        }
        tokio::select! {
            () = expedite => {}
            () = tokio::time::sleep(time) => {}
            () = self.core.tasks.stopped() => {}
        }
    }

    async fn commit(&self, leaving: &[Arc<Operation>]) -> Result<(), StoreError> {
        let mut applied = self.core.applied_now();
        for operation in leaving {
            applied.add(operation.epoch, operation.number);
            // The lengths of sparse files may add up to more than 2^63. A wrapped sum is right again after a removal.
            applied.bytes = applied.bytes.wrapping_add(operation.usage.bytes);
            applied.files += operation.usage.files;
        }
        let number = applied.next_batch(self.core.epoch);
        applied.next_id = self.core.next_id();
        applied.clock = self.core.clock.last();
        applied.low_watermark = self.low_watermark_without(leaving).0;
        let batches: Vec<Batch> = leaving.iter().flat_map(|o| o.batches()).collect();
        let count = batches.iter().map(|batch| batch.rows().len()).sum();
        let mut batch = Batch::with_room(count);
        let mut rows_keys = Vec::with_capacity(count);
        for rows in batches {
            rows_keys.extend(rows.rows().iter().map(|(key, _)| key.clone()));
            batch.append(rows);
        }
        // Many operations change the same few rows: the counters of a directory and of the namespace.
        rows_keys.sort_unstable();
        rows_keys.dedup();
        let settling = lock(&self.core.provisional).prepare(&mut batch, applied.next_id);
        let logged = self.log.record(&mut batch);
        let archived_watermarks = lock(&self.core.archived_watermarks).put(&applied, &mut batch);
        let rows = encode_long(&batch, batch.encoded_max());
        let record = Record::Batch {
            epoch: self.core.epoch,
            number,
            rows: rows.clone(),
        };
        let token = match self.core.append(&record) {
            Ok(token) => Some(token),
            // A full disk does not stop commits, since only they free space. If this process ends before the log has the
            // batch, the next mount logs all rows of the index instead.
            Err(StoreError::NoSpace) => None,
            Err(error) => return Err(error),
        };
        let orders: Vec<u64> = leaving.iter().map(|o| o.order).collect();
        let added = AddedReviews::of(&batch);
        let commit = self.core.index.commit(&orders, &rows_keys, batch).await?;
        self.review_lists.added(added);
        self.log.add(&applied, rows, commit, token);
        *lock(&self.core.applied) = applied;
        if let Some(archived_watermarks) = archived_watermarks {
            *lock(&self.core.archived_watermarks) = archived_watermarks;
        }
        lock(&self.core.provisional).committed(settling);
        self.log.recorded(logged);
        self.queue.committed(leaving, commit);
        if self.queue.committed_len() >= FLUSH_MANY {
            self.many_committed.notify_one();
        }
        self.core.health.moved();
        let mut expedited = lock(&self.core.health.expedited);
        for order in orders {
            expedited.remove(&order);
        }
        Ok(())
    }

    /// Flushes commits that no caller makes durable.
    ///
    /// A flush of a commit of which a caller is waiting would count as one more caller: the next fsync would wait for it
    /// to come again. So only what was there at the check before is flushed, or what are many operations.
    async fn flush_loop(self: Arc<Self>) {
        let mut seen = None;
        while !self.core.tasks.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep(FLUSH_CHECK) => {}
                () = self.many_committed.notified() => seen = self.log.newest_commit(),
                () = self.core.tasks.stopped() => return,
            }
            if self.core.health.is_fenced() {
                return;
            }
            let commit = match self.log.newest_commit() {
                Some(newest) => {
                    let before = seen.replace(newest);
                    before.filter(|b| !self.log.is_durable(*b)).and(seen)
                }
                // A flush may end between the two steps in which a commit is noted: its operations are marked here.
                None => self.queue.newest_committed(),
            };
            if let Some(commit) = commit
                && !self.core.health.failpoints.before(Failpoint::Flush)
                && let Err(error) = self.make_durable(commit).await
                && !matches!(error, StoreError::Fenced)
            {
                tracing::warn!(%error, "flush failed; trying again");
                self.core.sleep(PAUSE).await;
            }
        }
    }

    /// A task of its own beside `flush_loop`, because an upload waits while the object store fails.
    async fn log_loop(self: Arc<Self>) {
        while !self.core.tasks.is_stopped() {
            self.core.sleep(LOG_CHECK).await;
            if self.core.health.is_fenced() {
                return;
            }
            if !self.core.health.failpoints.before(Failpoint::Log)
                && let Err(error) = self.upload_log(false).await
                && !matches!(error, StoreError::Closed)
            {
                self.core.health.failed(&error.to_string());
                tracing::warn!(%error, "log upload failed; trying again");
            }
        }
    }

    /// Returns a sequence: every segment of this epoch below it is cited by a durable batch, or never will be.
    pub(crate) fn resolved_segments(&self) -> u64 {
        let mut resolved = lock(&self.resolved);
        let next = resolved.next.get_or_insert_with(|| {
            let segment = self.data.first_unresolved();
            let queued = self.queue.newest();
            ResolvedWatermark { queued, segment }
        });
        if self.queue.is_durable(next.queued) {
            resolved.known = next.segment;
            resolved.next = None;
        }
        resolved.known
    }

    /// Uploads durable batches to the log, as [`Log::upload`](crate::store::commit::log::Log::upload).
    ///
    /// # Errors
    /// `Closed` when the namespace is closed meanwhile; `Unavailable`.
    pub(crate) async fn upload_log(&self, now: bool) -> Result<(), StoreError> {
        tokio::select! {
            uploaded = self.log.upload(now, self.resolved_segments()) => {
                if uploaded? > 0 {
                    self.core.health.moved();
                }
                Ok(())
            }
            () = self.core.tasks.stopped() => Err(StoreError::Closed),
        }
    }

    async fn fence_watch(self: Arc<Self>) {
        let Ok(index) = self.core.index.writer() else {
            return;
        };
        tokio::select! {
            state = index.ended() => match state {
                MetaState::Fenced => self.core.stop_writing(StoreError::Fenced),
                MetaState::Failed(why) => self.core.stop_writing(StoreError::Unavailable(why.into())),
                MetaState::Open | MetaState::Closed => {}
            },
            task = self.core.tasks.failed() => {
                let why = format!("the task {task} failed, see the log");
                self.core.stop_writing(StoreError::Unavailable(why.into()));
            }
            () = self.core.tasks.stopped() => {}
        }
    }
}

/// Returns how often the upload of an operation's content has failed.
fn failures(operation: &Arc<Operation>) -> u32 {
    let content = operation.content.as_ref();
    content.map_or(0, |c| match *c.upload_state.borrow() {
        UploadState::Failed(times, _) => times,
        _ => 0,
    })
}

fn failed(operation: &Arc<Operation>) -> Option<String> {
    match &*operation.content.as_ref()?.upload_state.borrow() {
        UploadState::Failed(_, why) => Some(why.clone()),
        _ => None,
    }
}
