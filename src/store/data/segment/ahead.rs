//! Blocks that are fetched before they are read: neighbours of one segment by one request.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::backend::{Backend, BackendError};
use crate::cache::{BlockKey, BlockReservation, Budget, BudgetPermit};
use crate::store::data::contents::ResolvedExtent;
use crate::store::data::read_ahead::{Stretch, StretchReader};
use crate::store::data::segment::neighbours::{BlockSet, NeighbourReads};
use crate::store::data::segment::{BLOCK, ExtentReader, SEGMENT_MAX, blocks_of};
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::ExtentSource;
use crate::sync::Arc;
use crate::task::Tasks;

/// Maximum number of blocks of one request.
const BLOCKS_MAX: usize = (SEGMENT_MAX / BLOCK) as usize;
/// Maximum number of requests of one step, reached where a file's extents lie scattered.
const REQUESTS_MAX: usize = 16;
/// How long fetched blocks keep their share of the budget while their reader pauses.
const KEPT: Duration = Duration::from_secs(10);

/// The number of blocks that the cache has already and that are read again, where that joins two requests of a segment: as many as arrive
/// in the time of a request.
const GAP_MAX: usize = 4;

/// A request for neighbouring blocks of one segment.
struct BlocksRequest {
    id: SegmentId,
    /// Index of the first block.
    first: u32,
    /// `None` for a block that is read but not kept.
    blocks: Vec<Option<BlockReservation>>,
    permit: BudgetPermit,
}

/// Blocks of extents that the cache lacks, joined into requests.
struct BlocksPlan<'a> {
    reader: &'a ExtentReader,
    budget: &'a Budget,
    requests: Vec<BlocksRequest>,
    /// The longest gap between blocks of one request, blocks.
    gap: usize,
}

impl ExtentReader {
    /// Begins to fetch the blocks of extents that the cache lacks, as far as the budget allows. Returns the offset in the file up to
    /// which it does, and the stretch, whose drop ends the requests; `None` if nothing is fetched.
    pub(crate) fn fetch_ahead(
        &self,
        extents: &[(u64, u64, ResolvedExtent)],
        budget: &Budget,
        tasks: &Tasks,
    ) -> (Option<u64>, Option<Stretch>) {
        let mut plan = BlocksPlan {
            reader: self,
            budget,
            requests: Vec::new(),
            gap: 0,
        };
        let mut reached = None;
        for (_, end, source) in extents {
            if !plan.add(source) {
                break;
            }
            reached = Some(*end);
        }
        if plan.requests.is_empty() {
            return (reached, None);
        }
        let stretch = Stretch::new(reached.unwrap_or(0));
        for request in plan.requests {
            let reads = Arc::clone(&self.neighbours);
            let run = request.run(self.backend.clone(), stretch.watch(), reads);
            drop(tasks.spawn("read-ahead", run));
        }
        (reached, Some(stretch))
    }
}

impl ExtentReader {
    /// Begins to fetch blocks of a segment that the cache lacks, because small extents in others of its blocks are read. A request begins
    /// with the block `first`, which a reader waits for.
    pub(super) fn fetch_neighbours(&self, id: SegmentId, first: u32, blocks: BlockSet) {
        let reads = &self.neighbours;
        let mut plan = BlocksPlan {
            reader: self,
            budget: &reads.budget,
            requests: Vec::new(),
            gap: GAP_MAX,
        };
        // A segment may be shorter than its last block here. The answer to such a request is short, or that there is nothing.
        let (behind, before): (Vec<u32>, Vec<u32>) =
            blocks.indexes().partition(|index| *index >= first);
        let mut ordered = behind.into_iter().chain(before);
        let _planned = ordered.all(|index| plan.add_block(id, index));
        if plan.requests.is_empty() {
            return;
        }
        let stretch = Stretch::new(SEGMENT_MAX);
        for request in plan.requests {
            let run = request.run(self.backend.clone(), stretch.watch(), Arc::clone(reads));
            drop(reads.tasks.spawn("read-ahead", run));
        }
        reads.keep(id, stretch);
    }
}

