//! What the fuzzer calls of the journal and of the index's files.

/// Finds the records of a journal file, and those of a file with one good record between these bytes.
pub(crate) fn journal(bytes: &[u8]) -> bool {
    super::journal::fuzz_scan(bytes)
}

/// Checks the form of an object of the index, and its checksum.
pub(crate) fn index_object(bytes: &[u8]) -> bool {
    super::slate::fuzz_object(bytes)
}

/// Reads a file with a part of a table, with these bytes and a right checksum.
pub(crate) fn table_file(bytes: &[u8]) -> bool {
    super::slate::fuzz_window(bytes)
}

/// A token that keeps nothing, for records without a journal.
pub(crate) fn token() -> super::JournalToken {
    super::journal::loose_token()
}
