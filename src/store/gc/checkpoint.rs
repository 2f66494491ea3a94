//! Checkpoints of the log: the rows as they stand are logged as a list, and what came before it is deleted.
//!
//! Path: the list's parts are logged one at a time, each from a snapshot of its own (`Log::upload_part`); then the object that
//! completes it; then a batch with the row `G K` names it. Then the objects before it are searched for segments that the index
//! lacks, the row says so, and once that is durable they are deleted, oldest first. A crash before the completing object leaves a
//! list that a replay ignores, and that the next checkpoint deletes. A crash behind it leaves objects that no replay needs; the
//! next mount goes on where the row `G K` says, or the next checkpoint deletes them.
//!
//! Invariant: no log object is deleted unless a durable row names a complete list behind it, every object from there on exists, and
//! the log before it cites no segment that the index does not (docs/decisions/0001-deletion-needs-evidence.md).

use std::time::Duration;

use crate::store::commit::log::{ListPart, LoggedPart, PartUpload};
use crate::store::commit::log_object::{self, ListedObject, LogBase};
use crate::store::commit::row_list;
use crate::store::gc::Gc;
use crate::store::gc::state::{CheckpointProgress, CheckpointStage, PartialList, UncitedSegments};
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::keys;
use crate::store::schema::rows::{CheckpointRow, LogPlace, OlderLog};
use crate::store::schema::tables::{AppliedTable, RowTable};
use crate::sync::Arc;

/// Pause between two looks at the size of the log.
const PAUSE: Duration = Duration::from_secs(5);
/// Pause between two steps of a checkpoint, and between two attempts of one.
const STEP_PAUSE: Duration = Duration::from_millis(100);
/// How often a part is tried until its rows are durable and no later batch is logged.
const ATTEMPTS: usize = 50;
/// Number of log objects that are deleted concurrently,
const DELETED_AT_ONCE: usize = 16;
/// and how many times in one step.
const CHUNKS_MAX: usize = 16;

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointOutcome {
    /// Something was done, and there may be more to do.
    Moved,
    /// Nothing can be done now.
    Waits,
}

impl Gc {
    /// Makes a checkpoint of the log now, and deletes the log objects before it. Returns whether they were deleted; they are kept
    /// while segments of earlier writers have not been searched for in them.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`; a later call makes another one.
    pub async fn checkpoint(&self) -> Result<bool, StoreError> {
        self.checkpoint.lock().await.wanted = true;
        while self.checkpoint_step().await? == CheckpointOutcome::Moved {}
        let progress = self.checkpoint.lock().await;
        let is_done = !progress.wanted && matches!(progress.stage, CheckpointStage::Idle);
        Ok(is_done && progress.recorded.older == OlderLog::Searched)
    }

    /// Begins the log again with a list of all rows, whatever is known about the objects before it: they are kept until a later cycle has
    /// searched them.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`; a later call makes another list.
    pub(crate) async fn log_anew(&self) -> Result<(), StoreError> {
        {
            let mut progress = self.checkpoint.lock().await;
            self.list_log(&mut progress).await?;
            progress.wanted = true;
            progress.stage = CheckpointStage::Listing(PartialList {
                began: None,
                covers: row_list::begin(),
                bytes: 0,
            });
        }
        loop {
            let outcome = self.checkpoint_step().await?;
            let progress = self.checkpoint.lock().await;
            if progress.closed {
                return Err(StoreError::Closed);
            }
            if !progress.wanted {
                return Ok(());
            }
            drop(progress);
            if outcome == CheckpointOutcome::Waits {
                self.core.health.check()?;
                self.core.sleep(STEP_PAUSE).await;
            }
        }
    }

