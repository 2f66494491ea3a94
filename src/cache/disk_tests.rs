//! The queue of blocks that are written to disk.

use super::*;
use crate::cache::block_key::BLOCK;

impl DiskStore {
    /// Tells whether no block waits to be written.
    pub(in crate::cache) fn is_written(&self) -> bool {
        self.files.announced() == 0
    }

    /// What the files take from the disk, in bytes.
    pub(in crate::cache) fn bytes(&self) -> u64 {
        self.files.bytes()
    }

    /// Waits until no block waits to be written.
    async fn written(&self) {
        while !self.is_written() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

fn key(index: u32) -> BlockKey {
    BlockKey {
        object: (1, 2),
        index,
    }
}

fn bytes(index: u32) -> Bytes {
    Bytes::from(vec![index as u8; 10_000])
}

#[tokio::test]
async fn a_block_that_finds_the_queue_full_is_not_registered() {
    let temp = tempfile::tempdir().unwrap();
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let disk = DiskStore::open(temp.path(), 1 << 30, &tasks).unwrap();
    // The writer does not run before the next await.
    for index in 0..=QUEUE as u32 {
        disk.keep(key(index), bytes(index));
    }
    assert_eq!(disk.files.announced(), QUEUE);
    disk.written().await;
    assert!(disk.contains(key(0)) && !disk.contains(key(QUEUE as u32)));
    disk.keep(key(QUEUE as u32), bytes(QUEUE as u32));
    disk.written().await;
    let last = disk.load(key(QUEUE as u32), &tasks).await;
    assert_eq!(last, Some(bytes(QUEUE as u32)));
}

#[tokio::test]
async fn a_segment_is_written_to_one_file() {
    let temp = tempfile::tempdir().unwrap();
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let disk = DiskStore::open(temp.path(), 1 << 30, &tasks).unwrap();
    for index in 0..33 {
        disk.keep(key(index), Bytes::from(vec![index as u8; BLOCK as usize]));
    }
    disk.written().await;
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
}
