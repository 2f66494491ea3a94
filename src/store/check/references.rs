//! What the rows of an index refer to: extents of segments, segments, and lineages. It is collected in one scan of the rows, and
//! compared with one listing of the segments.
//!
//! Invariant: memory is bounded by the limits of three sorters. An extent has one entry however many rows cite it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::meta::{Change, RowScan};
use crate::store::check::config::CheckStep;
use crate::store::check::shown::states;
use crate::store::model::error::StoreError;
use crate::store::model::version::ContentRef;
use crate::store::replay::sorted::{MergedRows, SortedRows, Spill};
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{ExtentSource, MovedRow, SegmentRow};
use crate::store::schema::tables::{
    CutTable, DamagedTable, DroppedTable, EmptiedTable, LineageTable, MovedTable, RangeTable,
    RowTable, SegmentTable, UncitedTable,
};
use crate::store::schema::tally::ExtentId;

/// Number of segments between two progress reports.
const SEGMENTS_TOLD: u64 = 10_000;

/// A row or a relocation refers to the segment.
const CITED: u8 = 1;
/// The index has a count for it.
const COUNTED: u8 = 2;
/// One of its counts is not zero.
const LIVE: u8 = 4;
/// It is marked dead.
const DEAD: u8 = 8;
/// Garbage collection is to review it, or has seen that no row cites it.
const LISTED: u8 = 16;
/// The bucket has it.
const STORED: u8 = 32;

/// What is known about a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentFacts {
    flags: u8,
    /// Length of the object in bytes.
    pub(super) size: u64,
    pub(super) modified_ns: u64,
}

impl SegmentFacts {
    fn flagged(flags: u8) -> Self {
        Self {
            flags,
            ..Self::default()
        }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Tells whether the bucket has the segment.
    pub(super) fn is_stored(self) -> bool {
        self.has(STORED)
    }

    /// Tells whether it is marked dead, or was seen without a row that cites it: garbage collection deletes it.
    pub(super) fn is_waiting(self) -> bool {
        !self.has(CITED) && (self.has(DEAD) || self.has(LISTED))
    }

    /// Tells whether the index counts it, and neither a row cites it nor garbage collection will look at it.
    pub(super) fn is_leaked(self) -> bool {
        self.has(COUNTED) && !self.has(CITED | LIVE | DEAD | LISTED)
    }

    /// Tells whether the bucket has it, and the index does not know it.
    pub(super) fn is_unknown(self) -> bool {
        self.flags == STORED
    }
}

fn merge_segments(_key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
    let mut all = SegmentFacts::default();
    for facts in existing
        .into_iter()
        .chain(operands.iter().map(AsRef::as_ref))
    {
        let facts: SegmentFacts = unpacked(facts);
        all.flags |= facts.flags;
        all.size = all.size.max(facts.size);
        all.modified_ns = all.modified_ns.max(facts.modified_ns);
    }
    packed(&all)
}

/// A state shows a content of the lineage, or another lineage began over one.
const SHOWN: u8 = 1;
/// Garbage collection is to review it.
const DROPPED: u8 = 2;

/// What is known about a lineage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LineageFacts {
    flags: u8,
    /// Number of its rows.
    pub(super) rows: u64,
    /// Bytes that its rows have in them.
    pub(super) inline: u64,
}

impl LineageFacts {
    /// Tells whether it has rows that nothing shows.
    pub(super) fn is_unshown(self) -> bool {
        self.rows > 0 && self.flags & SHOWN == 0
    }

    /// Tells whether garbage collection will look at it.
    pub(super) fn is_waiting(self) -> bool {
        self.flags & DROPPED != 0
    }
}

fn merge_lineages(_key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
    let mut all = LineageFacts::default();
    for facts in existing
        .into_iter()
        .chain(operands.iter().map(AsRef::as_ref))
    {
        let facts: LineageFacts = unpacked(facts);
        all.flags |= facts.flags;
        all.rows = all.rows.saturating_add(facts.rows);
        all.inline = all.inline.saturating_add(facts.inline);
    }
    packed(&all)
}

/// An extent as the rows cite it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CitedBytes {
    pub(super) len: u32,
    pub(super) hash: [u8; 16],
}

fn newest(_key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
    let newest = operands.last().map(AsRef::as_ref).or(existing);
    Bytes::copy_from_slice(newest.unwrap_or_default())
}

/// Encodes what a temporary file has.
pub(super) fn packed<T: Serialize>(value: &T) -> Bytes {
    // proof: the values of a sorter are plain data, which serializes into a Vec always.
    postcard::to_allocvec(value)
        .expect("facts are plain data")
        .into()
}

/// Decodes what [`packed`] has encoded; the default for anything else.
pub(super) fn unpacked<T: for<'a> Deserialize<'a> + Default>(bytes: &[u8]) -> T {
    postcard::from_bytes(bytes).unwrap_or_default()
}

/// An extent that rows cite, and where its bytes are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SoughtExtent {
    pub(super) at: ExtentId,
    /// As the rows cite it; another place than `at` if it was relocated.
    pub(super) cited: ExtentId,
    pub(super) bytes: CitedBytes,
}

