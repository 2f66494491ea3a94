//! What the fuzzer calls of the file system.

use crate::fs::acl::Acl;
use crate::fs::past::{stamp, until};
use crate::store::Timestamp;

/// Reads a time as `.versions` and the commands do.
pub(crate) fn time(text: &[u8]) -> bool {
    let now = Timestamp(1_800_000_000_000_000_000);
    let _until = until::parse_until(text, now).is_ok();
    if let Some(period) = stamp::parse_printed(text) {
        assert!(period.first <= period.last);
        let printed = stamp::print_exact(period.last);
        assert!(
            stamp::parse_printed(printed.as_bytes()).is_some(),
            "{printed}"
        );
    }
    stamp::TimeName::parse(text).is_some()
}

/// Reads an access control list.
pub(crate) fn acl(value: &[u8]) -> bool {
    let Ok(Some(list)) = Acl::parse(value) else {
        return false;
    };
    let again = list.to_bytes();
    assert!(matches!(Acl::parse(&again), Ok(Some(parsed)) if parsed.to_bytes() == again));
    true
}
