//! Writes of blocks to the disk that bypass the kernel's page cache.
//!
//! The kernel keeps a file's pages for the mount already. A second copy of each block, in the page cache of the cache's own files,
//! would cost memory, and time where the kernel has to get fresh memory for it (docs/PROFILING.md).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::super::block_key::BLOCK;
use super::block_file::DISK_UNIT;

/// The length in bytes from which a block is written directly. A small one costs less as a copy than as a write of its own.
const DIRECT_MIN: usize = 64 << 10;

/// How the bytes of a block reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskWrite {
    /// At once and without a copy in the page cache.
    Direct,
    /// Through the page cache, which takes more than the disk can for a while.
    Buffered,
}

/// Whether the file system of the cache directory takes direct writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DirectSupport {
    /// No direct write was refused so far.
    Assumed,
    Refused,
}

/// Writes blocks, those of [`DIRECT_MIN`] bytes and more directly if the file system can.
#[derive(Debug)]
pub(super) struct BlockWriter {
    /// Room for one block at an aligned address, as direct writes need it.
    buffer: Vec<u8>,
    support: DirectSupport,
}

impl BlockWriter {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; (BLOCK + DISK_UNIT) as usize],
            support: DirectSupport::Assumed,
        }
    }

    /// Writes a block of at most [`BLOCK`] bytes at `offset`, a multiple of [`DISK_UNIT`]. A direct write pads it with zeros to a
    /// multiple of that unit.
    ///
    /// # Errors
    /// Those of pwrite(2). A file system that refuses direct writes is no error.
    pub(super) fn write(
        &mut self,
        file: &File,
        offset: u64,
        bytes: &[u8],
        mode: DiskWrite,
    ) -> io::Result<()> {
        let can = self.support == DirectSupport::Assumed && bytes.len() as u64 <= BLOCK;
        if mode == DiskWrite::Direct && can && bytes.len() >= DIRECT_MIN {
            match self.write_directly(file, offset, bytes) {
                // From fcntl(2) without direct writes, from pwrite(2) where the disk's unit is larger than ours.
                Err(error) if is_refusal(&error) => self.support = DirectSupport::Refused,
                written => return written,
            }
        }
        file.write_all_at(bytes, offset)
    }

    fn write_directly(&mut self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let begin = self.buffer.as_ptr().align_offset(DISK_UNIT as usize);
        let len = bytes.len().next_multiple_of(DISK_UNIT as usize);
        // The buffer is one unit longer than the largest block, and an aligned address is less than a unit away.
        let aligned = &mut self.buffer[begin..begin + len];
        aligned[..bytes.len()].copy_from_slice(bytes);
        aligned[bytes.len()..].fill(0);
        let flags = fcntl_getfl(file)?;
        fcntl_setfl(file, flags | OFlags::DIRECT)?;
        let written = file.write_all_at(aligned, offset);
        fcntl_setfl(file, flags)?;
        written
    }
}

fn is_refusal(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::OPNOTSUPP];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize, seed: u8) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
    }

    #[test]
    fn blocks_of_any_length_are_read_back_after_each_kind_of_write() {
        let (file, mut writer) = (tempfile::tempfile().unwrap(), BlockWriter::new());
        for mode in [DiskWrite::Direct, DiskWrite::Buffered] {
            for len in [1, 4095, 65_535, 65_536, 70_001, 262_143, 262_144] {
                let written = bytes(len, len as u8);
                writer.write(&file, 4096, &written, mode).unwrap();
                let mut read = vec![0; len];
                file.read_exact_at(&mut read, 4096).unwrap();
                assert!(read == written, "{len} bytes, {mode:?}");
            }
        }
    }

    #[test]
    fn a_shorter_block_does_not_show_the_one_before_in_its_padding() {
        let (file, mut writer) = (tempfile::tempfile().unwrap(), BlockWriter::new());
        writer
            .write(&file, 0, &[7; 262_144], DiskWrite::Direct)
            .unwrap();
        let next = 262_144;
        writer
            .write(&file, next, &[8; 70_000], DiskWrite::Direct)
            .unwrap();
        let end = file.metadata().unwrap().len();
        let mut padding = vec![1; (end - next - 70_000) as usize];
        file.read_exact_at(&mut padding, next + 70_000).unwrap();
        assert!(padding.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_block_whose_direct_write_is_refused_is_written_all_the_same() {
        let (file, mut writer) = (tempfile::tempfile().unwrap(), BlockWriter::new());
        // No multiple of the unit: most file systems refuse it.
        writer
            .write(&file, 100, &bytes(100_000, 1), DiskWrite::Direct)
            .unwrap();
        let mut read = vec![0; 100_000];
        file.read_exact_at(&mut read, 100).unwrap();
        assert!(read == bytes(100_000, 1));
    }
}
