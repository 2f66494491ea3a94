//! Records of the local journal: every acknowledged change, in the order of the answers.
//!
//! Replaying the records of a write session (open, writes, truncations, flushes) into an empty dirty map gives the map
//! that the daemon had. The record of an operation has the rows it commits, and names the flushed state whose bytes are
//! its content.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::cache::DirtySnapshot;
use crate::meta::Batch;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{ContentBase, Dentry, UsageChange};
use crate::store::model::version::{Attrs, Author, ContentRef, Ino, Timestamp};

const FORMAT: u8 = 1;

/// A journal record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A writer opened the namespace and got this epoch.
    Epoch { epoch: u64 },
    /// A write session of an inode begins: the records that follow change `base`, which is `len` bytes long.
    Open {
        session: u64,
        ino: Ino,
        base: Option<ContentBase>,
        len: u64,
        author: Author,
        /// The epoch of the writer.
        epoch: u64,
        /// The name of the inode when the session began; `None` for an inode without a name.
        place: Option<Dentry>,
    },
    /// A write whose bytes are in this record.
    Write {
        session: u64,
        offset: u64,
        bytes: Bytes,
    },
    /// A write whose bytes are in staging file `file`, from `position` on.
    Staged {
        session: u64,
        offset: u64,
        len: u64,
        file: u64,
        position: u64,
        checksum: u32,
    },
    /// `len` bytes from `offset` on became zeros.
    Punch { session: u64, offset: u64, len: u64 },
    /// The length changed from `old_len` to `len`.
    Truncate {
        session: u64,
        len: u64,
        old_len: u64,
    },
    /// The state of the file at this moment was recorded by flush(2).
    Flush(FlushRecord),
    /// A flushed state that a later one of the same handle replaced.
    CancelFlush { session: u64, at: Timestamp },
    /// An operation was acknowledged.
    Operation(Box<OperationRecord>),
    /// A batch is about to be committed to the index. The log repeats its rows.
    Batch {
        epoch: u64,
        number: u64,
        rows: Bytes,
    },
    /// A write whose bytes are those of another content, from `position` in it on.
    Refer {
        session: u64,
        offset: u64,
        len: u64,
        content: ContentRef,
        position: u64,
    },
    /// If the operation that has content `new` is in the index, `new` stands for `old`.
    Renamed { old: ContentRef, new: ContentRef },
    /// A recovery left an operation out, because its bytes, or those of one that it depends on, did not survive the machine.
    LostOperation { epoch: u64, number: u64 },
    /// A recovery took back all changes of a session after the one with this number, because bytes of later ones did not survive the machine.
    Reverted { session: u64, change: u64 },
    /// The first record of a file: no operation of the epoch that was journaled before it has a higher number.
    Journaled { epoch: u64, number: u64 },
}

/// A flushed state of a write session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FlushRecord {
    pub(crate) session: u64,
    pub(crate) ino: Ino,
    pub(crate) at: Timestamp,
    pub(crate) attrs: Attrs,
    pub(crate) author: Author,
}

/// An operation of the queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OperationRecord {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) rows: Batch,
    pub(crate) dependencies: Dependencies,
    pub(crate) content: Option<ContentRecord>,
    /// The flushed state it commits, if that needs no upload.
    pub(crate) byteless_flush: Option<BytelessFlush>,
    /// What it adds to the namespace's bytes and files.
    pub(crate) usage: UsageChange,
    /// No inode, lineage, write session or staging file has a number at or above it yet.
    pub(crate) next_id: u64,
}

/// The read and write set of an operation: it is committed after earlier operations with which it shares a part of the set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Dependencies {
    /// Keys of the rows of inodes, directory entries and counts that it reads or writes.
    pub(crate) touches: Vec<Bytes>,
    /// Directories whose names it changes.
    pub(crate) within: Vec<Ino>,
    /// Ancestors of those directories; recorded only while a move of a directory is queued.
    pub(crate) below: Vec<Ino>,
    /// Directories it creates.
    pub(crate) makes: Vec<Ino>,
    /// Directories it moves.
    pub(crate) moves: Vec<Ino>,
    /// Directories it removes or replaces: it waits for every earlier operation in them.
    pub(crate) removes: Vec<Ino>,
}

/// A flushed state without written bytes: the file was empty, or had the bytes of its base.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BytelessFlush {
    pub(crate) session: u64,
    pub(crate) flush: Timestamp,
    /// The content that later writes of the session change.
    pub(crate) base: Option<ContentBase>,
}

/// The new content of an operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContentRecord {
    pub(crate) session: u64,
    /// The flushed state of that session whose spans it has.
    pub(crate) flush: Timestamp,
    pub(crate) content: ContentRef,
    pub(crate) ino: Ino,
    pub(crate) place: Dentry,
    pub(crate) base: Option<ContentBase>,
    pub(crate) len: u64,
    /// The provisional state of its lineage that it takes the place of.
    pub(crate) replaces: Option<Timestamp>,
    /// Contents that its spans refer to, and their names now; `None`: the content no longer exists and reads as zeros.
    pub(crate) renamed: Vec<(ContentRef, Option<ContentRef>)>,
}

impl ContentRecord {
    /// Returns the spans with the names that the contents they refer to have now.
    pub(crate) fn referring(&self, flushed: DirtySnapshot) -> DirtySnapshot {
        if self.renamed.is_empty() {
            return flushed;
        }
        flushed.referring(|of| {
            let known = self.renamed.iter().find(|(old, _)| old.referent() == of);
            known.map_or(Some(of), |(_, new)| new.map(ContentRef::referent))
        })
    }
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let large = match self {
            Self::Batch { rows, .. } => rows.len(),
            _ => 0,
        };
        let mut bytes = Vec::with_capacity(large + 32);
        bytes.push(FORMAT);
        // proof: records are plain data, which serializes into a Vec always.
        postcard::to_extend(self, bytes).expect("records are plain data")
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, StoreError> {
        match payload.split_first() {
            Some((&FORMAT, body)) => postcard::from_bytes(body)
                .map_err(|e| StoreError::Corrupt(format!("journal record: {e}"))),
            Some((format, _)) => Err(StoreError::Corrupt(format!(
                "journal record of format {format}; use a newer rewindfs"
            ))),
            None => Err(StoreError::Corrupt("empty journal record".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_record_decodes_and_an_unknown_format_is_refused() {
        let record = Record::Write {
            session: 3,
            offset: 9,
            bytes: Bytes::from_static(b"abc"),
        };
        let mut bytes = record.encode();
        assert!(matches!(
            Record::decode(&bytes),
            Ok(Record::Write {
                session: 3,
                offset: 9,
                ..
            })
        ));
        bytes[0] = 2;
        assert!(
            Record::decode(&bytes)
                .unwrap_err()
                .to_string()
                .contains("format 2")
        );
    }
}
