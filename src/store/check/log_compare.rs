//! The log of a namespace, read object by object into rows, and what is wrong with its objects.
//!
//! Invariant: the objects of an epoch are numbered from 1 without a gap, and so are the batches of an epoch in them, unless
//! a list of all rows begins anew; what breaks this is told with the object's key. A batch is applied once, also where two
//! objects hold it (a writer that was fenced in the middle of an upload, and the one after it).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::backend::{Backend, BackendError};
use crate::meta::{Batch, Change};
use crate::store::check::config::CheckStep;
use crate::store::check::finding::{Findings, Subject};
use crate::store::check::sorted::SortedRows;
use crate::store::commit::log::{self, LogBase, LogObject};
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::schema::keys;
use crate::store::schema::object_names::object_numbers;
use crate::store::schema::rows::{LogPlace, decode};
use crate::store::schema::tables::{AppliedTable, RowTable};

/// Bytes of objects that are fetched at the same time, at most, unless one alone is larger.
const FETCH_BYTES: u64 = 16 << 20;
/// Objects that are fetched at the same time, at most.
const FETCH_OBJECTS: usize = 32;

fn subject(object: LogPlace) -> Subject {
    Subject::Object(log::key_of(object))
}

/// Whether everything before an object was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PriorObjects {
    Whole,
    /// An object is missing or bad, and was told.
    Hole,
}

/// An object that waits to be read.
#[derive(Clone, Copy, Debug)]
struct QueuedObject {
    id: LogPlace,
    /// Bytes.
    size: u64,
    before: PriorObjects,
}

/// A step of the log.
#[derive(Debug)]
struct LogStep {
    object: LogPlace,
    before: PriorObjects,
    /// The batch the rows are at afterwards; in the middle of a list of all rows none.
    upto: Option<BatchId>,
    kind: LogStepKind,
    /// An encoded batch.
    rows: Bytes,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogStepKind {
    /// It adds to what came before.
    Batch,
    /// It voids what came before: a list of all rows begins.
    Begin,
    /// The list goes on, or ends.
    List,
}

/// How far the log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogPosition {
    /// The rows are as they were after the batch that was asked for.
    There,
    /// The log tells less, so far.
    Short,
    /// The log tells of later states only.
    Beyond,
}

/// The reading of a log, which goes on where it ended.
pub(super) struct LogReplay<'a> {
    backend: &'a Backend,
    pub(super) rows: SortedRows,
    /// The newest object that was listed, or that the index names.
    listed: Option<LogPlace>,
    /// Whether something is missing after that one, or the last one fetched was bad.
    listed_before: PriorObjects,
    fetched_before: PriorObjects,
    waiting: VecDeque<QueuedObject>,
    parts: VecDeque<LogStep>,
    /// The newest batch in `rows`; `None` before any, and while a list of all rows is not complete.
    told: Option<BatchId>,
    /// Objects read.
    pub(super) objects: usize,
    pub(super) damaged: Findings,
}

impl<'a> LogReplay<'a> {
    pub(super) fn new(backend: &'a Backend, rows: SortedRows) -> Self {
        Self {
            backend,
            rows,
            listed: None,
            listed_before: PriorObjects::Whole,
            fetched_before: PriorObjects::Whole,
            waiting: VecDeque::new(),
            parts: VecDeque::new(),
            told: None,
            objects: 0,
            damaged: Findings::default(),
        }
    }

    /// The newest batch that was read.
    pub(super) fn told(&self) -> Option<BatchId> {
        self.told
    }

