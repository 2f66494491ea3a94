//! Segments: a segment is an immutable object that contains extents of one or many files, and then a footer that lists them.
//!
//! `extents | footer (postcard) | footer length u32 | CRC32C of the footer u32 | format u8 | magic "RWNDSEG"`; numbers are
//! little-endian. Invariant: an extent has at most [`EXTENT`] bytes, is stored in one segment as a whole, and is verified
//! against the first 128 bits of its BLAKE3 hash before a reader gets any byte of it.

mod ahead;
pub(crate) mod neighbours;

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, BackendError};
use crate::cache::{Block, BlockCache, BlockKey, CacheError};
use crate::meta::{MetaRead, list_of_at_most};
use crate::store::data::relocations::{HOPS_MAX, RelocationTable};
use crate::store::data::segment::neighbours::NeighbourReads;
use crate::store::data::segment_buffer::SegmentBuffer;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Ino};
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{EXTENT_BYTES, ExtentSource, FORMAT};
use crate::sync::Arc;

/// Maximum number of bytes in one extent.
pub(crate) const EXTENT: u64 = EXTENT_BYTES;
/// Maximum number of bytes in the extents of one segment.
pub(crate) const SEGMENT_MAX: u64 = 8 << 20;
/// Maximum number of extents in one segment, and of files: each has a byte at least.
const EXTENTS_MAX: usize = SEGMENT_MAX as usize;
/// Bytes in one block of the block cache.
const BLOCK: u64 = crate::cache::BLOCK;
const _: () = assert!(neighbours::BLOCKS as u64 == SEGMENT_MAX / BLOCK);
const MAGIC: &[u8; 7] = b"RWNDSEG";
/// Bytes after the footer: its length, its checksum, the format and the magic.
const TRAILER: usize = 16;
/// Upper bound in bytes of the footer entries of one extent and its file, unless the file's name is long.
const FOOTER_ENTRY_MAX: usize = 128;

/// The footer's entry of an extent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FooterEntry {
    pub(crate) ino: Ino,
    pub(crate) content: ContentRef,
    /// Offset in the file, bytes.
    pub(crate) file_offset: u64,
    /// Offset in the segment, bytes.
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) hash: [u8; 16],
}

/// The footer's entry of a file that has extents in the segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FooterFile {
    pub(crate) ino: Ino,
    pub(crate) directory: Ino,
    pub(crate) name: Bytes,
    /// Length of the whole content, bytes.
    pub(crate) len: u64,
}

/// Footer of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Footer {
    /// Encoding of the extents; 0: not encoded.
    pub(crate) codec: u8,
    /// Key with which the extents are encrypted; 0: not encrypted.
    pub(crate) key: u32,
    #[serde(deserialize_with = "list_of_at_most::<EXTENTS_MAX, _, _>")]
    pub(crate) files: Vec<FooterFile>,
    #[serde(deserialize_with = "list_of_at_most::<EXTENTS_MAX, _, _>")]
    pub(crate) extents: Vec<FooterEntry>,
}

/// A segment that is being built.
#[derive(Debug)]
pub(crate) struct SegmentBuilder {
    id: SegmentId,
    /// Number of bytes at the start of the object that are not in `bytes`: those of a staging file that is hard-linked.
    before: u32,
    bytes: SegmentBuffer,
    footer: Footer,
}

/// The place of an extent in its segment, and the hash of its bytes.
struct PlacedExtent {
    offset: u32,
    len: u32,
    hash: [u8; 16],
}

impl PlacedExtent {
    fn of(offset: u32, bytes: &[u8]) -> Self {
        let (len, hash) = (bytes.len() as u32, hash(bytes));
        Self { offset, len, hash }
    }
}

impl SegmentBuilder {
    /// Returns an empty segment.
    pub(crate) fn new(id: SegmentId) -> Self {
        let footer = Footer {
            codec: 0,
            key: 0,
            files: Vec::new(),
            extents: Vec::new(),
        };
        Self {
            id,
            before: 0,
            bytes: SegmentBuffer::new(),
            footer,
        }
    }

