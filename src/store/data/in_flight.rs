//! Uploads in flight: which segments of this epoch may still lack a row that references them.

use std::collections::BTreeMap;

use crate::sync::{Arc, Mutex, lock};

/// Uploads whose extents are not all cited yet.
#[derive(Debug, Default)]
pub(crate) struct UploadsInFlight {
    pub(crate) number: u64,
    /// The first segment each may have made.
    pub(crate) first: BTreeMap<u64, u64>,
    /// The first segment that may have been left uncited.
    pub(crate) left: Option<u64>,
}

/// An upload under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UploadInFlight {
    pub(crate) uploads: Arc<Mutex<UploadsInFlight>>,
    pub(crate) number: u64,
}

impl UploadInFlight {
    /// What it has uploaded so far may stay uncited.
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
