//! Recovery of a writer: replay of the journal, missing log objects, provisional states and orphans.
//!
//! Order: the log is completed up to the newest batch of the index. Journaled operations that are not applied are
//! queued again under their own numbers, with the bytes of their write sessions. Before the first request is served,
//! flushed states become versions, and the states of files that were still open become `recovered` versions.
//! A crash in between leads to another replay.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use crate::cache::BudgetPermit;
use crate::meta::JournalToken;
use crate::store::commit::log_object;
use crate::store::commit::txn::{Guards, Txn};
use crate::store::data::pins::Pins;
use crate::store::index::provisional::ProvisionalStates;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{BatchId, ContentBase, OperationId};
use crate::store::model::version::{Attrs, Author, Ino, Op, Time, Timestamp};
use crate::store::recovery::Recovery;
use crate::store::recovery::journal::JournalRecords;
use crate::store::recovery::lost::LostOperations;
use crate::store::recovery::replay::{FlushId, JournalReplay, LostEnd, lost_end, reverts};
use crate::store::recovery::replayed_session::{ReplayedSession, UnreleasedFlush};
use crate::store::recovery::superseded::{ForeignWriters, NameEffects, SupersededOperation};
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::journal_record::{FlushRecord, OperationRecord, Record};
use crate::store::schema::keys;
use crate::store::schema::rows::EntryState;
use crate::store::schema::rows::LogPlace;
use crate::store::schema::tables::{OrphanTable, ProvisionalTable, RowTable};
use crate::store::tree::inode::{
    FlushedState, LinkState, Supersession, VersionTimestamp, WriteSession,
};
use crate::store::tree::locked::{LockedFile, RecoveredWrites};
use crate::sync::{Arc, Mutex, lock};

impl Recovery {
    /// Queues the journaled operations that the index does not contain.
    pub(crate) async fn recover(
        &self,
        records: JournalRecords,
    ) -> Result<JournalReplay, StoreError> {
        let applied = self.core.applied_now();
        let dirty_inodes = ProvisionalStates::load(&self.core.index).await?;
        *lock(&self.core.provisional) = dirty_inodes;
        for damage in self.core.journal.dropped() {
            self.core.health.note(format!(
                "journal file {}: {} bytes at {} could not be read and were left out",
                damage.file, damage.bytes, damage.position
            ));
        }
        self.core.raise_ids(highest_id(&records) + 1);
        self.fill_log(&applied, &records).await?;
        lock(&self.core.applied).begin(self.core.epoch);
        let mut replay = JournalReplay {
            foreign_writers: ForeignWriters::new(&applied, &records),
            lost: LostOperations::new(left_out(&records)),
            reverts: reverts(&records),
            lost_end: lost_end(&applied, &records),
            ..JournalReplay::default()
        };
        for (record, token) in records {
            self.replay(&mut replay, &applied, record, token);
        }
        if let Some(error) = replay.unreadable.take() {
            return Err(error.into());
        }
        let epoch = self.core.epoch;
        let head = Record::Journaled { epoch, number: 0 };
        let _covered = self
            .core
            .append_with_head(&head, &Record::Epoch { epoch })?;
        self.leave_out_lost(&mut replay)?;
        for note in replay.notes.drain(..) {
            self.warn(note);
        }
        self.tree.make_root().await?;
        self.core.load_policy().await?;
        self.core.load_directory_policies().await?;
        Ok(replay)
    }

    /// Takes back the writes whose bytes are lost, and notes in the journal what is left out: what is acknowledged from now on does not depend
    /// on it.
    fn leave_out_lost(&self, replay: &mut JournalReplay) -> Result<(), StoreError> {
        for &OperationId { epoch, number } in replay.lost.found() {
            let _covered = self.core.append(&Record::LostOperation { epoch, number })?;
        }
        for session in replay.revert_lost() {
            let Some(work) = replay.sessions.get(&session) else {
                continue;
            };
            let change = work.map.seq();
            let _covered = self.core.append(&Record::Reverted { session, change })?;
            // A file that was removed since needs no report.
            if work.place.is_some() {
                replay.notes.push(format!(
                    "inode {}: bytes of writes did not survive the machine; the file keeps a state from before them",
                    work.ino.0
                ));
            }
        }
        let operations = replay.lost.found().len();
        if operations > 0 {
            replay.notes.push(format!(
                "{operations} changes that were not fsynced did not survive the machine, or depend on one that did not, and were left out"
            ));
        }
        Ok(())
    }

