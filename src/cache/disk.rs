//! The disk part of the block cache: sparse files of neighbouring blocks, evicted in LRU order within a limit of bytes.
//!
//! One background task writes the blocks. The index is in memory; an open rebuilds it from the headers of the files, ordered by
//! the times of modification, which a read updates. Invariant: the disk never fails a read. A missing, damaged or foreign file
//! is a miss, and a failed write leaves the block uncached.

use std::path::Path;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::CacheError;
use super::block_key::BlockKey;
use crate::sync::Arc;
use crate::task::Tasks;

mod block_file;
mod direct;
mod files;

use direct::{BlockWriter, DiskWrite};
use files::BlockFiles;

/// The length of the queue of blocks to be written, which the memory budget does not count. A block that finds the queue full
/// is not written.
const QUEUE: usize = 64;

/// The number of queued blocks from which the disk is behind.
const BEHIND: usize = QUEUE / 2;

/// The number of blocks that one job on the blocking pool writes.
const BATCH: usize = 16;

/// A block to be written.
struct WriteJob {
    key: BlockKey,
    ticket: u64,
    bytes: Bytes,
}

/// The blocks on disk.
#[derive(Debug)]
pub(super) struct DiskStore {
    files: Arc<BlockFiles>,
    jobs: mpsc::Sender<WriteJob>,
}

impl DiskStore {
    /// Opens `dir`, creates it if it is missing, and deletes the least recently used blocks beyond `budget` bytes. Reads the
    /// header of every file of the directory.
    ///
    /// # Errors
    /// `Io` or `NoSpace` if the directory cannot be created or listed.
    pub(super) fn open(dir: &Path, budget: u64, tasks: &Tasks) -> Result<Self, CacheError> {
        let files = Arc::new(BlockFiles::open(dir, budget)?);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let write = write_behind(Arc::clone(&files), queue, tasks.clone());
        drop(tasks.spawn("cache-disk", write));
        Ok(Self { files, jobs })
    }

    /// Reads a block on the blocking pool.
    pub(super) async fn load(&self, key: BlockKey, tasks: &Tasks) -> Option<Bytes> {
        if !self.contains(key) {
            return None;
        }
        let files = Arc::clone(&self.files);
        let read = tasks.blocking("cache-disk-read", move || files.load(key));
        read.await.ok().flatten()
    }

    /// Queues a block to be written, unless it is on disk or queued already, or the queue is full.
    pub(super) fn keep(&self, key: BlockKey, bytes: Bytes) {
        let Some(ticket) = self.files.announce(key, bytes.len()) else {
            return;
        };
        let job = WriteJob { key, ticket, bytes };
        if self.jobs.try_send(job).is_err() {
            self.files.renounce(key);
        }
    }

    /// Tells whether the block is on disk.
    pub(super) fn contains(&self, key: BlockKey) -> bool {
        self.files.contains(key)
    }

    /// Removes a block, also one that is queued or being written.
    pub(super) fn remove(&self, key: BlockKey) {
        self.files.remove(key);
    }

    /// Removes the blocks of all objects but those that `is_kept` names.
    pub(super) fn keep_only(&self, is_kept: impl Fn((u64, u64)) -> bool) {
        self.files.keep_only(is_kept);
    }

    /// Deletes the least recently used files until `bytes` bytes or all are freed, and returns how many bytes that were.
    pub(super) fn give_up(&self, bytes: u64) -> u64 {
        self.files.give_up(bytes)
    }
}

/// Writes queued blocks until the stop signal, and then the rest of the queue. If blocks come faster than the disk takes them, the
/// page cache takes some.
async fn write_behind(files: Arc<BlockFiles>, mut queue: mpsc::Receiver<WriteJob>, tasks: Tasks) {
    let stopped = tasks.stopped();
    tokio::pin!(stopped);
    let mut stopping = false;
    let mut writer = BlockWriter::new();
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            _ = queue.recv_many(&mut batch, BATCH) => {}
            () = &mut stopped, if !stopping => {
                stopping = true;
                queue.close();
                continue;
            }
        }
        if batch.is_empty() {
            return;
        }
        let mode = match queue.len() {
            BEHIND.. => DiskWrite::Buffered,
            _ => DiskWrite::Direct,
        };
        let files = Arc::clone(&files);
        let written = tasks.blocking("cache-disk-write", move || {
            for job in batch {
                files.store(job.key, job.ticket, &job.bytes, &mut writer, mode);
            }
            writer
        });
        // A panic has poisoned the task group; the blocks of this batch are only not cached.
        writer = written.await.unwrap_or_else(|_| BlockWriter::new());
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(super) use block_file::fuzz_file;

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
