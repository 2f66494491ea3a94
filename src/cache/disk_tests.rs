//! Files of the block cache: the limit, the LRU order, and damaged files.

use std::os::unix::fs::FileExt;

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::*;

impl DiskStore {
    /// What the files take from the disk, in bytes.
    pub(in crate::cache) fn bytes(&self) -> u64 {
        lock(&self.files.index).bytes
    }

    /// Tells whether no block waits to be written.
    pub(in crate::cache) fn is_written(&self) -> bool {
        lock(&self.files.index).announced.is_empty()
    }

    /// Waits until no block waits to be written.
    async fn written(&self) {
        while !self.is_written() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

const ONE: usize = 10_000;

fn key(index: u32) -> BlockKey {
    BlockKey {
        object: (u64::MAX, 0x0123_4567_89ab_cdef),
        index,
    }
}

fn bytes(index: u32) -> Bytes {
    Bytes::from(vec![index as u8; ONE])
}

fn store(files: &BlockFiles, index: u32) {
    let ticket = files.announce(key(index), ONE).unwrap();
    files.store(key(index), ticket, &bytes(index));
}

fn files_on_disk(dir: &Path) -> usize {
    let fans = fs::read_dir(dir).unwrap();
    fans.map(|fan| fs::read_dir(fan.unwrap().path()).unwrap().count())
        .sum()
}

#[test]
fn the_key_of_a_block_is_parsed_from_its_name() {
    let temp = tempfile::tempdir().unwrap();
    let files = BlockFiles::open(temp.path(), 1 << 20).unwrap();
    for index in [0, 1, u32::MAX] {
        let path = files.path(key(index));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(parse_name(name), Some(key(index)));
        assert_eq!(parse_name(&name[1..]), None);
        assert_eq!(parse_name(&name.replace('f', "F")), None);
        assert_eq!(parse_name(&format!("+{}", &name[1..])), None);
    }
}

#[test]
fn the_least_recently_used_files_beyond_the_limit_are_deleted() {
    let temp = tempfile::tempdir().unwrap();
    let size = footprint((HEADER + ONE) as u64);
    let files = BlockFiles::open(temp.path(), 3 * size).unwrap();
    for index in 0..3 {
        store(&files, index);
    }
    assert_eq!(files.load(key(0)), Some(bytes(0)));
    store(&files, 3);
    assert_eq!(files.load(key(1)), None);
    assert_eq!(lock(&files.index).bytes, 3 * size);
    assert_eq!(files_on_disk(temp.path()), 3);
    assert!(files.announce(key(3), ONE).is_none(), "stored twice");
    assert!(files.announce(key(9), 2 * BLOCK as usize).is_none());
}

#[test]
fn the_lru_order_survives_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let size = footprint((HEADER + ONE) as u64);
    let files = BlockFiles::open(temp.path(), 10 * size).unwrap();
    for index in 0..4 {
        store(&files, index);
        let file = File::options()
            .write(true)
            .open(files.path(key(index)))
            .unwrap();
        let age = std::time::Duration::from_secs(1000 + u64::from(index));
        file.set_modified(SystemTime::UNIX_EPOCH + age).unwrap();
    }
    assert_eq!(files.load(key(0)), Some(bytes(0)));
    drop(files);
    let files = BlockFiles::open(temp.path(), 2 * size).unwrap();
    let left: Vec<u32> = (0..4).filter(|i| files.load(key(*i)).is_some()).collect();
    assert_eq!(left, [0, 3]);
    assert_eq!(files_on_disk(temp.path()), 2);
}

/// Stores one block, applies `damage` to its file, and expects a miss that deletes the file.
fn damaged(damage: impl Fn(&Path)) {
    let temp = tempfile::tempdir().unwrap();
    let files = BlockFiles::open(temp.path(), 1 << 20).unwrap();
    store(&files, 1);
    damage(&files.path(key(1)));
    assert_eq!(files.load(key(1)), None);
    assert_eq!(lock(&files.index).bytes, 0);
    assert!(!files.path(key(1)).exists());
    store(&files, 1);
    assert_eq!(files.load(key(1)), Some(bytes(1)));
}

#[test]
fn a_damaged_file_is_a_miss() {
    let open = |path: &Path| File::options().write(true).open(path).unwrap();
    for at in [0, 8, 20, 27, 31, 35, 36, HEADER + ONE - 1] {
        damaged(|path| open(path).write_all_at(b"\xfe", at as u64).unwrap());
    }
    for len in [0, HEADER - 1, HEADER, HEADER + ONE - 1, HEADER + ONE + 1] {
        damaged(|path| open(path).set_len(len as u64).unwrap());
    }
    damaged(|path| open(path).set_len(1 << 40).unwrap());
    damaged(|path| fs::remove_file(path).unwrap());
    // A complete file of another block.
    damaged(|path| write_file(path, key(2), &bytes(2)).unwrap());
}

#[test]
fn other_files_in_the_directory_are_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    drop(BlockFiles::open(temp.path(), 1 << 20).unwrap());
    fs::write(temp.path().join("00/notes"), "mine").unwrap();
    let files = BlockFiles::open(temp.path(), 0).unwrap();
    assert_eq!(lock(&files.index).bytes, 0);
    assert!(temp.path().join("00/notes").exists());
}