    /// Returns an empty segment with a buffer for `extents` extents of `bytes` bytes in total and their footer. The buffer grows if there is
    /// more; it begins with the size of one segment at most, because the numbers may be those of a damaged row.
    pub(crate) fn sized(id: SegmentId, bytes: u64, extents: usize) -> Self {
        let footer = extents
            .saturating_mul(FOOTER_ENTRY_MAX)
            .saturating_add(TRAILER);
        let bytes = bytes.min(SEGMENT_MAX) as usize;
        Self {
            bytes: SegmentBuffer::sized(bytes.saturating_add(footer)),
            ..Self::new(id)
        }
    }

    /// Adds the entry of the file whose extents are added next.
    pub(crate) fn file(&mut self, file: FooterFile) {
        self.footer.files.push(file);
    }

    /// Adds an extent of at most [`EXTENT`] bytes; returns its place in the segment.
    pub(crate) fn add(
        &mut self,
        ino: Ino,
        content: ContentRef,
        file_offset: u64,
        bytes: &[u8],
    ) -> ExtentSource {
        let offset = self.before + self.bytes.len() as u32;
        self.bytes.append(bytes);
        self.tell(ino, content, file_offset, PlacedExtent::of(offset, bytes))
    }

    /// Adds an extent of `len` bytes, which `read_into` writes to where the segment is built; returns its place in the segment.
    ///
    /// # Errors
    /// The error of `read_into`; the segment is not to be used then.
    pub(crate) fn add_read(
        &mut self,
        ino: Ino,
        content: ContentRef,
        file_offset: u64,
        len: usize,
        read_into: impl FnOnce(&mut [u8]) -> Result<(), StoreError>,
    ) -> Result<ExtentSource, StoreError> {
        let offset = self.before + self.bytes.len() as u32;
        let bytes = self.bytes.grow(len);
        read_into(bytes)?;
        let place = PlacedExtent::of(offset, bytes);
        Ok(self.tell(ino, content, file_offset, place))
    }

    /// Adds only the footer entry of an extent whose bytes are already in the staging file that becomes the object, right after
    /// those of the last call. Called before any [`SegmentBuilder::add`].
    pub(crate) fn note(
        &mut self,
        ino: Ino,
        content: ContentRef,
        file_offset: u64,
        bytes: &[u8],
    ) -> ExtentSource {
        debug_assert!(
            self.bytes.len() == 0,
            "the extents of the staging file come first"
        );
        let offset = self.before;
        self.before += bytes.len() as u32;
        self.tell(ino, content, file_offset, PlacedExtent::of(offset, bytes))
    }

    /// Adds the footer entry of an extent; returns its place in the segment.
    fn tell(
        &mut self,
        ino: Ino,
        content: ContentRef,
        file_offset: u64,
        PlacedExtent { offset, len, hash }: PlacedExtent,
    ) -> ExtentSource {
        debug_assert!(u64::from(len) <= EXTENT, "an extent is at most 256 KiB");
        self.footer.extents.push(FooterEntry {
            ino,
            content,
            file_offset,
            offset,
            len,
            hash,
        });
        ExtentSource::Segment {
            epoch: self.id.epoch,
            sequence: self.id.sequence,
            offset,
            len,
            hash,
        }
    }

    /// Adds an extent of another segment, whose hash the caller has verified; returns its offset in this segment, in bytes.
    pub(crate) fn copy(&mut self, extent: &FooterEntry, bytes: &[u8]) -> u32 {
        let offset = self.before + self.bytes.len() as u32;
        self.bytes.append(bytes);
        self.footer.extents.push(FooterEntry {
            offset,
            ..extent.clone()
        });
        offset
    }

