//! Bounds of what a store's responses take in memory, whatever the store says about them.
//!
//! Invariant: memory is allocated for bytes that have come, or for a length below [`READ_MAX`]; a listing ends at [`LISTING_MAX`].

use super::error::ContentMismatch;
use crate::sync::{AtomicU64, Ordering};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, Result};
use std::ops::Range;
use tokio::task::LocalKey;

/// The longest read of an object or a range, in bytes. The longest objects are those of the log: 8 MiB, and one operation behind them, which
/// may have a hundred thousand rows.
pub(super) const READ_MAX: u64 = 256 << 20;

/// The longest listing, in bytes of its keys and of [`ENTRY`] for each: 11 million segments of a namespace. Tests reach a shorter one.
const LISTING_MAX: u64 = if cfg!(test) { 64 << 20 } else { 1 << 30 };

/// What an object in a listing takes beside its key, in bytes.
const ENTRY: u64 = 64;

/// An error for what is beyond a bound. It counts as damage: the same request gets the same response.
fn excess(why: String) -> Error {
    ContentMismatch { why, same: true }.into()
}

/// Tells why an object is damaged, if `error` says that it is.
pub(crate) fn damage(error: &Error) -> Option<String> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(mismatch) = cause.downcast_ref::<ContentMismatch>() {
            return mismatch.same.then(|| mismatch.why.clone());
        }
        next = cause.source();
    }
    None
}

/// Returns the length of a read that a response has announced.
///
/// # Errors
/// If it is beyond `most` bytes.
pub(super) fn read_len(told: &Range<u64>, most: u64) -> Result<u64> {
    let len = told.end.saturating_sub(told.start);
    match len <= most {
        true => Ok(len),
        false => Err(excess(format!(
            "it has {len} bytes, of which at most {most} are read"
        ))),
    }
}

/// The bytes of a body that are still to come.
pub(super) struct BodyRest(u64);

impl BodyRest {
    /// Begins with a body of `len` bytes.
    pub(super) fn new(len: u64) -> Self {
        Self(len)
    }

    /// Takes bytes that have come.
    ///
    /// # Errors
    /// If they are more than were announced.
    pub(super) fn take(&mut self, at: &Path, len: usize) -> Result<()> {
        match self.0.checked_sub(len as u64) {
            Some(rest) => {
                self.0 = rest;
                Ok(())
            }
            None => Err(Error::Generic {
                store: "answer",
                source: format!("{at}: more bytes came than were announced").into(),
            }),
        }
    }
}

/// What the objects of one listing take.
#[derive(Default)]
pub(super) struct ListingSize(u64);

impl ListingSize {
    /// Adds an object.
    ///
    /// # Errors
    /// If the listing is too long.
    pub(super) fn add(&mut self, object: ObjectMeta) -> Result<ObjectMeta> {
        self.0 += ENTRY + object.location.as_ref().len() as u64;
        match self.0 <= LISTING_MAX {
            true => Ok(object),
            false => Err(excess(too_long())),
        }
    }
}

fn too_long() -> String {
    format!("the listing does not end within {LISTING_MAX} bytes")
}

tokio::task_local! {
    /// The bytes of the pages of the listing that this task waits for.
    static PAGES: AtomicU64;
}

/// Waits for a listing of which the library collects all pages.
pub(super) async fn with_all_pages<T>(listing: impl Future<Output = T> + Send) -> T {
    LocalKey::scope(&PAGES, AtomicU64::new(0), listing).await
}

/// Counts a page of a listing.
///
/// # Errors
/// If the listing is collected as a whole and is too long; the text says so.
pub(super) fn count_page(bytes: usize) -> std::result::Result<(), String> {
    let bytes = bytes as u64;
    let total = PAGES.try_with(|pages| pages.fetch_add(bytes, Ordering::Relaxed) + bytes);
    match total {
        Ok(total) if total > LISTING_MAX => Err(too_long()),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_beyond_the_bound_is_refused_by_its_announced_length() {
        assert_eq!(read_len(&(5..9), 4).unwrap(), 4);
        for told in [5..10, 0..1 << 60, 0..u64::MAX] {
            let error = read_len(&told, 4).unwrap_err();
            let why = damage(&error).unwrap();
            assert!(why.contains("at most 4"), "{why}");
        }
    }

    #[tokio::test]
    async fn the_pages_of_one_listing_are_added_up() {
        let page = 16 << 20;
        let pages = LISTING_MAX / page as u64;
        let counted = with_all_pages(async {
            let within = (0..pages).all(|_| count_page(page).is_ok());
            (within, count_page(1).is_ok())
        });
        assert_eq!(counted.await, (true, false));
        // A listing whose pages are not collected.
        assert!((0..=pages).all(|_| count_page(page).is_ok()));
    }

    #[test]
    fn a_listing_ends_with_an_error_at_its_bound() {
        let object = ObjectMeta {
            location: Path::from("k".repeat(1000)),
            last_modified: Default::default(),
            size: 0,
            e_tag: None,
            version: None,
        };
        let mut listing = ListingSize(LISTING_MAX - 1000 - ENTRY);
        assert!(listing.add(object.clone()).is_ok());
        assert!(listing.add(object).is_err());
    }
}
