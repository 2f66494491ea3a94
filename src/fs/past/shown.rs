//! Attributes that a node of the past shows, and how long the kernel may keep them.

use crate::store::{Attrs, Ino, Kind, Stat, XattrPresence};
use std::time::Duration;

/// Bytes of a block of stat(2).
const BLOCK: u64 = 512;

/// The mode bit that lets only the owner of a file take its name away.
const STICKY: u32 = 0o1000;

/// The attributes of a node.
#[derive(Debug, Clone)]
pub(crate) struct ShownAttrs {
    /// Mode, owner, times and size.
    pub(super) attrs: Attrs,
    /// Its link count.
    pub(super) links: u32,
    /// Its blocks of 512 bytes.
    pub(super) blocks: u64,
    /// How long the kernel may keep them.
    pub(super) ttl: Duration,
}

impl ShownAttrs {
    /// Attributes of a node with one link, which occupies what its size says. One link tells find(1) that subdirectories are not
    /// counted, which disables its leaf optimization.
    pub(super) fn new(attrs: Attrs, ttl: Duration) -> Self {
        Self {
            links: 1,
            blocks: attrs.size.div_ceil(BLOCK),
            attrs,
            ttl,
        }
    }

    /// The same with the number of bytes that are stored.
    pub(super) fn with_allocated(self, bytes: u64) -> Self {
        Self {
            blocks: bytes.min(self.attrs.size).div_ceil(BLOCK),
            ..self
        }
    }

    /// Those of a virtual directory: it is open to the users to whom the live directory is open, with the owner's write bit, so
    /// that the kernel passes a change on and the caller gets EROFS instead of EACCES.
    pub(super) fn mirror(dir: &Stat, ttl: Duration) -> Self {
        let attrs = Attrs {
            mode: dir.attrs.mode & 0o777,
            size: 0,
            ..dir.attrs.clone()
        };
        Self::new(attrs, ttl)
    }

    /// The same with the directory's sticky bit, for one from which names are taken.
    pub(super) fn mirror_with_sticky(dir: &Stat, ttl: Duration) -> Self {
        let mut shown = Self::mirror(dir, ttl);
        shown.attrs.mode |= dir.attrs.mode & STICKY;
        shown
    }

    /// The attributes as stat(2) shows them for the node `number`.
    pub(super) fn into_stat(self, number: u64, kind: Kind) -> Stat {
        Stat {
            ino: Ino(number),
            generation: 0,
            kind,
            nlink: self.links,
            blocks: self.blocks,
            content_stamp: 0,
            xattrs: XattrPresence::Possible,
            attrs: self.attrs,
        }
    }
}
