//! Deletion of uncited segments: segments of ended writers that no row references. A crash left them, or a damaged
//! index lost the rows that referenced them.
//!
//! Invariant: a missing row alone deletes nothing. If a segment has no `G B` row, the log is searched for a reference
//! as well. A segment that neither the index nor the log references gets a durable `G N` row with the time at which it
//! was first seen; it is deleted when its waiting time is over and a second search of the index and the log has found
//! no reference either. See docs/decisions/0001-deletion-needs-evidence.md.
//! Every segment below the search position `G O` is durably referenced, deleted, or recorded in a `G N` row.
//! This runs only in a mount that has compared its index with the other objects of the namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::meta::{Batch, Change};
use crate::store::commit::log_object::{self, LogBase};
use crate::store::gc::Gc;
use crate::store::gc::state::{SearchMark, SearchProgress, UncitedSegments, WaitingSegments};
use crate::store::model::error::StoreError;
use crate::store::model::ids::BatchId;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{
    CheckpointRow, LogPlace, OlderLog, SearchedRow, UncitedRow, UncitedWait,
};
use crate::store::schema::tables::{AppliedTable, RowTable, SegmentTable, UncitedTable};
use crate::sync::lock;

/// Minimum number of segments between two writes of the watermark `G O`.
const MARK_EVERY: u64 = 256;
/// Waiting time of a segment that batches missing from the log could have referenced.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// A segment that no row references.
#[derive(Clone, Copy, Debug)]
struct UncitedCandidate {
    bytes: u64,
}

/// What a part of the log says about segments.
#[derive(Debug, Default)]
struct Citations {
    cited: BTreeSet<SegmentId>,
    /// Per epoch, the first segment number that the log does not cover yet.
    resolved: BTreeMap<u64, u64>,
    last: LogPlace,
    /// The applied row of the newest batch read; `None` before the first batch if the read starts in the middle of the
    /// log.
    applied: Option<AppliedRow>,
}

impl Gc {
    /// Searches for uncited segments of ended writers and advances the watermark. Returns the number of rows written.
    pub(super) async fn look_for_uncited(
        &self,
        search: &mut SearchProgress,
    ) -> Result<usize, StoreError> {
        let mark = match search.mark {
            Some(mark) => mark,
            None => {
                let row = self.core.index.row(&keys::searched()).await?;
                row.unwrap_or_default()
            }
        };
        search.mark = Some(mark);
        let now = self.core.env.now();
        match search.past {
            UncitedSegments::Judged => {}
            // The next mount searches again, so that the log is kept as long as it tells more than the index.
            UncitedSegments::LogOnly => return Ok(0),
            UncitedSegments::Open(at) if now.saturating_sub(at) < self.grace_ns() => return Ok(0),
            UncitedSegments::Open(_) | UncitedSegments::Unlisted => {
                search.past = UncitedSegments::Open(now);
                let (past, found) = self.judge_past(mark).await?;
                search.past = past.unwrap_or(search.past);
                return Ok(found);
            }
        }
        if search.next.is_none() {
            let upto = self.data.first_unresolved();
            let is_worth = mark.epoch != self.core.epoch || upto >= mark.sequence + MARK_EVERY;
            if is_worth && (self.core.epoch, upto) > (mark.epoch, mark.sequence) {
                let logged: Option<LogPlace> = self.core.index.row(&keys::logged()).await?;
                search.next = Some(SearchMark {
                    queued: self.commit.queue.newest(),
                    row: SearchedRow {
                        epoch: self.core.epoch,
                        sequence: upto,
                        log: logged.unwrap_or_default(),
                    },
                });
            }
        }
        if let Some(next) = search.next
            && self.commit.queue.is_durable(next.queued)
        {
            let mut txn = self.gc_txn(vec![keys::searched().bytes()]);
            txn.put(keys::searched(), &next.row);
            self.commit.enqueue_if(txn, || true)?;
            (search.mark, search.next) = (Some(next.row), None);
            return Ok(1);
        }
        Ok(0)
    }

