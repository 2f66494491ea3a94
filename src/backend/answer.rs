//! Answers over HTTP that no object store can have given: a captive portal's page, a misdirected proxy's, a mangled one.
//!
//! Such an answer becomes a failed request, which the library sends again, so that no room above meets it: an HTML page must
//! not read as an empty listing, nor a portal's 200 as a stored object.
//! Invariant: nothing is refused here that S3, Google Cloud Storage or Azure may send. What an object holds is judged where
//! its format is known.

use crate::sync::Arc;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use std::borrow::Cow;
use url::form_urlencoded;

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this is no answer of an object store: {0}")]
pub(super) struct InvalidResponse(String);

impl InvalidResponse {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Of a kind that the library sends again, whatever was asked: a conditional write that is sent twice is read back above.
impl From<InvalidResponse> for HttpError {
    fn from(wrong: InvalidResponse) -> Self {
        Self::new(HttpErrorKind::Request, wrong)
    }
}

/// Whose answers a client is to expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// The object store.
    Store,
    /// A service that hands out credentials.
    Credentials,
}

/// Makes clients whose answers are looked at.
#[derive(Debug)]
pub(super) struct Connector {
    inner: Arc<dyn HttpConnector>,
    peer: Peer,
}

impl Connector {
    /// Connects by the network.
    pub(super) fn to(peer: Peer) -> Self {
        Self::over(Arc::new(ReqwestConnector::default()), peer)
    }

    /// Connects by `inner`.
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
            // What is no HTTP, and redirections in a circle: the library does not send again what it has no name for.
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

/// What was asked for, as far as the answers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RequestClass {
    /// Bytes of an object.
    Object { path: String, range: bool },
    /// An object's size and date.
    Head,
    /// Objects below a prefix; `root` is the name of the document that lists them.
    Listing {
        root: &'static str,
        prefix: Option<String>,
    },
    /// To store bytes under a key, or a part of them.
    Store,
    /// Something else that is answered by a document.
    Document { root: &'static str },
    /// To delete an object.
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
            // Azure's block lists and blocks have entity tags only in part; copies answer with a document.
            "PUT" if value("comp").is_some() => Self::Other,
            "PUT" if request.headers().contains_key("x-amz-copy-source") => Self::Other,
            "PUT" => Self::Store,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// Passes on what a store may have answered.
async fn from_store(
    asked: &RequestClass,
    response: HttpResponse,
) -> Result<HttpResponse, HttpError> {
    let status = response.status().as_u16();
    // Some servers call every answer without a type HTML; those have marks of a store's besides.
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
            let (response, body) = buffered(response).await?;
            document(&body, root)?;
            of_prefix(&body, prefix.as_deref())?;
            Ok(response)
        }
        (RequestClass::Document { root }, 200) => {
            let (response, body) = buffered(response).await?;
            document(&body, root)?;
            Ok(response)
        }
        (RequestClass::Object { path, .. }, 404) => absent(response, Some(path)).await,
        // Stores say 202 or 204.
        (RequestClass::Delete, 200) if !is_signed(&response) => {
            Err(InvalidResponse::new("it says 200 to a deletion").into())
        }
        (RequestClass::Head, _) | (_, 500..) => Ok(response),
        (_, 404) => absent(response, None).await,
        (_, 400..=499) => {
            let (response, body) = buffered(response).await?;
            match is_html(&body) {
                true => Err(page().into()),
                false => Ok(response),
            }
        }
        _ => Ok(response),
    }
}

/// Passes on what a service for credentials may have answered. A token is sent back in a header, so that one which cannot
/// be is refused here: the library would panic over it.
async fn from_credentials(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    if !response.status().is_success() {
        return Ok(response);
    }
    if is_html_by_header(&response) {
        return Err(page().into());
    }
    let (response, body) = buffered(response).await?;
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

/// Every store names an object's state by an entity tag and its length.
fn whole_object(response: &HttpResponse) -> Result<(), InvalidResponse> {
    has(response, "etag")?;
    has(response, "content-length")
}

/// As many bytes as the range has.
fn whole_range(response: &HttpResponse) -> Result<(), InvalidResponse> {
    let told = header(response, "content-range").unwrap_or_default();
    let range = || {
        let (range, _) = told.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        // Azurite says 10-9 of nothing.
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

/// That an object is not there is said by a store in its own words; anything else may be said by what stands in between.
async fn absent(response: HttpResponse, path: Option<&str>) -> Result<HttpResponse, HttpError> {
    let (response, body) = buffered(response).await?;
    let text = String::from_utf8_lossy(&body);
    if !text.contains("<Code>") && !is_signed(&response) {
        let wrong = "it says 404 without an object store's error document";
        return Err(InvalidResponse::new(wrong).into());
    }
    let key = elements(&text, "<Key>", "</Key>").next();
    // An address whose key is written otherwise than in the document is left alone.
    let path = path.filter(|path| !path.contains('%'));
    let differ = |key: &str, path: &str| !path.ends_with(&format!("/{}", unescaped(key)));
    match key.zip(path).is_some_and(|(key, path)| differ(key, path)) {
        true => Err(InvalidResponse::new("it says 404 of another object").into()),
        false => Ok(response),
    }
}

/// Whether it carries a header that only an object store's answers have.
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

/// Reads the body, which is small.
async fn buffered(response: HttpResponse) -> Result<(HttpResponse, Bytes), HttpError> {
    let (parts, body) = response.into_parts();
    // A body that breaks off is asked for again, as an answer that never came.
    let again = |error: HttpError| HttpError::new(HttpErrorKind::Request, error);
    let body = body.bytes().await.map_err(again)?;
    Ok((HttpResponse::from_parts(parts, body.clone().into()), body))
}

/// A document that is there to its end. The library's reader takes any other one for a listing of nothing.
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
    // S3 may say 200 and then fail; the library knows that.
    match [root, "Error"].iter().any(|name| opens(name) && ends(name)) {
        true => Ok(()),
        false => Err(wrong()),
    }
}

/// A listing of what was asked for: it says so, and has only such objects.
fn of_prefix(body: &[u8], asked: Option<&str>) -> Result<(), InvalidResponse> {
    let text = String::from_utf8_lossy(body);
    let asked = asked.unwrap_or_default();
    // What may be encoded otherwise than this program reads is left to the library.
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

/// What stands between each `open` and its `close`.
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

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
