//! Uploads in flight: which segments of this epoch may have no row that cites them.

use std::collections::BTreeMap;

use crate::sync::{Arc, Mutex, lock};

/// The uploads whose segments may have extents that no row cites yet.
#[derive(Debug, Default)]
pub(crate) struct UploadsInFlight {
    /// Number of the newest upload.
    pub(crate) number: u64,
    /// By number of the upload: the lowest sequence that one of its segments may have.
    pub(crate) first: BTreeMap<u64, u64>,
    /// The lowest sequence that a segment of a failed upload may have; `None` if no upload has failed.
    pub(crate) left: Option<u64>,
}

/// An upload in flight; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct UploadInFlight {
    pub(crate) uploads: Arc<Mutex<UploadsInFlight>>,
    pub(crate) number: u64,
}

impl UploadInFlight {
    /// Records that the upload failed: the segments it has uploaded may stay uncited.
    pub(crate) fn failed(&mut self) {
        let mut uploads = lock(&self.uploads);
        let first = uploads.first.get(&self.number).copied();
        uploads.left = match (uploads.left, first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

impl Drop for UploadInFlight {
    fn drop(&mut self) {
        lock(&self.uploads).first.remove(&self.number);
    }
}
