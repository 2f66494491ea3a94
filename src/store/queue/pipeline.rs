//! The tasks that bring acknowledged operations to the bucket: seal, commit, make durable, log.
//!
//! Each waits for the queue to change or for its own time; each failure is kept in [`Health`] and tried again. What waits
//! for the bucket (fsync, drain) hurries them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::halt::Halt;
pub(crate) use super::halt::Step;
use super::{Operation, Stage};
use crate::meta::{Batch, Commit, MetaState};
use crate::store::content::Sealing;
use crate::store::error::StoreError;
use crate::store::file::fix::FIX_AGE_MAX;
use crate::store::follow::Role;
use crate::store::inode::Due;
use crate::store::keys;
use crate::store::namespace::{Namespace, Shared};
use crate::store::record::Record;
use crate::store::recover::conflict::Conflicts;
use crate::store::rows::encode;
use crate::store::version::{Author, Ino, Instant};
use crate::sync::{Arc, Mutex, lock};

/// Rows that leave in one batch, bytes.
const BATCH_MAX: usize = 4 << 20;
/// How long a batch waits for company when nobody waits for it: each holds `G A` whole, and goes into the log.
const COMPANY: Duration = Duration::from_millis(50);
/// How long new operations gather before the contents to be sealed are looked through again.
const LOOK: Duration = Duration::from_millis(5);
/// How often a flush is made while something is committed and not durable.
const FLUSH: Duration = Duration::from_secs(1);
/// After a failed attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// Unsealed writes that nobody fixed are brought to the bucket after this.
const DIRTY_AGE_MAX: Duration = Duration::from_secs(30);

/// How the writer is: what failed, and whether it may go on.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) failures: AtomicU64,
    last: Mutex<Option<String>>,
    stopped: Mutex<Option<StoreError>>,
    notes: Mutex<Vec<String>>,
    pub(crate) conflicts: Mutex<Conflicts>,
    bytes: AtomicI64,
    files: AtomicI64,
    /// fsync and drain in progress: operations that must not wait for company.
    pub(crate) hurried: Mutex<HashSet<u64>>,
    hurry: Notify,
    pub(crate) draining: AtomicBool,
    pub(crate) halt: Halt,
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

    pub(crate) fn stop(&self, error: StoreError) {
        lock(&self.stopped).get_or_insert(error);
        self.hurry.notify_waiters();
    }

    pub(crate) fn is_fenced(&self) -> bool {
        matches!(*lock(&self.stopped), Some(StoreError::Fenced))
    }

    /// Something that status must tell, such as bytes that did not verify at replay.
    pub(crate) fn note(&self, text: String) {
        lock(&self.notes).push(text);
    }

    /// What the writer of a namespace that is only read says it holds.
    pub(crate) fn uses(&self, (bytes, files): (i64, i64)) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.files.store(files, Ordering::Relaxed);
    }

    pub(crate) fn use_more(&self, (bytes, files): (i64, i64)) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.files.fetch_add(files, Ordering::Relaxed);
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
pub struct Pending {
    /// Files with content or writes that the bucket does not have.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Acknowledged operations that are not durable.
    pub operations: u64,
    /// Instant of the oldest of them.
    pub oldest: Option<Instant>,
    /// What went wrong since the mount: why the last attempt failed, what a replay had to leave out, why nothing more can be
    /// written.
    pub failures: Vec<String>,
}

impl Namespace {
    /// What is not yet in the bucket.
    pub fn pending(&self) -> Pending {
        let health = &self.0.health;
        let backlog = self.0.queue.backlog();
        let mut files = backlog.files;
        files.extend(self.0.inodes.unsettled().iter().map(|inode| inode.ino));
        let mut failures = lock(&health.notes).clone();
        if let Some(last) = lock(&health.last).as_ref() {
            let times = health.failures.load(Ordering::Relaxed);
            failures.push(format!("{times} failed attempts, the last: {last}"));
        }
        let stopped = lock(&health.stopped);
        let why = stopped
            .as_ref()
            .filter(|why| !matches!(why, StoreError::ReadOnly));
        failures.extend(why.map(ToString::to_string));
        Pending {
            files: files.len() as u64,
            bytes: self.0.budget.used(),
            operations: backlog.operations,
            oldest: backlog.oldest,
            failures,
        }
    }

    /// What the namespace holds, for statfs(2).
    pub fn usage(&self) -> Usage {
        let positive = |n: &AtomicI64| n.load(Ordering::Relaxed).max(0).cast_unsigned();
        Usage {
            bytes: positive(&self.0.health.bytes),
            files: positive(&self.0.health.files),
        }
    }

