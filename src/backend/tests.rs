//! The contract on the stores at hand, and what only a failing store shows.

pub(crate) mod answers;
mod excess;
pub(crate) mod recorded;
mod requests;
pub(crate) mod servers;
pub(crate) mod support;
mod temp_files;
mod wire;

use super::*;
use crate::env::SeededEnv;
use crate::sync::{Mutex, lock};
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, PutMultipartOptions,
    PutResult, Result as StoreResult,
};
use std::collections::VecDeque;
use std::time::Duration;

fn open(url: &str) -> Backend {
    Backend::open(url, &BackendConfig::default()).unwrap()
}

/// Opens a new `file://` place.
fn local() -> (tempfile::TempDir, Backend) {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(&format!("file://{}/bucket", dir.path().display()));
    (dir, backend)
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn contract_in_memory() {
    let backend = open("memory://contract/prefix");
    contract::all(&backend, contract::Creation::Atomic).await;
}

#[tokio::test]
async fn contract_on_a_local_directory() {
    let (_dir, backend) = local();
    contract::all(&backend, contract::Creation::Atomic).await;
}

#[tokio::test]
async fn memory_stores_are_shared_by_name() {
    open("memory://shared").put("k", bytes("1")).await.unwrap();
    assert_eq!(open("memory://shared").get("k").await.unwrap(), bytes("1"));
    assert!(open("memory://other").get("k").await.is_err());
}

#[tokio::test]
async fn local_staging_files_are_never_listed() {
    let (dir, backend) = local();
    backend.put("data/k", bytes("1")).await.unwrap();
    // What a crash in the middle of a put leaves behind.
    std::fs::write(dir.path().join("bucket/data/k#1"), b"torn").unwrap();
    std::fs::write(dir.path().join("bucket/data/l#12"), b"torn").unwrap();
    let listed = backend.list("").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].key, "data/k");
}

#[tokio::test]
async fn a_local_place_knows_its_directory() {
    let (dir, backend) = local();
    assert!(backend.is_local());
    let child = backend.child("team/eu");
    assert_eq!(child.local_path(), Some(dir.path().join("bucket/team/eu")));
    assert!(!open("memory://anything").is_local());
}

