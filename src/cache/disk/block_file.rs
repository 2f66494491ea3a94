//! One file of the disk cache: its name, its header, and reads and writes of single blocks.
//!
//! A file holds up to [`FILE_BLOCKS`] neighbouring blocks of one object and is sparse: each block has its place, and what is not
//! cached takes no space. The header names the file's key and describes the blocks that are there. A block's bytes are written
//! before its description, whose checksum covers both, so that after a crash a block is whole or a miss.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::super::block_key::{BLOCK, BlockKey};

/// The number of blocks that share a file. A segment with its footer fits.
pub(super) const FILE_BLOCKS: u32 = 64;

/// The magic bytes of a file, and its format: magic, object (16 bytes), number of the file in the object (4), then for each
/// block its length (4 bytes, 0 without a block) and checksum (4). Numbers are big-endian.
const MAGIC: &[u8; 8] = b"rwblock2";
const KEY_END: usize = 28;
const DESCRIPTION: usize = 8;
const DESCRIBED: usize = KEY_END + FILE_BLOCKS as usize * DESCRIPTION;

/// Where the first block begins, in bytes: the header fills the disk's allocation unit, so that blocks are aligned.
pub(super) const HEADER: u64 = DISK_UNIT;

/// The allocation unit that is assumed of the disk, in bytes.
pub(super) const DISK_UNIT: u64 = 4096;

/// Which file: the object and the number of its first block divided by [`FILE_BLOCKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileKey {
    /// The object of the blocks.
    pub(super) object: (u64, u64),
    /// The number of the file in the object.
    pub(super) number: u32,
}

impl FileKey {
    /// The file that holds a block.
    pub(super) fn of(key: BlockKey) -> Self {
        Self {
            object: key.object,
            number: key.index / FILE_BLOCKS,
        }
    }

    /// The name of the file: 40 hexadecimal digits.
    pub(super) fn name(self) -> String {
        let (high, low) = self.object;
        format!("{high:016x}{low:016x}{:08x}", self.number)
    }

    /// The key in a file's name; `None` if it is not the name of a file of blocks.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if name.len() != 40 || !name.bytes().all(hex) {
            return None;
        }
        let number = u32::from_str_radix(&name[32..], 16).ok()?;
        let object = (
            u64::from_str_radix(&name[..16], 16).ok()?,
            u64::from_str_radix(&name[16..32], 16).ok()?,
        );
        (number <= u32::MAX / FILE_BLOCKS).then_some(Self { object, number })
    }

    fn header(self) -> [u8; KEY_END] {
        let mut header = [0; KEY_END];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&self.object.0.to_be_bytes());
        header[16..24].copy_from_slice(&self.object.1.to_be_bytes());
        header[24..].copy_from_slice(&self.number.to_be_bytes());
        header
    }
}

/// The place of a block in its file, below [`FILE_BLOCKS`].
pub(super) fn slot_of(key: BlockKey) -> u8 {
    // Smaller than 64 by the division.
    (key.index % FILE_BLOCKS) as u8
}

/// A block that a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredBlock {
    /// Its place in the file.
    pub(super) slot: u8,
    /// Its length in bytes, at most [`BLOCK`].
    pub(super) len: u32,
    /// The CRC32C of the key, the length and the bytes.
    crc: u32,
}

impl StoredBlock {
    /// Describes the block of these bytes, of which there are at most [`BLOCK`].
    pub(super) fn new(key: BlockKey, bytes: &[u8]) -> Self {
        let len = bytes.len() as u32;
        Self {
            slot: slot_of(key),
            len,
            crc: checksum(key, len, bytes),
        }
    }

    /// The space that the block takes, in bytes.
    pub(super) fn footprint(self) -> u64 {
        footprint(self.len as usize)
    }

    /// Where its bytes begin in the file.
    pub(super) fn begin(self) -> u64 {
        HEADER + u64::from(self.slot) * BLOCK
    }
}

/// The space that a block of `len` bytes takes, in bytes.
pub(super) fn footprint(len: usize) -> u64 {
    (len as u64).div_ceil(DISK_UNIT) * DISK_UNIT
}

