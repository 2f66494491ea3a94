//! What an object says of itself in its metadata, so that another object's bytes, a cut body or an empty one do not pass for it.
//!
//! Invariant: a copy of a whole namespace, into another bucket or below another prefix, keeps its marks true.

use object_store::path::Path;
use object_store::{Attribute, Attributes, PutPayload};
use std::borrow::Cow;

/// The name of the metadata; Azure takes only letters here.
const NAME: &str = "rewindfs";

/// What an object says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Length and checksum; unknown for an object that is uploaded in parts.
    content: Option<(u64, u32)>,
    /// Relative to the place that wrote it.
    key: String,
}

impl Mark {
    /// The attribute that carries a mark.
    pub(crate) fn name() -> Attribute {
        Attribute::Metadata(Cow::Borrowed(NAME))
    }

    /// The mark of an object that is written at once.
    pub(crate) fn text(at: &Path, payload: &PutPayload) -> String {
        let sum = payload
            .iter()
            .fold(0, |sum, part| crc32c::crc32c_append(sum, part));
        format!("{}.{sum:08x}.{at}", payload.content_length())
    }

    /// The mark of an object that is written in parts.
    pub(crate) fn text_of_parts(at: &Path) -> String {
        format!("..{at}")
    }

    /// The mark in `attributes`, if there is one that this release knows.
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

    /// What speaks against an object of `size` bytes at `at`, relative to a place above or below the one that wrote it.
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

    /// What speaks against whole contents of the checksum `found`.
    pub(crate) fn contradicts_sum(&self, found: u32) -> Option<String> {
        match self.content {
            Some((_, sum)) if sum != found => Some("its checksum does not match".to_owned()),
            _ => None,
        }
    }
}
