//! The states of files that a journal has: what was saved, flushed, or written to a file that was still open.

use std::collections::HashMap;
use std::ops::Range;

use crate::cache::{DirtyMap, DirtySnapshot, Source, StagingDir};
use crate::meta::JournalToken;
use crate::store::commit::txn::Guards;
use crate::store::data::contents::PendingContent;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{Attrs, Author, ContentRef, Ino, Timestamp};
use crate::store::recovery::replay::{FlushId, JournalReplay, reverts};
use crate::store::recovery::replayed_session::ReplayedSession;
use crate::store::recovery::superseded::NameEffects;
use crate::store::salvage::names::NameTable;
use crate::store::schema::journal_record::{FlushRecord, OperationRecord, Record};
use crate::sync::Arc;

/// How a state came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateOrigin {
    /// A handle that changed the file was closed: the state is a version.
    Saved,
    /// close(2) or flush(2) was answered, and the version was not made yet.
    Flushed,
    /// Written to a file that was still open.
    Open,
}

/// One state of a file.
#[derive(Debug)]
pub(super) struct FileState {
    pub(super) ino: Ino,
    /// When it was made; of an open file, the maximum.
    pub(super) at: Timestamp,
    pub(super) origin: StateOrigin,
    /// The name that the file had then.
    pub(super) place: Option<Dentry>,
    pub(super) attrs: Attrs,
    pub(super) author: Author,
    bytes: StateBytes,
}

/// Spans over a content.
#[derive(Debug)]
struct StateBytes {
    base: Option<ContentBase>,
    spans: DirtySnapshot,
    len: u64,
}

/// Where the bytes of a part of a state are.
#[derive(Clone, Debug)]
pub(super) enum PartSource {
    /// In memory or in a staging file.
    Local(Source),
    /// Nowhere: they are zeros.
    Zero,
    /// Not on this machine: in the bucket, if anywhere.
    Elsewhere,
}

/// A part of a state.
#[derive(Clone, Debug)]
pub(super) struct StatePart {
    /// Offsets in the file, bytes.
    pub(super) range: Range<u64>,
    pub(super) source: PartSource,
}

/// The states in a journal, and the names in it.
#[derive(Debug)]
pub(super) struct JournalStates {
    pub(super) names: NameTable,
    pub(super) states: Vec<FileState>,
    /// The contents that states are over.
    contents: HashMap<ContentRef, Arc<PendingContent>>,
}

impl JournalStates {
    /// Finds the states in the records of a journal, oldest first, whose staging files are in `staging`.
    pub(super) fn find(
        records: impl Iterator<Item = (Record, JournalToken)>,
        staging: StagingDir,
    ) -> Self {
        let records: Vec<(Record, JournalToken)> = records.collect();
        let mut search = StateSearch {
            staging,
            replay: JournalReplay {
                reverts: reverts(&records),
                ..JournalReplay::default()
            },
            flushes: HashMap::new(),
            names: NameTable::default(),
            states: Vec::new(),
        };
        for (record, token) in records {
            search.add(record, token);
        }
        search.end()
    }

    /// The parts of a state, ascending and without gaps.
    pub(super) fn parts(&self, state: &FileState) -> Vec<StatePart> {
        let StateBytes { base, spans, len } = &state.bytes;
        let mut found = Vec::new();
        let mut open = vec![Layer {
            spans,
            base: *base,
            range: 0..*len,
            shift: 0,
            depth: 0,
        }];
        while let Some(layer) = open.pop() {
            for piece in layer.spans.pieces(layer.range.clone()) {
                let range = piece.range;
                match (piece.source, layer.base) {
                    (Some(Source::Reference { of, position }), _) => {
                        let end = position.saturating_add(range.end - range.start);
                        let moved = i128::from(range.start) - i128::from(position);
                        let under = layer.under(position..end, moved);
                        self.open(ContentRef::of(of), under, &mut open, &mut found);
                    }
                    (Some(Source::Zero), _) | (None, None) => {
                        found.push(layer.part(range, PartSource::Zero));
                    }
                    (Some(source), _) => found.push(layer.part(range, PartSource::Local(source))),
                    (None, Some(base)) => {
                        // Behind the end of the base are zeros.
                        let end = range.end.min(base.len.max(range.start));
                        if end < range.end {
                            found.push(layer.part(end..range.end, PartSource::Zero));
                        }
                        let under = layer.under(range.start..end, 0);
                        self.open(base.content, under, &mut open, &mut found);
                    }
                }
            }
        }
        found.sort_unstable_by_key(|part| part.range.start);
        found
    }

    /// Looks below a layer: at a content of the journal, or at one that is elsewhere.
    fn open<'a>(
        &'a self,
        content: ContentRef,
        under: LayerBelow,
        open: &mut Vec<Layer<'a>>,
        found: &mut Vec<StatePart>,
    ) {
        // A chain that is longer than the contents of the journal is a cycle of a damaged one.
        let known = self.contents.get(&content);
        let known = known.filter(|_| under.depth <= self.contents.len());
        match known {
            _ if under.range.is_empty() => {}
            Some(known) => open.push(Layer {
                spans: &known.flushed,
                base: known.base,
                range: under.range,
                shift: under.shift,
                depth: under.depth,
            }),
            None => found.push(part(under.range, under.shift, PartSource::Elsewhere)),
        }
    }
}

/// A range of a content that shows in a state.
struct Layer<'a> {
    spans: &'a DirtySnapshot,
    base: Option<ContentBase>,
    /// Offsets in the content, bytes.
    range: Range<u64>,
    /// What the offset in the file is more.
    shift: i128,
    /// How many layers are above it.
    depth: usize,
}

