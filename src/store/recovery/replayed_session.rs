//! A write session as the journal has it: its dirty map, the flushed states that no operation carries, and the state to go back to where
//! bytes are lost.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::cache::{DirtyMap, DirtySnapshot, Source};
use crate::meta::JournalToken;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{Author, Ino, Timestamp};
use crate::store::recovery::lost::{has_lost_bytes, lost_bytes};
use crate::store::schema::journal_record::{FlushRecord, Record};
use crate::store::tree::inode::Supersession;

/// A write session of one inode, with the writes of which the journal has records.
#[derive(Debug)]
pub(crate) struct ReplayedSession {
    pub(crate) ino: Ino,
    pub(crate) epoch: u64,
    /// The directory entry of the inode, after all acknowledged renames; `None` when the inode has no name.
    pub(crate) place: Option<Dentry>,
    pub(crate) base: Option<ContentBase>,
    pub(crate) len: u64,
    pub(crate) author: Author,
    pub(crate) map: DirtyMap,
    pub(crate) saved: Option<DirtySnapshot>,
    pub(crate) flushes: Vec<UnreleasedFlush>,
    pub(crate) token: JournalToken,
    pub(crate) bytes: u64,
    /// Whether an operation set the file times of the inode after the last change of its bytes.
    pub(crate) dated: bool,
    /// Timestamp of the state in the inode's row, if a journaled operation wrote it; else 0.
    pub(crate) row_at: Timestamp,
    /// The state before the first write whose bytes are lost, if the bytes that show now include lost ones.
    intact: Option<SessionState>,
    /// The states to which earlier recoveries took the session back, by the number of the last change in them; `None` until the replay comes to
    /// that change.
    reverted_to: BTreeMap<u64, Option<SessionState>>,
}

/// A state of a write session.
#[derive(Clone, Debug)]
struct SessionState {
    map: DirtySnapshot,
    len: u64,
    /// The state before its first lost write, if it has lost bytes.
    intact: Option<Box<Self>>,
}

/// A flush whose file handle was not released before the daemon ended.
#[derive(Debug)]
pub(crate) struct UnreleasedFlush {
    pub(crate) record: FlushRecord,
    pub(crate) map: DirtySnapshot,
    pub(crate) base: Option<ContentBase>,
    pub(crate) supersession: Supersession,
    pub(crate) token: JournalToken,
}

impl UnreleasedFlush {
    /// Makes the state of an earlier flush of the same session, which an operation carries, the base.
    pub(crate) fn rebase(&mut self, saved: &DirtySnapshot, base: Option<ContentBase>) {
        if saved.seq() < self.map.seq() {
            self.map = self.map.since(saved);
            self.base = base;
        }
    }
}

impl ReplayedSession {
    pub(crate) fn new(
        ino: Ino,
        base: Option<ContentBase>,
        len: u64,
        epoch: u64,
        place: Option<Dentry>,
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
            intact: None,
            reverted_to: BTreeMap::new(),
        }
    }

    /// Tells to which states earlier recoveries took the session back: the numbers of their last changes. It must not have changes yet.
    pub(crate) fn expect_reverts(&mut self, changes: &[u64]) {
        self.reverted_to = changes.iter().map(|change| (*change, None)).collect();
        self.keep_state();
    }

    /// Keeps the present state if an earlier recovery took the session back to it.
    fn keep_state(&mut self) {
        if let Some(kept) = self.reverted_to.get_mut(&self.map.seq()) {
            *kept = Some(SessionState {
                map: self.map.fix(),
                len: self.len,
                intact: self.intact.clone().map(Box::new),
            });
        }
    }

    /// Returns the number of the last change that an operation carries.
    pub(crate) fn saved_seq(&self) -> u64 {
        self.saved.as_ref().map_or(0, DirtySnapshot::seq)
    }

    /// Tells whether the session has writes or flushes that no operation carries.
    pub(crate) fn is_open(&self) -> bool {
        self.map.seq() > self.saved_seq() || !self.flushes.is_empty()
    }

    /// Tells whether the session continues, or repeats, the newest state that an operation carries.
    pub(crate) fn goes_on(&self) -> bool {
        let saved = self.saved_seq();
        let flushed = |flush: &UnreleasedFlush| {
            flush.supersession == Supersession::Current && flush.map.seq() >= saved
        };
        self.map.seq() > saved || self.flushes.iter().any(flushed)
    }

    /// Adds a write whose bytes are not in its record.
    pub(crate) fn stage(&mut self, offset: u64, len: u64, source: Source) {
        self.dated = false;
        self.len = self.len.max(offset.saturating_add(len));
        self.bytes = self.bytes.saturating_add(len);
        self.map.write(offset, len, source);
        self.keep_state();
    }

    /// Adds a write whose bytes are lost. It matters only if no later change covers it and no operation that the index has carries it.
    pub(crate) fn lose(&mut self, offset: u64, len: u64) {
        let before = self.map.fix();
        if self.intact.is_none() || !has_lost_bytes(&before) {
            self.intact = Some(SessionState {
                map: before,
                len: self.len,
                intact: None,
            });
        }
        self.stage(offset, len, lost_bytes());
    }

    /// Takes back what was written from the first lost write on, if lost bytes show, and drops flushed states that have such bytes. Returns
    /// whether anything was taken back.
    pub(crate) fn revert(&mut self) -> bool {
        let saved = self.saved.as_ref();
        let flushes = self.flushes.len();
        // A flush of an earlier session of the inode has its own map, which no operation carries.
        self.flushes
            .retain(|flush| match (flush.supersession, saved) {
                (Supersession::Current, Some(saved)) => !has_lost_bytes(&flush.map.since(saved)),
                _ => !has_lost_bytes(&flush.map),
            });
        let is_lost = has_lost_bytes(&self.map.fix());
        if let Some(intact) = self.intact.take().filter(|_| is_lost) {
            self.return_to(intact);
        }
        is_lost || self.flushes.len() < flushes
    }

    /// Takes back what an earlier recovery took back: all changes after `change`.
    pub(crate) fn revert_to(&mut self, change: u64) {
        let state = self.reverted_to.get(&change).cloned().flatten();
        if let Some(state) = state {
            // Flushed states after that change are not versions; those of an earlier session of the inode are.
            self.flushes.retain(|flush| {
                flush.supersession == Supersession::Superseded || flush.map.seq() <= change
            });
            self.return_to(state);
        }
    }

    fn return_to(&mut self, state: SessionState) {
        let saved = self.saved.as_ref();
        let is_newer = saved.is_none_or(|saved| saved.seq() < state.map.seq());
        self.len = match is_newer {
            true => state.len,
            false => self.base.map_or(0, |base| base.len),
        };
        self.map.revert(&state.map, saved);
        self.intact = state.intact.map(|intact| *intact);
    }

    /// Adds a change that is described completely by its record.
    pub(crate) fn change(&mut self, record: Record) {
        self.dated = false;
        match record {
            Record::Write { offset, bytes, .. } => {
                let len = bytes.len() as u64;
                self.len = self.len.max(offset.saturating_add(len));
                self.bytes = self.bytes.saturating_add(len);
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
                self.len = self.len.max(offset.saturating_add(len));
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
            _ => {}
        }
        self.keep_state();
    }
}
