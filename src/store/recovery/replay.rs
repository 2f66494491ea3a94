//! The journal's records played through fresh dirty maps: what every working had, and which fixes still wait.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use tokio::sync::watch;

use crate::cache::{DirtyMap, Fixed as FixedMap, Source, StagingFile};
use crate::meta::{Change, JournalToken};
use crate::store::commit::txn::Guards;
use crate::store::data::extent_map::{PendingContent, UploadState};
use crate::store::model::ids::Dentry;
use crate::store::model::version::{Author, ContentRef, Ino, Timestamp};
use crate::store::recovery::superseded::{ForeignWriters, NameEffects, SupersededOperation};
use crate::store::schema::journal_record::{ContentRecord, FlushRecord, OperationRecord, Record};
use crate::store::schema::keys;
use crate::store::schema::tables::{InodeTable, RowTable};
use crate::store::tree::inode::Supersession;
use crate::sync::Arc;

/// An inode's unsealed writes, as the journal has them.
#[derive(Debug)]
pub(crate) struct ReplayedSession {
    pub(crate) ino: Ino,
    pub(crate) epoch: u64,
    /// Where the inode hangs, renames that were acknowledged since included; `None` once it has no name.
    pub(crate) place: Option<Dentry>,
    pub(crate) base: Option<(ContentRef, u64)>,
    pub(crate) len: u64,
    pub(crate) author: Author,
    pub(crate) map: DirtyMap,
    pub(crate) saved: Option<FixedMap>,
    pub(crate) flushes: Vec<UnreleasedFlush>,
    pub(crate) token: JournalToken,
    pub(crate) bytes: u64,
    /// The times of its inode's row were set after the last change of its bytes.
    pub(crate) dated: bool,
    /// Of which timestamp the state is that its inode's row has, if an operation since has made it.
    pub(crate) row_at: Timestamp,
    /// Writes whose bytes are gone, and how many of them belong to operations that needed them no more or have said so.
    pub(crate) lost: Vec<String>,
    pub(crate) told: usize,
}

/// A fix whose handle was not released.
#[derive(Debug)]
pub(crate) struct UnreleasedFlush {
    pub(crate) record: FlushRecord,
    pub(crate) map: FixedMap,
    pub(crate) base: Option<(ContentRef, u64)>,
    pub(crate) supersession: Supersession,
    pub(crate) token: JournalToken,
}

/// A fix as it was when the journal had it.
#[derive(Clone, Debug)]
pub(crate) struct ReplayedFlush {
    pub(crate) ino: Ino,
    pub(crate) map: FixedMap,
    pub(crate) token: JournalToken,
    pub(crate) lost: usize,
}

/// The replay of a journal.
#[derive(Debug, Default)]
pub(crate) struct JournalReplay {
    pub(crate) sessions: BTreeMap<u64, ReplayedSession>,
    pub(crate) newest: HashMap<Ino, u64>,
    /// Every fix, by working and timestamp: an operation may bring one long after a later state, when its working is closed.
    pub(crate) flushed: HashMap<(u64, Timestamp), ReplayedFlush>,
    pub(crate) files: HashMap<u64, Arc<StagingFile>>,
    pub(crate) pendings: HashMap<ContentRef, Arc<PendingContent>>,
    pub(crate) notes: Vec<String>,
    pub(crate) foreign_writers: ForeignWriters,
    /// What contents of overtaken operations are called since an earlier recovery.
    pub(crate) renamed: HashMap<ContentRef, ContentRef>,
    /// Operations that cannot be queued any more, in order.
    pub(crate) superseded: Vec<SupersededOperation>,
    /// The newest of them that makes a state of an inode.
    pub(crate) standing: HashMap<Ino, usize>,
}

impl ReplayedSession {
    pub(crate) fn new(
        (ino, base, len): (Ino, Option<(ContentRef, u64)>, u64),
        (epoch, place): (u64, Option<Dentry>),
        author: Author,
        token: JournalToken,
    ) -> Self {
        Self {
            ino,
            epoch,
            place,
            base,
            len,
            author,
            map: DirtyMap::new(),
            saved: None,
            flushes: Vec::new(),
            token,
            bytes: 0,
            dated: false,
            row_at: Timestamp(0),
            lost: Vec::new(),
            told: 0,
        }
    }

