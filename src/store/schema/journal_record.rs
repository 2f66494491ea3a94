//! What the local journal holds: every acknowledged change, in the order of the answers.
//!
//! Replaying the records of a working (open, writes, truncations, fixes, rebases) through a fresh dirty map gives the map the
//! daemon had; operations carry the rows they commit and name the fix whose bytes they bring.

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
    /// A writer's epoch began.
    Epoch { epoch: u64 },
    /// An inode has unsealed writes over this base from now on.
    Open {
        session: u64,
        ino: Ino,
        base: Option<ContentBase>,
        len: u64,
        author: Author,
        /// The writer's epoch, and where the inode hung.
        epoch: u64,
        place: Option<Dentry>,
    },
    /// Bytes, here.
    Write {
        session: u64,
        offset: u64,
        bytes: Bytes,
    },
    /// Bytes, in a staging file.
    Staged {
        session: u64,
        offset: u64,
        len: u64,
        file: u64,
        position: u64,
        checksum: u32,
    },
    /// Zeros.
    Punch { session: u64, offset: u64, len: u64 },
    /// A new length.
    Truncate {
        session: u64,
        len: u64,
        old_len: u64,
    },
    /// A state was fixed.
    Flush(FlushRecord),
    /// A fix that a later one of the same handle replaced.
    CancelFlush { session: u64, at: Timestamp },
    /// An operation was acknowledged.
    Operation(Box<OperationRecord>),
    /// A batch went to the meta store: what the log will say.
    Batch {
        epoch: u64,
        number: u64,
        rows: Bytes,
    },
    /// Bytes of another content, from `position` on.
    Refer {
        session: u64,
        offset: u64,
        len: u64,
        content: ContentRef,
        position: u64,
    },
    /// A content is in the bucket under another name, if the operation that brings it is.
    Renamed { old: ContentRef, new: ContentRef },
}

/// A fixed state of a working.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FlushRecord {
    pub(crate) session: u64,
    pub(crate) ino: Ino,
    pub(crate) at: Timestamp,
    pub(crate) attrs: Attrs,
    pub(crate) author: Author,
}

/// An operation of the commit queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OperationRecord {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) rows: Batch,
    pub(crate) dependencies: Dependencies,
    pub(crate) content: Option<ContentRecord>,
    /// The fix it settles without bringing bytes.
    pub(crate) byteless_flush: Option<BytelessFlush>,
    /// What it adds to the namespace's bytes and files.
    pub(crate) usage: UsageChange,
    /// Ids at or above it are free.
    pub(crate) next_id: u64,
}

/// What an operation waits for, and what waits for it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Dependencies {
    /// Keys of the inodes and slots it touches.
    pub(crate) touches: Vec<Bytes>,
    /// Directories whose names it changes.
    pub(crate) within: Vec<Ino>,
    /// Ancestors of those, where a directory move is under way.
    pub(crate) below: Vec<Ino>,
    /// Directories it makes.
    pub(crate) makes: Vec<Ino>,
    /// Directories it moves.
    pub(crate) moves: Vec<Ino>,
    /// Directories it removes or replaces: it waits for everything in them.
    pub(crate) removes: Vec<Ino>,
}

/// A fix whose state needed no bytes of its working: empty, or those of its base.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BytelessFlush {
    pub(crate) session: u64,
    pub(crate) flush: Timestamp,
    /// What the working goes on from.
    pub(crate) base: Option<ContentBase>,
}

/// The content an operation brings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContentRecord {
    pub(crate) session: u64,
    /// The fix of that working whose spans it has.
    pub(crate) flush: Timestamp,
    pub(crate) content: ContentRef,
    pub(crate) ino: Ino,
    pub(crate) place: Dentry,
    pub(crate) base: Option<ContentBase>,
    pub(crate) len: u64,
    pub(crate) replaces: Option<Timestamp>,
    /// What contents that its spans refer to are called now; those that are gone are zeros.
    pub(crate) renamed: Vec<(ContentRef, Option<ContentRef>)>,
}

impl ContentRecord {
    /// Its spans, as they are to be read now.
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
        // proof: records are plain data, which serializes into a Vec always.
        postcard::to_extend(self, vec![FORMAT]).expect("records are plain data")
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
    fn records_come_back_and_unknown_formats_are_refused() {
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