#[test]
fn a_block_that_is_removed_while_queued_is_not_written() {
    let temp = tempfile::tempdir().unwrap();
    let files = BlockFiles::open(temp.path(), 1 << 20).unwrap();
    let old = files.announce(key(1), ONE).unwrap();
    files.remove(key(1));
    let new = files.announce(key(1), ONE).unwrap();
    files.store(key(1), old, &Bytes::from_static(b"bad"));
    assert_eq!(files_on_disk(temp.path()), 0);
    files.store(key(1), new, &bytes(1));
    assert_eq!(files.load(key(1)), Some(bytes(1)));
}

#[test]
fn a_block_that_is_removed_while_it_is_written_leaves_no_file() {
    let temp = tempfile::tempdir().unwrap();
    let files = BlockFiles::open(temp.path(), 1 << 20).unwrap();
    // A pipe in place of the file blocks the writer in the middle.
    let path = files.path(key(1));
    let rw = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, rw, 0).unwrap();
    let mut pipe: File = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())
        .unwrap()
        .into();
    let old = files.announce(key(1), BLOCK as usize).unwrap();
    std::thread::scope(|scope| {
        let bad = Bytes::from(vec![7; BLOCK as usize]);
        let files = &files;
        let writer = scope.spawn(move || files.store(key(1), old, &bad));
        let mut some = vec![0; HEADER];
        while pipe.read(&mut some).unwrap_or(0) == 0 {
            std::thread::yield_now();
        }
        files.remove(key(1));
        assert!(files.announce(key(1), ONE).is_some());
        while !writer.is_finished() {
            drop(pipe.read(&mut some));
        }
    });
    let index = lock(&files.index);
    assert_eq!((index.order.len(), index.bytes), (0, 0));
    assert_eq!(
        index.announced.len(),
        1,
        "the second write stays registered"
    );
    assert!(!path.exists());
}

#[test]
fn a_failed_write_leaves_the_block_uncached() {
    let temp = tempfile::tempdir().unwrap();
    let files = BlockFiles::open(temp.path(), 1 << 20).unwrap();
    // A directory has the name of the file, so that even root cannot write it.
    fs::create_dir(files.path(key(1))).unwrap();
    store(&files, 1);
    assert_eq!(files.load(key(1)), None);
    assert_eq!(files.failures.load(Ordering::Relaxed), 2);
    let index = lock(&files.index);
    assert_eq!((index.bytes, index.announced.len()), (0, 0));
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
    assert_eq!(lock(&disk.files.index).announced.len(), QUEUE);
    disk.written().await;
    assert!(disk.contains(key(0)) && !disk.contains(key(QUEUE as u32)));
    disk.keep(key(QUEUE as u32), bytes(QUEUE as u32));
    disk.written().await;
    let last = disk.load(key(QUEUE as u32), &tasks).await;
    assert_eq!(last, Some(bytes(QUEUE as u32)));
}
