//! One segment: an immutable object that holds extents of one or many files, then a footer that says which.
//!
//! `extents | footer (postcard) | footer length u32 | CRC32C of the footer u32 | format u8 | magic "RWNDSEG"`, numbers little-endian.
//! Invariant: an extent is at most [`EXTENT`] bytes, lies wholly in one segment, and is verified against the 128 bits of its
//! BLAKE3 before a byte of it is given to a reader.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, BackendError};
use crate::cache::{Block, BlockCache, BlockKey, CacheError};
use crate::meta::MetaRead;
use crate::store::data::relocations::RelocationTable;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Ino};
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::{ExtentSource, FORMAT};
use crate::sync::Arc;

/// Bytes stored together, at most.
pub(crate) const EXTENT: u64 = 256 << 10;
/// Bytes of extents in one segment, at most.
pub(crate) const SEGMENT_MAX: u64 = 8 << 20;
/// Unit of the block cache.
const BLOCK: u64 = crate::cache::BLOCK;
const MAGIC: &[u8; 7] = b"RWNDSEG";
const TRAILER: usize = 16;
/// What an extent and its file take in a footer, bytes, unless the file's name is long.
const FOOTER_ENTRY_MAX: usize = 128;

/// What the footer says of an extent.
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

/// The file an extent belongs to, named once per segment.
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
    /// How extents are encoded; 0: as they are.
    pub(crate) codec: u8,
    /// Key they are encrypted with; 0: none.
    pub(crate) key: u32,
    pub(crate) files: Vec<FooterFile>,
    pub(crate) extents: Vec<FooterEntry>,
}

/// A segment being put together.
#[derive(Debug)]
pub(crate) struct SegmentBuilder {
    id: SegmentId,
    /// Bytes at the start of the object that another file brings (a hard-linked staging file).
    before: u32,
    bytes: BytesMut,
    footer: Footer,
}

impl SegmentBuilder {
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
            bytes: BytesMut::new(),
            footer,
        }
    }

    /// A segment that will hold `extents` extents of `bytes` bytes together: the object is built without growing the buffer.
    pub(crate) fn sized(id: SegmentId, bytes: u64, extents: usize) -> Self {
        let footer = extents.saturating_mul(FOOTER_ENTRY_MAX) + TRAILER;
        Self {
            bytes: BytesMut::with_capacity(bytes as usize + footer),
            ..Self::new(id)
        }
    }

    /// Names the file whose extents follow.
    pub(crate) fn file(&mut self, file: FooterFile) {
        self.footer.files.push(file);
    }

    /// Takes an extent of at most [`EXTENT`] bytes and says where it lies now.
    pub(crate) fn add(
        &mut self,
        ino: Ino,
        content: ContentRef,
        file_offset: u64,
        bytes: &[u8],
    ) -> ExtentSource {
        let offset = self.before + self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        self.tell(ino, content, file_offset, offset, bytes)
    }

    /// Takes note of an extent that lies in the object already, behind those before it. Extents that are added follow it.
    pub(crate) fn note(
        &mut self,
        ino: Ino,
        content: ContentRef,
        file_offset: u64,
        bytes: &[u8],
    ) -> ExtentSource {
        debug_assert!(self.bytes.is_empty(), "what lies there comes first");
        let offset = self.before;
        self.before += bytes.len() as u32;
        self.tell(ino, content, file_offset, offset, bytes)
    }

    fn tell(
        &mut self,
        ino: Ino,
        content: ContentRef,
        file_offset: u64,
        offset: u32,
        bytes: &[u8],
    ) -> ExtentSource {
        debug_assert!(bytes.len() as u64 <= EXTENT, "an extent is at most 256 KiB");
        let (len, hash) = (bytes.len() as u32, hash(bytes));
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

    /// Takes an extent of another segment, whose hash was checked, and says at which offset it lies now.
    pub(crate) fn copy(&mut self, extent: &FooterEntry, bytes: &[u8]) -> u32 {
        let offset = self.before + self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        self.footer.extents.push(FooterEntry {
            offset,
            ..extent.clone()
        });
        offset
    }

    /// The object's bytes; those that were only noted are not among them.
    pub(crate) fn finish(mut self) -> Bytes {
        // proof: the footer is plain data, which serializes into a Vec always.
        let footer = postcard::to_allocvec(&self.footer).expect("a footer is plain data");
        self.bytes.extend_from_slice(&footer);
        self.bytes
            .extend_from_slice(&(footer.len() as u32).to_le_bytes());
        self.bytes
            .extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
        self.bytes.extend_from_slice(&[FORMAT]);
        self.bytes.extend_from_slice(MAGIC);
        self.bytes.freeze()
    }
}

