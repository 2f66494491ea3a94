//! The log in the bucket: every committed batch once more, in our own encoding, from which all rows of the index can be
//! rebuilt.
//!
//! Invariants: the batches of an epoch are logged in their order and without gaps, and only after they are durable in the index.
//! The journal keeps a batch until the log object with it is uploaded. Each part of a list of all rows is uploaded after every
//! batch that its rows have in them, and before every later batch, so that a replay in the order of the keys applies each batch
//! once.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::backend::{Backend, Lane};
use crate::meta::{Batch, Commit, JournalToken, MetaRead};
use crate::store::commit::log_object::{LogBase, LogObject, weight};
use crate::store::commit::row_list::{self, RowsPart};
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::keys;
use crate::store::schema::object_names::object_key;
use crate::store::schema::rows::{LogPlace, encode_long};
use crate::sync::{Mutex, lock};

/// An object is uploaded when this many bytes wait,
const OBJECT_BYTES: usize = 8 << 20;
/// or when the oldest batch has waited this long.
const AGE_MAX: Duration = Duration::from_secs(60);

/// A batch that is committed and not logged yet.
#[derive(Debug)]
struct UnloggedBatch {
    /// The row `G A` after it, without watermarks.
    applied: AppliedRow,
    rows: Bytes,
    commit: Commit,
    since: tokio::time::Instant,
    held: Vec<JournalToken>,
}

/// The log of this writer's epoch.
#[derive(Debug)]
pub(crate) struct Log {
    backend: Backend,
    epoch: u64,
    state: Mutex<LogState>,
    /// Held over each upload, so that objects are uploaded in the order of their sequences.
    uploading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct LogState {
    /// Sequence of the newest uploaded object.
    sequence: u64,
    /// `resolved` of the newest object.
    resolved: u64,
    /// The `sequence` that the index has in `G L`.
    recorded: u64,
    /// The row `G A` after the newest logged batch, without watermarks.
    logged: AppliedRow,
    /// What this process has added to the size of the log, in bytes.
    weight: u64,
    /// The newest commit that is known to be durable.
    durable: Option<Commit>,
    /// The newest commit.
    newest: Option<Commit>,
    /// Batches that are not logged, oldest first.
    waiting: VecDeque<UnloggedBatch>,
    /// The object whose upload has not succeeded yet. The bucket may have it even if the upload failed, so the same bytes
    /// are uploaded again under the same key.
    failed: Option<LogUpload>,
}

impl LogState {
    fn is_durable(&self, commit: Commit) -> bool {
        self.durable.is_some_and(|durable| commit <= durable)
    }
}

/// An object that is being uploaded.
#[derive(Clone, Debug)]
struct LogUpload {
    sequence: u64,
    resolved: u64,
    bytes: Bytes,
    /// Number of waiting batches in it.
    count: usize,
    /// The row `G A` after the newest batch that is logged then.
    logged: AppliedRow,
}

/// A part of a list of all rows, to be logged.
#[derive(Debug)]
pub(crate) struct ListPart {
    /// `Nothing` or `Continues`.
    pub(crate) base: LogBase,
    /// The newest batch in the rows.
    pub(crate) upto: BatchId,
    pub(crate) part: RowsPart,
}

/// A logged part of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoggedPart {
    pub(crate) place: LogPlace,
    /// Length of the object in bytes.
    pub(crate) bytes: u64,
}

/// The outcome of an attempt to log a part of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PartUpload {
    Logged(LoggedPart),
    /// A batch in the rows is not durable yet: the same part can be logged later.
    TooEarly,
    /// A batch is logged that the rows do not have: only newer rows can be logged now.
    TooLate,
}

impl Log {
    pub(crate) fn new(backend: Backend, epoch: u64) -> Self {
        Self {
            backend,
            epoch,
            state: Mutex::default(),
            uploading: tokio::sync::Mutex::new(()),
        }
    }

    /// Begins after the batches that earlier processes have logged; `applied` is the row `G A` after the newest of them.
    pub(crate) fn begin_after(&self, applied: &AppliedRow) {
        lock(&self.state).logged = applied.summary();
    }

    /// Returns what this process has added to the size of the log, in bytes.
    pub(crate) fn grown(&self) -> u64 {
        lock(&self.state).weight
    }

    /// Adds a committed batch, after which the row `G A` is `applied`. `token` is that of the batch's own record in the journal;
    /// `None` if the journal had no room.
    pub(crate) fn add(
        &self,
        applied: &AppliedRow,
        rows: Bytes,
        commit: Commit,
        token: Option<JournalToken>,
    ) {
        let mut state = lock(&self.state);
        state.newest = Some(commit);
        state.waiting.push_back(UnloggedBatch {
            applied: applied.summary(),
            rows,
            commit,
            since: tokio::time::Instant::now(),
            held: token.into_iter().collect(),
        });
    }

