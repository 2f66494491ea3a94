//! Atomic put: writes a whole file before any name leads to it, then binds it to a name in one operation.
//!
//! The bytes go to the journal and to staging files under a new inode number. [`AtomicPut::place`] makes one operation of the
//! directory entry, the content, and the end of the name's previous file. A large content is uploaded in parts while it is
//! written; the row of an orphan references the parts.
//!
//! Invariant: nothing of the file is visible until the placement is in the journal, and a crash before that leaves nothing.

use bytes::Bytes;

use crate::cache::Source;
use crate::store::commit::txn::Txn;
use crate::store::model::config::Owner;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{ContentBase, Dentry};
use crate::store::model::version::{
    Attrs, Author, Content, EndOp, Ino, Kind, Op, Stamp, Time, Timestamp, VersionId,
};
use crate::store::schema::journal_record::{BytelessFlush, Dependencies, Record};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryRow, EntryState, ImportedRow, InodeRow, InodeState,
    OlderVersions, OrphanRow, VersionRecord,
};
use crate::store::schema::tables::{RowTable, VersionTable};
use crate::store::tree::Tree;
use crate::store::tree::file::range_end;
use crate::store::tree::flush_content::{ContentChange, PreparedContent};
use crate::store::tree::inode::{FileInode, FlushedState, LinkState, VersionTimestamp};
use crate::store::tree::locked::{LockedInode, UnnamedFile, find};
use crate::store::tree::reflink::CloneSource;
use crate::store::tree::review::review;
use crate::store::tree::row_writer::{NameRemoval, Unbinding};
use crate::sync::Arc;

/// Bytes written before an upload begins; a multiple of the range size, so that each range is uploaded once.
const PART_SIZE: u64 = 32 << 20;

/// The properties of a file that is put under a name.
#[derive(Clone, Debug)]
pub(crate) struct PutTarget {
    /// Permission bits, owner and group for a new name; a replaced file passes its own on.
    pub(crate) mode: u32,
    pub(crate) owner: Owner,
    /// Extended attributes of the new state. Those of a replaced file outside `user.` are kept.
    pub(crate) xattrs: Vec<(Bytes, Bytes)>,
    pub(crate) op: Op,
    pub(crate) author: Author,
    /// When the version began, if not now; must be later than every version of the name.
    pub(crate) since: Option<Timestamp>,
    /// The id of the version in the system it is imported from.
    pub(crate) foreign_id: Option<Bytes>,
}

/// A file being written that has no name yet.
#[derive(Debug)]
pub(crate) struct AtomicPut {
    tree: Arc<Tree>,
    file: UnnamedFile,
    author: Author,
    /// Whether the queue has a part of the content already, under an orphan's row.
    begun: bool,
    placed: bool,
}

impl Drop for AtomicPut {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        self.file.locked().discard_changes();
        if self.begun {
            // Sending fails only after the namespace's tasks have ended; the next mount deletes the orphan then.
            let _gone = self.tree.unlinked.send(self.file.ino());
        }
    }
}

impl Tree {
    /// Begins a file for `name` in `parent`. The name is only recorded with the bytes; no directory entry is made.
    pub(crate) fn begin(self: &Arc<Self>, parent: Ino, name: &Bytes, author: &Author) -> AtomicPut {
        let far = Timestamp(u64::MAX);
        let link_state = LinkState::Single {
            place: Dentry::new(parent, name.clone()),
            bound: far,
            alive_since: far,
            older: OlderVersions::NotHeld,
        };
        let node = InodeState {
            kind: Kind::File,
            attrs: Attrs::default(),
            xattrs: Vec::new(),
            content: Content::Empty,
            allocated: 0,
        };
        let file = FileInode::new(link_state, node, EntryState::Unborn { behind: None });
        AtomicPut {
            file: UnnamedFile::new(Ino(self.core.new_id()), file),
            tree: Arc::clone(self),
            author: author.clone(),
            begun: false,
            placed: false,
        }
    }
}

impl AtomicPut {
    /// Appends bytes to the file. Waits for the dirty budget and for disk space if necessary.
    ///
    /// # Errors
    /// `TooLarge`, `NoSpace` when the cache directory is full, `Fenced`, `Closed`.
    pub(crate) async fn append(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let (at, len) = (self.file.attrs.size, bytes.len() as u64);
        if len == 0 {
            return Ok(());
        }
        let end = range_end(at, len)?;
        let tree = Arc::clone(&self.tree);
        tree.core.health.check()?;
        let mut waiting = tree.waiting();
        let permit = loop {
            let permit = match tree.data.budget.try_acquire(len) {
                Some(permit) => permit,
                None => {
                    // The written bytes are enqueued before the wait: else waiting callers would hold the budget they wait for.
                    self.hand_over().await?;
                    tree.room_in_budget(len).await?
                }
            };
            let mut file = self.file.locked();
            let placed = tree.place_bytes(&mut file, at, bytes.clone(), &self.author);
            match placed.await {
                Err(StoreError::NoSpace) => {}
                outcome => break outcome.map(|()| permit)?,
            }
            drop(permit);
            self.hand_over().await?;
            waiting.more(len).await?;
        };
        self.file.locked().add_permit(permit);
        if end.is_multiple_of(PART_SIZE) {
            self.hand_over().await?;
        }
        Ok(())
    }

