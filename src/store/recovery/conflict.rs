//! Recovery of acknowledged changes that did not reach the bucket before another writer took the namespace: their
//! contents become conflict versions.
//!
//! Order: states that are not versions yet become versions. Superseded operations become conflict versions under their
//! own operation numbers; an operation without content applies only its number. All of this is durable before unsaved
//! writes become conflict versions, as operations of this epoch.
//! A crash in between leads to another replay, which skips the numbers that are applied.
//! Invariant: the live tree stays as the other writer left it, and every timestamp before the recovery shows what it
//! showed before. During the recovery, a name shows its conflict versions one after another; afterwards it shows its
//! former state again.
//! Every recovered content starts a new lineage, because the other writer may have added contents to the old one with
//! timestamps in the same range.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::meta::JournalToken;
use crate::store::commit::txn::{Guards, Txn};
use crate::store::index::health::RecoveredConflicts;
use crate::store::index::timestamps::Reservation;
use crate::store::model::error::StoreError;
use crate::store::model::failpoints::step;
use crate::store::model::ids::{ContentBase, OperationId};
use crate::store::model::version::{Attrs, Author, Content, Ino, Kind};
use crate::store::recovery::Recovery;
use crate::store::recovery::conflict_version::{
    ConflictItem, ConflictRecovery, Numbering, OwnBytes,
};
use crate::store::recovery::replay::{JournalReplay, staging_of};
use crate::store::recovery::replayed_session::{ReplayedSession, UnreleasedFlush};
use crate::store::recovery::superseded::{ForeignWriters, SupersededOperation, ranges, title};
use crate::store::schema::journal_record::{Dependencies, FlushRecord, Record};
use crate::store::schema::rows::InodeState;
use crate::store::tree::inode::Supersession;
use crate::sync::lock;

/// How long the last conflict version of a name is current, in nanoseconds: more than the millisecond to which times
/// are printed.
const CONFLICT_CURRENT_NS: u64 = 1_000_000;
/// Number of recovered operations between two progress messages in the log.
const PROGRESS_INTERVAL: usize = 1000;
/// Maximum number of names in [`RecoveredConflicts::places`].
const PLACES_MAX: usize = 100;

impl Recovery {
    /// Makes conflict versions of everything in the journal that another writer superseded.
    pub(crate) async fn finish_superseded(
        &self,
        replay: &mut JournalReplay,
    ) -> Result<(), StoreError> {
        let superseded = std::mem::take(&mut replay.superseded);
        let sessions = replay.take_superseded();
        if superseded.is_empty() && !sessions.values().any(ReplayedSession::is_open) {
            return Ok(());
        }
        let (operations, unsaved) = (superseded.len(), sessions.len());
        tracing::warn!(
            operations,
            unsaved,
            "another writer took the namespace; acknowledged changes are recovered as conflict versions"
        );
        self.finish_states().await?;
        self.commit
            .wait_all_durable(&self.commit.queue.all())
            .await?;
        step()?;
        let count = superseded.len()
            + sessions
                .values()
                .map(|w| w.flushes.len() + 1)
                .sum::<usize>();
        let mut conflicts = ConflictRecovery::new(self, &replay.foreign_writers, count);
        conflicts.renamed = std::mem::take(&mut replay.renamed);
        conflicts.collect_rows(&superseded);
        let last = last_states(&superseded, &sessions);
        for (at, superseded) in superseded.into_iter().enumerate() {
            conflicts.operation(superseded, &last, at).await?;
            if (at + 1) % PROGRESS_INTERVAL == 0 {
                tracing::info!(done = at + 1, operations, "recovering acknowledged changes");
            }
            step()?;
        }
        self.core.changed.notify_waiters();
        self.commit
            .wait_all_durable(&self.commit.queue.all())
            .await?;
        step()?;
        for (at, (id, work)) in sessions.into_iter().enumerate() {
            conflicts.session(id, work).await?;
            if (at + 1) % PROGRESS_INTERVAL == 0 {
                tracing::info!(done = at + 1, unsaved, "recovering unsaved writes");
            }
        }
        conflicts.log_summary();
        Ok(())
    }
}

/// Returns, for each inode, the position of its newest superseded state, unless an unsaved write continues from that
/// state.
fn last_states(
    superseded: &[SupersededOperation],
    sessions: &BTreeMap<u64, ReplayedSession>,
) -> BTreeSet<usize> {
    let mut last: HashMap<Ino, usize> = HashMap::new();
    for (at, superseded) in superseded.iter().enumerate() {
        if let Some((ino, ..)) = superseded.state() {
            last.insert(ino, at);
        }
    }
    for work in sessions.values().filter(|work| work.goes_on()) {
        last.remove(&work.ino);
    }
    last.into_values().collect()
}

