//! A TCP proxy that counts and delays HTTP/1.1 requests.
//!
//! Invariant: bytes pass unchanged; a request is counted when its head has passed, its body bytes as they pass.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// One request that passed.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `PUT`, `GET`, ...
    pub(crate) method: String,
    /// The target as sent: path and query.
    pub(crate) target: String,
    /// Body bytes sent by the client.
    pub(crate) sent: u64,
    /// When its head had passed.
    pub(crate) at: Instant,
}

impl Request {
    /// Whether it uploads content: a PUT below `/data/`, parts of a multipart upload included.
    pub(crate) fn is_data_put(&self) -> bool {
        self.method == "PUT" && self.target.contains("/data/")
    }
}

/// The answer of a failing server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    /// The methods that fail; all, if the list is empty.
    pub(crate) methods: &'static [&'static str],
    /// Status and reason, `503 Slow Down`.
    pub(crate) status: &'static str,
    /// The code in the body of the answer.
    pub(crate) code: &'static str,
}

impl Failure {
    /// The whole answer to a request; one to HEAD has no body.
    fn answer(self, method: &str) -> Option<String> {
        if !self.methods.is_empty() && !self.methods.contains(&method) {
            return None;
        }
        let Self { status, code, .. } = self;
        let body =
            format!("<Error><Code>{code}</Code><Message>said by the proxy</Message></Error>");
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Some(match method {
            "HEAD" => head,
            _ => head + &body,
        })
    }
}

/// The proxy; stops listening when dropped.
pub(crate) struct Proxy {
    /// Where it listens.
    address: SocketAddr,
    /// What passed.
    log: Arc<Log>,
    /// Set when no further connection is accepted.
    stop: Arc<AtomicBool>,
    /// Set while every connection is closed.
    refuse: Arc<AtomicBool>,
    /// The answer to every request instead of the server's.
    failure: Arc<Mutex<Option<Failure>>>,
    /// The delay of every request, in milliseconds.
    delay: Arc<AtomicU64>,
}

/// What passed, in order of the heads.
#[derive(Default)]
struct Log {
    /// The requests, and when the last byte of any body passed.
    requests: Mutex<(Vec<Request>, Option<Instant>)>,
}

impl Log {
    /// The requests, locked.
    fn lock(&self) -> MutexGuard<'_, (Vec<Request>, Option<Instant>)> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Listens on a port of its own; every request waits `delay` before it goes on to `upstream`.
    pub(crate) fn start(upstream: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (log, stop) = (Arc::new(Log::default()), Arc::new(AtomicBool::new(false)));
        let (its_log, its_stop) = (Arc::clone(&log), Arc::clone(&stop));
        let refuse = Arc::new(AtomicBool::new(false));
        let its_refuse = Arc::clone(&refuse);
        let failure = Arc::new(Mutex::new(None));
        let its_failure = Arc::clone(&failure);
        let delay = Arc::new(AtomicU64::new(millis(delay)));
        let its_delay = Arc::clone(&delay);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if its_stop.load(Ordering::Relaxed) {
                    return;
                }
                if its_refuse.load(Ordering::Relaxed) {
                    continue;
                }
                let (log, refuse) = (Arc::clone(&its_log), Arc::clone(&its_refuse));
                let failure = Arc::clone(&its_failure);
                let delay = Arc::clone(&its_delay);
                thread::spawn(move || {
                    let how = Routing {
                        delay: &delay,
                        refuse: &refuse,
                        failure: &failure,
                    };
                    pass(&client, upstream, &how, &log);
                });
            }
        });
        Self {
            address,
            log,
            stop,
            refuse,
            failure,
            delay,
        }
    }

    /// Sets the delay of every request from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        self.delay.store(millis(delay), Ordering::Relaxed);
    }

    /// Sets the answer to every request instead of the server's; `None` ends it. Requests are still counted.
    pub(crate) fn fail(&self, failure: Option<Failure>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// While set, closes every connection at once or at its next request, like a server that has ended.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.refuse.store(refuse, Ordering::Relaxed);
    }

    /// Where it listens, as an endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The number of requests so far: a mark for [`Self::since`].
    pub(crate) fn mark(&self) -> usize {
        self.log.lock().0.len()
    }

    /// The requests since a mark.
    pub(crate) fn since(&self, mark: usize) -> Vec<Request> {
        self.log.lock().0[mark..].to_vec()
    }

    /// Waits until no writing request and no body byte has passed for `quiet`, at most `limit`. Returns whether that
    /// happened.
    pub(crate) fn wait_quiet(&self, quiet: Duration, limit: Duration) -> bool {
        super::wait_until(limit, || {
            self.log.lock().1.is_none_or(|last| last.elapsed() >= quiet)
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A connection wakes the listener, which then reads the stop flag.
        TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok();
    }
}

/// A duration in milliseconds.
fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().expect("a short time")
}

