//! Windows of tables on this machine's disk, so that a mount fetches only what an earlier one has not read.
//!
//! A file has one window, its table's key and length, and a checksum over all of it. Invariant: the disk never fails a read. A file that
//! is missing, damaged or of another table is a miss, after which the window comes from the bucket; a failed write leaves it uncached.
//! The engine's own cache of objects has no checksum: it gives a damaged part to the engine again and again.

use super::window::{TableWindow, WINDOW, WindowKey};
use crate::sync::{Arc, Mutex, lock};
use crate::task::Tasks;
use bytes::Bytes;
use object_store::path::Path;
use std::collections::{HashMap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

/// The magic bytes of a file: then CRC32C of the rest (4), length of the table (8), number of the window (8), length of the key (2),
/// key, bytes. Numbers are big-endian.
const MAGIC: &[u8; 8] = b"rwtable1";

/// The bytes before the key.
const HEADER: usize = 30;

/// The free space that windows leave on a disk; on a small disk half of it.
const SPARE_MAX: u64 = 256 << 20;

/// The part of a disk that windows take at most: its inverse.
const DISK_PART: u64 = 16;

/// Where windows are kept, and how many bytes of them.
#[derive(Clone, Debug)]
pub(crate) struct TableDisk {
    /// A directory for these files alone.
    pub(crate) dir: PathBuf,
    /// Their limit together, in bytes.
    pub(crate) bytes: u64,
}

/// The files. Clones are the same files.
#[derive(Clone)]
pub(super) struct WindowFiles {
    disk: Arc<WindowDisk>,
    tasks: Tasks,
}

struct WindowDisk {
    dir: PathBuf,
    budget: u64,
    index: Mutex<WindowIndex>,
}

/// The names and sizes of the files.
#[derive(Default)]
struct WindowIndex {
    sizes: HashMap<String, u64>,
    /// The least recently used first.
    order: VecDeque<String>,
    bytes: u64,
    /// The tables that were deleted last: a read that was under way then may write a window later.
    deleted: VecDeque<String>,
}

/// How many deleted tables are remembered.
const DELETED_MAX: usize = 1024;

impl WindowFiles {
    /// Opens the directory of `place`, creates it for this user alone if it is missing, and deletes the oldest files beyond the limit.
    /// Returns `None` if the directory cannot be used: the mount works without it.
    pub(super) async fn open(place: TableDisk, tasks: Tasks) -> Option<Self> {
        let opened = tasks.blocking("table-files", move || {
            let opened = WindowDisk::open(&place);
            opened.map_err(|error| (place.dir, error))
        });
        match opened.await.ok()? {
            Ok(disk) => Some(Self {
                disk: Arc::new(disk),
                tasks,
            }),
            Err((dir, error)) => {
                tracing::warn!(dir = %dir.display(), %error, "tables of the index are not kept on disk");
                None
            }
        }
    }

    /// Reads a window.
    pub(super) async fn load(&self, key: &WindowKey) -> Option<TableWindow> {
        let name = name(key)?;
        if !self.disk.has(&name) {
            return None;
        }
        let (disk, key) = (Arc::clone(&self.disk), key.clone());
        let read = self
            .tasks
            .blocking("table-files", move || disk.load(&name, &key));
        read.await.ok().flatten()
    }

    /// Writes windows of a table of `table_len` bytes behind the caller; a window that is not whole is left out.
    pub(super) fn store_all(
        &self,
        table_len: u64,
        windows: impl Iterator<Item = (WindowKey, Bytes)> + Send + 'static,
    ) {
        let disk = Arc::clone(&self.disk);
        let write = move || {
            for (key, bytes) in windows {
                let Some(name) = name(&key) else { continue };
                if bytes.is_empty() || whole_len(table_len, key.1) != bytes.len() as u64 {
                    continue;
                }
                if let Err(error) = disk.store(&name, &key, table_len, &bytes) {
                    tracing::debug!(name, %error, "a window of a table is not kept on disk");
                }
            }
        };
        drop(self.tasks.blocking("table-files", write));
    }

    /// Deletes the windows of a table that the bucket does not have any more, and keeps none that a read under way gets.
    pub(super) fn deleted(&self, at: &Path) {
        if let Some(table) = at.filename() {
            lock(&self.disk.index).note_deleted(table);
        }
        self.forget(at);
    }

    /// Deletes the windows of a table.
    pub(super) fn forget(&self, at: &Path) {
        let Some(table) = at.filename() else { return };
        self.disk.remove_of(table);
    }
}

/// The length of the window `number` of a table of `table_len` bytes.
fn whole_len(table_len: u64, number: u64) -> u64 {
    let start = number.saturating_mul(WINDOW);
    table_len.saturating_sub(start).min(WINDOW)
}

/// The name of a window's file; `None` for a table whose name is none of the engine's.
fn name((at, index): &WindowKey) -> Option<String> {
    let table = at.filename()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    let engines = table.ends_with(".sst") && table.len() <= 64 && table.bytes().all(plain);
    engines.then(|| format!("{table}-{index}"))
}

impl WindowDisk {
    fn open(place: &TableDisk) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&place.dir)?;
        let disk = rustix::fs::statvfs(&place.dir)?;
        let part = disk.f_blocks.saturating_mul(disk.f_frsize) / DISK_PART;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&place.dir)? {
            let entry = entry?;
            if let (Ok(meta), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) {
                let written = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((written, name, meta.len()));
            }
        }
        found.sort_unstable();
        let mut index = WindowIndex::default();
        for (_, name, size) in found {
            index.add(name, size);
        }
        let files = Self {
            dir: place.dir.clone(),
            budget: place.bytes.min(part),
            index: Mutex::new(index),
        };
        files.make_room(0);
        Ok(files)
    }

    fn has(&self, name: &str) -> bool {
        lock(&self.index).sizes.contains_key(name)
    }

    fn load(&self, name: &str, key: &WindowKey) -> Option<TableWindow> {
        match read_file(&self.dir.join(name), key) {
            Ok(Some(window)) => {
                lock(&self.index).promote(name);
                return Some(window);
            }
            Ok(None) => {
                tracing::warn!(name, "deleted a damaged file of the index's tables");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(name, %error, "a file of the index's tables is unreadable");
            }
        }
        self.remove(name);
        None
    }

    fn store(
        &self,
        name: &str,
        (at, number): &WindowKey,
        table_len: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let key = at.as_ref().as_bytes();
        let key_len = u16::try_from(key.len()).map_err(io::Error::other)?;
        let mut rest = Vec::with_capacity(HEADER + key.len() + bytes.len());
        rest.extend(table_len.to_be_bytes());
        rest.extend(number.to_be_bytes());
        rest.extend(key_len.to_be_bytes());
        rest.extend(key);
        rest.extend(bytes);
        let sum = crc32c::crc32c(&rest);
        let size = (MAGIC.len() + 4 + rest.len()) as u64;
        if size > self.budget || self.has(name) || !self.spare(size) {
            return Ok(());
        }
        self.make_room(size);
        let path = self.dir.join(name);
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(MAGIC)?;
            file.write_all(&sum.to_be_bytes())?;
            file.write_all(&rest)
        };
        let written = write();
        match written {
            Ok(()) if lock(&self.index).add_of(at, name, size) => {}
            Ok(()) | Err(_) => drop(std::fs::remove_file(&path)),
        }
        written
    }

    /// Tells whether the disk keeps its spare room after `size` more bytes.
    fn spare(&self, size: u64) -> bool {
        let Ok(disk) = rustix::fs::statvfs(&self.dir) else {
            return false;
        };
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        bytes(disk.f_bavail) >= SPARE_MAX.min(bytes(disk.f_blocks) / 2).saturating_add(size)
    }

    fn make_room(&self, size: u64) {
        loop {
            let oldest = {
                let index = lock(&self.index);
                if index.bytes.saturating_add(size) <= self.budget {
                    return;
                }
                index.order.front().cloned()
            };
            match oldest {
                Some(name) => self.remove(&name),
                None => return,
            }
        }
    }

    fn remove(&self, name: &str) {
        lock(&self.index).remove(name);
        drop(std::fs::remove_file(self.dir.join(name)));
    }

    fn remove_of(&self, table: &str) {
        let of_table = |name: &&String| {
            name.strip_prefix(table)
                .is_some_and(|rest| rest.starts_with('-'))
        };
        let names: Vec<String> = lock(&self.index)
            .sizes
            .keys()
            .filter(of_table)
            .cloned()
            .collect();
        for name in names {
            self.remove(&name);
        }
    }
}

