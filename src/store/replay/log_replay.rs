//! Replay of a namespace's log into rows, and detection of missing or damaged log objects.
//!
//! Invariants: the log objects of an epoch are numbered from 1 without a gap, those before the newest checkpoint left out. So are
//! the batches of an epoch, except where a list of all rows starts the log again. A violation is reported with the key of the
//! object.
//! While a list of all rows is read, the rows from before it are kept beside it: the list counts once it is complete. Batches
//! between its parts are applied to both, but in the list only to keys that its parts cover, because the later parts have them.
//! A batch is applied once, even if two objects contain it: a writer that was fenced during an upload, and its
//! successor, may both upload it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::backend::{Backend, BackendError};
use crate::meta::Batch;
use crate::store::commit::log_object::{self, LogBase, LogObject};
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::replay::log_damage::LogDamage;
use crate::store::replay::sorted::SortedRows;
use crate::store::schema::object_names::{SegmentId, object_numbers};
use crate::store::schema::rows::{LogPlace, decode};
use crate::store::schema::tables::{AppliedTable, RowTable};

/// Maximum size of the objects that are fetched concurrently, in bytes; a single larger object is fetched alone.
const FETCH_BYTES: u64 = 16 << 20;
/// Maximum number of objects that are fetched concurrently.
const FETCH_OBJECTS: usize = 32;

/// How much of the log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogProgress {
    /// Number of objects read.
    pub(crate) read: usize,
    /// Number of objects known so far.
    pub(crate) all: usize,
}

/// A time whose changes may have been in objects that could not be read, by the namespace's clock, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogGap {
    /// The clock at the last batch before it; `None` if there is none.
    pub(crate) after: Option<u64>,
    /// The clock at the first batch behind it; `None` if there is none.
    pub(crate) until: Option<u64>,
}

/// Whether all objects before an object were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PriorObjects {
    Whole,
    /// An object is missing or damaged, and was reported.
    Hole,
}

/// A log object that waits to be fetched.
#[derive(Clone, Copy, Debug)]
struct QueuedObject {
    id: LogPlace,
    /// Size in bytes.
    size: u64,
    before: PriorObjects,
}

/// One batch of the log, or one part of a list of all rows.
#[derive(Debug)]
struct LogStep {
    object: LogPlace,
    before: PriorObjects,
    /// The batch itself, or the newest one in the part.
    upto: BatchId,
    kind: LogStepKind,
    /// The first segment that the log up to this object may not know.
    unresolved: SegmentId,
    /// An encoded batch.
    rows: Bytes,
}

/// How a step changes the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LogStepKind {
    /// The step changes the rows that came before.
    Batch,
    /// The step begins a list of all rows; it has every row with a key below this one.
    Begin(Bytes),
    /// The step continues a list up to this key.
    Part(Bytes),
    /// The step completes a list.
    End,
}

/// A list of all rows that is being read.
struct ListedRows {
    rows: SortedRows,
    /// The object that begins it.
    began: LogPlace,
    /// Every row with a key below this one is in `rows`.
    covers: Bytes,
    /// The newest batch that was applied to them.
    told: BatchId,
    /// Whether every object since the first of the list was read.
    objects: PriorObjects,
}

/// The position of a log replay relative to the batch up to which it was to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogPosition {
    /// The rows are in the state after that batch.
    There,
    /// The log ends before that batch.
    Short,
    /// The log continues only after that batch.
    Beyond,
}

/// A log replay. Each call continues where the previous call ended.
pub(crate) struct LogReplay<'a> {
    backend: &'a Backend,
    pub(crate) rows: SortedRows,
    /// The newest object that was listed or that the index names.
    listed: Option<LogPlace>,
    /// Whether all objects between `listed` and the next listed object exist.
    listed_before: PriorObjects,
    /// Whether all objects before the next fetched object were read.
    fetched_before: PriorObjects,
    waiting: VecDeque<QueuedObject>,
    parts: VecDeque<LogStep>,
    /// The newest batch in `rows`; `None` before the first batch, and if the log begins with a list that is not complete.
    told: Option<BatchId>,
    /// Whether every object that `rows` are made of was read.
    told_objects: PriorObjects,
    list: Option<ListedRows>,
    /// Number of objects read.
    pub(crate) objects: usize,
    pub(crate) damage: LogDamage,
    /// The newest batch in the rows that the replay began over; `None` if it began over none.
    over: Option<BatchId>,
    /// The rows need no object before this one.
    pub(crate) began: Option<LogPlace>,
    /// Per gap since `began`, the time that it covers.
    pub(crate) gaps: Vec<LogGap>,
    /// The newest row `G A` in the applied batches, not decoded.
    newest_applied: Option<Bytes>,
    /// The first segment that the objects read so far may not know.
    unresolved: SegmentId,
    /// The same before the first gap since `began`.
    unresolved_at_gap: Option<SegmentId>,
}

