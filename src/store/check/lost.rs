//! Extents that rows cite and that cannot be read: the segment is missing or too short, or, if bytes are verified, they do not match
//! their hash.
//!
//! All cited extents are looked for in the order of their places. One that is not there is looked for where garbage collection has copied it
//! to, in a further pass.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::backend::{Backend, BackendError};
use crate::meta::MetaRead;
use crate::store::check::config::{CheckStep, DataReads};
use crate::store::check::references::{
    ExtentCursor, References, SegmentCursor, SegmentFacts, SoughtExtent, SoughtExtents,
};
use crate::store::data::segment::{EXTENT, hash};
use crate::store::model::error::StoreError;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{ExtentSource, Loss, MovedRow, SegmentRow};
use crate::store::schema::tables::{MovedTable, RowTable, SegmentTable};
use crate::store::schema::tally::ExtentId;

/// Maximum number of lost extents that are kept; further ones are counted.
const LOST_MAX: usize = 1_000_000;
/// Maximum number of bytes that are fetched at the same time.
const FETCH_BYTES: u64 = 64 << 20;
/// Maximum number of segments that are fetched at the same time.
const FETCH_SEGMENTS: usize = 16;
/// Maximum number of bytes that one request fetches.
const REQUEST_BYTES: u64 = 4 << 20;
/// Maximum number of times that an extent may have been copied: more mean a cycle in the rows.
const PASSES_MAX: usize = 1_000;
/// Bytes between two extents that are fetched along with them rather than by two requests.
const GAP: u64 = 64 << 10;

/// An extent that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LostExtent {
    pub(super) loss: Loss,
    /// The segment in which it was looked for last.
    pub(super) segment: SegmentId,
}

/// The extents that cannot be read, by the place that rows cite.
#[derive(Debug, Default)]
pub(super) struct LostExtents {
    all: BTreeMap<ExtentId, LostExtent>,
    /// Number of them, those that are not kept included.
    pub(super) count: u64,
}

impl LostExtents {
    /// Tells whether more extents are lost than are kept: the files of the others are not known.
    pub(super) fn is_cut(&self) -> bool {
        self.count > self.all.len() as u64
    }

    /// Returns what is known about an extent that a row cites; `None` if it can be read.
    pub(super) fn of(&self, source: &ExtentSource) -> Option<LostExtent> {
        let ExtentSource::Segment {
            epoch,
            sequence,
            offset,
            ..
        } = source
        else {
            return None;
        };
        let id = ExtentId {
            epoch: *epoch,
            sequence: *sequence,
            offset: *offset,
        };
        self.all.get(&id).copied()
    }

    fn note(&mut self, extent: &SoughtExtent, loss: Loss) {
        self.count += 1;
        if self.all.len() < LOST_MAX {
            let segment = extent.sought_in();
            self.all.insert(extent.cited, LostExtent { loss, segment });
        }
    }

    /// Forgets the extents whose segments garbage collection has deleted since the check began: the index that was checked counts them, and
    /// a newer state of it does not.
    pub(super) async fn forgive(
        &mut self,
        checked: &dyn MetaRead,
        newer: &dyn MetaRead,
    ) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for extent in self.all.keys() {
            if is_counted(checked, *extent).await? && !is_counted(newer, *extent).await? {
                gone.push(*extent);
            }
        }
        for extent in gone {
            self.all.remove(&extent);
            self.count -= 1;
        }
        Ok(())
    }
}

/// Tells whether an index counts an extent of a segment that is not dead.
async fn is_counted(index: &dyn MetaRead, extent: ExtentId) -> Result<bool, StoreError> {
    let row = index
        .get(&keys::segment(extent.epoch, extent.sequence))
        .await?;
    let row: Option<SegmentRow> = row.map(|row| SegmentTable::decode(&row)).transpose()?;
    let live = row.filter(|row| row.dead_since.is_none());
    let count = live.and_then(|row| row.extents.get(&extent.offset).copied());
    Ok(count.is_some_and(|(_, citing)| citing > 0))
}

