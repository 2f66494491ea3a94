//! The time whose whole tree a mount with `--at` shows.

use crate::fs::past::stamp::TimeName;
use crate::store::check_label_name;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// A time whose whole tree a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountTime {
    text: String,
    /// What it means.
    pub(crate) meaning: MountTimeMeaning,
}

/// What the text of `--at` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountTimeMeaning {
    /// A time.
    Time(TimeName),
    /// A label of the root directory.
    Label(Vec<u8>),
}

impl fmt::Display for MountTime {
    /// As the user wrote it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl MountTime {
    /// Reads a time in the grammar of `.versions`, or the name of a label; `None` for everything else.
    pub(super) fn parse(text: &OsStr) -> Option<Self> {
        let bytes = text.as_bytes();
        let meaning = match TimeName::parse(bytes) {
            Some(name) => MountTimeMeaning::Time(name),
            None => {
                check_label_name(bytes).ok()?;
                MountTimeMeaning::Label(bytes.to_vec())
            }
        };
        Some(Self {
            text: text.to_string_lossy().into_owned(),
            meaning,
        })
    }
}
