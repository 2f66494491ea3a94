//! Blocks: the pieces of an object that the cache keeps, and their names.

/// How long a block is, in bytes; the last of an object may be shorter.
pub(crate) const BLOCK: u64 = 256 * 1024;

/// Block key: object id and block index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockKey {
    /// The object, unique within the cache's directory for ever.
    pub(crate) object: (u64, u64),
    /// The block's number in the object; it begins at `index * BLOCK`.
    pub(crate) index: u32,
}
