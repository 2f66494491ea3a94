//! Texts that the past shows as files.

use bytes::Bytes;

/// At most `len` bytes of a text from `offset` on.
pub(crate) fn part(text: &Bytes, offset: u64, len: u32) -> Bytes {
    // A position beyond 64 bits of memory is beyond the end.
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(text.len());
    let end = start.saturating_add(len as usize).min(text.len());
    text.slice(start..end)
}
