//! A read-only view of an index that another process writes.
//!
//! Invariant: a follower writes no object, not even a checkpoint, so read-only credentials are enough. It shows states that
//! the writer has made durable, and never an older state than before. The engine polls for newer states, also during an outage
//! of the store.

use super::config::{OPEN_DEADLINE, SlateConfig};
use super::connect::{EngineRole, OpenWatch, connect};
use super::reason::FailureReason;
use super::row_layout::{FirstByteSegments, RowMerge};
use super::status::{EngineStatus, classify};
use super::{SlateScan, scan_options, seek_options};
use crate::meta::{MetaError, MetaRead, RowScan};
use crate::sync::Arc;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use slatedb::config::{DbReaderOptions, ReadOptions, ScanOptions};
use slatedb::{DbReader, DbReaderMode};
use std::ops::Range;
use std::time::Duration;
use tokio::time::timeout;

/// The retries of a read that found an object missing, because the writer has deleted it: the next poll reads a newer state.
const READS_AGAIN: u32 = 3;

/// A read-only view of an index, which may have a writer in another process.
pub(crate) struct SlateFollower {
    db: DbReader,
    every: Duration,
    deadline: Duration,
    status: EngineStatus,
}

impl std::fmt::Debug for SlateFollower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlateFollower")
            .field("shown", &self.status.durable())
            .field("state", &self.status.state())
            .finish_non_exhaustive()
    }
}

impl SlateFollower {
    /// Opens the index under `path` of the object store for reads, and polls for newer states at the interval `every`. Must be
    /// called in a tokio runtime, on which the engine runs tasks until [`SlateFollower::close`].
    ///
    /// # Errors
    /// `Unavailable` within seconds if the object store cannot be listed; `Corrupt` if there is no index, or it was not written
    /// by this program.
    pub(crate) async fn open(
        object_store: Arc<dyn ObjectStore>,
        path: &str,
        config: &SlateConfig,
        every: Duration,
    ) -> Result<Self, MetaError> {
        // The flag `replayed` is not set: the engine continues to read new objects of the log.
        let watch = OpenWatch::new(config, EngineRole::Follower(every));
        let (place, object_store) = connect(object_store, path, config, &watch).await?;
        let options = DbReaderOptions {
            // A little longer, so that the rare polls of the manifest do not raise the requests to more than one in this time.
            manifest_poll_interval: every + every / 20,
            ..DbReaderOptions::default()
        };
        let opening = DbReader::builder(place, object_store)
            .with_reader_mode(DbReaderMode::FollowLatest)
            .with_options(options)
            .with_db_cache(config.memory_cache(), 0)
            .with_merge_operator(Arc::new(RowMerge(config.merge)))
            .with_segment_extractor(Arc::new(FirstByteSegments))
            .build();
        let db = match timeout(OPEN_DEADLINE, opening).await {
            Ok(opened) => opened.map_err(|error| classify(&error))?,
            Err(_) => {
                return Err(
                    FailureReason::from(config.reason.clone()).late("opening", OPEN_DEADLINE)
                );
            }
        };
        watch.opened.set();
        Ok(Self {
            status: EngineStatus::new(db.subscribe(), config),
            every,
            deadline: config.deadline,
            db,
        })
    }

    /// Waits until there may be a newer state: the engine has reported one, or a polling interval has passed.
    pub(crate) async fn changed(&self) {
        let mut status = self.status.reported.clone();
        status.mark_unchanged();
        // The engine reports a state slightly before reads show it; the next call covers that.
        let _ = timeout(self.every, status.changed()).await;
    }

    /// Stops the engine. A second call returns Ok.
    ///
    /// # Errors
    /// `Closed` if the engine had stopped with an error.
    pub(crate) async fn close(&self) -> Result<(), MetaError> {
        self.db.close().await.map_err(|error| classify(&error))
    }

    async fn scan_with(
        &self,
        range: Range<Bytes>,
        options: ScanOptions,
    ) -> Result<Box<dyn RowScan>, MetaError> {
        let rows = if range.start < range.end {
            let call = || self.db.scan_with_options(range.clone(), &options);
            Some(self.retry("a scan", call).await?)
        } else {
            None
        };
        Ok(Box::new(SlateScan::new(rows, &self.status, self.deadline)))
    }

    /// Retries a read until the current state has all of its objects.
    async fn retry<T, F>(&self, what: &str, call: impl Fn() -> F) -> Result<T, MetaError>
    where
        F: Future<Output = Result<T, slatedb::Error>> + Send,
    {
        let mut tries = 0;
        loop {
            match self.status.within(what, self.deadline, call()).await {
                Err(MetaError::Corrupt(_)) if tries < READS_AGAIN => {
                    tries += 1;
                    tokio::time::sleep(self.every.min(Duration::from_secs(1))).await;
                }
                outcome => return outcome,
            }
        }
    }
}

#[async_trait]
impl MetaRead for SlateFollower {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        let options = ReadOptions::default();
        self.retry("a read", || self.db.get_with_options(key, &options))
            .await
    }

    async fn scan(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        self.scan_with(range, scan_options()).await
    }

    async fn seek(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        self.scan_with(range, seek_options()).await
    }
}