/// The 128 bits an extent is verified by.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    short
}

/// The footer at the end of a whole segment's bytes.
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

/// Verified reads of extents, through the block cache.
#[derive(Clone, Debug)]
pub(crate) struct ExtentReader {
    backend: Backend,
    blocks: Arc<BlockCache>,
    relocations: Arc<RelocationTable>,
}

/// Why a block could not be had; every waiter of one fetch gets the same.
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
    pub(crate) fn new(backend: Backend, blocks: Arc<BlockCache>, rows: Arc<dyn MetaRead>) -> Self {
        let relocations = Arc::new(RelocationTable::new(rows));
        Self {
            backend,
            blocks,
            relocations,
        }
    }

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
        self.blocks
            .block(block, fetch)
            .await
            .map_err(|e| e.into_store(&name))
    }

    /// Gives up to `bytes` of cached blocks up that lie on the disk; how many it was.
    pub(crate) fn give_up(&self, bytes: u64) -> u64 {
        self.blocks.give_up(bytes)
    }

    /// Keeps what has just been uploaded.
    pub(crate) fn keep(&self, id: SegmentId, object: &Bytes) {
        for (index, block) in object.chunks(BLOCK as usize).enumerate() {
            let key = BlockKey {
                object: (id.epoch, id.sequence),
                index: index as u32,
            };
            self.blocks.insert(key, block);
        }
    }

    /// `len` bytes of an extent after its first `skip`; zero for a hole.
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

    /// An extent, wherever it lies by now.
    async fn extent(
        &self,
        id: SegmentId,
        offset: u32,
        len: u32,
        hash: &[u8; 16],
    ) -> Result<Bytes, StoreError> {
        let (mut id, mut offset) = self.relocations.known((id, offset));
        loop {
            let read = self.extent_verified(id, offset, len, hash).await;
            let Err(StoreError::Corrupt(_)) = &read else {
                return read;
            };
            // Most likely the segment was rewritten and is gone.
            match self.relocations.next((id, offset)).await? {
                Some(next) => (id, offset) = next,
                None => return read,
            }
        }
    }

    /// An extent, verified. Bytes that are not what the hash says may come from this machine's cache: they are forgotten and
    /// fetched once more, and only what the bucket gives then is believed to be damaged.
    async fn extent_verified(
        &self,
        id: SegmentId,
        offset: u32,
        len: u32,
        hash: &[u8; 16],
    ) -> Result<Bytes, StoreError> {
        match self.extent_once(id, offset, len, hash).await {
            Err(StoreError::Corrupt(why)) => {
                tracing::warn!(why, "bytes that do not verify are fetched again");
                self.forget(id, offset, len);
                let again = self.extent_once(id, offset, len, hash).await;
                if again.is_err() {
                    // A repaired object is read without a restart.
                    self.forget(id, offset, len);
                }
                again
            }
            answer => answer,
        }
    }

    async fn extent_once(
        &self,
        id: SegmentId,
        offset: u32,
        len: u32,
        hash: &[u8; 16],
    ) -> Result<Bytes, StoreError> {
        let blocks = blocks_of(offset, len);
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
        // Either block may have come into memory anew since the other was verified with it.
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

    /// Drops the blocks an extent lies in from memory and disk.
    fn forget(&self, id: SegmentId, offset: u32, len: u32) {
        for index in blocks_of(offset, len) {
            self.blocks.forget(BlockKey {
                object: (id.epoch, id.sequence),
                index,
            });
        }
    }
}

/// The one or two blocks an extent lies in.
fn blocks_of(offset: u32, len: u32) -> std::ops::RangeInclusive<u32> {
    let last = u64::from(offset) + u64::from(len.max(1)) - 1;
    (u64::from(offset) / BLOCK) as u32..=(last / BLOCK) as u32
}

fn short(id: SegmentId) -> String {
    format!("segment {} is shorter than its extents", id.key())
}

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
