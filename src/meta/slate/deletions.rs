//! Deletions of the engine, joined into requests for many objects.
//!
//! The engine's garbage collection deletes its objects one by one. Here each is accepted at once and deleted with those of the
//! next moment, up to a thousand by one request. A deletion that fails or that a crash prevents is repeated by
//! the next garbage collection, which lists the objects.

use crate::sync::{Arc, Mutex, lock};
use crate::task::Tasks;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::time::Duration;
use tokio::sync::Notify;

/// The time in which deletions are collected.
const COLLECTED_FOR: Duration = Duration::from_millis(200);

/// The deletions that are accepted and not yet sent.
#[derive(Debug, Default)]
struct AcceptedDeletions {
    paths: Mutex<Vec<Path>>,
    added: Notify,
}

/// A store whose deletions are joined; all other requests are passed through.
pub(super) struct JoinedDeletions {
    inner: Arc<dyn ObjectStore>,
    accepted: Arc<AcceptedDeletions>,
}

impl JoinedDeletions {
    /// Wraps `inner`, and starts the task that sends the deletions.
    pub(super) fn new(inner: Arc<dyn ObjectStore>, tasks: &Tasks) -> Self {
        let accepted = Arc::<AcceptedDeletions>::default();
        let sending = send(Arc::clone(&inner), Arc::clone(&accepted), tasks.clone());
        drop(tasks.spawn("index-deletions", sending));
        Self { inner, accepted }
    }
}

/// Sends what was accepted, until the tasks are stopped; the rest is left to the next garbage collection.
async fn send(inner: Arc<dyn ObjectStore>, accepted: Arc<AcceptedDeletions>, tasks: Tasks) {
    loop {
        tokio::select! {
            () = accepted.added.notified() => {}
            () = tasks.stopped() => return,
        }
        tokio::time::sleep(COLLECTED_FOR).await;
        let paths = std::mem::take(&mut *lock(&accepted.paths));
        let mut answers =
            inner.delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
        while let Some(answer) = answers.next().await {
            if let Err(error) = answer {
                tracing::debug!(%error, "an object of the index was not deleted; the next collection tries again");
            }
        }
    }
}

impl fmt::Debug for JoinedDeletions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinedDeletions({:?})", self.inner)
    }
}

impl fmt::Display for JoinedDeletions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for JoinedDeletions {
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
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let accepted = Arc::clone(&self.accepted);
        at.inspect(move |path| {
            if let Ok(path) = path {
                lock(&accepted.paths).push(path.clone());
                accepted.added.notify_one();
            }
        })
        .boxed()
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
#[path = "deletions_tests.rs"]
mod tests;
