//! One state that comes back: its content in a lineage of its own, the name it stands under, and the rows that show it there.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use crate::cache::{Fixed as FixedMap, Source};
use crate::meta::JournalToken;
use crate::store::commit::txn::{Guards, Txn};
use crate::store::data::extent_map::{PendingContent, RANGE, UploadState, next_range};
use crate::store::index::health::RecoveredConflicts;
use crate::store::index::interval_tree;
use crate::store::index::timestamps::Reservation;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{
    Author, Content, ContentRef, EndOp, Ino, Kind, Op, ROOT, Retained, Stamp, Timestamp, VersionId,
};
use crate::store::recovery::Recovery;
use crate::store::recovery::superseded::ForeignWriters;
use crate::store::schema::journal_record::{BytelessFlush, ContentRecord, Dependencies, Record};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, EntryState, InodeState, RangeRow, VersionRecord,
};
use crate::sync::Arc;

/// Directories walked upwards, at most.
const DEPTH_MAX: usize = 4096;
/// A state that comes back.
pub(crate) struct ConflictItem {
    pub(crate) ino: Ino,
    /// Ids from here on may mean something else in the bucket.
    pub(crate) limit: u64,
    /// Where it stood; `None` for a state that only carries the bytes of a later one.
    pub(crate) slot: Option<Dentry>,
    pub(crate) node: InodeState,
    pub(crate) author: Author,
    pub(crate) host: String,
    pub(crate) suffix: u32,
    pub(crate) own: Option<OwnBytes>,
    pub(crate) held: Guards,
    pub(crate) how: Numbering,
}

/// Bytes of its own, over a base as it was acknowledged.
pub(crate) struct OwnBytes {
    pub(crate) session: u64,
    pub(crate) flush: Timestamp,
    pub(crate) known_as: Option<ContentRef>,
    pub(crate) base: Option<(ContentRef, u64)>,
    pub(crate) len: u64,
    pub(crate) flushed: FixedMap,
}

/// How its operation is numbered.
pub(crate) enum Numbering {
    /// As the one that was overtaken.
    Again(u64, u64, JournalToken),
    /// As a new one, which the journal gets.
    Anew,
}

/// The newest conflict version of a name, and when it ends.
pub(crate) struct NewestConflict {
    pub(crate) closed: VersionRecord,
    pub(crate) end: Timestamp,
}

/// The recovery of what was overtaken.
pub(crate) struct ConflictRecovery<'a> {
    pub(crate) recovery: &'a Recovery,
    pub(crate) foreign_writers: &'a ForeignWriters,
    /// Directories as the overtaken operations left them.
    pub(crate) directories: HashMap<Ino, Dentry>,
    /// Inodes as the overtaken operations left them.
    pub(crate) nodes: HashMap<Ino, InodeState>,
    /// Ranges by lineage that were laid under overtaken states, and did not reach the bucket either.
    pub(crate) laid: HashMap<u64, Vec<(u64, RangeRow)>>,
    /// Contents as they were acknowledged, and what they are now.
    pub(crate) renamed: HashMap<ContentRef, ContentRef>,
    /// The newest state of each new lineage.
    pub(crate) tips: HashMap<u64, ContentRef>,
    pub(crate) slots: HashMap<Dentry, NewestConflict>,
    pub(crate) timestamps: VecDeque<Reservation>,
    pub(crate) next_end: u64,
    pub(crate) done: RecoveredConflicts,
    pub(crate) places: BTreeSet<String>,
}

