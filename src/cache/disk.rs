//! The disk part of the block cache: one file per block, evicted in LRU order within a limit of bytes.
//!
//! One background task writes the files. A file is named by its key and holds its key and a checksum. The index is in memory;
//! an open rebuilds it from the names, ordered by the times of modification, which a read updates. Invariant: the disk never
//! fails a read. A missing, damaged or foreign file is a miss, and a failed write leaves the block uncached.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use lru::LruCache;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use tokio::sync::mpsc;

use super::CacheError;
use super::block_key::{BLOCK, BlockKey};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use crate::task::Tasks;

/// The magic bytes of a file, and its format: magic, key (20 bytes), length (4), checksum (4), bytes. Numbers are big-endian;
/// the checksum is the CRC32C of all other bytes.
const MAGIC: &[u8; 8] = b"rwblock1";
const CRC_AT: usize = 32;
const HEADER: usize = 36;

/// The allocation unit of the disk that is assumed for the size of a file, in bytes.
const DISK_UNIT: u64 = 4096;

/// The free space that cached blocks leave for written bytes that are not in the bucket yet; on a small disk half of the disk.
const SPARE_MAX: u64 = 256 << 20;

/// The length of the queue of blocks to be written, which the memory budget does not count. A block that finds the queue full
/// is not written.
const QUEUE: usize = 64;

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
    /// Opens `dir`, creates it if it is missing, and deletes the least recently used blocks beyond `budget` bytes. Calls stat(2)
    /// for every file of the directory.
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

    /// The keys of all blocks, those that are queued included.
    pub(super) fn keys(&self) -> Vec<BlockKey> {
        let index = lock(&self.files.index);
        let stored = index.order.iter().map(|(key, _)| *key);
        stored.chain(index.announced.keys().copied()).collect()
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
        lock(&self.files.index).order.contains(&key)
    }

    /// Removes a block, also one that is queued or being written.
    pub(super) fn remove(&self, key: BlockKey) {
        self.files.remove(key);
    }

    /// Deletes the least recently used files until `bytes` bytes or all are freed, and returns how many bytes that were.
    pub(super) fn give_up(&self, bytes: u64) -> u64 {
        self.files.give_up(bytes)
    }
}

/// Writes queued blocks until the stop signal, and then the rest of the queue.
async fn write_behind(files: Arc<BlockFiles>, mut queue: mpsc::Receiver<WriteJob>, tasks: Tasks) {
    let stopped = tasks.stopped();
    tokio::pin!(stopped);
    let mut stopping = false;
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
        let files = Arc::clone(&files);
        let written = tasks.blocking("cache-disk-write", move || {
            for job in batch {
                files.store(job.key, job.ticket, &job.bytes);
            }
        });
        // A panic has poisoned the task group; the blocks of this batch are only not cached.
        drop(written.await);
    }
}

/// The files on disk, in LRU order.
#[derive(Debug)]
struct FileIndex {
    /// The allocated size of each file, in bytes.
    order: LruCache<BlockKey, u64>,
    bytes: u64,
    /// Blocks that are queued or being written, with the number of the job that may add them to the index.
    announced: HashMap<BlockKey, u64>,
    tickets: u64,
}

/// The files and their index. Methods that access files block the thread.
#[derive(Debug)]
struct BlockFiles {
    dir: PathBuf,
    budget: u64,
    index: Mutex<FileIndex>,
    failures: AtomicU64,
}

impl BlockFiles {
    fn open(dir: &Path, budget: u64) -> Result<Self, CacheError> {
        let failed = |action| move |error| CacheError::io(action, dir, error);
        let mut found = Vec::new();
        for fan in 0..=u8::MAX {
            let fan = dir.join(format!("{fan:02x}"));
            fs::create_dir_all(&fan).map_err(failed("create directories in"))?;
            for entry in fs::read_dir(&fan).map_err(failed("list"))? {
                let entry = entry.map_err(failed("list"))?;
                // A file that cannot be examined or is not named like a block is not a block.
                if let Ok(meta) = entry.metadata()
                    && let Some(key) = entry.file_name().to_str().and_then(parse_name)
                {
                    let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push((modified, key, footprint(meta.len())));
                }
            }
        }
        found.sort_unstable();
        let mut index = FileIndex {
            order: LruCache::unbounded(),
            bytes: 0,
            announced: HashMap::new(),
            tickets: 0,
        };
        for (_, key, size) in found {
            index.bytes += size;
            index.order.put(key, size);
        }
        let files = Self {
            dir: dir.to_path_buf(),
            budget,
            index: Mutex::new(index),
            failures: AtomicU64::new(0),
        };
        files.make_room(0);
        Ok(files)
    }

    /// Registers the write of a block of `len` bytes, and returns the number of its job; `None` if the block is on disk, queued,
    /// or larger than the limit.
    fn announce(&self, key: BlockKey, len: usize) -> Option<u64> {
        let mut index = lock(&self.index);
        let fits = len as u64 <= BLOCK && footprint((HEADER + len) as u64) <= self.budget;
        if !fits || index.order.contains(&key) || index.announced.contains_key(&key) {
            return None;
        }
        index.tickets += 1;
        let ticket = index.tickets;
        index.announced.insert(key, ticket);
        Some(ticket)
    }

    fn renounce(&self, key: BlockKey) {
        lock(&self.index).announced.remove(&key);
    }