#[tokio::test]
async fn a_directory_that_vanished_is_not_an_empty_store() {
    let (dir, backend) = local();
    backend.put("k", bytes("1")).await.unwrap();
    std::fs::rename(dir.path().join("bucket"), dir.path().join("away")).unwrap();
    for replaced in [false, true] {
        if replaced {
            std::fs::create_dir(dir.path().join("bucket")).unwrap();
        }
        for error in [
            backend.get("k").await.unwrap_err(),
            backend.list("").await.unwrap_err(),
            backend.put("k", bytes("2")).await.unwrap_err(),
            backend.put_new("n", bytes("2")).await.unwrap_err(),
            backend.delete("k").await.unwrap_err(),
            backend.check().await.unwrap_err(),
        ] {
            assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
        }
    }
    assert_eq!(
        std::fs::read_dir(dir.path().join("bucket"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn requests_are_counted_also_those_of_the_index() {
    let backend = open("memory://counted").child("ns");
    backend.put("a", bytes("12345")).await.unwrap();
    backend.put_new("b", bytes("678")).await.unwrap();
    backend.get("a").await.unwrap();
    backend.get_range("a", 1..3).await.unwrap();
    backend.get("none").await.unwrap_err();
    backend.list("").await.unwrap();
    let index = backend.child("meta").object_store();
    let key = Path::from("manifest");
    index
        .put(&key, PutPayload::from_static(b"90"))
        .await
        .unwrap();
    index.get(&key).await.unwrap().bytes().await.unwrap();
    backend.delete("meta/manifest").await.unwrap();
    let expected = Counters {
        put: 3,
        get: 4,
        list: 1,
        delete: 1,
        head: 0,
        bytes_up: 10,
        bytes_down: 9,
        failures: 0,
    };
    assert_eq!(backend.counters(), expected);
}

#[test]
fn debug_shows_the_url_alone() {
    let backend = open("memory://shown/p");
    assert_eq!(format!("{backend:?}"), "Backend(memory://shown/p)");
    let store = format!("{:?}", backend.object_store());
    assert_eq!(store, "BreakerStore(memory://shown/p)");
}

/// What a [`FaultStore`] does to a put.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Stores the object, then reports a broken connection.
    LostAnswer,
    /// Stores the object, then reports that it exists already: a retry that met its own first attempt.
    OwnConflict,
    /// Stores nothing and reports that the object exists: S3's 409.
    PhantomConflict,
    /// Stores nothing and reports a broken connection.
    LostRequest,
    /// Stores nothing and refuses.
    Refused,
    /// Never answers.
    Hang,
    /// Stores the object without looking at the mode.
    Unconditional,
    /// Behaves.
    Honest,
    /// Lists objects with keys of a mebibyte, without an end.
    EndlessListing,
}

/// A store that spoils puts, in the order of its script, and behaves afterwards.
#[derive(Debug)]
struct FaultStore {
    inner: InMemory,
    script: Mutex<VecDeque<Fault>>,
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

fn broken() -> Error {
    let cause = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    Error::Generic {
        store: "Fault",
        source: Box::new(HttpError::new(HttpErrorKind::Interrupted, cause)),
    }
}

fn conflict(at: &Path) -> Error {
    Error::AlreadyExists {
        path: at.to_string(),
        source: "Server returned non-2xx status code: 409 Conflict: ConditionalRequestConflict"
            .into(),
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let fault = lock(&self.script).pop_front();
        match fault {
            None | Some(Fault::Honest | Fault::EndlessListing) => {
                self.inner.put_opts(at, payload, options).await
            }
            Some(Fault::LostAnswer) => {
                self.inner.put_opts(at, payload, options).await?;
                Err(broken())
            }
            Some(Fault::OwnConflict) => {
                self.inner.put_opts(at, payload, options).await?;
                Err(conflict(at))
            }
            Some(Fault::PhantomConflict) => Err(conflict(at)),
            Some(Fault::LostRequest) => Err(broken()),
            Some(Fault::Refused) => Err(Error::PermissionDenied {
                path: at.to_string(),
                source: "AccessDenied".into(),
            }),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Unconditional) => self.inner.put(at, payload).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        if !matches!(lock(&self.script).front(), Some(Fault::EndlessListing)) {
            return self.inner.list(prefix);
        }
        let object = ObjectMeta {
            location: Path::from("k".repeat(1 << 20)),
            last_modified: Default::default(),
            size: 1,
            e_tag: None,
            version: None,
        };
        futures::stream::repeat_with(move || Ok(object.clone())).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn faulty(script: &[Fault]) -> Backend {
    let store = FaultStore {
        inner: InMemory::new(),
        script: Mutex::new(script.iter().copied().collect()),
    };
    Backend::over("fault://store", Arc::new(store), &BackendConfig::default())
}

#[tokio::test(start_paused = true)]
async fn an_own_write_that_reported_a_failure_is_recognised() {
    for script in [
        &[Fault::LostAnswer][..],
        &[Fault::OwnConflict],
        &[Fault::PhantomConflict],
        &[Fault::LostRequest],
        &[Fault::PhantomConflict, Fault::LostRequest],
        &[Fault::LostRequest, Fault::LostAnswer],
    ] {
        let backend = faulty(script);
        backend.put_new("k", bytes("ours")).await.unwrap();
        assert_eq!(backend.get("k").await.unwrap(), bytes("ours"), "{script:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_object_is_never_taken_for_an_own_write() {
    for fault in [Fault::LostRequest, Fault::PhantomConflict] {
        let backend = faulty(&[]);
        backend.put("k", bytes("mine")).await.unwrap();
        let spoilt = Backend::over(
            "fault://store",
            Arc::new(FaultStore {
                inner: InMemory::new(),
                script: Mutex::new([fault].into()),
            }),
            &BackendConfig::default(),
        );
        // Same length, other bytes: only reading them tells.
        lock_in(&spoilt, "k", "them").await;
        let error = spoilt.put_new("k", bytes("ours")).await.unwrap_err();
        assert!(
            matches!(error, BackendError::AlreadyExists { .. }),
            "{error}"
        );
        assert_eq!(spoilt.get("k").await.unwrap(), bytes("them"));
    }
}

/// Puts an object without consuming the script, as another client would.
async fn lock_in(backend: &Backend, key: &str, text: &'static str) {
    let upload = backend.object_store();
    let mut upload = upload.put_multipart(&Path::from(key)).await.unwrap();
    upload
        .put_part(PutPayload::from_static(text.as_bytes()))
        .await
        .unwrap();
    upload.complete().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_never_arrives_is_unavailable_not_taken() {
    let backend = faulty(&[Fault::PhantomConflict; 20]);
    let error = backend.put_new("k", bytes("ours")).await.unwrap_err();
    assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
    let backend = faulty(&[Fault::LostRequest; 20]);
    let error = backend.put_new("k", bytes("ours")).await.unwrap_err();
    assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
    let attempts = BackendConfig::default().create_attempts() as u64;
    assert_eq!(backend.counters().put, attempts);
    assert_eq!(backend.counters().failures, attempts);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let backend = faulty(&[Fault::Refused]);
    let error = backend.put_new("k", bytes("ours")).await.unwrap_err();
    assert!(matches!(error, BackendError::Denied { .. }), "{error}");
    assert_eq!((backend.counters().put, backend.counters().get), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_unavailable_after_the_deadline() {
    let begun = tokio::time::Instant::now();
    let backend = faulty(&[Fault::Hang, Fault::Hang]);
    for error in [
        backend.put("k", bytes("1")).await.unwrap_err(),
        backend.put_new("k", bytes("1")).await.unwrap_err(),
    ] {
        assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("within 60 s"), "{error}");
    }
    assert_eq!(begun.elapsed().as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_store_without_conditional_writes_is_refused() {
    let env = SeededEnv::new(1);
    let create = faulty(&[Fault::Unconditional, Fault::Unconditional]);
    let error = create.probe(&env).await.unwrap_err();
    assert!(matches!(error, BackendError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("If-None-Match"), "{error}");
    assert_eq!(create.list("").await.unwrap(), []);

    let mut script = [Fault::Honest; 4];
    script[3] = Fault::Unconditional;
    let error = faulty(&script).probe(&env).await.unwrap_err();
    assert!(matches!(error, BackendError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("If-Match"), "{error}");
}

#[test]
fn a_dead_endpoint_is_found_out_soon() {
    with_credentials("a_dead_endpoint_is_found_out_soon", || async {
        // Bound and dropped: a port without a listener.
        let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = bound.local_addr().unwrap();
        drop(bound);
        let error = check_s3(&format!("http://{address}")).await;
        assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains("refused"), "{text}");
    });
}

#[test]
fn a_silent_endpoint_is_found_out_in_time() {
    with_credentials("a_silent_endpoint_is_found_out_in_time", || async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = BackendConfig {
            deadline: Duration::from_secs(1),
            ..s3_config(&format!("http://{address}"))
        };
        let backend = Backend::open("s3://bucket/prefix", &config).unwrap();
        let begun = tokio::time::Instant::now();
        let error = backend.check().await.unwrap_err();
        assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn answers_of_a_service_are_named() {
    with_credentials("answers_of_a_service_are_named", || async {
        for (status, code, class) in [
            ("404 Not Found", "NoSuchBucket", Class::Invalid),
            ("403 Forbidden", "InvalidAccessKeyId", Class::Denied),
            ("400 Bad Request", "ExpiredToken", Class::Denied),
        ] {
            let error = check_s3(&answering(status, code)).await;
            let expected = class.error("", "");
            assert_eq!(
                std::mem::discriminant(&error),
                std::mem::discriminant(&expected),
                "{error}"
            );
            assert!(error.to_string().contains(code), "{error}");
            assert!(!error.to_string().contains("test-secret"), "{error}");
        }
        let config = s3_config(&answering("404 Not Found", "NoSuchKey"));
        let backend = Backend::open("s3://bucket/prefix", &config).unwrap();
        backend.check().await.unwrap();
    });
}

/// Serves one S3 error to everyone, on an endpoint of its own that lives as long as the process.
fn answering(status: &str, code: &str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let body = format!("<Error><Code>{code}</Code><Message>so it is</Message></Error>");
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    endpoint
}

fn s3_config(endpoint: &str) -> BackendConfig {
    BackendConfig {
        endpoint: Some(endpoint.to_owned()),
        ..BackendConfig::default()
    }
}

async fn check_s3(endpoint: &str) -> BackendError {
    let backend = Backend::open("s3://bucket/prefix", &s3_config(endpoint)).unwrap();
    backend.check().await.unwrap_err()
}

/// Runs `body` where the environment has credentials.
fn with_credentials<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "test-key"),
        ("AWS_SECRET_ACCESS_KEY", "test-secret"),
    ];
    let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let name = format!("{}::{name}", module_path!());
    in_child(&name, || Some(((), variables.to_vec())), body);
}

/// Runs `body` where the environment has the variables that `prepare` tells: in a child process that runs the test `name`
/// alone, because a process cannot change its own environment safely. What `prepare` hands out beside them lives as long
/// as the child; when it hands out nothing, the test is left out.
fn in_child<S, F: Future<Output = ()>>(
    name: &str,
    prepare: impl FnOnce() -> Option<(S, Vec<(String, String)>)>,
    body: impl FnOnce() -> F,
) {
    const MARK: &str = "REWINDFS_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(body());
    }
    let Some((_held, variables)) = prepare() else {
        return;
    };
    let test = name.split_once("::").unwrap().1;
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(MARK, "1")
        .envs(variables)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{told}");
    assert!(told.contains("1 passed"), "{told}");
}

#[test]
fn without_credentials_nothing_is_asked() {
    let known = std::env::vars().any(|(name, _)| name.starts_with("AWS_"));
    if known {
        eprintln!("SKIPPED: the environment has AWS settings");
        return;
    }
    let error = Backend::open("s3://bucket", &BackendConfig::default()).unwrap_err();
    assert!(matches!(error, BackendError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
}
