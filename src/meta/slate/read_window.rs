//! Read-ahead for tables of the index.
//!
//! The engine asks for the one block it misses, 16 KiB. Neighbours are wanted next: the entries of the next directory, the
//! next row of an inode. So a miss fetches a whole window of the table, and the next misses find it here.
//! Invariant: tables never change, so a window is right for as long as it is kept; at most [`WINDOWS`] are.

use super::window::{TableWindow, WINDOW, WindowKey};
use super::window_files::WindowFiles;
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
use slatedb::object_store_tag::{ObjectStoreCallTag, TableStoreKind};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use tokio::sync::OnceCell;

/// The longest range of a scan that is read by windows, in bytes.
const SCAN_MAX: u64 = 8 << 20;

/// The number of windows that are kept: 8 MiB.
const WINDOWS: usize = 32;

/// A window that is read, or being read for all its waiting readers.
type WindowCell = Arc<OnceCell<TableWindow>>;

/// The most recently used windows, newest last.
#[derive(Debug, Default)]
pub(super) struct WindowTable(Mutex<VecDeque<(WindowKey, WindowCell)>>);

impl WindowTable {
    /// Drops all windows.
    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// A store whose tables are read in windows; all other requests are passed through.
pub(super) struct ReadWindow {
    inner: Arc<dyn ObjectStore>,
    windows: Arc<WindowTable>,
    files: Option<WindowFiles>,
}

impl ReadWindow {
    /// Wraps `inner`; windows are kept in `windows`, and also in `files`.
    pub(super) fn over(
        inner: Arc<dyn ObjectStore>,
        windows: Arc<WindowTable>,
        files: Option<WindowFiles>,
    ) -> Self {
        Self {
            inner,
            windows,
            files,
        }
    }

    fn slot(&self, key: WindowKey) -> WindowCell {
        let mut windows = lock(&self.windows.0);
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
        lock(&self.windows.0).retain(|((known, _), _)| known != at);
        if let Some(files) = &self.files {
            files.forget(at);
        }
    }

    async fn fetch(&self, at: &Path, index: u64) -> Result<TableWindow> {
        let Some(files) = &self.files else {
            return self.request(at, index).await;
        };
        let key = (at.clone(), index);
        if let Some(window) = files.load(&key).await {
            return Ok(window);
        }
        let window = self.request(at, index).await?;
        files.store_all(window.table.size, [(key, window.bytes.clone())].into_iter());
        Ok(window)
    }

    /// Keeps a table that was written, which the next mount reads.
    fn keep(&self, at: &Path, payload: &PutPayload) {
        let Some(files) = self.files.as_ref().filter(|_| is_table(at)) else {
            return;
        };
        let (at, table_len) = (at.clone(), payload.content_length() as u64);
        let mut chunks: VecDeque<Bytes> = payload.iter().cloned().collect();
        let mut number = 0..;
        // One window at a time, because a table may have 64 MiB.
        let windows = std::iter::from_fn(move || {
            let mut window = BytesMut::with_capacity(WINDOW as usize);
            while window.len() < WINDOW as usize {
                let Some(mut chunk) = chunks.pop_front() else {
                    break;
                };
                let taken = chunk.len().min(WINDOW as usize - window.len());
                window.extend_from_slice(&chunk.split_to(taken));
                if !chunk.is_empty() {
                    chunks.push_front(chunk);
                }
            }
            let key = (at.clone(), number.next()?);
            (!window.is_empty()).then(|| (key, window.freeze()))
        });
        files.store_all(table_len, windows);
    }

    /// Reads the range of a scan from the disk; if a part is not there, all of its windows by one request.
    async fn read_long(
        &self,
        files: &WindowFiles,
        at: &Path,
        range: Range<u64>,
        options: GetOptions,
    ) -> Result<GetResult> {
        let (first, last) = (range.start / WINDOW, (range.end - 1) / WINDOW);
        let keys: Vec<_> = (first..=last).map(|index| (at.clone(), index)).collect();
        let kept = futures::future::join_all(keys.iter().map(|key| files.load(key))).await;
        let windows: Vec<_> = kept.into_iter().map_while(|window| window).collect();
        // A range may go beyond the end of its table.
        let end = (last + 1) * WINDOW;
        let reach = windows
            .last()
            .map_or(0, |window| window.table.size.min(end));
        if reach.div_ceil(WINDOW) == first + windows.len() as u64
            && let Some(found) = joined(&windows, first, &range)
        {
            return Ok(found);
        }
        let aligned = first * WINDOW..(last + 1) * WINDOW;
        let whole = GetOptions {
            range: Some(GetRange::Bounded(aligned)),
            ..options.clone()
        };
        let got = self.inner.get_opts(at, whole).await?;
        let (table, attributes) = (got.meta.clone(), got.attributes.clone());
        let bytes = got.bytes().await?;
        let window = |index: u64| {
            let from = ((index - first) * WINDOW).min(bytes.len() as u64) as usize;
            let to = bytes.len().min(from + WINDOW as usize);
            TableWindow {
                bytes: bytes.slice(from..to),
                table: table.clone(),
                attributes: attributes.clone(),
            }
        };
        let windows: Vec<_> = (first..=last).map(window).collect();
        let bytes: Vec<_> = windows.iter().map(|window| window.bytes.clone()).collect();
        files.store_all(table.size, keys.into_iter().zip(bytes));
        match joined(&windows, first, &range) {
            Some(found) => Ok(found),
            None => self.inner.get_opts(at, options).await,
        }
    }

