//! HTTP responses that cannot be from an object store, such as the page of a captive portal, the response of a misconfigured
//! proxy, or a damaged response.
//!
//! Such a response becomes a failed request, which the library repeats: an HTML page must not be taken for an empty listing,
//! nor the 200 of a captive portal for a stored object. Nor is more of a response kept in memory than such a response of a store has.
//! Invariant: no response that S3, Google Cloud Storage or Azure may send is refused. The content of objects is verified where
//! its format is known.

use super::bounds::count_page;
use crate::sync::Arc;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use std::borrow::Cow;
use std::time::Duration;
use url::form_urlencoded;

/// Why a response cannot be from an object store.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this is no answer of an object store: {0}")]
pub(super) struct InvalidResponse(String);

impl InvalidResponse {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// An error of a kind for which the library repeats every request: a conditional write that was sent twice is read back later.
impl From<InvalidResponse> for HttpError {
    fn from(wrong: InvalidResponse) -> Self {
        Self::new(HttpErrorKind::Request, wrong)
    }
}

/// The service that a client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// The object store.
    Store,
    /// A service that returns credentials.
    Credentials,
}

/// Creates clients that check responses.
#[derive(Debug)]
pub(super) struct Connector {
    inner: Arc<dyn HttpConnector>,
    peer: Peer,
}

impl Connector {
    /// A connector over the network.
    pub(super) fn to(peer: Peer) -> Self {
        Self::over(Arc::new(ReqwestConnector::default()), peer)
    }

    /// A connector over `inner`.
    pub(super) fn over(inner: Arc<dyn HttpConnector>, peer: Peer) -> Self {
        Self { inner, peer }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client {
            inner: self.inner.connect(options)?,
            peer: self.peer,
        }))
    }
}

#[derive(Debug)]
struct Client {
    inner: HttpClient,
    peer: Peer,
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = RequestClass::of(&request);
        let reads = matches!(request.method().as_str(), "GET" | "HEAD");
        let response = match self.inner.execute(request).await {
            Ok(response) => response,
            // A response that is not HTTP, or a redirection loop: the library does not repeat failures that it does not classify.
            Err(error)
                if reads
                    && matches!(error.kind(), HttpErrorKind::Unknown | HttpErrorKind::Decode) =>
            {
                return Err(HttpError::new(HttpErrorKind::Request, error));
            }
            Err(error) => return Err(error),
        };
        match self.peer {
            Peer::Store => from_store(&asked, response).await,
            Peer::Credentials => from_credentials(response).await,
        }
    }
}

/// The kind of a request, as far as the expected responses differ.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RequestClass {
    /// A read of an object.
    Object { path: String, range: bool },
    /// A read of an object's size and date.
    Head,
    /// A listing; `root` is the root element of the expected document.
    Listing {
        root: &'static str,
        prefix: Option<String>,
    },
    /// A write of an object or a part.
    Store,
    /// Another request whose response is a document.
    Document { root: &'static str },
    /// A deletion of an object.
    Delete,
    /// Anything else.
    Other,
}

