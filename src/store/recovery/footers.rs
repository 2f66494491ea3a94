//! What the footers of uncited segments say about files: for each file its extents, by content and offset.
//!
//! Invariant: memory is bounded by the limit of the sorter and by the extents of one lineage.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, BackendError};
use crate::meta::{Change, RowScan};
use crate::store::data::segment::{Footer, FooterEntry, FooterFile, footer};
use crate::store::data::segment_walk::ListedSegment;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Ino, Timestamp};
use crate::store::recovery::cover::{CoveredPart, FileCover};
use crate::store::replay::sorted::{MergedRows, SortedRows, Spill};
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::ExtentSource;

/// Bytes at the end of a segment that are read first; most footers are in them.
const TAIL: u64 = 64 << 10;
/// Larger numbers of inodes and lineages, and larger lengths and offsets in bytes, are not believed.
const NUMBER_MAX: u64 = 1 << 62;

/// An extent as the sorter has it. The key has its inode, lineage, timestamp, offset in the file, and segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct FootedExtent {
    file: FooterFile,
    segment: (u64, u64),
    entry: FooterEntry,
}

/// The newest state of one lineage of a file in the footers.
#[derive(Clone, Debug)]
pub(crate) struct FootedState {
    pub(crate) ino: Ino,
    /// The newest content of the lineage.
    pub(crate) content: ContentRef,
    /// The timestamp of its oldest content in the footers.
    pub(crate) oldest: Timestamp,
    /// The file as the newest content's segment names it.
    pub(crate) file: FooterFile,
    /// The shortest length of the file in its states, in bytes.
    pub(crate) len_min: u64,
    /// The bytes of all its contents, newer ones over older ones.
    pub(crate) cover: FileCover,
}

/// The extents of segments.
#[derive(Debug)]
pub(crate) struct SegmentFooters {
    rows: SortedRows,
    /// Later timestamps are not believed.
    latest: Timestamp,
    /// The largest number of an inode or lineage, and the newest timestamp.
    pub(crate) newest_id: u64,
    pub(crate) newest: Timestamp,
    /// Segments whose footer cannot be read, each with the reason.
    pub(crate) unreadable: Vec<String>,
}

impl SegmentFooters {
    /// Returns an empty set; extents with timestamps after `latest` are left out.
    pub(crate) fn new(spill: Spill, latest: Timestamp) -> Self {
        Self {
            rows: SortedRows::new(last, spill),
            latest,
            newest_id: 0,
            newest: Timestamp(0),
            unreadable: Vec::new(),
        }
    }

    /// Reads the footer of a segment.
    ///
    /// # Errors
    /// `Unavailable`; `LocalDisk` if a temporary file cannot be written.
    pub(crate) async fn read(
        &mut self,
        backend: &Backend,
        segment: ListedSegment,
    ) -> Result<(), StoreError> {
        match fetch(backend, segment).await {
            Ok(footer) => self.add(segment.id, &footer),
            Err(StoreError::Corrupt(why)) => {
                self.unreadable.push(format!("{}: {why}", segment.id.key()));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn add(&mut self, id: SegmentId, footer: &Footer) -> Result<(), StoreError> {
        for entry in &footer.extents {
            let file = footer.files.iter().find(|file| file.ino == entry.ino);
            // Copies of extents that garbage collection or a move of inline bytes made have no file, and their bytes are elsewhere.
            let Some(file) = file else { continue };
            let content = entry.content;
            let numbers = [entry.ino.0, content.cid, entry.file_offset, file.len];
            let is_believed = numbers.iter().all(|number| *number <= NUMBER_MAX);
            if !is_believed || content.timestamp > self.latest {
                let what = format!("{}: impossible numbers in its footer", id.key());
                self.unreadable.push(what);
                break;
            }
            self.newest_id = self.newest_id.max(entry.ino.0).max(content.cid);
            self.newest = self.newest.max(content.timestamp);
            let numbers = [
                entry.ino.0,
                content.cid,
                content.timestamp.0,
                entry.file_offset,
                id.epoch,
                id.sequence,
            ];
            let key: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
            let extent = FootedExtent {
                file: file.clone(),
                segment: (id.epoch, id.sequence),
                entry: entry.clone(),
            };
            // proof: an extent is plain data, which serializes into a Vec always.
            let value = postcard::to_allocvec(&extent).expect("an extent is plain data");
            self.rows.add(key.into(), Change::Put(value.into()))?;
        }
        Ok(())
    }

    /// Returns the files, ascending by inode.
    pub(crate) fn files(&self) -> FootedFiles<'_> {
        FootedFiles {
            rows: self.rows.rows(),
            next: None,
            sorted: SorterRows::Left,
        }
    }
}

/// The merge function of the sorter: nothing is merged.
fn last(_key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
    let existing = Bytes::copy_from_slice(existing.unwrap_or_default());
    operands.last().cloned().unwrap_or(existing)
}

async fn fetch(backend: &Backend, segment: ListedSegment) -> Result<Footer, StoreError> {
    let missing = |error: BackendError| match error {
        BackendError::NotFound { .. } => StoreError::Corrupt("is missing".to_owned()),
        other => other.into(),
    };
    let (key, len) = (segment.id.key(), segment.bytes);
    let tail = backend.get_range(&key, len.saturating_sub(TAIL)..len).await;
    match footer(&tail.map_err(missing)?) {
        Err(_) if len > TAIL => footer(&backend.get(&key).await.map_err(missing)?),
        read => read,
    }
}

/// Whether the sorter has returned its last row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SorterRows {
    Left,
    Ended,
}

/// A cursor over the files in footers.
pub(crate) struct FootedFiles<'a> {
    rows: MergedRows<'a>,
    next: Option<FootedExtent>,
    sorted: SorterRows,
}

