//! Identity metadata on the objects of the index, and responses that are checked against it.
//!
//! Every object is written with its key, length and checksum as metadata, so that a response with another object's bytes, a
//! truncated body or an empty body is detected. Without metadata, on a `file://` store and for objects of older releases, the
//! form of the bytes is checked. The engine retries without limit and never gets a response that does not verify.
//! Invariant: an object that repeatedly returns the same wrong bytes is damaged, and is reported by its name within seconds: a
//! table always, any other object until the index is open. All other failures count as temporary.

use super::checksum::DamagedObject;
use crate::backend::{Mark, damage};
use crate::meta::error::chain;
use crate::sync::{Arc, AtomicBool, Ordering};
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use std::fmt;
use std::time::Duration;

/// The pauses before further reads of an object that did not verify; together they are longer than a short fault of a proxy.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1200),
];

/// The same for a local directory, where no proxy can change the bytes.
const AGAIN_LOCAL: [Duration; 1] = [Duration::from_millis(50)];

/// Whether an index is being opened or has been.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenedFlag(Arc<AtomicBool>);

impl OpenedFlag {
    /// Records that the index is open: from now on only damage of tables is reported, because the engine would stop over damage
    /// of any other object.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A store whose objects carry marks.
pub(super) struct VerifiedStore {
    inner: Arc<dyn ObjectStore>,
    local: bool,
    opened: OpenedFlag,
}

impl VerifiedStore {
    /// Wraps `inner`; a `local` store keeps no metadata.
    pub(super) fn new(inner: Arc<dyn ObjectStore>, local: bool, opened: OpenedFlag) -> Self {
        Self {
            inner,
            local,
            opened,
        }
    }

    fn marked(&self, mut attributes: Attributes, mark: impl FnOnce() -> String) -> Attributes {
        if !self.local {
            attributes.insert(Mark::name(), mark().into());
        }
        attributes
    }

    /// Reads once. If the response does not verify, returns its fingerprint.
    async fn once(&self, at: &Path, options: GetOptions) -> Result<VerifiedRead> {
        let bounded = match &options.range {
            Some(GetRange::Bounded(range)) => Some(range.start),
            _ => None,
        };
        let head = options.head;
        let got = match self.inner.get_opts(at, options).await {
            Ok(got) => got,
            Err(error) if is_past_end(&error) => {
                return match bounded {
                    Some(start) => Ok(VerifiedRead::Mismatch {
                        why: format!("it ends before byte {start}"),
                        print: Fingerprint::default(),
                    }),
                    None => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        let mark = Mark::of(&got.attributes);
        let print = Fingerprint {
            tag: got.meta.e_tag.clone(),
            size: got.meta.size,
            sum: 0,
        };
        if let Some(why) = mark
            .as_ref()
            .and_then(|mark| mark.contradicts(at, got.meta.size))
        {
            return Ok(VerifiedRead::Mismatch { why, print });
        }
        if head {
            return Ok(VerifiedRead::Intact(got));
        }
        let (meta, range) = (got.meta.clone(), got.range.clone());
        let (attributes, extensions) = (got.attributes.clone(), got.extensions.clone());
        let bytes = got.bytes().await?;
        let print = Fingerprint {
            sum: crc32c::crc32c(&bytes),
            ..print
        };
        let whole = range == (0..meta.size);
        let unfit = match (bytes.len() as u64 == range.end - range.start, whole, &mark) {
            (false, ..) => Some("its length is not the one that was told".to_owned()),
            (true, true, Some(mark)) => mark.contradicts_sum(print.sum),
            (true, _, Some(_)) => None,
            (true, _, None) => misshapen(at, &bytes, range.end == meta.size, whole),
        };
        if let Some(why) = unfit {
            return Ok(VerifiedRead::Mismatch { why, print });
        }
        let body = futures::stream::once(std::future::ready(Ok(bytes)));
        Ok(VerifiedRead::Intact(GetResult {
            payload: GetResultPayload::Stream(body.boxed()),
            meta,
            range,
            attributes,
            extensions,
        }))
    }

    /// The error for an object of which no read verified.
    fn verdict(&self, at: &Path, why: &str, prints: &[Fingerprint]) -> Error {
        let same = prints.windows(2).all(|pair| pair[0] == pair[1]);
        let table = at.extension() == Some("sst");
        match same && (table || !self.opened.is_set()) {
            true => DamagedObject::error(at, why),
            false => Error::Generic {
                store: "index",
                source: format!("{at}: what came is not this object: {why}").into(),
            },
        }
    }
}

/// The result of one read.
enum VerifiedRead {
    Intact(GetResult),
    Mismatch { why: String, print: Fingerprint },
}

/// The identity of a response.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fingerprint {
    tag: Option<String>,
    size: u64,
    sum: u32,
}

/// Tells what is wrong with the form of bytes of the object `at`. `last`: they are the end of the object; `whole`: all of it.
fn misshapen(at: &Path, bytes: &[u8], last: bool, whole: bool) -> Option<String> {
    let version = |known: &[u16], bytes: Option<&[u8]>| match bytes {
        Some([high, low]) => known.contains(&u16::from_be_bytes([*high, *low])),
        _ => false,
    };
    let fits = match at.extension() {
        // The version, then a record, which begins with an offset and is longer than this.
        Some("manifest" | "compactions") if whole => {
            bytes.len() > 16 && version(&[1, 2], bytes.get(..2))
        }
        Some("boundary") if whole => {
            !bytes.is_empty() && bytes.len() <= 20 && bytes.iter().all(u8::is_ascii_digit)
        }
        // An empty object of the log is a fence.
        Some("sst") if last && !bytes.is_empty() => version(
            &[1, 2],
            bytes
                .len()
                .checked_sub(2)
                .and_then(|from| bytes.get(from..)),
        ),
        _ => true,
    };
    (!fits).then(|| "it has not the form of such an object".to_owned())
}

/// Checks the form of an object of the index with these bytes; tells whether it may be one.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_object(bytes: &[u8]) -> bool {
    let kinds = ["a.manifest", "a.compactions", "a.boundary", "a.sst"];
    let fits = kinds.map(|name| {
        let at = Path::from(name);
        let parts = [(true, true), (true, false), (false, false)];
        parts.map(|(last, whole)| misshapen(&at, bytes, last, whole).is_none())
    });
    let _of_anything = super::checksum::is_sealed(bytes);
    let sealed = super::checksum::sealed(bytes);
    assert!(super::checksum::is_sealed(&sealed), "a sealed object");
    fits.iter().any(|fits| fits[0])
}

/// Tells whether an error means that a range begins behind the end of its object.
fn is_past_end(error: &Error) -> bool {
    let text = chain(error);
    text.contains("status code: 416") || text.contains("Wanted range starting at")
}

impl fmt::Debug for VerifiedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedStore({:?})", self.inner)
    }
}