    /// Returns the bytes of the object from the first added extent to the end of the footer, without those of a staging file.
    pub(crate) fn finish(mut self) -> Bytes {
        // proof: the footer is plain data, which serializes into a Vec always.
        let footer = postcard::to_allocvec(&self.footer).expect("a footer is plain data");
        self.bytes.append(&footer);
        self.bytes.append(&trailer(&footer));
        self.bytes.freeze()
    }
}

/// Returns what follows the encoded footer at the end of a segment.
pub(crate) fn trailer(footer: &[u8]) -> [u8; TRAILER] {
    let mut trailer = [0; TRAILER];
    trailer[..4].copy_from_slice(&(footer.len() as u32).to_le_bytes());
    trailer[4..8].copy_from_slice(&crc32c::crc32c(footer).to_le_bytes());
    trailer[8] = FORMAT;
    trailer[9..].copy_from_slice(MAGIC);
    trailer
}

/// Returns the first 128 bits of the BLAKE3 hash of an extent's bytes.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    short
}

/// Reads the footer at the end of the bytes of a whole segment.
///
/// # Errors
/// `Corrupt` when the footer is damaged, or of a format that this build does not know.
pub(crate) fn footer(segment: &[u8]) -> Result<Footer, StoreError> {
    let bad = |what: &str| StoreError::Corrupt(format!("segment footer: {what}"));
    let trailer = segment
        .len()
        .checked_sub(TRAILER)
        .map(|at| &segment[at..])
        .ok_or_else(|| bad("too short"))?;
    if &trailer[9..] != MAGIC {
        return Err(bad("no magic"));
    }
    if trailer[8] != FORMAT {
        return Err(bad(&format!(
            "format {} is not known to this build",
            trailer[8]
        )));
    }
    let word = |at: usize| {
        u32::from_le_bytes([
            trailer[at],
            trailer[at + 1],
            trailer[at + 2],
            trailer[at + 3],
        ])
    };
    let end = segment.len() - TRAILER;
    let start = end
        .checked_sub(word(0) as usize)
        .ok_or_else(|| bad("length beyond the object"))?;
    if crc32c::crc32c(&segment[start..end]) != word(4) {
        return Err(bad("checksum"));
    }
    postcard::from_bytes(&segment[start..end]).map_err(|e| bad(&e.to_string()))
}

/// Reads extents through the block cache and verifies them.
#[derive(Clone, Debug)]
pub(crate) struct ExtentReader {
    backend: Backend,
    blocks: Arc<BlockCache>,
    relocations: Arc<RelocationTable>,
    neighbours: Arc<NeighbourReads>,
}

/// Why a block could not be fetched. All callers that wait for the same fetch get the same error.
#[derive(Clone, Debug)]
enum FetchError {
    Backend(Arc<BackendError>),
    Cache(String),
}

impl From<CacheError> for FetchError {
    fn from(error: CacheError) -> Self {
        Self::Cache(error.to_string())
    }
}

impl FetchError {
    /// Converts the error of a fetch from the segment `key`: a missing segment is `Corrupt`, any other failure `Unavailable`.
    fn into_store(self, key: &str) -> StoreError {
        match self {
            Self::Backend(error) if matches!(*error, BackendError::NotFound { .. }) => {
                StoreError::Corrupt(format!("segment {key} is missing from the bucket"))
            }
            Self::Backend(error) => StoreError::Unavailable(error.into()),
            Self::Cache(text) => StoreError::Unavailable(text.into()),
        }
    }
}

impl ExtentReader {
    /// Returns a reader of the segments in `backend`; `rows` has the relocation rows.
    pub(crate) fn new(
        backend: Backend,
        blocks: Arc<BlockCache>,
        rows: Arc<dyn MetaRead>,
        neighbours: NeighbourReads,
    ) -> Self {
        let relocations = Arc::new(RelocationTable::new(rows));
        Self {
            backend,
            blocks,
            relocations,
            neighbours: Arc::new(neighbours),
        }
    }

