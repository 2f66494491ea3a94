//! Keys of blobs: paths below the root of a namespace, as bytes.

use bytes::Bytes;

use super::error::BlobError;
use crate::store::NAME_MAX;

/// Maximum length of a key in bytes: the longest path that a program below a mount can use (`PATH_MAX` without its
/// NUL).
pub const KEY_MAX: usize = 4095;

/// The directory in which a mount shows past versions; no part of a key may have this name.
const RESERVED: &[u8] = b".versions";

/// A validated key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectKey(Bytes);

impl ObjectKey {
    pub(super) fn new(key: &[u8]) -> Result<Self, BlobError> {
        match fault(key) {
            None => Ok(Self(Bytes::copy_from_slice(key))),
            Some(reason) => Err(BlobError::InvalidKey {
                key: String::from_utf8_lossy(key).into_owned(),
                reason,
            }),
        }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Returns the names of the directories of the key, outermost first.
    pub(super) fn directories(&self) -> impl DoubleEndedIterator<Item = Bytes> + '_ {
        let end = self.0.len() - self.name().len();
        let above = self.0[..end].strip_suffix(b"/");
        above
            .into_iter()
            .flat_map(|above| above.split(|b| *b == b'/'))
            .map(|part| self.0.slice_ref(part))
    }

    /// Returns the last part of the key.
    pub(super) fn name(&self) -> Bytes {
        let last = self.0.iter().rposition(|b| *b == b'/');
        self.0.slice(last.map_or(0, |at| at + 1)..)
    }
}

fn fault(key: &[u8]) -> Option<&'static str> {
    if key.is_empty() {
        return Some("it is empty");
    }
    if key.len() > KEY_MAX {
        return Some("it is longer than 4095 bytes");
    }
    if key.contains(&0) {
        return Some("it has a NUL byte");
    }
    key.split(|b| *b == b'/').find_map(|part| match part {
        b"" => Some("it has a slash at an end, or two in a row"),
        b"." | b".." => Some("'.' and '..' cannot be parts of a key"),
        RESERVED => Some("'.versions' is reserved: a mount shows the past below it"),
        part if part.len() > NAME_MAX => Some("a part is longer than 255 bytes"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_key_is_refused_with_the_reason() {
        let long = "a".repeat(256);
        let deep = "a/".repeat(2048) + "a";
        for (bad, why) in [
            ("", "empty"),
            ("/a", "slash"),
            ("a/", "slash"),
            ("a//b", "slash"),
            ("a/./b", "'.'"),
            ("..", "'..'"),
            ("a\0b", "NUL"),
            ("a/.versions/b", "the past"),
            (&long, "255"),
            (&deep, "4095"),
        ] {
            let error = ObjectKey::new(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        for good in [
            "a",
            "meta/current/x",
            "a b/\u{e9}",
            ".a",
            "..a/b..",
            &long[1..],
        ] {
            assert!(ObjectKey::new(good.as_bytes()).is_ok(), "{good}");
        }
        assert!(ObjectKey::new(b"\xff\xfe/\x01").is_ok());
    }

    #[test]
    fn a_key_is_split_at_its_slashes() {
        let key = ObjectKey::new(b"a/b/c").unwrap();
        let parts: Vec<Bytes> = key.directories().collect();
        assert_eq!(parts, [&b"a"[..], b"b"]);
        assert_eq!(&key.name()[..], b"c");
        let key = ObjectKey::new(b"alone").unwrap();
        assert_eq!(key.directories().count(), 0);
        assert_eq!(&key.name()[..], b"alone");
    }
}
