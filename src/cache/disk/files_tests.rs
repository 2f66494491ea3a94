//! Files of the disk cache: the limit, the LRU order, removal, and damaged files.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::block_file::{DISK_UNIT, FILE_BLOCKS};
use super::*;

impl BlockFiles {
    /// What the files take from the disk, in bytes, by the index.
    pub(in crate::cache) fn bytes(&self) -> u64 {
        lock(&self.index).bytes
    }

    /// The number of blocks that are queued or being written.
    pub(in crate::cache) fn announced(&self) -> usize {
        lock(&self.index).announced.len()
    }
}

const ONE: usize = 10_000;

/// What a file of one block takes, in bytes.
const ALONE: u64 = HEADER + 3 * DISK_UNIT;

fn key(index: u32) -> BlockKey {
    BlockKey {
        object: (u64::MAX, 0x0123_4567_89ab_cdef),
        index,
    }
}

/// The first block of a file of its own.
fn apart(file: u32) -> BlockKey {
    key(file * FILE_BLOCKS)
}

fn bytes(key: BlockKey) -> Bytes {
    Bytes::from(vec![(key.index % 251) as u8; ONE])
}

fn open(dir: &Path) -> BlockFiles {
    BlockFiles::open(dir, 1 << 30).unwrap()
}

fn store(files: &BlockFiles, key: BlockKey) {
    let ticket = files.announce(key, ONE).unwrap();
    write(files, key, ticket, &bytes(key));
}

fn write(files: &BlockFiles, key: BlockKey, ticket: u64, bytes: &[u8]) {
    files.store(
        key,
        ticket,
        bytes,
        &mut BlockWriter::new(),
        DiskWrite::Direct,
    );
}

fn path(files: &BlockFiles, key: BlockKey) -> PathBuf {
    files.path(FileKey::of(key))
}

fn files_on_disk(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// What a directory's files take from the disk, in bytes, by stat(2).
fn allocated(dir: &Path) -> u64 {
    let blocks = |entry: io::Result<fs::DirEntry>| entry.unwrap().metadata().unwrap().blocks();
    fs::read_dir(dir).unwrap().map(blocks).sum::<u64>() * 512
}

#[test]
fn the_key_of_a_file_is_parsed_from_its_name() {
    for index in [0, FILE_BLOCKS, u32::MAX] {
        let file = FileKey::of(key(index));
        let name = file.name();
        assert_eq!(FileKey::parse(&name), Some(file));
        assert_eq!(FileKey::parse(&name[1..]), None);
        assert_eq!(FileKey::parse(&name.replace('f', "F")), None);
        assert_eq!(FileKey::parse(&format!("+{}", &name[1..])), None);
    }
    let beyond = format!("{:032x}{:08x}", 1, u32::MAX);
    assert_eq!(FileKey::parse(&beyond), None, "no block has that number");
}

#[test]
fn neighbouring_blocks_share_a_file_that_takes_only_their_space() {
    let temp = tempfile::tempdir().unwrap();
    let files = open(temp.path());
    for index in [63, 0, 64, 17] {
        store(&files, key(index));
    }
    assert_eq!(files_on_disk(temp.path()), 2);
    assert_eq!(files.bytes(), 2 * HEADER + 4 * 3 * DISK_UNIT);
    // A file system may take a little more than the blocks.
    assert!(allocated(temp.path()) <= 2 * files.bytes());
    for index in [0, 17, 63, 64] {
        assert_eq!(files.load(key(index)), Some(bytes(key(index))));
    }
    assert!(!files.contains(key(1)) && files.load(key(1)).is_none());
    assert!(files.announce(key(17), ONE).is_none(), "stored twice");
    assert!(files.announce(key(9), 2 * BLOCK as usize).is_none());
    assert!(files.announce(key(9), 0).is_none());
}

#[test]
fn a_removed_block_gives_its_space_back_and_its_neighbours_stay() {
    let temp = tempfile::tempdir().unwrap();
    let files = open(temp.path());
    for index in 0..3 {
        store(&files, key(index));
    }
    let before = allocated(temp.path());
    files.remove(key(1));
    assert_eq!(files.load(key(1)), None);
    assert_eq!(files.bytes(), HEADER + 2 * 3 * DISK_UNIT);
    assert!(allocated(temp.path()) < before);
    let raw = fs::read(path(&files, key(1))).unwrap();
    let place = (HEADER + BLOCK) as usize;
    assert!(raw[place..place + ONE].iter().all(|byte| *byte == 0));
    drop(files);
    let files = open(temp.path());
    assert!(files.contains(key(0)) && !files.contains(key(1)) && files.contains(key(2)));
    files.remove(key(0));
    files.remove(key(2));
    assert_eq!((files.bytes(), files_on_disk(temp.path())), (0, 0));
}

#[test]
fn the_least_recently_used_files_beyond_the_limit_are_deleted() {
    let temp = tempfile::tempdir().unwrap();
    let files = BlockFiles::open(temp.path(), 3 * ALONE).unwrap();
    for file in 0..3 {
        store(&files, apart(file));
    }
    assert_eq!(files.load(apart(0)), Some(bytes(apart(0))));
    store(&files, apart(3));
    assert_eq!(files.load(apart(1)), None);
    assert_eq!(files.bytes(), 3 * ALONE);
    assert_eq!(files_on_disk(temp.path()), 3);
    assert_eq!(files.give_up(1), ALONE);
    assert_eq!(files.load(apart(2)), None);
}

#[test]
fn a_file_that_alone_would_exceed_the_limit_is_begun_anew() {
    let temp = tempfile::tempdir().unwrap();
    let files = BlockFiles::open(temp.path(), 2 * ALONE).unwrap();
    for index in 0..20 {
        store(&files, key(index));
        assert!(files.bytes() <= 2 * ALONE);
        assert_eq!(files.load(key(index)), Some(bytes(key(index))));
    }
}

#[test]
fn the_lru_order_survives_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let files = open(temp.path());
    for file in 0..4 {
        store(&files, apart(file));
        let opened = File::options().write(true).open(path(&files, apart(file)));
        let age = std::time::Duration::from_secs(1000 + u64::from(file));
        let opened = opened.unwrap();
        opened.set_modified(SystemTime::UNIX_EPOCH + age).unwrap();
    }
    assert_eq!(files.load(apart(0)), Some(bytes(apart(0))));
    drop(files);
    let files = BlockFiles::open(temp.path(), 2 * ALONE).unwrap();
    let left: Vec<u32> = (0..4).filter(|i| files.load(apart(*i)).is_some()).collect();
    assert_eq!(left, [0, 3]);
    assert_eq!(files_on_disk(temp.path()), 2);
}