/// Length of the encoded place of an extent.
const PLACE: usize = 20;

fn place(extent: ExtentId) -> [u8; PLACE] {
    let mut bytes = [0; PLACE];
    bytes[..8].copy_from_slice(&extent.epoch.to_be_bytes());
    bytes[8..16].copy_from_slice(&extent.sequence.to_be_bytes());
    bytes[16..].copy_from_slice(&extent.offset.to_be_bytes());
    bytes
}

fn place_in(key: &[u8], at: usize) -> Option<ExtentId> {
    let word = |at: usize| {
        let raw = key.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(raw))
    };
    let offset = key.get(at + 16..at + PLACE)?.try_into().ok()?;
    Some(ExtentId {
        epoch: word(at)?,
        sequence: word(at + 8)?,
        offset: u32::from_be_bytes(offset),
    })
}

impl SoughtExtent {
    fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        Some(Self {
            at: place_in(key, 0)?,
            cited: place_in(key, PLACE)?,
            bytes: unpacked(value),
        })
    }

    /// The segment in which it is looked for.
    pub(super) fn sought_in(&self) -> SegmentId {
        SegmentId {
            epoch: self.at.epoch,
            sequence: self.at.sequence,
        }
    }

    /// Where it ends in its segment, in bytes.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.at.offset) + u64::from(self.bytes.len)
    }
}

/// Extents in the order of the places where they are looked for.
#[derive(Debug)]
pub(super) struct SoughtExtents {
    rows: SortedRows,
    pub(super) is_empty: bool,
}

impl SoughtExtents {
    pub(super) fn new(spill: Spill) -> Self {
        Self {
            rows: SortedRows::new(newest, spill),
            is_empty: true,
        }
    }

    /// Returns an empty set with the same limit.
    pub(super) fn emptied(&self) -> Self {
        Self {
            rows: self.rows.fresh(),
            is_empty: true,
        }
    }

    pub(super) fn seek_at(&mut self, extent: SoughtExtent) -> Result<(), StoreError> {
        self.is_empty = false;
        let key = [place(extent.at), place(extent.cited)].concat();
        self.rows
            .add(key.into(), Change::Put(packed(&extent.bytes)))
    }

    pub(super) fn cursor(&self) -> ExtentCursor<'_> {
        ExtentCursor {
            rows: self.rows.rows(),
        }
    }
}

/// A cursor over extents, ascending by place.
pub(super) struct ExtentCursor<'a> {
    rows: MergedRows<'a>,
}

impl ExtentCursor<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<SoughtExtent>, StoreError> {
        while let Some((key, value)) = self.rows.next().await? {
            if let Some(extent) = SoughtExtent::read(&key, &value) {
                return Ok(Some(extent));
            }
        }
        Ok(None)
    }
}

/// A cursor over what is known about segments, ascending by segment.
pub(super) struct SegmentCursor<'a> {
    rows: MergedRows<'a>,
    head: Option<(SegmentId, SegmentFacts)>,
}

impl SegmentCursor<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<(SegmentId, SegmentFacts)>, StoreError> {
        while let Some((key, value)) = self.rows.next().await? {
            if let Some((epoch, sequence)) = keys::segment_of(&key) {
                let id = SegmentId { epoch, sequence };
                return Ok(Some((id, unpacked(&value))));
            }
        }
        Ok(None)
    }

    /// Returns what is known about a segment; later calls ask for later segments only.
    pub(super) async fn facts(&mut self, id: SegmentId) -> Result<SegmentFacts, StoreError> {
        while self.head.is_none_or(|(head, _)| head < id) {
            self.head = match self.next().await? {
                Some(next) => Some(next),
                None => return Ok(SegmentFacts::default()),
            };
        }
        let found = self.head.filter(|(head, _)| *head == id);
        Ok(found.map(|(_, facts)| facts).unwrap_or_default())
    }
}

/// A cursor over what is known about lineages, ascending by their ids.
pub(super) struct LineageCursor<'a> {
    rows: MergedRows<'a>,
}

impl LineageCursor<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<(u64, LineageFacts)>, StoreError> {
        while let Some((key, value)) = self.rows.next().await? {
            let cid = key.get(..8).and_then(|raw| raw.try_into().ok());
            if let Some(cid) = cid.map(u64::from_be_bytes) {
                return Ok(Some((cid, unpacked(&value))));
            }
        }
        Ok(None)
    }
}

/// What the rows of an index refer to.
#[derive(Debug)]
pub(super) struct References {
    pub(super) extents: SoughtExtents,
    /// By the key of the segment's count.
    segments: SortedRows,
    /// By the lineage's id.
    lineages: SortedRows,
    /// Number of contents that are marked as damaged.
    pub(super) marks: u64,
}

impl References {
    /// Begins to collect; each of the three sorters has this limit.
    pub(super) fn new(spill: &Spill) -> Self {
        Self {
            extents: SoughtExtents::new(spill.clone()),
            segments: SortedRows::new(merge_segments, spill.clone()),
            lineages: SortedRows::new(merge_lineages, spill.clone()),
            marks: 0,
        }
    }