    /// Reads on, to the end of the batch `upto` if the log goes so far. The index says that the object `recorded` is there.
    pub(super) async fn read_to(
        &mut self,
        upto: BatchId,
        recorded: Option<LogPlace>,
        step: &(impl Fn(CheckStep) + Sync),
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
            step(CheckStep::Log {
                read: self.objects,
                all: self.objects + self.waiting.len(),
            });
        }
    }

    /// Lists what is newer than before, and tells which objects are not there.
    async fn list(&mut self, recorded: Option<LogPlace>) -> Result<(), StoreError> {
        let found = match self.listed {
            None => self.backend.list("log").await?,
            Some(newest) => self.backend.list_after("log", &log::key_of(newest)).await?,
        };
        for info in found {
            let Some((epoch, sequence)) = object_numbers("log", &info.key) else {
                let what = "is no object of a log";
                self.damaged.add(Subject::Object(info.key), what);
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

    /// Tells which objects lack between the newest one listed and `next`.
    fn tell_missing(&mut self, next: LogPlace) {
        let before = self.listed.filter(|listed| listed.epoch == next.epoch);
        let first = before.map_or(1, |listed| listed.sequence + 1);
        for sequence in first..next.sequence {
            let missing = LogPlace { sequence, ..next };
            self.damaged.add(subject(missing), "is missing");
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
        let got = wanted
            .iter()
            .map(|wanted| async move { log::fetch(backend, &log::key_of(wanted.id)).await });
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
                    self.damaged.add(subject(wanted.id), &what);
                    self.fetched_before = PriorObjects::Hole;
                }
            }
        }
        Ok(())
    }

    fn take_apart(&mut self, id: LogPlace, object: LogObject) {
        let mut before = std::mem::replace(&mut self.fetched_before, PriorObjects::Whole);
        let kind = match object.base {
            LogBase::Before => LogStepKind::Batch,
            LogBase::Nothing => LogStepKind::Begin,
            LogBase::Continues | LogBase::Ends => LogStepKind::List,
        };
        for (at, rows) in object.batches.into_iter().enumerate() {
            let number = match object.base {
                LogBase::Before => Some(object.first + at as u64),
                LogBase::Ends => Some(object.first),
                LogBase::Nothing | LogBase::Continues => None,
            };
            self.parts.push_back(LogStep {
                object: id,
                before: std::mem::replace(&mut before, PriorObjects::Whole),
                upto: number.map(|number| BatchId {
                    epoch: object.epoch,
                    number,
                }),
                kind: match (kind, at) {
                    (LogStepKind::Begin, 1..) => LogStepKind::List,
                    (kind, _) => kind,
                },
                rows,
            });
        }
    }

    fn apply(&mut self, part: LogStep) -> Result<(), StoreError> {
        if part.kind == LogStepKind::Batch && part.upto <= self.told {
            return Ok(());
        }
        let batch = match decode::<Batch>("log batch", &part.rows) {
            Ok(batch) => batch,
            Err(error) => {
                self.damaged.add(subject(part.object), &error.to_string());
                Batch::new()
            }
        };
        match part.kind {
            LogStepKind::Batch => self.tell_gap(&part, &batch),
            LogStepKind::Begin => self.rows.clear(),
            LogStepKind::List => {}
        }
        for (key, change) in batch.into_rows() {
            self.rows.add(key, change)?;
        }
        self.told = part.upto;
        Ok(())
    }

    /// Tells of batches that no object holds, if nothing explains it that was told already.
    fn tell_gap(&mut self, part: &LogStep, batch: &Batch) {
        let Some(next) = part.upto else {
            return;
        };
        let told = self.told.unwrap_or_default();
        let before = match next.number {
            1 => before(batch),
            number => Some(BatchId {
                number: number - 1,
                ..next
            }),
        };
        if before.is_some_and(|before| before > told) && part.before == PriorObjects::Whole {
            let what = format!(
                "begins with batch {} of epoch {}; what came between it and batch {} of epoch {} is in no object",
                next.number, next.epoch, told.number, told.epoch
            );
            self.damaged.add(subject(part.object), &what);
        }
    }
}

/// The newest batch of the writers before, as the first batch of a writer tells it.
fn before(batch: &Batch) -> Option<BatchId> {
    let watermark = keys::applied();
    let row = batch.rows().iter().rfind(|(key, _)| *key == *watermark);
    let Some((_, Change::Put(row))) = row else {
        return None;
    };
    let (epoch, number) = AppliedTable::decode(row).ok()?.before;
    Some(BatchId { epoch, number })
}