    async fn request(&self, at: &Path, index: u64) -> Result<TableWindow> {
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
        Ok(said.map(|(meta, attributes)| result(meta, attributes, range, all.freeze())))
    }
}

/// Tells whether the engine repeats a read because the bytes did not verify.
fn retried(options: &GetOptions) -> bool {
    ObjectStoreCallTag::from_extensions(&options.extensions).is_some_and(|tag| tag.retry.is_some())
}

/// Tells whether a compaction reads: its tables are deleted soon.
fn is_of_compaction(options: &GetOptions) -> bool {
    ObjectStoreCallTag::from_extensions(&options.extensions)
        .is_some_and(|tag| tag.kind == TableStoreKind::Compactor)
}

/// The bytes of `range`, as far as the table has them, from `windows`, of which the first has the number `first`; `None` if it has none.
fn joined(windows: &[TableWindow], first: u64, range: &Range<u64>) -> Option<GetResult> {
    let mut all = BytesMut::with_capacity((range.end - range.start) as usize);
    for (index, window) in (first..).zip(windows) {
        let from = range.start.saturating_sub(index * WINDOW) as usize;
        let to = (range.end - index * WINDOW).min(window.bytes.len() as u64) as usize;
        all.extend_from_slice(window.bytes.get(from..to).unwrap_or_default());
    }
    let one = windows.first().filter(|_| !all.is_empty())?;
    let range = range.start..range.start + all.len() as u64;
    let (meta, attributes) = (one.table.clone(), one.attributes.clone());
    Some(result(meta, attributes, range, all.freeze()))
}

/// The answer to a request for `range` of a table.
fn result(meta: ObjectMeta, attributes: Attributes, range: Range<u64>, bytes: Bytes) -> GetResult {
    let body = futures::stream::once(std::future::ready(Ok(bytes)));
    GetResult {
        payload: GetResultPayload::Stream(body.boxed()),
        meta,
        range,
        attributes,
        extensions: object_store::Extensions::default(),
    }
}

fn is_table(at: &Path) -> bool {
    at.as_ref().contains("/compacted/")
}

/// The range of a request, if it is a range of a table without conditions.
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
    // The numbers are those of the index, which may be damaged: no arithmetic with them overflows.
    let is_range = range.start < range.end && range.end < u64::MAX / 2;
    (plain && is_table(at) && is_range).then(|| range.clone())
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
        let put = self.inner.put_opts(at, payload.clone(), o).await?;
        self.keep(at, &payload);
        Ok(put)
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
        let range = wanted(at, &options);
        match (range, &self.files) {
            (Some(range), _) if range.end - range.start < WINDOW => {
                if let Some(found) = self.read(at, range).await? {
                    return Ok(found);
                }
            }
            (Some(range), Some(files))
                if range.end - range.start <= SCAN_MAX && !is_of_compaction(&options) =>
            {
                return self.read_long(files, at, range, options).await;
            }
            _ => {}
        }
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let files = self.files.clone();
        self.inner
            .delete_stream(at)
            .inspect(move |deleted| {
                if let (Some(files), Ok(at)) = (&files, deleted) {
                    files.deleted(at);
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
        let around = ReadWindow::over(
            Arc::clone(&store) as Arc<dyn ObjectStore>,
            Arc::default(),
            None,
        );
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
        let around = ReadWindow::over(
            Arc::clone(&store) as Arc<dyn ObjectStore>,
            Arc::default(),
            None,
        );
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
        assert_eq!(lock(&around.windows.0).len(), WINDOWS);
        store.delete(&at).await.unwrap();
        assert!(around.get_range(&at, 0..100).await.is_err());
    }
}

#[cfg(test)]
#[path = "read_window_disk_tests.rs"]
mod disk_tests;
