//! Open files: reads of the live content and writes into it, shared by all handles of an inode.
//!
//! A read combines the base (the last content in the queue or the index) with the dirty map (the written bytes that no later
//! content has yet).
//!
//! Invariants: a change is in the journal before its call returns. Bytes that the bucket lacks are in memory and in the journal
//! while they are few, else in a staging file.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use crate::cache::{BudgetPermit, Source, StagingFile};
use crate::store::data::contents::{ContentView, ResolvedExtent};
use crate::store::data::pins::Pin;
use crate::store::data::segment::SEGMENT_MAX;
use crate::store::model::error::StoreError;
use crate::store::model::ids::ContentBase;
use crate::store::model::role::Role;
use crate::store::model::version::{Author, ContentRef, Ino, Kind, Stat, Time};
use crate::store::schema::journal_record::Record;
use crate::store::tree::Tree;
use crate::store::tree::inode::{FileInode, LinkState, WriteSession};
use crate::store::tree::locked::{Inode, LockedFile, LockedInode};
use crate::sync::Arc;
use crate::task::leave_caller_thread;

/// Bytes of a write session that stay in memory and in the journal; further bytes go to a staging file.
const SMALL: u64 = 64 << 10;
/// Largest file length in bytes: the largest offset of a signed 64-bit off_t.
pub const LEN_MAX: u64 = i64::MAX as u64;
/// Writes of at least so many bytes into a staging file run on the pool for blocking calls; for fewer the change of threads would
/// take longer than the write.
const BLOCKING_WRITE: usize = 64 << 10;
/// How often a follower repeats a read whose content the writer deleted meanwhile.
const RETRIES: usize = 3;

/// Returns the end of a range of a file.
///
/// # Errors
/// `TooLarge` beyond the largest file length.
pub(super) fn range_end(offset: u64, len: u64) -> Result<u64, StoreError> {
    let end = offset.checked_add(len).filter(|end| *end <= LEN_MAX);
    end.ok_or(StoreError::TooLarge)
}

/// Where bytes are in a staging file.
struct StagedBytes {
    /// Offset in the staging file, bytes.
    position: u64,
    /// CRC32C of the bytes.
    checksum: u32,
}

impl StagedBytes {
    /// Appends bytes to a staging file.
    fn append(staging: &StagingFile, bytes: &[u8]) -> Result<Self, StoreError> {
        Ok(Self {
            position: staging.append(bytes)?,
            checksum: crc32c::crc32c(bytes),
        })
    }
}

/// An open file: the live content of one inode. The inode outlives its last name while a `File` exists.
#[derive(Debug)]
pub struct File {
    pub(crate) tree: Arc<Tree>,
    pub(crate) inode: Arc<Inode>,
}

impl Drop for File {
    fn drop(&mut self) {
        if self.inode.pins.fetch_sub(1, Ordering::SeqCst) == 1
            && self.inode.live().is_some_and(|s| s.nlink == 0)
        {
            // Sending fails only after the namespace's tasks have ended; the next mount deletes the orphan then.
            let _gone = self.tree.unlinked.send(self.inode.ino);
        }
    }
}

impl Tree {
    /// Opens a regular file. The inode outlives its last name while the result is held.
    ///
    /// # Errors
    /// `NotFound`; `IsDirectory` for a directory; `Invalid` for any other file type.
    pub async fn file(self: &Arc<Self>, ino: Ino) -> Result<Arc<File>, StoreError> {
        let locked = self.lock(ino).await?;
        let file = locked.as_file().ok_or(StoreError::IsDirectory)?;
        if file.node.kind != Kind::File {
            return Err(StoreError::Invalid("not a regular file".to_owned()));
        }
        if file.link_state == LinkState::Unlinked && !locked.inode.is_pinned() {
            return Err(StoreError::NotFound);
        }
        Ok(self.pin(&locked))
    }
}

impl Tree {
    /// Returns a handle that keeps the locked inode alive after its last name is removed.
    pub(crate) fn pin(self: &Arc<Self>, locked: &LockedInode) -> Arc<File> {
        locked.inode.pins.fetch_add(1, Ordering::SeqCst);
        Arc::new(File {
            tree: Arc::clone(self),
            inode: Arc::clone(&locked.inode),
        })
    }

