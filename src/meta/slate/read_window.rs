//! Read-ahead for tables of the index.
//!
//! The engine asks for the one block it misses, 16 KiB. Neighbours are wanted next: the entries of the next directory, the
//! next row of an inode. So a miss fetches a whole window of the table, and the next misses find it here.
//! Invariant: tables never change, so a window is right for as long as it is kept; at most [`WINDOWS`] are.

use crate::sync::{Arc, Mutex, lock};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use slatedb::object_store_tag::ObjectStoreCallTag;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use tokio::sync::OnceCell;

/// The size of a window, in bytes.
const WINDOW: u64 = 256 * 1024;

/// The number of windows that are kept: 8 MiB.
const WINDOWS: usize = 32;

/// A window: the path of the table, and the number of the window.
type WindowKey = (Path, u64);

/// A window that is read, or being read for all its waiting readers.
type WindowCell = Arc<OnceCell<TableWindow>>;

/// The bytes of a window, and the metadata of the table.
#[derive(Debug)]
struct TableWindow {
    bytes: Bytes,
    table: ObjectMeta,
    attributes: Attributes,
}

/// A store whose tables are read in windows; all other requests are passed through.
pub(super) struct ReadWindow {
    inner: Arc<dyn ObjectStore>,
    /// The most recently used windows, newest last.
    windows: Mutex<VecDeque<(WindowKey, WindowCell)>>,
}

impl ReadWindow {
    /// Wraps `inner`.
    pub(super) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            windows: Mutex::default(),
        }
    }

    fn slot(&self, key: WindowKey) -> WindowCell {
        let mut windows = lock(&self.windows);
        let found = windows.iter().position(|(known, _)| *known == key);
        let slot = match found.and_then(|at| windows.remove(at)) {
            Some((_, slot)) => slot,
            None => WindowCell::default(),
        };
        if windows.len() >= WINDOWS {
            windows.pop_front();
        }
        windows.push_back((key, Arc::clone(&slot)));
        slot
    }

    /// Drops the windows of a table.
    fn forget(&self, at: &Path) {
        lock(&self.windows).retain(|((known, _), _)| known != at);
    }

    async fn fetch(&self, at: &Path, index: u64) -> Result<TableWindow> {
        let start = index * WINDOW;
        let options = GetOptions {
            range: Some(GetRange::Bounded(start..start + WINDOW)),
            ..GetOptions::default()
        };
        let got = self.inner.get_opts(at, options).await?;
        Ok(TableWindow {
            table: got.meta.clone(),
            attributes: got.attributes.clone(),
            bytes: got.bytes().await?,
        })
    }

    /// Reads `range`, which covers at most two windows; `None` if the table is shorter.
    async fn read(&self, at: &Path, range: Range<u64>) -> Result<Option<GetResult>> {
        let (first, last) = (range.start / WINDOW, (range.end - 1) / WINDOW);
        let mut all = BytesMut::new();
        let mut said = None;
        for index in first..=last {
            let slot = self.slot((at.clone(), index));
            let window = slot.get_or_try_init(|| self.fetch(at, index)).await?;
            let from = range.start.saturating_sub(index * WINDOW) as usize;
            let to = (range.end - index * WINDOW).min(WINDOW) as usize;
            let Some(part) = window.bytes.get(from..to) else {
                return Ok(None);
            };
            said = Some((window.table.clone(), window.attributes.clone()));
            // Copied, so that bytes that the engine keeps do not keep the whole window allocated.
            all.extend_from_slice(part);
        }
        Ok(said.map(|(meta, attributes)| GetResult {
            payload: GetResultPayload::Stream(
                futures::stream::once(std::future::ready(Ok(all.freeze()))).boxed(),
            ),
            meta,
            range,
            attributes,
            extensions: object_store::Extensions::default(),
        }))
    }
}

/// Tells whether the engine repeats a read because the bytes did not verify.
fn retried(options: &GetOptions) -> bool {
    ObjectStoreCallTag::from_extensions(&options.extensions).is_some_and(|tag| tag.retry.is_some())
}

/// The range of a request, if it is a small range of a table without conditions.
fn wanted(at: &Path, options: &GetOptions) -> Option<Range<u64>> {
    let Some(GetRange::Bounded(range)) = &options.range else {
        return None;
    };
    let plain = !options.head
        && options.version.is_none()
        && options.if_match.is_none()
        && options.if_none_match.is_none()
        && options.if_modified_since.is_none()
        && options.if_unmodified_since.is_none();
    let table = at.as_ref().contains("/compacted/");
    let small = range.start < range.end && range.end - range.start < WINDOW;
    (plain && table && small).then(|| range.clone())
}

impl fmt::Debug for ReadWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadWindow({:?})", self.inner)
    }
}

impl fmt::Display for ReadWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for ReadWindow {
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
        if retried(&options) {
            self.forget(at);
        }
        if let Some(range) = wanted(at, &options)
            && let Some(found) = self.read(at, range).await?
        {
            return Ok(found);
        }
        self.inner.get_opts(at, options).await
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
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn ranges_of_tables_are_what_the_store_has_at_every_border() {
        let (store, at) = (
            Arc::new(InMemory::new()),
            Path::from("x/meta/compacted/1.sst"),
        );
        let table: Vec<u8> = (0..2 * WINDOW + 1000).map(|n| (n / 7) as u8).collect();
        store.put(&at, table.clone().into()).await.unwrap();
        let around = ReadWindow::new(Arc::clone(&store) as Arc<dyn ObjectStore>);
        for (from, to) in [
            (0, 1),
            (10, 16_000),
            (WINDOW - 1, WINDOW),
            (WINDOW - 5, WINDOW + 5),
            (2 * WINDOW - 1, 2 * WINDOW + 1000),
            (2 * WINDOW + 990, 2 * WINDOW + 2000),
        ] {
            let got = around.get_range(&at, from..to).await.unwrap();
            let end = (to as usize).min(table.len());
            assert!(got == table[from as usize..end], "{from}..{to}");
        }
    }

    #[tokio::test]
    async fn one_request_serves_neighbours_and_few_windows_are_kept() {
        let (store, at) = (
            Arc::new(InMemory::new()),
            Path::from("x/meta/compacted/1.sst"),
        );
        let len = (WINDOWS as u64 + 2) * WINDOW;
        store.put(&at, vec![1; len as usize].into()).await.unwrap();
        let around = ReadWindow::new(Arc::clone(&store) as Arc<dyn ObjectStore>);
        around.get_range(&at, 0..100).await.unwrap();
        // What is in a window needs the store no more.
        store.delete(&at).await.unwrap();
        around.get_range(&at, 5000..6000).await.unwrap();
        assert!(around.get_range(&at, WINDOW..WINDOW + 1).await.is_err());
        store.put(&at, vec![1; len as usize].into()).await.unwrap();
        for window in 1..WINDOWS as u64 + 2 {
            let from = window * WINDOW;
            around.get_range(&at, from..from + 1).await.unwrap();
        }
        assert_eq!(lock(&around.windows).len(), WINDOWS);
        store.delete(&at).await.unwrap();
        assert!(around.get_range(&at, 0..100).await.is_err());
    }
}
