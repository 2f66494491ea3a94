//! A bucket in memory that records its changes in their order.

use super::*;

/// A change of one object. `None`: it was deleted.
#[derive(Clone, Debug)]
pub(crate) struct ObjectChange {
    pub(crate) key: String,
    pub(crate) bytes: Option<Bytes>,
}

impl ObjectChange {
    /// Makes the same change in another bucket.
    pub(crate) async fn apply(&self, bucket: &Backend) {
        match &self.bytes {
            Some(bytes) => bucket.put(&self.key, bytes.clone()).await.unwrap(),
            None => bucket.delete(&self.key).await.unwrap(),
        }
    }
}

/// What is called after each change of a recording, before the writer has its answer.
type AfterChange = Box<dyn Fn() + Send>;

/// The changes of a bucket since the recording began.
#[derive(Clone, Default)]
pub(crate) struct Recording(Arc<RecordedObjects>);

#[derive(Default)]
struct RecordedObjects {
    objects: InMemory,
    /// Held during a change, so that the recorded order is that of the changes.
    turn: tokio::sync::Mutex<()>,
    changes: Mutex<Vec<ObjectChange>>,
    after: Mutex<Option<AfterChange>>,
}

impl Recording {
    /// A bucket whose changes this records.
    pub(crate) fn bucket(&self) -> Backend {
        // As any bucket in memory, it has no clock of its own.
        let location = Location::parse("memory://recorded").unwrap();
        let store = Arc::new(self.clone());
        Backend::assemble(location, store, None, &BackendConfig::default())
    }

    /// Begins anew, and calls `after` after each change. Returns the changes of the recording that it ends.
    pub(crate) fn begin(&self, after: impl Fn() + Send + 'static) -> Vec<ObjectChange> {
        let mut called = lock(&self.0.after);
        *called = Some(Box::new(after));
        std::mem::take(&mut *lock(&self.0.changes))
    }

    /// Ends, and returns the changes.
    pub(crate) fn end(&self) -> Vec<ObjectChange> {
        *lock(&self.0.after) = None;
        std::mem::take(&mut *lock(&self.0.changes))
    }
}

impl RecordedObjects {
    /// Records what a change left.
    async fn record(&self, at: &Path) {
        let bytes = match self.objects.get(at).await {
            Ok(found) => Some(found.bytes().await.unwrap()),
            Err(_) => None,
        };
        if let Some(after) = &*lock(&self.after) {
            lock(&self.changes).push(ObjectChange {
                key: at.to_string(),
                bytes,
            });
            after();
        }
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recording")
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recording")
    }
}

#[async_trait]
impl ObjectStore for Recording {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let _turn = self.0.turn.lock().await;
        let put = self.0.objects.put_opts(at, payload, options).await?;
        self.0.record(at).await;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        Ok(Box::new(RecordedUpload {
            upload: self.0.objects.put_multipart_opts(at, options).await?,
            at: at.clone(),
            recorded: Arc::clone(&self.0),
        }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.0.objects.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        let recorded = Arc::clone(&self.0);
        let delete = move |at: StoreResult<Path>| {
            let recorded = Arc::clone(&recorded);
            async move {
                let at = at?;
                let _turn = recorded.turn.lock().await;
                recorded.objects.delete(&at).await?;
                recorded.record(&at).await;
                Ok(at)
            }
        };
        at.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.0.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        let _turn = self.0.turn.lock().await;
        self.0.objects.copy_opts(from, to, options).await?;
        self.0.record(to).await;
        Ok(())
    }
}

/// An upload in parts, which changes the bucket with its end.
struct RecordedUpload {
    upload: Box<dyn MultipartUpload>,
    at: Path,
    recorded: Arc<RecordedObjects>,
}

impl fmt::Debug for RecordedUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordedUpload({})", self.at)
    }
}

#[async_trait]
impl MultipartUpload for RecordedUpload {
    fn put_part(&mut self, part: PutPayload) -> object_store::UploadPart {
        self.upload.put_part(part)
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let _turn = self.recorded.turn.lock().await;
        let put = self.upload.complete().await?;
        self.recorded.record(&self.at).await;
        Ok(put)
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.upload.abort().await
    }
}
