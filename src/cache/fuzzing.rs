//! What the fuzzer calls of the files on this machine.

/// Reads the name of a file of cached blocks, and what its header describes.
pub(crate) fn block_file(bytes: &[u8]) -> bool {
    super::disk::fuzz_file(bytes)
}

/// Reads the name of a staging file.
pub(crate) fn staging_name(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(super::staging::is_name)
}
