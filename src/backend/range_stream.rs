//! Reads of a range whose bytes are used as they arrive.
//!
//! Such a read is made ahead of need, so it is sent once: who needs the bytes reads them again, with all retries, and reports
//! the failure.

use super::base::prefixed;
use super::error::{BackendError, Class};
use super::limits::within;
use super::{Backend, Mark};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore};
use std::ops::Range;
use std::time::Duration;

/// The bytes of a range as they arrive.
pub(crate) struct RangeStream {
    chunks: BoxStream<'static, Result<Bytes, object_store::Error>>,
    /// Number of bytes that the store has announced and not sent yet.
    missing: u64,
    /// Length of the object, bytes.
    object_len: u64,
    /// The longest wait for the next bytes.
    deadline: Duration,
    /// The object in messages.
    name: String,
}

impl Backend {
    /// Begins to read the bytes `range` of an object. Unlike [`Backend::get_range`], it sends one request, verifies of the object's mark
    /// only the key and the length, and its deadline is that of each wait.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`; `Unsupported` if the store ignores ranges; any of them for a range behind the end.
    pub(crate) async fn stream_range(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<RangeStream, BackendError> {
        let path = self.path(key)?;
        let deadline = self.base.config.deadline;
        let name = self.name(key);
        let store = prefixed(self.base.once().clone(), &self.prefix);
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let began = within(deadline, &name, async {
            let got = store.get_opts(&path, options).await;
            let got = got.map_err(|e| self.failure(key, &e))?;
            let mark = Mark::of(&got.attributes);
            if let Some(why) = mark.and_then(|mark| mark.contradicts(&path, got.meta.size)) {
                return Err(Class::Unavailable.error(&name, why));
            }
            let told = got.range.clone();
            let object_len = got.meta.size;
            let chunks = match got.payload {
                GetResultPayload::Stream(chunks) => chunks,
                // A stream of a local file has a call of the blocking pool for every 8 KiB.
                GetResultPayload::File(..) => futures::stream::once(got.bytes()).boxed(),
            };
            Ok((chunks, told.end - told.start, object_len))
        });
        let (chunks, missing, object_len) = began.await?;
        Ok(RangeStream {
            chunks,
            missing,
            object_len,
            deadline,
            name,
        })
    }
}

impl RangeStream {
    /// Returns the next bytes; `None` after the last.
    ///
    /// # Errors
    /// `Unavailable` when the connection fails, or the body has another length than was announced.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, BackendError> {
        let Self { chunks, name, .. } = self;
        let next = within(self.deadline, name, async { Ok(chunks.next().await) });
        let Some(chunk) = next.await? else {
            return match self.missing {
                0 => Ok(None),
                missing => {
                    let reason = format!("{missing} bytes are missing at the end");
                    Err(Class::Unavailable.error(&self.name, reason))
                }
            };
        };
        let chunk = chunk.map_err(|e| BackendError::from_store(self.name.clone(), &e))?;
        match self.missing.checked_sub(chunk.len() as u64) {
            Some(missing) => self.missing = missing,
            None => {
                let reason = "it sends more bytes than it announced";
                return Err(Class::Unavailable.error(&self.name, reason));
            }
        }
        Ok(Some(chunk))
    }

    /// Returns the length of the whole object, bytes.
    pub(crate) fn object_len(&self) -> u64 {
        self.object_len
    }
}
