//! Names of a namespace's objects in the bucket: segments and log objects.

/// Name of a segment: the writer's epoch and a sequence that only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

impl SegmentId {
    /// Key below the namespace; no directory of it has more than 4,096 entries.
    pub(crate) fn key(self) -> String {
        object_key("data", self.epoch, self.sequence)
    }

    /// The segment at a key below the namespace; `None` if it is none's.
    pub(crate) fn from_key(key: &str) -> Option<Self> {
        let (epoch, sequence) = object_numbers("data", key)?;
        Some(Self { epoch, sequence })
    }
}

/// `KIND/eeeee/eee/sss/sss/sss`, hexadecimal.
pub(crate) fn object_key(kind: &str, epoch: u64, sequence: u64) -> String {
    format!(
        "{kind}/{:05x}/{:03x}/{:03x}/{:03x}/{:03x}",
        epoch >> 12,
        epoch & 0xfff,
        sequence >> 24,
        sequence >> 12 & 0xfff,
        sequence & 0xfff
    )
}

/// The epoch and the sequence of an object's key; `None` if it is no key of that kind.
pub(crate) fn object_numbers(kind: &str, key: &str) -> Option<(u64, u64)> {
    let digits: String = key.strip_prefix(kind)?.split('/').collect();
    let number = |part: std::ops::Range<usize>| u64::from_str_radix(digits.get(part)?, 16).ok();
    let (epoch, sequence) = (number(0..8)?, number(8..17)?);
    (object_key(kind, epoch, sequence) == key).then_some((epoch, sequence))
}
