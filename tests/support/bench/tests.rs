//! The bench's server through its proxy, with the client that rewindfs uses, and with hand-written requests where that client
//! has no call.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{
    Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion,
};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::http::{self, Request, decode};
use super::listing::{list, texts};
use super::objects::{Object, Objects, range};
use super::{proxy, raw, server};

/// A new server and its client, with a proxy between them.
fn store(delay: u64) -> (SocketAddr, AmazonS3) {
    let server = server::start().expect("a server");
    let proxy = proxy::start(server, Duration::from_millis(delay)).expect("a proxy");
    let endpoint = format!("http://{}", proxy.address);
    let store = raw::connect(&endpoint, "bucket").expect("a client");
    (server, store)
}

fn with_mode(mode: PutMode) -> PutOptions {
    PutOptions {
        mode,
        ..PutOptions::default()
    }
}

#[tokio::test]
async fn a_conditional_put_is_refused_where_its_condition_does_not_hold() {
    let (_, store) = store(0);
    let key = Path::from("a key with + and %");
    let create = || with_mode(PutMode::Create);
    let first = store.put_opts(&key, "one".into(), create()).await.unwrap();
    let again = store.put_opts(&key, "two".into(), create()).await;
    assert!(
        matches!(again, Err(Error::AlreadyExists { .. })),
        "{again:?}"
    );

    let update = with_mode(PutMode::Update(UpdateVersion::from(first)));
    store
        .put_opts(&key, "three".into(), update.clone())
        .await
        .unwrap();
    let stale = store.put_opts(&key, "four".into(), update).await;
    assert!(
        matches!(stale, Err(Error::Precondition { .. })),
        "{stale:?}"
    );
    let content = store.get(&key).await.unwrap().bytes().await.unwrap();
    assert_eq!(content, "three");
}

#[tokio::test]
async fn ranges_heads_deletions_and_multipart_uploads_work_as_on_s3() {
    let (_, store) = store(0);
    let key = Path::from("large");
    let mut upload = store.put_multipart(&key).await.unwrap();
    for part in [vec![1; 5 << 20], vec![2; 100]] {
        upload.put_part(part.into()).await.unwrap();
    }
    upload.complete().await.unwrap();
    let meta = store.head(&key).await.unwrap();
    assert_eq!(meta.size, (5 << 20) + 100);
    let at = 5 << 20;
    let content = store.get_range(&key, at - 1..at + 1).await.unwrap();
    assert_eq!(content, Bytes::from_static(&[1, 2]));

    let keys = vec![Ok(key.clone()), Ok(Path::from("none"))];
    let deleted = store.delete_stream(Box::pin(futures::stream::iter(keys)));
    assert_eq!(deleted.try_collect::<Vec<_>>().await.unwrap().len(), 2);
    let gone = store.head(&key).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
}

#[tokio::test]
async fn a_listing_has_all_pages_and_the_folders_of_one_level() {
    let (_, store) = store(0);
    let transfers = raw::Transfers {
        count: 1500,
        bytes: 3,
        at_once: raw::AT_ONCE,
    };
    assert_eq!(raw::put(&store, transfers).await.unwrap().len(), 1500);
    assert_eq!(raw::get(&store, transfers).await.unwrap().len(), 1500);
    store.put(&Path::from("top"), "".into()).await.unwrap();
    let all: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert_eq!(all.len(), 1501);
    let after = Path::from("raw/3/00001400");
    let rest: Vec<_> = store
        .list_with_offset(None, &after)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(rest.len(), 100);
    let level = store.list_with_delimiter(None).await.unwrap();
    assert_eq!(level.common_prefixes, [Path::from("raw")]);
    assert_eq!(level.objects.len(), 1);
}

