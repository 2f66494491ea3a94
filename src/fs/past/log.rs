//! `.versions/@log`: what changed in a directory, one line per change, oldest first, the newest `LINES_MAX` of them.
//!
//! `STAMP op size user host NAME [from NAME]`; `-` where a change has nothing to say. A removal or a move to another directory
//! is a line too (`delete`, `move`). A name's line breaks and backslashes are spelt `\xNN`.

use super::Past;
use super::attributes;
use super::node::{PastKind, PastNode};
use super::stamp::{self, Precision};
use crate::fs::error::{FsError, FsResult};
use crate::store::{Attrs, DirectoryChange, EndOp, Ino, Kind, PastEntry, Stat};
use bytes::Bytes;

/// Changes that a log tells at most.
const LINES_MAX: usize = 10_000;

impl Past {
    /// The text of a node that is made when it is opened; `None` for every other.
    ///
    /// # Errors
    /// `Stale` when its directory is gone.
    pub(crate) async fn text(&self, node: &PastNode) -> FsResult<Option<Bytes>> {
        match node.what() {
            PastKind::Log(dir) => Ok(Some(self.log_of(*dir).await?)),
            _ => Ok(None),
        }
    }

    async fn log_of(&self, dir: Ino) -> FsResult<Bytes> {
        self.live_dir(dir).await?;
        self.namespace.history().settle(self.namespace.now()).await;
        let changes = self
            .namespace
            .history()
            .view()
            .change_log(dir, LINES_MAX)
            .await;
        let changes = changes.map_err(|error| FsError::from(error).by_number())?;
        let mut text = Vec::new();
        for change in &changes {
            line(&mut text, dir, change);
        }
        Ok(text.into())
    }
}

/// The attributes of the log of a live directory: readable for whom the directory is.
pub(super) fn attrs(dir: &Stat) -> Attrs {
    Attrs {
        mode: dir.attrs.mode & 0o444,
        size: 0,
        ..dir.attrs.clone()
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
