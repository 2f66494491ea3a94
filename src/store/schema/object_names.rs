//! Names of a namespace's objects in the bucket: segments and log objects.

/// Name of a segment: the writer's epoch and a sequence that only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

impl SegmentId {
    /// Returns the key, relative to the namespace. The parts of the key keep every directory of a local store at 4,096
    /// entries or fewer.
    pub(crate) fn key(self) -> String {
        object_key("data", self.epoch, self.sequence)
    }

    /// Parses a key relative to the namespace; `None` if it is not a segment's.
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

/// Returns the epoch and the sequence in an object's key; `None` if it is no key of that kind.
pub(crate) fn object_numbers(kind: &str, key: &str) -> Option<(u64, u64)> {
    let digits: String = key.strip_prefix(kind)?.split('/').collect();
    let number = |part: std::ops::Range<usize>| u64::from_str_radix(digits.get(part)?, 16).ok();
    let (epoch, sequence) = (number(0..8)?, number(8..17)?);
    (object_key(kind, epoch, sequence) == key).then_some((epoch, sequence))
}