/// The extents that are looked for in one segment, ascending by offset.
struct SegmentWork {
    id: SegmentId,
    facts: SegmentFacts,
    extents: Vec<SoughtExtent>,
}

/// A search for the extents that rows cite.
pub(super) struct ExtentSearch<'a, F> {
    backend: &'a Backend,
    index: &'a dyn MetaRead,
    data: DataReads,
    step: &'a F,
    /// Bytes verified, and bytes of all cited extents.
    pub(super) read: u64,
    all: u64,
    lost: LostExtents,
    /// Extents that are to be looked for where they were copied to.
    further: SoughtExtents,
    /// The relocations of the last segment that was asked for.
    relocations: Option<(SegmentId, MovedRow)>,
    /// Number of passes begun.
    passes: usize,
}

impl<'a, F: Fn(CheckStep) + Sync> ExtentSearch<'a, F> {
    pub(super) fn new(
        backend: &'a Backend,
        index: &'a dyn MetaRead,
        data: DataReads,
        references: &References,
        step: &'a F,
    ) -> Self {
        Self {
            backend,
            index,
            data,
            step,
            read: 0,
            all: 0,
            lost: LostExtents::default(),
            further: references.extents.emptied(),
            relocations: None,
            passes: 0,
        }
    }

    /// Looks for every cited extent; the segments are listed. Returns those that cannot be read.
    ///
    /// # Errors
    /// `Unavailable` if the bucket does not answer; errors of the index.
    pub(super) async fn run(&mut self, references: &References) -> Result<LostExtents, StoreError> {
        if self.data == DataReads::All {
            let mut extents = references.extents.cursor();
            while let Some(extent) = extents.next().await? {
                self.all += u64::from(extent.bytes.len);
            }
        }
        self.pass(references.extents.cursor(), references.segment_cursor())
            .await?;
        while !self.further.is_empty {
            let empty = self.further.emptied();
            let sought = std::mem::replace(&mut self.further, empty);
            self.pass(sought.cursor(), references.segment_cursor())
                .await?;
        }
        Ok(std::mem::take(&mut self.lost))
    }

    async fn pass(
        &mut self,
        mut extents: ExtentCursor<'_>,
        mut segments: SegmentCursor<'_>,
    ) -> Result<(), StoreError> {
        self.passes += 1;
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        let mut head = extents.next().await?;
        while let Some(first) = head.take() {
            let id = first.sought_in();
            let mut own = vec![first];
            while let Some(next) = extents.next().await? {
                if next.sought_in() != id {
                    head = Some(next);
                    break;
                }
                own.push(next);
            }
            let facts = segments.facts(id).await?;
            bytes += own.iter().map(|e| u64::from(e.bytes.len)).sum::<u64>();
            waiting.push(SegmentWork {
                id,
                facts,
                extents: own,
            });
            if bytes >= FETCH_BYTES || waiting.len() >= FETCH_SEGMENTS {
                self.look(std::mem::take(&mut waiting)).await?;
                bytes = 0;
            }
        }
        self.look(waiting).await
    }

    /// Looks for the extents of some segments at the same time.
    async fn look(&mut self, work: Vec<SegmentWork>) -> Result<(), StoreError> {
        let mut unread = Vec::new();
        let mut there = Vec::new();
        for SegmentWork { id, facts, extents } in work {
            let is_there = |extent: &SoughtExtent| {
                let is_possible = u64::from(extent.bytes.len) <= EXTENT;
                facts.is_stored() && is_possible && extent.end() <= facts.size
            };
            let (inside, outside): (Vec<_>, Vec<_>) = extents.into_iter().partition(is_there);
            unread.extend(outside.into_iter().map(|extent| (extent, Loss::Missing)));
            there.push((id, inside));
        }
        if self.data == DataReads::All {
            let backend = self.backend;
            let bytes: u64 = there
                .iter()
                .flat_map(|(_, extents)| extents)
                .map(|extent| u64::from(extent.bytes.len))
                .sum();
            let verified = there
                .iter()
                .map(|(id, extents)| verify(backend, *id, extents));
            for bad in futures::future::try_join_all(verified).await? {
                unread.extend(bad);
            }
            self.read += bytes;
            (self.step)(CheckStep::Data {
                read: self.read,
                all: self.all.max(self.read),
            });
        }
        for (extent, loss) in unread {
            match self.relocated(&extent).await? {
                Some(at) if self.passes < PASSES_MAX => {
                    self.further.seek_at(SoughtExtent { at, ..extent })?;
                }
                Some(_) | None => self.lost.note(&extent, loss),
            }
        }
        Ok(())
    }

