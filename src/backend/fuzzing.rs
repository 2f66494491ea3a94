//! What the fuzzer calls of the object store's room.

use super::Mark;
use object_store::path::Path;
use object_store::{AttributeValue, Attributes};

/// Judges a response of a store.
pub(crate) fn response(bytes: &[u8]) -> bool {
    super::answer::fuzz_response(bytes)
}

/// Reads the mark of an object.
pub(crate) fn mark(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let mut attributes = Attributes::new();
    attributes.insert(Mark::name(), AttributeValue::from(text.to_owned()));
    let Some(mark) = Mark::of(&attributes) else {
        return false;
    };
    let _compared = (
        mark.contradicts(&Path::from("data/1"), 12),
        mark.contradicts_sum(7),
    );
    true
}
