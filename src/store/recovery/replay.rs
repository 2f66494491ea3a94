//! Replay of the journal in memory: rebuilds the dirty map of every write session and finds the flushes that did not
//! become versions.
//!
//! Invariant: records are applied in journal order, which is the order in which the changes were acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytes::Bytes;
use tokio::sync::watch;

use crate::cache::{CacheError, DirtySnapshot, Source, StagingDir, StagingFile};
use crate::meta::{Change, JournalToken};
use crate::store::commit::txn::Guards;
use crate::store::data::contents::{PendingContent, UploadState};
use crate::store::model::ids::{ContentBase, OperationId};
use crate::store::model::version::{ContentRef, Ino, Timestamp};
use crate::store::recovery::lost::{LostOperations, has_lost_bytes};
use crate::store::recovery::replayed_session::{ReplayedSession, UnreleasedFlush};
use crate::store::recovery::superseded::{ForeignWriters, NameEffects, SupersededOperation};
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::journal_record::{ContentRecord, FlushRecord, OperationRecord, Record};
use crate::store::schema::keys;
use crate::store::schema::tables::{InodeTable, RowTable};
use crate::store::tree::inode::Supersession;
use crate::sync::Arc;

/// The dirty map at a flush.
#[derive(Clone, Debug)]
pub(crate) struct ReplayedFlush {
    pub(crate) ino: Ino,
    pub(crate) map: DirtySnapshot,
    pub(crate) token: JournalToken,
}

/// Which flush: its write session and its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlushId {
    pub(crate) session: u64,
    pub(crate) at: Timestamp,
}

impl FlushId {
    pub(crate) fn of(record: &FlushRecord) -> Self {
        Self {
            session: record.session,
            at: record.at,
        }
    }
}

/// A journal of whose last records a loss of power took some, those of operations in the index among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostEnd {
    /// The newest epoch of which operations are lost.
    pub(crate) epoch: u64,
    /// The newest timestamp in the journal.
    pub(crate) newest: Timestamp,
}

/// The state of a journal replay.
#[derive(Debug, Default)]
pub(crate) struct JournalReplay {
    pub(crate) sessions: BTreeMap<u64, ReplayedSession>,
    pub(crate) newest: HashMap<Ino, u64>,
    /// Write sessions whose later records do not count, because an operation that changes the names of the inode is left out.
    pub(crate) ended: BTreeMap<u64, ReplayedSession>,
    /// Every flush. An operation may carry a flushed state long after a later one, when
    /// its write session has ended.
    pub(crate) flushed: HashMap<FlushId, ReplayedFlush>,
    pub(crate) files: HashMap<u64, Arc<StagingFile>>,
    /// The first staging file that cannot be read now: its bytes are not lost, and the replay does not count.
    pub(crate) unreadable: Option<CacheError>,
    pub(crate) pendings: HashMap<ContentRef, Arc<PendingContent>>,
    pub(crate) notes: Vec<String>,
    pub(crate) lost: LostOperations,
    pub(crate) lost_end: Option<LostEnd>,
    /// The numbers of the changes to which earlier recoveries took each session back.
    pub(crate) reverts: HashMap<u64, Vec<u64>>,
    pub(crate) foreign_writers: ForeignWriters,
    /// New names of contents of superseded operations, from an earlier recovery that was interrupted.
    pub(crate) renamed: HashMap<ContentRef, ContentRef>,
    /// Superseded operations, which cannot be queued under their own rows any more, in journal order.
    pub(crate) superseded: Vec<SupersededOperation>,
    /// Per inode, the position in `superseded` of the newest operation that writes its state.
    pub(crate) standing: HashMap<Ino, usize>,
}