impl<'a> ConflictRecovery<'a> {
    fn new(recovery: &'a Recovery, foreign_writers: &'a ForeignWriters, count: usize) -> Self {
        let timestamps: VecDeque<Reservation> =
            (0..count).map(|_| recovery.core.clock.begin()).collect();
        let next_end = recovery.core.clock.last() + CONFLICT_CURRENT_NS;
        recovery.core.clock.raise(next_end + count as u64);
        Self {
            recovery,
            foreign_writers,
            directories: HashMap::new(),
            nodes: HashMap::new(),
            laid: HashMap::new(),
            renamed: HashMap::new(),
            tips: HashMap::new(),
            dentries: HashMap::new(),
            timestamps,
            next_end,
            done: RecoveredConflicts::default(),
            places: BTreeSet::new(),
        }
    }

    fn collect_rows(&mut self, superseded: &[SupersededOperation]) {
        for superseded in superseded {
            for (cid, range, row) in ranges(&superseded.record.rows) {
                self.laid.entry(cid).or_default().push((range, row));
            }
            for (dentry, ino, node) in superseded.nodes() {
                if node.kind == Kind::Directory {
                    self.directories.insert(ino, dentry);
                }
                self.nodes.insert(ino, node);
            }
        }
    }

    fn limit(&self, epoch: u64) -> u64 {
        self.foreign_writers.since(epoch).unwrap_or(u64::MAX)
    }

    async fn operation(
        &mut self,
        superseded: SupersededOperation,
        last: &BTreeSet<usize>,
        at: usize,
    ) -> Result<(), StoreError> {
        let state = superseded.state();
        let what = title(&superseded.record);
        let record = superseded.record;
        let id = OperationId {
            epoch: record.epoch,
            number: record.number,
        };
        let how = Numbering::Again(id, superseded.token);
        let Some((ino, node, stamp)) = state else {
            self.drop_operation(&what, how, superseded.held);
            return Ok(());
        };
        if record.content.is_some() && superseded.pending.is_none() {
            self.drop_operation(&what, how, superseded.held);
            return Ok(());
        }
        // A provisional state becomes a version only if it is the last one: only the last one is what an application
        // would have read.
        let shown = stamp.is_some() || last.contains(&at);
        if !shown {
            self.done.dropped += 1;
        }
        let own = superseded
            .pending
            .zip(record.content)
            .map(|(pending, content)| OwnBytes {
                session: content.session,
                flush: content.flush,
                known_as: Some(content.content),
                base: pending.base,
                len: pending.len,
                flushed: pending.flushed.clone(),
            });
        let (author, host, suffix) = match stamp {
            Some(stamp) => (stamp.author, stamp.host, stamp.id.suffix),
            None => (
                Author {
                    uid: node.attrs.uid,
                    process: String::new(),
                },
                self.recovery.core.config.host.clone(),
                self.recovery.tree.suffix(),
            ),
        };
        let item = ConflictItem {
            ino,
            limit: self.limit(record.epoch),
            dentry: superseded.dentry.filter(|_| shown),
            node,
            author,
            host,
            suffix,
            own,
            held: superseded.held,
            how,
        };
        self.restore_as_conflict(item).await.map(drop)
    }

    /// Drops an operation without recoverable content: only its number is applied.
    fn drop_operation(&mut self, what: &str, how: Numbering, held: Guards) {
        tracing::warn!(
            what,
            "dropped an acknowledged change, because another writer took the namespace"
        );
        self.done.dropped += 1;
        if let Numbering::Again(id, token) = how {
            let answer = self.recovery.core.clock.begin();
            let mut txn = self
                .recovery
                .commit
                .txn(answer.at(), Dependencies::default());
            txn.held = held;
            self.again(txn, id, token);
        }
    }

    pub(crate) fn again(&self, txn: Txn, id: OperationId, token: JournalToken) {
        if let Some((pending, _)) = &txn.content {
            self.recovery.data.contents.add(pending);
        }
        let apply = |order, rows: &_| self.recovery.core.index.apply(order, rows);
        drop(self.recovery.commit.queue.replay(txn, id, token, apply));
    }

    /// Recovers the unsaved writes of an inode: its flushed states, and the writes after the last of them.
    async fn session(&mut self, id: u64, mut work: ReplayedSession) -> Result<(), StoreError> {
        if work.place.is_none() || !work.is_open() {
            return Ok(());
        }
        for flush in std::mem::take(&mut work.flushes) {
            self.flush(&mut work, flush).await?;
        }
        if work.map.seq() <= work.saved_seq() {
            return Ok(());
        }
        self.later_writes(id, &mut work).await
    }