impl<'a> LogReplay<'a> {
    /// Makes a replay that begins at the object `from`; `None`: at the first one.
    pub(crate) fn new(backend: &'a Backend, rows: SortedRows, from: Option<LogPlace>) -> Self {
        Self {
            backend,
            rows,
            listed: from.map(|from| LogPlace {
                sequence: from.sequence.saturating_sub(1),
                ..from
            }),
            listed_before: PriorObjects::Whole,
            fetched_before: PriorObjects::Whole,
            waiting: VecDeque::new(),
            parts: VecDeque::new(),
            told: None,
            told_objects: PriorObjects::Whole,
            list: None,
            objects: 0,
            damage: LogDamage::default(),
            over: None,
            began: None,
            gaps: Vec::new(),
            newest_applied: None,
            unresolved: SegmentId {
                epoch: 0,
                sequence: 0,
            },
            unresolved_at_gap: None,
        }
    }

    /// Makes a replay of the batches after `over`, over rows that have the batches up to it. `applied` is the row `G A` in them.
    pub(crate) fn over(
        backend: &'a Backend,
        rows: SortedRows,
        over: BatchId,
        applied: Bytes,
    ) -> Self {
        Self {
            told: Some(over),
            over: Some(over),
            newest_applied: Some(applied),
            ..Self::new(backend, rows, None)
        }
    }

    /// Returns the faults that the rows may lack something for.
    pub(crate) fn damage_of_rows(&self) -> LogDamage {
        match self.began {
            Some(began) => self.damage.since(began),
            None => self.damage.since(LogPlace::default()),
        }
    }

    /// Returns the first segment that the log up to the newest object that was read may not know.
    pub(crate) fn newest_unresolved(&self) -> SegmentId {
        self.unresolved
    }

    /// Returns the first segment that the log may not know: no batch that was read cites it, or one does that was in a gap.
    pub(crate) fn first_unresolved(&self) -> SegmentId {
        let at_gap = self.unresolved_at_gap.unwrap_or(self.unresolved);
        at_gap.min(self.unresolved)
    }

    /// Returns the newest batch that was applied.
    pub(crate) fn told(&self) -> Option<BatchId> {
        self.told
    }

    /// Continues the replay up to the batch `upto`, or to the end of the log. `recorded` is the newest object that the
    /// index names.
    pub(crate) async fn read_to(
        &mut self,
        upto: BatchId,
        recorded: Option<LogPlace>,
        step: &(impl Fn(LogProgress) + Sync),
    ) -> Result<LogPosition, StoreError> {
        self.list(recorded).await?;
        loop {
            while self.told.is_none_or(|told| told < upto) {
                let Some(part) = self.parts.pop_front() else {
                    break;
                };
                self.apply(part)?;
            }
            match self.told {
                Some(told) if told == upto => return Ok(LogPosition::There),
                Some(told) if told > upto => return Ok(LogPosition::Beyond),
                _ if self.waiting.is_empty() => return Ok(LogPosition::Short),
                _ => self.fetch().await?,
            }
            step(LogProgress {
                read: self.objects,
                all: self.objects + self.waiting.len(),
            });
        }
    }

    /// Lists the objects that are newer than the last listing, and reports missing ones.
    async fn list(&mut self, recorded: Option<LogPlace>) -> Result<(), StoreError> {
        let found = match self.listed {
            None => self.backend.list("log").await?,
            Some(newest) => {
                self.backend
                    .list_after("log", &log_object::key_of(newest))
                    .await?
            }
        };
        for info in found {
            let Some((epoch, sequence)) = object_numbers("log", &info.key) else {
                self.damage.add_foreign(info.key);
                continue;
            };
            let id = LogPlace { epoch, sequence };
            self.tell_missing(id);
            self.listed = Some(id);
            self.waiting.push_back(QueuedObject {
                id,
                size: info.size,
                before: std::mem::replace(&mut self.listed_before, PriorObjects::Whole),
            });
        }
        if let Some(recorded) = recorded
            && self.listed.is_none_or(|listed| listed < recorded)
        {
            self.tell_missing(LogPlace {
                sequence: recorded.sequence + 1,
                ..recorded
            });
            self.listed = Some(recorded);
        }
        Ok(())
    }

