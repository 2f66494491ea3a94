//! Flush, save, sync: how written bytes become states of a file, and how states become versions.
//!
//! close(2) flushes: the state of the file at that moment is recorded in the journal (`PendingFlush`). The release of the
//! handle saves that state as a version. fsync(2) commits a provisional state while the handle stays open.
//!
//! Invariant: states of an inode enter the queue in the order of their flushes. One exception: a state that was flushed
//! before an fsync and released after it enters the queue later than the provisional state of the fsync and becomes the version before it
//! (flush_late.rs).

use std::time::Duration;

use crate::store::commit::txn::{Guards, Txn};
use crate::store::index::timestamps::Reservation;
use crate::store::model::error::StoreError;
use crate::store::model::ids::ContentBase;
use crate::store::model::version::{Author, Content, Ino, Op, Stamp, Timestamp, VersionId};
use crate::store::schema::journal_record::{BytelessFlush, Dependencies, FlushRecord, Record};
use crate::store::schema::keys;
use crate::store::schema::rows::EntryState;
use crate::store::tree::Tree;
use crate::store::tree::file::File;
use crate::store::tree::flush_content::{ContentChange, PreparedContent};
use crate::store::tree::inode::{
    FileInode, FlushedState, LinkState, Supersession, VersionTimestamp,
};
use crate::store::tree::locked::{LockedFile, LockedInode};
use crate::sync::{Arc, lock};

/// A flushed state whose handle is not released within this time is written back as a provisional state.
pub(crate) const FLUSH_AGE_MAX: Duration = Duration::from_secs(10);

/// Names a flushed state, which may have become a version meanwhile. The state itself belongs to the inode, so that a handle that stays
/// open keeps neither its bytes nor the journal.
#[derive(Clone, Debug)]
pub struct PendingFlush(pub(crate) Timestamp);

impl PendingFlush {
    /// Returns the timestamp of the flush.
    pub fn timestamp(&self) -> Timestamp {
        self.0
    }
}

impl File {
    /// Records the present state of the file in the journal; each close(2) asks for it with a FUSE FLUSH request. Returns `None`
    /// for an unlinked file, and for a file whose state is already a version. `replaces` is the handle's earlier flush.
    ///
    /// # Errors
    /// `NoSpace` when the journal cannot take the record.
    pub async fn flush(
        &self,
        author: &Author,
        replaces: Option<PendingFlush>,
    ) -> Result<Option<PendingFlush>, StoreError> {
        self.tree.room_for_names().await;
        let mut locked = self.lock().await?;
        let mut file = locked.file().ok_or(StoreError::IsDirectory)?;
        self.tree.flush_locked(&mut file, author, replaces)
    }

    /// Makes a version of a flushed state, at the release of its handle. Earlier flushed states that still wait become versions
    /// first. A state whose content equals the last version makes no version.
    ///
    /// # Errors
    /// `NoSpace`, `Unavailable`; the flushed state is kept, so that the call can be repeated.
    pub async fn save(&self, flushed: PendingFlush) -> Result<(), StoreError> {
        self.tree.room_for_names().await;
        let mut locked = self.lock().await?;
        self.tree.save_upto(&mut locked, flushed.0, Op::Write).await
    }

    /// Waits until the file's content is durable, as fsync(2) does. A state that is not a version is committed as a provisional
    /// state.
    ///
    /// # Errors
    /// `Unavailable` when an upload failed during the call (the upload is still retried), `Fenced`.
    pub async fn sync(&self, author: &Author) -> Result<(), StoreError> {
        let operation = {
            let mut locked = self.lock().await?;
            self.tree.write_back(&mut locked, author).await?;
            self.tree
                .commit
                .queue
                .last_on(&keys::inode(self.inode.ino), None)
        };
        self.tree.commit.wait_all_durable(&operation).await
    }
}