impl WindowIndex {
    fn note_deleted(&mut self, table: &str) {
        if self.deleted.len() >= DELETED_MAX {
            self.deleted.pop_front();
        }
        self.deleted.push_back(table.to_owned());
    }

    /// Adds a file of a table; returns `false` if the table was deleted meanwhile.
    fn add_of(&mut self, table: &Path, name: &str, size: u64) -> bool {
        let is_deleted = table
            .filename()
            .is_some_and(|table| self.deleted.iter().any(|deleted| deleted == table));
        if !is_deleted {
            self.add(name.to_owned(), size);
        }
        !is_deleted
    }

    fn add(&mut self, name: String, size: u64) {
        self.remove(&name);
        self.bytes += size;
        self.order.push_back(name.clone());
        self.sizes.insert(name, size);
    }

    fn remove(&mut self, name: &str) {
        if let Some(size) = self.sizes.remove(name) {
            self.bytes -= size;
            self.order.retain(|kept| kept != name);
        }
    }

    fn promote(&mut self, name: &str) {
        if let Some(size) = self.sizes.get(name).copied() {
            self.add(name.to_owned(), size);
        }
    }
}

/// Reads a file; `None` if it is not intact or has another window.
fn read_file(path: &std::path::Path, key: &WindowKey) -> io::Result<Option<TableWindow>> {
    let mut bytes = Vec::new();
    // A file that grew by a fault is damaged, however large it is.
    let most = HEADER as u64 + u64::from(u16::MAX) + WINDOW + 1;
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(parsed(&Bytes::from(bytes), key))
}