    /// Appends all bytes of a source by reference; no byte is copied.
    ///
    /// # Errors
    /// As for [`AtomicPut::append`].
    pub(crate) fn show(&mut self, source: &CloneSource) -> Result<(), StoreError> {
        let (at, len) = (self.file.attrs.size, source.len());
        if len == 0 {
            return Ok(());
        }
        let end = range_end(at, len)?;
        self.tree.core.health.check()?;
        let mut file = self.file.locked();
        if let Some((content, pin)) = source.content() {
            let session = self.tree.session(&mut file, &self.author)?;
            let _covered = self.tree.core.append(&Record::Refer {
                session,
                offset: at,
                len,
                content: *content,
                position: 0,
            })?;
            let of = content.referent();
            file.refer(at, len, Source::Reference { of, position: 0 }, pin);
        }
        file.extend_to(end);
        Ok(())
    }

    /// Enqueues the bytes written so far for upload, referenced by an orphan's row.
    async fn hand_over(&mut self) -> Result<(), StoreError> {
        if !self.file.is_dirty() {
            return Ok(());
        }
        let answer = self.tree.core.clock.begin();
        let at = answer.at();
        let (prepared, flush) = self.prepare(at).await?;
        let dependencies = Dependencies {
            touches: vec![keys::inode(self.file.ino()).bytes()],
            ..Dependencies::default()
        };
        let mut txn = self.tree.commit.txn(at, dependencies);
        let mut node = self.file.node.clone();
        node.content = prepared.content.clone();
        node.attrs = self.file.attrs.clone();
        node.allocated = node.attrs.size;
        txn.unreference_content(&self.file.node.content);
        txn.reference_content(&node.content);
        let orphan = OrphanRow { node: node.clone() };
        txn.put(keys::orphan(self.file.ino()), &orphan);
        self.queue(txn, prepared, &flush, node)?;
        self.begun = true;
        Ok(())
    }

    async fn prepare(
        &mut self,
        at: Timestamp,
    ) -> Result<(PreparedContent, FlushedState), StoreError> {
        let expired = VersionTimestamp::Expired;
        let flush = self
            .tree
            .state_of(&mut self.file.locked(), at, expired, &self.author)?;
        let changes = match &self.file.saved {
            Some(saved) => flush.map.since(saved),
            None => flush.map.clone(),
        };
        let (base, len) = (self.file.base, self.file.attrs.size);
        let change = ContentChange {
            map: &changes,
            base,
            flush: &flush,
            at,
            len,
        };
        let prepared = self
            .tree
            .prepare(self.file.ino(), &self.file, change)
            .await?;
        Ok((prepared, flush))
    }

    /// Enqueues a state and makes its content the base of later appends.
    fn queue(
        &mut self,
        mut txn: Txn,
        prepared: PreparedContent,
        flush: &FlushedState,
        node: InodeState,
    ) -> Result<(), StoreError> {
        let mut file = self.file.locked();
        let shown = node.content.reference();
        let len = node.attrs.size;
        if let (None, Some(session)) = (&prepared.upload, flush.session) {
            txn.byteless_flush = Some(BytelessFlush {
                session,
                flush: flush.at,
                base: shown.map(|content| ContentBase { content, len }),
            });
        }
        txn.held = self.tree.hand_over(&file, true);
        txn.held.holds.clone_from(&flush.holds);
        self.tree.attach_content(&mut txn, prepared);
        // The dirty-budget permit moves to the operation only after the journal took it: bytes of a refused state stay dirty.
        self.tree
            .commit
            .enqueue(txn)?
            .keep(file.take_permit(&flush.map));
        file.set_node(node);
        file.continue_from(&flush.map);
        Ok(())
    }

