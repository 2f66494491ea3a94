//! Restores one superseded state as a conflict version: copies its content into a new lineage, chooses a directory
//! entry, and writes the rows that show the version there.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use crate::cache::{DirtySnapshot, Source};
use crate::meta::JournalToken;
use crate::store::commit::txn::{Guards, Txn};
use crate::store::data::contents::{PendingContent, UploadState};
use crate::store::data::extent_map::{RANGE, next_range};
use crate::store::index::health::RecoveredConflicts;
use crate::store::index::interval_tree;
use crate::store::index::timestamps::Reservation;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{ContentBase, Dentry, OperationId};
use crate::store::model::version::{
    Author, Content, ContentRef, EndOp, Ino, Kind, Op, ROOT, Stamp, Timestamp, VersionId,
};
use crate::store::recovery::Recovery;
use crate::store::recovery::superseded::ForeignWriters;
use crate::store::schema::journal_record::{BytelessFlush, ContentRecord, Dependencies, Record};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, EntryState, InodeState, RangeRow, VersionRecord,
};
use crate::store::tree::review::review;
use crate::store::tree::row_writer::VersionEnd;
use crate::store::tree::version_record::VersionRows;
use crate::sync::Arc;

/// Maximum number of parent directories that a path walk visits.
const DEPTH_MAX: usize = 4096;
/// A superseded state to be restored as a conflict version.
pub(crate) struct ConflictItem {
    pub(crate) ino: Ino,
    /// Ids from this one on may have been given again by the other writer.
    pub(crate) limit: u64,
    /// The directory entry of the state; `None` for a state that only provides the bytes of a later one.
    pub(crate) dentry: Option<Dentry>,
    pub(crate) node: InodeState,
    pub(crate) author: Author,
    pub(crate) host: String,
    pub(crate) suffix: u32,
    pub(crate) own: Option<OwnBytes>,
    pub(crate) held: Guards,
    pub(crate) how: Numbering,
}

/// The written bytes of a state, and the base content on which they were acknowledged.
pub(crate) struct OwnBytes {
    pub(crate) session: u64,
    pub(crate) flush: Timestamp,
    pub(crate) known_as: Option<ContentRef>,
    pub(crate) base: Option<ContentBase>,
    pub(crate) len: u64,
    pub(crate) flushed: DirtySnapshot,
}

/// Which number the restoring operation gets.
pub(crate) enum Numbering {
    /// The epoch and number of the superseded operation, so that a replay applies it once.
    Again(OperationId, JournalToken),
    /// A new number of this epoch; the operation is added to the journal.
    Anew,
}

/// The newest conflict version of a directory entry, and the timestamp at which it ends.
pub(crate) struct NewestConflict {
    pub(crate) closed: VersionRecord,
    pub(crate) end: Timestamp,
}

/// The state of the recovery of superseded changes.
pub(crate) struct ConflictRecovery<'a> {
    pub(crate) recovery: &'a Recovery,
    pub(crate) foreign_writers: &'a ForeignWriters,
    /// Directory entries of directories, as the superseded operations left them.
    pub(crate) directories: HashMap<Ino, Dentry>,
    /// Inodes as the superseded operations left them.
    pub(crate) nodes: HashMap<Ino, InodeState>,
    /// Range rows by lineage that superseded operations wrote and that did not reach the bucket.
    pub(crate) laid: HashMap<u64, Vec<(u64, RangeRow)>>,
    /// New name of each content, by the name under which it was acknowledged.
    pub(crate) renamed: HashMap<ContentRef, ContentRef>,
    /// The newest content of each new lineage.
    pub(crate) tips: HashMap<u64, ContentRef>,
    pub(crate) dentries: HashMap<Dentry, NewestConflict>,
    pub(crate) timestamps: VecDeque<Reservation>,
    pub(crate) next_end: u64,
    pub(crate) done: RecoveredConflicts,
    pub(crate) places: BTreeSet<String>,
}

