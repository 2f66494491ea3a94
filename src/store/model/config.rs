//! What a namespace is opened with, and the form of its name.

use std::path::PathBuf;
use std::time::Duration;

use crate::store::model::error::StoreError;

/// When close(2) returns, seen from the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// Uploads begin as soon as a segment is full or a second has passed.
    AtOnce,
    /// Uploads of small files may be gathered for so long.
    For(Duration),
}

/// What a namespace needs to know about its machine.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    /// Directory for the journal, staging files and cached blocks; one subdirectory per namespace is made in it.
    pub cache_dir: PathBuf,
    /// Bytes of blocks kept on disk.
    pub cache_bytes: u64,
    /// Bytes of blocks kept in memory.
    pub memory_bytes: u64,
    /// Bytes acknowledged but not in the bucket, at most; beyond it writers wait.
    pub dirty_bytes_max: u64,
    /// How long small files wait for company.
    pub linger: Linger,
    /// Name of this machine, for versions.
    pub host: String,
    /// Owner of the root directory, when the namespace is made.
    pub owner: (u32, u32),
    /// When what nothing shows any more is removed from the bucket.
    pub reclaim: GcMode,
    /// How long an object stays after the last row that cites it has gone: longer than any reader, here or elsewhere, takes.
    pub grace: Duration,
}

/// When what nothing shows any more is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GcMode {
    /// By a task, as long as the namespace is open.
    #[default]
    Always,
    /// When `Gc::reclaim` is called.
    OnRequest,
}

/// Checks a namespace's name: parts of lowercase letters, digits, `-`, `_` and `.`, separated by `/`.
///
/// # Errors
/// `Invalid`, saying what is wrong with it.
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
        if matches!(part, "meta" | "data" | "log" | "epochs") {
            return bad("'meta', 'data', 'log' and 'epochs' are taken by the format");
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
            &"a".repeat(201),
        ] {
            let error = check_name(bad).unwrap_err().to_string();
            assert!(error.contains("namespace name"), "{bad}: {error}");
        }
    }
}