impl FootedFiles<'_> {
    /// Returns the newest state of the next file, of the lineage that has the newest content; `None` after the last file.
    ///
    /// # Errors
    /// `LocalDisk` or `Unavailable` if a temporary file cannot be read; `Corrupt`.
    pub(crate) async fn next_file(&mut self) -> Result<Option<FootedState>, StoreError> {
        let mut newest: Option<FootedState> = None;
        while let Some(lineage) = self
            .next_lineage(newest.as_ref().map(|state| state.ino))
            .await?
        {
            let is_newer = newest
                .as_ref()
                .is_none_or(|state| state.content.timestamp < lineage.content.timestamp);
            if is_newer {
                newest = Some(lineage);
            }
        }
        Ok(newest)
    }

    /// Returns the next lineage, if it is one of `ino` or `ino` is not given.
    async fn next_lineage(&mut self, ino: Option<Ino>) -> Result<Option<FootedState>, StoreError> {
        let Some(first) = self.take().await? else {
            return Ok(None);
        };
        if ino.is_some_and(|ino| ino != first.entry.ino) {
            self.next = Some(first);
            return Ok(None);
        }
        let mut state = FootedState {
            ino: first.entry.ino,
            content: first.entry.content,
            oldest: first.entry.content.timestamp,
            file: first.file.clone(),
            len_min: first.file.len,
            cover: FileCover::default(),
        };
        let mut next = Some(first);
        while let Some(extent) = next {
            let entry = &extent.entry;
            if (entry.ino, entry.content.cid) != (state.ino, state.content.cid) {
                self.next = Some(extent);
                break;
            }
            state.content = entry.content;
            state.len_min = state.len_min.min(extent.file.len);
            state.cover.cut(extent.file.len);
            state.cover.add(entry.file_offset, part(&extent));
            state.file = extent.file;
            next = self.take().await?;
        }
        state.cover.cut(state.file.len);
        Ok(Some(state))
    }

    async fn take(&mut self) -> Result<Option<FootedExtent>, StoreError> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        if self.sorted == SorterRows::Ended {
            return Ok(None);
        }
        let Some((_, value)) = self.rows.next().await? else {
            self.sorted = SorterRows::Ended;
            return Ok(None);
        };
        let extent = postcard::from_bytes(&value);
        extent
            .map(Some)
            .map_err(|error| StoreError::Corrupt(format!("a temporary file: {error}")))
    }
}

fn part(extent: &FootedExtent) -> CoveredPart {
    let FooterEntry {
        offset, len, hash, ..
    } = extent.entry;
    let (epoch, sequence) = extent.segment;
    CoveredPart {
        len: len.into(),
        skip: 0,
        source: ExtentSource::Segment {
            epoch,
            sequence,
            offset,
            len,
            hash,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spill() -> Spill {
        Spill {
            dir: std::env::temp_dir(),
            memory: 300,
        }
    }

    fn file(ino: u64, len: u64) -> FooterFile {
        FooterFile {
            ino: Ino(ino),
            directory: Ino(1),
            name: Bytes::from(format!("{ino}")),
            len,
        }
    }

    fn entry(ino: u64, cid: u64, at: u64, file_offset: u64) -> FooterEntry {
        FooterEntry {
            ino: Ino(ino),
            content: ContentRef {
                cid,
                timestamp: Timestamp(at),
            },
            file_offset,
            offset: 0,
            len: 10,
            hash: [0; 16],
        }
    }

    #[tokio::test]
    async fn each_file_has_its_newest_lineage_with_all_of_its_extents() {
        let mut footers = SegmentFooters::new(spill(), Timestamp(9));
        let segments = [
            (
                vec![file(7, 20), file(9, 10)],
                vec![entry(7, 70, 1, 0), entry(7, 70, 1, 10), entry(9, 90, 9, 0)],
            ),
            (
                vec![file(7, 10), file(8, 10)],
                vec![entry(7, 71, 2, 0), entry(8, 80, 3, 0)],
            ),
            (
                vec![file(7, 30)],
                vec![entry(7, 70, 5, 20), entry(6, 60, 6, 0)],
            ),
        ];
        for (sequence, (files, extents)) in (1..).zip(segments) {
            let footer = Footer {
                codec: 0,
                key: 0,
                files,
                extents,
            };
            let id = SegmentId { epoch: 1, sequence };
            footers.add(id, &footer).unwrap();
        }
        assert_eq!((footers.newest_id, footers.newest), (90, Timestamp(9)));
        let (mut files, mut found) = (footers.files(), Vec::new());
        while let Some(state) = files.next_file().await.unwrap() {
            let gaps = state.cover.gaps(state.file.len);
            found.push((
                state.ino.0,
                state.content.cid,
                state.oldest.0,
                state.file.len,
                gaps,
            ));
        }
        // The extent of inode 6 has no file in its footer.
        let expected = [(7, 70, 1, 30), (8, 80, 3, 10), (9, 90, 9, 10)];
        let expected = expected.map(|(ino, cid, at, len)| (ino, cid, at, len, Vec::new()));
        assert_eq!(found, expected);
    }
}
