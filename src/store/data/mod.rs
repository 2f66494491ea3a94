//! The bytes of files: segments, extents, contents that wait for their upload.

pub(crate) mod extent_map;
pub(crate) mod hard_link;
pub(crate) mod hold;
pub(crate) mod in_flight;
pub(crate) mod inline_compaction;
pub(crate) mod pins;
pub(crate) mod relocations;
pub(crate) mod retry_upload;
pub(crate) mod segment;
pub(crate) mod upload;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use crate::cache::{BlockCache, BlockCacheConfig, Budget, StagingDir};
use crate::store::core::Core;
use crate::store::data::extent_map::ContentStore;
use crate::store::data::in_flight::{UploadInFlight, UploadsInFlight};
use crate::store::data::pins::Pins;
use crate::store::data::segment::ExtentReader;
use crate::store::model::error::StoreError;
use crate::store::schema::object_names::SegmentId;
use crate::sync::{Arc, Mutex, lock};

/// Segments that are uploaded at the same time, at most.
const UPLOADS_MAX: usize = 8;

/// The contents of a namespace: what is read, and what is on its way into segments.
#[derive(Debug)]
pub struct DataStore {
    pub(crate) core: Arc<Core>,
    pub(crate) contents: ContentStore,
    pub(crate) pins: Arc<Pins>,
    pub(crate) extents: ExtentReader,
    pub(crate) staging: StagingDir,
    pub(crate) budget: Budget,
    /// One permit per upload at a time.
    pub(crate) uploads: Semaphore,
    pub(crate) uploads_in_flight: Arc<Mutex<UploadsInFlight>>,
    /// The sequence of the segment that is made next.
    pub(crate) sequence: AtomicU64,
}

impl Drop for DataStore {
    fn drop(&mut self) {
        // Journal tokens go with the fields: the journal must keep the files that the bucket lacks.
        self.core.journal.freeze();
    }
}

impl DataStore {
    /// Opens the block cache and the staging directory below `dir`, the namespace's directory on this machine.
    ///
    /// # Errors
    /// `Unavailable` when the directory cannot be used.
    pub(crate) fn open(core: Arc<Core>, dir: &Path) -> Result<Self, StoreError> {
        let (config, backend) = (&core.config, core.backend.clone());
        let blocks = BlockCacheConfig {
            memory_bytes: config.memory_bytes,
            disk_bytes: if backend.is_local() {
                0
            } else {
                config.cache_bytes
            },
            dir: Some(dir.join("blocks")),
        };
        let blocks = BlockCache::open(blocks, core.tasks.clone())?;
        Ok(Self {
            contents: ContentStore::default(),
            pins: Arc::default(),
            extents: ExtentReader::new(backend, blocks, Arc::clone(core.index.rows())),
            staging: StagingDir::open(&dir.join("staging"))?,
            budget: Budget::new(config.dirty_bytes_max),
            uploads: Semaphore::new(UPLOADS_MAX),
            uploads_in_flight: Arc::default(),
            sequence: AtomicU64::new(1),
            core,
        })
    }

    /// The sequence of the segment that is made next.
    pub(crate) fn next_segment(&self) -> u64 {
        self.sequence.load(Ordering::SeqCst)
    }

    /// An upload begins; its segments have this sequence or a later one.
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

    /// The first segment of this epoch that an upload under way may have made.
    pub(crate) fn first_in_flight(&self) -> Option<u64> {
        lock(&self.uploads_in_flight).first.values().min().copied()
    }

    /// The first segment of this epoch that is or may stay uncited.
    pub(crate) fn first_uncited(&self) -> Option<u64> {
        let left = lock(&self.uploads_in_flight).left;
        self.first_in_flight().into_iter().chain(left).min()
    }

    /// The first segment of this epoch that no queued operation cites, and that an upload may still bring.
    pub(crate) fn first_unresolved(&self) -> u64 {
        // In this order: an upload that begins in between has a segment at or above the first number.
        let next = self.next_segment();
        self.first_uncited().map_or(next, |first| first.min(next))
    }

    pub(crate) fn new_segment(&self) -> SegmentId {
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst);
        SegmentId {
            epoch: self.core.epoch,
            sequence,
        }
    }
}
