//! The files of the disk cache, their index in memory, and the limit of what they take.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use lru::LruCache;

use super::super::CacheError;
use super::super::block_key::{BLOCK, BlockKey};
use super::block_file::{self, FileKey, HEADER, StoredBlock};
use super::direct::{BlockWriter, DiskWrite};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// The free space that cached blocks leave for written bytes that are not in the bucket yet; on a small disk half of the disk.
const SPARE_MAX: u64 = 256 << 20;

/// What one file holds.
#[derive(Debug, Default)]
struct CachedFile {
    blocks: Vec<StoredBlock>,
}

impl CachedFile {
    fn block(&self, slot: u8) -> Option<StoredBlock> {
        self.blocks.iter().find(|b| b.slot == slot).copied()
    }

    /// What the file takes from the disk, in bytes.
    fn footprint(&self) -> u64 {
        HEADER + self.blocks.iter().map(|b| b.footprint()).sum::<u64>()
    }
}

/// The files in LRU order, and the blocks that are about to be written.
#[derive(Debug)]
struct FileIndex {
    order: LruCache<FileKey, CachedFile>,
    /// What all files take from the disk, in bytes.
    bytes: u64,
    /// Blocks that are queued or being written, with the number of the job that may add them to the index.
    announced: HashMap<BlockKey, u64>,
    tickets: u64,
}

impl FileIndex {
    fn block(&self, key: BlockKey) -> Option<StoredBlock> {
        let file = self.order.peek(&FileKey::of(key))?;
        file.block(block_file::slot_of(key))
    }

    /// Adds a block that was written; its file becomes the most recently used.
    fn add(&mut self, file: FileKey, block: StoredBlock) {
        if self.order.peek(&file).is_none() {
            self.bytes += HEADER;
        }
        self.bytes += block.footprint();
        let cached = self.order.get_or_insert_mut(file, CachedFile::default);
        cached.blocks.push(block);
    }

    /// Takes a block out, and its file with the last one. Tells what is left to do on disk.
    fn take(&mut self, key: BlockKey) -> Taken {
        let (file, slot) = (FileKey::of(key), block_file::slot_of(key));
        let Some(cached) = self.order.peek_mut(&file) else {
            return Taken::Nothing;
        };
        let Some(at) = cached.blocks.iter().position(|b| b.slot == slot) else {
            return Taken::Nothing;
        };
        let block = cached.blocks.swap_remove(at);
        self.bytes -= block.footprint();
        if !cached.blocks.is_empty() {
            return Taken::Block;
        }
        self.order.pop(&file);
        self.bytes -= HEADER;
        Taken::File
    }

    fn drop_file(&mut self, file: FileKey) {
        if let Some(cached) = self.order.pop(&file) {
            self.bytes -= cached.footprint();
        }
    }

    fn pop_oldest(&mut self) -> Option<(FileKey, u64)> {
        let (file, cached) = self.order.pop_lru()?;
        let size = cached.footprint();
        self.bytes -= size;
        Some((file, size))
    }
}

/// What was taken out of the index.
enum Taken {
    Nothing,
    Block,
    /// The block was the last of its file.
    File,
}

/// The files and their index. Methods that access files block the thread.
#[derive(Debug)]
pub(super) struct BlockFiles {
    dir: PathBuf,
    budget: u64,
    index: Mutex<FileIndex>,
    failures: AtomicU64,
}