impl Tree {
    /// Changes the length by path, as truncate(2) does; the result is a version of its own.
    ///
    /// # Errors
    /// As for [`File::truncate`] and [`File::save`].
    pub async fn truncate(
        self: &Arc<Self>,
        ino: Ino,
        len: u64,
        author: &Author,
    ) -> Result<crate::store::model::version::Stat, StoreError> {
        let tree = self;
        tree.room_for_names().await;
        let file = self.file(ino).await?;
        let mut locked = file.lock_to_change().await?;
        let mut leaf = locked.file().ok_or(StoreError::IsDirectory)?;
        if leaf.attrs.size == len {
            tree.date(&mut locked).await?;
        } else {
            tree.truncate_locked(&mut leaf, len, author)?;
        }
        let mut leaf = locked.file().ok_or(StoreError::IsDirectory)?;
        if let Some(flushed) = tree.flush_locked(&mut leaf, author, None)? {
            tree.save_upto(&mut locked, flushed.0, Op::Truncate).await?;
        }
        drop(locked);
        file.stat().await
    }
}

impl Tree {
    pub(crate) fn flush_locked(
        &self,
        file: &mut LockedFile<'_>,
        author: &Author,
        replaces: Option<PendingFlush>,
    ) -> Result<Option<PendingFlush>, StoreError> {
        if file.link_state == LinkState::Unlinked {
            return Ok(None);
        }
        let saved = matches!(file.state, EntryState::Version(_));
        // An fsync may have queued a later state than the newest flushed one: then no flush has the present state.
        let waits = |newest: &Arc<FlushedState>| !file.is_behind(newest);
        if !file.is_unflushed() && (saved || file.flushes.last().is_some_and(waits)) {
            return Ok(replaces.or_else(|| file.flushes.last().map(|f| PendingFlush(f.at))));
        }
        // After an fsync, or for a file without bytes, there may be none: the journal must tell that this state becomes a version.
        self.session(file, author)?;
        let answer = self.core.clock.begin();
        let at = answer.at();
        let mut state = self.state_of(file, at, VersionTimestamp::Reserved(answer), author)?;
        state.hold = file.base.map(|base| self.data.pins.pin(base.content));
        // A state that is a version already is not replaced.
        let waiting = |old: PendingFlush| file.flushes.iter().find(|f| f.at == old.0).cloned();
        if let Some(old) = replaces.and_then(waiting) {
            if let Some(session) = old.session {
                let at = old.at;
                let _covered = self.core.append(&Record::CancelFlush { session, at })?;
            }
            file.remove_flush(&old);
            *lock(&old.timestamp_state) = VersionTimestamp::Expired;
        }
        file.add_flush(Arc::new(state));
        self.inodes.keep_dirty(file.inode());
        Ok(Some(PendingFlush(at)))
    }

    /// Saves the waiting flushed states up to that of `last`, oldest first; `op` is what made that one.
    pub(crate) async fn save_upto(
        &self,
        locked: &mut LockedInode,
        last: Timestamp,
        op: Op,
    ) -> Result<(), StoreError> {
        loop {
            let Some(mut file) = locked.file() else {
                return Ok(());
            };
            let Some(flush) = file.flushes.first().filter(|f| f.at <= last).cloned() else {
                break;
            };
            if file.link_state == LinkState::Unlinked {
                file.clear_flushes();
                break;
            }
            let how = if flush.at == last { op } else { Op::Write };
            self.save_flush(&mut file, &flush, how).await?;
            file.remove_flush(&flush);
            *lock(&flush.timestamp_state) = VersionTimestamp::Expired;
        }
        self.release_if_clean(locked);
        Ok(())
    }

    /// Saves every waiting flushed state. Called before the inode loses or changes its name: versions belong to the old name.
    pub(crate) async fn save_flushes(&self, locked: &mut LockedInode) -> Result<(), StoreError> {
        let file = locked.as_file();
        match file.and_then(|file| file.flushes.last().map(|last| last.at)) {
            Some(last) => self.save_upto(locked, last, Op::Write).await,
            None => Ok(()),
        }
    }

    pub(crate) fn release_if_clean(&self, locked: &mut LockedInode) {
        let ino = locked.inode.ino;
        if let Some(mut file) = locked.file()
            && !file.is_dirty()
            && file.flushes.is_empty()
            && (matches!(file.state, EntryState::Version(_))
                || file.link_state == LinkState::Unlinked)
        {
            file.mark_clean();
            self.inodes.release_dirty(ino);
        }
    }

