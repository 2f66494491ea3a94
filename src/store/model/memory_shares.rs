//! The parts of `--memory`: each thing that grows with the work has one, so that all together stay within it.

/// The smallest `--memory`, bytes: one segment can be built, and the index can write its tables.
pub const MEMORY_MIN: u64 = 64 << 20;

/// How the memory of a namespace is divided, in bytes. The shares add up to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryShares {
    /// Cached blocks of contents.
    pub(crate) blocks: u64,
    /// Blocks that are fetched ahead of all readers.
    pub(crate) read_ahead: u64,
    /// Written bytes of small files until the bucket has them; more are in staging files only.
    pub(crate) unsaved: u64,
    /// Segments that are built and uploaded.
    pub(crate) uploads: u64,
    /// Cached table indexes, filters and blocks of rows of the index.
    pub(crate) index_cache: u64,
    /// Rows of the index that are in no table yet.
    pub(crate) index_rows: u64,
    /// What is not counted where it is used: operations that wait for the bucket, and tables that the index merges.
    uncounted: u64,
}

impl MemoryShares {
    /// Divides `memory` bytes.
    pub(crate) fn of(memory: u64) -> Self {
        let part = memory / 32;
        let shares = Self {
            blocks: 0,
            read_ahead: 5 * part,
            unsaved: 3 * part,
            uploads: 4 * part,
            index_cache: 7 * part,
            index_rows: 3 * part,
            uncounted: 2 * part,
        };
        let blocks = memory - shares.sum_of_shares();
        Self { blocks, ..shares }
    }

    fn sum_of_shares(&self) -> u64 {
        self.blocks
            + self.read_ahead
            + self.unsaved
            + self.uploads
            + self.index_cache
            + self.index_rows
            + self.uncounted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_the_whole_and_one_segment_fits_into_the_smallest() {
        for memory in [MEMORY_MIN, (256 << 20) + 17, 3 << 30] {
            let shares = MemoryShares::of(memory);
            assert_eq!(shares.sum_of_shares(), memory);
            assert!(shares.uploads >= 8 << 20 && shares.index_rows >= 4 << 20);
            assert!(shares.blocks >= memory / 4);
        }
    }
}