fn checksum(key: BlockKey, len: u32, bytes: &[u8]) -> u32 {
    let mut crc = crc32c::crc32c(&key.object.0.to_be_bytes());
    crc = crc32c::crc32c_append(crc, &key.object.1.to_be_bytes());
    crc = crc32c::crc32c_append(crc, &key.index.to_be_bytes());
    crc = crc32c::crc32c_append(crc, &len.to_be_bytes());
    crc32c::crc32c_append(crc, bytes)
}

/// The blocks that a file describes; `None` if it is not the file of that key.
pub(super) fn read_header(path: &Path, key: FileKey) -> io::Result<Option<Vec<StoredBlock>>> {
    let file = File::open(path)?;
    let mut header = [0; DESCRIBED];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    Ok(described(&header, key))
}

/// The blocks that a header describes; `None` if it is not that of the file of that key.
fn described(header: &[u8; DESCRIBED], key: FileKey) -> Option<Vec<StoredBlock>> {
    if header[..KEY_END] != key.header() {
        return None;
    }
    let mut blocks = Vec::new();
    for (slot, described) in header[KEY_END..].chunks_exact(DESCRIPTION).enumerate() {
        let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| described[at + i]));
        let (len, crc) = (number(0), number(4));
        if len > 0 && u64::from(len) <= BLOCK {
            // The header has 64 places.
            let slot = slot as u8;
            blocks.push(StoredBlock { slot, len, crc });
        }
    }
    Some(blocks)
}

/// Reads a name of 40 bytes, and the descriptions behind it with a head that fits; tells whether the name is one.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::cache) fn fuzz_file(bytes: &[u8]) -> bool {
    let (name, rest) = bytes.split_at(bytes.len().min(40));
    let Some(key) = std::str::from_utf8(name).ok().and_then(FileKey::parse) else {
        return false;
    };
    assert!(key.name().as_bytes() == name, "another name");
    let mut header = [0; DESCRIBED];
    header[..KEY_END].copy_from_slice(&key.header());
    let told = rest.len().min(DESCRIBED - KEY_END);
    header[KEY_END..KEY_END + told].copy_from_slice(&rest[..told]);
    let blocks = described(&header, key).unwrap_or_default();
    assert!(
        blocks
            .iter()
            .all(|block| { u64::from(block.len) <= BLOCK && u32::from(block.slot) < FILE_BLOCKS })
    );
    true
}

/// Opens the file of a block to write into it; creates it if it is missing.
pub(super) fn open_for_write(path: &Path, key: FileKey) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.len() < HEADER {
        let mut header = [0; DESCRIBED];
        header[..KEY_END].copy_from_slice(&key.header());
        file.write_all_at(&header, 0)?;
    }
    Ok(file)
}

/// Describes a block whose bytes were written: from now on the file holds it.
pub(super) fn describe_block(file: &File, block: StoredBlock) -> io::Result<()> {
    describe(file, block.slot, block.len, block.crc)
}

/// Removes a block from its file, its bytes first: a file whose description could not be written has a block that does not match.
pub(super) fn erase_block(path: &Path, slot: u8) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let begin = HEADER + u64::from(slot) * BLOCK;
    rustix::fs::fallocate(&file, hole, begin, BLOCK)?;
    describe(&file, slot, 0, 0)
}

fn describe(file: &File, slot: u8, len: u32, crc: u32) -> io::Result<()> {
    let mut described = [0; DESCRIPTION];
    described[..4].copy_from_slice(&len.to_be_bytes());
    described[4..].copy_from_slice(&crc.to_be_bytes());
    let at = KEY_END + usize::from(slot) * DESCRIPTION;
    file.write_all_at(&described, at as u64)
}

/// Reads a block; `None` if the file has other bytes. Sets the file's time of modification, by which the files are in order after
/// a restart.
pub(super) fn read_block(
    path: &Path,
    key: BlockKey,
    block: StoredBlock,
) -> io::Result<Option<Bytes>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(block.begin()))?;
    let mut buffer = Vec::with_capacity(block.len as usize);
    Read::take(&mut file, u64::from(block.len)).read_to_end(&mut buffer)?;
    if buffer.len() != block.len as usize || checksum(key, block.len, &buffer) != block.crc {
        return Ok(None);
    }
    let stamp = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let read_now = Timestamps {
        last_access: stamp(UTIME_OMIT),
        last_modification: stamp(UTIME_NOW),
    };
    // If this fails, only the order after a restart is wrong.
    let _ = rustix::fs::futimens(&file, &read_now);
    Ok(Some(Bytes::from(buffer)))
}
