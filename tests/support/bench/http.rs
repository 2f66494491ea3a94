//! The part of HTTP/1.1 that S3 clients use: requests with a content length, persistent connections.

use bytes::Bytes;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use url::form_urlencoded;

/// A complete request.
#[derive(Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The decoded path without its first slash.
    pub(crate) path: String,
    /// The decoded query.
    pub(crate) query: HashMap<String, String>,
    /// The headers, names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Bytes,
}

impl Request {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// A value of the query; empty if it is not there.
    pub(crate) fn query(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether the query has a name, with or without a value.
    pub(crate) fn asks(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }
}

/// An answer; its body may be pieces of stored objects.
#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<Bytes>,
}

impl Answer {
    /// An answer without a body.
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// The same with one more header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it; an answer to HEAD has the length of its body and not the body.
    pub(crate) fn send(&self, mut to: impl Write, is_head: bool) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} -\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !matches!(self.status, 204 | 304) {
            let length: usize = self.body.iter().map(Bytes::len).sum();
            head += &format!("Content-Length: {length}\r\n");
        }
        to.write_all((head + "\r\n").as_bytes())?;
        if !is_head {
            for piece in &self.body {
                to.write_all(piece)?;
            }
        }
        Ok(())
    }
}

/// Reads the next request of a connection; `None` at its end.
///
/// # Errors
/// Those of the connection, and `InvalidData` for what is not a request with a content length.
pub(crate) fn read(from: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let Some(first) = line(from)? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(invalid("no request line"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: decode(path.trim_start_matches('/')),
        query: form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        ..Request::default()
    };
    while let Some(line) = line(from)?.filter(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':') {
            let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
            request.headers.insert(name, value);
        }
    }
    if request.header("transfer-encoding").is_some() {
        return Err(invalid("a request without a content length"));
    }
    if request.header("expect").is_some() {
        let mut to = *from.get_ref();
        to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let length = request.header("content-length").unwrap_or("0").parse();
    let length = length.map_err(|_| invalid("a content length that is no number"))?;
    let mut body = Vec::with_capacity(length);
    from.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let signs_chunks = request
        .header("x-amz-content-sha256")
        .is_some_and(|kind| kind.starts_with("STREAMING-"));
    request.body = if signs_chunks { unchunk(&body)? } else { body }.into();
    Ok(Some(request))
}

/// Decodes a body in the encoding `aws-chunked`, in which each chunk has a signature.
fn unchunk(mut body: &[u8]) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(body.len());
    loop {
        let head = line(&mut body)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = head.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid("a bad chunk size"))?;
        if size == 0 {
            return Ok(content);
        }
        let chunk = body.get(..size).ok_or(io::ErrorKind::UnexpectedEof)?;
        content.extend_from_slice(chunk);
        body = body.get(size + 2..).ok_or_else(|| invalid("a cut chunk"))?;
    }
}

/// A line without its end; none at the end of the stream.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let count = from.read_line(&mut line)?;
    Ok((count > 0).then(|| line.trim_end().to_owned()))
}

/// Decodes percent-encoded text.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| *first == b'%');
        let value = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = &after[if value.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
