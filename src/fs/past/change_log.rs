//! `.versions/@log`: what changed in a directory, one line per change, oldest first, the newest `LINES_MAX` of them.
//!
//! `STAMP op size user host NAME [from NAME]`; `-` where a change has nothing to say. A removal or a move to another directory
//! is a line too (`delete`, `move`). A name's line breaks and backslashes are spelt `\xNN`.

use super::attributes;
use super::node::{Identity, LivePlace, NodeKind, PastContent, PastFile, PastObject};
use super::reader::PastReader;
use super::shown::ShownAttrs;
use super::stamp::{self, Precision};
use crate::fs::error::{FsError, FsResult};
use crate::store::{Attrs, DirectoryChange, EndOp, Ino, Kind, PastEntry};
use async_trait::async_trait;
use bytes::Bytes;

/// The most changes that a log shows.
const LINES_MAX: usize = 10_000;

/// `@log` of a live directory.
#[derive(Debug)]
pub(super) struct ChangeLog(pub(super) Ino);

#[async_trait]
impl PastObject for ChangeLog {
    fn identity(&self, _parent: u64, _name: &[u8]) -> Identity {
        Identity::new(NodeKind::ChangeLog, &[self.0.0], b"")
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Directory(self.0)
    }

    /// Readable for the users who may read the directory. Its size is known when it is opened, so that it shows none.
    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        let dir = past.live_dir(self.0).await?.attrs;
        let attrs = Attrs {
            mode: dir.mode & 0o444,
            size: 0,
            ..dir
        };
        Ok(ShownAttrs::new(attrs, past.changing_ttl()))
    }

    fn depends_on(&self) -> Option<Ino> {
        Some(self.0)
    }

    async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        past.access_list(self.0, name).await
    }
}

#[async_trait]
impl PastFile for ChangeLog {
    fn kind(&self) -> Kind {
        Kind::File
    }

    async fn open(&self, past: &PastReader) -> FsResult<PastContent> {
        past.live_dir(self.0).await?;
        past.settle_now().await;
        let changes = past
            .namespace
            .history()
            .view()
            .change_log(self.0, LINES_MAX)
            .await;
        let changes = changes.map_err(|error| FsError::from(error).by_number())?;
        let mut text = Vec::new();
        for change in &changes {
            line(&mut text, self.0, change);
        }
        Ok(PastContent::Made(text.into()))
    }
}

fn line(text: &mut Vec<u8>, dir: Ino, change: &DirectoryChange) {
    let head = match change {
        DirectoryChange::Stood { entry, .. } => format!(
            "{} {} {} {} {} ",
            stamp::print(entry.version.timestamp, Precision::Nanos),
            attributes::op(entry.op),
            size(entry),
            entry.author.uid,
            word(&entry.host),
        ),
        DirectoryChange::Left { at, how, .. } => {
            let how = match how {
                EndOp::RenamedTo => "move",
                _ => "delete",
            };
            let at = stamp::print(*at, Precision::Nanos);
            format!("{at} {how} - - - ")
        }
    };
    text.extend_from_slice(head.as_bytes());
    let (DirectoryChange::Stood { name, .. } | DirectoryChange::Left { name, .. }) = change;
    spell(text, name);
    if let DirectoryChange::Stood { entry, .. } = change
        && let Some(origin) = &entry.renamed_from
    {
        text.extend_from_slice(b" from ");
        if origin.directory != dir {
            text.extend_from_slice(b".../");
        }
        spell(text, &origin.name);
    }
    text.push(b'\n');
}

fn size(entry: &PastEntry) -> String {
    match entry.kind {
        Kind::Directory => "-".to_owned(),
        _ => entry.attrs.size.to_string(),
    }
}

fn word(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    text.replace(char::is_whitespace, "_")
}

fn spell(text: &mut Vec<u8>, name: &[u8]) {
    for byte in name {
        if byte.is_ascii_control() || *byte == b'\\' {
            text.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        } else {
            text.push(*byte);
        }
    }
}