    /// Reads a block of a segment from the cache, or fetches it from the bucket.
    async fn block(&self, id: SegmentId, index: u32) -> Result<Block, StoreError> {
        let (backend, key) = (self.backend.clone(), id.key());
        let name = key.clone();
        let start = u64::from(index) * BLOCK;
        let fetch = async move {
            let got = backend.get_range(&key, start..start + BLOCK).await;
            got.map_err(|e| FetchError::Backend(Arc::new(e)))
        };
        let block = BlockKey {
            object: (id.epoch, id.sequence),
            index,
        };
        let found = self.blocks.block(block, fetch).await;
        let found = found.map_err(|e| e.into_store(&name))?;
        let len = found.bytes().len() as u64;
        if len < BLOCK {
            self.neighbours.note_blocks(id, u64::from(index) + 1);
        }
        Ok(found)
    }

    /// Deletes the oldest cached blocks on the local disk until at least `bytes` bytes are free or none is left; returns how
    /// many bytes that freed.
    pub(crate) fn give_up(&self, bytes: u64) -> u64 {
        self.blocks.give_up(bytes)
    }

    /// Removes the cached blocks of all segments but those that the bucket has.
    pub(crate) fn keep_only(&self, listed: &BTreeSet<SegmentId>) {
        self.blocks
            .keep_only(|(epoch, sequence)| listed.contains(&SegmentId { epoch, sequence }));
    }

    /// Puts the blocks of a segment that has just been uploaded into the block cache.
    pub(crate) fn keep(&self, id: SegmentId, object: &Bytes) {
        for (index, block) in object.chunks(BLOCK as usize).enumerate() {
            let key = BlockKey {
                object: (id.epoch, id.sequence),
                index: index as u32,
            };
            self.blocks.insert(key, block);
        }
    }

    /// Reads `len` bytes of an extent after its first `skip` bytes; zeros for a hole.
    ///
    /// # Errors
    /// `Corrupt` when the segment is missing or too short or its bytes do not match their hash, `Unavailable` when the bucket
    /// or the local disk fails.
    pub(crate) async fn read(
        &self,
        source: &ExtentSource,
        skip: u32,
        len: u32,
    ) -> Result<Bytes, StoreError> {
        match source {
            ExtentSource::Zero => Ok(Bytes::from(vec![0; len as usize])),
            ExtentSource::Inline(bytes) => {
                slice(bytes, skip, len, || "an inline extent".to_owned())
            }
            ExtentSource::Segment {
                epoch,
                sequence,
                offset,
                len: whole,
                hash,
            } => {
                let id = SegmentId {
                    epoch: *epoch,
                    sequence: *sequence,
                };
                let extent = self.extent(id, *offset, *whole, hash).await?;
                slice(&extent, skip, len, || {
                    format!("extent at {offset} of segment {}", id.key())
                })
            }
        }
    }

    /// Reads an extent. Its bytes are in another segment if garbage collection has copied them.
    async fn extent(
        &self,
        id: SegmentId,
        offset: u32,
        len: u32,
        hash: &[u8; 16],
    ) -> Result<Bytes, StoreError> {
        let (mut id, mut offset) = self.relocations.known((id, offset));
        for _ in 0..HOPS_MAX {
            let read = self.extent_verified(id, offset, len, hash).await;
            let Err(StoreError::Corrupt(_)) = &read else {
                return read;
            };
            // Most likely garbage collection has copied the extent and deleted the segment.
            match self.relocations.next((id, offset)).await? {
                Some(next) => (id, offset) = next,
                None => return read,
            }
        }
        Err(StoreError::Corrupt(format!(
            "extent at {offset} of segment {}: it was copied {HOPS_MAX} times, which is a circle",
            id.key()
        )))
    }

