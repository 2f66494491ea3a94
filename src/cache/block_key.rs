//! The unit of caching: a block of an object, its size and its key.

/// The size of a block, in bytes; the last block of an object may be shorter.
pub(crate) const BLOCK: u64 = 256 * 1024;

/// Block key: object id and block index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockKey {
    /// The object: a number that is never reused within the cache's directory.
    pub(crate) object: (u64, u64),
    /// The number of the block in the object; the block begins at `index * BLOCK`.
    pub(crate) index: u32,
}