    async fn save_flush(
        &self,
        file: &mut LockedFile<'_>,
        flush: &Arc<FlushedState>,
        op: Op,
    ) -> Result<(), StoreError> {
        let attrs = lock(&flush.attrs).clone();
        if file.is_behind(flush) {
            return self.save_behind(file, flush, &attrs).await;
        }
        let map = file
            .saved
            .as_ref()
            .map_or_else(|| flush.map.clone(), |s| flush.map.since(s));
        let unborn = matches!(file.state, EntryState::Unborn { .. });
        if matches!(file.state, EntryState::Version(_)) && self.is_equal(file, &map, &attrs).await?
        {
            return self.forget_equal(file, flush, &attrs);
        }
        let answer = is_late(file, flush).then(|| self.core.clock.begin());
        let at = answer.as_ref().map_or(flush.at, Reservation::at);
        let change = ContentChange {
            map: &map,
            base: file.base,
            flush,
            at,
            len: attrs.size,
        };
        let prepared = self.prepare(file.ino(), file, change).await?;
        let id = VersionId {
            timestamp: at,
            suffix: self.suffix(),
        };
        let stamp = Stamp {
            id,
            op: if unborn && op == Op::Write {
                Op::Create
            } else {
                op
            },
            author: flush.author.clone(),
            host: self.core.config.host.clone(),
            origin: None,
        };
        let mut txn = self.file_txn(file.ino(), file, at).await?;
        let mut node = file.node.clone();
        node.content = prepared.content.clone();
        node.allocated = file.allocated(&map, attrs.size);
        node.attrs = attrs;
        txn.usage.bytes = node.grown_from(&file.node);
        let alive_since = self.version_rows(&mut txn, file.ino(), file, &node, &stamp);
        self.finish_flush(file, txn, prepared, flush, |file| {
            file.set_node(node);
            file.set_state(EntryState::Version(stamp));
            file.set_alive_since(alive_since);
        })
    }

    /// Starts a transaction that changes a file inode and its directory entry.
    pub(crate) async fn file_txn(
        &self,
        ino: Ino,
        file: &FileInode,
        at: Timestamp,
    ) -> Result<Txn, StoreError> {
        let dependencies = match &file.link_state {
            LinkState::Single { place, .. } => {
                self.order_in(place.parent, &place.name, ino).await?
            }
            // The row of a hard-linked inode depends on no directory, and the entry cached for it may already be removed.
            LinkState::HardLinked { .. } | LinkState::Unlinked => Dependencies {
                touches: vec![keys::inode(ino).bytes()],
                ..Dependencies::default()
            },
        };
        Ok(self.commit.txn(at, dependencies))
    }

