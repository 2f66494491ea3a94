//! `PATH@TIME`: a path in a namespace, and the time at which it is looked up.
//!
//! The text after the last `@` is a TIME if it is one in the grammar of `.versions` (`fs/past/stamp.rs`); otherwise the `@` is a part
//! of the name. An `@` at the end of the text ends the path and is removed, so that every name can be written: `a@2026@` is the
//! name `a@2026`. The rule reads the text alone, so that it means the same whatever exists. Only a label behind the `@` is looked up
//! (`label_time.rs`): it counts where nothing has or had the whole text as its name.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fs::past::stamp::TimeName;

/// A name or a path, which need not be UTF-8. In JSON it is a string, or a list of bytes where it is not UTF-8. Printed, control
/// characters, backslashes and bytes that are not UTF-8 are `\xNN`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathText(pub Bytes);

impl PathText {
    /// Returns the path of `name` in the directory that has this path; the root directory's is empty.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        match self.0.is_empty() {
            true => Self(Bytes::copy_from_slice(name)),
            false => Self([&self.0[..], b"/", name].concat().into()),
        }
    }

    /// Returns the path that these names make.
    pub(super) fn of_names(names: &[Bytes]) -> Self {
        Self(names.join(&b'/').into())
    }
}

impl fmt::Display for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character.is_control() || character == '\\' {
                    true => {
                        let mut space = [0; 4];
                        for byte in character.encode_utf8(&mut space).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    false => f.write_char(character)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(self.0.iter()),
        }
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Text(String),
            Bytes(Vec<u8>),
        }
        Ok(Self(match Spelling::deserialize(deserializer)? {
            Spelling::Text(text) => text.into(),
            Spelling::Bytes(bytes) => bytes.into(),
        }))
    }
}

/// A path from the root of a namespace, and the time at which it is looked up; without one it is looked up now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedPath {
    /// The path; the root directory's is empty.
    pub path: PathText,
    /// A TIME of the grammar of `.versions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

impl TimedPath {
    /// Reads `PATH`, `PATH@TIME` or `PATH@`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let whole = |path: &[u8]| Self {
            path: PathText(Bytes::copy_from_slice(path)),
            time: None,
        };
        let Some(at) = text.iter().rposition(|byte| *byte == b'@') else {
            return whole(text);
        };
        let (path, time) = (&text[..at], &text[at + 1..]);
        if time.is_empty() {
            return whole(path);
        }
        match std::str::from_utf8(time) {
            Ok(time) if TimeName::parse(time.as_bytes()).is_some() => Self {
                time: Some(time.to_owned()),
                ..whole(path)
            },
            _ => whole(text),
        }
    }

    /// Returns a path now.
    pub(super) fn of(path: PathText) -> Self {
        Self { path, time: None }
    }

    /// Returns the names of the path: without empty parts and `.`; `..` takes the name before it away.
    pub(super) fn names(&self) -> Vec<Bytes> {
        let mut names = Vec::new();
        for part in self.path.0.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    names.pop();
                }
                name => names.push(Bytes::copy_from_slice(name)),
            }
        }
        names
    }

    /// Returns the part of the last name after its last `@`, which is no TIME: the cause of a path that does not exist may be a
    /// time that is written in another way.
    pub(super) fn no_time(&self) -> Option<String> {
        let names = self.names();
        let name = names.last()?;
        let at = name.iter().rposition(|byte| *byte == b'@')?;
        let text = PathText(name.slice(at + 1..)).to_string();
        (self.time.is_none() && !text.is_empty()).then_some(text)
    }
}

impl fmt::Display for TimedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.0.is_empty() {
            true => f.write_str("/")?,
            false => self.path.fmt(f)?,
        }
        match &self.time {
            Some(time) => write!(f, "@{time}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        let path = TimedPath::parse(text.as_bytes());
        let time = path.time.as_deref().unwrap_or("now");
        format!("{} {time}", path.path)
    }

    #[test]
    fn what_follows_the_last_at_sign_is_a_time_if_it_is_one() {
        for (text, expected) in [
            ("d/f", "d/f now"),
            ("d/f@-1h", "d/f -1h"),
            (
                "d/f@2026-11-20 21:26:48+01:00",
                "d/f 2026-11-20 21:26:48+01:00",
            ),
            ("@-1d", " -1d"),
            ("mail@example.org", "mail@example.org now"),
            ("mail@example.org@2026", "mail@example.org 2026"),
            ("a@2026", "a 2026"),
            ("a@2026@", "a@2026 now"),
            ("a@@", "a@ now"),
            ("a@2026/f", "a@2026/f now"),
            ("a@yesterday", "a@yesterday now"),
            ("", " now"),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn a_path_is_divided_into_names() {
        let path = TimedPath::parse(b"/a//./b/../c/");
        assert_eq!(path.names(), [&b"a"[..], b"c"]);
        assert!(TimedPath::parse(b"..").names().is_empty());
        assert_eq!(
            TimedPath::parse(b"a@junk").no_time().as_deref(),
            Some("junk")
        );
        assert_eq!(TimedPath::parse(b"a@2026").no_time(), None);
        assert_eq!(TimedPath::parse(b"a@b/c").no_time(), None);
    }

    #[test]
    fn every_name_survives_json_and_is_printed_in_one_line() {
        for (name, json, printed) in [
            (&b"a b"[..], r#""a b""#, "a b"),
            (b"x\ny\\z", r#""x\ny\\z""#, r"x\x0ay\x5cz"),
            (b"\xff", "[255]", r"\xff"),
            ("caf\u{e9}".as_bytes(), "\"caf\u{e9}\"", "caf\u{e9}"),
        ] {
            let text = PathText(Bytes::copy_from_slice(name));
            assert_eq!(serde_json::to_string(&text).unwrap(), json);
            assert_eq!(serde_json::from_str::<PathText>(json).unwrap(), text);
            assert_eq!(text.to_string(), printed);
        }
    }
}
