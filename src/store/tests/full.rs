//! A cache directory on a full disk: writes fail with `NoSpace`, and all other calls work.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;

const DISK: u64 = 8 << 20;

/// A small disk of its own for a cluster's cache, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    /// `None`, with a message, where this user may not mount.
    fn under(cluster: &TestCluster) -> Option<Self> {
        let at = cluster.cache.path().to_owned();
        let size = std::ffi::CString::new(format!("size={DISK}")).unwrap();
        match mount("tmpfs", &at, "tmpfs", MountFlags::empty(), Some(&*size)) {
            Ok(()) => Some(Self(at)),
            Err(error) => {
                eprintln!("SKIPPED: cannot mount a small disk: {error}");
                None
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// Appends pieces of `len` bytes until the disk is full. Returns the written bytes.
async fn fill(file: &File, len: usize) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        let byte = (text.len() / len % 250) as u8 + 1;
        match file.append(Bytes::from(vec![byte; len]), &author()).await {
            Ok(offset) => assert_eq!(offset, text.len() as u64),
            Err(StoreError::NoSpace) => return text,
            Err(error) => panic!("{error}"),
        }
        text.resize(text.len() + len, byte);
        assert!((text.len() as u64) < 2 * DISK, "the disk is never full");
    }
}

async fn filled_by(len: usize) {
    let cluster = TestCluster::new("full");
    let Some(disk) = Disk::under(&cluster) else {
        return;
    };
    let ns = cluster.open().await;
    save(&ns, ROOT, b"before", b"text").await;
    set_failpoint(&ns, Some(failpoints::Failpoint::Pack));
    let (_, file) = ns
        .tree
        .create_open(ROOT, b"big", new_file(), &author())
        .await
        .unwrap();
    let text = fill(&file, len).await;
    let stat = file.stat().await.unwrap();
    assert_eq!(stat.attrs.size, text.len() as u64);
    // Calls that write no bytes work.
    let (from, to) = (
        DentryRef::new(ROOT, b"before"),
        DentryRef::new(ROOT, b"after"),
    );
    ns.tree
        .rename(from, to, RenameMode::Replace, &author())
        .await
        .unwrap();
    let after = content(&ns, ROOT, b"after").await;
    assert_eq!(after.as_deref(), Some(&b"text"[..]));
    close(&file).await;
    assert!(content(&ns, ROOT, b"big").await.as_deref() == Some(&text[..]));
    // After a crash now, the next mount recovers everything from the full disk.
    ns.core.health.stop(StoreError::Closed);
    ns.core.tasks.stop();
    ns.core.tasks.join().await;
    let _nobody_sees_it = ns.core.index.writer().unwrap().close().await;
    drop((ns, file));
    let ns = cluster.open().await;
    assert_eq!(ns.tree.pending().failures, [""; 0]);
    assert!(content(&ns, ROOT, b"big").await.as_deref() == Some(&text[..]));
    // After the upload there is space again.
    ns.drain().await.unwrap();
    // The upload task may be the last that holds the file.
    while ns.data.staging.room(1 << 20).is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    save(&ns, ROOT, b"next", &vec![b'n'; 1 << 20]).await;
    ns.drain().await.unwrap();
    assert!(content(&ns, ROOT, b"big").await.as_deref() == Some(&text[..]));
    check::log_twin(&ns, &cluster).await;
    let _ended = ns.close().await;
    drop(ns);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_filled_by_large_writes_gives_only_no_space_errors() {
    filled_by(100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_filled_by_small_writes_gives_only_no_space_errors() {
    filled_by(900).await;
}
