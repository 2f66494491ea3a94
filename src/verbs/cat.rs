//! `cat`: the bytes of a state of a file.

use bytes::Bytes;

use super::error::VerbError;
use super::path::TimedPath;
use super::reader::{NodeState, PathReader};
use super::rows::{BytesRow, RowSender, VerbRow, kind_name};
use crate::store::{Kind, PastEntry, StoreError};

/// Bytes in one row.
const PIECE: u32 = 256 << 10;

/// Sends the bytes of a file in order.
pub(super) async fn cat(
    reader: &PathReader,
    path: &TimedPath,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let failed = VerbError::at(path);
    let entry = match reader.state(path).await?.node {
        NodeState::Directory(_) => {
            let path = path.to_string();
            return Err(VerbError::IsDirectory { path });
        }
        NodeState::Other(entry) => entry,
    };
    if entry.kind != Kind::File {
        return Err(VerbError::NotFile {
            path: path.to_string(),
            kind: kind_name(entry.kind),
        });
    }
    // Holds the bytes while they are sent, if the version is deleted meanwhile.
    let data = reader.namespace.data();
    let _pin = data.hold_standing(&entry).await.map_err(&failed)?;
    let mut offset = 0;
    while offset < entry.attrs.size {
        let bytes = piece(reader, &entry, offset).await.map_err(&failed)?;
        offset += bytes.len() as u64;
        let side = None;
        rows.put_row(VerbRow::Bytes(BytesRow { side, bytes }))
            .await?;
    }
    Ok(())
}

/// Reads the next bytes of a file.
///
/// # Errors
/// `Corrupt` if the file ends before its length; those of the read.
pub(super) async fn piece(
    reader: &PathReader,
    entry: &PastEntry,
    offset: u64,
) -> Result<Bytes, StoreError> {
    let history = reader.namespace.history();
    let bytes = history.read_past(entry, offset, PIECE).await?;
    match bytes.is_empty() {
        true => Err(StoreError::Corrupt(
            "a version has fewer bytes than its recorded size".to_owned(),
        )),
        false => Ok(bytes),
    }
}