    /// Returns the id of a file's write session; opens one if there is none.
    pub(crate) fn session(
        &self,
        file: &mut LockedFile<'_>,
        author: &Author,
    ) -> Result<u64, StoreError> {
        if let Some(session) = &file.session {
            return Ok(session.id);
        }
        let id = self.core.new_id();
        let record = Record::Open {
            session: id,
            ino: file.ino(),
            base: file.base,
            len: file.attrs.size,
            author: author.clone(),
            epoch: self.core.epoch,
            place: file.place().cloned(),
        };
        let token = self.core.append(&record)?;
        file.open_session(id, token, author);
        Ok(id)
    }

    /// Writes bytes to the journal or to a staging file, and adds them to the dirty map. The file grows to their end.
    /// Keeps written bytes until the bucket has them: in memory and in the journal, or in a staging file. If the future is dropped,
    /// the file is unchanged.
    ///
    /// # Errors
    /// `NoSpace` when the cache directory is full; the file is unchanged then.
    pub(crate) async fn place_bytes(
        &self,
        file: &mut LockedFile<'_>,
        offset: u64,
        bytes: Bytes,
        author: &Author,
    ) -> Result<(), StoreError> {
        let len = bytes.len() as u64;
        self.room(len)?;
        let session = self.session(file, author)?;
        let is_small = file.map.memory_bytes() + len <= SMALL && !file.has_staging_file();
        let in_memory = is_small.then(|| self.data.unsaved.track_buffer(bytes.clone()));
        let source = if let Some(bytes) = in_memory.flatten() {
            let record = Record::Write {
                session,
                offset,
                bytes: bytes.clone(),
            };
            let _covered = self.core.append(&record)?;
            Source::Memory(bytes)
        } else {
            leave_caller_thread().await;
            let staging = self.staging_file(file, len)?;
            let staged = self.append_staged(&staging, bytes).await?;
            let position = staged.position;
            let record = Record::Staged {
                session,
                offset,
                len,
                file: staging.id(),
                position,
                checksum: staged.checksum,
            };
            let _covered = self.core.append(&record)?;
            Source::File {
                file: staging,
                position,
            }
        };
        tracing::trace!(session, offset, len, "written");
        file.write(offset, len, source);
        Ok(())
    }

    /// Appends to a staging file. Many bytes are written on the pool for blocking calls: when too many pages are dirty, the
    /// kernel makes the writing thread wait, and a runtime thread that waits delays every other call.
    async fn append_staged(
        &self,
        staging: &Arc<StagingFile>,
        bytes: Bytes,
    ) -> Result<StagedBytes, StoreError> {
        if bytes.len() < BLOCKING_WRITE {
            return StagedBytes::append(staging, &bytes);
        }
        let staging = Arc::clone(staging);
        let write = move || StagedBytes::append(&staging, &bytes);
        let written = self.core.tasks.blocking("stage", write).await;
        written.map_err(|_| StoreError::Closed)?
    }

    /// Returns the staging file for the next `len` bytes. No staging file grows beyond a segment, so that each fits into one.
    fn staging_file(
        &self,
        file: &mut LockedFile<'_>,
        len: u64,
    ) -> Result<Arc<StagingFile>, StoreError> {
        let last = file.session.as_ref().and_then(WriteSession::staging_file);
        if let Some(last) = last.filter(|last| last.len() + len <= SEGMENT_MAX) {
            return Ok(Arc::clone(last));
        }
        let staging = Arc::new(self.data.staging.create(self.core.new_id())?);
        file.add_staging_file(Arc::clone(&staging));
        Ok(staging)
    }

    /// Records that the inode has changes which the queue lacks, and sets mtime and ctime.
    pub(crate) fn dirtied(&self, file: &mut LockedFile<'_>) {
        file.mark_dirty(Time::of_change(self.core.clock.wall(), file.attrs.mtime));
        self.inodes.keep_dirty(file.inode());
    }