impl RequestClass {
    fn of(request: &HttpRequest) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let value = |name: &str| {
            form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| value)
        };
        let is = |name: &str, wanted: &str| value(name).is_some_and(|value| value == wanted);
        let listing = |root| Self::Listing {
            root,
            prefix: value("prefix").map(Cow::into_owned),
        };
        match request.method().as_str() {
            "GET" if is("list-type", "2") => listing("ListBucketResult"),
            "GET" if is("comp", "list") => listing("EnumerationResults"),
            "GET" if value("session").is_some() || value("tagging").is_some() => Self::Other,
            "GET" => Self::Object {
                path: request.uri().path().to_owned(),
                range: request.headers().contains_key("range"),
            },
            "HEAD" => Self::Head,
            "POST" if value("delete").is_some() => Self::Document {
                root: "DeleteResult",
            },
            "POST" if value("uploads").is_some() => Self::Document {
                root: "InitiateMultipartUploadResult",
            },
            "POST" if value("uploadId").is_some() => Self::Document {
                root: "CompleteMultipartUploadResult",
            },
            // Not all responses to Azure's blocks and block lists have an entity tag; the response to a copy is a document.
            "PUT" if value("comp").is_some() => Self::Other,
            "PUT" if request.headers().contains_key("x-amz-copy-source") => Self::Other,
            "PUT" => Self::Store,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// Returns a response that a store may have sent.
async fn from_store(
    asked: &RequestClass,
    response: HttpResponse,
) -> Result<HttpResponse, HttpError> {
    let status = response.status().as_u16();
    // Some servers declare every response without a type as HTML; such responses have headers of a store.
    if is_html_by_header(&response) && status < 500 && !is_signed(&response) {
        return Err(page().into());
    }
    match (asked, status) {
        (RequestClass::Object { range, .. }, 200 | 206) => {
            whole_object(&response)?;
            if *range && status == 206 {
                whole_range(&response)?;
            }
            Ok(response)
        }
        (RequestClass::Head, 200) => {
            whole_object(&response)?;
            Ok(response)
        }
        (RequestClass::Store, 200 | 201) => {
            has(&response, "etag")?;
            Ok(response)
        }
        (RequestClass::Listing { root, prefix }, 200) => {
            let (response, body) = buffered(response, DOCUMENT_MAX).await?;
            endless(count_page(body.len()))?;
            document(&body, root)?;
            of_prefix(&body, prefix.as_deref())?;
            Ok(response)
        }
        (RequestClass::Document { root }, 200) => {
            let (response, body) = buffered(response, DOCUMENT_MAX).await?;
            document(&body, root)?;
            Ok(response)
        }
        (RequestClass::Object { path, .. }, 404) => absent(response, Some(path)).await,
        // Stores say 202 or 204.
        (RequestClass::Delete, 200) if !is_signed(&response) => {
            Err(InvalidResponse::new("it says 200 to a deletion").into())
        }
        (RequestClass::Head, _) => Ok(response),
        (_, 500..) => Ok(with_short_text(response).await),
        (_, 404) => absent(response, None).await,
        (_, 400..=499) => {
            let (response, body) = buffered(response, ERROR_MAX).await?;
            match is_html(&body) {
                true => Err(page().into()),
                false => Ok(response),
            }
        }
        (RequestClass::Other, 200..=299) => Ok(buffered(response, DOCUMENT_MAX).await?.0),
        _ => Ok(response),
    }
}

/// Returns a response that a credential service may have sent. Refuses a token that cannot be sent in a header, because the
/// library would panic over it.
async fn from_credentials(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    if !response.status().is_success() {
        return Ok(with_short_text(response).await);
    }
    if is_html_by_header(&response) {
        return Err(page().into());
    }
    let (response, body) = buffered(response, ERROR_MAX).await?;
    if is_html(&body) {
        return Err(page().into());
    }
    let text = body.trim_ascii();
    if text.starts_with(b"{") || text.starts_with(b"<") {
        return Ok(response);
    }
    if !text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(InvalidResponse::new(
            "a token with a line break or another byte that cannot be sent",
        )
        .into());
    }
    let (parts, _) = response.into_parts();
    Ok(HttpResponse::from_parts(parts, body.slice_ref(text).into()))
}

fn page() -> InvalidResponse {
    InvalidResponse::new(
        "an HTML page (is the endpoint right, or is this network's login page in between?)",
    )
}

fn header<'a>(response: &'a HttpResponse, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn has(response: &HttpResponse, name: &str) -> Result<(), InvalidResponse> {
    match header(response, name) {
        Some(value) if !value.trim().is_empty() => Ok(()),
        _ => Err(InvalidResponse::new(format!("it has no {name} header"))),
    }
}

fn is_html_by_header(response: &HttpResponse) -> bool {
    header(response, "content-type").is_some_and(|kind| {
        let kind = kind.trim().to_ascii_lowercase();
        kind.starts_with("text/html") || kind.starts_with("application/xhtml")
    })
}

fn is_html(body: &[u8]) -> bool {
    let start = &body[..body.len().min(512)];
    let start = start.trim_ascii_start().to_ascii_lowercase();
    start.starts_with(b"<!doctype html") || start.starts_with(b"<html")
}

/// Checks that the response has an entity tag and a length, which every store sends with an object.
fn whole_object(response: &HttpResponse) -> Result<(), InvalidResponse> {
    has(response, "etag")?;
    has(response, "content-length")
}