/// Requests and body bytes by method and kind of key, for messages.
pub(crate) fn summary(requests: &[Request]) -> String {
    let mut kinds: std::collections::BTreeMap<String, (u64, u64)> =
        std::collections::BTreeMap::new();
    for request in requests {
        let path = request.target.split('?').next().unwrap_or_default();
        let kind = ["data", "log", "meta"]
            .into_iter()
            .find(|kind| path.contains(&format!("/{kind}/")));
        let entry = kinds
            .entry(format!("{} {}", request.method, kind.unwrap_or("other")))
            .or_default();
        *entry = (entry.0 + 1, entry.1 + request.sent);
    }
    let mut text = String::new();
    for (kind, (count, bytes)) in kinds {
        writeln!(text, "{count:7} {kind}, {bytes} bytes up").expect("into a string");
    }
    text
}

/// When each request was sent, in milliseconds after the first, so that requests that wait for each other are seen.
pub(crate) fn timeline(requests: &[Request]) -> String {
    let mut text = String::new();
    for request in requests {
        let after = request.at.duration_since(requests[0].at).as_millis();
        let (method, target) = (&request.method, &request.target);
        writeln!(text, "{after:6} {method} {target}").expect("into a string");
    }
    text
}

/// How requests are handled.
struct Routing<'a> {
    delay: &'a AtomicU64,
    refuse: &'a AtomicBool,
    failure: &'a Mutex<Option<Failure>>,
}

/// Serves one connection to its end.
fn pass(client: &TcpStream, upstream: SocketAddr, how: &Routing<'_>, log: &Log) {
    let Ok(server) = TcpStream::connect(upstream) else {
        client.shutdown(Shutdown::Both).ok();
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    thread::scope(|scope| {
        scope.spawn(|| copy_answers(&server, client));
        forward_requests(client, &server, how, log);
        server.shutdown(Shutdown::Write).ok();
    });
}

/// Copies answers until the server closes the connection.
fn copy_answers(mut server: &TcpStream, mut client: &TcpStream) {
    std::io::copy(&mut server, &mut client).ok();
    client.shutdown(Shutdown::Both).ok();
}

/// Forwards requests until the client closes the connection, parsing the stream into heads and bodies.
fn forward_requests(mut client: &TcpStream, mut server: &TcpStream, how: &Routing<'_>, log: &Log) {
    // The answer that is sent once the request is complete.
    let mut failing: Option<String> = None;
    let mut cutter = RequestParser::default();
    let mut buffer = vec![0; 1 << 16];
    let mut held: Vec<u8> = Vec::new();
    let mut current = 0;
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let (taken, event) = cutter.cut(rest);
            match event {
                Event::None => {}
                Event::Head(..) if how.refuse.load(Ordering::Relaxed) => {
                    client.shutdown(Shutdown::Both).ok();
                    return;
                }
                Event::Head(method, target) => {
                    thread::sleep(Duration::from_millis(how.delay.load(Ordering::Relaxed)));
                    let failure = *how.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failing = failure.and_then(|failure| failure.answer(&method));
                    let mut guard = log.lock();
                    current = guard.0.len();
                    let reads = matches!(method.as_str(), "GET" | "HEAD");
                    guard.0.push(Request {
                        method,
                        target,
                        sent: 0,
                        at: Instant::now(),
                    });
                    if !reads {
                        guard.1 = Some(Instant::now());
                    }
                }
                Event::Body(bytes) => {
                    let mut guard = log.lock();
                    guard.0[current].sent += bytes;
                    guard.1 = Some(Instant::now());
                }
            }
            held.extend_from_slice(&rest[..taken]);
            match (&failing, cutter.is_in_head(), cutter.is_between()) {
                (Some(answer), _, true) => {
                    held.clear();
                    if client.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    failing = None;
                }
                (Some(_), ..) => held.clear(),
                // Whether the head is passed on is decided at its end.
                (None, true, _) => {}
                (None, false, _) => {
                    if server.write_all(&std::mem::take(&mut held)).is_err() {
                        return;
                    }
                }
            }
            rest = &rest[taken..];
        }
    }
}

