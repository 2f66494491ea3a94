//! Writes that wait for room while the bucket is away.

use std::time::Duration;

use super::*;

/// How long a write waits with a time limit, and how long the test watches one without.
const LIMIT: Duration = Duration::from_secs(2);

/// Fills the dirty budget of a namespace whose bucket is away; returns the outcome of the first write that has to wait, `None` if it still waits
/// after three times the limit.
async fn write_beyond_the_budget(limit: Option<Duration>) -> Option<Result<(), StoreError>> {
    let root = tempfile::tempdir().unwrap();
    let path = |name| root.path().join(name);
    std::fs::create_dir(path("bucket")).unwrap();
    let url = format!("file://{}", path("bucket").display());
    let backend = Backend::open(&url, &BackendConfig::default()).unwrap();
    let config = NamespaceConfig {
        dirty_bytes_max: 1 << 20,
        backend_timeout: limit,
        ..config(path("cache"))
    };
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let env = Arc::new(SeededEnv::new(1));
    let ns = Namespace::open(&backend, "default", config, env, tasks.clone());
    let ns = ns.await.unwrap();
    let ino = save(&ns, ROOT, b"f", b"one").await;
    ns.drain().await.unwrap();
    std::fs::rename(path("bucket"), path("away")).unwrap();
    let file = ns.tree.file(ino).await.unwrap();
    let (mut outcome, by) = (None, author());
    for part in 0..64_u64 {
        let write = file.write(part << 16, Bytes::from(vec![7; 1 << 16]), &by);
        outcome = match tokio::time::timeout(3 * LIMIT, write).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => Some(Err(error)),
            Err(_) => None,
        };
        break;
    }
    // When the bucket is back, the same write succeeds, and nothing that was acknowledged is lost.
    std::fs::rename(path("away"), path("bucket")).unwrap();
    file.write(0, Bytes::from_static(b"back"), &author())
        .await
        .unwrap();
    ns.drain().await.unwrap();
    let read = content(&ns, ROOT, b"f").await.unwrap();
    assert!(
        read.starts_with(b"back") && read.len() >= 1 << 19,
        "{}",
        read.len()
    );
    ns.close().await.unwrap();
    tasks.join().await;
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_fails_after_the_time_limit_of_the_bucket_and_waits_without_one() {
    let (limited, unlimited) = tokio::join!(
        write_beyond_the_budget(Some(LIMIT)),
        write_beyond_the_budget(None)
    );
    assert!(
        matches!(limited, Some(Err(StoreError::Unavailable(_)))),
        "{limited:?}"
    );
    assert!(unlimited.is_none(), "{unlimited:?}");
}