    /// Waits until everything that touches a directory or its names is in the bucket.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`.
    pub async fn sync_directory(&self, directory: Ino) -> Result<(), StoreError> {
        let operations = self
            .0
            .queue
            .last_on(&keys::inode(directory), Some(directory));
        self.0.bring(&operations).await
    }

    /// Waits until everything acknowledged is in the bucket, open files included, and logged.
    ///
    /// # Errors
    /// `Unavailable` when an attempt failed meanwhile; what is missing stays queued. `Fenced`: it never will be.
    pub async fn drain(&self) -> Result<(), StoreError> {
        if matches!(self.0.role, Role::Follower(_)) {
            return Ok(());
        }
        self.0.health.check()?;
        self.0.provide_all(None).await;
        self.0.health.draining.store(true, Ordering::SeqCst);
        let operations = self.0.queue.all();
        let result = self.0.bring(&operations).await;
        self.0.health.draining.store(false, Ordering::SeqCst);
        result?;
        self.0.log.upload(true, self.0.settled_segments()).await?;
        self.0.journal.trim();
        Ok(())
    }

    /// Drains and stops writing. The tasks it was opened with end soon after: whoever opens the same cache directory again
    /// joins them before.
    ///
    /// # Errors
    /// As [`Namespace::drain`]; the journal keeps what is not in the bucket.
    pub async fn close(&self) -> Result<(), StoreError> {
        if let Role::Follower(follower) = &self.0.role {
            self.0.tasks.stop();
            return follower.close().await;
        }
        self.0.upkeep.end().await;
        let drained = self.drain().await;
        self.0.health.stop(StoreError::Closed);
        self.0.tasks.stop();
        let closed = self.0.view.writer()?.close().await;
        drained?;
        Ok(closed?)
    }
}

impl Shared {
    pub(crate) fn start(self: &Arc<Self>, orphans: mpsc::UnboundedReceiver<Ino>) {
        let applied = self.applied_now();
        self.health.use_more((applied.bytes, applied.files));
        drop(self.tasks.spawn("seal", Arc::clone(self).seal_loop()));
        drop(self.tasks.spawn("commit", Arc::clone(self).commit_loop()));
        drop(self.tasks.spawn("flush", Arc::clone(self).flush_loop()));
        drop(self.tasks.spawn("age", Arc::clone(self).age_loop()));
        drop(
            self.tasks
                .spawn("pressure", Arc::clone(self).pressure_loop()),
        );
        drop(
            self.tasks
                .spawn("reap", Arc::clone(self).reap_loop(orphans)),
        );
        drop(self.tasks.spawn("fence", Arc::clone(self).fence_watch()));
    }

    /// Waits until the bucket has an operation; hurries what it depends on.
    pub(crate) async fn wait_durable(&self, operation: &Arc<Operation>) -> Result<(), StoreError> {
        self.health.check()?;
        let needed = self.queue.needed_by(operation.order);
        {
            let mut hurried = lock(&self.health.hurried);
            hurried.extend(needed.iter().map(|o| o.order));
            // Those that were committed meanwhile: nobody else takes them out.
            for operation in needed.iter().filter(|o| o.is_committed()) {
                hurried.remove(&operation.order);
            }
        }
        self.health.hurry.notify_waiters();
        let failures = self.health.failures.load(Ordering::SeqCst);
        let mut stage = operation.stage();
        let commit = loop {
            match *stage.borrow_and_update() {
                Stage::Durable => return Ok(()),
                Stage::Committed(commit) => break commit,
                Stage::Queued | Stage::Leaving => {}
            }
            self.health.check()?;
            if self.health.failures.load(Ordering::SeqCst) > failures
                && needed.iter().any(|o| failed(o).is_some())
            {
                let why = needed.iter().find_map(failed).unwrap_or_default();
                return Err(StoreError::Unavailable(why));
            }
            let _timeout = tokio::time::timeout(Duration::from_millis(100), stage.changed()).await;
        };
        self.make_durable(commit).await
    }

    /// Waits for the flush that holds `commit`, and gives back what its operations held.
    async fn make_durable(&self, commit: Commit) -> Result<(), StoreError> {
        self.view
            .writer()?
            .durable(commit)
            .await
            .map_err(StoreError::from)
            .inspect_err(|e| self.health.failed(&e.to_string()))?;
        let proof = self.epoch_object.write().await;
        proof.inspect_err(|e| self.health.failed(&e.to_string()))?;
        self.log.durable(commit);
        for (_, held) in self.queue.durable(commit) {
            for staging in &held.staging {
                staging.finished();
            }
            self.log.hold(commit, held.journal);
        }
        Ok(())
    }

