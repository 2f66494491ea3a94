//! How a mount shows a namespace.

use crate::store::Timestamp;
use std::time::Duration;

/// When close(2) returns, and when the bucket has the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncOn {
    /// close returns when the state is in the local journal; the upload starts at once.
    Release,
    /// close returns when the bucket has the state.
    Close,
    /// close returns when the state is in the local journal; the upload starts within an interval.
    Interval,
}

/// How a mount shows a namespace.
#[derive(Debug, Clone)]
pub struct FsConfig {
    /// How long the kernel may keep names and attributes of the live tree.
    pub live_ttl: Duration,
    /// How long the kernel may keep final names and attributes of the past.
    pub past_ttl: Duration,
    /// The reserved name that leads to the past.
    pub versions_name: Vec<u8>,
    /// When close(2) returns.
    pub sync_on: SyncOn,
    /// Refuses every change; another process may write the namespace.
    pub read_only: bool,
    /// With `read_only`, shows the whole tree as of this timestamp instead of the live one. The root directory existed then, and no
    /// change can still come in at or before it.
    pub shown_at: Option<Timestamp>,
    /// Shows this owner for everything.
    pub uid: Option<u32>,
    /// Shows this group for everything.
    pub gid: Option<u32>,
    /// Hides these mode bits of everything.
    pub umask: Option<u32>,
}

impl Default for FsConfig {
    fn default() -> Self {
        Self {
            live_ttl: Duration::from_secs(60),
            past_ttl: Duration::from_secs(86_400),
            versions_name: b".versions".to_vec(),
            sync_on: SyncOn::Release,
            read_only: false,
            shown_at: None,
            uid: None,
            gid: None,
            umask: None,
        }
    }
}
