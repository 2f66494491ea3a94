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

/// A request for neighbouring blocks of one segment.
struct BlocksRequest {
    id: SegmentId,
    /// Index of the first block.
    first: u32,
    blocks: Vec<BlockReservation>,
    permit: BudgetPermit,
}

/// Blocks of extents that the cache lacks, joined into requests.
struct BlocksPlan<'a> {
    reader: &'a ExtentReader,
    budget: &'a Budget,
    requests: Vec<BlocksRequest>,
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
            && last.is_followed_by(id, index)
        {
            last.blocks.push(block);
            last.permit.merge(permit);
            return true;
        }
        if self.requests.len() == REQUESTS_MAX {
            return false;
        }
        self.requests.push(BlocksRequest {
            id,
            first: index,
            blocks: vec![block],
            permit,
        });
        true
    }
}

impl BlocksRequest {
    /// Tells whether a block comes next in the segment, and the request may still grow.
    fn is_followed_by(&self, id: SegmentId, index: u32) -> bool {
        let next = self.first as usize + self.blocks.len();
        self.id == id && index as usize == next && self.blocks.len() < BLOCKS_MAX
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
            fetched = fetch(backend, id, first, blocks) => match fetched {
                Ok(Some(end)) => reads.note_end(id, end),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(segment = id.key(), %error, "blocks could not be fetched ahead");
                    return;
                }
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

/// Fills neighbouring blocks with the bytes of a segment as they arrive. Returns the number of blocks of the segment if they reach its end.
async fn fetch(
    backend: Backend,
    id: SegmentId,
    first: u32,
    blocks: Vec<BlockReservation>,
) -> Result<Option<u32>, BackendError> {
    let start = u64::from(first) * BLOCK;
    let range = start..start + blocks.len() as u64 * BLOCK;
    let mut stream = backend.stream_range(&id.key(), range).await?;
    let mut blocks = blocks.into_iter();
    let mut end = first;
    let mut buffer = BytesMut::with_capacity(BLOCK as usize);
    while let Some(chunk) = stream.chunk().await? {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let (part, more) = rest.split_at(rest.len().min(BLOCK as usize - buffer.len()));
            buffer.extend_from_slice(part);
            rest = more;
            if buffer.len() as u64 == BLOCK {
                let full = std::mem::replace(&mut buffer, BytesMut::with_capacity(BLOCK as usize));
                if let Some(block) = blocks.next() {
                    block.fill(full.freeze());
                    end += 1;
                }
            }
        }
    }
    if !stream.is_tail() {
        return Ok(None);
    }
    // A short block is complete only at the end of its object.
    if !buffer.is_empty()
        && let Some(block) = blocks.next()
    {
        block.fill(Bytes::copy_from_slice(&buffer));
        end += 1;
    }
    Ok(Some(end))
}