impl BlockFiles {
    /// Opens `dir`, creates it if it is missing, and deletes the least recently used files beyond `budget` bytes. Reads the
    /// header of every file.
    ///
    /// # Errors
    /// `Io` or `NoSpace` if the directory cannot be created or listed.
    pub(super) fn open(dir: &Path, budget: u64) -> Result<Self, CacheError> {
        let failed = |action| move |error| CacheError::io(action, dir, error);
        let mut private = DirBuilder::new();
        let made = private.recursive(true).mode(0o700).create(dir);
        made.map_err(failed("create"))?;
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed("list"))? {
            let entry = entry.map_err(failed("list"))?;
            let name = entry.file_name();
            // What is not named like a file of blocks is left alone.
            if let Some(key) = name.to_str().and_then(FileKey::parse)
                && let Some((modified, cached)) = examine(&entry, key)
            {
                found.push((modified, key, cached));
            } else if let Some(fan) = name.to_str().filter(|name| is_fan(name)) {
                delete_single_blocks(&dir.join(fan));
            }
        }
        found.sort_unstable_by_key(|(modified, key, _)| (*modified, *key));
        let mut index = FileIndex {
            order: LruCache::unbounded(),
            bytes: 0,
            announced: HashMap::new(),
            tickets: 0,
        };
        for (_, key, cached) in found {
            index.bytes += cached.footprint();
            index.order.put(key, cached);
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

    /// Tells whether the block is on disk.
    pub(super) fn contains(&self, key: BlockKey) -> bool {
        lock(&self.index).block(key).is_some()
    }

    /// Registers the write of a block of `len` bytes, and returns the number of its job; `None` if the block is on disk, queued,
    /// empty or larger than the limit.
    pub(super) fn announce(&self, key: BlockKey, len: usize) -> Option<u64> {
        let mut index = lock(&self.index);
        let fits = len as u64 <= BLOCK && HEADER + block_file::footprint(len) <= self.budget;
        if len == 0 || !fits || index.block(key).is_some() || index.announced.contains_key(&key) {
            return None;
        }
        index.tickets += 1;
        let ticket = index.tickets;
        index.announced.insert(key, ticket);
        Some(ticket)
    }

    /// Withdraws the registration of a block that is not written.
    pub(super) fn renounce(&self, key: BlockKey) {
        lock(&self.index).announced.remove(&key);
    }

    /// Writes a registered block, unless it was removed meanwhile. One thread at a time.
    pub(super) fn store(
        &self,
        key: BlockKey,
        ticket: u64,
        bytes: &[u8],
        writer: &mut BlockWriter,
        mode: DiskWrite,
    ) {
        if lock(&self.index).announced.get(&key) != Some(&ticket) {
            return;
        }
        let size = HEADER + block_file::footprint(bytes.len());
        self.make_room(size);
        if !self.spare(size) {
            return self.renounce(key);
        }
        let file = FileKey::of(key);
        let block = StoredBlock::new(key, bytes);
        let written = block_file::open_for_write(&self.path(file), file).and_then(|file| {
            writer.write(&file, block.begin(), bytes, mode)?;
            block_file::describe_block(&file, block)
        });
        self.end_write(key, ticket, block, written);
    }

    /// Adds a block that was written to the index. If that failed, or the block was removed meanwhile, what the file has of it is
    /// erased, so that the next open does not find it.
    fn end_write(&self, key: BlockKey, ticket: u64, block: StoredBlock, written: io::Result<()>) {
        let file = FileKey::of(key);
        let has_others = {
            let mut index = lock(&self.index);
            let current = index.announced.get(&key) == Some(&ticket);
            if current {
                index.announced.remove(&key);
            }
            if current && written.is_ok() {
                return index.add(file, block);
            }
            index.order.contains(&file)
        };
        if has_others {
            self.erase(file, block.slot);
        } else {
            drop(fs::remove_file(self.path(file)));
        }
        if let Err(error) = written {
            self.report(&self.path(file), &error);
        }
    }

    /// Reads a block and marks its file as the most recently used; removes a block that is damaged.
    pub(super) fn load(&self, key: BlockKey) -> Option<Bytes> {
        let file = FileKey::of(key);
        let block = {
            let mut index = lock(&self.index);
            index.order.get(&file)?.block(block_file::slot_of(key))?
        };
        self.read_stored(key, block)
    }

    /// Reads a block that the index had a moment ago.
    fn read_stored(&self, key: BlockKey, block: StoredBlock) -> Option<Bytes> {
        let file = FileKey::of(key);
        let path = self.path(file);
        let read = block_file::read_block(&path, key, block);
        if let Ok(Some(bytes)) = read {
            return Some(bytes);
        }
        // The file may have been evicted since then, and begun anew.
        if lock(&self.index).block(key) != Some(block) {
            return None;
        }
        match read {
            Ok(_) => {
                tracing::warn!(path = %path.display(), block = key.index, "removed a damaged block from the disk cache");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                lock(&self.index).drop_file(file);
                return None;
            }
            Err(error) => self.report(&path, &error),
        }
        self.remove(key);
        None
    }

    /// Removes a block, also one that is queued or being written.
    pub(super) fn remove(&self, key: BlockKey) {
        let file = FileKey::of(key);
        let taken = {
            let mut index = lock(&self.index);
            index.announced.remove(&key);
            index.take(key)
        };
        match taken {
            Taken::Nothing => {}
            Taken::Block => self.erase(file, block_file::slot_of(key)),
            Taken::File => drop(fs::remove_file(self.path(file))),
        }
    }

    /// Removes the blocks of all objects but those that `is_kept` names, also those that are queued or being written.
    pub(super) fn keep_only(&self, is_kept: impl Fn((u64, u64)) -> bool) {
        let gone: Vec<FileKey> = {
            let mut index = lock(&self.index);
            index.announced.retain(|key, _| is_kept(key.object));
            let files = index.order.iter().map(|(file, _)| *file);
            let gone: Vec<FileKey> = files.filter(|file| !is_kept(file.object)).collect();
            for file in &gone {
                index.drop_file(*file);
            }
            gone
        };
        for file in gone {
            drop(fs::remove_file(self.path(file)));
        }
    }

    /// Deletes the least recently used files until `bytes` bytes or all are freed, and returns how many bytes that were.
    pub(super) fn give_up(&self, bytes: u64) -> u64 {
        let mut given = 0;
        while given < bytes {
            let Some((oldest, size)) = lock(&self.index).pop_oldest() else {
                break;
            };
            given += size;
            drop(fs::remove_file(self.path(oldest)));
        }
        given
    }

    /// Deletes the least recently used files until `size` more bytes fit.
    fn make_room(&self, size: u64) {
        let used = lock(&self.index).bytes;
        self.give_up(used.saturating_add(size).saturating_sub(self.budget));
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

    /// Erases one block of a file; a file of which that fails is deleted.
    fn erase(&self, file: FileKey, slot: u8) {
        let path = self.path(file);
        match block_file::erase_block(&path, slot) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => {
                lock(&self.index).drop_file(file);
                drop(fs::remove_file(path));
            }
        }
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

    fn path(&self, file: FileKey) -> PathBuf {
        self.dir.join(file.name())
    }
}

/// The time of a file's last use and its blocks. `None` if it is no file of blocks; then it is deleted, because it has the name of
/// one.
fn examine(entry: &fs::DirEntry, key: FileKey) -> Option<(SystemTime, CachedFile)> {
    let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
    let blocks = block_file::read_header(&entry.path(), key).ok()?;
    let Some(blocks) = blocks.filter(|blocks| !blocks.is_empty()) else {
        drop(fs::remove_file(entry.path()));
        return None;
    };
    let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Some((modified, CachedFile { blocks }))
}

/// Tells whether a directory may be one of those in which earlier builds kept one file for each block.
fn is_fan(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|c| c.is_ascii_hexdigit())
}

/// Deletes the blocks that an earlier build left in a directory, and the directory if nothing else is in it.
fn delete_single_blocks(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_str()
            .and_then(FileKey::parse)
            .is_some()
        {
            drop(fs::remove_file(entry.path()));
        }
    }
    drop(fs::remove_dir(dir));
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