/// Returns the staging files that hold bytes of a flushed state, each once.
pub(crate) fn staging_of(flushed: &DirtySnapshot) -> Vec<Arc<StagingFile>> {
    let files = flushed.spans().filter_map(|span| match &span.source {
        Source::File { file, .. } => Some((file.id(), Arc::clone(file))),
        Source::Memory(_) | Source::Zero | Source::Reference { .. } => None,
    });
    files.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Returns where a journal ends whose end is lost, so that the index has operations that the journal lacks; `None` for a journal that is whole.
pub(crate) fn lost_end(
    applied: &AppliedRow,
    records: &[(Record, JournalToken)],
) -> Option<LostEnd> {
    let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
    let mut newest = Timestamp(0);
    for (record, _) in records {
        let (epoch, number) = match record {
            Record::Epoch { epoch } => (*epoch, 0),
            Record::Journaled { epoch, number } => (*epoch, *number),
            Record::Operation(operation) => {
                newest = newest.max(operation.timestamp);
                (operation.epoch, operation.number)
            }
            Record::Flush(flush) => {
                newest = newest.max(flush.at);
                continue;
            }
            _ => continue,
        };
        let last = numbers.entry(epoch).or_default();
        *last = number.max(*last);
    }
    let mut lacking = numbers.into_iter().rev();
    let (epoch, _) = lacking.find(|(epoch, last)| applied.contains_after(*epoch, *last))?;
    Some(LostEnd { epoch, newest })
}

/// Returns to which changes earlier recoveries took each session back.
pub(crate) fn reverts(records: &[(Record, JournalToken)]) -> HashMap<u64, Vec<u64>> {
    let mut reverts: HashMap<u64, Vec<u64>> = HashMap::new();
    for (record, _) in records {
        if let Record::Reverted { session, change } = *record {
            reverts.entry(session).or_default().push(change);
        }
    }
    reverts
}

impl JournalReplay {
    /// Returns the bytes of a write in a staging file, at these positions in it; `None` if they are not what was written. Fails if the file
    /// cannot be read now, which says nothing about its bytes.
    fn staged(
        &mut self,
        staging: &StagingDir,
        file: u64,
        positions: Range<u64>,
        checksum: u32,
    ) -> Result<Option<Source>, CacheError> {
        let found = match self.files.get(&file) {
            Some(found) => Arc::clone(found),
            None => {
                let opened = Arc::new(staging.reopen(file)?);
                self.files.insert(file, Arc::clone(&opened));
                opened
            }
        };
        let (position, len) = (positions.start, positions.end - positions.start);
        let bytes = found.read_at(position, len as usize)?;
        let is_intact = crc32c::crc32c(&bytes) == checksum;
        Ok(is_intact.then_some(Source::File {
            file: found,
            position,
        }))
    }

    /// Replays a write whose bytes are in a staging file.
    pub(crate) fn replay_staged(&mut self, staging: &StagingDir, record: &Record) {
        let &Record::Staged {
            session,
            offset,
            len,
            file,
            position,
            checksum,
        } = record
        else {
            return;
        };
        let positions = position..position.saturating_add(len);
        let source = match self.staged(staging, file, positions, checksum) {
            Ok(source) => source,
            Err(error) if error.is_missing() => None,
            Err(error) => {
                self.unreadable.get_or_insert(error);
                None
            }
        };
        match (self.sessions.get_mut(&session), source) {
            (Some(work), Some(source)) => work.stage(offset, len, source),
            (Some(work), None) => work.lose(offset, len),
            (None, _) => {}
        }
    }

    /// Replays a change that is described completely by its record, if the content that it refers to was stored.
    pub(crate) fn change(&mut self, session: u64, record: Record) {
        let Some(work) = self.sessions.get_mut(&session) else {
            return;
        };
        match record {
            Record::Refer {
                offset,
                len,
                content,
                ..
            } if self.lost.has_content(content) => work.lose(offset, len),
            record => work.change(record),
        }
    }

    /// Takes out the write sessions of epochs that another writer superseded.
    pub(crate) fn take_superseded(&mut self) -> BTreeMap<u64, ReplayedSession> {
        let (foreign_writers, sessions) =
            (&self.foreign_writers, std::mem::take(&mut self.sessions));
        let (superseded, own) = sessions
            .into_iter()
            .partition(|(_, work)| foreign_writers.since(work.epoch).is_some());
        self.sessions = own;
        superseded
    }

    /// Adds an operation that another writer superseded.
    pub(crate) fn supersede(&mut self, superseded: SupersededOperation) {
        if let (Some((ino, ..)), Some(_)) = (superseded.state(), &superseded.dentry) {
            self.standing.insert(ino, self.superseded.len());
        }
        self.superseded.push(superseded);
    }

    /// Notes the timestamp of the attributes that an operation writes for an inode with unsaved writes: a flushed state
    /// has the attributes of its flush, any other operation has those at its own timestamp.
    pub(crate) fn date(&mut self, record: &OperationRecord) {
        let put = |(_, change): &(Bytes, Change)| matches!(change, Change::Put(_));
        let content_flush = record.content.as_ref().map(|content| content.flush);
        let flush = content_flush.or(record.byteless_flush.as_ref().map(|saved| saved.flush));
        let dates = flush.is_none() && record.rows.rows().iter().all(put);
        let touched = record.dependencies.touches.iter();
        let inodes = touched.filter(|key| InodeTable::has(key));
        for ino in inodes.filter_map(|key| keys::trailing_ino(key)) {
            if let Some(work) = self
                .newest
                .get(&ino)
                .and_then(|id| self.sessions.get_mut(id))
            {
                work.dated |= dates;
                work.row_at = work.row_at.max(flush.unwrap_or(record.timestamp));
            }
        }
    }

    /// Follows renames and removals, for write sessions and superseded states.
    pub(crate) fn follow(&mut self, names: &NameEffects) {
        for (ino, from, to) in &names.moved {
            let work = self
                .newest
                .get(ino)
                .and_then(|id| self.sessions.get_mut(id));
            let standing = self.standing.get(ino).copied();
            let state = standing.and_then(|at| self.superseded.get_mut(at));
            let places = [work.map(|w| &mut w.place), state.map(|o| &mut o.dentry)];
            for place in places.into_iter().flatten() {
                if place.as_ref() == Some(from) {
                    *place = Some(to.clone());
                }
            }
        }
        for ino in &names.unlinked {
            if let Some(work) = self
                .newest
                .get(ino)
                .and_then(|id| self.sessions.get_mut(id))
            {
                work.place = None;
            }
        }
    }

    /// Begins a write session. Flushes that an older session of the inode left unsaved are older than every write of
    /// the new session.
    pub(crate) fn open(&mut self, session: u64, mut work: ReplayedSession) {
        if let Some(changes) = self.reverts.get(&session) {
            work.expect_reverts(changes);
        }
        let closed = self.newest.insert(work.ino, session);
        if let Some(closed) = closed.and_then(|old| self.sessions.remove(&old)) {
            work.flushes = closed.flushes;
            work.row_at = closed.row_at;
            for flush in &mut work.flushes {
                if let (Supersession::Current, Some(saved)) = (flush.supersession, &closed.saved) {
                    flush.rebase(saved, closed.base);
                }
                flush.supersession = Supersession::Superseded;
            }
        }
        self.sessions.insert(session, work);
    }

    pub(crate) fn flush(&mut self, record: FlushRecord) {
        let Some(work) = self.sessions.get_mut(&record.session) else {
            return;
        };
        work.len = record.attrs.size;
        let map = work.map.fix();
        let known = ReplayedFlush {
            ino: work.ino,
            map: map.clone(),
            token: work.token.clone(),
        };
        self.flushed.insert(FlushId::of(&record), known);
        let token = work.token.clone();
        work.flushes.push(UnreleasedFlush {
            record,
            map,
            base: work.base,
            supersession: Supersession::Current,
            token,
        });
    }

    /// Drops a flush that a later state of the same handle replaced.
    pub(crate) fn cancel_flush(&mut self, flush: FlushId) {
        if let Some(known) = self.flushed.get(&flush) {
            let ino = known.ino;
            self.drop_unreleased(flush, ino);
        }
    }

    /// Drops a flush from its write session and from the newest one of the inode, which takes over what older ones left.
    fn drop_unreleased(&mut self, flush: FlushId, ino: Ino) {
        let newest = self.newest.get(&ino).copied();
        for session in [Some(flush.session), newest].into_iter().flatten() {
            if let Some(work) = self.sessions.get_mut(&session) {
                work.flushes
                    .retain(|unreleased| FlushId::of(&unreleased.record) != flush);
            }
        }
    }

    /// Returns the changes of a flushed state since the state that its session continued from before; `None` if it is not in the journal.
    fn changes(&self, flush: FlushId) -> Option<DirtySnapshot> {
        let known = self.flushed.get(&flush)?;
        let work = self.sessions.get(&flush.session);
        let saved = work.and_then(|work| work.saved.as_ref());
        Some(match saved.filter(|saved| saved.seq() <= known.map.seq()) {
            Some(saved) => known.map.since(saved),
            None => known.map.clone(),
        })
    }

    /// Tells whether not all bytes of a content survived the machine, its own or those of the contents that it changes.
    pub(crate) fn is_lost(&self, record: &ContentRecord) -> bool {
        let flush = FlushId {
            session: record.session,
            at: record.flush,
        };
        let changes = self.changes(flush);
        self.lost.has_base(record.base) || changes.is_none_or(|changes| has_lost_bytes(&changes))
    }

    /// Leaves an operation out. Its flushed state becomes a version by itself if all of its bytes are there.
    pub(crate) fn leave_out(&mut self, id: OperationId, record: &OperationRecord) {
        if let Some(content) = record
            .content
            .as_ref()
            .filter(|content| self.is_lost(content))
        {
            let flush = FlushId {
                session: content.session,
                at: content.flush,
            };
            self.drop_unreleased(flush, content.ino);
        }
        let names = NameEffects::of(&record.rows);
        let moved = names.moved.iter().map(|(ino, ..)| ino);
        for ino in moved.chain(&names.unlinked) {
            self.lost.add_moved(id, *ino);
            if let Some(session) = self.newest.get(ino)
                && let Some(work) = self.sessions.remove(session)
            {
                self.ended.insert(*session, work);
            }
        }
        self.lost.add(id, record);
    }

    /// Takes back what an earlier recovery took back.
    pub(crate) fn revert(&mut self, session: u64, change: u64) {
        if let Some(work) = self.ended.remove(&session) {
            self.sessions.insert(session, work);
        }
        if let Some(work) = self.sessions.get_mut(&session) {
            work.revert_to(change);
        }
    }

    /// Takes back the writes whose bytes are lost. Returns the sessions from which something was taken back.
    pub(crate) fn revert_lost(&mut self) -> Vec<u64> {
        let mut reverted: Vec<u64> = self.ended.keys().copied().collect();
        self.sessions.append(&mut self.ended);
        for (session, work) in &mut self.sessions {
            if work.revert() && !reverted.contains(session) {
                reverted.push(*session);
            }
        }
        reverted
    }

    /// Notes that the state of a flush is queued: the session continues from this state, unless it already continues
    /// from a later one.
    pub(crate) fn mark_queued(&mut self, flush: FlushId, base: Option<ContentBase>) {
        let Some(known) = self.flushed.get(&flush).cloned() else {
            return;
        };
        self.drop_unreleased(flush, known.ino);
        let newest = self.newest.get(&known.ino);
        if let Some(work) = newest.and_then(|newest| self.sessions.get_mut(newest)) {
            let late = work.flushes.iter_mut().filter(|late| {
                late.record.session == flush.session
                    && late.supersession == Supersession::Superseded
            });
            late.for_each(|late| late.rebase(&known.map, base));
        }
        let Some(work) = self.sessions.get_mut(&flush.session) else {
            return;
        };
        let saved = work.saved.as_ref();
        if saved.is_some_and(|saved| saved.seq() > known.map.seq()) {
            return;
        }
        work.map.rebase(&known.map);
        work.saved = Some(known.map);
        work.base = base;
    }

    /// Rebuilds the content of a journaled operation; the write session continues from it. `None` if the operation is
    /// applied or its flush is not in the journal.
    pub(crate) fn rebuild_content(
        &mut self,
        record: &ContentRecord,
        done: bool,
        held: &mut Guards,
    ) -> Option<(Arc<PendingContent>, ContentRecord)> {
        let flush = FlushId {
            session: record.session,
            at: record.flush,
        };
        let changes = self.changes(flush)?;
        held.journal.push(self.flushed.get(&flush)?.token.clone());
        let base = Some(ContentBase {
            content: record.content,
            len: record.len,
        });
        self.mark_queued(flush, base);
        if done {
            return None;
        }
        held.staging = staging_of(&changes);
        // The base may belong to another lineage, if a whole file was cloned and then changed.
        let under = record
            .base
            .and_then(|base| self.pendings.get(&base.content));
        let after = under.cloned();
        let pending = Arc::new(PendingContent {
            content: record.content,
            ino: record.ino,
            place: record.place.clone(),
            base: record.base,
            len: record.len,
            flushed: record.referring(changes),
            after,
            replaces: record.replaces,
            upload_state: watch::Sender::new(UploadState::Waiting),
        });
        self.pendings.insert(record.content, Arc::clone(&pending));
        Some((pending, record.clone()))
    }
}