    /// Adds to `batch` which log object is the newest, if the index does not have it yet, and returns its sequence. After
    /// the commit the caller calls [`Self::recorded`] with it.
    pub(crate) fn record(&self, batch: &mut Batch) -> u64 {
        let state = lock(&self.state);
        if state.sequence != state.recorded {
            let newest = LogPlace {
                epoch: self.epoch,
                sequence: state.sequence,
            };
            keys::logged().put(batch, &newest);
        }
        state.sequence
    }

    /// Notes that the index has `sequence` as the newest log object.
    pub(crate) fn recorded(&self, sequence: u64) {
        lock(&self.state).recorded = sequence;
    }

    /// Returns the newest commit, unless it is known to be durable.
    pub(crate) fn newest_commit(&self) -> Option<Commit> {
        let state = lock(&self.state);
        state.newest.filter(|newest| !state.is_durable(*newest))
    }

    /// Tells whether `commit` is known to be durable.
    pub(crate) fn is_durable(&self, commit: Commit) -> bool {
        lock(&self.state).is_durable(commit)
    }

    /// Notes that everything up to `commit` is durable.
    pub(crate) fn durable(&self, commit: Commit) {
        let mut state = lock(&self.state);
        state.durable = Some(state.durable.map_or(commit, |d| d.max(commit)));
    }

    /// Keeps journal tokens of durable operations until every batch up to `commit` is logged.
    pub(crate) fn hold(&self, commit: Commit, tokens: Vec<JournalToken>) {
        let mut state = lock(&self.state);
        let last = state.waiting.iter_mut().rev().find(|w| w.commit <= commit);
        if let Some(waiting) = last {
            waiting.held.extend(tokens);
        }
    }

    /// Uploads durable batches if 8 MiB or a batch older than 60 s wait, or if `now`, and returns the number of objects.
    /// Every segment below `resolved` is cited by a durable batch or never will be. Waits while the object store fails.
    pub(crate) async fn upload(&self, now: bool, resolved: u64) -> Result<usize, StoreError> {
        let _turn = self.uploading.lock().await;
        let mut uploaded = 0;
        while let Some(attempt) = self.next_object(now, resolved, None) {
            self.upload_attempt(attempt).await?;
            uploaded += 1;
        }
        Ok(uploaded)
    }

    async fn upload_attempt(&self, attempt: LogUpload) -> Result<(), StoreError> {
        let key = object_key("log", self.epoch, attempt.sequence);
        let len = attempt.bytes.len() as u64;
        self.backend.upload(Lane::Log, &key, attempt.bytes).await?;
        let logged: Vec<UnloggedBatch> = {
            let mut state = lock(&self.state);
            (state.sequence, state.failed) = (attempt.sequence, None);
            (state.resolved, state.logged) = (attempt.resolved, attempt.logged);
            state.weight += weight(len);
            state.waiting.drain(..attempt.count).collect()
        };
        drop(logged);
        Ok(())
    }

    /// Logs a part of a list of all rows, behind exactly those batches that its rows have in them. Waits while the object store
    /// fails.
    pub(crate) async fn upload_part(
        &self,
        list: &ListPart,
        resolved: u64,
    ) -> Result<PartUpload, StoreError> {
        let _turn = self.uploading.lock().await;
        loop {
            let logged = {
                let state = lock(&self.state);
                // An object whose upload failed may have later batches.
                state.failed.is_none().then_some(state.logged.batch)
            };
            match logged {
                Some(logged) if logged == list.upto => break,
                Some(logged) if logged > list.upto => return Ok(PartUpload::TooLate),
                _ => match self.next_object(true, resolved, Some(list.upto)) {
                    Some(attempt) => self.upload_attempt(attempt).await?,
                    None => return Ok(PartUpload::TooEarly),
                },
            }
        }
        let part = self.list_object(list.base, list.upto, &list.part);
        Ok(PartUpload::Logged(self.upload_list_object(part).await?))
    }

    /// Logs that the list of all rows whose parts were logged is complete.
    pub(crate) async fn end_list(&self) -> Result<LoggedPart, StoreError> {
        let _turn = self.uploading.lock().await;
        let failed = lock(&self.state).failed.clone();
        if let Some(failed) = failed {
            self.upload_attempt(failed).await?;
        }
        let upto = lock(&self.state).logged.batch;
        let end = self.list_object(LogBase::Ends, upto, &row_list::end());
        self.upload_list_object(end).await
    }