    async fn seal_loop(self: Arc<Self>) {
        let mut busy: HashSet<u64> = HashSet::new();
        let (done, mut finished) = mpsc::unbounded_channel::<Vec<u64>>();
        while !self.tasks.is_stopped() {
            let (changed, hurry) = (self.queue.changed.notified(), self.health.hurry.notified());
            while let Ok(orders) = finished.try_recv() {
                for order in orders {
                    busy.remove(&order);
                }
            }
            let waiting: Vec<_> = self
                .queue
                .unsealed()
                .into_iter()
                .filter(|o| !busy.contains(&o.order))
                .collect();
            let halted = self.health.halt.before(Step::Seal) || self.health.check().is_err();
            let (groups, wake) = self.groups(if halted { Vec::new() } else { waiting });
            for (group, inline) in groups {
                let orders: Vec<u64> = group.iter().map(|o| o.order).collect();
                busy.extend(&orders);
                let (shared, done) = (Arc::clone(&self), done.clone());
                drop(self.tasks.spawn("seal-group", async move {
                    let failed = group.iter().any(|o| failed(o).is_some());
                    if failed {
                        tokio::time::sleep(PAUSE).await;
                    }
                    shared.seal(group, inline).await;
                    let _receiver_gone = done.send(orders);
                }));
            }
            tokio::select! {
                () = changed => self.lull(LOOK).await,
                () = hurry => {}
                Some(orders) = finished.recv() => for order in orders { busy.remove(&order); },
                () = tokio::time::sleep(wake) => {}
                () = self.tasks.stopped() => {}
            }
        }
    }