#[tokio::test]
async fn the_delay_is_added_to_each_request_and_parallel_requests_share_it() {
    let (_, store) = store(50);
    let many = raw::Transfers {
        count: 32,
        bytes: 100,
        at_once: 32,
    };
    let one = raw::Transfers { count: 1, ..many };
    raw::put(&store, one).await.unwrap();
    let times = raw::put(&store, one).await.unwrap();
    assert!(times[0] >= Duration::from_millis(50));
    let start = Instant::now();
    raw::put(&store, many).await.unwrap();
    // In sequence they would take 1.6 s.
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    let start = Instant::now();
    let in_order = raw::Transfers {
        count: 4,
        at_once: 1,
        ..many
    };
    raw::get(&store, in_order).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn the_next_page_of_a_listing_with_folders_starts_after_the_last_entry() {
    let mut objects = Objects::new();
    for key in ["a", "b/", "b/1", "b/2", "c<&>", "d/1"] {
        objects.insert(key.to_owned(), Object::new(Vec::new(), Vec::new()));
    }
    let mut request = Request::default();
    for (name, value) in [("delimiter", "/"), ("max-keys", "2")] {
        request.query.insert(name.to_owned(), value.to_owned());
    }
    let (mut keys, mut folders) = (Vec::new(), Vec::new());
    loop {
        let page = list(&objects, &request);
        keys.extend(texts(&page, "Key"));
        let found = texts(&page, "CommonPrefixes");
        folders.extend(found.iter().flat_map(|text| texts(text, "Prefix")));
        let Some(token) = texts(&page, "NextContinuationToken").pop() else {
            break;
        };
        request.query.insert("continuation-token".to_owned(), token);
    }
    assert_eq!(keys, ["a", "c<&>"]);
    assert_eq!(folders, ["b/", "d/"]);
}

#[test]
fn a_range_is_cut_at_the_end_of_the_object() {
    assert_eq!(range("bytes=2-3", 10), Some((2, 2)));
    assert_eq!(range("bytes=8-99", 10), Some((8, 2)));
    assert_eq!(range("bytes=4-", 10), Some((4, 6)));
    assert_eq!(range("bytes=-3", 10), Some((7, 3)));
    assert_eq!(range("bytes=10-", 10), None);
    assert_eq!(decode("a%2Fb+%zz%"), "a/b+%zz%");
}

#[test]
fn a_copy_keeps_or_replaces_the_headers_of_the_object() {
    let (server, _) = store(0);
    let put = "PUT /b/from HTTP/1.1\r\nx-amz-meta-mode: 1\r\nContent-Length: 3\r\n\r\nabc";
    assert!(ask(server, put).starts_with("HTTP/1.1 200"));
    let copy = "PUT /b/to HTTP/1.1\r\nx-amz-copy-source: /b/from\r\nx-amz-meta-mode: 2\r\n";
    assert!(ask(server, &format!("{copy}\r\n")).contains("<CopyObjectResult>"));
    assert!(ask(server, "GET /b/to HTTP/1.1\r\n\r\n").contains("x-amz-meta-mode: 1\r\n"));
    ask(
        server,
        &format!("{copy}x-amz-metadata-directive: REPLACE\r\n\r\n"),
    );
    let answer = ask(server, "GET /b/to HTTP/1.1\r\n\r\n");
    assert!(
        answer.contains("x-amz-meta-mode: 2\r\n") && answer.ends_with("\r\n\r\nabc"),
        "{answer}"
    );
}

/// The answer to a request on a connection of its own.
fn ask(server: SocketAddr, request: &str) -> String {
    let mut connection = TcpStream::connect(server).expect("a connection");
    connection.write_all(request.as_bytes()).expect("sent");
    connection.shutdown(Shutdown::Write).expect("its end");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn signed_chunks_are_joined_to_one_body() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).expect("a connection");
    let body =
        "3;chunk-signature=1\r\nabc\r\n2;chunk-signature=2\r\nde\r\n0;chunk-signature=3\r\n\r\n";
    let head = "PUT /b/k HTTP/1.1\r\nx-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n";
    write!(client, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
    let (connection, _) = listener.accept().expect("the connection");
    let request = http::read(&mut BufReader::new(&connection)).expect("a request");
    assert_eq!(request.expect("one").body, "abcde");
}

#[test]
fn the_proxy_finds_every_request_head_in_any_split_of_the_stream() {
    let stream = "PUT /b/k?partNumber=1&uploadId=u HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET \
                  GET /b?list-type=2 HTTP/1.1\r\n\r\nDELETE /b/k HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    for size in 1..stream.len() {
        let (mut heads, mut kinds) = (proxy::Heads::default(), Vec::new());
        for part in stream.as_bytes().chunks(size) {
            heads.pass(part, |kind| kinds.push(kind.to_owned()));
        }
        assert_eq!(kinds, ["put-part", "list", "delete"], "in parts of {size}");
    }
}
