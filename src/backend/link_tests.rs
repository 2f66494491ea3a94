use bytes::Bytes;

use super::*;
use crate::backend::BackendConfig;

fn world() -> (tempfile::TempDir, Backend, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/bucket", dir.path().display());
    let backend = Backend::open(&url, &BackendConfig::default()).unwrap();
    let file = dir.path().join("staged");
    std::fs::write(&file, b"bytes").unwrap();
    (dir, backend, file)
}

#[tokio::test]
async fn a_linked_file_is_an_object_and_counts_as_one_put() {
    let (_dir, backend, file) = world();
    let child = backend.child("default");
    assert!(child.links(&file));
    child.put_linked("data/0/k", &file, 5).await.unwrap();
    let object = child.local_path().unwrap().join("data/0/k");
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&object), inode(&file));
    let counters = backend.counters();
    assert_eq!(
        (counters.put, counters.bytes_up, counters.failures),
        (1, 5, 0)
    );
    // The same once more is our own; another file is not.
    child.put_linked("data/0/k", &file, 5).await.unwrap();
    let other = file.with_file_name("other");
    std::fs::write(&other, b"other").unwrap();
    let error = child.put_linked("data/0/k", &other, 5).await.unwrap_err();
    assert!(
        matches!(error, BackendError::AlreadyExists { .. }),
        "{error}"
    );
    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        child.get("data/0/k").await.unwrap(),
        Bytes::from_static(b"bytes")
    );
}

#[tokio::test]
async fn a_place_that_is_gone_takes_no_link() {
    let (dir, backend, file) = world();
    std::fs::rename(dir.path().join("bucket"), dir.path().join("away")).unwrap();
    let error = backend.put_linked("data/k", &file, 5).await.unwrap_err();
    assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
    assert_eq!(backend.counters().failures, 1);
    assert!(!dir.path().join("bucket").exists());
}

#[tokio::test]
async fn what_lies_elsewhere_is_not_linked() {
    let (_dir, backend, file) = world();
    let memory = Backend::open("memory://link", &BackendConfig::default()).unwrap();
    assert!(!memory.links(&file));
    let error = memory.put_linked("k", &file, 5).await.unwrap_err();
    assert!(matches!(error, BackendError::Unsupported { .. }), "{error}");
    // procfs is never the disk of a temporary directory.
    let foreign = Path::new("/proc/self/status");
    assert!(!backend.links(foreign));
    let error = backend.put_linked("k", foreign, 5).await.unwrap_err();
    assert!(matches!(error, BackendError::Unsupported { .. }), "{error}");
    assert!(
        !backend.links(&file),
        "a place that refused is not asked again"
    );
    assert!(!backend.has("k").await.unwrap());
}