    pub(super) async fn checkpoint_loop(self: Arc<Self>) {
        let mut ending = self.ending.subscribe();
        let mut pause = PAUSE;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.core.tasks.stopped() => return,
            }
            if self.core.health.check().is_err() {
                return;
            }
            pause = PAUSE;
            // Calls that wait for the bucket come first.
            if self.core.health.is_draining() {
                continue;
            }
            let step = tokio::select! {
                step = self.checkpoint_step() => step,
                // An upload waits for as long as the object store fails.
                _ = ending.wait_for(|ending| *ending) => return,
                () = self.core.tasks.stopped() => return,
            };
            match step {
                Ok(CheckpointOutcome::Moved) => pause = STEP_PAUSE,
                Ok(CheckpointOutcome::Waits) => {}
                Err(error) => {
                    tracing::warn!(%error, "a checkpoint of the log failed; a later one tries again");
                }
            }
        }
    }

    /// Does the next step: one object is logged, or a few are deleted.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`; a list that was being logged is begun again then.
    pub(crate) async fn checkpoint_step(&self) -> Result<CheckpointOutcome, StoreError> {
        let mut progress = self.checkpoint.lock().await;
        if progress.closed {
            return Ok(CheckpointOutcome::Waits);
        }
        // After an error, or a step that is given up at the end of the mount, the log is listed again.
        let mut stage = std::mem::take(&mut progress.stage);
        let next = self.next_stage(&mut progress, &mut stage).await?;
        let outcome = match next {
            Some(_) => CheckpointOutcome::Moved,
            None => CheckpointOutcome::Waits,
        };
        progress.stage = next.unwrap_or(stage);
        Ok(outcome)
    }

    /// Returns the stage after the next step; `None` if nothing can be done now.
    async fn next_stage(
        &self,
        progress: &mut CheckpointProgress,
        stage: &mut CheckpointStage,
    ) -> Result<Option<CheckpointStage>, StoreError> {
        match stage {
            CheckpointStage::Unlisted => self.list_log(progress).await.map(Some),
            CheckpointStage::Searching => self.search_older(&progress.recorded).await,
            CheckpointStage::Trimming(old) => self.trim(&progress.recorded, old.take()).await,
            CheckpointStage::Idle => Ok(self.is_due(progress).then(|| {
                CheckpointStage::Listing(PartialList {
                    began: None,
                    covers: row_list::begin(),
                    bytes: 0,
                })
            })),
            CheckpointStage::Listing(list) => self.log_part(list).await,
            CheckpointStage::Ended(row) => self.record(*row).map(Some),
            CheckpointStage::Recording(row) => {
                let last = self.commit.queue.last_on(&keys::checkpoint(), None);
                self.commit.wait_all_durable(&last).await?;
                if progress.recorded.began != row.began {
                    progress.wanted = false;
                    progress.weight = -signed(self.commit.log.grown());
                }
                progress.recorded = *row;
                Ok(Some(after(row)))
            }
        }
    }

    /// Queues the operation that writes the row of a checkpoint.
    fn record(&self, row: CheckpointRow) -> Result<CheckpointStage, StoreError> {
        let mut txn = self.gc_txn(vec![keys::checkpoint().bytes()]);
        txn.put(keys::checkpoint(), &row);
        self.commit.enqueue_if(txn, || true)?;
        Ok(CheckpointStage::Recording(row))
    }

    /// Lists the log, to know its size and whether it has objects that a checkpoint has replaced.
    async fn list_log(
        &self,
        progress: &mut CheckpointProgress,
    ) -> Result<CheckpointStage, StoreError> {
        let row: Option<CheckpointRow> = self.core.index.row(&keys::checkpoint()).await?;
        progress.recorded = row.unwrap_or_default();
        let grown = self.commit.log.grown();
        let listed = log_object::list(&self.core.backend).await?;
        let since = listed.iter().filter(|o| o.place > progress.recorded.ended);
        let weight: u64 = since.map(ListedObject::weight).sum();
        progress.weight = signed(weight) - signed(grown);
        let is_old = |o: &ListedObject| o.place < progress.recorded.began;
        Ok(match listed.first().is_some_and(is_old) {
            true => after(&progress.recorded),
            false => CheckpointStage::Idle,
        })
    }

    fn is_due(&self, progress: &CheckpointProgress) -> bool {
        let limits = &self.core.config.checkpoints;
        let since = progress.weight + signed(self.commit.log.grown());
        let last = progress.recorded.bytes.saturating_mul(limits.factor);
        progress.wanted || since >= signed(last.max(limits.min_bytes))
    }

    /// Logs the next part of the list, or completes it. `None` if the rows do not become durable.
    async fn log_part(&self, list: &PartialList) -> Result<Option<CheckpointStage>, StoreError> {
        if let Some(began) = list.began
            && row_list::is_all(&list.covers)
        {
            let end = self.commit.log.end_list().await?;
            return Ok(Some(CheckpointStage::Ended(CheckpointRow {
                began,
                ended: end.place,
                bytes: list.bytes + end.bytes,
                older: OlderLog::Unsearched,
            })));
        }
        let mut part = None;
        for _ in 0..ATTEMPTS {
            let next = match part.take() {
                Some(next) => next,
                None => self.read_part(list).await?,
            };
            let resolved = self.commit.resolved_segments();
            match self.commit.log.upload_part(&next, resolved).await? {
                PartUpload::Logged(LoggedPart { place, bytes }) => {
                    return Ok(Some(CheckpointStage::Listing(PartialList {
                        began: list.began.or(Some(place)),
                        covers: next.part.covers,
                        bytes: list.bytes + bytes,
                    })));
                }
                PartUpload::TooEarly => {
                    part = Some(next);
                    self.core.sleep(STEP_PAUSE).await;
                    self.core.health.check()?;
                }
                PartUpload::TooLate => {}
            }
        }
        Ok(None)
    }

    /// Reads the next rows of the list from a snapshot.
    async fn read_part(&self, list: &PartialList) -> Result<ListPart, StoreError> {
        let stored = self.core.index.stored();
        let applied = stored.get(&keys::applied()).await?;
        let applied = applied.map(|row| AppliedTable::decode(&row)).transpose()?;
        let max = self.core.config.checkpoints.part_bytes;
        Ok(ListPart {
            base: match list.began {
                Some(_) => LogBase::Continues,
                None => LogBase::Nothing,
            },
            upto: applied.map_or_else(BatchId::default, |row: AppliedRow| row.batch),
            part: row_list::part(&*stored, list.covers.clone(), max).await?,
        })
    }

    /// Searches the log before a recorded checkpoint for segments that the index lacks. `None` while it may still be needed.
    async fn search_older(
        &self,
        row: &CheckpointRow,
    ) -> Result<Option<CheckpointStage>, StoreError> {
        let mut turn = self.turn.lock().await;
        if turn.closed {
            return Ok(None);
        }
        if turn.search.past != UncitedSegments::Judged {
            self.look_for_uncited(&mut turn.search).await?;
        }
        if turn.search.past != UncitedSegments::Judged {
            return Ok(None);
        }
        let listed = log_object::list(&self.core.backend).await?;
        if let Some(missing) = missing_between(&listed, row) {
            self.core.health.note(format!(
                "{} is missing: the log objects before it are kept; run rewindfs check",
                log_object::key_of(missing)
            ));
            // The next checkpoint is whole again.
            return Ok(Some(CheckpointStage::Idle));
        }
        if !self.search_again_before(row.began).await? {
            turn.search.past = UncitedSegments::LogOnly;
            return Ok(None);
        }
        let older = OlderLog::Searched;
        self.record(CheckpointRow { older, ..*row }).map(Some)
    }

    /// Deletes the oldest log objects before a checkpoint that says that they were searched; `old` are those that are left, if they
    /// have been listed. `None` if the namespace is being closed.
    async fn trim(
        &self,
        row: &CheckpointRow,
        old: Option<Vec<LogPlace>>,
    ) -> Result<Option<CheckpointStage>, StoreError> {
        // No search of the log runs meanwhile.
        let turn = self.turn.lock().await;
        if turn.closed {
            return Ok(None);
        }
        let mut old = match old {
            Some(old) => old,
            None => {
                let listed = log_object::list(&self.core.backend).await?;
                let places = listed.iter().rev().map(|object| object.place);
                places.filter(|place| *place < row.began).collect()
            }
        };
        for _ in 0..CHUNKS_MAX {
            let some = old.split_off(old.len().saturating_sub(DELETED_AT_ONCE));
            let deleting = some.iter().map(|place| {
                let (backend, key) = (&self.core.backend, log_object::key_of(*place));
                async move { backend.delete(&key).await }
            });
            futures::future::try_join_all(deleting).await?;
        }
        Ok(Some(match old.is_empty() {
            true => CheckpointStage::Idle,
            false => CheckpointStage::Trimming(Some(old)),
        }))
    }
}

/// Returns the stage after the row of a checkpoint is durable.
fn after(row: &CheckpointRow) -> CheckpointStage {
    match row.older {
        OlderLog::Unsearched => CheckpointStage::Searching,
        OlderLog::Searched => CheckpointStage::Trimming(None),
    }
}

/// Returns the first object of a checkpoint that a listing lacks.
fn missing_between(listed: &[ListedObject], row: &CheckpointRow) -> Option<LogPlace> {
    let mut next = row.began;
    for object in listed {
        if object.place == next {
            next.sequence += 1;
        }
    }
    (next <= row.ended).then_some(next)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