impl fmt::Display for VerifiedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for VerifiedStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        let attributes = self.marked(o.attributes, || Mark::text(at, &payload));
        let options = PutOptions { attributes, ..o };
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let attributes = self.marked(options.attributes, || Mark::text_of_parts(at));
        let options = PutMultipartOptions {
            attributes,
            ..options
        };
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let pauses: &[Duration] = match self.local {
            true => &AGAIN_LOCAL,
            false => &AGAIN,
        };
        let mut prints = Vec::new();
        let mut pauses = pauses.iter();
        loop {
            let (why, print) = match self.once(at, options.clone()).await {
                Ok(VerifiedRead::Intact(got)) => return Ok(got),
                Ok(VerifiedRead::Mismatch { why, print }) => (why, print),
                Err(error) => {
                    return Err(match damage(&error) {
                        Some(why) => self.verdict(at, &why, &[]),
                        None => error,
                    });
                }
            };
            prints.push(print);
            match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(self.verdict(at, &why, &prints)),
            }
        }
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let asked = prefix.cloned().unwrap_or_default();
        self.inner
            .list(prefix)
            .and_then(move |found| std::future::ready(below(&asked, found)))
            .boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let asked = prefix.cloned().unwrap_or_default();
        self.inner
            .list_with_offset(prefix, offset)
            .and_then(move |found| std::future::ready(below(&asked, found)))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        let asked = prefix.cloned().unwrap_or_default();
        let objects = listed.objects.into_iter();
        listed.objects = objects
            .map(|found| below(&asked, found))
            .collect::<Result<_>>()?;
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Returns an error for an object that is not below the listed prefix `asked`.
fn below(asked: &Path, found: ObjectMeta) -> Result<ObjectMeta> {
    match found.location.prefix_matches(asked) {
        true => Ok(found),
        false => Err(Error::Generic {
            store: "index",
            source: format!("a listing of {asked} has {}", found.location).into(),
        }),
    }
}

#[cfg(test)]
#[path = "verified_tests.rs"]
mod tests;
