//! A read-only view of an index that another process writes.
//!
//! Invariant: nothing is written, not even a checkpoint, so credentials that may only read are enough. What is shown is a
//! state the writer had made durable, and never goes back. The engine looks for newer ones by itself, and goes on looking
//! while the store is away.

use super::config::{OPEN_DEADLINE, SlateConfig};
use super::connect::{OpenWatch, connect};
use super::reason::FailureReason;
use super::row_layout::{FirstByteSegments, RowMerge};
use super::{EngineStatus, SlateScan, classify, scan_options};
use crate::meta::{MetaError, MetaRead, RowScan};
use crate::sync::Arc;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use slatedb::config::{DbReaderOptions, ReadOptions};
use slatedb::{DbReader, DbReaderMode};
use std::ops::Range;
use std::time::Duration;
use tokio::time::timeout;

/// How often a read is tried again that met an object the writer has removed since: the next look knows a newer state.
const READS_AGAIN: u32 = 3;

/// A reader of an index that has another writer, or none.
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
    /// Opens the index under `path` of the object store for reading; looks for newer states as often as `every` says. Must
    /// run inside a tokio runtime, whose tasks the engine uses until [`SlateFollower::close`].
    ///
    /// # Errors
    /// `Unavailable` within seconds when the object store cannot be listed; `Corrupt` for an index of another make, and where
    /// there is none.
    pub(crate) async fn open(
        object_store: Arc<dyn ObjectStore>,
        path: &str,
        config: &SlateConfig,
        every: Duration,
    ) -> Result<Self, MetaError> {
        // Its engine goes on reading the log as the writer makes it.
        let watch = OpenWatch::new(config);
        let (place, object_store) = connect(object_store, path, config, &watch).await?;
        let options = DbReaderOptions {
            manifest_poll_interval: every,
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

    /// Waits until a newer state may be shown: the engine says so, or it has just looked.
    pub(crate) async fn changed(&self) {
        let mut status = self.status.told.clone();
        status.mark_unchanged();
        // What the engine reports, it shows a moment later; the next turn sees what this one misses.
        let _ = timeout(self.every, status.changed()).await;
    }

    /// Stops looking. Closing again is Ok.
    ///
    /// # Errors
    /// `Closed` when the engine had stopped by itself.
    pub(crate) async fn close(&self) -> Result<(), MetaError> {
        self.db.close().await.map_err(|error| classify(&error))
    }

    /// Asks until the state that is shown has every object it needs.
    async fn again<T, F>(&self, what: &str, call: impl Fn() -> F) -> Result<T, MetaError>
    where
        F: Future<Output = Result<T, slatedb::Error>> + Send,
    {
        let mut tries = 0;
        loop {
            match self.status.patient(what, self.deadline, call()).await {
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
        self.again("a read", || self.db.get_with_options(key, &options))
            .await
    }

    async fn scan(&self, range: Range<Bytes>) -> Result<Box<dyn RowScan>, MetaError> {
        let options = scan_options();
        let rows = if range.start < range.end {
            let call = || self.db.scan_with_options(range.clone(), &options);
            Some(self.again("a scan", call).await?)
        } else {
            None
        };
        Ok(Box::new(SlateScan::new(rows, &self.status, self.deadline)))
    }
}