/// Stores two blocks, applies `damage` to their file, and expects a miss of the second; then it is stored again.
fn damaged(damage: impl Fn(&Path)) {
    let temp = tempfile::tempdir().unwrap();
    let files = open(temp.path());
    store(&files, key(0));
    store(&files, key(1));
    damage(&path(&files, key(1)));
    assert_eq!(files.load(key(1)), None);
    assert!(!files.contains(key(1)));
    store(&files, key(1));
    assert_eq!(files.load(key(1)), Some(bytes(key(1))));
}

#[test]
fn a_damaged_block_is_a_miss() {
    let open = |path: &Path| File::options().write(true).open(path).unwrap();
    let begin = HEADER + BLOCK;
    for at in [begin, begin + 5000, begin + ONE as u64 - 1] {
        damaged(|path| open(path).write_all_at(b"\xfe", at).unwrap());
    }
    for len in [begin, begin + ONE as u64 - 1] {
        damaged(|path| open(path).set_len(len).unwrap());
    }
    damaged(|path| fs::remove_file(path).unwrap());
    // The bytes of another block in this one's place.
    damaged(|path| {
        let mut other = vec![0; ONE];
        File::open(path)
            .unwrap()
            .read_exact_at(&mut other, HEADER)
            .unwrap();
        open(path).write_all_at(&other, begin).unwrap();
    });
}

#[test]
fn a_file_that_is_begun_anew_during_a_read_keeps_its_new_blocks() {
    let temp = tempfile::tempdir().unwrap();
    let files = open(temp.path());
    store(&files, key(1));
    let before = lock(&files.index).block(key(1)).unwrap();
    assert_eq!(files.give_up(1), ALONE);
    assert_eq!(files.read_stored(key(1), before), None, "no file");
    store(&files, key(2));
    assert_eq!(files.read_stored(key(1), before), None, "not in the file");
    assert_eq!(files.load(key(2)), Some(bytes(key(2))));
    assert_eq!(files.bytes(), ALONE);
}

