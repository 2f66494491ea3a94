//! A proxy before an S3 server that answers in its place when told to, as a captive portal or a misdirected gateway does.
//!
//! Invariant: one request per connection; while it tells the truth, answers pass unchanged but for that.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A kind of wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// A login page, status 200; the request does not arrive.
    Page,
    /// The same without a type.
    PlainPage,
    /// Status 200 and nothing; the request does not arrive.
    Empty,
    /// A redirection to the same address, for ever.
    Circle,
    /// A redirection to a login page.
    Elsewhere,
    /// A page that says 404.
    PageNotFound,
    /// 404 and nothing.
    BareNotFound,
    /// What is not HTTP.
    Noise,
    /// The real answer with half its body, and a length to match.
    Cut,
    /// The real answer, broken off in the middle.
    BrokenOff,
    /// The real answer with more behind it, and a length to match.
    Long,
    /// The answer to the read or listing before.
    Other,
    /// The real answer without its entity tag.
    NoTag,
    /// The real answer without Last-Modified.
    NoModified,
    /// The real answer without Date.
    NoDate,
}

impl Lie {
    /// Every kind.
    pub(crate) const ALL: [Self; 15] = [
        Self::Page,
        Self::PlainPage,
        Self::Empty,
        Self::Circle,
        Self::Elsewhere,
        Self::PageNotFound,
        Self::BareNotFound,
        Self::Noise,
        Self::Cut,
        Self::BrokenOff,
        Self::Long,
        Self::Other,
        Self::NoTag,
        Self::NoModified,
        Self::NoDate,
    ];
}

const PAGE: &str =
    "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Welcome</body></html>";

/// The proxy; stops listening when dropped.
pub(crate) struct Portal {
    /// Where it listens.
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lie: Mutex<Option<Lie>>,
    told: AtomicUsize,
    /// The last answers to reads of objects and to listings, with their targets.
    seen: Mutex<Vec<(String, Answer)>>,
    stop: AtomicBool,
}

/// An answer, cut into its head and its body.
#[derive(Clone)]
struct Answer {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Portal {
    /// Listens on a port of its own, before `upstream`.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if its.stop.load(Ordering::Relaxed) {
                    return;
                }
                let its = Arc::clone(&its);
                thread::spawn(move || serve(&client, upstream, &its));
            }
        });
        Self { address, shared }
    }

    /// Where it listens, as an endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From here on every answer is this lie, or the truth again.
    pub(crate) fn lie(&self, lie: Option<Lie>) {
        *lock(&self.shared.lie) = lie;
    }

    /// How many answers were lies.
    pub(crate) fn told(&self) -> usize {
        self.shared.told.load(Ordering::Relaxed)
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // One connection of our own wakes the listener, which then sees that it is to stop.
        TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one request.
fn serve(mut client: &TcpStream, upstream: SocketAddr, shared: &Shared) {
    client.set_nodelay(true).ok();
    let Some(request) = read(client, true) else {
        return;
    };
    let lie = *lock(&shared.lie);
    if lie.is_some() {
        shared.told.fetch_add(1, Ordering::Relaxed);
    }
    let bytes = match lie.and_then(|lie| instead(lie, &request)) {
        Some(bytes) => bytes,
        None => match forwarded(&request, upstream) {
            Some(answer) => spoilt(answer, lie, &request, shared),
            None => return,
        },
    };
    client.write_all(&bytes).ok();
    client.shutdown(Shutdown::Both).ok();
}

/// A lie for which no request reaches the server.
fn instead(lie: Lie, request: &Answer) -> Option<Vec<u8>> {
    let made = |status: &str, headers: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
    };
    let target = target(request);
    let html = "Content-Type: text/html\r\n";
    if target.starts_with("/sign-in") {
        return Some(made("200 OK", html, PAGE));
    }
    match lie {
        Lie::Page => Some(made("200 OK", html, PAGE)),
        Lie::PlainPage => Some(made("200 OK", "", PAGE)),
        Lie::Empty => Some(made("200 OK", "", "")),
        Lie::Circle => Some(made(
            "307 Temporary Redirect",
            &format!("Location: {target}\r\n"),
            "",
        )),
        Lie::Elsewhere => Some(made("302 Found", "Location: /sign-in\r\n", "")),
        Lie::PageNotFound => Some(made("404 Not Found", html, PAGE)),
        // That an object is not there, HEAD says without a body.
        Lie::BareNotFound if !request.head[0].starts_with("HEAD") => {
            Some(made("404 Not Found", "", ""))
        }
        Lie::Noise => Some(b"220 mail ready\r\n\r\n".to_vec()),
        _ => None,
    }
}