    /// Recovers a flushed state. The session continues from this state, unless it already continues from a later one.
    async fn flush(
        &mut self,
        work: &mut ReplayedSession,
        flush: UnreleasedFlush,
    ) -> Result<(), StoreError> {
        let seq = work.saved_seq();
        let behind = flush.supersession == Supersession::Superseded || flush.map.seq() < seq;
        let (flushed, base) = match &work.saved {
            _ if behind => (flush.map.clone(), flush.base),
            Some(saved) => (flush.map.since(saved), work.base),
            None => (flush.map.clone(), work.base),
        };
        let (record, limit) = (&flush.record, self.limit(work.epoch));
        let node = self.node(work.ino, limit, &record.author).await?;
        let node = InodeState {
            attrs: record.attrs.clone(),
            ..node
        };
        let own = OwnBytes {
            session: record.session,
            flush: record.at,
            known_as: None,
            base,
            len: record.attrs.size,
            flushed,
        };
        let tokens = vec![flush.token.clone(), work.token.clone()];
        let item = self.unsaved(work, node, &record.author, own, tokens);
        let base = self.restore_as_conflict(item).await?;
        step()?;
        if !behind {
            work.base = base.map(|content| ContentBase {
                content,
                len: record.attrs.size,
            });
            work.saved = Some(flush.map);
        }
        Ok(())
    }

    /// Recovers the writes after the last flushed state.
    async fn later_writes(
        &mut self,
        id: u64,
        work: &mut ReplayedSession,
    ) -> Result<(), StoreError> {
        // The journal does not record the time of the write; a changed file must not keep its old times.
        let at = self.recovery.core.clock.begin().at();
        let now = self.recovery.core.clock.wall();
        let limit = self.limit(work.epoch);
        let mut node = self.node(work.ino, limit, &work.author).await?;
        node.attrs = Attrs {
            size: work.len,
            mtime: now,
            ctime: now,
            ..node.attrs
        };
        let record = FlushRecord {
            session: id,
            ino: work.ino,
            at,
            attrs: node.attrs.clone(),
            author: work.author.clone(),
        };
        let token = self.recovery.core.append(&Record::Flush(record))?;
        step()?;
        let flushed = work.map.fix();
        let flushed = match &work.saved {
            Some(saved) => flushed.since(saved),
            None => flushed,
        };
        let own = OwnBytes {
            session: id,
            flush: at,
            known_as: None,
            base: work.base,
            len: work.len,
            flushed,
        };
        let tokens = vec![token, work.token.clone()];
        let item = self.unsaved(work, node, &work.author, own, tokens);
        self.restore_as_conflict(item).await?;
        step()
    }

    /// Returns an unsaved state of a write session, as an operation of this epoch.
    fn unsaved(
        &self,
        work: &ReplayedSession,
        node: InodeState,
        author: &Author,
        own: OwnBytes,
        journal: Vec<JournalToken>,
    ) -> ConflictItem {
        let staging = staging_of(&own.flushed);
        ConflictItem {
            ino: work.ino,
            limit: self.limit(work.epoch),
            dentry: work.place.clone(),
            node: InodeState {
                allocated: own.len,
                ..node
            },
            author: author.clone(),
            host: self.recovery.core.config.host.clone(),
            suffix: self.recovery.tree.suffix(),
            own: Some(own),
            held: Guards {
                journal,
                permit: None,
                holds: Vec::new(),
                staging,
            },
            how: Numbering::Anew,
        }
    }

    /// Returns the attributes of an inode, from the superseded operations or else from the bucket; defaults if neither
    /// has them.
    async fn node(&self, ino: Ino, limit: u64, author: &Author) -> Result<InodeState, StoreError> {
        if let Some(node) = self.nodes.get(&ino) {
            return Ok(node.clone());
        }
        if ino.0 < limit {
            match self.recovery.tree.lock(ino).await {
                Ok(locked) => {
                    if let Some(file) = locked.as_file() {
                        return Ok(file.node.clone());
                    }
                }
                Err(StoreError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        let (mode, uid) = (0o600, author.uid);
        Ok(InodeState {
            kind: Kind::File,
            attrs: Attrs {
                mode,
                uid,
                ..Attrs::default()
            },
            xattrs: Vec::new(),
            content: Content::Empty,
            allocated: 0,
        })
    }

    fn log_summary(mut self) {
        self.done.places = self.places.into_iter().take(PLACES_MAX).collect();
        let (versions, dropped) = (self.done.versions, self.done.dropped);
        tracing::warn!(versions, dropped, "recovered superseded changes");
        *lock(&self.recovery.core.health.conflicts) = self.done;
    }
}