    fn warn(&self, note: String) {
        tracing::warn!("{note}");
        self.core.health.note(note);
    }

    fn replay(
        &self,
        replay: &mut JournalReplay,
        applied: &AppliedRow,
        record: Record,
        token: JournalToken,
    ) {
        match record {
            Record::Open {
                session,
                ino,
                base,
                len,
                author,
                epoch,
                place,
            } => {
                let work = ReplayedSession::new(ino, base, len, epoch, place, author, token);
                if !replay.lost.has_session(ino, base) {
                    replay.open(session, work);
                }
            }
            Record::Staged { .. } => replay.replay_staged(&self.data.staging, &record),
            Record::Operation(operation) => {
                self.replay_operation(replay, applied, *operation, token);
            }
            Record::Flush(flush) => replay.flush(flush),
            Record::CancelFlush { session, at } => replay.cancel_flush(FlushId { session, at }),
            Record::Write { session, .. }
            | Record::Punch { session, .. }
            | Record::Truncate { session, .. }
            | Record::Refer { session, .. } => replay.change(session, record),
            Record::Renamed { old, new } => {
                replay.renamed.insert(old, new);
            }
            Record::Reverted { session, change } => replay.revert(session, change),
            Record::Epoch { .. } => replay.lost.begin_epoch(),
            Record::Batch { .. } | Record::LostOperation { .. } | Record::Journaled { .. } => {}
        }
    }

    fn replay_operation(
        &self,
        replay: &mut JournalReplay,
        applied: &AppliedRow,
        record: OperationRecord,
        token: JournalToken,
    ) {
        let id = OperationId {
            epoch: record.epoch,
            number: record.number,
        };
        let done = applied.contains(record.epoch, record.number);
        let is_lost = replay.lost.is_known(id)
            || !done
                && (replay.lost.reaches(&record.dependencies)
                    || record
                        .content
                        .as_ref()
                        .is_some_and(|content| replay.is_lost(content)));
        if is_lost {
            return replay.leave_out(id, &record);
        }
        let superseded = !done && replay.foreign_writers.since(record.epoch).is_some();
        replay.follow(&NameEffects::of(&record.rows));
        replay.date(&record);
        let mut held = Guards::default();
        let mut rebuilt = None;
        if let Some(content) = &record.content {
            rebuilt = replay.rebuild_content(content, done, &mut held);
            if let Some(pending) = rebuilt.as_ref().filter(|_| !superseded) {
                held.holds = self.data.pins.pin_all(&pending.0.flushed);
                self.data.contents.add(&pending.0);
            }
        }
        if let Some(saved) = &record.byteless_flush {
            let flush = FlushId {
                session: saved.session,
                at: saved.flush,
            };
            replay.mark_queued(flush, saved.base);
        }
        if done {
            return;
        }
        self.core.clock.raise(record.timestamp.0);
        if superseded {
            let pending = rebuilt.map(|(pending, _)| pending);
            return replay.supersede(SupersededOperation::new(record, pending, held, token));
        }
        let txn = Txn {
            timestamp: record.timestamp,
            recorded: None,
            time: self.core.clock.wall(),
            rows: record.rows,
            dependencies: record.dependencies,
            content: rebuilt,
            byteless_flush: None,
            usage: record.usage,
            held,
            unreferenced: Vec::new(),
        };
        let _queued = self.commit.queue.replay(txn, id, token, |order, rows| {
            self.core.index.apply(order, rows);
        });
        self.core
            .health
            .use_more(record.usage.bytes, record.usage.files);
    }

    /// Makes versions of every state that was flushed or still open when the earlier daemon ended; drops orphans and
    /// unused staging files.
    pub(crate) async fn finish(self, mut replay: JournalReplay) -> Result<(), StoreError> {
        self.history.sweep_pending().await?;
        self.finish_superseded(&mut replay).await?;
        for (id, work) in replay.sessions {
            if work.is_open() {
                self.finish_work(id, work, replay.lost_end).await?;
            }
        }
        self.finish_states().await?;
        let from = OrphanTable::all();
        for (key, _) in self
            .core
            .index
            .scan(from.clone(), keys::after(&from), usize::MAX)
            .await?
        {
            if let Some(ino) = keys::trailing_ino(&key) {
                self.tree.drop_orphan(ino).await?;
            }
        }
        // A staging file that only the replay still refers to contains no needed bytes.
        let files = std::mem::take(&mut replay.files);
        let held = files.iter().filter(|(_, file)| Arc::strong_count(file) > 1);
        let keep: HashSet<u64> = held.map(|(id, _)| *id).collect();
        drop(files);
        self.data.staging.sweep(&keep)?;
        Ok(())
    }