/// The kind of a parsed part of the stream.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// Part of a head, or framing.
    None,
    /// The end of a head: method and target.
    Head(String, String),
    /// This many bytes of a body.
    Body(u64),
}

/// The position of a connection in its stream of requests.
#[derive(Default)]
enum Expects {
    /// Lines of a head.
    #[default]
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// A line with the size of a chunk.
    ChunkSize,
    /// So many bytes of a chunk, then its line end.
    Chunk(u64),
    /// Lines after the last chunk.
    Trailer,
}

/// Parses the client's side of an HTTP/1.1 connection into heads and bodies.
#[derive(Default)]
struct RequestParser {
    /// The expected next part.
    expects: Expects,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The lines of the head so far.
    head: Vec<String>,
}

impl RequestParser {
    /// Whether a head has begun and not ended.
    fn is_in_head(&self) -> bool {
        matches!(self.expects, Expects::Head) && !self.is_between()
    }

    /// Whether one request is over and the next has not begun.
    fn is_between(&self) -> bool {
        matches!(self.expects, Expects::Head) && self.head.is_empty() && self.line.is_empty()
    }

    /// Parses a prefix of `bytes`: a line, a part of one, or body bytes. Returns its length and kind.
    fn cut(&mut self, bytes: &[u8]) -> (usize, Event) {
        if let Expects::Body(left) | Expects::Chunk(left) = self.expects {
            let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - taken as u64;
            self.expects = match (&self.expects, left) {
                (Expects::Body(_), 0) => Expects::Head,
                (Expects::Body(_), left) => Expects::Body(left),
                (_, 0) => Expects::ChunkSize,
                (_, left) => Expects::Chunk(left),
            };
            return (taken, Event::Body(taken as u64));
        }
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.line.extend_from_slice(bytes);
            return (bytes.len(), Event::None);
        };
        self.line.extend_from_slice(&bytes[..end]);
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line))
            .trim_end()
            .to_owned();
        (end + 1, self.end_line(line))
    }

    /// One whole line of a head, a chunk's size or a trailer.
    fn end_line(&mut self, line: String) -> Event {
        match self.expects {
            Expects::ChunkSize => {
                let size = line.split(';').next().unwrap_or_default().trim();
                self.expects = match u64::from_str_radix(size, 16) {
                    Ok(0) | Err(_) if size.is_empty() => Expects::ChunkSize,
                    Ok(0) | Err(_) => Expects::Trailer,
                    Ok(size) => Expects::Chunk(size),
                };
                Event::None
            }
            Expects::Trailer => {
                if line.is_empty() {
                    self.expects = Expects::Head;
                }
                Event::None
            }
            _ if line.is_empty() && self.head.is_empty() => Event::None,
            _ if line.is_empty() => self.end_head(),
            _ => {
                self.head.push(line);
                Event::None
            }
        }
    }

    /// Ends a head: returns its method and target, and sets what follows.
    fn end_head(&mut self) -> Event {
        let head = std::mem::take(&mut self.head);
        let value = |name: &str| {
            head[1..].iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            })
        };
        self.expects = if value("transfer-encoding").is_some_and(|how| how.contains("chunked")) {
            Expects::ChunkSize
        } else {
            match value("content-length").and_then(|length| length.parse().ok()) {
                None | Some(0) => Expects::Head,
                Some(length) => Expects::Body(length),
            }
        };
        let mut words = head[0].split(' ').map(str::to_owned);
        Event::Head(
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        )
    }
}
