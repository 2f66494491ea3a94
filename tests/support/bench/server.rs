//! An S3 server in memory, correct where mounts care. It checks no signatures and no checksums.

use bytes::Bytes;
use jiff::Timestamp;
use std::io::BufReader;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::http::{self, Answer, Request, decode};
use super::listing::{escape, list, texts};
use super::objects::{Buckets, Object, Objects, Upload, new_etag, range, unique};

/// The format of dates in headers.
const HTTP_DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";

/// Headers of a PUT that come back with the object, beside those of the user.
const KEPT: [&str; 5] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
];

/// Listens on a port of its own until the process ends; returns the address.
///
/// # Errors
/// Those of listen(2).
pub(crate) fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = Arc::new(Server::default());
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let server = Arc::clone(&server);
            thread::spawn(move || server.serve(&connection));
        }
    });
    Ok(address)
}

/// An answer, or the error that S3 gives: status and code.
type Outcome = Result<Answer, (u16, &'static str)>;

#[derive(Default)]
struct Server(Mutex<Buckets>);

impl Server {
    /// Serves one connection to its end, which an invalid request causes too.
    fn serve(&self, connection: &TcpStream) {
        connection.set_nodelay(true).ok();
        let mut reader = BufReader::with_capacity(1 << 18, connection);
        while let Ok(Some(request)) = http::read(&mut reader) {
            let answer = self.answer(&request).unwrap_or_else(|(status, code)| {
                xml(&format!("<Error><Code>{code}</Code></Error>"), status)
            });
            let answer = answer
                .with("Date", &Timestamp::now().strftime(HTTP_DATE).to_string())
                .with("x-amz-request-id", "1");
            if answer.send(connection, request.method == "HEAD").is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> Outcome {
        let (bucket, key) = request.path.split_once('/').unwrap_or((&request.path, ""));
        match (request.method.as_str(), key.is_empty()) {
            ("GET", true) => Ok(self.list(bucket, request)),
            ("PUT" | "HEAD", true) => Ok(Answer::new(200)),
            ("POST", true) if request.asks("delete") => Ok(self.delete_many(bucket, request)),
            ("GET" | "HEAD", false) => self.get(bucket, key, request),
            ("PUT", false) if request.asks("partNumber") => self.put_part(request),
            ("PUT", false) => self.put(bucket, key, request),
            ("POST", false) if request.asks("uploads") => Ok(self.begin_upload(request)),
            ("POST", false) if request.asks("uploadId") => self.end_upload(bucket, key, request),
            ("DELETE", false) if request.asks("uploadId") => {
                self.lock().uploads.remove(request.query("uploadId"));
                Ok(Answer::new(204))
            }
            ("DELETE", false) => {
                self.lock().bucket(bucket).remove(key);
                Ok(Answer::new(204))
            }
            _ => Err((501, "NotImplemented")),
        }
    }

    fn list(&self, bucket: &str, request: &Request) -> Answer {
        xml(&list(self.lock().bucket(bucket), request), 200)
    }

    fn delete_many(&self, bucket: &str, request: &Request) -> Answer {
        let mut guard = self.lock();
        let mut deleted = String::new();
        for key in texts(&String::from_utf8_lossy(&request.body), "Key") {
            guard.bucket(bucket).remove(&key);
            deleted += &format!("<Deleted><Key>{}</Key></Deleted>", escape(&key));
        }
        xml(&format!("<DeleteResult>{deleted}</DeleteResult>"), 200)
    }

    fn get(&self, bucket: &str, key: &str, request: &Request) -> Outcome {
        let object = self.lock().bucket(bucket).get(key).cloned();
        let object = object.ok_or((404, "NoSuchKey"))?;
        let is_it = |etags: &str| etags == "*" || etags.contains(&object.etag);
        if request
            .header("if-match")
            .is_some_and(|etags| !is_it(etags))
        {
            return Err((412, "PreconditionFailed"));
        }
        if request.header("if-none-match").is_some_and(is_it) {
            return Ok(Answer::new(304).with("ETag", &object.etag));
        }
        let size = object.size();
        let mut answer = Answer::new(200);
        answer.body.clone_from(&object.pieces);
        if let Some(header) = request.header("range") {
            let (start, length) = range(header, size).ok_or((416, "InvalidRange"))?;
            let end = start + length - 1;
            answer = Answer::new(206).with("Content-Range", &format!("bytes {start}-{end}/{size}"));
            answer.body = object.slice(start, length);
        }
        answer.headers.extend(object.headers);
        let modified = object.modified.strftime(HTTP_DATE).to_string();
        Ok(answer
            .with("ETag", &object.etag)
            .with("Last-Modified", &modified)
            .with("Accept-Ranges", "bytes"))
    }

    fn put(&self, bucket: &str, key: &str, request: &Request) -> Outcome {
        let mut guard = self.lock();
        let copied = guard.source(request)?;
        let is_copy = copied.is_some();
        let object = match copied {
            Some(from) if request.header("x-amz-metadata-directive") != Some("REPLACE") => {
                Object::new(from.pieces, from.headers)
            }
            Some(from) => Object::new(from.pieces, kept(request)),
            None => Object::new(vec![request.body.clone()], kept(request)),
        };
        let objects = guard.bucket(bucket);
        check(objects.get(key), request)?;
        let (etag, modified) = (object.etag.clone(), object.modified);
        objects.insert(key.to_owned(), object);
        Ok(stored("CopyObjectResult", is_copy, &etag, modified))
    }

    fn begin_upload(&self, request: &Request) -> Answer {
        let id = format!("upload-{}", unique());
        let text = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        let headers = kept(request);
        let parts = Default::default();
        self.lock().uploads.insert(id, Upload { headers, parts });
        xml(&text, 200)
    }

    fn put_part(&self, request: &Request) -> Outcome {
        let number = request.query("partNumber").parse();
        let number = number.map_err(|_| (400, "InvalidArgument"))?;
        let mut guard = self.lock();
        let copied = guard.source(request)?;
        let is_copy = copied.is_some();
        let pieces = match (copied, request.header("x-amz-copy-source-range")) {
            (Some(from), Some(header)) => {
                let (start, length) = range(header, from.size()).ok_or((416, "InvalidRange"))?;
                from.slice(start, length)
            }
            (Some(from), None) => from.pieces,
            (None, _) => vec![request.body.clone()],
        };
        let etag = new_etag();
        let upload = guard.uploads.get_mut(request.query("uploadId"));
        let parts = &mut upload.ok_or((404, "NoSuchUpload"))?.parts;
        parts.insert(number, (pieces, etag.clone()));
        Ok(stored("CopyPartResult", is_copy, &etag, Timestamp::now()))
    }

    fn end_upload(&self, bucket: &str, key: &str, request: &Request) -> Outcome {
        let mut guard = self.lock();
        check(guard.bucket(bucket).get(key), request)?;
        let id = request.query("uploadId");
        let upload = guard.uploads.get(id).ok_or((404, "NoSuchUpload"))?;
        let body = String::from_utf8_lossy(&request.body);
        let mut pieces: Vec<Bytes> = Vec::new();
        for (number, etag) in texts(&body, "PartNumber").iter().zip(texts(&body, "ETag")) {
            let part = number.parse().ok().and_then(|n| upload.parts.get(&n));
            let (part, its_etag) = part.ok_or((400, "InvalidPart"))?;
            if etag.trim_matches('"') != its_etag.trim_matches('"') {
                return Err((400, "InvalidPart"));
            }
            pieces.extend_from_slice(part);
        }
        let object = Object::new(pieces, upload.headers.clone());
        let text = format!(
            "<CompleteMultipartUploadResult><Key>{}</Key><ETag>{}</ETag></CompleteMultipartUploadResult>",
            escape(key),
            escape(&object.etag)
        );
        guard.uploads.remove(id);
        guard.bucket(bucket).insert(key.to_owned(), object);
        Ok(xml(&text, 200))
    }
}

impl Buckets {
    fn bucket(&mut self, name: &str) -> &mut Objects {
        self.buckets.entry(name.to_owned()).or_default()
    }

    /// The object that a request is to copy, if it is to copy one.
    fn source(&self, request: &Request) -> Result<Option<Object>, (u16, &'static str)> {
        let Some(source) = request.header("x-amz-copy-source") else {
            return Ok(None);
        };
        let source = decode(source.trim_start_matches('/'));
        let (bucket, key) = source.split_once('/').ok_or((400, "InvalidArgument"))?;
        let found = self.buckets.get(bucket).and_then(|keys| keys.get(key));
        found.cloned().map(Some).ok_or((404, "NoSuchKey"))
    }
}

/// Whether the conditions of a PUT hold where `old` is now.
fn check(old: Option<&Object>, request: &Request) -> Result<(), (u16, &'static str)> {
    if request.header("if-none-match") == Some("*") && old.is_some() {
        return Err((412, "PreconditionFailed"));
    }
    match (request.header("if-match"), old) {
        (Some(_), None) => Err((404, "NoSuchKey")),
        (Some(etag), Some(old)) if etag != old.etag => Err((412, "PreconditionFailed")),
        _ => Ok(()),
    }
}

/// The headers that an object keeps.
fn kept(request: &Request) -> Vec<(String, String)> {
    let headers = request.headers.iter();
    headers
        .filter(|(name, _)| name.starts_with("x-amz-meta-") || KEPT.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The answer to a PUT: a copy's ETag is in the body.
fn stored(name: &str, is_copy: bool, etag: &str, modified: Timestamp) -> Answer {
    if !is_copy {
        return Answer::new(200).with("ETag", etag);
    }
    let etag = escape(etag);
    xml(
        &format!("<{name}><LastModified>{modified:.3}</LastModified><ETag>{etag}</ETag></{name}>"),
        200,
    )
}

fn xml(text: &str, status: u16) -> Answer {
    let mut answer = Answer::new(status).with("Content-Type", "application/xml");
    let head = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
    answer.body.push(format!("{head}\n{text}").into());
    answer
}