    /// Writes into a locked file. The permit covers as many bytes of the dirty budget.
    pub(crate) async fn write_locked(
        &self,
        file: &mut LockedFile<'_>,
        offset: u64,
        bytes: Bytes,
        author: &Author,
        permit: BudgetPermit,
    ) -> Result<(), StoreError> {
        range_end(offset, bytes.len() as u64)?;
        self.place_bytes(file, offset, bytes, author).await?;
        file.add_permit(permit);
        self.dirtied(file);
        Ok(())
    }

    /// Changes the length of a locked file. The caller has checked that the length differs.
    pub(crate) fn truncate_locked(
        &self,
        file: &mut LockedFile<'_>,
        len: u64,
        author: &Author,
    ) -> Result<(), StoreError> {
        if len > LEN_MAX {
            return Err(StoreError::TooLarge);
        }
        let old_len = file.attrs.size;
        let session = self.session(file, author)?;
        let _covered = self.core.append(&Record::Truncate {
            session,
            len,
            old_len,
        })?;
        file.truncate(len);
        self.dirtied(file);
        Ok(())
    }

    /// Replaces a range of a locked file with a hole. The length does not change.
    async fn punch_locked(
        &self,
        locked: &mut LockedInode,
        range: Range<u64>,
        author: &Author,
    ) -> Result<(), StoreError> {
        let mut file = locked.file().ok_or(StoreError::IsDirectory)?;
        let end = range.end.min(file.attrs.size);
        if range.start >= end {
            return self.date(locked).await;
        }
        let (offset, len) = (range.start, end - range.start);
        let session = self.session(&mut file, author)?;
        let _covered = self.core.append(&Record::Punch {
            session,
            offset,
            len,
        })?;
        file.punch(offset, len);
        self.dirtied(&mut file);
        Ok(())
    }

    /// Reads bytes of a content that is stored or still being uploaded.
    pub(crate) async fn read_content(
        &self,
        content: ContentRef,
        from: u64,
        to: u64,
    ) -> Result<Bytes, StoreError> {
        let view = self.data.contents.view(&self.core.index);
        let resolve = view.resolve(content, from, to).await?;
        self.read_resolved(resolve, (to - from) as usize).await
    }

    /// Reads resolved extents and concatenates their bytes. Different extents are fetched concurrently.
    async fn read_resolved(
        &self,
        resolve: Vec<(u64, u64, ResolvedExtent)>,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let parts = resolve.into_iter().map(|(start, end, stretch)| async move {
            let len = (end - start) as usize;
            match stretch {
                ResolvedExtent::Zero | ResolvedExtent::Staged(Source::Zero) => Ok(None.ok_or(len)),
                ResolvedExtent::Staged(Source::Memory(bytes)) => Ok(Ok(bytes)),
                ResolvedExtent::Staged(Source::File { file, position }) => {
                    Ok(Ok(file.read_at(position, len)?))
                }
                ResolvedExtent::Staged(Source::Reference { of, position }) => {
                    let content = ContentRef::of(of);
                    let end = position + len as u64;
                    let read = Box::pin(self.read_content(content, position, end));
                    read.await.map(Ok)
                }
                ResolvedExtent::Stored(source, skip) => self
                    .data
                    .extents
                    .read(&source, skip, len as u32)
                    .await
                    .map(Ok),
            }
        });
        let parts: Vec<Result<Bytes, usize>> = futures::future::try_join_all(parts).await?;
        if let [Ok(only)] = &parts[..] {
            return Ok(only.clone());
        }
        let mut all = BytesMut::with_capacity(len);
        for part in parts {
            match part {
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(zeros) => all.resize(all.len() + zeros, 0),
            }
        }
        Ok(all.freeze())
    }

    /// Copies what a read of `range` of a locked file needs. Writes and saves after this do not change what is read.
    pub(super) fn read_view(&self, file: &FileInode, range: Range<u64>) -> ReadView<'_> {
        let pieces = file.map.pieces(range);
        let referred = pieces.iter().filter_map(|piece| match &piece.source {
            Some(Source::Reference { of, .. }) => Some(ContentRef::of(*of)),
            _ => None,
        });
        let read = referred.chain(file.base.map(|base| base.content));
        ReadView {
            _pins: read.map(|content| self.data.pins.pin(content)).collect(),
            pieces,
            base: file.base,
            contents: self.data.contents.view(&self.core.index),
        }
    }

    /// Reads what a view shows; `len` is the length of its range in bytes.
    async fn read_live(&self, view: ReadView<'_>, len: usize) -> Result<Bytes, StoreError> {
        let resolved = view.resolve().await?;
        self.read_resolved(resolved, len).await
    }
}

