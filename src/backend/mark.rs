//! The mark of an object: its key, length and checksum, stored in its metadata. A reader compares the mark with the response,
//! and so detects a response with another object's bytes, a truncated body or an empty body.
//!
//! Invariant: the marks stay valid when a whole namespace is copied into another bucket or below another prefix.

use object_store::path::Path;
use object_store::{Attribute, Attributes, PutPayload};
use std::borrow::Cow;

/// The name of the metadata entry; Azure allows only letters in it.
const NAME: &str = "rewindfs";

/// The identity of an object, as its writer stored it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Length in bytes and CRC32C; unknown for an object that was uploaded in parts.
    content: Option<(u64, u32)>,
    /// The key, relative to the place that wrote the object.
    key: String,
}

impl Mark {
    /// The metadata attribute that holds a mark.
    pub(crate) fn name() -> Attribute {
        Attribute::Metadata(Cow::Borrowed(NAME))
    }

    /// The text of the mark of an object that is written by one request.
    pub(crate) fn text(at: &Path, payload: &PutPayload) -> String {
        let sum = payload
            .iter()
            .fold(0, |sum, part| crc32c::crc32c_append(sum, part));
        format!("{}.{sum:08x}.{at}", payload.content_length())
    }

    /// The text of the mark of an object that is uploaded in parts.
    pub(crate) fn text_of_parts(at: &Path) -> String {
        format!("..{at}")
    }

    /// The mark in `attributes`; `None` if there is none in a known format.
    pub(crate) fn of(attributes: &Attributes) -> Option<Self> {
        let text = attributes.get(&Self::name())?.as_ref();
        let mut parts = text.splitn(3, '.');
        let (len, sum, key) = (parts.next()?, parts.next()?, parts.next()?);
        let content = match (len, sum) {
            ("", "") => None,
            (len, sum) => Some((len.parse().ok()?, u32::from_str_radix(sum, 16).ok()?)),
        };
        let key = key.to_owned();
        Some(Self { content, key })
    }

    /// Tells how an object of `size` bytes with the key `at` contradicts this mark. `at` may be relative to a place above or
    /// below the one that wrote the object.
    pub(crate) fn contradicts(&self, at: &Path, size: u64) -> Option<String> {
        let within = |long: &str, short: &str| {
            long.strip_suffix(short)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        if !within(at.as_ref(), &self.key) && !within(&self.key, at.as_ref()) {
            return Some(format!("it is another object, {}", self.key));
        }
        match self.content {
            Some((len, _)) if len != size => {
                Some(format!("it has {size} bytes, written were {len}"))
            }
            _ => None,
        }
    }

    /// Tells how a whole object with the checksum `found` contradicts this mark.
    pub(crate) fn contradicts_sum(&self, found: u32) -> Option<String> {
        match self.content {
            Some((_, sum)) if sum != found => Some("its checksum does not match".to_owned()),
            _ => None,
        }
    }
}
