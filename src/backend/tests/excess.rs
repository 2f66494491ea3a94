//! A hostile server: responses whose lengths are not those that they announce, and that do not end. Each request fails after a bounded
//! number of bytes.

use super::wire::{Act, Wire};
use super::*;
use crate::backend::answer::{Connector, Peer};
use crate::backend::cloud::s3_builder;
use crate::sync::{AtomicU64, Ordering};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// What the server does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excess {
    /// It announces an object of 2^60 bytes, and sends a few.
    HugeLength,
    /// It announces three bytes, and the body does not end.
    EndlessObject,
    /// A page of a listing does not end.
    EndlessListing,
    /// The text of an error does not end.
    EndlessError(u16),
}

/// The most bytes that the server may get rid of: a page of a listing, and what lies in the buffers of a connection.
const SENT_MAX: u64 = 96 << 20;

/// A server on plain TCP; its thread ends with the process.
struct Server {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
}

impl Server {
    fn start(excess: Excess) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                std::thread::spawn(move || serve(&client, excess, &count));
            }
        });
        Self { address, sent }
    }

    fn backend(&self) -> Backend {
        let config = BackendConfig {
            endpoint: Some(format!("http://{}", self.address)),
            deadline: Duration::from_secs(40),
            retry: Retry::NONE,
            ..BackendConfig::default()
        };
        let store = s3_builder("bucket", &config)
            .unwrap()
            .with_access_key_id("key")
            .with_secret_access_key("hidden")
            .with_http_connector(Connector::to(Peer::Store))
            .build()
            .unwrap();
        Backend::over("s3://bucket", Arc::new(store), &config)
    }
}

/// Answers one request.
fn serve(mut client: &TcpStream, excess: Excess, sent: &AtomicU64) {
    let mut request = [0; 4096];
    let _length = client.read(&mut request);
    let object = "ETag: \"1\"\r\nLast-Modified: Sat, 21 Nov 2026 04:00:00 GMT\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let head = match excess {
        Excess::HugeLength => format!("200 OK\r\n{object}Content-Length: {}\r\n", 1_u64 << 60),
        Excess::EndlessObject => format!("200 OK\r\n{object}Content-Length: 3\r\n{chunked}"),
        Excess::EndlessListing => format!("200 OK\r\nContent-Type: application/xml\r\n{chunked}"),
        Excess::EndlessError(status) => {
            format!("{status} No\r\nx-amz-request-id: 1\r\n{chunked}")
        }
    };
    if write!(client, "HTTP/1.1 {head}\r\n").is_err() {
        return;
    }
    if excess == Excess::HugeLength {
        // In parts, so that the client has more than one piece of the body.
        for part in [b"some", b"more"] {
            if client.write_all(part).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_secs(5));
        return;
    }
    let (chunk, end) = (vec![b'x'; 1 << 16], b"\r\n");
    while sent.load(Ordering::Relaxed) < 4 * SENT_MAX {
        let written = write!(client, "{:x}\r\n", chunk.len())
            .and_then(|()| client.write_all(&chunk))
            .and_then(|()| client.write_all(end));
        if written.is_err() {
            return;
        }
        sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_longer_than_it_may_be_is_an_error_after_a_bounded_number_of_bytes() {
    for excess in [
        Excess::HugeLength,
        Excess::EndlessObject,
        Excess::EndlessListing,
        Excess::EndlessError(403),
        Excess::EndlessError(404),
        Excess::EndlessError(503),
    ] {
        let server = Server::start(excess);
        let backend = server.backend();
        let begun = tokio::time::Instant::now();
        let error = match excess {
            Excess::EndlessListing => backend.list("a").await.unwrap_err(),
            _ => backend.get("k").await.unwrap_err(),
        };
        let sent = server.sent.load(Ordering::Relaxed);
        assert!(sent < SENT_MAX, "{excess:?}: {sent} bytes, {error}");
        let took = begun.elapsed();
        assert!(
            took < Duration::from_secs(20),
            "{excess:?}: {took:?}, {error}"
        );
        let is_damage = matches!(error, BackendError::Damaged { .. });
        assert_eq!(
            is_damage,
            excess == Excess::HugeLength,
            "{excess:?}: {error}"
        );
    }
}

#[tokio::test]
async fn an_object_is_read_up_to_the_length_that_its_kind_may_have() {
    let (_dir, local) = local();
    for backend in [open("memory://excess"), local] {
        backend.put("k", Bytes::from(vec![1; 1000])).await.unwrap();
        assert_eq!(backend.get_at_most("k", 1000).await.unwrap().len(), 1000);
        let error = backend.get_at_most("k", 999).await.unwrap_err();
        assert!(matches!(error, BackendError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("at most 999"), "{error}");
    }
    // A sparse file, so that the test needs no disk space.
    let (dir, backend) = super::local();
    backend.put("k", bytes("1")).await.unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path().join("bucket/k"))
        .unwrap();
    file.set_len(10 << 30).unwrap();
    let error = backend.get("k").await.unwrap_err();
    assert!(matches!(error, BackendError::Damaged { .. }), "{error}");
    let index = backend.object_store();
    assert!(index.get(&Path::from("k")).await.is_err());
    let part = index.get_range(&Path::from("k"), 0..2).await.unwrap();
    assert_eq!(part, bytes("1\0"));
}

#[tokio::test]
async fn a_listing_without_an_end_is_an_error() {
    let backend = faulty(&[Fault::EndlessListing]);
    let mut listing = backend.object_store().list(None);
    let (mut count, mut error) = (0_u64, None);
    while let Some(object) = listing.next().await {
        match object {
            Ok(_) => count += 1,
            Err(found) => {
                error = Some(found);
                break;
            }
        }
    }
    let error = error.expect("an error").to_string();
    assert!(error.contains("does not end"), "{error}");
    assert!(count < 64, "{count} keys of a mebibyte");
}

#[tokio::test]
async fn a_listing_of_folders_without_an_end_is_an_error() {
    // Every page says that another one follows. Most of it is white space, so that the client keeps little of it.
    let page = format!(
        "<ListBucketResult><Name>b</Name>{}<NextContinuationToken>again</NextContinuationToken></ListBucketResult>",
        " ".repeat(30 << 20)
    );
    let wire = Wire::answering(|_, _| Act::Instead(200), &[], page.leak());
    let config = BackendConfig {
        endpoint: Some("http://nowhere.invalid".to_owned()),
        deadline: Duration::from_secs(300),
        retry: Retry::NONE,
        ..BackendConfig::default()
    };
    let store = s3_builder("bucket", &config)
        .unwrap()
        .with_access_key_id("key")
        .with_secret_access_key("hidden")
        .with_http_connector(Connector::over(Arc::new(wire.clone()), Peer::Store))
        .build()
        .unwrap();
    let backend = Backend::over("s3://bucket", Arc::new(store), &config);
    let error = backend.folders("").await.unwrap_err();
    assert!(error.to_string().contains("does not end"), "{error}");
    assert_eq!(wire.count("GET"), 3, "pages of 30 MiB");
}
