//! Small files that lie in one segment: when some of them are read, their neighbours are fetched with them.
//!
//! The files of a tree that was written together are in few segments, but not always in the order in which they are read. So the reads of
//! small extents are counted by segment: from the third block of a segment on, blocks behind it are fetched together, from the eighth
//! on the rest of the segment. Where several segments are read at the same time, and the rest of one was fetched, the third block of
//! another is enough. While a tree is read like that, the first read in its next segment fetches all of it.
//!
//! Invariant: what is fetched counts against the read-ahead budget of the mount until it is read, dropped, or ten seconds old.

use std::collections::VecDeque;
use std::ops::Range;

use crate::cache::Budget;
use crate::store::data::read_ahead::Stretch;
use crate::store::schema::object_names::SegmentId;
use crate::sync::{Mutex, lock};
use crate::task::Tasks;

/// The number of blocks of a full segment, of which each is a bit of [`BlockSet`].
pub(super) const BLOCKS: u32 = 32;
/// The number of blocks of a segment that are read before others are fetched.
const PROOF: u32 = 3;
/// The number of blocks that are fetched then.
const NEAR: u32 = 8;
/// The number of blocks that are read before the whole segment is fetched.
const PROOF_OF_ALL: u32 = 8;
/// The number of segments whose reads are counted at the same time.
const SEGMENTS: usize = 8;

/// The reads of small extents of a mount.
#[derive(Debug)]
pub(crate) struct NeighbourReads {
    pub(super) budget: Budget,
    pub(super) tasks: Tasks,
    /// The most recently read segment first.
    segments: Mutex<VecDeque<SegmentReads>>,
}

/// The blocks of one segment that were read, and those that were asked for.
#[derive(Debug)]
struct SegmentReads {
    id: SegmentId,
    /// The number of blocks of the segment, as far as it is known: a full one until an answer says how long it is.
    blocks: u32,
    read: BlockSet,
    /// The block that was read last.
    last: u32,
    fetched: BlockSet,
    stretches: Vec<Stretch>,
}

/// A set of blocks of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BlockSet(u32);

impl BlockSet {
    const ALL: Self = Self(u32::MAX);

    fn has(self, index: u32) -> bool {
        self.0 & (1 << index) != 0
    }

    fn add(&mut self, index: u32) {
        self.0 |= 1 << index;
    }

    fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The blocks, ascending.
    pub(super) fn indexes(self) -> impl Iterator<Item = u32> {
        (0..BLOCKS).filter(move |index| self.has(*index))
    }

    fn from_range(range: Range<u32>) -> Self {
        let mut set = Self::default();
        range.for_each(|index| set.add(index));
        set
    }
}

impl SegmentReads {
    /// Returns all blocks of the segment.
    fn all(&self) -> BlockSet {
        BlockSet::from_range(0..self.blocks)
    }

    /// Tells whether the rest of the segment was fetched because many of its blocks were read.
    fn is_fetched_whole(&self) -> bool {
        self.fetched.0 & self.all().0 == self.all().0
    }

    /// Tells whether the segment was fetched as a whole, and at least half of it was read: it is one of a tree that is read whole.
    fn is_read_whole(&self) -> bool {
        let had = self.read.0 | self.fetched.0;
        let all = self.all().0;
        had & all == all && self.read.len() * 2 >= self.blocks
    }

    /// Notes that a block is read; returns those to be fetched, without it. `proof_of_all` blocks are read before the whole segment is.
    fn note(&mut self, index: u32, proof_of_all: u32) -> BlockSet {
        if self.read.has(index) {
            return BlockSet::default();
        }
        self.read.add(index);
        let is_backward = index < std::mem::replace(&mut self.last, index);
        let wanted = match self.read.len() {
            read if read >= proof_of_all => self.all(),
            PROOF.. if self.fetched.len() == 0 => BlockSet::from_range(match is_backward {
                true => (index + 1).saturating_sub(NEAR)..index + 1,
                false => index..(index + NEAR).min(self.blocks),
            }),
            _ => return BlockSet::default(),
        };
        let missing = BlockSet(wanted.0 & !self.fetched.0 & !self.read.0);
        self.fetched.0 |= wanted.0;
        missing
    }
}

impl NeighbourReads {
    /// Creates the counts. What is fetched is taken from `budget`, by tasks of `tasks`.
    pub(crate) fn new(budget: Budget, tasks: Tasks) -> Self {
        Self {
            budget,
            tasks,
            segments: Mutex::default(),
        }
    }

    /// Notes that a block of a segment is read for a small extent; returns the blocks to be fetched now.
    pub(super) fn note(&self, id: SegmentId, index: u32) -> BlockSet {
        if index >= BLOCKS {
            return BlockSet::default();
        }
        let mut segments = lock(&self.segments);
        let known = segments.iter().position(|reads| reads.id == id);
        if let Some(mut reads) = known.and_then(|at| segments.remove(at)) {
            let is_tree = segments.iter().any(|other| other.is_fetched_whole());
            let wanted = reads.note(index, if is_tree { PROOF } else { PROOF_OF_ALL });
            segments.push_front(reads);
            return wanted;
        }
        let mut reads = SegmentReads {
            id,
            blocks: BLOCKS,
            read: BlockSet::default(),
            last: index,
            fetched: BlockSet::default(),
            stretches: Vec::new(),
        };
        reads.note(index, PROOF_OF_ALL);
        let mut is_tree = false;
        for before in segments.iter_mut().filter(|before| before.is_read_whole()) {
            is_tree = true;
            before.stretches.drain(..).for_each(Stretch::pass);
        }
        let wanted = match is_tree {
            true => BlockSet::ALL,
            false => BlockSet::default(),
        };
        reads.fetched = wanted;
        segments.push_front(reads);
        segments.truncate(SEGMENTS);
        wanted
    }