/// The part of a live file that a read needs, as it was under the inode's lock.
#[derive(Debug)]
pub(super) struct ReadView<'a> {
    pieces: Vec<crate::cache::Piece>,
    base: Option<ContentBase>,
    /// Keep the bytes of the contents that are read, also when a save replaces them during the read.
    _pins: Vec<Pin>,
    contents: ContentView<'a>,
}

impl ReadView<'_> {
    /// Resolves the view's range to extents, ascending and without gaps: the pieces of the dirty map, applied over the base.
    ///
    /// # Errors
    /// Errors of the index.
    pub(super) async fn resolve(&self) -> Result<Vec<(u64, u64, ResolvedExtent)>, StoreError> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            let (start, end) = (piece.range.start, piece.range.end);
            match (&piece.source, self.base) {
                (Some(source), _) => {
                    out.push((start, end, ResolvedExtent::Staged(source.clone())));
                }
                (None, Some(ContentBase { content, len })) => {
                    let shown = end.min(len.max(start));
                    if start < shown {
                        out.extend(self.contents.resolve(content, start, shown).await?);
                    }
                    if shown < end {
                        out.push((shown, end, ResolvedExtent::Zero));
                    }
                }
                (None, None) => out.push((start, end, ResolvedExtent::Zero)),
            }
        }
        debug_assert!(out.windows(2).all(|pair| pair[0].1 == pair[1].0));
        Ok(out)
    }
}

impl File {
    /// Returns the inode number.
    pub fn ino(&self) -> Ino {
        self.inode.ino
    }

    /// Returns the stat of the file, unsaved writes included.
    ///
    /// # Errors
    /// `NotFound` if the inode does not exist any more; errors of the index.
    pub async fn stat(&self) -> Result<Stat, StoreError> {
        self.tree.stat(self.inode.ino).await
    }

    pub(crate) async fn lock(&self) -> Result<LockedInode, StoreError> {
        self.tree.lock(self.inode.ino).await
    }

    pub(crate) async fn lock_to_change(&self) -> Result<LockedInode, StoreError> {
        self.tree.lock_to_change(self.inode.ino).await
    }

    /// Reads up to `len` bytes at `offset` as they are at one moment; returns fewer only at the end of the file.
    ///
    /// # Errors
    /// `Unavailable` when the bucket cannot be reached, `Corrupt` when its bytes do not match their hash; on a follower `Stale`
    /// when the content is deleted faster than it can be read.
    pub async fn read(&self, offset: u64, len: u32) -> Result<Bytes, StoreError> {
        let tree = &self.tree;
        for attempt in 0.. {
            let locked = self.lock().await?;
            let file = locked.as_file().ok_or(StoreError::IsDirectory)?;
            let end = offset.saturating_add(u64::from(len)).min(file.attrs.size);
            if offset >= end {
                return Ok(Bytes::new());
            }
            let base = file.base;
            let view = tree.read_view(file, offset..end);
            drop(locked);
            let bytes = tree.read_live(view, (end - offset) as usize).await;
            let (Role::Follower(_), Some(base)) = (&tree.core.role, base) else {
                return bytes;
            };
            // The writer deletes contents without regard to this process: what was read may be incomplete.
            match tree.data.verify_referenced(base.content, bytes).await {
                Err(StoreError::Stale) if attempt < RETRIES => tree.reload(&self.inode).await,
                outcome => return outcome,
            }
        }
        Err(StoreError::Closed)
    }