impl ConflictItem {
    /// The identity of the conflict version that begins at `timestamp`.
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
    /// Queues the operation that makes a state a version again; its content, as it is called now.
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
            // Nothing goes before what it was laid over.
            txn.touch(keys::cut(content.cid, Timestamp(0)));
        }
        if let Some(slot) = item.slot.take() {
            self.show(&mut txn, &item, &slot).await?;
        }
        match item.how {
            Numbering::Again(epoch, number, token) => self.again(txn, (epoch, number), token),
            Numbering::Anew => drop(self.recovery.commit.enqueue(txn)?),
        }
        Ok(content)
    }

    /// The content of a state in a lineage of its own, and what brings its bytes.
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
        let cut = own
            .flushed
            .cut()
            .filter(|cut| own.base.is_some_and(|(_, len)| *cut < len));
        let unchanged = own.flushed.spans().next().is_none() && cut.is_none();
        let base = match own.base {
            _ if own.len == 0 || cut == Some(0) => None,
            Some(base) => self.insert_below(txn, base, item.limit).await?,
            None => None,
        };
        if own.len == 0 || unchanged {
            let content = (own.len > 0).then(|| base.map_or_else(|| fresh(self, at), |(c, _)| c));
            txn.byteless_flush = Some(BytelessFlush {
                session: own.session,
                flush: own.flush,
                base: content.map(|content| (content, own.len)),
            });
            self.name(own.known_as, content)?;
            return Ok(content.map_or(Content::Empty, Content::Bytes));
        }
        let cid = base.map_or_else(|| self.recovery.core.new_id(), |(content, _)| content.cid);
        let content = ContentRef { cid, timestamp: at };
        self.name(own.known_as, Some(content))?;
        let place = item
            .slot
            .clone()
            .unwrap_or(Dentry::new(Ino(0), Bytes::new()));
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
            after: base.and_then(|(content, _)| self.recovery.data.contents.pending(content)),
            replaces: None,
            upload_state: tokio::sync::watch::Sender::new(UploadState::Waiting),
        });
        txn.content = Some((pending, record));
        Ok(Content::Bytes(content))
    }

    /// What the contents that spans refer to are called now.
    async fn references(
        &self,
        flushed: &FixedMap,
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

    /// Something acknowledged was laid over what is not there any more.
    fn gone(&self) {
        let note =
            "a conflict version shows a state that is gone: what it did not write itself is zero";
        tracing::warn!("{note}");
        self.recovery.core.health.note(note.to_owned());
    }

    /// Remembers what a content is called now, also for a recovery after this one.
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

    /// What a state is laid over, in a lineage that nobody else goes on with.
    async fn insert_below(
        &mut self,
        txn: &mut Txn,
        (old, len): (ContentRef, u64),
        limit: u64,
    ) -> Result<Option<(ContentRef, u64)>, StoreError> {
        let known = self.renamed.get(&old).copied();
        if let Some(new) = known.filter(|new| self.tips.get(&new.cid) == Some(new)) {
            return Ok(Some((new, len)));
        }
        if known.is_some() {
            self.recovery.core.changed.notify_waiters();
            self.recovery
                .commit
                .bring(&self.recovery.commit.queue.all())
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
        Ok(Some((ContentRef { cid, timestamp }, len)))
    }

    /// Whether the bucket shows a content; its ids from `limit` on were given by another writer.
    async fn is_shown(&self, content: ContentRef, limit: u64) -> Result<bool, StoreError> {
        let key = keys::count(content);
        let count = self.recovery.core.index.row(&key).await?;
        Ok(content.cid < limit && count.is_some_and(|count| count > 0))
    }

    /// All of a content as rows that need no other.
    async fn ranges(
        &self,
        content: ContentRef,
        len: u64,
    ) -> Result<Vec<(u64, RangeRow)>, StoreError> {
        let (mut rows, mut behind) = (Vec::new(), 0);
        let index = &self.recovery.core.index;
        while let Some(range) = next_range(index, content, behind).await?
            && range < len.div_ceil(RANGE)
        {
            behind = range + 1;
            let end = (len - range * RANGE).min(RANGE) as u32;
            let pieces = self
                .recovery
                .data
                .contents
                .pieces(index, content, range)
                .await?;
            let pieces: Vec<_> = pieces.iter().filter_map(|p| p.clip(0, end)).collect();
            if !pieces.is_empty() {
                rows.push((range, RangeRow::Whole(pieces)));
            }
        }
        Ok(rows)
    }

    /// The rows by which a name shows a state for a moment, and then again what it showed before.
    async fn show(
        &mut self,
        txn: &mut Txn,
        item: &ConflictItem,
        acknowledged: &Dentry,
    ) -> Result<(), StoreError> {
        let recovery = self.recovery;
        let at = txn.timestamp;
        let slot = self.place(acknowledged, item.limit).await?;
        txn.touch(keys::entry(slot.parent, &slot.name));
        txn.dependencies.within.push(slot.parent);
        txn.dependencies.below = recovery.tree.ancestors(slot.parent).await?;
        let current = recovery.tree.entry(slot.parent, &slot.name).await?;
        let end_op = if current.is_some() {
            EndOp::Replaced
        } else {
            EndOp::Deleted
        };
        let end = match self.slots.get(&slot) {
            Some(newest) => {
                let (end, end_op) = (at, EndOp::Superseded);
                let before = VersionRecord {
                    end,
                    end_op,
                    ..newest.closed.clone()
                };
                recovery.tree.close_row(txn, &slot, &before);
                newest.end
            }
            None => {
                let end = Timestamp(self.next_end);
                self.next_end += 1;
                match current {
                    Some(entry) => self.interrupt(txn, &slot, entry, end).await?,
                    // The name is gone again at the end: `@deleted` lists what ended by a removal.
                    None => interval_tree::add_removed(
                        &mut txn.rows,
                        slot.parent,
                        &slot.name,
                        (at, end),
                    ),
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
        let node = Some(item.node.clone());
        let closed = VersionRecord {
            ino,
            end,
            end_op,
            stamp,
            node,
            kept: Retained::Whole,
        };
        recovery.tree.close_row(txn, &slot, &closed);
        txn.reference_content(&item.node.content);
        self.told(&slot, closed.stamp.id).await?;
        self.slots.insert(slot, NewestConflict { closed, end });
        Ok(())
    }

    /// The current state of a name ends now, and stands again from `until`.
    async fn interrupt(
        &self,
        txn: &mut Txn,
        slot: &Dentry,
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
        let (body, bound) = match entry.body {
            DentryBody::Own {
                node,
                state: EntryState::Version(was),
            } => {
                let stamp = again(&was);
                let (end, end_op) = (at, EndOp::Superseded);
                let closed = VersionRecord {
                    ino,
                    end,
                    end_op,
                    stamp: was,
                    node: Some(node.clone()),
                    kept: Retained::Whole,
                };
                recovery.tree.close_row(txn, slot, &closed);
                txn.reference_content(&node.content);
                let state = EntryState::Version(stamp);
                if let Some(file) = recovery.tree.lock(ino).await?.file() {
                    file.state = state.clone();
                }
                (DentryBody::Own { node, state }, entry.bound)
            }
            DentryBody::Linked(was) => {
                recovery
                    .tree
                    .unbind(txn, slot, ino, &was, (at, EndOp::Replaced));
                (DentryBody::Linked(again(&was)), until)
            }
            own @ DentryBody::Own { .. } => (own, entry.bound),
        };
        let entry = DentryRow {
            ino,
            bound,
            alive_since: entry.alive_since,
            body,
        };
        txn.put(keys::entry(slot.parent, &slot.name), &entry);
        Ok(())
    }

    /// Where a state comes back: its own slot, or where its directory is gone a name in the nearest one that is there.
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
                None if at.0 < limit => self.recovery.history.where_now(at).await?,
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
        // The other writer may have made directories of the same names.
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
            Ok(mut locked) => Ok(locked.directory().is_some()),
            Err(StoreError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn told(&mut self, slot: &Dentry, id: VersionId) -> Result<(), StoreError> {
        let mut path = vec![slot.name.clone()];
        let mut at = slot.parent;
        while at != ROOT
            && let Some(Dentry { parent, name }) = self.recovery.history.where_now(at).await?
        {
            path.push(name);
            at = parent;
        }
        path.reverse();
        let path = String::from_utf8_lossy(&path.join(&b"/"[..])).into_owned();
        tracing::warn!(file = path, version = %id, "an acknowledged state comes back as a version marked conflict");
        self.done.versions += 1;
        self.places.insert(path);
        Ok(())
    }
}

fn is_directory(entry: &DentryRow) -> bool {
    matches!(&entry.body, DentryBody::Own { node, .. } if node.kind == Kind::Directory)
}

/// Whether a name can show other versions for a moment: it leads to no directory, and to a version.
fn takes_versions(entry: &DentryRow) -> bool {
    match &entry.body {
        DentryBody::Own { node, state } => {
            node.kind != Kind::Directory && matches!(state, EntryState::Version(_))
        }
        DentryBody::Linked(_) => true,
    }
}
