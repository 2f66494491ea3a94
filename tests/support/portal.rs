//! A proxy in front of an S3 server that answers instead of the server on demand, as a captive portal or a wrong gateway does.
//!
//! Invariant: each connection carries one request. While no wrong answer is set, answers pass unchanged except for that.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A kind of wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrongAnswer {
    /// A login page with status 200; the server does not get the request.
    Page,
    /// The same page without a content type.
    PlainPage,
    /// Status 200 with an empty body; the server does not get the request.
    Empty,
    /// A redirection to the same address, for ever.
    RedirectLoop,
    /// A redirection to a login page.
    Redirect,
    /// A page with status 404.
    PageNotFound,
    /// Status 404 with an empty body.
    EmptyNotFound,
    /// Bytes that are not HTTP.
    NotHttp,
    /// The server's answer with half its body and a matching length.
    Cut,
    /// The server's answer, cut off in the middle of the body.
    BrokenOff,
    /// The server's answer with bytes appended and a matching length.
    TooLong,
    /// The answer to the previous read or listing.
    Previous,
    /// The server's answer without its entity tag.
    NoTag,
    /// The server's answer without Last-Modified.
    NoModified,
    /// The server's answer without Date.
    NoDate,
}

impl WrongAnswer {
    /// Every kind.
    pub(crate) const ALL: [Self; 15] = [
        Self::Page,
        Self::PlainPage,
        Self::Empty,
        Self::RedirectLoop,
        Self::Redirect,
        Self::PageNotFound,
        Self::EmptyNotFound,
        Self::NotHttp,
        Self::Cut,
        Self::BrokenOff,
        Self::TooLong,
        Self::Previous,
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
    wrong: Mutex<Option<WrongAnswer>>,
    wrong_answers: AtomicUsize,
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
    /// Listens on a port of its own in front of `upstream`.
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

    /// Sets the wrong answer to every request from now on; `None` passes the server's answers on again.
    pub(crate) fn answer_with(&self, wrong: Option<WrongAnswer>) {
        *lock(&self.shared.wrong) = wrong;
    }

    /// How many wrong answers were sent.
    pub(crate) fn wrong_answers(&self) -> usize {
        self.shared.wrong_answers.load(Ordering::Relaxed)
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // A connection wakes the listener, which then reads the stop flag.
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
    let wrong = *lock(&shared.wrong);
    if wrong.is_some() {
        shared.wrong_answers.fetch_add(1, Ordering::Relaxed);
    }
    let bytes = match wrong.and_then(|wrong| replacement(wrong, &request)) {
        Some(bytes) => bytes,
        None => match forwarded(&request, upstream) {
            Some(answer) => corrupted(answer, wrong, &request, shared),
            None => return,
        },
    };
    client.write_all(&bytes).ok();
    client.shutdown(Shutdown::Both).ok();
}

/// A wrong answer that is sent without asking the server.
fn replacement(wrong: WrongAnswer, request: &Answer) -> Option<Vec<u8>> {
    let made = |status: &str, headers: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
    };
    let target = target(request);
    let html = "Content-Type: text/html\r\n";
    if target.starts_with("/sign-in") {
        return Some(made("200 OK", html, PAGE));
    }
    match wrong {
        WrongAnswer::Page => Some(made("200 OK", html, PAGE)),
        WrongAnswer::PlainPage => Some(made("200 OK", "", PAGE)),
        WrongAnswer::Empty => Some(made("200 OK", "", "")),
        WrongAnswer::RedirectLoop => Some(made(
            "307 Temporary Redirect",
            &format!("Location: {target}\r\n"),
            "",
        )),
        WrongAnswer::Redirect => Some(made("302 Found", "Location: /sign-in\r\n", "")),
        WrongAnswer::PageNotFound => Some(made("404 Not Found", html, PAGE)),
        // To HEAD an empty 404 is the right answer for a missing object, not a wrong one.
        WrongAnswer::EmptyNotFound if !request.head[0].starts_with("HEAD") => {
            Some(made("404 Not Found", "", ""))
        }
        WrongAnswer::NotHttp => Some(b"220 mail ready\r\n\r\n".to_vec()),
        _ => None,
    }
}

/// The target of a request: path and query.
fn target(request: &Answer) -> String {
    let mut words = request.head[0].split(' ');
    words.nth(1).unwrap_or_default().to_owned()
}

/// The server's answer with the fault of `wrong`.
fn corrupted(
    mut answer: Answer,
    wrong: Option<WrongAnswer>,
    request: &Answer,
    shared: &Shared,
) -> Vec<u8> {
    let get = request.head[0].starts_with("GET");
    let target = target(request);
    match wrong {
        None if get => {
            let mut seen = lock(&shared.seen);
            seen.push((target, answer.clone()));
            let excess = seen.len().saturating_sub(50);
            seen.drain(..excess);
        }
        Some(WrongAnswer::Cut) => answer.body.truncate(answer.body.len() / 2),
        Some(WrongAnswer::TooLong) if !answer.body.is_empty() => {
            answer.body.extend_from_slice(b"and more");
        }
        Some(WrongAnswer::Previous) if get => {
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
        Some(WrongAnswer::NoTag) => without(&mut answer, "etag"),
        Some(WrongAnswer::NoModified) => without(&mut answer, "last-modified"),
        Some(WrongAnswer::NoDate) => without(&mut answer, "date"),
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
    let sent = match wrong {
        Some(WrongAnswer::BrokenOff) => answer.body.len() / 2,
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

/// Forwards the request to the server and returns the answer.
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