impl BlocksPlan<'_> {
    /// Adds the blocks of one extent; tells whether all of them are in the cache, being fetched or in the plan.
    fn add(&mut self, source: &ResolvedExtent) -> bool {
        let ResolvedExtent::Stored(source, _) = source else {
            return true;
        };
        let ExtentSource::Segment {
            epoch,
            sequence,
            offset,
            len,
            ..
        } = source
        else {
            return true;
        };
        let id = SegmentId {
            epoch: *epoch,
            sequence: *sequence,
        };
        let (id, offset) = self.reader.relocations.known((id, *offset));
        blocks_of(offset, *len).all(|index| self.add_block(id, index))
    }

    fn add_block(&mut self, id: SegmentId, index: u32) -> bool {
        let key = BlockKey {
            object: (id.epoch, id.sequence),
            index,
        };
        let Some(block) = self.reader.blocks.reserve(key) else {
            return true;
        };
        let Some(permit) = self.budget.try_acquire(BLOCK) else {
            return false;
        };
        if let Some(last) = self.requests.last_mut()
            && let Some(gap) = last.gap_before(id, index)
            && gap <= self.gap
        {
            last.blocks.extend((0..gap).map(|_| None));
            last.blocks.push(Some(block));
            last.permit.merge(permit);
            return true;
        }
        if self.requests.len() == REQUESTS_MAX {
            return false;
        }
        self.requests.push(BlocksRequest {
            id,
            first: index,
            blocks: vec![Some(block)],
            permit,
        });
        true
    }
}

impl BlocksRequest {
    /// Returns the number of blocks between the request and a block behind it; `None` if the request cannot grow to it.
    fn gap_before(&self, id: SegmentId, index: u32) -> Option<usize> {
        let next = self.first as usize + self.blocks.len();
        let gap = (index as usize).checked_sub(next)?;
        (self.id == id && self.blocks.len() + gap < BLOCKS_MAX).then_some(gap)
    }

    /// Fetches the blocks, unless their reader goes away, and keeps their share of the budget until they are read.
    async fn run(self, backend: Backend, reader: StretchReader, reads: Arc<NeighbourReads>) {
        let tasks = &reads.tasks;
        let Self {
            id,
            first,
            blocks,
            permit,
        } = self;
        tokio::select! {
            biased;
            () = reader.clone().abandoned() => return,
            () = tasks.stopped() => return,
            fetched = fetch(backend, id, first, blocks, &reads) => if let Err(error) = fetched {
                tracing::debug!(segment = id.key(), %error, "blocks could not be fetched ahead");
                return;
            }
        }
        tokio::select! {
            () = reader.over() => {}
            () = tasks.stopped() => {}
            () = tokio::time::sleep(KEPT) => {}
        }
        drop(permit);
    }
}

/// Fills neighbouring blocks with the bytes of a segment as they arrive, and notes how many blocks the segment has.
async fn fetch(
    backend: Backend,
    id: SegmentId,
    first: u32,
    blocks: Vec<Option<BlockReservation>>,
    reads: &NeighbourReads,
) -> Result<(), BackendError> {
    let start = u64::from(first) * BLOCK;
    let range = start..start + blocks.len() as u64 * BLOCK;
    let end = range.end;
    let mut stream = backend.stream_range(&id.key(), range).await?;
    reads.note_blocks(id, stream.object_len().div_ceil(BLOCK));
    let mut blocks = blocks.into_iter();
    let mut buffer = BytesMut::with_capacity(BLOCK as usize);
    while let Some(chunk) = stream.chunk().await? {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let (part, more) = rest.split_at(rest.len().min(BLOCK as usize - buffer.len()));
            buffer.extend_from_slice(part);
            rest = more;
            if buffer.len() as u64 == BLOCK {
                let full = std::mem::replace(&mut buffer, BytesMut::with_capacity(BLOCK as usize));
                if let Some(Some(block)) = blocks.next() {
                    block.fill(full.freeze());
                }
            }
        }
    }
    // A short block is complete only at the end of its object.
    if !buffer.is_empty()
        && stream.object_len() <= end
        && let Some(Some(block)) = blocks.next()
    {
        block.fill(Bytes::copy_from_slice(&buffer));
    }
    Ok(())
}
