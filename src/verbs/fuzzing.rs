//! What the fuzzer calls of the questions about a path.

use super::path::TimedPath;

/// Reads `PATH@TIME`.
pub(crate) fn path(text: &[u8]) -> bool {
    let path = TimedPath::parse(text);
    let names = path.names();
    assert!(
        names
            .iter()
            .all(|name| !name.is_empty() && !name.contains(&b'/'))
    );
    path.time.is_some()
}
