//! Configuration of an open namespace, and the rule for its name.

use std::path::PathBuf;
use std::time::Duration;

use crate::store::model::error::StoreError;
use crate::store::model::takeover::{LeaseTimes, Takeover};

/// How long the upload of small files is delayed, so that more of them share a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// Until a segment is full, or for one second.
    AtOnce,
    /// Until a segment is full, or for this time.
    For(Duration),
}

/// A user and a group. The default is root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Local resources of a namespace, and its settings.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    /// Directory for the journal, staging files and cached blocks. Each namespace has a subdirectory, named by its uuid.
    pub cache_dir: PathBuf,
    /// Size of the caches of blocks and of the index's tables on disk, bytes.
    pub cache_bytes: u64,
    /// Memory for everything that grows with the work, at least [`MEMORY_MIN`](crate::store::MEMORY_MIN) bytes for a mount: caches,
    /// requests, and what is not uploaded. Inodes that the kernel references come beside it.
    pub memory_bytes: u64,
    /// Dirty budget: maximum of bytes that are acknowledged and not in the bucket. Writers wait while it is used up.
    pub dirty_bytes_max: u64,
    /// How long small files wait for others to share a segment with.
    pub linger: Linger,
    /// Name of this machine, as versions record it.
    pub host: String,
    /// User and group of the root directory of a new namespace.
    pub owner: Owner,
    /// When garbage collection runs.
    pub reclaim: GcMode,
    /// Grace period: how long a segment stays in the bucket after the last row that cites it was removed. It must exceed
    /// the time that a reader, on this machine or another one, takes from reading a row to reading the segment.
    pub grace: Duration,
    /// When the log begins again with a list of all rows.
    pub checkpoints: CheckpointLimits,
    /// What the opening for writing does about another writer that may be alive.
    pub takeover: Takeover,
    /// The times of the writer's lease.
    pub lease: LeaseTimes,
    /// How long a write waits for room in the dirty budget while nothing reaches the bucket; `None`: as long as its caller.
    pub backend_timeout: Option<Duration>,
}

impl NamespaceConfig {
    /// The part of the cache on disk that is for the index's tables, bytes.
    pub(crate) fn table_bytes(&self) -> u64 {
        (self.cache_bytes / 16).min(512 << 20)
    }
}

/// When a checkpoint of the log is made, and in which steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointLimits {
    /// A checkpoint is made when the log objects since the last one are this many times as large as the last one,
    pub factor: u64,
    /// and at least this large, in bytes. An object counts as at least 16 KiB.
    pub min_bytes: u64,
    /// Approximate size of one object of a checkpoint, in bytes.
    pub part_bytes: usize,
}

impl Default for CheckpointLimits {
    fn default() -> Self {
        Self {
            factor: 2,
            min_bytes: 64 << 20,
            part_bytes: 8 << 20,
        }
    }
}

/// When garbage collection runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GcMode {
    /// Periodically, in a task, while the namespace is open.
    #[default]
    Always,
    /// Only when `Gc::reclaim` is called.
    OnRequest,
}

/// The names of what lies directly below a namespace.
const RESERVED: [&str; 6] = [
    "meta",
    "data",
    "log",
    "epochs",
    "namespace.json",
    "writer.json",
];

/// Checks a namespace's name: parts of lowercase letters, digits, `-`, `_` and `.`, separated by `/`.
///
/// # Errors
/// `Invalid` with the reason.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let bad = |why: &str| {
        Err(StoreError::Invalid(format!(
            "namespace name {name:?}: {why}"
        )))
    };
    if name.len() > 200 {
        return bad("longer than 200 bytes");
    }
    for part in name.split('/') {
        let plain =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if part.is_empty() {
            return bad("an empty part; write it like team/eu");
        }
        if part.chars().all(|c| c == '.') {
            return bad("a part of dots only");
        }
        if !part.chars().all(plain) {
            return bad("only a-z, 0-9, '-', '_', '.' and '/' may be in it");
        }
        if RESERVED.contains(&part) {
            return bad(
                "'meta', 'data', 'log', 'epochs', 'namespace.json' and 'writer.json' are reserved by the format",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_names_are_checked_with_a_reason() {
        for good in ["default", "team/eu", "a.b-c_1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a//b",
            "/a",
            "a/",
            "..",
            "A",
            "a b",
            "x/meta",
            "x/writer.json",
            &"a".repeat(201),
        ] {
            let error = check_name(bad).unwrap_err().to_string();
            assert!(error.contains("namespace name"), "{bad}: {error}");
        }
    }
}