#[test]
fn an_open_drops_what_a_crash_or_another_program_left() {
    let temp = tempfile::tempdir().unwrap();
    let files = open(temp.path());
    for file in 0..4 {
        store(&files, apart(file));
    }
    let at = |file| path(&files, apart(file));
    let write = |file| File::options().write(true).open(at(file)).unwrap();
    // No header, a header of another file, a description without its bytes, and a length that no block has.
    write(0).set_len(100).unwrap();
    fs::copy(at(3), at(1)).unwrap();
    write(2).set_len(HEADER).unwrap();
    write(3).write_all_at(&u32::MAX.to_be_bytes(), 28).unwrap();
    drop(files);
    let files = open(temp.path());
    for file in 0..4 {
        assert_eq!(files.load(apart(file)), None, "file {file}");
    }
    assert_eq!((files.bytes(), files_on_disk(temp.path())), (0, 0));
}

#[test]
fn files_of_earlier_builds_are_deleted_and_those_of_others_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let fan = |name: &str| temp.path().join(name);
    for dir in ["00", "ab", "notes"] {
        fs::create_dir(fan(dir)).unwrap();
        fs::write(fan(dir).join(FileKey::of(key(1)).name()), "rwblock1").unwrap();
    }
    fs::write(fan("00/notes"), "mine").unwrap();
    fs::write(fan("mine"), "mine").unwrap();
    let files = BlockFiles::open(temp.path(), 0).unwrap();
    assert_eq!(files.bytes(), 0);
    assert!(fan("00/notes").exists() && fan("mine").exists());
    assert_eq!(
        (files_on_disk(&fan("00")), files_on_disk(&fan("notes"))),
        (1, 1)
    );
    assert!(!fan("ab").exists());
}

#[test]
fn a_block_that_is_removed_while_queued_is_not_written() {
    let temp = tempfile::tempdir().unwrap();
    let files = open(temp.path());
    let old = files.announce(key(1), ONE).unwrap();
    files.remove(key(1));
    let new = files.announce(key(1), ONE).unwrap();
    write(&files, key(1), old, b"bad");
    assert_eq!(files_on_disk(temp.path()), 0);
    write(&files, key(1), new, &bytes(key(1)));
    assert_eq!(files.load(key(1)), Some(bytes(key(1))));
}

#[test]
fn a_block_that_is_removed_while_it_is_written_is_not_found_again() {
    let temp = tempfile::tempdir().unwrap();
    for neighbour in [false, true] {
        let files = open(temp.path());
        if neighbour {
            store(&files, key(0));
        }
        let old = files.announce(key(1), ONE).unwrap();
        let file = FileKey::of(key(1));
        let block = StoredBlock::new(key(1), &bytes(key(1)));
        let writing = block_file::open_for_write(&files.path(file), file).unwrap();
        writing.write_all_at(&bytes(key(1)), block.begin()).unwrap();
        let written = block_file::describe_block(&writing, block);
        files.remove(key(1));
        assert!(files.announce(key(1), ONE).is_some());
        files.end_write(key(1), old, block, written);
        assert_eq!(files.announced(), 1, "the second write stays registered");
        assert!(!files.contains(key(1)));
        drop(files);
        let files = open(temp.path());
        assert_eq!(files.contains(key(0)), neighbour);
        assert!(!files.contains(key(1)));
    }
}

#[test]
fn blocks_of_other_objects_are_removed_with_their_files() {
    let temp = tempfile::tempdir().unwrap();
    let files = open(temp.path());
    let other = BlockKey {
        object: (3, 4),
        index: 5,
    };
    let (queued, kept) = (key(200), key(0));
    store(&files, other);
    store(&files, kept);
    store(&files, key(100));
    let ticket = files.announce(queued, ONE).unwrap();
    files.keep_only(|object| object == other.object);
    write(&files, queued, ticket, &bytes(queued));
    assert!(files.contains(other) && !files.contains(kept) && !files.contains(queued));
    assert_eq!((files.bytes(), files_on_disk(temp.path())), (ALONE, 1));
}

#[test]
fn a_failed_write_leaves_the_block_uncached() {
    let temp = tempfile::tempdir().unwrap();
    let files = open(temp.path());
    // A directory has the name of the file, so that even root cannot write it.
    fs::create_dir(path(&files, key(1))).unwrap();
    store(&files, key(1));
    assert_eq!(files.load(key(1)), None);
    assert_eq!(files.failures.load(Ordering::Relaxed), 1);
    assert_eq!((files.bytes(), files.announced()), (0, 0));
}