    /// Records every segment above `mark` that neither the index nor the log references in a `G N` row. Returns what is known
    /// then if all segments could be judged, and the number of new rows.
    async fn judge_past(
        &self,
        mark: SearchedRow,
    ) -> Result<(Option<UncitedSegments>, usize), StoreError> {
        // The listing starts after this key.
        let before = SegmentId {
            epoch: mark.epoch,
            sequence: mark.sequence.saturating_sub(1),
        };
        let now = self.core.env.now();
        let (mut candidates, mut is_judged) = (BTreeMap::new(), true);
        for object in self.core.backend.list_after("data", &before.key()).await? {
            let Some(id) = SegmentId::from_key(&object.key) else {
                continue;
            };
            if id.epoch >= self.core.epoch {
                break;
            }
            if self.has_row(id).await? {
                continue;
            }
            // An upload of an ended writer may still arrive after this listing; a later listing finds it.
            is_judged &= now.saturating_sub(object.modified_ns) >= self.grace_ns();
            let row = keys::uncited(id.epoch, id.sequence);
            if self.core.index.get(&row).await?.is_none() {
                let bytes = object.size;
                candidates.insert(id, UncitedCandidate { bytes });
            }
        }
        let judged = is_judged.then_some(UncitedSegments::Judged);
        if candidates.is_empty() {
            return Ok((judged, 0));
        }
        let wanted: BTreeSet<SegmentId> = candidates.keys().copied().collect();
        let log = match self.citations(&wanted, mark.log, None).await {
            Ok(log) => log,
            Err(StoreError::Corrupt(why)) => {
                self.core.health.note(format!(
                    "{} segments that no row references are kept: {why}, so the log cannot be searched for references to them",
                    wanted.len()
                ));
                return Ok((None, 0));
            }
            Err(error) => return Err(error),
        };
        self.keep_cited(&log.cited);
        candidates.retain(|id, _| !log.cited.contains(id));
        let found = candidates.len();
        self.remember(candidates, mark.log, &log)?;
        let judged = match log.cited.is_empty() {
            true => judged,
            false => judged.map(|_| UncitedSegments::LogOnly),
        };
        Ok((judged, found))
    }

    fn remember(
        &self,
        candidates: BTreeMap<SegmentId, UncitedCandidate>,
        from: LogPlace,
        log: &Citations,
    ) -> Result<(), StoreError> {
        if candidates.is_empty() {
            return Ok(());
        }
        let touches = |id: &SegmentId| keys::uncited(id.epoch, id.sequence);
        let mut txn = self.gc_txn(candidates.keys().map(|id| touches(id).bytes()).collect());
        for (id, UncitedCandidate { bytes }) in candidates {
            let resolved = log.resolved.get(&id.epoch).copied().unwrap_or(0);
            let row = UncitedRow {
                first_seen: txn.timestamp,
                bytes,
                wait: match id.sequence < resolved {
                    true => UncitedWait::Grace,
                    false => UncitedWait::Month,
                },
                log: (from, log.last),
            };
            tracing::info!(segment = id.key(), wait = ?row.wait, "no row or log object references this segment");
            txn.put(touches(&id), &row);
        }
        self.commit.enqueue_if(txn, || true)?;
        Ok(())
    }

    /// Deletes uncited segments whose waiting time is over, after a second search for references. Returns the number of
    /// `G N` rows completed.
    pub(super) async fn look_at_uncited(
        &self,
        search: &mut SearchProgress,
    ) -> Result<usize, StoreError> {
        let now = self.core.clock.now().0;
        let pause = self.grace_ns() / 4;
        if search.last_review != 0 && now.saturating_sub(search.last_review) < pause {
            return Ok(0);
        }
        search.last_review = now;
        let mut scan = self
            .core
            .index
            .rows()
            .scan(UncitedTable::all()..keys::after(&UncitedTable::PREFIX))
            .await?;
        let (mut waiting, mut done) = (WaitingSegments::default(), 0);
        while let Some((key, value)) = scan.next().await? {
            let row: UncitedRow = UncitedTable::decode(&value)?;
            let Some((epoch, sequence)) = keys::segment_of(&key) else {
                return Err(StoreError::Corrupt("G N key".to_owned()));
            };
            let wait = match row.wait {
                UncitedWait::Grace => self.grace_ns(),
                UncitedWait::Month => self.grace_ns().max(MONTH.as_nanos() as u64),
            };
            if now.saturating_sub(row.first_seen.0) < wait || self.core.index.is_queued(&key) {
                waiting.segments += 1;
                waiting.bytes += row.bytes;
                continue;
            }
            self.delete_uncited(SegmentId { epoch, sequence }, &row)
                .await?;
            done += 1;
        }
        *lock(&self.uncited) = waiting;
        Ok(done)
    }

