//! Rows that a close leaves in the log alone, and when it brings them into tables.
//!
//! Every open replays what no table has. That is soonest for a few rows and slow for many, and it would be so again at each
//! open until somebody writes.

use super::timeout;
use crate::meta::Batch;
use crate::sync::{AtomicU64, Ordering};
use slatedb::Db;
use slatedb::config::{FlushOptions, FlushType};
use std::time::Duration;

/// Rows of so many bytes, committed since the open, are written as tables.
const MUCH: u64 = 1 << 20;

/// How long that may take. What is not written then is replayed.
const DEADLINE: Duration = Duration::from_secs(5);

/// Bytes committed since the open.
#[derive(Debug, Default)]
pub(super) struct Committed(AtomicU64);

impl Committed {
    /// `batch` is committed.
    pub(super) fn add(&self, batch: &Batch) {
        self.0.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
    }

    /// Brings it into tables, if it is much.
    pub(super) async fn settle(&self, db: &Db) {
        if self.0.load(Ordering::Relaxed) < MUCH {
            return;
        }
        let flush_type = FlushType::MemTable;
        let writing = db.flush_with_options(FlushOptions { flush_type });
        match timeout(DEADLINE, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "tables were not written"),
            Err(_) => tracing::debug!("tables were not written in time"),
        }
    }
}