/// Checks that the response has as many bytes as its range.
fn whole_range(response: &HttpResponse) -> Result<(), InvalidResponse> {
    let told = header(response, "content-range").unwrap_or_default();
    let range = || {
        let (range, _) = told.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        // Azurite sends 10-9 for an empty range.
        last.checked_add(1)?.checked_sub(first)
    };
    let length = header(response, "content-length").and_then(|len| len.parse::<u64>().ok());
    match range() {
        Some(range) if Some(range) == length => Ok(()),
        _ => Err(InvalidResponse::new(format!(
            "its length is not that of its range ({length:?}, {told})"
        ))),
    }
}

/// Checks that a 404 is from a store, which sends an error document or its own headers; others may be from a proxy.
async fn absent(response: HttpResponse, path: Option<&str>) -> Result<HttpResponse, HttpError> {
    let (response, body) = buffered(response, ERROR_MAX).await?;
    let text = String::from_utf8_lossy(&body);
    if !text.contains("<Code>") && !is_signed(&response) {
        let wrong = "it says 404 without an object store's error document";
        return Err(InvalidResponse::new(wrong).into());
    }
    let key = elements(&text, "<Key>", "</Key>").next();
    // A URL with an encoded key cannot be compared with the document.
    let path = path.filter(|path| !path.contains('%'));
    let differ = |key: &str, path: &str| !path.ends_with(&format!("/{}", unescaped(key)));
    match key.zip(path).is_some_and(|(key, path)| differ(key, path)) {
        true => Err(InvalidResponse::new("it says 404 of another object").into()),
        false => Ok(response),
    }
}

/// Tells whether the response has a header that only object stores send.
fn is_signed(response: &HttpResponse) -> bool {
    let own = [
        "etag",
        "x-amz-request-id",
        "x-amzn-requestid",
        "x-ms-request-id",
        "x-guploader-uploadid",
    ];
    own.iter()
        .any(|name| response.headers().contains_key(*name))
}

/// The longest document, in bytes: a page of a listing has at most 5,000 objects with keys of at most 1,024 bytes.
const DOCUMENT_MAX: usize = 32 << 20;

/// The longest body of an error or of a credential service, in bytes.
const ERROR_MAX: usize = 1 << 20;

/// The longest wait for the text of an error; the error counts without it.
const ERROR_WAIT: Duration = Duration::from_secs(2);

/// Reads the body, of at most `most` bytes. Memory is allocated as they come, whatever length the response announces.
async fn buffered(response: HttpResponse, most: usize) -> Result<(HttpResponse, Bytes), HttpError> {
    let (parts, body) = response.into_parts();
    let (mut chunks, mut read) = (body.bytes_stream(), BytesMut::new());
    while let Some(chunk) = chunks.next().await {
        // A truncated body makes the library repeat the request.
        let chunk = chunk.map_err(|error| HttpError::new(HttpErrorKind::Request, error))?;
        if chunk.len() > most - read.len() {
            return Err(InvalidResponse::new(format!("it has more than {most} bytes")).into());
        }
        read.extend_from_slice(&chunk);
    }
    let body = Bytes::from(read);
    Ok((HttpResponse::from_parts(parts, body.clone().into()), body))
}

/// Returns an error of the store with the beginning of its text, which the library would read to its end.
async fn with_short_text(response: HttpResponse) -> HttpResponse {
    let (parts, body) = response.into_parts();
    let (mut chunks, mut read) = (body.bytes_stream(), BytesMut::new());
    let reading = async {
        while read.len() < ERROR_MAX
            && let Some(Ok(chunk)) = chunks.next().await
        {
            let len = chunk.len().min(ERROR_MAX - read.len());
            read.extend_from_slice(&chunk[..len]);
        }
    };
    if tokio::time::timeout(ERROR_WAIT, reading).await.is_err() {
        tracing::debug!(status = %parts.status, "the text of an error does not end");
    }
    let text = String::from_utf8_lossy(&read).into_owned();
    HttpResponse::from_parts(parts, text.into())
}