impl ConflictItem {
    /// Returns the stamp of the conflict version that begins at `timestamp`.
    fn stamp(&self, timestamp: Timestamp) -> Stamp {
        let suffix = self.suffix;
        Stamp {
            id: VersionId { timestamp, suffix },
            op: Op::Conflict,
            author: self.author.clone(),
            host: self.host.clone(),
            origin: None,
        }
    }
}

impl ConflictRecovery<'_> {
    /// Queues the operation that restores a state as a conflict version. Returns the new name of its content.
    pub(crate) async fn restore_as_conflict(
        &mut self,
        mut item: ConflictItem,
    ) -> Result<Option<ContentRef>, StoreError> {
        let answer = self
            .timestamps
            .pop_front()
            .unwrap_or_else(|| self.recovery.core.clock.begin());
        let mut txn = self
            .recovery
            .commit
            .txn(answer.at(), Dependencies::default());
        item.node.content = self.content(&mut txn, &item).await?;
        txn.held = std::mem::take(&mut item.held);
        if let Some((pending, _)) = &txn.content {
            txn.held.holds = self.recovery.data.pins.pin_all(&pending.flushed);
        }
        let content = item.node.content.reference();
        if let Some(content) = content {
            // This operation is ordered after the operation that writes its base.
            txn.touch(keys::cut(content.cid, Timestamp(0)));
        }
        if let Some(dentry) = item.dentry.take() {
            self.show(&mut txn, &item, &dentry).await?;
        }
        match item.how {
            Numbering::Again(id, token) => self.again(txn, id, token),
            Numbering::Anew => drop(self.recovery.commit.enqueue(txn)?),
        }
        Ok(content)
    }

    /// Returns the content of a state in a new lineage; if the state has bytes to upload, adds them to `txn`.
    async fn content(&mut self, txn: &mut Txn, item: &ConflictItem) -> Result<Content, StoreError> {
        let fresh = |rescue: &Self, at| ContentRef {
            cid: rescue.recovery.core.new_id(),
            timestamp: at,
        };
        let at = txn.timestamp;
        let Some(own) = &item.own else {
            return Ok(match item.node.content.reference() {
                Some(old) => Content::Shared(match self.renamed.get(&old) {
                    Some(new) => *new,
                    None if old.cid < item.limit => old,
                    None => fresh(self, at),
                }),
                None => item.node.content.clone(),
            });
        };
        let is_inside = |cut: &u64| own.base.is_some_and(|base| *cut < base.len);
        let cut = own.flushed.cut().filter(is_inside);
        let unchanged = own.flushed.spans().next().is_none() && cut.is_none();
        let base = match own.base {
            _ if own.len == 0 || cut == Some(0) => None,
            Some(old) => {
                self.insert_below(txn, old.content, old.len, item.limit)
                    .await?
            }
            None => None,
        };
        if own.len == 0 || unchanged {
            let content = || base.map_or_else(|| fresh(self, at), |base| base.content);
            let content = (own.len > 0).then(content);
            let len = own.len;
            txn.byteless_flush = Some(BytelessFlush {
                session: own.session,
                flush: own.flush,
                base: content.map(|content| ContentBase { content, len }),
            });
            self.name(own.known_as, content)?;
            return Ok(content.map_or(Content::Empty, Content::Bytes));
        }
        let new_id = || self.recovery.core.new_id();
        let cid = base.map_or_else(new_id, |base| base.content.cid);
        let content = ContentRef { cid, timestamp: at };
        self.name(own.known_as, Some(content))?;
        let nowhere = || Dentry::new(Ino(0), Bytes::new());
        let place = item.dentry.clone().unwrap_or_else(nowhere);
        let record = ContentRecord {
            session: own.session,
            flush: own.flush,
            content,
            ino: item.ino,
            place: place.clone(),
            base,
            len: own.len,
            replaces: None,
            renamed: self.references(&own.flushed, item.limit).await?,
        };
        let pending = Arc::new(PendingContent {
            content,
            ino: item.ino,
            place,
            base,
            len: own.len,
            flushed: record.referring(own.flushed.clone()),
            after: base.and_then(|base| self.recovery.data.contents.pending(base.content)),
            replaces: None,
            upload_state: tokio::sync::watch::Sender::new(UploadState::Waiting),
        });
        txn.content = Some((pending, record));
        Ok(Content::Bytes(content))
    }

    /// Returns the new names of the contents that the spans of a state refer to; `None` for a content that no longer
    /// exists.
    async fn references(
        &self,
        flushed: &DirtySnapshot,
        limit: u64,
    ) -> Result<Vec<(ContentRef, Option<ContentRef>)>, StoreError> {
        let mut all = Vec::new();
        for span in flushed.spans() {
            let Source::Reference { of, .. } = span.source else {
                continue;
            };
            let old = ContentRef::of(of);
            let new = match self.renamed.get(&old) {
                Some(new) => Some(*new),
                None if self.is_shown(old, limit).await? => continue,
                None => {
                    self.gone();
                    None
                }
            };
            all.push((old, new));
        }
        Ok(all)
    }

    /// Reports that the base of an acknowledged state no longer exists.
    fn gone(&self) {
        let note = "the base of a conflict version is deleted: bytes that the version did not write are zero";
        tracing::warn!("{note}");
        self.recovery.core.health.note(note.to_owned());
    }

    /// Records the new name of a content, also in the journal for a recovery after a crash.
    fn name(&mut self, old: Option<ContentRef>, new: Option<ContentRef>) -> Result<(), StoreError> {
        let Some(new) = new else { return Ok(()) };
        if let Some(old) = old {
            let _covered = self.recovery.core.append(&Record::Renamed { old, new })?;
            self.renamed.insert(old, new);
        }
        self.renamed.insert(new, new);
        self.tips.insert(new.cid, new);
        Ok(())
    }

    /// Returns the base of a state in a lineage that no other writer continues; copies the base into a new lineage if
    /// necessary. `None` if the base no longer exists.
    async fn insert_below(
        &mut self,
        txn: &mut Txn,
        old: ContentRef,
        len: u64,
        limit: u64,
    ) -> Result<Option<ContentBase>, StoreError> {
        let known = self.renamed.get(&old).copied();
        if let Some(new) = known.filter(|new| self.tips.get(&new.cid) == Some(new)) {
            return Ok(Some(ContentBase { content: new, len }));
        }
        if known.is_some() {
            self.recovery.core.changed.notify_waiters();
            self.recovery
                .commit
                .wait_all_durable(&self.recovery.commit.queue.all())
                .await?;
        }
        let timestamp = Timestamp(txn.timestamp.0.saturating_sub(1));
        let cid = self.recovery.core.new_id();
        let rows = match (known, self.laid.get(&old.cid)) {
            (Some(new), _) => self.ranges(new, len).await?,
            (None, Some(rows)) => rows.clone(),
            (None, None) if self.is_shown(old, limit).await? => self.ranges(old, len).await?,
            (None, None) => {
                self.gone();
                return Ok(None);
            }
        };
        for (range, row) in rows {
            self.recovery
                .data
                .cite(&mut txn.rows, &row, 1, txn.timestamp);
            txn.put(keys::range(cid, range, timestamp), &row);
        }
        Ok(Some(ContentBase {
            content: ContentRef { cid, timestamp },
            len,
        }))
    }

    /// Tells whether the bucket shows a content; ids from `limit` on belong to another writer.
    async fn is_shown(&self, content: ContentRef, limit: u64) -> Result<bool, StoreError> {
        let key = keys::count(content);
        let count = self.recovery.core.index.row(&key).await?;
        Ok(content.cid < limit && count.is_some_and(|count| count > 0))
    }

    /// Returns the range rows of a content, each complete without an older row. `len` is in bytes.
    async fn ranges(
        &self,
        content: ContentRef,
        len: u64,
    ) -> Result<Vec<(u64, RangeRow)>, StoreError> {
        let (mut rows, mut behind) = (Vec::new(), 0);
        let index = self.recovery.core.index.snapshot();
        while let Some(range) = next_range(&index, content, behind).await?
            && range < len.div_ceil(RANGE)
        {
            behind = range + 1;
            let end = (len - range * RANGE).min(RANGE) as u32;
            let pieces = self
                .recovery
                .data
                .contents
                .pieces(&index, content, range)
                .await?;
            let pieces: Vec<_> = pieces.iter().filter_map(|p| p.clip(0, end)).collect();
            if !pieces.is_empty() {
                rows.push((range, RangeRow::Whole(pieces)));
            }
        }
        Ok(rows)
    }

    /// Adds the rows by which a directory entry shows the state for a short time, and then its former state again.
    async fn show(
        &mut self,
        txn: &mut Txn,
        item: &ConflictItem,
        acknowledged: &Dentry,
    ) -> Result<(), StoreError> {
        let recovery = self.recovery;
        let at = txn.timestamp;
        let dentry = self.place(acknowledged, item.limit).await?;
        txn.touch(keys::entry(dentry.parent, &dentry.name));
        txn.dependencies.within.push(dentry.parent);
        txn.dependencies.below = recovery.tree.ancestors(dentry.parent).await?;
        let current = recovery.tree.entry(dentry.parent, &dentry.name).await?;
        let end_op = if current.is_some() {
            EndOp::Replaced
        } else {
            EndOp::Deleted
        };
        let rows = VersionRows::Of(dentry.clone());
        let end = match self.dentries.get(&dentry) {
            Some(newest) => {
                let (end, end_op) = (at, EndOp::Superseded);
                let before = VersionRecord {
                    end,
                    end_op,
                    ..newest.closed.clone()
                };
                let _filed = recovery.tree.close_record(txn, &rows, before);
                newest.end
            }
            None => {
                let end = Timestamp(self.next_end);
                self.next_end += 1;
                match current.clone() {
                    Some(entry) => self.interrupt(txn, &dentry, entry, end).await?,
                    // The conflict version ends by a removal, so `@deleted` lists the name.
                    None => {
                        interval_tree::add_removed(
                            &mut txn.rows,
                            dentry.parent,
                            &dentry.name,
                            at..end,
                        );
                    }
                }
                end
            }
        };
        let stamp = item.stamp(at);
        let ino = if item.ino.0 < item.limit {
            item.ino
        } else {
            Ino(recovery.core.new_id())
        };
        let alive_since = current.map_or(at, |entry| entry.alive_since.min(at));
        let end_of = VersionEnd::new(end, end_op);
        let closed = end_of.record(ino, stamp, Some(item.node.clone()), alive_since);
        let closed = recovery.tree.close_record(txn, &rows, closed);
        txn.reference_content(&item.node.content);
        self.report(&dentry, closed.stamp.id).await?;
        self.dentries.insert(dentry, NewestConflict { closed, end });
        Ok(())
    }

    /// Ends the current state of a directory entry at the operation's timestamp and restores it at `until`.
    async fn interrupt(
        &self,
        txn: &mut Txn,
        dentry: &Dentry,
        entry: DentryRow,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let (recovery, at, ino) = (self.recovery, txn.timestamp, entry.ino);
        txn.touch(keys::inode(ino));
        let again = |was: &Stamp| Stamp {
            id: VersionId {
                timestamp: until,
                suffix: recovery.tree.suffix(),
            },
            op: Op::Restore,
            author: was.author.clone(),
            host: was.host.clone(),
            origin: None,
        };
        review(txn, dentry, entry.older);
        let (body, bound) = match entry.body {
            DentryBody::Own {
                node,
                state: EntryState::Version(was),
            } => {
                let stamp = again(&was);
                let end = VersionEnd::new(at, EndOp::Superseded);
                let record = end.record(ino, was, Some(node.clone()), entry.alive_since);
                let rows = VersionRows::Of(dentry.clone());
                let _filed = recovery.tree.close_record(txn, &rows, record);
                txn.reference_content(&node.content);
                let state = EntryState::Version(stamp);
                if let Some(mut file) = recovery.tree.lock(ino).await?.file() {
                    file.set_state(state.clone());
                }
                (DentryBody::Own { node, state }, entry.bound)
            }
            DentryBody::Linked(was) => {
                let end = VersionEnd::new(at, EndOp::Replaced);
                let alive_since = entry.alive_since.min(at);
                recovery
                    .tree
                    .unbind(txn, dentry, ino, &was, alive_since, end);
                let stamp = again(&was);
                recovery.tree.begin_binding(txn, ino, stamp.id, dentry);
                (DentryBody::Linked(stamp), until)
            }
            own @ DentryBody::Own { .. } => (own, entry.bound),
        };
        let entry = DentryRow {
            ino,
            bound,
            alive_since: entry.alive_since,
            body,
            older: entry.older,
        };
        txn.put(keys::entry(dentry.parent, &dentry.name), &entry);
        Ok(())
    }

    /// Chooses the directory entry for a conflict version: its own entry; if its directory does not exist any more, a new name in the
    /// nearest existing ancestor.
    async fn place(
        &self,
        Dentry {
            parent: directory,
            name,
        }: &Dentry,
        limit: u64,
    ) -> Result<Dentry, StoreError> {
        let (mut at, mut path) = (*directory, vec![name.clone()]);
        while at != ROOT && !self.is_there(at, limit).await? {
            let directory_location = match self.directories.get(&at) {
                Some(above) => Some(above.clone()),
                None if at.0 < limit => self.recovery.history.view().where_now(at).await?,
                None => None,
            };
            let Some(Dentry { parent, name }) =
                directory_location.filter(|_| path.len() < DEPTH_MAX)
            else {
                at = ROOT;
                break;
            };
            path.push(name);
            at = parent;
        }
        // The other writer may have created directories with the same names.
        while let [_, .., next] = &path[..]
            && let Some(entry) = self.recovery.tree.entry(at, next).await?
            && is_directory(&entry)
        {
            at = entry.ino;
            path.pop();
        }
        path.reverse();
        let mut name = path.join(&b"%2F"[..]);
        loop {
            name.drain(..name.len().saturating_sub(crate::store::NAME_MAX));
            match self.recovery.tree.entry(at, &name).await? {
                Some(entry) if !takes_versions(&entry) => name.extend_from_slice(b".conflict"),
                _ => return Ok(Dentry::new(at, name.into())),
            }
        }
    }

    async fn is_there(&self, directory: Ino, limit: u64) -> Result<bool, StoreError> {
        if directory.0 >= limit {
            return Ok(false);
        }
        match self.recovery.tree.lock(directory).await {
            Ok(locked) => Ok(locked.as_directory().is_some()),
            Err(StoreError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn report(&mut self, dentry: &Dentry, id: VersionId) -> Result<(), StoreError> {
        let mut path = vec![dentry.name.clone()];
        let mut at = dentry.parent;
        while at != ROOT
            && path.len() < DEPTH_MAX
            && let Some(Dentry { parent, name }) =
                self.recovery.history.view().where_now(at).await?
        {
            path.push(name);
            at = parent;
        }
        path.reverse();
        let path = String::from_utf8_lossy(&path.join(&b"/"[..])).into_owned();
        tracing::warn!(file = path, version = %id, "recovered an acknowledged state as a conflict version");
        self.done.versions += 1;
        self.places.insert(path);
        Ok(())
    }
}

fn is_directory(entry: &DentryRow) -> bool {
    matches!(&entry.body, DentryBody::Own { node, .. } if node.kind == Kind::Directory)
}

/// Tells whether a directory entry can show conflict versions: it leads to a version that is not a directory.
fn takes_versions(entry: &DentryRow) -> bool {
    match &entry.body {
        DentryBody::Own { node, state } => {
            node.kind != Kind::Directory && matches!(state, EntryState::Version(_))
        }
        DentryBody::Linked(_) => true,
    }
}