/// The window in the bytes of a file; `None` if they are not intact or have another window.
fn parsed(bytes: &Bytes, (at, number): &WindowKey) -> Option<TableWindow> {
    let (sum, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    if crc32c::crc32c(rest) != u32::from_be_bytes(*sum) {
        return None;
    }
    let (table_len, rest) = rest.split_first_chunk::<8>()?;
    let (index, rest) = rest.split_first_chunk::<8>()?;
    let (key_len, rest) = rest.split_first_chunk::<2>()?;
    let (key, window) = rest.split_at_checked(u16::from_be_bytes(*key_len).into())?;
    let table_len = u64::from_be_bytes(*table_len);
    let same = key == at.as_ref().as_bytes()
        && u64::from_be_bytes(*index) == *number
        && window.len() as u64 == whole_len(table_len, *number);
    same.then(|| TableWindow::of_disk(at, table_len, bytes.slice_ref(window)))
}

/// Reads a file with these bytes behind a right checksum, as the window 0 of the table `a`; tells whether it is that.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_window(rest: &[u8]) -> bool {
    let key = (Path::from("a"), 0);
    let _of_anything = parsed(&Bytes::copy_from_slice(rest), &key);
    let mut bytes = MAGIC.to_vec();
    bytes.extend(crc32c::crc32c(rest).to_be_bytes());
    bytes.extend(rest);
    parsed(&bytes.into(), &key).is_some()
}