    async fn commit_loop(self: Arc<Self>) {
        while !self.tasks.is_stopped() {
            let changed = self.queue.changed.notified();
            self.lull(COMPANY).await;
            let halted = self.health.halt.before(Step::Commit);
            let leaving = if halted {
                Vec::new()
            } else {
                self.queue.leave(BATCH_MAX)
            };
            if leaving.is_empty() {
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                    () = self.tasks.stopped() => {}
                }
                continue;
            }
            if let Err(error) = self.commit(&leaving).await {
                self.queue.stay(&leaving);
                if matches!(error, StoreError::Fenced | StoreError::Closed) {
                    self.ended(error);
                    return;
                }
                self.health.failed(&error.to_string());
                tracing::error!(%error, "commit failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Lets operations gather for `time` while nobody waits for one.
    async fn lull(&self, time: Duration) {
        let hurry = self.health.hurry.notified();
        if !lock(&self.health.hurried).is_empty() || self.health.draining.load(Ordering::SeqCst) {
            return;
        }
        tokio::select! {
            () = hurry => {}
            () = tokio::time::sleep(time) => {}
            () = self.tasks.stopped() => {}
        }
    }

    async fn commit(&self, leaving: &[Arc<Operation>]) -> Result<(), StoreError> {
        let mut applied = self.applied_now();
        for operation in leaving {
            applied.add(operation.epoch, operation.number);
            // Lengths of sparse files may add up to more than there are numbers; what goes comes back.
            applied.bytes = applied.bytes.wrapping_add(operation.usage.0);
            applied.files += operation.usage.1;
        }
        let number = applied.next_batch(self.epoch);
        applied.next_id = self.next_id();
        applied.clock = self.clock.last();
        applied.floor = self.floor_without(leaving).0;
        let mut batch = Batch::new();
        let mut rows_keys = Vec::new();
        for operation in leaving {
            for rows in operation.batches() {
                rows_keys.extend(rows.rows().iter().map(|(key, _)| key.clone()));
                batch.append(rows);
            }
        }
        let settling = lock(&self.unsettled).prepare(&mut batch, applied.next_id);
        let logged = self.log.record(&mut batch);
        let old_marks = lock(&self.old_marks).put(&applied, &mut batch);
        let rows = encode(&batch);
        let record = Record::Batch {
            epoch: self.epoch,
            number,
            rows: rows.clone(),
        };
        let token = match self.journal(&record) {
            Ok(token) => Some(token),
            // What it would say is said again from the index if this process ends before the log has it; and only what is
            // committed gives space back.
            Err(StoreError::NoSpace) => None,
            Err(error) => return Err(error),
        };
        let orders: Vec<u64> = leaving.iter().map(|o| o.order).collect();
        let commit = self.view.commit(&orders, &rows_keys, batch).await?;
        *lock(&self.applied) = applied;
        if let Some(old_marks) = old_marks {
            *lock(&self.old_marks) = old_marks;
        }
        lock(&self.unsettled).committed(settling);
        self.log.recorded(logged);
        self.log.add(number, rows, commit, token);
        self.queue.committed(leaving, commit);
        let mut hurried = lock(&self.health.hurried);
        for order in orders {
            hurried.remove(&order);
        }
        Ok(())
    }

    async fn flush_loop(self: Arc<Self>) {
        while !self.tasks.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep(FLUSH) => {}
                () = self.tasks.stopped() => return,
            }
            if self.health.is_fenced() {
                return;
            }
            if let Some(commit) = self.log.newest_commit()
                && !self.health.halt.before(Step::Flush)
                && let Err(error) = self.make_durable(commit).await
                && !matches!(error, StoreError::Fenced)
            {
                tracing::warn!(%error, "flush failed; trying again");
            }
            if !self.health.halt.before(Step::Log)
                && let Err(error) = self.log.upload(false, self.settled_segments()).await
            {
                self.health.failed(&error.to_string());
                tracing::warn!(%error, "log upload failed; trying again");
            }
        }
    }

    /// Brings everything that is dirty to the bucket, provisionally; `age` limits it to what has waited so long.
    pub(crate) async fn provide_all(&self, age: Option<(Duration, Duration)>) {
        if self.health.check().is_err() {
            return;
        }
        for inode in self.inodes.unsettled() {
            let Ok(mut locked) = self.lock(inode.ino).await else {
                continue;
            };
            let Some(leaf) = locked.leaf() else { continue };
            let old_fix = leaf
                .fixes
                .first()
                .is_some_and(|f| age.is_none_or(|(max, _)| f.since.elapsed() >= max));
            let old_dirt = leaf
                .dirty_since
                .is_some_and(|since| age.is_none_or(|(_, max)| since.elapsed() >= max));
            if !old_fix && !old_dirt {
                continue;
            }
            let author = leaf
                .fixes
                .last()
                .map_or_else(|| leaf.author.clone(), |f| f.author.clone());
            match self.provide(&mut locked, &author).await {
                Ok(()) => {
                    for fix in locked.leaf().into_iter().flat_map(|leaf| &leaf.fixes) {
                        *lock(&fix.due) = Due::Lapsed;
                    }
                }
                Err(error) => {
                    tracing::warn!(ino = inode.ino.0, %error, "could not bring unsaved writes on their way");
                }
            }
        }
    }

    async fn age_loop(self: Arc<Self>) {
        while !self.tasks.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = self.tasks.stopped() => return,
            }
            self.provide_all(Some((FIX_AGE_MAX, DIRTY_AGE_MAX))).await;
        }
    }

    async fn pressure_loop(self: Arc<Self>) {
        while !self.tasks.is_stopped() {
            tokio::select! {
                () = self.budget.pressure() => {}
                () = self.tasks.stopped() => return,
            }
            if self.health.is_fenced() {
                return;
            }
            self.health.draining.store(true, Ordering::SeqCst);
            self.provide_all(None).await;
            if let Err(error) = self.bring(&self.queue.all()).await {
                tracing::warn!(%error, "writers wait for the bucket");
                tokio::time::sleep(PAUSE).await;
            }
            self.health.draining.store(false, Ordering::SeqCst);
        }
    }

    async fn reap_loop(self: Arc<Self>, mut orphans: mpsc::UnboundedReceiver<Ino>) {
        loop {
            let ino = tokio::select! {
                ino = orphans.recv() => ino,
                () = self.tasks.stopped() => return,
            };
            let Some(ino) = ino else { return };
            if let Err(error) = self.reap(ino).await {
                tracing::warn!(ino = ino.0, %error, "an unlinked inode stays until the next mount");
            }
        }
    }

    async fn fence_watch(self: Arc<Self>) {
        let Ok(index) = self.view.writer() else {
            return;
        };
        tokio::select! {
            state = index.ended() => match state {
                MetaState::Fenced => self.ended(StoreError::Fenced),
                MetaState::Failed(why) => self.ended(StoreError::Unavailable(why)),
                MetaState::Open | MetaState::Closed => {}
            },
            task = self.tasks.failed() => {
                self.ended(StoreError::Unavailable(format!("the task {task} failed, see the log")));
            }
            () = self.tasks.stopped() => {}
        }
    }

    /// The index takes nothing more from this writer; said once, whoever learns of it first.
    fn ended(&self, why: StoreError) {
        if self.health.check().is_ok() {
            tracing::error!(%why, "nothing more is written here");
        }
        self.health.stop(why);
    }
}

fn failed(operation: &Arc<Operation>) -> Option<String> {
    match &*operation.content.as_ref()?.sealing.borrow() {
        Sealing::Failed(_, why) => Some(why.clone()),
        _ => None,
    }
}

/// The author of what the daemon does by itself.
pub(crate) fn nobody() -> Author {
    Author::default()
}