    /// Enqueues a state and makes its content the base of later writes; `then` updates the cached inode.
    fn finish_flush(
        &self,
        file: &mut LockedFile<'_>,
        mut txn: Txn,
        prepared: PreparedContent,
        flush: &FlushedState,
        then: impl FnOnce(&mut LockedFile<'_>),
    ) -> Result<(), StoreError> {
        let map = &flush.map;
        let clean = map.seq() == file.map.seq();
        txn.byteless_flush = byteless_flush(&prepared, flush);
        txn.held = self.hand_over(file, clean);
        txn.held.holds.clone_from(&flush.holds);
        self.attach_content(&mut txn, prepared);
        // The dirty-budget permit moves to the operation only after the journal took it: bytes of a refused state stay dirty.
        self.commit.enqueue(txn)?.keep(file.take_permit(map));
        then(file);
        file.continue_from(map);
        self.inodes.keep_dirty(file.inode());
        Ok(())
    }

    /// Returns what the operation holds until it is durable: the journal, and the staging files if no later write uses them.
    pub(crate) fn hand_over(&self, leaf: &FileInode, clean: bool) -> Guards {
        let journal = leaf.session.iter().map(|w| w.token.clone()).collect();
        let session = leaf.session.as_ref().filter(|_| clean);
        let staging = session.map_or_else(Vec::new, |w| w.files.clone());
        // Closed, so that later writes open another staging file.
        staging.iter().for_each(|file| file.close());
        Guards {
            journal,
            permit: None,
            staging,
            holds: Vec::new(),
        }
    }

    /// Enqueues the present state as a provisional state, so that it becomes durable without becoming a version.
    pub(crate) async fn write_back(
        &self,
        locked: &mut LockedInode,
        author: &Author,
    ) -> Result<(), StoreError> {
        let Some(mut file) = locked.file() else {
            return Ok(());
        };
        if !file.is_dirty() || file.link_state == LinkState::Unlinked {
            return Ok(());
        }
        let answer = self.core.clock.begin();
        let at = answer.at();
        let flush = self.state_of(&mut file, at, VersionTimestamp::Expired, author)?;
        let map = flush.map.clone();
        let changes = file
            .saved
            .as_ref()
            .map_or_else(|| map.clone(), |s| map.since(s));
        let change = ContentChange {
            map: &changes,
            base: file.base,
            flush: &flush,
            at,
            len: file.attrs.size,
        };
        let prepared = self.prepare(file.ino(), &file, change).await?;
        let mut node = file.node.clone();
        node.content = prepared.content.clone();
        node.allocated = file.allocated(&changes, file.attrs.size);
        node.attrs = file.attrs.clone();
        let mut txn = self.file_txn(file.ino(), &file, at).await?;
        let state = match (&file.state, file.last_version(file.ino())) {
            (EntryState::Version(_), Some(last)) => EntryState::Provisional(Box::new(last)),
            (other, _) => {
                txn.unreference_content(&file.node.content);
                other.clone()
            }
        };
        txn.reference_content(&node.content);
        txn.usage.bytes = node.grown_from(&file.node);
        let alive_since = file.alive_since();
        self.current_rows(&mut txn, file.ino(), &file, &node, &state, alive_since);
        self.finish_flush(&mut file, txn, prepared, &flush, |file| {
            file.set_node(node);
            file.set_state(state);
        })
    }

    /// Returns the present state of a file inode. If there are unsaved writes, the journal gets a record of the state.
    pub(crate) fn state_of(
        &self,
        file: &mut LockedFile<'_>,
        at: Timestamp,
        timestamp_state: VersionTimestamp,
        author: &Author,
    ) -> Result<FlushedState, StoreError> {
        if let Some(session) = &file.session {
            let record = FlushRecord {
                session: session.id,
                ino: file.ino(),
                at,
                attrs: file.attrs.clone(),
                author: author.clone(),
            };
            let _covered = self.core.append(&Record::Flush(record))?;
        }
        Ok(FlushedState {
            at,
            timestamp_state: crate::sync::Mutex::new(timestamp_state),
            map: file.snapshot(),
            base: file.base,
            hold: None,
            attrs: crate::sync::Mutex::new(file.attrs.clone()),
            author: author.clone(),
            since: tokio::time::Instant::now(),
            supersession: Supersession::Current,
            session: file.session.as_ref().map(|w| w.id),
            token: file.session.as_ref().map(|w| w.token.clone()),
            holds: file.holds.clone(),
        })
    }

    pub(crate) fn suffix(&self) -> u32 {
        (self.core.env.new_id().as_u128() & u128::from(u32::MAX)) as u32
    }
}

/// Returns the flush record for an operation that uploads no content; `None` for one that does, whose `ContentRecord` names the flush.
pub(crate) fn byteless_flush(
    prepared: &PreparedContent,
    flush: &FlushedState,
) -> Option<BytelessFlush> {
    if prepared.upload.is_some() {
        return None;
    }
    let base = match &prepared.content {
        Content::Bytes(content) | Content::Shared(content) => Some(ContentBase {
            content: *content,
            len: lock(&flush.attrs).size,
        }),
        Content::Empty | Content::Target(_) => None,
    };
    Some(BytelessFlush {
        session: flush.session?,
        flush: flush.at,
        base,
    })
}

/// Tells whether a flushed state can no longer become a version at its own timestamp: the state waited too long, or the last
/// version has a later timestamp.
pub(crate) fn is_late(file: &FileInode, flush: &FlushedState) -> bool {
    matches!(*lock(&flush.timestamp_state), VersionTimestamp::Expired)
        || file.state.version().is_some_and(|last| flush.at <= last)
}
