//! The bytes of files: segments and their extents, and contents that wait for their upload.

pub(crate) mod chunks;
pub(crate) mod contents;
pub(crate) mod early_move;
pub(crate) mod early_moves;
pub(crate) mod extent_map;
pub(crate) mod hard_link;
pub(crate) mod hold;
mod hot_chains;
pub(crate) mod in_flight;
pub(crate) mod inline_backlog;
pub(crate) mod inline_compaction;
pub(crate) mod inline_run;
pub(crate) mod pins;
pub(crate) mod range_row;
pub(crate) mod read_ahead;
pub(crate) mod relocations;
pub(crate) mod retry_upload;
pub(crate) mod segment;
pub(crate) mod segment_buffer;
pub(crate) mod segment_walk;
pub(crate) mod upload;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use crate::cache::{BlockCache, BlockCacheConfig, Budget, StagingDir};
use crate::store::core::Core;
use crate::store::data::contents::{ContentStore, ResolvedExtent};
use crate::store::data::early_moves::EarlyMoves;
use crate::store::data::in_flight::{UploadInFlight, UploadsInFlight};
use crate::store::data::inline_backlog::InlineBacklog;
use crate::store::data::pins::Pins;
use crate::store::data::read_ahead::{NextStep, ReadAhead, ReadStart, StepEnd};
use crate::store::data::segment::neighbours::NeighbourReads;
use crate::store::data::segment::{ExtentReader, SEGMENT_MAX};
use crate::store::model::error::StoreError;
use crate::store::model::memory_shares::MemoryShares;
use crate::store::schema::object_names::SegmentId;
use crate::sync::{Arc, Mutex, lock};

/// Maximum number of segments that are uploaded at the same time.
const UPLOADS_MAX: usize = 8;

/// The contents of a namespace: reads of stored contents, and uploads of flushed ones.
#[derive(Debug)]
pub struct DataStore {
    pub(crate) core: Arc<Core>,
    pub(crate) contents: ContentStore,
    pub(crate) pins: Arc<Pins>,
    pub(crate) extents: ExtentReader,
    pub(crate) staging: StagingDir,
    pub(crate) budget: Budget,
    /// Written bytes that are in memory until the bucket has them.
    pub(crate) unsaved: Budget,
    /// Blocks that were fetched ahead of all readers.
    read_ahead: Budget,
    pub(crate) inline_backlog: InlineBacklog,
    pub(crate) early_moves: EarlyMoves,
    /// One permit for each segment that may be uploaded at the same time.
    pub(crate) uploads: Semaphore,
    pub(crate) uploads_in_flight: Arc<Mutex<UploadsInFlight>>,
    /// The sequence of the next new segment.
    pub(crate) sequence: AtomicU64,
}

impl Drop for DataStore {
    fn drop(&mut self) {
        // Dropping the fields drops journal tokens. The journal must keep its files all the same: the bucket may not have
        // everything that is in them.
        self.core.journal.freeze();
    }
}

impl DataStore {
    /// Opens the block cache and the staging directory below `dir`, the namespace's directory on this machine.
    ///
    /// # Errors
    /// `Unavailable` and `NoSpace` when a directory cannot be created or read.
    pub(crate) fn open(core: Arc<Core>, dir: &Path) -> Result<Self, StoreError> {
        let (config, backend) = (&core.config, core.backend.clone());
        let shares = MemoryShares::of(config.memory_bytes);
        let uploads = (shares.uploads / SEGMENT_MAX) as usize;
        let blocks = BlockCacheConfig {
            memory_bytes: shares.blocks,
            disk_bytes: if backend.is_local() {
                0
            } else {
                config.cache_bytes - config.table_bytes()
            },
            dir: Some(dir.join("blocks")),
        };
        let blocks = BlockCache::open(blocks, core.tasks.clone())?;
        let read_ahead = Budget::new(shares.read_ahead);
        let neighbours = NeighbourReads::new(read_ahead.clone(), core.tasks.clone());
        Ok(Self {
            contents: ContentStore::default(),
            pins: Arc::default(),
            extents: ExtentReader::new(backend, blocks, Arc::clone(core.index.rows()), neighbours),
            staging: StagingDir::open(&dir.join("staging"))?,
            budget: Budget::new(config.dirty_bytes_max),
            read_ahead,
            unsaved: Budget::new(shares.unsaved),
            inline_backlog: InlineBacklog::inherited(),
            early_moves: EarlyMoves::default(),
            uploads: Semaphore::new(uploads.clamp(1, UPLOADS_MAX)),
            uploads_in_flight: Arc::default(),
            sequence: AtomicU64::new(1),
            core,
        })
    }

    /// Notes a read of `len` bytes at `offset` before it is executed; returns what comes before it.
    pub(crate) fn note_read(&self, runs: &ReadAhead, offset: u64, len: u32) -> ReadStart {
        runs.note(offset, u64::from(len), self.read_ahead.free())
    }

    /// Begins to fetch the blocks of a step's extents. The step may end before them, where the file of `size` bytes ends.
    pub(crate) fn fetch_step(
        &self,
        runs: &ReadAhead,
        step: &NextStep,
        size: u64,
        extents: &[(u64, u64, ResolvedExtent)],
    ) {
        let tasks = &self.core.tasks;
        let (reached, stretch) = self.extents.fetch_ahead(extents, &self.read_ahead, tasks);
        let end = match reached.unwrap_or(step.from) {
            end if end >= size => StepEnd::OfFile,
            end => StepEnd::At(end),
        };
        runs.fetched(step, end, stretch);
    }

    /// Returns the sequence of the next new segment.
    pub(crate) fn next_segment(&self) -> u64 {
        self.sequence.load(Ordering::SeqCst)
    }

    /// Records that an upload begins whose segments have the sequence `first` or a later one. It ends when the result is
    /// dropped.
    pub(crate) fn in_flight(&self, first: u64) -> UploadInFlight {
        let mut uploads = lock(&self.uploads_in_flight);
        uploads.number += 1;
        let number = uploads.number;
        uploads.first.insert(number, first);
        UploadInFlight {
            uploads: Arc::clone(&self.uploads_in_flight),
            number,
        }
    }

    /// Returns the lowest sequence of this epoch that a segment of an upload in flight may have; `None` if none is in flight.
    pub(crate) fn first_in_flight(&self) -> Option<u64> {
        lock(&self.uploads_in_flight).first.values().min().copied()
    }

    /// Returns the lowest sequence of this epoch whose segment may be uncited, because its upload is in flight or has failed.
    pub(crate) fn first_uncited(&self) -> Option<u64> {
        let left = lock(&self.uploads_in_flight).left;
        self.first_in_flight().into_iter().chain(left).min()
    }

    /// Returns the lowest sequence of this epoch whose segment may be uncited or not made yet. Every segment below it
    /// was cited by a queued or committed operation, or does not exist.
    pub(crate) fn first_unresolved(&self) -> u64 {
        // The next sequence is read first: an upload that begins after that has only segments at or above it.
        let next = self.next_segment();
        self.first_uncited().map_or(next, |first| first.min(next))
    }

    /// Returns the id of a new segment of this epoch.
    pub(crate) fn new_segment(&self) -> SegmentId {
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst);
        SegmentId {
            epoch: self.core.epoch,
            sequence,
        }
    }
}
