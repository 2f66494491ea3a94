//! Reads with verification: an object whose bytes do not verify is read again, until it does or counts as damaged.

use super::bounds::read_len;
use super::error::{BackendError, Class, ContentMismatch};
use super::{Backend, Mark};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore};
use std::time::Duration;

/// The pauses before further reads of an object whose bytes did not verify.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1200),
];

/// The same for a local directory, where no proxy can change the bytes.
const AGAIN_LOCAL: [Duration; 1] = [Duration::from_millis(50)];

impl Backend {
    /// Reads a whole object of at most `most` bytes and decodes it with `read`, which returns an error for bytes that are not those of the
    /// object. Such bytes may come from a proxy, so the object is read again for a few seconds.
    ///
    /// # Errors
    /// As [`Backend::get`]; `Damaged` if every read returned the same wrong bytes, `Unavailable` if they differed.
    pub async fn get_as<T>(
        &self,
        key: &str,
        most: u64,
        read: impl Fn(&Bytes) -> Result<T, String>,
    ) -> Result<T, BackendError> {
        let pauses: &[Duration] = match self.is_local() {
            true => &AGAIN_LOCAL,
            false => &AGAIN,
        };
        let first = self.get_at_most(key, most).await?;
        let mut reason = match read(&first) {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        let mut class = Class::Damaged;
        for pause in pauses {
            tracing::warn!(object = self.name(key), reason, "read again");
            tokio::time::sleep(*pause).await;
            let bytes = self.get_at_most(key, most).await?;
            match read(&bytes) {
                Ok(value) => return Ok(value),
                Err(why) => reason = why,
            }
            if bytes != first {
                class = Class::Unavailable;
            }
        }
        Err(class.error(self.name(key), reason))
    }

    /// Reads an object or a range of it, at most `most` bytes, and verifies it with the object's mark.
    pub(super) async fn fetch(
        &self,
        path: &Path,
        range: Option<GetRange>,
        most: u64,
    ) -> Result<(ObjectMeta, Bytes), Error> {
        let mut first: Option<Bytes> = None;
        let mut same = true;
        let mut pauses = AGAIN.iter();
        loop {
            let options = GetOptions {
                range: range.clone(),
                ..GetOptions::default()
            };
            let got = self.store.get_opts(path, options).await?;
            let mark = Mark::of(&got.attributes);
            let (meta, told) = (got.meta.clone(), got.range.clone());
            let len = read_len(&told, most)?;
            let bytes = got.bytes().await?;
            let why = match (bytes.len() as u64 == len, mark) {
                (false, _) => Some("its length is not the one that was told".to_owned()),
                (true, None) => None,
                (true, Some(mark)) => mark.contradicts(path, meta.size).or_else(|| {
                    let whole = told == (0..meta.size);
                    whole.then(|| mark.contradicts_sum(crc32c::crc32c(&bytes)))?
                }),
            };
            let Some(why) = why else {
                return Ok((meta, bytes));
            };
            same &= *first.get_or_insert_with(|| bytes.clone()) == bytes;
            match pauses.next() {
                Some(pause) => {
                    tracing::warn!(object = %path, why, "read again");
                    tokio::time::sleep(*pause).await;
                }
                None => return Err(ContentMismatch { why, same }.into()),
            }
        }
    }
}
