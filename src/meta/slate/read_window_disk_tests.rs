//! Windows that are kept on disk, over a bucket in memory.

use super::super::window_files::TableDisk;
use super::*;
use crate::task::Tasks;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A bucket with one table, and a directory for its windows.
struct Bench {
    bucket: Arc<InMemory>,
    at: Path,
    table: Vec<u8>,
    dir: tempfile::TempDir,
    budget: u64,
}

impl Bench {
    async fn new(budget: u64) -> Self {
        let bench = Self {
            bucket: Arc::new(InMemory::new()),
            at: Path::from("x/meta/compacted/01ABC.sst"),
            table: (0..3 * WINDOW + 1000).map(|n| (n / 7) as u8).collect(),
            dir: tempfile::tempdir().unwrap(),
            budget,
        };
        bench.put().await;
        bench
    }

    async fn put(&self) {
        let table = self.table.clone().into();
        self.bucket.put(&self.at, table).await.unwrap();
    }

    /// A mount's store over the bucket and the directory.
    async fn mount(&self) -> (ReadWindow, Tasks) {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let place = TableDisk {
            dir: self.dir.path().join("tables"),
            bytes: self.budget,
        };
        let files = WindowFiles::open(place, tasks.clone()).await;
        assert!(files.is_some());
        let bucket = Arc::clone(&self.bucket) as Arc<dyn ObjectStore>;
        (ReadWindow::over(bucket, Arc::default(), files), tasks)
    }

    /// Reads a few bytes of a window as a new mount does, and waits until files are written.
    async fn read(&self, window: u64) -> Result<Bytes, object_store::Error> {
        let (store, tasks) = self.mount().await;
        let from = window * WINDOW + 10;
        let read = store.get_range(&self.at, from..from + 100).await;
        tasks.join().await;
        if let Ok(read) = &read {
            let from = from as usize;
            assert!(read[..] == self.table[from..from + 100], "window {window}");
        }
        read
    }

    fn files(&self) -> Vec<PathBuf> {
        let listed = std::fs::read_dir(self.dir.path().join("tables")).unwrap();
        let mut files: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

#[tokio::test]
async fn a_window_that_an_earlier_mount_read_needs_no_request() {
    let bench = Bench::new(1 << 30).await;
    bench.read(0).await.unwrap();
    bench.read(3).await.unwrap();
    bench.bucket.delete(&bench.at).await.unwrap();
    bench.read(0).await.unwrap();
    bench.read(3).await.unwrap();
    assert!(bench.read(1).await.is_err(), "it was never read");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&bench.dir.path().join("tables")) & 0o777, 0o700);
    assert!(bench.files().iter().all(|file| mode(file) & 0o777 == 0o600));
}

#[tokio::test]
async fn a_table_that_this_mount_wrote_is_kept() {
    let bench = Bench::new(1 << 30).await;
    let (store, tasks) = bench.mount().await;
    store
        .put(&bench.at, bench.table.clone().into())
        .await
        .unwrap();
    tasks.join().await;
    bench.bucket.delete(&bench.at).await.unwrap();
    for window in 0..4 {
        bench.read(window).await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_file_is_fetched_again() {
    let bench = Bench::new(1 << 30).await;
    bench.read(0).await.unwrap();
    let file = bench.files().remove(0);
    let intact = std::fs::read(&file).unwrap();
    for at in [0, 9, 14, 25, 31, intact.len() / 2, intact.len() - 1] {
        let mut damaged = intact.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        bench.read(0).await.unwrap();
        assert!(
            std::fs::read(&file).unwrap() == intact,
            "byte {at}: written again"
        );
    }
    for len in [0, 5, 20, intact.len() - 1] {
        std::fs::write(&file, &intact[..len]).unwrap();
        bench.read(0).await.unwrap();
        assert!(
            std::fs::read(&file).unwrap() == intact,
            "{len} bytes: written again"
        );
    }
    // A file under another name is not this window.
    std::fs::copy(&file, file.with_file_name("01ABC.sst-1")).unwrap();
    bench.read(1).await.unwrap();
    bench.bucket.delete(&bench.at).await.unwrap();
    bench.read(1).await.unwrap();
}

#[tokio::test]
async fn the_oldest_windows_make_room() {
    let bench = Bench::new(2 * (WINDOW + 200)).await;
    for window in [0, 1, 2] {
        bench.read(window).await.unwrap();
    }
    let bytes: u64 = bench
        .files()
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(bytes <= bench.budget);
    bench.bucket.delete(&bench.at).await.unwrap();
    bench.read(2).await.unwrap();
    assert!(bench.read(0).await.is_err());
}

#[tokio::test]
async fn the_windows_of_a_deleted_table_are_deleted() {
    let bench = Bench::new(1 << 30).await;
    bench.read(0).await.unwrap();
    assert_eq!(bench.files().len(), 1);
    let (store, tasks) = bench.mount().await;
    store.delete(&bench.at).await.unwrap();
    assert_eq!(bench.files().len(), 0);
    // A read that was under way gets its answer after the deletion.
    bench.put().await;
    store.get_range(&bench.at, 5..9).await.unwrap();
    tasks.join().await;
    assert_eq!(bench.files().len(), 0);
}

#[tokio::test]
async fn the_range_of_a_scan_is_one_request_and_none_at_the_next_mount() {
    let bench = Bench::new(1 << 30).await;
    let len = bench.table.len() as u64;
    let ranges = [
        100..WINDOW + 200,
        WINDOW..3 * WINDOW,
        5..len,
        2 * WINDOW + 7..len + 4 * WINDOW,
    ];
    for range in &ranges {
        let (store, tasks) = bench.mount().await;
        let read = store.get_range(&bench.at, range.clone()).await.unwrap();
        tasks.join().await;
        let end = range.end.min(len) as usize;
        assert!(read == bench.table[range.start as usize..end], "{range:?}");
    }
    assert_eq!(bench.files().len(), 4);
    bench.bucket.delete(&bench.at).await.unwrap();
    for range in &ranges {
        let (store, _tasks) = bench.mount().await;
        let read = store.get_range(&bench.at, range.clone()).await.unwrap();
        let end = range.end.min(len) as usize;
        assert!(
            read == bench.table[range.start as usize..end],
            "{range:?} from the disk"
        );
    }
}
