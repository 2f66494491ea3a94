//! What the fuzzer calls of the mounting.

/// Reads a table of mounts, in which every user of the machine may have lines.
pub(crate) fn mounts(text: &[u8]) -> bool {
    super::mountpoint::count(text) > 0
}