    /// Whether it has changes or fixes that no operation brings.
    pub(crate) fn is_open(&self) -> bool {
        self.map.seq() > self.saved.as_ref().map_or(0, FixedMap::seq) || !self.flushes.is_empty()
    }

    /// Whether what it has goes on from, or repeats, the newest state that an operation brings.
    pub(crate) fn goes_on(&self) -> bool {
        let saved = self.saved.as_ref().map_or(0, FixedMap::seq);
        let flushed = |flush: &UnreleasedFlush| {
            flush.supersession == Supersession::Current && flush.map.seq() >= saved
        };
        self.map.seq() > saved || self.flushes.iter().any(flushed)
    }

    /// A write whose bytes are in a staging file, if they are.
    pub(crate) fn stage(&mut self, offset: u64, len: u64, source: Option<Source>) {
        self.dated = false;
        match source {
            Some(source) => {
                self.len = self.len.max(offset + len);
                self.bytes += len;
                self.map.write(offset, len, source);
            }
            None => {
                // It counts as a change: the states before it and after it are two.
                self.map.write(offset, 0, Source::Zero);
                self.lost.push(format!(
                    "inode {}: {len} bytes at {offset} did not survive the machine and were left out",
                    self.ino.0
                ));
            }
        }
    }

    /// A change that needs nothing but its record.
    pub(crate) fn change(&mut self, record: Record) {
        self.dated &= matches!(record, Record::CancelFlush { .. });
        match record {
            Record::Write { offset, bytes, .. } => {
                let len = bytes.len() as u64;
                self.len = self.len.max(offset + len);
                self.bytes += len;
                let bytes = Bytes::copy_from_slice(&bytes);
                self.map.write(offset, len, Source::Memory(bytes));
            }
            Record::Refer {
                offset,
                len,
                content,
                position,
                ..
            } => {
                self.len = self.len.max(offset + len);
                let of = content.referent();
                self.map
                    .write(offset, len, Source::Reference { of, position });
            }
            Record::Punch { offset, len, .. } => {
                self.map.punch(offset, len);
            }
            Record::Truncate { len, old_len, .. } => {
                self.map.truncate(len, old_len);
                self.len = len;
            }
            Record::CancelFlush { at, .. } => self.flushes.retain(|flush| flush.record.at != at),
            _ => {}
        }
    }
}

/// The staging files that hold bytes of a state, each once.
pub(crate) fn staging_of(flushed: &FixedMap) -> Vec<Arc<StagingFile>> {
    let files = flushed.spans().filter_map(|span| match &span.source {
        Source::File { file, .. } => Some((file.id(), Arc::clone(file))),
        Source::Memory(_) | Source::Zero | Source::Reference { .. } => None,
    });
    files.collect::<BTreeMap<_, _>>().into_values().collect()
}

impl JournalReplay {
    /// The workings of writers that were overtaken.
    pub(crate) fn take_superseded(&mut self) -> BTreeMap<u64, ReplayedSession> {
        let (foreign_writers, sessions) =
            (&self.foreign_writers, std::mem::take(&mut self.sessions));
        let (superseded, own) = sessions
            .into_iter()
            .partition(|(_, work)| foreign_writers.since(work.epoch).is_some());
        self.sessions = own;
        superseded
    }

    /// An operation that another writer's came before.
    pub(crate) fn supersede(&mut self, superseded: SupersededOperation) {
        if let (Some((ino, ..)), Some(_)) = (superseded.state(), &superseded.slot) {
            self.standing.insert(ino, self.superseded.len());
        }
        self.superseded.push(superseded);
    }

