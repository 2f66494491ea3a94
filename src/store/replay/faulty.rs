//! The keys of faulty rows that a check found: a count, and the first keys of bounded number.

use bytes::Bytes;

/// Maximum number of findings of one kind that are named; further findings are only counted.
pub(crate) const NAMED_MAX: usize = 1_000;

/// Keys of rows with a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FaultyKeys {
    pub(crate) count: u64,
    /// The first `NAMED_MAX` keys.
    pub(crate) keys: Vec<Bytes>,
}

impl FaultyKeys {
    pub(crate) fn add(&mut self, key: &[u8]) {
        self.count += 1;
        if self.keys.len() < NAMED_MAX {
            // A copy, because the row may share its memory with a block of the index and would keep the whole block in
            // memory.
            self.keys.push(Bytes::copy_from_slice(key));
        }
    }
}