    /// Binds the file to a name, replacing a file that has it. Returns the id of the new version.
    ///
    /// # Errors
    /// `NotFound` if the directory does not exist any more, `NotDirectory`; `IsDirectory` over a directory, `Exists` over any other inode that
    /// is not a regular file; `Invalid` when `since` is not after the name's last version; `NoSpace`.
    pub(crate) async fn place(
        &mut self,
        parent: Ino,
        name: &Bytes,
        how: &PutTarget,
    ) -> Result<VersionId, StoreError> {
        let tree = Arc::clone(&self.tree);
        tree.core.health.check()?;
        loop {
            let target = tree.entry(parent, name).await?;
            let mut wanted = vec![parent];
            wanted.extend(target.as_ref().map(|t| t.ino));
            let mut locked = match tree.lock_all(&wanted).await {
                Ok(locked) => locked,
                Err(StoreError::NotFound) => {
                    // A target removed since the lookup is retried; a removed directory is an error.
                    drop(tree.lock(parent).await?);
                    continue;
                }
                Err(error) => return Err(error),
            };
            tree.check_not_restored(&wanted).await?;
            let now = tree.entry(parent, name).await?;
            if now.as_ref().map(|e| e.ino) == target.as_ref().map(|e| e.ino) {
                let dentry = Dentry::new(parent, name.clone());
                return self.place_locked(&mut locked, dentry, now, how).await;
            }
        }
    }

    async fn place_locked(
        &mut self,
        locked: &mut [LockedInode],
        dentry: Dentry,
        target: Option<DentryRow>,
        how: &PutTarget,
    ) -> Result<VersionId, StoreError> {
        let tree = Arc::clone(&self.tree);
        let (parent, name) = (dentry.parent, &dentry.name);
        find(locked, parent)
            .and_then(LockedInode::directory)
            .ok_or(StoreError::NotDirectory)?;
        let target = self.flushed_target(locked, &dentry, target).await?;
        let older = tree.kept_removed(locked, &dentry).await?;
        let answer = tree.core.clock.begin();
        let (at, ino) = (answer.at(), self.file.ino());
        let since = how.since.unwrap_or(at);
        if how.since.is_some() {
            tree.check_since(parent, name, at, since).await?;
        }
        let (prepared, flush) = self.prepare(at).await?;
        let mut txn = tree.commit.txn(at, tree.order_in(parent, name, ino).await?);
        review(&mut txn, &dentry, older);
        let stamp = Stamp {
            id: VersionId {
                timestamp: since,
                suffix: tree.suffix(),
            },
            op: how.op,
            author: how.author.clone(),
            host: tree.core.config.host.clone(),
            origin: None,
        };
        let mut node = self.node(how, txn.time, &prepared.content);
        let mut out = None;
        if let Some(entry) = &target {
            let found = find(locked, entry.ino).ok_or(StoreError::NotFound)?;
            out = Some(tree.replace_file(&mut txn, found, entry, &dentry, since, &mut node)?);
        }
        let alive = target.as_ref().map_or(since, |t| t.alive_since.min(since));
        self.rows(&mut txn, &dentry, alive, &node, &stamp);
        if let Some(id) = &how.foreign_id {
            let row = ImportedRow {
                directory: parent,
                name: name.clone(),
                version: stamp.id,
            };
            txn.put(keys::foreign(id), &row);
        }
        let change = DirectoryRow {
            entries: i64::from(target.is_none()),
            removal_burst: Some((at, None)),
            ..DirectoryRow::default()
        };
        let change = tree.touch(&mut txn, parent, change);
        let time = txn.time;
        self.queue(txn, prepared, &flush, node)?;
        self.placed = true;
        if let Some(mut directory) = find(locked, parent).and_then(LockedInode::directory) {
            directory.merge(change);
        }
        if let (Some(link_state), Some(entry)) = (out, &target)
            && let Some(found) = find(locked, entry.ino)
        {
            tree.moved_out(found, link_state, time);
        }
        Ok(stamp.id)
    }

    /// Saves the flushed states of the file that has the name, and returns its entry. Only a regular file may be replaced. `entry`
    /// was read under the locks.
    async fn flushed_target(
        &self,
        locked: &mut [LockedInode],
        dentry: &Dentry,
        entry: Option<DentryRow>,
    ) -> Result<Option<DentryRow>, StoreError> {
        let Some(entry) = entry else { return Ok(None) };
        let target = find(locked, entry.ino).ok_or(StoreError::NotFound)?;
        let file = target.as_file().ok_or(StoreError::IsDirectory)?;
        if file.node.kind != Kind::File {
            return Err(StoreError::Exists);
        }
        if file.flushes.is_empty() {
            return Ok(Some(entry));
        }
        self.tree.save_flushes(target).await?;
        // The save has written the entry anew.
        self.tree.entry(dentry.parent, &dentry.name).await
    }