    /// What an operation says of the attributes of files with unsaved writes: one that brings a state has those of its fix,
    /// another one has them as they were shown.
    pub(crate) fn date(&mut self, record: &OperationRecord) {
        let put = |(_, change): &(Bytes, Change)| matches!(change, Change::Put(_));
        let brought = record.content.as_ref().map(|content| content.flush);
        let flush = brought.or(record.byteless_flush.as_ref().map(|saved| saved.flush));
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

    /// Where unsaved writes and overtaken states hang after an operation.
    pub(crate) fn follow(&mut self, names: &NameEffects) {
        for (ino, from, to) in &names.moved {
            let work = self
                .newest
                .get(ino)
                .and_then(|id| self.sessions.get_mut(id));
            let standing = self.standing.get(ino).copied();
            let state = standing.and_then(|at| self.superseded.get_mut(at));
            let places = [work.map(|w| &mut w.place), state.map(|o| &mut o.slot)];
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

    /// A working began: what an older one of the inode left unsaved lies behind everything in it.
    pub(crate) fn open(&mut self, session: u64, mut work: ReplayedSession) {
        let closed = self.newest.insert(work.ino, session);
        if let Some(closed) = closed.and_then(|old| self.sessions.remove(&old)) {
            work.flushes = closed.flushes;
            work.row_at = closed.row_at;
            for flush in &mut work.flushes {
                flush.supersession = Supersession::Superseded;
            }
        }
        self.sessions.insert(session, work);
    }

    pub(crate) fn flush(&mut self, record: FlushRecord) {
        let Some(work) = self.sessions.get_mut(&record.session) else {
            return;
        };
        // Writes before it whose bytes are in the bucket by now, and their staging file gone, did not lengthen it here.
        work.len = record.attrs.size;
        let map = work.map.fix();
        let known = ReplayedFlush {
            ino: work.ino,
            map: map.clone(),
            token: work.token.clone(),
            lost: work.lost.len(),
        };
        self.flushed.insert((record.session, record.at), known);
        let token = work.token.clone();
        work.flushes.push(UnreleasedFlush {
            record,
            map,
            base: work.base,
            supersession: Supersession::Current,
            token,
        });
    }

    /// The state of a fix is in the queue: the working goes on from it, unless it has gone on from a later one. The state's changes
    /// since the one it went on from before.
    pub(crate) fn settle(
        &mut self,
        key: (u64, Timestamp),
        base: Option<(ContentRef, u64)>,
        done: bool,
    ) -> Option<FixedMap> {
        let known = self.flushed.get(&key)?;
        let newest = self.newest.get(&known.ino).copied();
        for session in [Some(key.0), newest].into_iter().flatten() {
            if let Some(work) = self.sessions.get_mut(&session) {
                work.flushes
                    .retain(|flush| (flush.record.session, flush.record.at) != key);
            }
        }
        let work = self.sessions.get_mut(&key.0)?;
        if work.told < known.lost {
            if !done {
                self.notes
                    .extend_from_slice(&work.lost[work.told..known.lost]);
            }
            work.told = known.lost;
        }
        let before = work.saved.take();
        if let Some(later) = before.as_ref().filter(|s| s.seq() > known.map.seq()) {
            work.saved = Some(later.clone());
            return None;
        }
        work.map.rebase(&known.map);
        work.saved = Some(known.map.clone());
        work.base = base;
        Some(before.map_or_else(|| known.map.clone(), |s| known.map.since(&s)))
    }

    /// The content of a journaled operation; the working goes on from it.
    pub(crate) fn bring(
        &mut self,
        record: &ContentRecord,
        done: bool,
        held: &mut Guards,
    ) -> Option<(Arc<PendingContent>, ContentRecord)> {
        let key = (record.session, record.flush);
        let known = self.flushed.get(&key).cloned()?;
        let base = Some((record.content, record.len));
        let changes = self.settle(key, base, done).unwrap_or(known.map);
        held.journal.push(known.token);
        if done {
            return None;
        }
        held.staging = staging_of(&changes);
        // What it lies over may be of another lineage, where all of a file was copied and then changed.
        let under = record.base.and_then(|(base, _)| self.pendings.get(&base));
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
