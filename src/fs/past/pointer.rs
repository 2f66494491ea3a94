//! `latest` and `previous` in `.versions/@files/NAME`: symbolic links to the last two versions.

use super::node::{Identity, LivePlace, NodeKind, PastFile, PastObject};
use super::reader::PastReader;
use super::shown::ShownAttrs;
use crate::fs::error::FsResult;
use crate::store::{Attrs, Ino, Kind};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// The name of the link to the current version.
const LATEST: &[u8] = b"latest";
/// The name of the link to the version before the current one.
const PREVIOUS: &[u8] = b"previous";

/// Which version a link leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pointer {
    /// The current one.
    Latest,
    /// The one before it.
    Previous,
}

impl Pointer {
    /// The link that has this name.
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        match name {
            LATEST => Some(Self::Latest),
            PREVIOUS => Some(Self::Previous),
            _ => None,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Self::Latest => LATEST,
            Self::Previous => PREVIOUS,
        }
    }
}

/// One of the links, as it was when it was found. The kernel caches the target of a symbolic link for as long as it knows the
/// node, so that another target is another node.
#[derive(Debug, Clone)]
pub(super) struct PointerLink {
    /// The live directory.
    pub(super) dir: Ino,
    /// The name whose history it is in.
    pub(super) name: Bytes,
    /// Which of the two.
    pub(super) pointer: Pointer,
    /// The version's name in the history.
    pub(super) target: Bytes,
}

#[async_trait]
impl PastObject for PointerLink {
    fn identity(&self, _parent: u64, _name: &[u8]) -> Identity {
        let kind = match self.pointer {
            Pointer::Latest => NodeKind::Latest,
            Pointer::Previous => NodeKind::Previous,
        };
        // A zero byte separates the two, because no name has one.
        let path = [&self.name[..], &[0], &self.target[..]].concat();
        Identity::new(kind, &[self.dir.0], &path)
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Nowhere
    }

    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        let attrs = Attrs {
            mode: 0o777,
            size: self.target.len() as u64,
            ..past.live_dir(self.dir).await?.attrs
        };
        Ok(ShownAttrs::new(attrs, Duration::ZERO))
    }
}

#[async_trait]
impl PastFile for PointerLink {
    fn kind(&self) -> Kind {
        Kind::Symlink
    }

    fn target(&self, _past: &PastReader) -> FsResult<Bytes> {
        Ok(self.target.clone())
    }
}
