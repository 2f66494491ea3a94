//! The objects of the server, ordered by key. Contents are lists of shared buffers, which are never copied.

use bytes::Bytes;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

/// The objects of one bucket.
pub(crate) type Objects = BTreeMap<String, Object>;

#[derive(Clone)]
pub(crate) struct Object {
    /// The content, piece after piece.
    pub(crate) pieces: Vec<Bytes>,
    /// The ETag, including its quotation marks.
    pub(crate) etag: String,
    pub(crate) modified: Timestamp,
    /// Headers that were stored with it and are returned with it.
    pub(crate) headers: Vec<(String, String)>,
}

impl Object {
    pub(crate) fn new(pieces: Vec<Bytes>, headers: Vec<(String, String)>) -> Self {
        Self {
            pieces,
            etag: new_etag(),
            modified: Timestamp::now(),
            headers,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// The pieces of a range that lies within the content.
    pub(crate) fn slice(&self, mut start: usize, mut length: usize) -> Vec<Bytes> {
        let mut found = Vec::new();
        for piece in &self.pieces {
            let from = start.min(piece.len());
            let to = piece.len().min(from + length);
            if from < to {
                found.push(piece.slice(from..to));
            }
            start -= from;
            length -= to - from;
        }
        found
    }
}

/// All state of the server. A bucket is created by the first request that names it.
#[derive(Default)]
pub(crate) struct Buckets {
    pub(crate) buckets: HashMap<String, Objects>,
    /// Multipart uploads in progress, by their identifiers.
    pub(crate) uploads: HashMap<String, Upload>,
}

#[derive(Default)]
pub(crate) struct Upload {
    pub(crate) headers: Vec<(String, String)>,
    /// The pieces of each part, and its ETag.
    pub(crate) parts: BTreeMap<u32, (Vec<Bytes>, String)>,
}

/// A number that no other call returns.
pub(crate) fn unique() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// Returns an ETag in the form that a multipart upload has. Clients treat such ETags as opaque; any other ETag must be
/// the MD5 of the content, and computing that would add the server's processor time to the measurement.
pub(crate) fn new_etag() -> String {
    format!("\"{:032x}-1\"", unique())
}

/// Start and length of a `Range` header in a content of `size` bytes; `None` if the content has no byte of it.
pub(crate) fn range(header: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (first, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, size.min(last.saturating_add(1))),
        (Ok(first), Err(_)) => (first, size),
        (Err(_), suffix) => (size.saturating_sub(suffix.ok()?), size),
    };
    (first < end).then(|| (first, end - first))
}
