//! How the log names a number: by its path and its version.
//!
//! The kernel references every directory above an inode that it references, so the tables of this room have the names of the path,
//! also when the store fails.

use crate::fs::FileSystem;
use crate::fs::past::stamp::{Precision, print};
use crate::fs::past::{LivePlace, PastNode, is_past};
use crate::store::{Ino, ROOT, Timestamp};
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// The longest wait for the version, whose row may have to be read.
const VERSION_WAIT: Duration = Duration::from_millis(200);

/// The deepest path: a longer one is a loop, which renames during the walk can make.
const DEPTH_MAX: usize = 4_096;

/// A path below the root, or a number where no path is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    path: Option<String>,
    ino: u64,
    version: Option<Timestamp>,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) if path.is_empty() => f.write_str("the root directory")?,
            Some(path) => f.write_str(path)?,
            None => write!(f, "inode {}", self.ino)?,
        }
        match self.version {
            Some(version) => write!(f, ", version {}", print(version, Precision::Nanos)),
            None => Ok(()),
        }
    }
}

impl FileSystem {
    /// The path and the version of a number: of a live file the last version, of a node of the past the one it shows.
    pub(crate) async fn named(&self, ino: u64) -> Named {
        if !is_past(ino) {
            let version = timeout(
                VERSION_WAIT,
                self.namespace().history().last_version(Ino(ino)),
            )
            .await;
            return Named {
                path: self.live_path(Ino(ino)),
                ino,
                version: version.unwrap_or_default(),
            };
        }
        let node = self.past().node(ino);
        let node = node.as_deref();
        Named {
            path: node.and_then(|node| self.past_path(node, DEPTH_MAX)),
            ino,
            version: node.and_then(|node| node.object().timestamp()),
        }
    }

    fn live_path(&self, ino: Ino) -> Option<String> {
        let (mut ino, mut names) = (ino, Vec::new());
        while ino != ROOT {
            let (parent, name) = self.live.name_of(ino)?;
            names.push(name);
            ino = parent;
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        let names = names.iter().rev();
        Some(names.fold(String::new(), |path, name| joined(&path, name)))
    }

    /// The path of what a node shows, as if it were in the live tree.
    fn past_path(&self, node: &PastNode, depth: usize) -> Option<String> {
        let place = node.object().live_place();
        match place {
            LivePlace::Directory(dir) => return self.live_path(dir),
            LivePlace::Name(dir, name) => return Some(joined(&self.live_path(dir)?, name)),
            LivePlace::Child(_) | LivePlace::Nowhere => {}
        }
        let above = self.past().node(node.parent())?;
        let above_path = self.past_path(&above, depth.checked_sub(1)?)?;
        match (above.object().live_place(), place) {
            // A version in `@files/NAME` is one of NAME.
            (LivePlace::Name(..), _) => Some(above_path),
            (_, LivePlace::Child(name)) => Some(joined(&above_path, name)),
            _ => None,
        }
    }
}

/// A path and a name below it, fit for a line of text.
fn joined(path: &str, name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{path}{slash}{}", name.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_stays_one_line() {
        let named = |path: &str, version| Named {
            path: (!path.is_empty()).then(|| joined("a", path.as_bytes())),
            ino: 7,
            version,
        };
        assert_eq!(named("b\nc", None).to_string(), "a/b\\nc");
        assert_eq!(named("", None).to_string(), "inode 7");
        let version = Some(Timestamp(1_800_000_000_123_000_000));
        assert_eq!(
            named("b", version).to_string(),
            "a/b, version 2027-01-15T08-00-00.123000000Z"
        );
    }
}
