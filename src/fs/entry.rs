//! Replies that many calls share: what a lookup found, and an open handle.

use crate::store::Stat;
use std::time::Duration;

/// What a lookup found, and how long the kernel may keep it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The node; `stat.ino` is its number.
    pub stat: Stat,
    /// How long the name means this node.
    pub entry_ttl: Duration,
    /// How long the attributes hold.
    pub attr_ttl: Duration,
}

/// An open handle, and what the kernel may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub handle: u64,
    /// The pages of earlier opens are still right.
    pub keep_cache: bool,
    /// No FLUSH is needed: it can change nothing.
    pub no_flush: bool,
    /// The kernel may keep the names of this directory.
    pub cache_dir: bool,
    /// Reads and writes must not go through the page cache.
    pub direct: bool,
}