/// Makes the error that the library does not repeat: the next attempt would read as much again.
fn endless(counted: Result<(), String>) -> Result<(), HttpError> {
    counted.map_err(|why| HttpError::new(HttpErrorKind::Unknown, InvalidResponse(why)))
}

/// Checks that the body is a complete document; the library's parser takes any other body for an empty listing.
fn document(body: &[u8], root: &str) -> Result<(), InvalidResponse> {
    let wrong = || InvalidResponse::new(format!("not a {root} document"));
    let text = std::str::from_utf8(body).map_err(|_| wrong())?;
    let mut text = text.trim_start_matches('\u{feff}').trim();
    if let Some(rest) = text.strip_prefix("<?xml") {
        text = rest.split_once("?>").ok_or_else(wrong)?.1.trim_start();
    }
    let opens = |name: &str| {
        text.strip_prefix('<')
            .and_then(|text| text.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with(['>', '/', ' ', '\t', '\r', '\n']))
    };
    let ends = |name: &str| {
        let empty = text.ends_with("/>") && !text[1..].contains('<');
        empty || text.ends_with(&format!("</{name}>"))
    };
    // S3 may send 200 and then an error document, which the library handles.
    match [root, "Error"].iter().any(|name| opens(name) && ends(name)) {
        true => Ok(()),
        false => Err(wrong()),
    }
}

/// Checks that a listing is of the requested prefix and has only objects below it.
fn of_prefix(body: &[u8], asked: Option<&str>) -> Result<(), InvalidResponse> {
    let text = String::from_utf8_lossy(body);
    let asked = asked.unwrap_or_default();
    // Encoded keys are not compared.
    let plain = |told: &&str| !told.contains("&#") && !told.contains('%');
    let entries = ["<Contents>", "<CommonPrefixes>", "<Blobs>"];
    let end = entries.iter().filter_map(|entry| text.find(entry)).min();
    let head = &text[..end.unwrap_or(text.len())];
    let told = elements(head, "<Prefix>", "</Prefix>").find(plain);
    let mut keys = elements(&text, "<Key>", "</Key>").filter(plain);
    match told.is_none_or(|told| unescaped(told) == asked)
        && keys.all(|key| unescaped(key).starts_with(asked))
    {
        true => Ok(()),
        false => Err(InvalidResponse::new("it lists another prefix")),
    }
}

/// The texts between each `open` and its `close`.
fn elements<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    let rest = text.split(open).skip(1);
    rest.filter_map(move |rest| Some(rest.split_once(close)?.0))
}

fn unescaped(text: &str) -> String {
    let entities = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    entities.iter().fold(text.to_owned(), |text, (name, sign)| {
        text.replace(name, sign)
    })
}

/// Judges a response: a byte says to what, three lines are headers, the rest is the body. Tells whether it is passed on.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz_response(bytes: &[u8]) -> bool {
    use futures::FutureExt;
    let Some((choice, rest)) = bytes.split_first() else {
        return false;
    };
    let path = "/bucket/main/log/1".to_owned();
    let prefix = Some("main/log/".to_owned());
    let asked = match choice % 5 {
        0 => RequestClass::Object { path, range: true },
        1 => RequestClass::Object { path, range: false },
        2 => RequestClass::Listing {
            root: "ListBucketResult",
            prefix,
        },
        3 => RequestClass::Document {
            root: "DeleteResult",
        },
        _ => RequestClass::Delete,
    };
    let mut parts = rest.splitn(4, |byte| *byte == b'\n');
    let mut headers = Vec::new();
    for name in ["content-range", "content-length", "content-type"] {
        let text = std::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default();
        headers.extend(text.parse().ok().map(|value| (name, value)));
    }
    let body = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let mut response = HttpResponse::new(body.into());
    let status = [200_u16, 206, 404, 403][usize::from(choice / 5 % 4)];
    if let Ok(status) = status.try_into() {
        *response.status_mut() = status;
    }
    if let Ok(tag) = "\"1\"".parse() {
        response.headers_mut().insert("etag", tag);
    }
    for (name, value) in headers {
        response.headers_mut().insert(name, value);
    }
    // Nothing of it waits: the body is there.
    let passed = from_store(&asked, response).now_or_never();
    passed.is_some_and(|passed| passed.is_ok())
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