    /// Notes that a segment has this number of blocks.
    pub(super) fn note_blocks(&self, id: SegmentId, blocks: u64) {
        let mut segments = lock(&self.segments);
        if let Some(reads) = segments.iter_mut().find(|reads| reads.id == id) {
            reads.blocks = blocks.min(u64::from(BLOCKS)) as u32;
        }
    }

    /// Keeps a stretch of a segment, whose requests end when the segment is not counted any more.
    pub(super) fn keep(&self, id: SegmentId, stretch: Stretch) {
        let mut segments = lock(&self.segments);
        if let Some(reads) = segments.iter_mut().find(|reads| reads.id == id) {
            reads.stretches.push(stretch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u64) -> SegmentId {
        SegmentId { epoch: 1, sequence }
    }

    fn reads() -> NeighbourReads {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        NeighbourReads::new(Budget::new(64 << 20), tasks)
    }

    fn noted(reads: &NeighbourReads, sequence: u64, index: u32) -> Vec<u32> {
        reads.note(segment(sequence), index).indexes().collect()
    }

    #[tokio::test]
    async fn two_blocks_of_a_segment_fetch_nothing_more() {
        let reads = reads();
        for sequence in 0..100 {
            for index in [3, 3, 9, 3, 9] {
                assert_eq!(noted(&reads, sequence, index), [0_u32; 0], "of {sequence}");
            }
        }
    }

    #[tokio::test]
    async fn the_third_block_fetches_some_and_the_eighth_the_rest() {
        let reads = reads();
        assert_eq!(noted(&reads, 1, 20), [0_u32; 0]);
        assert_eq!(noted(&reads, 1, 2), [0_u32; 0]);
        assert_eq!(noted(&reads, 1, 4), [5, 6, 7, 8, 9, 10, 11]);
        for index in [3, 30, 5, 6] {
            assert_eq!(noted(&reads, 1, index), [0_u32; 0]);
        }
        let rest = noted(&reads, 1, 31);
        assert!(rest.contains(&0) && rest.contains(&29), "{rest:?}");
        for had in [2, 3, 4, 9, 20, 30, 31] {
            assert!(!rest.contains(&had), "{rest:?}");
        }
        for index in 0..BLOCKS {
            assert_eq!(noted(&reads, 1, index), [0_u32; 0], "once is enough");
        }
    }

    #[tokio::test]
    async fn a_segment_that_is_read_backward_is_fetched_backward() {
        let reads = reads();
        assert_eq!(noted(&reads, 1, 11), [0_u32; 0]);
        assert_eq!(noted(&reads, 1, 10), [0_u32; 0]);
        assert_eq!(noted(&reads, 1, 9), [2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(noted(&reads, 2, 2), [0_u32; 0]);
        assert_eq!(noted(&reads, 2, 1), [0_u32; 0]);
        assert_eq!(noted(&reads, 2, 0), [0_u32; 0]);
    }

    #[tokio::test]
    async fn the_next_segment_of_a_tree_is_fetched_by_its_first_read() {
        let reads = reads();
        for index in 0..BLOCKS / 2 {
            noted(&reads, 1, index);
        }
        assert_eq!(noted(&reads, 2, 7).len(), BLOCKS as usize);
        // It was not read as a whole yet, and the one before it is still counted.
        assert_eq!(noted(&reads, 3, 7).len(), BLOCKS as usize);
        for sequence in 4..4 + SEGMENTS as u64 {
            noted(&reads, sequence, 0);
        }
        assert_eq!(noted(&reads, 100, 7), [0_u32; 0]);
    }

    #[tokio::test]
    async fn beside_a_segment_that_is_fetched_whole_the_third_block_of_another_is_enough() {
        let reads = reads();
        for index in [1, 12, 23] {
            noted(&reads, 2, index);
        }
        for index in 0..PROOF_OF_ALL {
            noted(&reads, 1, index);
        }
        assert_eq!(noted(&reads, 3, 1), [0_u32; 0]);
        assert_eq!(noted(&reads, 3, 12), [0_u32; 0]);
        assert_eq!(noted(&reads, 3, 23).len() as u32, BLOCKS - 3);
        // Of this one, the three blocks that were read and the eight behind the third are there.
        let rest = noted(&reads, 2, 5);
        assert_eq!(rest.len() as u32, BLOCKS - 2 - NEAR - 1, "{rest:?}");
    }

    #[tokio::test]
    async fn a_short_segment_is_read_whole_when_half_of_it_is() {
        for (blocks, read) in [(15, 8), (4, 3), (9, 8)] {
            let reads = reads();
            for index in 0..read {
                assert_eq!(noted(&reads, 2 + u64::from(index), 0), [0_u32; 0]);
                noted(&reads, 1, index);
            }
            assert_eq!(noted(&reads, 50, 7), [0_u32; 0], "its end is not known");
            reads.note_blocks(segment(1), blocks);
            assert_eq!(noted(&reads, 51, 7).len(), BLOCKS as usize);
        }
    }

    #[tokio::test]
    async fn blocks_of_the_footer_are_not_counted() {
        let reads = reads();
        for index in BLOCKS..BLOCKS + 9 {
            assert_eq!(noted(&reads, 1, index), [0_u32; 0]);
        }
    }
}