    async fn delete_uncited(&self, id: SegmentId, row: &UncitedRow) -> Result<(), StoreError> {
        let (from, upto) = row.log;
        let log = self
            .citations(&BTreeSet::from([id]), from, Some(upto))
            .await?;
        self.keep_cited(&log.cited);
        if log.cited.is_empty() && !self.has_row(id).await? {
            tracing::info!(
                segment = id.key(),
                "deleting an uncited segment of an ended writer"
            );
            self.core.backend.delete(&id.key()).await?;
            self.segments.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(row.bytes, Ordering::Relaxed);
        }
        let key = keys::uncited(id.epoch, id.sequence);
        let mut txn = self.gc_txn(vec![key.clone().bytes()]);
        txn.delete(key);
        self.commit.enqueue_if(txn, || true)?;
        Ok(())
    }

    async fn has_row(&self, id: SegmentId) -> Result<bool, StoreError> {
        let key = keys::segment(id.epoch, id.sequence);
        Ok(self.core.index.get(&key).await?.is_some())
    }

    /// Reports segments that the log references and the index does not. These segments are kept.
    fn keep_cited(&self, cited: &BTreeSet<SegmentId>) {
        let Some(first) = cited.first() else { return };
        let note = format!(
            "{} segments are cited by the log and not by the index, {} among them: they are kept; run rewindfs check",
            cited.len(),
            first.key()
        );
        tracing::warn!("{note}");
        self.core.health.note(note);
    }

    /// Returns what the log objects from `from` to `upto`, or to the newest one, say about the segments `wanted`.
    ///
    /// # Errors
    /// `Corrupt` if one of the log objects is missing or cannot be read.
    async fn citations(
        &self,
        wanted: &BTreeSet<SegmentId>,
        from: LogPlace,
        upto: Option<LogPlace>,
    ) -> Result<Citations, StoreError> {
        // What came before the newest checkpoint was searched when it was deleted; the checkpoint is searched in its place.
        let checkpoint: CheckpointRow = self
            .core
            .index
            .row(&keys::checkpoint())
            .await?
            .unwrap_or_default();
        let (mut from, mut upto) = (from, upto);
        if from < checkpoint.began && checkpoint.older == OlderLog::Searched {
            from = LogPlace {
                sequence: checkpoint.began.sequence - 1,
                ..checkpoint.began
            };
            upto = upto.map(|upto| upto.max(checkpoint.ended));
        }
        self.cited_between(wanted, from, upto).await
    }

    /// As [`Self::citations`], of objects that no checkpoint replaces.
    async fn cited_between(
        &self,
        wanted: &BTreeSet<SegmentId>,
        from: LogPlace,
        upto: Option<LogPlace>,
    ) -> Result<Citations, StoreError> {
        let mut found = Citations {
            last: from,
            applied: (from == LogPlace::default()).then(AppliedRow::default),
            ..Citations::default()
        };
        for place in log_object::places_from(&self.core.backend, from).await? {
            if upto.is_some_and(|upto| place > upto) {
                break;
            }
            let before = found.last;
            let follows = match place.epoch == before.epoch {
                true => place == from || place.sequence == before.sequence + 1,
                false => place.sequence == 1,
            };
            if !follows {
                let missing = log_object::key_of(LogPlace {
                    epoch: place.epoch,
                    sequence: place.sequence - 1,
                });
                return Err(StoreError::Corrupt(format!("{missing} is missing")));
            }
            found.read(
                wanted,
                place,
                &log_object::read(&self.core.backend, &log_object::key_of(place)).await?,
            )?;
        }
        let logged = found
            .applied
            .as_ref()
            .map_or_else(BatchId::default, |a| a.batch);
        if upto.is_some_and(|upto| found.last < upto)
            || (upto.is_none() && logged < self.newest_of_ended())
        {
            let last = log_object::key_of(found.last);
            return Err(StoreError::Corrupt(format!(
                "a log object after {last} is missing"
            )));
        }
        Ok(found)
    }