    /// Reports the missing objects between the newest listed object and `next`.
    fn tell_missing(&mut self, next: LogPlace) {
        let before = self.listed.filter(|listed| listed.epoch == next.epoch);
        let first = before.map_or(1, |listed| listed.sequence + 1);
        if self.damage.add_missing(first, next) {
            self.listed_before = PriorObjects::Hole;
        }
    }

    /// Fetches the next objects.
    async fn fetch(&mut self) -> Result<(), StoreError> {
        let (mut wanted, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            bytes += next.size;
            if !wanted.is_empty() && (bytes > FETCH_BYTES || wanted.len() >= FETCH_OBJECTS) {
                break;
            }
            wanted.push(*next);
            self.waiting.pop_front();
        }
        let backend = self.backend;
        let got = wanted.iter().map(|wanted| async move {
            log_object::fetch(backend, &log_object::key_of(wanted.id)).await
        });
        let got = futures::future::join_all(got).await;
        for (wanted, got) in wanted.into_iter().zip(got) {
            self.objects += 1;
            if wanted.before == PriorObjects::Hole {
                self.fetched_before = PriorObjects::Hole;
            }
            let object = match got {
                Ok(object) => Ok(object),
                Err(BackendError::NotFound { .. }) => Err("is missing".to_owned()),
                Err(BackendError::Damaged { reason, .. }) => Err(format!("is damaged: {reason}")),
                Err(error) => return Err(error.into()),
            };
            match object {
                Ok(object) => self.take_apart(wanted.id, object),
                Err(what) => {
                    self.damage.add_bad(wanted.id, &what);
                    self.fetched_before = PriorObjects::Hole;
                }
            }
        }
        Ok(())
    }

    fn take_apart(&mut self, id: LogPlace, object: LogObject) {
        let mut before = std::mem::replace(&mut self.fetched_before, PriorObjects::Whole);
        let listed = object.listed();
        let unresolved = SegmentId {
            epoch: id.epoch,
            sequence: match object.epoch == id.epoch {
                true => object.resolved,
                false => 0,
            },
        };
        for (at, rows) in object.batches.into_iter().enumerate() {
            let covers = object.covers.clone();
            let (kind, number) = match (object.base, at) {
                (LogBase::Before, _) => (LogStepKind::Batch, listed.number + at as u64),
                (LogBase::Nothing, 0) => (LogStepKind::Begin(covers), listed.number),
                (LogBase::Nothing | LogBase::Continues, _) => {
                    (LogStepKind::Part(covers), listed.number)
                }
                (LogBase::Ends, _) => (LogStepKind::End, listed.number),
            };
            self.parts.push_back(LogStep {
                object: id,
                before: std::mem::replace(&mut before, PriorObjects::Whole),
                upto: BatchId { number, ..listed },
                kind,
                unresolved,
                rows,
            });
        }
    }

    fn apply(&mut self, part: LogStep) -> Result<(), StoreError> {
        let batch = match decode::<Batch>("log batch", &part.rows) {
            Ok(batch) => batch,
            Err(error) => {
                self.damage.add_bad(part.object, &error.to_string());
                self.note_gap(None);
                Batch::new()
            }
        };
        if let (Some(list), PriorObjects::Hole) = (&mut self.list, part.before) {
            list.objects = PriorObjects::Hole;
        }
        let unresolved = part.unresolved;
        self.apply_step(&part, batch)?;
        self.unresolved = self.unresolved.max(unresolved);
        Ok(())
    }

    fn apply_step(&mut self, part: &LogStep, batch: Batch) -> Result<(), StoreError> {
        match &part.kind {
            LogStepKind::Batch => self.apply_batch(part, batch),
            LogStepKind::Begin(covers) => {
                self.list = Some(ListedRows {
                    rows: self.rows.fresh(),
                    began: part.object,
                    covers: covers.clone(),
                    told: part.upto,
                    objects: PriorObjects::Whole,
                });
                self.apply_part(batch)
            }
            LogStepKind::Part(covers) => {
                if let Some(list) = &mut self.list {
                    list.covers = covers.clone();
                    list.told = list.told.max(part.upto);
                }
                self.apply_part(batch)
            }
            LogStepKind::End => {
                self.complete_list(part.upto);
                Ok(())
            }
        }
    }