    fn store(&self, key: BlockKey, ticket: u64, bytes: &Bytes) {
        let announced = |index: &FileIndex| index.announced.get(&key) == Some(&ticket);
        if !announced(&lock(&self.index)) {
            return;
        }
        let size = footprint((HEADER + bytes.len()) as u64);
        self.make_room(size);
        if !self.spare(size) {
            return self.renounce(key);
        }
        let path = self.path(key);
        let written = write_file(&path, key, bytes);
        let mut index = lock(&self.index);
        let current = announced(&index);
        if current {
            index.announced.remove(&key);
        }
        if current && written.is_ok() {
            index.bytes += size;
            index.order.put(key, size);
            return;
        }
        drop(index);
        // The block was removed while it was written, or the file is incomplete: the next open must not find it.
        drop(fs::remove_file(&path));
        if let Err(error) = written {
            self.report(&path, &error);
        }
    }

    /// Reads a block and marks it as the most recently used; deletes the file if it is damaged.
    fn load(&self, key: BlockKey) -> Option<Bytes> {
        lock(&self.index).order.promote(&key);
        let path = self.path(key);
        match read_file(&path, key) {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => {
                tracing::warn!(path = %path.display(), "deleted a damaged file of the block cache");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.report(&path, &error),
        }
        self.remove(key);
        None
    }

    fn remove(&self, key: BlockKey) {
        {
            let mut index = lock(&self.index);
            index.announced.remove(&key);
            let Some(size) = index.order.pop(&key) else {
                return;
            };
            index.bytes -= size;
        }
        drop(fs::remove_file(self.path(key)));
    }

    /// Deletes the least recently used files until `size` more bytes fit.
    fn make_room(&self, size: u64) {
        loop {
            let oldest = {
                let mut index = lock(&self.index);
                if index.bytes.saturating_add(size) <= self.budget {
                    return;
                }
                let Some((key, gone)) = index.order.pop_lru() else {
                    return;
                };
                index.bytes -= gone;
                key
            };
            drop(fs::remove_file(self.path(oldest)));
        }
    }

    /// Tells whether the disk keeps [`SPARE_MAX`] free after `size` more bytes; deletes the least recently used files for that.
    fn spare(&self, size: u64) -> bool {
        loop {
            let Ok(disk) = rustix::fs::statvfs(&self.dir) else {
                // The write itself fails if the disk is full.
                return true;
            };
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
            let spare = SPARE_MAX.min(bytes(disk.f_blocks) / 2);
            if bytes(disk.f_bavail) >= spare.saturating_add(size) {
                return true;
            }
            if self.give_up(size) == 0 {
                return false;
            }
        }
    }

    fn give_up(&self, bytes: u64) -> u64 {
        let mut given = 0;
        while given < bytes {
            let oldest = {
                let mut index = lock(&self.index);
                let Some((key, gone)) = index.order.pop_lru() else {
                    break;
                };
                index.bytes -= gone;
                given += gone;
                key
            };
            drop(fs::remove_file(self.path(oldest)));
        }
        given
    }

    /// Logs a failure: the first as a warning, later ones for debugging, because a full disk fails every write.
    fn report(&self, path: &Path, error: &io::Error) {
        let path = path.display();
        if self.failures.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(%path, %error, "cannot use the disk of the block cache; blocks are kept in memory only");
        } else {
            tracing::debug!(%path, %error, "cannot use a file of the block cache");
        }
    }

    fn path(&self, key: BlockKey) -> PathBuf {
        let fan = (key.object.1 ^ u64::from(key.index)) & 0xff;
        let BlockKey {
            object: (high, low),
            index,
        } = key;
        let name = format!("{high:016x}{low:016x}{index:08x}");
        self.dir.join(format!("{fan:02x}")).join(name)
    }
}

/// The key in a file's name; `None` if it is not the name of a block.
fn parse_name(name: &str) -> Option<BlockKey> {
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if name.len() != 40 || !name.bytes().all(hex) {
        return None;
    }
    Some(BlockKey {
        object: (
            u64::from_str_radix(&name[..16], 16).ok()?,
            u64::from_str_radix(&name[16..32], 16).ok()?,
        ),
        index: u32::from_str_radix(&name[32..], 16).ok()?,
    })
}

/// The allocated size of a file of `len` bytes, in bytes.
fn footprint(len: u64) -> u64 {
    len.div_ceil(DISK_UNIT).saturating_mul(DISK_UNIT)
}

/// A file's header for a block of these bytes.
fn header(key: BlockKey, bytes: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&key.object.0.to_be_bytes());
    header[16..24].copy_from_slice(&key.object.1.to_be_bytes());
    header[24..28].copy_from_slice(&key.index.to_be_bytes());
    // Blocks are at most `BLOCK` bytes here, see `announce`.
    header[28..CRC_AT].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..CRC_AT]), bytes);
    header[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
    header
}

fn write_file(path: &Path, key: BlockKey, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&header(key, bytes))?;
    file.write_all(bytes)
}

/// Reads the file of a block; `None` if it is damaged or holds another block.
fn read_file(path: &Path, key: BlockKey) -> io::Result<Option<Bytes>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    if len < HEADER as u64 || len > HEADER as u64 + BLOCK {
        return Ok(None);
    }
    let mut buffer = Vec::with_capacity(len as usize);
    Read::take(&mut file, len).read_to_end(&mut buffer)?;
    let whole = Bytes::from(buffer);
    if whole.len() as u64 != len || whole[..HEADER] != header(key, &whole[HEADER..]) {
        return Ok(None);
    }
    let stamp = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let read_now = Timestamps {
        last_access: stamp(UTIME_OMIT),
        last_modification: stamp(UTIME_NOW),
    };
    // If this fails, only the order after a restart is wrong.
    let _ = rustix::fs::futimens(&file, &read_now);
    Ok(Some(whole.slice(HEADER..)))
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