    async fn upload_list_object(&self, object: LogObject) -> Result<LoggedPart, StoreError> {
        let attempt = {
            let mut state = lock(&self.state);
            let attempt = LogUpload {
                sequence: state.sequence + 1,
                resolved: state.resolved,
                bytes: object.encode(),
                count: 0,
                logged: state.logged.clone(),
            };
            state.failed = Some(attempt.clone());
            attempt
        };
        let logged = LoggedPart {
            place: LogPlace {
                epoch: self.epoch,
                sequence: attempt.sequence,
            },
            bytes: attempt.bytes.len() as u64,
        };
        self.upload_attempt(attempt).await?;
        Ok(logged)
    }

    fn list_object(&self, base: LogBase, upto: BatchId, part: &RowsPart) -> LogObject {
        let state = lock(&self.state);
        LogObject {
            epoch: upto.epoch,
            first: upto.number,
            base,
            resolved: match upto.epoch == self.epoch {
                true => state.resolved,
                false => 0,
            },
            batches: vec![encode_long(&part.rows, part.rows.encoded_max())],
            covers: part.covers.clone(),
            logged: state.logged.clone(),
        }
    }

    /// Returns the object to upload next; the same one again until it is uploaded. A new one has no batch after `last`.
    fn next_object(&self, now: bool, resolved: u64, last: Option<BatchId>) -> Option<LogUpload> {
        let mut state = lock(&self.state);
        if let Some(failed) = &state.failed {
            return Some(failed.clone());
        }
        let durable = state.durable?;
        let is_ready = |w: &&UnloggedBatch| {
            w.commit <= durable && last.is_none_or(|last| w.applied.batch <= last)
        };
        let ready = state.waiting.iter().take_while(is_ready);
        let (mut bytes, mut batches, mut oldest) = (0, Vec::new(), Duration::ZERO);
        let mut resolved = resolved.max(state.resolved);
        if last.is_some() {
            // Batches that wait behind the last one may cite segments below the new value.
            resolved = state.resolved;
        }
        let mut logged = &state.logged;
        for waiting in ready {
            bytes += waiting.rows.len();
            oldest = oldest.max(waiting.since.elapsed());
            batches.push(waiting.rows.clone());
            logged = &waiting.applied;
            if bytes >= OBJECT_BYTES {
                // Batches of the next object may cite segments below the new value.
                resolved = state.resolved;
                break;
            }
        }
        if batches.is_empty() || !(now || bytes >= OBJECT_BYTES || oldest >= AGE_MAX) {
            return None;
        }
        let count = batches.len();
        let first = state.waiting.front().map_or(0, |w| w.applied.batch.number);
        let object = LogObject::of_batches(self.epoch, first, resolved, batches);
        let attempt = LogUpload {
            sequence: state.sequence + 1,
            resolved,
            bytes: object.encode(),
            count,
            logged: logged.clone(),
        };
        state.failed = Some(attempt.clone());
        Some(attempt)
    }

    /// Logs a list of all rows of the index, for an index with batches that the log lacks; `applied` is the row `G A` in them,
    /// and no batch is committed meanwhile.
    pub(crate) async fn upload_base(
        &self,
        index: &dyn MetaRead,
        applied: &AppliedRow,
        part_bytes: usize,
    ) -> Result<(), StoreError> {
        let _turn = self.uploading.lock().await;
        let (upto, mut covers, mut base) = (applied.batch, row_list::begin(), LogBase::Nothing);
        while !row_list::is_all(&covers) {
            let part = row_list::part(index, covers, part_bytes).await?;
            self.put(&self.list_object(base, upto, &part)).await?;
            (covers, base) = (part.covers, LogBase::Continues);
        }
        self.begin_after(applied);
        let end = self.list_object(LogBase::Ends, upto, &row_list::end());
        self.put(&end).await
    }

    /// Logs batches of an earlier process, from its journal.
    pub(crate) async fn upload_missing(
        &self,
        epoch: u64,
        first: u64,
        batches: Vec<Bytes>,
    ) -> Result<(), StoreError> {
        let _turn = self.uploading.lock().await;
        self.put(&LogObject::of_batches(epoch, first, 0, batches))
            .await
    }

    async fn put(&self, object: &LogObject) -> Result<(), StoreError> {
        let sequence = lock(&self.state).sequence + 1;
        let bytes = object.encode();
        let len = bytes.len() as u64;
        self.backend
            .put_new(&object_key("log", self.epoch, sequence), bytes)
            .await?;
        let mut state = lock(&self.state);
        state.sequence = sequence;
        state.weight += weight(len);
        Ok(())
    }
}