    fn apply_batch(&mut self, part: &LogStep, batch: Batch) -> Result<(), StoreError> {
        let listed = self.list.as_ref().map(|list| list.told);
        if part.before == PriorObjects::Hole {
            self.told_objects = PriorObjects::Hole;
        }
        let told = match (self.told, listed) {
            (Some(told), Some(listed)) => Some(told.max(listed)),
            (told, listed) => told.or(listed),
        };
        // After a list that began the log, the rows from before it do not exist.
        let is_told = self.told.is_some() || listed.is_none();
        self.tell_gap(part, &batch, told.unwrap_or_default());
        if is_told && Some(part.upto) > self.told {
            let applied = log_object::applied_in(&batch);
            self.newest_applied = applied.map(|row| Bytes::copy_from_slice(row));
        } else if Some(part.upto) <= self.over {
            self.began = Some(part.object);
        }
        for (key, change) in batch.into_rows() {
            if let Some(list) = &mut self.list
                && part.upto > list.told
                && key < list.covers
            {
                list.rows.add(key.clone(), change.clone())?;
            }
            if is_told && Some(part.upto) > self.told {
                self.rows.add(key, change)?;
            }
        }
        if is_told {
            self.told = self.told.max(Some(part.upto));
        }
        if let Some(list) = &mut self.list {
            list.told = list.told.max(part.upto);
        }
        Ok(())
    }

    fn apply_part(&mut self, batch: Batch) -> Result<(), StoreError> {
        let Some(list) = &mut self.list else {
            return Ok(());
        };
        for (key, change) in batch.into_rows() {
            list.rows.add(key, change)?;
        }
        Ok(())
    }

    /// Puts the rows of a complete list in the place of those from before it, unless the list lacks an object and those do not.
    fn complete_list(&mut self, upto: BatchId) {
        let Some(list) = self.list.take() else {
            return;
        };
        let told = Some(list.told.max(upto));
        // The rows that a replay began over may be newer than a list.
        let is_better = told >= self.told
            && (list.objects == PriorObjects::Whole
                || self.told.is_none()
                || self.told_objects == PriorObjects::Hole);
        if is_better {
            self.rows = list.rows;
            self.told = told;
            self.told_objects = list.objects;
        }
        if is_better && list.objects == PriorObjects::Whole {
            self.began = Some(list.began);
            self.gaps.clear();
            self.unresolved_at_gap = None;
        }
    }

    /// Notes that batches may be missing after the newest applied one, before one whose row `G A` is `next`.
    fn note_gap(&mut self, next: Option<&Bytes>) {
        let clock = |row: &Bytes| Some(AppliedTable::decode(row).ok()?.clock);
        self.gaps.push(LogGap {
            after: self.newest_applied.as_ref().and_then(clock),
            until: next.and_then(clock),
        });
        self.unresolved_at_gap.get_or_insert(self.unresolved);
    }

    /// Notes what is missing behind the last object that was read. To be called when the whole log was read.
    pub(crate) fn end(&mut self) {
        if [self.fetched_before, self.listed_before].contains(&PriorObjects::Hole) {
            self.note_gap(None);
        }
    }

    /// Reports batches that no object contains, unless a missing or damaged object that was reported explains the gap. `told` is
    /// the newest batch of the objects before.
    fn tell_gap(&mut self, part: &LogStep, batch: &Batch, told: BatchId) {
        let next = part.upto;
        let before = match next.number {
            1 => before(batch),
            number => Some(BatchId {
                number: number - 1,
                ..next
            }),
        };
        self.note_order(part, batch, before);
        if before.is_some_and(|before| before > told) && part.before == PriorObjects::Whole {
            let what = format!(
                "begins with batch {} of epoch {}; the batches between it and batch {} of epoch {} are in no object",
                next.number, next.epoch, told.number, told.epoch
            );
            self.damage.add_bad(part.object, &what);
        }
    }
}

impl LogReplay<'_> {
    /// Notes whether a batch follows the newest applied one. If it does, the rows need no object before it, whatever is missing
    /// between the two. `before` is the batch before it, if that is known.
    fn note_order(&mut self, part: &LogStep, batch: &Batch, before: Option<BatchId>) {
        let told = self.told.unwrap_or_default();
        if part.upto <= told {
            return;
        }
        match before {
            Some(before) if before <= told => {
                if part.before == PriorObjects::Hole && self.gaps.is_empty() {
                    self.began = Some(part.object);
                }
            }
            _ => self.note_gap(log_object::applied_in(batch)),
        }
    }
}

/// Returns the newest batch of earlier writers, as the first batch of a writer records it.
fn before(batch: &Batch) -> Option<BatchId> {
    let row = log_object::applied_in(batch)?;
    Some(AppliedTable::decode(row).ok()?.before)
}