/// The target of a request: path and query.
fn target(request: &Answer) -> String {
    let mut words = request.head[0].split(' ');
    words.nth(1).unwrap_or_default().to_owned()
}

/// The real answer, made into a lie.
fn spoilt(mut answer: Answer, lie: Option<Lie>, request: &Answer, shared: &Shared) -> Vec<u8> {
    let get = request.head[0].starts_with("GET");
    let target = target(request);
    match lie {
        None if get => {
            let mut seen = lock(&shared.seen);
            seen.push((target, answer.clone()));
            let excess = seen.len().saturating_sub(50);
            seen.drain(..excess);
        }
        Some(Lie::Cut) => answer.body.truncate(answer.body.len() / 2),
        Some(Lie::Long) if !answer.body.is_empty() => answer.body.extend_from_slice(b"and more"),
        Some(Lie::Other) if get => {
            let listing = target.contains("list-type");
            let seen = lock(&shared.seen);
            let other = seen
                .iter()
                .rev()
                .find(|(old, _)| *old != target && old.contains("list-type") == listing);
            if let Some((_, other)) = other {
                answer = other.clone();
            }
        }
        Some(Lie::NoTag) => without(&mut answer, "etag"),
        Some(Lie::NoModified) => without(&mut answer, "last-modified"),
        Some(Lie::NoDate) => without(&mut answer, "date"),
        _ => {}
    }
    let head_only = request.head[0].starts_with("HEAD");
    if !head_only && !answer.head[0].contains(" 204 ") && !answer.head[0].contains(" 304 ") {
        without(&mut answer, "content-length");
        answer
            .head
            .push(format!("Content-Length: {}", answer.body.len()));
    }
    without(&mut answer, "connection");
    answer.head.push("Connection: close".to_owned());
    let mut bytes = answer.head.join("\r\n").into_bytes();
    bytes.extend_from_slice(b"\r\n\r\n");
    let sent = match lie {
        Some(Lie::BrokenOff) => answer.body.len() / 2,
        _ => answer.body.len(),
    };
    bytes.extend_from_slice(&answer.body[..sent]);
    bytes
}

fn without(answer: &mut Answer, name: &str) {
    answer.head.retain(|line| {
        line.split_once(':')
            .is_none_or(|(key, _)| !key.eq_ignore_ascii_case(name))
    });
}

/// Asks the server.
fn forwarded(request: &Answer, upstream: SocketAddr) -> Option<Answer> {
    let mut server = TcpStream::connect(upstream).ok()?;
    let mut request = request.clone();
    without(&mut request, "connection");
    request.head.push("Connection: close".to_owned());
    let mut bytes = request.head.join("\r\n").into_bytes();
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(&request.body);
    server.write_all(&bytes).ok()?;
    let has_body = !request.head[0].starts_with("HEAD");
    read(&server, has_body)
}

/// Reads a request or an answer.
fn read(mut stream: &TcpStream, has_body: bool) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let head: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
    let length = head.iter().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        let length = value.trim().parse::<usize>().ok();
        length.filter(|_| key.eq_ignore_ascii_case("content-length"))
    });
    let mut body = bytes.split_off(end + 4);
    let is_answer = head[0].starts_with("HTTP/");
    while has_body && length.map_or(is_answer, |length| body.len() < length) {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => body.extend_from_slice(&buffer[..count]),
            _ => break,
        }
    }
    Some(Answer { head, body })
}