/// A range of what lies below a layer.
struct LayerBelow {
    range: Range<u64>,
    shift: i128,
    depth: usize,
}

impl Layer<'_> {
    fn part(&self, range: Range<u64>, source: PartSource) -> StatePart {
        part(range, self.shift, source)
    }

    fn under(&self, range: Range<u64>, moved: i128) -> LayerBelow {
        LayerBelow {
            range,
            shift: self.shift + moved,
            depth: self.depth + 1,
        }
    }
}

/// A part of a file. A shifted offset is one of the file that was asked for, so it is not negative.
fn part(range: Range<u64>, shift: i128, source: PartSource) -> StatePart {
    let moved = |offset: u64| u64::try_from(i128::from(offset) + shift).unwrap_or(0);
    let range = moved(range.start)..moved(range.end);
    StatePart { range, source }
}

/// A search that has read a part of the journal.
struct StateSearch {
    staging: StagingDir,
    replay: JournalReplay,
    /// The flushes that an operation may carry.
    flushes: HashMap<FlushId, FlushRecord>,
    names: NameTable,
    states: Vec<FileState>,
}

impl StateSearch {
    fn add(&mut self, record: Record, token: JournalToken) {
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
                self.replay.open(session, work);
            }
            Record::Staged { .. } => self.replay.replay_staged(&self.staging, &record),
            Record::Operation(operation) => self.add_operation(*operation),
            Record::Flush(flush) => {
                self.flushes.insert(FlushId::of(&flush), flush.clone());
                self.replay.flush(flush);
            }
            Record::CancelFlush { session, at } => {
                self.replay.cancel_flush(FlushId { session, at });
            }
            Record::Write { session, .. }
            | Record::Punch { session, .. }
            | Record::Truncate { session, .. }
            | Record::Refer { session, .. } => self.replay.change(session, record),
            Record::Reverted { session, change } => self.replay.revert(session, change),
            Record::Renamed { .. }
            | Record::Epoch { .. }
            | Record::Batch { .. }
            | Record::LostOperation { .. }
            | Record::Journaled { .. } => {}
        }
    }

    fn add_operation(&mut self, operation: OperationRecord) {
        self.replay.follow(&NameEffects::of(&operation.rows));
        let changed = self.names.apply(&operation.rows);
        if operation.content.is_none() {
            for ino in changed {
                self.add_shared(ino, operation.timestamp);
            }
        }
        if let Some(content) = &operation.content {
            let flush = FlushId {
                session: content.session,
                at: content.flush,
            };
            let mut held = Guards::default();
            let rebuilt = self.replay.rebuild_content(content, false, &mut held);
            if let (Some((pending, _)), Some(flush)) = (rebuilt, self.flushes.remove(&flush)) {
                self.states.push(FileState {
                    ino: pending.ino,
                    at: operation.timestamp,
                    origin: StateOrigin::Saved,
                    place: Some(pending.place.clone()),
                    attrs: flush.attrs,
                    author: flush.author,
                    bytes: StateBytes {
                        base: pending.base,
                        spans: pending.flushed.clone(),
                        len: pending.len,
                    },
                });
            }
        }
        if let Some(saved) = &operation.byteless_flush {
            let flush = FlushId {
                session: saved.session,
                at: saved.flush,
            };
            self.flushes.remove(&flush);
            self.replay.mark_queued(flush, saved.base);
        }
    }

    /// Adds the state of a file that is empty, or has the content of another one: a copy, or a file that came back.
    fn add_shared(&mut self, ino: Ino, at: Timestamp) {
        let (Some(own), place) = (self.names.own(ino), self.names.place(ino, None)) else {
            return;
        };
        let len = own.attrs.size;
        let base = match own.content.reference() {
            Some(content) if self.replay.pendings.contains_key(&content) => {
                Some(ContentBase { content, len })
            }
            None if len == 0 => None,
            // All of its bytes are elsewhere.
            _ => return,
        };
        self.states.push(FileState {
            ino,
            at,
            origin: StateOrigin::Saved,
            place,
            attrs: own.attrs.clone(),
            author: Author::default(),
            bytes: StateBytes {
                base,
                spans: DirtyMap::new().fix(),
                len,
            },
        });
    }

    fn end(mut self) -> JournalStates {
        for work in std::mem::take(&mut self.replay.sessions).into_values() {
            self.add_session(work);
        }
        self.states.sort_by_key(|state| (state.ino, state.at));
        JournalStates {
            names: self.names,
            states: self.states,
            contents: self.replay.pendings,
        }
    }

    /// Adds what no operation carries of a write session: flushed states, and what was written after the last one.
    fn add_session(&mut self, mut work: ReplayedSession) {
        if !work.is_open() {
            return;
        }
        let mut newest = work.saved_seq();
        let attrs = self.names.own(work.ino).map(|own| own.attrs.clone());
        let mut attrs = attrs.unwrap_or_default();
        for flush in std::mem::take(&mut work.flushes) {
            newest = newest.max(flush.map.seq());
            attrs = flush.record.attrs.clone();
            self.states.push(FileState {
                ino: work.ino,
                at: flush.record.at,
                origin: StateOrigin::Flushed,
                place: work.place.clone(),
                bytes: StateBytes {
                    base: flush.base,
                    spans: flush.map,
                    len: attrs.size,
                },
                attrs: flush.record.attrs,
                author: flush.record.author,
            });
        }
        if work.map.seq() > newest {
            self.states.push(FileState {
                ino: work.ino,
                at: Timestamp(u64::MAX),
                origin: StateOrigin::Open,
                place: work.place,
                attrs,
                author: work.author,
                bytes: StateBytes {
                    base: work.base,
                    spans: work.map.fix(),
                    len: work.len,
                },
            });
        }
    }
}
