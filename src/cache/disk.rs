//! The disk half of the block cache: a file per block, an LRU bounded by bytes that survives restarts.
//!
//! Files are written by one background task and named by their keys; each carries its key and a
//! checksum. The index is in memory, made at open from the names, ordered by their times of modification, which a
//! read renews. Invariant: the disk is a convenience. A file that is missing, damaged or another's is
//! a miss, a failed write leaves the block uncached; neither fails a read.

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

/// Says what the file is and how it is laid out: magic, key (20 bytes), length (4), checksum (4), bytes; numbers
/// are big-endian, the checksum is CRC32C over all but itself.
const MAGIC: &[u8; 8] = b"rwblock1";
const CRC_AT: usize = 32;
const HEADER: usize = 36;

/// What a file takes from the disk is counted in units of this many bytes.
const DISK_UNIT: u64 = 4096;

/// Bytes of the disk that blocks leave free for what is written and not yet in the bucket; on a small disk half of it.
const SPARE_MAX: u64 = 256 << 20;

/// Blocks that wait to be written, beside the memory budget; more are not kept on disk.
const QUEUE: usize = 64;

/// Blocks handed to the blocking pool together.
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
    /// Opens `dir`, which it makes if it is missing, and drops the oldest blocks beyond `budget` bytes. Lists the whole
    /// directory and looks at every file, so it takes the longer the more there are. Fails only if the directory
    /// cannot be made or listed.
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

    /// Queues a block to be written, unless it is there, under way, or the queue is full.
    pub(super) fn keep(&self, key: BlockKey, bytes: Bytes) {
        let Some(ticket) = self.files.announce(key, bytes.len()) else {
            return;
        };
        let job = WriteJob { key, ticket, bytes };
        if self.jobs.try_send(job).is_err() {
            self.files.renounce(key);
        }
    }

    /// Whether a file of the block is indexed.
    pub(super) fn contains(&self, key: BlockKey) -> bool {
        lock(&self.files.index).order.contains(&key)
    }

    /// Forgets a block; one that is still being written does not come back either.
    pub(super) fn remove(&self, key: BlockKey) {
        self.files.remove(key);
    }

    /// Drops the oldest files until up to `bytes` are free; how many it was.
    pub(super) fn give_up(&self, bytes: u64) -> u64 {
        self.files.give_up(bytes)
    }
}

/// Writes what is queued, until the stop signal and then what is left.
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
        // A panic has poisoned the group; what it left unwritten is only not kept.
        drop(written.await);
    }
}

/// Which files there are and in which order they go.
#[derive(Debug)]
struct FileIndex {
    /// What each file takes from the disk, in bytes.
    order: LruCache<BlockKey, u64>,
    bytes: u64,
    /// Blocks queued or being written, with the number of the job that may index them.
    announced: HashMap<BlockKey, u64>,
    tickets: u64,
}

/// The files and their index. All methods but those on the index alone block on the disk.
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
                // What cannot be looked at or is not named like a block is not ours.
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

    /// Says that a block of `len` bytes will be stored, and returns the job's number; `None` if it need not or cannot be.
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
        // Forgotten while it was written, or half a file: it may not be found again.
        drop(fs::remove_file(&path));
        if let Err(error) = written {
            self.report(&path, &error);
        }
    }

    /// Reads a block and makes it the newest; drops the file if it is not what its name says.
    fn load(&self, key: BlockKey) -> Option<Bytes> {
        lock(&self.index).order.promote(&key);
        let path = self.path(key);
        match read_file(&path, key) {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => tracing::warn!(path = %path.display(), "dropped a damaged cache file"),
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

    /// Drops the oldest files until `size` more bytes fit.
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

    /// Whether the disk keeps enough free for others when `size` more bytes are written; drops the oldest files to make it so.
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

    /// The first failure is worth a warning; a full disk would repeat it with every block.
    fn report(&self, path: &Path, error: &io::Error) {
        let path = path.display();
        if self.failures.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(%path, %error, "the block cache's disk fails; blocks are not kept");
        } else {
            tracing::debug!(%path, %error, "a cache file failed");
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

/// The key a file's name tells; `None` for every other name.
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

/// What a file of `len` bytes takes from the disk, in bytes.
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

/// Reads a block's file; `None` if it is damaged or holds something else.
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
    // Only the order after a restart would suffer.
    let _ = rustix::fs::futimens(&file, &read_now);
    Ok(Some(whole.slice(HEADER..)))
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
