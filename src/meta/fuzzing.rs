//! What the fuzzer calls of the journal.

/// Finds the records of a journal file, and those of a file with one good record between these bytes.
pub(crate) fn journal(bytes: &[u8]) -> bool {
    super::journal::fuzz_scan(bytes)
}