    /// Returns where garbage collection has copied an extent to.
    async fn relocated(&mut self, extent: &SoughtExtent) -> Result<Option<ExtentId>, StoreError> {
        let id = extent.sought_in();
        // The row of a segment has an entry for each extent, and most of them are asked for one after another.
        if self.relocations.as_ref().is_none_or(|(of, _)| *of != id) {
            let row = self.index.get(&keys::moved(id.epoch, id.sequence)).await?;
            let row = row.map(|row| MovedTable::decode(&row)).transpose()?;
            self.relocations = Some((id, row.unwrap_or_default()));
        }
        let row = self.relocations.as_ref();
        let to = row.and_then(|(_, row)| row.extents.get(&extent.at.offset));
        Ok(to.map(|(epoch, sequence, offset)| ExtentId {
            epoch: *epoch,
            sequence: *sequence,
            offset: *offset,
        }))
    }
}

/// An extent, and why it cannot be read.
type UnreadExtent = (SoughtExtent, Loss);

/// Fetches extents of a segment, ascending by offset, and verifies them. Returns those that cannot be read.
async fn verify(
    backend: &Backend,
    id: SegmentId,
    extents: &[SoughtExtent],
) -> Result<Vec<UnreadExtent>, StoreError> {
    let mut bad = Vec::new();
    let mut rest = extents;
    while let Some(first) = rest.first() {
        let start = u64::from(first.at.offset);
        let (mut count, mut end) = (0, start);
        for extent in rest {
            let is_near = u64::from(extent.at.offset) <= end.saturating_add(GAP);
            if count > 0 && (!is_near || extent.end() - start > REQUEST_BYTES) {
                break;
            }
            (count, end) = (count + 1, end.max(extent.end()));
        }
        let (run, others) = rest.split_at(count);
        rest = others;
        bad.extend(verify_run(backend, id, run, start..end).await?);
    }
    Ok(bad)
}

/// Fetches a range of a segment and verifies the extents in it. What does not verify is fetched once more by itself.
async fn verify_run(
    backend: &Backend,
    id: SegmentId,
    run: &[SoughtExtent],
    range: std::ops::Range<u64>,
) -> Result<Vec<UnreadExtent>, StoreError> {
    let start = range.start;
    let bytes = fetched(backend, id, range).await?;
    let mut bad = Vec::new();
    for extent in run {
        let own = u64::from(extent.at.offset)..extent.end();
        let is_right = |bytes: &Bytes, start: u64| {
            let (from, to) = ((own.start - start) as usize, (own.end - start) as usize);
            let found = bytes.get(from..to);
            found.is_some_and(|found| hash(found) == extent.bytes.hash)
        };
        if bytes.as_ref().is_ok_and(|bytes| is_right(bytes, start)) {
            continue;
        }
        match fetched(backend, id, own.clone()).await? {
            Ok(again) if is_right(&again, own.start) => {}
            Ok(again) if (again.len() as u64) < own.end - own.start => {
                bad.push((*extent, Loss::Missing));
            }
            Ok(_) => bad.push((*extent, Loss::Changed)),
            Err(loss) => bad.push((*extent, loss)),
        }
    }
    Ok(bad)
}

/// Fetches a range of a segment; the inner error says why it cannot be read.
async fn fetched(
    backend: &Backend,
    id: SegmentId,
    range: std::ops::Range<u64>,
) -> Result<Result<Bytes, Loss>, StoreError> {
    match backend.get_range(&id.key(), range).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(BackendError::NotFound { .. }) => Ok(Err(Loss::Missing)),
        Err(BackendError::Damaged { .. }) => Ok(Err(Loss::Changed)),
        Err(error) => Err(error.into()),
    }
}