    /// Writes `bytes` at `offset`. Waits for the dirty budget and for disk space if necessary.
    ///
    /// # Errors
    /// `TooLarge` beyond [`LEN_MAX`], `NoSpace` when the cache directory is full; the file is unchanged then.
    pub async fn write(
        &self,
        offset: u64,
        bytes: Bytes,
        author: &Author,
    ) -> Result<(), StoreError> {
        self.write_at(Some(offset), bytes, author).await.map(drop)
    }

    /// Writes `bytes` at the end of the file and returns the offset they were written at.
    ///
    /// # Errors
    /// As for [`File::write`].
    pub async fn append(&self, bytes: Bytes, author: &Author) -> Result<u64, StoreError> {
        self.write_at(None, bytes, author).await
    }

    async fn write_at(
        &self,
        offset: Option<u64>,
        bytes: Bytes,
        author: &Author,
    ) -> Result<u64, StoreError> {
        let tree = &self.tree;
        tree.core.health.check()?;
        let (mut waiting, len) = (tree.waiting(), bytes.len() as u64);
        loop {
            let permit = tree.room_in_budget(len).await?;
            let mut locked = self.lock_to_change().await?;
            let mut file = locked.file().ok_or(StoreError::IsDirectory)?;
            let at = offset.unwrap_or(file.attrs.size);
            let written = tree.write_locked(&mut file, at, bytes.clone(), author, permit);
            match written.await {
                Err(StoreError::NoSpace) => {}
                outcome => return outcome.map(|()| at),
            }
            drop(locked);
            waiting.more(len).await?;
        }
    }

    /// Changes the length, as ftruncate(2) does. Makes no version of its own.
    ///
    /// # Errors
    /// As for [`File::write`].
    pub async fn truncate(&self, len: u64, author: &Author) -> Result<(), StoreError> {
        self.tree.core.health.check()?;
        self.tree.room_for_names().await;
        let mut locked = self.lock_to_change().await?;
        let mut file = locked.file().ok_or(StoreError::IsDirectory)?;
        if file.attrs.size == len {
            return self.tree.date(&mut locked).await;
        }
        self.tree.truncate_locked(&mut file, len, author)
    }

    /// Extends the file to `offset + len` unless `keep_size`, as fallocate(2) does. No space is reserved in the bucket.
    ///
    /// # Errors
    /// As for [`File::write`].
    pub async fn allocate(
        &self,
        offset: u64,
        len: u64,
        keep_size: bool,
        author: &Author,
    ) -> Result<(), StoreError> {
        let end = range_end(offset, len)?;
        self.tree.room_for_names().await;
        let mut locked = self.lock_to_change().await?;
        match keep_size {
            true => Ok(()),
            false => self.grow_to(&mut locked, end, author),
        }
    }

    /// Makes the file at least `len` bytes long.
    fn grow_to(
        &self,
        locked: &mut LockedInode,
        len: u64,
        author: &Author,
    ) -> Result<(), StoreError> {
        let mut file = locked.file().ok_or(StoreError::IsDirectory)?;
        match len > file.attrs.size {
            true => self.tree.truncate_locked(&mut file, len, author),
            false => Ok(()),
        }
    }

    /// Replaces a range with a hole; the length does not change (FALLOC_FL_PUNCH_HOLE).
    ///
    /// # Errors
    /// As for [`File::write`].
    pub async fn punch(&self, offset: u64, len: u64, author: &Author) -> Result<(), StoreError> {
        self.tree.room_for_names().await;
        let mut locked = self.lock_to_change().await?;
        let range = offset..offset.saturating_add(len);
        self.tree.punch_locked(&mut locked, range, author).await
    }

    /// Replaces a range with zeros; extends the file to the end of the range unless `keep_size` (FALLOC_FL_ZERO_RANGE).
    ///
    /// # Errors
    /// As for [`File::write`].
    pub async fn zero(
        &self,
        offset: u64,
        len: u64,
        keep_size: bool,
        author: &Author,
    ) -> Result<(), StoreError> {
        let end = range_end(offset, len)?;
        self.tree.room_for_names().await;
        let mut locked = self.lock_to_change().await?;
        if !keep_size {
            self.grow_to(&mut locked, end, author)?;
        }
        self.tree
            .punch_locked(&mut locked, offset..end, author)
            .await
    }
}
