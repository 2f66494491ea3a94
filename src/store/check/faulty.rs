//! Keys of rows with a fault, the first of which are named.

use bytes::Bytes;

/// Findings of a kind that are named; further ones are counted.
pub(crate) const NAMED_MAX: usize = 1_000;

/// Keys of rows with a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FaultyKeys {
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) keys: Vec<Bytes>,
}

impl FaultyKeys {
    pub(crate) fn add(&mut self, key: &[u8]) {
        self.count += 1;
        if self.keys.len() < NAMED_MAX {
            // A copy: a row may share its memory with a block of the index.
            self.keys.push(Bytes::copy_from_slice(key));
        }
    }
}