    /// Makes versions of the states that are none: unborn and provisional states.
    pub(crate) async fn finish_states(&self) -> Result<(), StoreError> {
        let (first, end) = (
            keys::provisional(Ino(0)),
            keys::after(&ProvisionalTable::PREFIX),
        );
        // Queued rows are read first: a row that is committed meanwhile is then found among the committed rows.
        let queued = self.core.index.first_queued(&first, &end);
        let committed = lock(&self.core.provisional).first();
        let from = queued.map_or(committed.clone(), |queued| queued.min(committed));
        for (key, _) in self.core.index.scan(from, end, usize::MAX).await? {
            if let Some(ino) = keys::trailing_ino(&key) {
                self.finish_state(ino).await?;
            }
        }
        Ok(())
    }

    /// Makes versions of what no operation carries of a session.
    async fn finish_work(
        &self,
        id: u64,
        work: ReplayedSession,
        lost_end: Option<LostEnd>,
    ) -> Result<(), StoreError> {
        let mut locked = match self.tree.lock(work.ino).await {
            Ok(locked) => locked,
            Err(StoreError::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(mut file) = locked
            .file()
            .filter(|file| file.link_state != LinkState::Unlinked)
        else {
            return Ok(());
        };
        if lost_end.is_some_and(|end| is_outdated(&work, &file, end)) {
            self.warn(format!(
                "inode {}: the bucket has a newer state than the journal, whose end did not survive the machine; writes from before it were left out",
                work.ino.0
            ));
            return Ok(());
        }
        let permit = self.data.budget.try_acquire(work.bytes);
        let dated = work.dated;
        adopt(&mut file, id, work, permit, &self.data.pins);
        self.tree.inodes.keep_dirty(file.inode());
        self.tree.save_flushes(&mut locked).await?;
        let Some(mut file) = locked.file() else {
            return Ok(());
        };
        if file.is_dirty() {
            if !dated {
                // The journal does not record the time of the write; a changed file must not keep its old times.
                let now = Time::of_change(self.core.clock.wall(), file.attrs.mtime);
                file.set_change_time(now);
            }
            let author = file.author.clone();
            if let Some(flushed) = self.tree.flush_locked(&mut file, &author, None)? {
                self.tree
                    .save_upto(&mut locked, flushed.0, Op::Recovered)
                    .await?;
            }
        }
        Ok(())
    }

    async fn finish_state(&self, ino: Ino) -> Result<(), StoreError> {
        let mut locked = match self.tree.lock(ino).await {
            Ok(locked) => locked,
            Err(StoreError::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(mut file) = locked.file() else {
            return Ok(());
        };
        if !matches!(file.state, EntryState::Version(_))
            && let Some(flushed) = self
                .tree
                .flush_locked(&mut file, &Author::default(), None)?
        {
            self.tree
                .save_upto(&mut locked, flushed.0, Op::Recovered)
                .await?;
        }
        Ok(())
    }

    /// Uploads the batches that the index contains and the log does not.
    async fn fill_log(
        &self,
        applied: &AppliedRow,
        records: &[(Record, JournalToken)],
    ) -> Result<(), StoreError> {
        if applied.batch != BatchId::default() {
            self.fill_log_upto(applied, records).await?;
        }
        self.commit.log.begin_after(applied);
        Ok(())
    }

    async fn fill_log_upto(
        &self,
        applied: &AppliedRow,
        records: &[(Record, JournalToken)],
    ) -> Result<(), StoreError> {
        let recorded = self.core.index.row(&keys::logged()).await?;
        let logged = self.logged_upto(recorded).await?;
        if logged == Some(applied.batch) {
            return Ok(());
        }
        let BatchId {
            epoch,
            number: upto,
        } = applied.batch;
        let first = match logged {
            Some(logged) if logged.epoch == epoch => logged.number + 1,
            Some(_) => 1,
            None => 0,
        };
        let missing: BTreeMap<u64, Bytes> = records
            .iter()
            .filter_map(|(record, _)| match record {
                Record::Batch {
                    epoch: e,
                    number,
                    rows,
                } if *e == epoch && (first..=upto).contains(number) => {
                    Some((*number, rows.clone()))
                }
                _ => None,
            })
            .collect();
        if first > 0 && missing.len() as u64 == (upto + 1).saturating_sub(first) {
            let batches: Vec<Bytes> = missing.into_values().collect();
            return self.commit.log.upload_missing(epoch, first, batches).await;
        }
        let (rows, part) = (
            self.core.index.stored(),
            self.core.config.checkpoints.part_bytes,
        );
        self.commit.log.upload_base(&*rows, applied, part).await
    }

    /// Returns the newest batch in the log; `recorded` is the newest log object that the index names. `None` if there
    /// is no log object or the newest one cannot be read: the log then continues with a snapshot of all rows.
    async fn logged_upto(&self, recorded: Option<LogPlace>) -> Result<Option<BatchId>, StoreError> {
        let Some(key) = log_object::newest_key(&self.core.backend, recorded).await? else {
            return Ok(None);
        };
        match log_object::read(&self.core.backend, &key).await {
            Ok(object) => Ok(object.upto()),
            Err(StoreError::Corrupt(why)) => {
                self.warn(format!(
                    "the newest log object cannot be read ({why}); the log begins again with a list of all rows"
                ));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns the operations that earlier recoveries left out.
fn left_out(records: &JournalRecords) -> HashSet<OperationId> {
    let left_out = records.iter().filter_map(|(record, _)| match *record {
        Record::LostOperation { epoch, number } => Some(OperationId { epoch, number }),
        _ => None,
    });
    left_out.collect()
}

/// Tells whether the index has a later state of a file than its write session, whose last records may be lost. A state that is no version has
/// no timestamp: where neither has bytes, it counts as later.
fn is_outdated(work: &ReplayedSession, file: &LockedFile<'_>, end: LostEnd) -> bool {
    let content = |base: Option<ContentBase>| base.map(|base| base.content);
    let is_later = match &file.state {
        EntryState::Version(stamp) => stamp.id.timestamp > end.newest,
        EntryState::Provisional(_) => work.base.is_none(),
        EntryState::Unborn { .. } => false,
    };
    work.epoch <= end.epoch && (is_later || content(work.base) != content(file.base))
}

fn adopt(
    file: &mut LockedFile<'_>,
    id: u64,
    mut work: ReplayedSession,
    permit: Option<BudgetPermit>,
    pins: &Arc<Pins>,
) {
    let (row, row_at) = (&file.node.attrs, work.row_at);
    let newest = work.flushes.last();
    let newest = newest.filter(|flush| flush.supersession == Supersession::Current);
    let mut attrs = match newest {
        Some(flush) => newer(&flush.record, row, row_at),
        None => file.attrs.clone(),
    };
    attrs.size = work.len;
    let flushed = |flush: UnreleasedFlush| {
        let holds = pins.pin_all(&flush.map);
        Arc::new(FlushedState {
            at: flush.record.at,
            timestamp_state: Mutex::new(VersionTimestamp::Recovered),
            map: flush.map,
            base: flush.base,
            hold: flush.base.map(|base| pins.pin(base.content)),
            attrs: Mutex::new(match flush.supersession {
                Supersession::Current => newer(&flush.record, row, row_at),
                Supersession::Superseded => flush.record.attrs,
            }),
            author: flush.record.author,
            since: tokio::time::Instant::now(),
            supersession: flush.supersession,
            session: Some(flush.record.session),
            token: Some(flush.token),
            holds,
        })
    };
    let holds = pins.pin_all(&work.map.fix());
    let flushes = work.flushes.into_iter().map(flushed).collect();
    file.recover(RecoveredWrites {
        base: work.base,
        attrs,
        map: work.map,
        saved: work.saved,
        session: WriteSession {
            id,
            token: work.token,
            files: Vec::new(),
        },
        flushes,
        permit,
        holds,
        author: work.author,
    });
}

/// Returns the attributes of the flush, or those of the inode's row if an operation set them after the flush. File
/// times do not decide: the machine's clock may have gone back in between.
fn newer(flush: &FlushRecord, row: &Attrs, row_at: Timestamp) -> Attrs {
    let size = flush.attrs.size;
    match row_at > flush.at {
        true => Attrs {
            size,
            ..row.clone()
        },
        false => flush.attrs.clone(),
    }
}

fn highest_id(records: &[(Record, JournalToken)]) -> u64 {
    let id = |record: &Record| match record {
        Record::Open { session, .. } => *session,
        Record::Staged { file, .. } => *file,
        Record::Operation(operation) => operation.next_id,
        _ => 0,
    };
    records
        .iter()
        .map(|(record, _)| id(record))
        .max()
        .unwrap_or(0)
}