    /// Reads and verifies an extent of a segment. Bytes that do not match their hash may come from the cache of this machine:
    /// they are removed from it and fetched from the bucket once more, and only a second mismatch is an error.
    async fn extent_verified(
        &self,
        id: SegmentId,
        offset: u32,
        len: u32,
        hash: &[u8; 16],
    ) -> Result<Bytes, StoreError> {
        match self.extent_once(id, offset, len, hash).await {
            Err(StoreError::Corrupt(why)) => {
                tracing::warn!(why, "an extent is missing or damaged; fetching it again");
                self.forget(id, offset, len);
                let again = self.extent_once(id, offset, len, hash).await;
                if again.is_err() {
                    // Bad blocks are not kept: once the object is repaired, the extent is read without a restart.
                    self.forget(id, offset, len);
                }
                again
            }
            answer => answer,
        }
    }

    /// Reads an extent from its blocks and verifies it, unless it was verified with the same blocks in memory before.
    async fn extent_once(
        &self,
        id: SegmentId,
        offset: u32,
        len: u32,
        hash: &[u8; 16],
    ) -> Result<Bytes, StoreError> {
        if u64::from(len) > EXTENT {
            return Err(StoreError::Corrupt(format!(
                "extent at {offset} of segment {}: {len} bytes, of which an extent has at most {EXTENT}",
                id.key()
            )));
        }
        let blocks = blocks_of(offset, len);
        if u64::from(len) < EXTENT {
            let wanted = self.neighbours.note(id, *blocks.start());
            self.fetch_neighbours(id, *blocks.start(), wanted);
        }
        let first = self.block(id, *blocks.start()).await?;
        let start = (u64::from(offset) % BLOCK) as usize;
        let (bytes, next) = if blocks.start() == blocks.end() {
            let bytes = slice(first.bytes(), start as u32, len, || short(id))?;
            (bytes, None)
        } else {
            let next = self.block(id, *blocks.end()).await?;
            let rest =
                (u64::from(offset) + u64::from(len) - u64::from(*blocks.end()) * BLOCK) as usize;
            let (Some(head), Some(tail)) = (first.bytes().get(start..), next.bytes().get(..rest))
            else {
                return Err(StoreError::Corrupt(short(id)));
            };
            let mut both = BytesMut::with_capacity(len as usize);
            both.extend_from_slice(head);
            both.extend_from_slice(tail);
            (both.freeze(), Some(next))
        };
        // Either block may have been loaded into memory again after the extent was verified with the other one.
        let held = || std::iter::once(&first).chain(&next);
        if !held().all(|block| block.verified(offset)) {
            if crate::store::data::segment::hash(&bytes) != *hash {
                return Err(StoreError::Corrupt(format!(
                    "extent at {offset} of segment {} does not match its hash",
                    id.key()
                )));
            }
            held().for_each(|block| block.set_verified(offset));
        }
        Ok(bytes)
    }

    /// Removes the blocks that contain an extent from the cache in memory and on disk.
    fn forget(&self, id: SegmentId, offset: u32, len: u32) {
        let len = u64::from(len).min(EXTENT) as u32;
        for index in blocks_of(offset, len) {
            self.blocks.forget(BlockKey {
                object: (id.epoch, id.sequence),
                index,
            });
        }
    }
}

/// Returns the one or two blocks that contain an extent.
fn blocks_of(offset: u32, len: u32) -> std::ops::RangeInclusive<u32> {
    let last = u64::from(offset) + u64::from(len.max(1)) - 1;
    (u64::from(offset) / BLOCK) as u32..=(last / BLOCK) as u32
}

fn short(id: SegmentId) -> String {
    format!("segment {} is shorter than its extents", id.key())
}

/// Returns `len` bytes of an extent after its first `skip`; `Corrupt` with `what` if the extent is shorter.
fn slice(
    bytes: &Bytes,
    skip: u32,
    len: u32,
    what: impl FnOnce() -> String,
) -> Result<Bytes, StoreError> {
    let (from, to) = (skip as usize, skip as usize + len as usize);
    if to > bytes.len() {
        return Err(StoreError::Corrupt(format!(
            "{}: {len} bytes at {skip} of {}",
            what(),
            bytes.len()
        )));
    }
    Ok(bytes.slice(from..to))
}

#[cfg(test)]
mod tests;