    /// Searches once more for the segments with a `G N` row, in those of their log objects that come before `began` and are about to
    /// be deleted. Returns whether none is cited.
    pub(super) async fn search_again_before(&self, began: LogPlace) -> Result<bool, StoreError> {
        let mut scan = self
            .core
            .index
            .rows()
            .scan(UncitedTable::all()..keys::after(&UncitedTable::PREFIX))
            .await?;
        let (mut wanted, mut from, mut upto) = (BTreeSet::new(), began, LogPlace::default());
        while let Some((key, value)) = scan.next().await? {
            let row: UncitedRow = UncitedTable::decode(&value)?;
            if let Some((epoch, sequence)) = keys::segment_of(&key)
                && row.log.0 < began
            {
                wanted.insert(SegmentId { epoch, sequence });
                from = from.min(row.log.0);
                upto = upto.max(row.log.1);
            }
        }
        if wanted.is_empty() {
            return Ok(true);
        }
        let log = self.citations(&wanted, from, Some(upto)).await?;
        // Those that have a row by now are no contradiction.
        let mut only = BTreeSet::new();
        for id in log.cited {
            if !self.has_row(id).await? {
                only.insert(id);
            }
        }
        self.keep_cited(&only);
        Ok(only.is_empty())
    }

    /// Returns the newest batch of earlier writers; the mount has made sure that the log contains it.
    fn newest_of_ended(&self) -> BatchId {
        let applied = self.core.applied_now();
        match applied.batch.epoch == self.core.epoch {
            true => applied.before,
            false => applied.batch,
        }
    }
}

impl Citations {
    /// Checks that no batch is missing before this one. `Corrupt` if one is.
    fn follow(&mut self, place: LogPlace, batch: &Batch) -> Result<(), StoreError> {
        let Some(row) = log_object::applied_in(batch) else {
            return Ok(());
        };
        let applied: AppliedRow = AppliedTable::decode(row)?;
        if let Some(before) = &self.applied
            && !applied.follows(before)
        {
            let key = log_object::key_of(place);
            return Err(StoreError::Corrupt(format!(
                "a log object before {key} is missing"
            )));
        }
        self.applied = Some(applied);
        Ok(())
    }

    fn read(
        &mut self,
        wanted: &BTreeSet<SegmentId>,
        place: LogPlace,
        object: &log_object::LogObject,
    ) -> Result<(), StoreError> {
        self.last = place;
        if object.epoch == place.epoch {
            let resolved = self.resolved.entry(place.epoch).or_default();
            *resolved = object.resolved.max(*resolved);
        }
        for batch in object.batches()? {
            if object.base == LogBase::Before {
                self.follow(place, &batch)?;
            }
            for (key, change) in batch.rows() {
                if SegmentTable::has(key)
                    && !matches!(change, Change::Delete)
                    && let Some((epoch, sequence)) = keys::segment_of(key)
                    && wanted.contains(&SegmentId { epoch, sequence })
                {
                    self.cited.insert(SegmentId { epoch, sequence });
                }
            }
        }
        // A complete list of all rows replaces everything before it.
        if object.base == LogBase::Ends
            && self
                .applied
                .as_ref()
                .is_none_or(|a| a.batch < object.logged.batch)
        {
            self.applied = Some(object.logged.clone());
        }
        Ok(())
    }
}
