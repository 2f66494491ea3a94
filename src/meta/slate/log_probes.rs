//! The requests by which a follower looks for new objects of the write-ahead log.
//!
//! The engine asks for eight objects at every poll, at distances of 1, 2, 4 ... from the last one that it knows. The numbers of these
//! objects have no gaps, so if one does not exist, no later one does. The first of the eight is asked for alone; the others
//! are requests only if it exists.
//! Invariant: an object counts as missing only for [`LogProbes::fresh`] after the store said so of it or of an earlier one.

use super::polls::KeptAnswers;
use super::wal::number_of;
use crate::sync::{Arc, Mutex, lock};
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// A store of a follower, whose probes for new objects of the log are few; all other requests are passed through.
pub(super) struct LogProbes {
    inner: Arc<dyn ObjectStore>,
    /// How long a missing object counts as missing.
    fresh: Duration,
    end: Mutex<LogEnd>,
    /// Held during the request for the object that comes next.
    first: tokio::sync::Mutex<()>,
    /// Dropped when the log has grown: its writer may have written a manifest as well.
    answers: Arc<KeptAnswers>,
}

/// What is known about the end of the log.
#[derive(Debug, Default)]
struct LogEnd {
    /// The first number that is known to be missing, and since when.
    missing: Option<(u64, Instant)>,
}

impl LogProbes {
    /// Wraps `inner`.
    pub(super) fn new(
        inner: Arc<dyn ObjectStore>,
        fresh: Duration,
        answers: Arc<KeptAnswers>,
    ) -> Self {
        Self {
            inner,
            fresh,
            end: Mutex::default(),
            first: tokio::sync::Mutex::default(),
            answers,
        }
    }

    /// Tells whether an object is known to be missing.
    fn is_missing(&self, number: u64) -> bool {
        let missing = lock(&self.end).missing;
        missing.is_some_and(|(first, since)| number >= first && since.elapsed() < self.fresh)
    }

    /// Tells whether an object comes next: it was the first missing one.
    fn is_next(&self, number: u64) -> bool {
        let missing = lock(&self.end).missing;
        missing.is_some_and(|(first, _)| number <= first)
    }

    async fn probe(&self, at: &Path, number: u64, options: GetOptions) -> Result<GetResult> {
        {
            let turn = self.first.lock().await;
            if self.is_missing(number) {
                return Err(Error::NotFound {
                    path: at.to_string(),
                    source: "an earlier object of the log does not exist".into(),
                });
            }
            if self.is_next(number) {
                return self.request(at, number, options).await;
            }
            drop(turn);
        }
        self.request(at, number, options).await
    }

    async fn request(&self, at: &Path, number: u64, options: GetOptions) -> Result<GetResult> {
        let got = self.inner.get_opts(at, options).await;
        let mut end = lock(&self.end);
        match &got {
            Err(Error::NotFound { .. }) => {
                let first = end
                    .missing
                    .filter(|(first, since)| *first < number && since.elapsed() < self.fresh);
                end.missing = first.or(Some((number, Instant::now())));
            }
            Ok(_) if end.missing.is_some_and(|(first, _)| first <= number) => {
                end.missing = None;
                self.answers.drop_all();
            }
            Ok(_) => {}
            // Objects may be written and deleted while the store fails.
            Err(_) => self.answers.drop_all(),
        }
        got
    }
}

impl fmt::Debug for LogProbes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogProbes({:?})", self.inner)
    }
}

impl fmt::Display for LogProbes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for LogProbes {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, payload, o).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        match number_of(at) {
            Some(number) if options.head => self.probe(at, number, options).await,
            _ => self.inner.get_opts(at, options).await,
        }
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
#[path = "log_probes_tests.rs"]
mod tests;