    pub(super) fn segment_cursor(&self) -> SegmentCursor<'_> {
        SegmentCursor {
            rows: self.segments.rows(),
            head: None,
        }
    }

    pub(super) fn lineage_cursor(&self) -> LineageCursor<'_> {
        LineageCursor {
            rows: self.lineages.rows(),
        }
    }

    /// Adds what a row of the index refers to.
    pub(super) fn row(&mut self, key: &Bytes, value: &Bytes) -> Result<(), StoreError> {
        match key.first_chunk::<2>().copied().unwrap_or_default() {
            RangeTable::PREFIX => self.range(key, value)?,
            CutTable::PREFIX => self.lineage(keys::lineage_of(key), |facts| facts.rows = 1)?,
            LineageTable::PREFIX => {
                let parent = LineageTable::decode(value)?.parent;
                self.lineage(keys::lineage_of(key), |facts| facts.rows = 1)?;
                self.show(parent)?;
            }
            DroppedTable::PREFIX => {
                self.lineage(keys::lineage_of(key), |facts| facts.flags = DROPPED)?;
            }
            SegmentTable::PREFIX => self.counted(key, &SegmentTable::decode(value)?)?,
            EmptiedTable::PREFIX | UncitedTable::PREFIX => self.flag(key, LISTED)?,
            MovedTable::PREFIX => self.moved(&MovedTable::decode(value)?)?,
            DamagedTable::PREFIX => self.marks += 1,
            _ => {
                for state in states(key, value)? {
                    self.show(state.content)?;
                }
            }
        }
        Ok(())
    }

    fn range(&mut self, key: &Bytes, value: &Bytes) -> Result<(), StoreError> {
        let row = RangeTable::decode(value)?;
        let inline = u64::try_from(row.inline_bytes()).unwrap_or(0);
        self.lineage(keys::lineage_of(key), |facts| {
            (facts.rows, facts.inline) = (1, inline);
        })?;
        for slice in row.pieces() {
            if let ExtentSource::Segment {
                epoch,
                sequence,
                offset,
                len,
                hash,
            } = slice.source
            {
                let cited = ExtentId {
                    epoch,
                    sequence,
                    offset,
                };
                self.extents.seek_at(SoughtExtent {
                    at: cited,
                    cited,
                    bytes: CitedBytes { len, hash },
                })?;
                self.flag(&keys::segment(epoch, sequence), CITED)?;
            }
        }
        Ok(())
    }

    fn counted(&mut self, key: &Bytes, row: &SegmentRow) -> Result<(), StoreError> {
        let mut flags = COUNTED;
        if row.extents.values().any(|(_, citing)| *citing != 0) {
            flags |= LIVE;
        }
        if row.dead_since.is_some() {
            flags |= DEAD;
        }
        self.flag(key, flags)
    }

    fn moved(&mut self, row: &MovedRow) -> Result<(), StoreError> {
        for (epoch, sequence, _) in row.extents.values() {
            self.flag(&keys::segment(*epoch, *sequence), CITED)?;
        }
        Ok(())
    }

    fn show(&mut self, content: ContentRef) -> Result<(), StoreError> {
        self.lineage(Some(content.cid), |facts| facts.flags = SHOWN)
    }

    fn lineage(
        &mut self,
        cid: Option<u64>,
        tell: impl FnOnce(&mut LineageFacts),
    ) -> Result<(), StoreError> {
        let Some(cid) = cid else { return Ok(()) };
        let mut facts = LineageFacts::default();
        tell(&mut facts);
        let key = Bytes::copy_from_slice(&cid.to_be_bytes());
        self.lineages.add(key, Change::Merge(packed(&facts)))
    }

    /// Adds a fact about the segment of a `G B`, `G E` or `G N` key.
    fn flag(&mut self, key: &[u8], flags: u8) -> Result<(), StoreError> {
        self.tell(key, SegmentFacts::flagged(flags))
    }

    fn tell(&mut self, key: &[u8], facts: SegmentFacts) -> Result<(), StoreError> {
        let Some((epoch, sequence)) = keys::segment_of(key) else {
            return Ok(());
        };
        let key = keys::segment(epoch, sequence).bytes();
        self.segments.add(key, Change::Merge(packed(&facts)))
    }

    /// Lists the segments of the bucket; to be called after the last row, so that a segment that a row cites is in the listing.
    /// Returns their number.
    pub(super) async fn list(
        &mut self,
        backend: &Backend,
        step: &(impl Fn(CheckStep) + Sync),
    ) -> Result<u64, StoreError> {
        let mut count = 0;
        backend
            .list_each("data", |object| {
                let Some(id) = SegmentId::from_key(&object.key) else {
                    return Ok(());
                };
                count += 1;
                if count % SEGMENTS_TOLD == 0 {
                    step(CheckStep::Segments(count));
                }
                let facts = SegmentFacts {
                    flags: STORED,
                    size: object.size,
                    modified_ns: object.modified_ns,
                };
                self.tell(&keys::segment(id.epoch, id.sequence), facts)
            })
            .await?;
        Ok(count)
    }
}
