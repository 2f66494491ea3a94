//! A proxy that delays every request by one round trip, half of it in each direction, and counts requests and bytes by kind.
//!
//! Invariant: bytes pass unchanged and in order, and delayed bytes do not block the reading of later ones, so that the delay does
//! not limit the bandwidth.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the file with the counts is written.
const STATS_EACH: Duration = Duration::from_millis(200);
/// The number of reads that may be delayed at once in one direction of a connection.
const ON_THE_WAY: usize = 1024;

pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

/// Bytes up and down, and requests by kind.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, u64>>);

impl Counts {
    fn add(&self, name: &str, more: usize) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(name.to_owned()).or_default() += more as u64;
    }

    /// A line for each count: its name and its value.
    fn lines(&self) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(name, count): (&String, &u64)| format!("{name} {count}\n");
        counts.iter().map(line).collect()
    }
}

/// Listens on a port of its own until the process ends.
///
/// # Errors
/// Those of listen(2).
pub(crate) fn start(upstream: SocketAddr, round_trip: Duration) -> std::io::Result<Proxy> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let counts = Arc::new(Counts::default());
    let its_counts = Arc::clone(&counts);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let counts = Arc::clone(&its_counts);
            thread::spawn(move || pass(&client, upstream, round_trip, &counts));
        }
    });
    Ok(Proxy { address, counts })
}

impl Proxy {
    /// Writes the counts to a file at intervals until a write fails.
    pub(crate) fn write_stats(&self, to: &Path) -> Result<(), Box<dyn Error>> {
        let new = to.with_extension("new");
        loop {
            fs::write(&new, self.counts.lines())?;
            fs::rename(&new, to)?;
            thread::sleep(STATS_EACH);
        }
    }
}

/// Serves one connection. Opening it takes a round trip too.
fn pass(client: &TcpStream, upstream: SocketAddr, round_trip: Duration, counts: &Counts) {
    let Ok(server) = TcpStream::connect(upstream) else {
        client.shutdown(Shutdown::Both).ok();
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    counts.add("connections", 1);
    thread::sleep(round_trip);
    let mut heads = Heads::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            delay(&server, client, round_trip / 2, |bytes| {
                counts.add("down", bytes.len());
            });
        });
        delay(client, &server, round_trip / 2, |bytes| {
            counts.add("up", bytes.len());
            heads.pass(bytes, |kind| {
                counts.add("requests", 1);
                counts.add(kind, 1);
            });
        });
    });
}

/// Passes bytes on until the end of the stream, each `by` after its arrival.
fn delay(
    mut from: &TcpStream,
    mut to: &TcpStream,
    by: Duration,
    mut see: impl FnMut(&[u8]) + Send,
) {
    let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    thread::scope(|scope| {
        scope.spawn(move || {
            for (due, bytes) in receiver {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            to.shutdown(Shutdown::Write).ok();
            // Ends a read that would otherwise wait for ever.
            from.shutdown(Shutdown::Read).ok();
        });
        let mut buffer = vec![0; 1 << 18];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            see(&buffer[..count]);
            let due = Instant::now() + by;
            if sender.send((due, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
        drop(sender);
    });
}

/// Finds the heads in a client's stream of requests, each with a content length or without a body.
#[derive(Default)]
pub(crate) struct Heads {
    /// The head so far.
    head: Vec<u8>,
    /// How much of the body is still to come.
    body: usize,
}

impl Heads {
    /// Takes the next bytes, and tells `seen` the kind of every request whose head ends in them.
    pub(crate) fn pass(&mut self, mut bytes: &[u8], mut seen: impl FnMut(&str)) {
        while !bytes.is_empty() {
            let skipped = self.body.min(bytes.len());
            self.body -= skipped;
            bytes = &bytes[skipped..];
            let line = bytes.iter().position(|byte| *byte == b'\n');
            let taken = line.map_or(bytes.len(), |end| end + 1);
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
                let length = head.split("\r\ncontent-length:").nth(1);
                let length = length.and_then(|rest| rest.lines().next());
                self.body = length.map_or(0, |length| length.trim().parse().unwrap_or(0));
                seen(kind(&head));
                self.head.clear();
            }
        }
    }
}

/// What a request asks for, by its head in lower case.
fn kind(head: &str) -> &'static str {
    let line = head.lines().next().unwrap_or_default();
    let is_listing = |line: &str| line.contains("list-type=") || line.contains("prefix=");
    match line.split(' ').next().unwrap_or_default() {
        "get" if is_listing(line) => "list",
        "get" => "get",
        "head" => "head",
        "put" if line.contains("partnumber=") => "put-part",
        "put" if head.contains("\r\nx-amz-copy-source:") => "copy",
        "put" => "put",
        "post" if line.contains("uploads") => "begin-upload",
        "post" if line.contains("uploadid=") => "end-upload",
        "post" if line.contains("delete") => "delete-many",
        "delete" => "delete",
        _ => "other",
    }
}