    fn node(&self, how: &PutTarget, now: Time, content: &Content) -> InodeState {
        let time = how.since.map_or(now, Timestamp::time);
        let size = self.file.attrs.size;
        InodeState {
            kind: Kind::File,
            attrs: Attrs {
                mode: how.mode & 0o7777,
                uid: how.owner.uid,
                gid: how.owner.gid,
                rdev: 0,
                size,
                atime: time,
                mtime: time,
                ctime: time,
                btime: time,
            },
            xattrs: how.xattrs.clone(),
            content: content.clone(),
            allocated: size,
        }
    }

    fn rows(
        &self,
        txn: &mut Txn,
        dentry: &Dentry,
        alive_since: Timestamp,
        node: &InodeState,
        stamp: &Stamp,
    ) {
        let ino = self.file.ino();
        if self.begun {
            txn.delete(keys::orphan(ino));
            txn.unreference_content(&self.file.node.content);
        }
        txn.reference_content(&node.content);
        let entry = DentryRow {
            ino,
            bound: txn.timestamp,
            alive_since,
            body: DentryBody::Own {
                node: node.clone(),
                state: EntryState::Version(stamp.clone()),
            },
            older: OlderVersions::NotHeld,
        };
        txn.put(keys::entry(dentry.parent, &dentry.name), &entry);
        self.tree.put_location(txn, ino, dentry);
        let space = node.space().cast_signed();
        txn.usage.bytes = txn.usage.bytes.wrapping_add(space);
        txn.usage.files += 1;
    }
}

impl Tree {
    /// Checks that a version would begin in the past and after every earlier version of its name.
    async fn check_since(
        self: &Arc<Self>,
        parent: Ino,
        name: &Bytes,
        now: Timestamp,
        since: Timestamp,
    ) -> Result<(), StoreError> {
        let refused = |why: String| Err(StoreError::Invalid(why));
        if since >= now {
            return refused(format!("{} ns is in the future", since.0));
        }
        let last = self.last_change(parent, name).await?;
        match last {
            Some(last) if last >= since => refused(format!(
                "the name changed at {} ns, not before {} ns",
                last.0, since.0
            )),
            _ => Ok(()),
        }
    }

    /// Returns when a name last changed, as its versions show; `None` for a name that never had a version.
    pub(crate) async fn last_change(
        &self,
        parent: Ino,
        name: &Bytes,
    ) -> Result<Option<Timestamp>, StoreError> {
        let current = match self.entry(parent, name).await? {
            Some(entry) => match entry.body {
                DentryBody::Own { state, .. } => state.version(),
                DentryBody::Linked(binding) => {
                    let row = self.core.index.row(&keys::inode(entry.ino)).await?;
                    let state = match row {
                        Some(InodeRow::Linked(row)) => row.state.version(),
                        Some(InodeRow::Directory(_)) | None => None,
                    };
                    Some(binding.id.timestamp).max(state)
                }
            },
            None => None,
        };
        if current.is_some() {
            return Ok(current);
        }
        let (mut from, end) = (
            keys::history(parent, name),
            keys::after(&keys::history(parent, name)),
        );
        while let Some((key, value)) = self.core.index.first(from, end.clone()).await? {
            let record: VersionRecord = VersionTable::decode(&value)?;
            if record.end_op != EndOp::Transient {
                return Ok(Some(record.end));
            }
            from = keys::after(&key);
        }
        Ok(None)
    }

    /// Ends the replaced file's name at `since`; copies the attributes that a new content does not change to the new state.
    fn replace_file(
        &self,
        txn: &mut Txn,
        target: &LockedInode,
        entry: &DentryRow,
        dentry: &Dentry,
        since: Timestamp,
        node: &mut InodeState,
    ) -> Result<LinkState, StoreError> {
        let file = target.as_file().ok_or(StoreError::IsDirectory)?;
        let (mode, uid, gid) = (file.attrs.mode, file.attrs.uid, file.attrs.gid);
        (node.attrs.mode, node.attrs.uid, node.attrs.gid) = (mode, uid, gid);
        let stays = |(name, _): &&(Bytes, Bytes)| !name.starts_with(b"user.");
        node.xattrs
            .extend(file.node.xattrs.iter().filter(stays).cloned());
        node.xattrs.sort();
        txn.touch(keys::inode(entry.ino));
        // The old version ends when the new one begins. The operation keeps its own timestamp, which orders it in the queue.
        let answered = std::mem::replace(&mut txn.timestamp, since);
        txn.recorded = Some(answered);
        let removal = NameRemoval {
            dentry,
            entry,
            cause: Unbinding::Replaced,
            is_pinned: target.inode.is_pinned(),
        };
        let link_state = self.detach(txn, entry.ino, file, removal);
        txn.timestamp = answered;
        txn.recorded = None;
        Ok(link_state)
    }
}
