//! Fix, save, sync: how unsealed writes become states, and states become versions.
//!
//! FLUSH fixes a state; the release of its handle saves it as a version; fsync commits it provisionally while the handle stays
//! open. Invariant: states of an inode enter the queue in the order of their instants, except that a fix whose handle is released after
//! an fsync goes behind the provisional state it precedes.

use std::time::Duration;

use crate::store::commit::queue::{Guards, Operation, Txn};
use crate::store::index::timestamps::Reservation;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Author, Content, Ino, Op, Stamp, Timestamp, VersionId};
use crate::store::namespace::{Namespace, Shared};
use crate::store::schema::journal_record::{BytelessFlush, Dependencies, FlushRecord, Record};
use crate::store::schema::keys;
use crate::store::schema::rows::{EntryState, LastVersion};
use crate::store::tree::file::File;
use crate::store::tree::flush_content::PreparedContent;
use crate::store::tree::inode::{
    FileInode, FlushedState, Inode, LinkState, LockedInode, Supersession, VersionTimestamp,
};
use crate::sync::{Arc, lock};

/// A fixed state whose release has not come becomes provisional after this.
pub(crate) const FIX_AGE_MAX: Duration = Duration::from_secs(10);

/// A state at a FLUSH, on its way to a version.
#[derive(Clone, Debug)]
pub struct PendingFlush(pub(crate) Arc<FlushedState>);

impl PendingFlush {
    /// When it was fixed.
    pub fn instant(&self) -> Timestamp {
        self.0.at
    }
}

impl File {
    /// Fixes the state of the file as a FLUSH does: dirty, provisional and unborn states. `None` when it is a version
    /// already. `replaces` is the same handle's earlier fix.
    ///
    /// # Errors
    /// `NoSpace` when the journal cannot take it.
    pub async fn fix(
        &self,
        author: &Author,
        replaces: Option<PendingFlush>,
    ) -> Result<Option<PendingFlush>, StoreError> {
        self.shared.room_for_names().await;
        let mut locked = self.lock().await?;
        let leaf = locked.leaf().ok_or(StoreError::IsDirectory)?;
        self.shared.fix_locked(&self.inode, leaf, author, replaces)
    }

    /// Makes a version of a fixed state, at the release of its handle. States that were fixed before it and still wait become
    /// versions first. Content that equals the last version's makes none.
    ///
    /// # Errors
    /// `NoSpace`, `Unavailable`; the fix stays and can be saved again.
    pub async fn save(&self, fixed: PendingFlush) -> Result<(), StoreError> {
        self.shared.room_for_names().await;
        let mut locked = self.lock().await?;
        self.shared
            .save_upto(&mut locked, &fixed.0, Op::Write)
            .await
    }

    /// Waits until the bucket has everything the file contains, as fsync(2) does; a state that is no version becomes
    /// provisional.
    ///
    /// # Errors
    /// `Unavailable` when an upload failed meanwhile (it goes on being tried), `Fenced`.
    pub async fn sync(&self, author: &Author) -> Result<(), StoreError> {
        let operation = {
            let mut locked = self.lock().await?;
            self.shared.provide(&mut locked, author).await?;
            self.shared
                .queue
                .last_on(&keys::inode(self.inode.ino), None)
        };
        self.shared.bring(&operation).await
    }
}

impl Namespace {
    /// truncate(2) by path: a version of its own.
    ///
    /// # Errors
    /// As [`File::truncate`] and [`File::save`].
    pub async fn truncate(
        &self,
        ino: Ino,
        len: u64,
        author: &Author,
    ) -> Result<crate::store::model::version::Stat, StoreError> {
        let shared = &self.0;
        shared.room_for_names().await;
        let file = self.file(ino).await?;
        let mut locked = file.lock().await?;
        let leaf = locked.leaf().ok_or(StoreError::IsDirectory)?;
        if leaf.attrs.size == len {
            shared.date(&mut locked).await?;
        } else {
            shared.truncate_locked(&file.inode, leaf, len, author)?;
        }
        let leaf = locked.leaf().ok_or(StoreError::IsDirectory)?;
        if let Some(fixed) = shared.fix_locked(&file.inode, leaf, author, None)? {
            shared
                .save_upto(&mut locked, &fixed.0, Op::Truncate)
                .await?;
        }
        drop(locked);
        file.stat().await
    }
}

impl Shared {
    pub(crate) fn fix_locked(
        &self,
        inode: &Arc<Inode>,
        leaf: &mut FileInode,
        author: &Author,
        replaces: Option<PendingFlush>,
    ) -> Result<Option<PendingFlush>, StoreError> {
        if leaf.home == LinkState::Orphan {
            return Ok(None);
        }
        let settled = matches!(leaf.state, EntryState::Version(_));
        if !leaf.is_unfixed() && (settled || !leaf.fixes.is_empty()) {
            return Ok(replaces.or_else(|| leaf.fixes.last().cloned().map(PendingFlush)));
        }
        let answer = self.clock.begin();
        let at = answer.at();
        let mut state = self.state_of(
            inode,
            leaf,
            (at, VersionTimestamp::Answering(answer)),
            author,
        )?;
        state.hold = leaf.base.map(|(base, _)| self.pins.pin(base));
        if let Some(old) = replaces {
            if let Some(working) = state.working {
                let at = old.0.at;
                let _covered = self.journal(&Record::Unfix { working, at })?;
            }
            leaf.fixes.retain(|f| !Arc::ptr_eq(f, &old.0));
            *lock(&old.0.due) = VersionTimestamp::Lapsed;
        }
        let state = Arc::new(state);
        leaf.fixes.push(Arc::clone(&state));
        self.inodes.unsettle(inode);
        Ok(Some(PendingFlush(state)))
    }

    /// Saves every waiting fix up to `last`, in order.
    pub(crate) async fn save_upto(
        &self,
        locked: &mut LockedInode,
        last: &Arc<FlushedState>,
        op: Op,
    ) -> Result<(), StoreError> {
        loop {
            let Some(leaf) = locked.leaf() else {
                return Ok(());
            };
            let Some(fix) = leaf.fixes.first().filter(|f| f.at <= last.at).cloned() else {
                break;
            };
            if leaf.home == LinkState::Orphan {
                leaf.fixes.clear();
                break;
            }
            let how = if Arc::ptr_eq(&fix, last) {
                op
            } else {
                Op::Write
            };
            self.save_fix(locked, &fix, how).await?;
            if let Some(leaf) = locked.leaf() {
                leaf.fixes.retain(|f| !Arc::ptr_eq(f, &fix));
            }
            *lock(&fix.due) = VersionTimestamp::Lapsed;
        }
        self.settle_if_clean(locked);
        Ok(())
    }

    /// Saves every waiting fix: the inode is about to lose or change its name.
    pub(crate) async fn save_fixes(&self, locked: &mut LockedInode) -> Result<(), StoreError> {
        match locked.leaf().and_then(|leaf| leaf.fixes.last().cloned()) {
            Some(last) => self.save_upto(locked, &last, Op::Write).await,
            None => Ok(()),
        }
    }

    pub(crate) fn settle_if_clean(&self, locked: &mut LockedInode) {
        let ino = locked.inode.ino;
        if let Some(leaf) = locked.leaf()
            && !leaf.is_dirty()
            && leaf.fixes.is_empty()
            && (matches!(leaf.state, EntryState::Version(_)) || leaf.home == LinkState::Orphan)
        {
            leaf.dirty_since = None;
            self.inodes.settle(ino);
        }
    }

    async fn save_fix(
        &self,
        locked: &mut LockedInode,
        fix: &Arc<FlushedState>,
        op: Op,
    ) -> Result<(), StoreError> {
        let inode = Arc::clone(&locked.inode);
        let Some(leaf) = locked.leaf() else {
            return Ok(());
        };
        let attrs = lock(&fix.attrs).clone();
        if leaf.is_behind(fix) {
            return self.save_behind(&inode, leaf, fix, &attrs).await;
        }
        let map = leaf
            .settled
            .as_ref()
            .map_or_else(|| fix.map.clone(), |s| fix.map.since(s));
        let unborn = matches!(leaf.state, EntryState::Unborn { .. });
        if matches!(leaf.state, EntryState::Version(_)) && self.is_equal(leaf, &map, &attrs).await?
        {
            return self.forget_equal(&inode, leaf, fix, &attrs);
        }
        let answer = is_late(leaf, fix).then(|| self.clock.begin());
        let at = answer.as_ref().map_or(fix.at, Reservation::at);
        let lies = (&map, leaf.base, fix.as_ref());
        let prepared = self.prepare(&inode, leaf, lies, (at, attrs.size)).await?;
        let id = VersionId {
            instant: at,
            suffix: self.suffix(),
        };
        let stamp = Stamp {
            id,
            op: if unborn && op == Op::Write {
                Op::Create
            } else {
                op
            },
            author: fix.author.clone(),
            host: self.config.host.clone(),
            origin: None,
        };
        let mut draft = self.leaf_draft(inode.ino, leaf, at).await?;
        let mut node = leaf.node.clone();
        node.content = prepared.content.clone();
        node.allocated = leaf.allocated(&map, attrs.size);
        node.attrs = attrs;
        draft.usage.0 = node.grown_from(&leaf.node);
        let alive_since = self.version_rows(&mut draft, (inode.ino, leaf), &node, &stamp);
        self.settle_leaf(&inode, leaf, draft, (prepared, fix), |leaf| {
            leaf.node = node;
            leaf.state = EntryState::Version(stamp);
            set_alive(leaf, alive_since);
        })
    }

    /// A draft that touches a leaf's inode and its slot.
    pub(crate) async fn leaf_draft(
        &self,
        ino: Ino,
        leaf: &FileInode,
        at: Timestamp,
    ) -> Result<Txn, StoreError> {
        let order = match &leaf.home {
            LinkState::Slot { place, .. } => self.order_in(place.0, &place.1, ino).await?,
            // The row of a linked inode lies in no directory, and the place we know of it may be gone.
            LinkState::Linked { .. } | LinkState::Orphan => Dependencies {
                touches: vec![keys::inode(ino)],
                ..Dependencies::default()
            },
        };
        Ok(self.draft(at, order))
    }

    /// Queues a state and makes it the base of what is written next; `then` updates the leaf's row.
    fn settle_leaf(
        &self,
        inode: &Arc<Inode>,
        leaf: &mut FileInode,
        mut draft: Txn,
        (prepared, fix): (PreparedContent, &FlushedState),
        then: impl FnOnce(&mut FileInode),
    ) -> Result<(), StoreError> {
        let map = &fix.map;
        let clean = map.seq() == leaf.map.seq();
        draft.settles = settled_by(&prepared, fix);
        draft.held = self.hand_over(leaf, clean);
        draft.held.holds.clone_from(&fix.holds);
        self.bring_along(&mut draft, prepared);
        // The room goes along only once the journal has it: of a state that was refused the bytes stay dirty.
        self.enqueue(draft)?.keep(leaf.room_of(map, clean));
        then(leaf);
        let shown = leaf.node.content.reference();
        leaf.base = shown.map(|content| (content, leaf.node.attrs.size));
        leaf.map.rebase(map);
        leaf.settled = Some(leaf.rest_of(map));
        if clean {
            leaf.working = None;
            leaf.holds.clear();
            leaf.dirty_since = None;
        }
        self.inodes.unsettle(inode);
        Ok(())
    }

    /// What the operation keeps until it is durable: journal, and the staging files when nothing more goes into them.
    pub(crate) fn hand_over(&self, leaf: &FileInode, clean: bool) -> Guards {
        let journal = leaf.working.iter().map(|w| w.token.clone()).collect();
        let working = leaf.working.as_ref().filter(|_| clean);
        let staging = working.map_or_else(Vec::new, |w| w.files.clone());
        // Later writes open another one.
        staging.iter().for_each(|file| file.close());
        Guards {
            journal,
            permit: None,
            staging,
            holds: Vec::new(),
        }
    }

    /// Makes the state durable-to-be without making it a version.
    pub(crate) async fn provide(
        &self,
        locked: &mut LockedInode,
        author: &Author,
    ) -> Result<(), StoreError> {
        let inode = Arc::clone(&locked.inode);
        let Some(leaf) = locked.leaf() else {
            return Ok(());
        };
        if !leaf.is_dirty() || leaf.home == LinkState::Orphan {
            return Ok(());
        }
        let answer = self.clock.begin();
        let at = answer.at();
        let fix = self.state_of(&inode, leaf, (at, VersionTimestamp::Lapsed), author)?;
        let map = fix.map.clone();
        let changes = leaf
            .settled
            .as_ref()
            .map_or_else(|| map.clone(), |s| map.since(s));
        let prepared = self.prepare(
            &inode,
            leaf,
            (&changes, leaf.base, &fix),
            (at, leaf.attrs.size),
        );
        let prepared = prepared.await?;
        let mut node = leaf.node.clone();
        node.content = prepared.content.clone();
        node.allocated = leaf.allocated(&changes, leaf.attrs.size);
        node.attrs = leaf.attrs.clone();
        let mut draft = self.leaf_draft(inode.ino, leaf, at).await?;
        let state = match &leaf.state {
            EntryState::Version(stamp) => {
                let last = LastVersion {
                    ino: inode.ino,
                    node: leaf.node.clone(),
                    stamp: stamp.clone(),
                    alive_since: alive(leaf),
                };
                EntryState::Provisional(Box::new(last))
            }
            other => {
                self.count(&mut draft, &leaf.node.content.clone(), -1);
                other.clone()
            }
        };
        self.count(&mut draft, &node.content, 1);
        draft.usage.0 = node.grown_from(&leaf.node);
        let alive_since = alive(leaf);
        self.current_rows(&mut draft, (inode.ino, leaf), &node, &state, alive_since);
        self.settle_leaf(&inode, leaf, draft, (prepared, &fix), |leaf| {
            leaf.node = node;
            leaf.state = state;
        })
    }

    /// The state of a leaf as it is, in the journal.
    pub(crate) fn state_of(
        &self,
        inode: &Arc<Inode>,
        leaf: &mut FileInode,
        (at, due): (Timestamp, VersionTimestamp),
        author: &Author,
    ) -> Result<FlushedState, StoreError> {
        if let Some(working) = &leaf.working {
            let record = FlushRecord {
                working: working.id,
                ino: inode.ino,
                at,
                attrs: leaf.attrs.clone(),
                author: author.clone(),
            };
            let _covered = self.journal(&Record::Fix(record))?;
        }
        Ok(FlushedState {
            at,
            due: crate::sync::Mutex::new(due),
            map: leaf.map.fix(),
            base: leaf.base,
            hold: None,
            attrs: crate::sync::Mutex::new(leaf.attrs.clone()),
            author: author.clone(),
            since: tokio::time::Instant::now(),
            lies: Supersession::InMap,
            working: leaf.working.as_ref().map(|w| w.id),
            token: leaf.working.as_ref().map(|w| w.token.clone()),
            holds: leaf.holds.clone(),
        })
    }

    pub(crate) fn suffix(&self) -> u32 {
        (self.env.new_id().as_u128() & u128::from(u32::MAX)) as u32
    }

    /// Waits until operations are in the bucket.
    pub(crate) async fn bring(&self, operations: &[Arc<Operation>]) -> Result<(), StoreError> {
        for operation in operations {
            self.wait_durable(operation).await?;
        }
        Ok(())
    }
}

/// What an operation that brings no bytes says of the fix it makes a state of; one that brings some says it with them.
pub(crate) fn settled_by(prepared: &PreparedContent, fix: &FlushedState) -> Option<BytelessFlush> {
    if prepared.brings.is_some() {
        return None;
    }
    let base = match &prepared.content {
        Content::Bytes(content) | Content::Shared(content) => {
            Some((*content, lock(&fix.attrs).size))
        }
        Content::Empty | Content::Target(_) => None,
    };
    Some(BytelessFlush {
        working: fix.working?,
        fix: fix.at,
        base,
    })
}

/// Whether a fix can no longer become a version at its own instant: it has waited too long, or one before it had.
pub(crate) fn is_late(leaf: &FileInode, fix: &FlushedState) -> bool {
    let last = match &leaf.state {
        EntryState::Version(stamp) => Some(stamp.id.instant),
        EntryState::Provisional(last) => Some(last.stamp.id.instant),
        EntryState::Unborn { behind } => behind.as_ref().map(|last| last.stamp.id.instant),
    };
    matches!(*lock(&fix.due), VersionTimestamp::Lapsed) || last.is_some_and(|last| fix.at <= last)
}

/// Since when the leaf's name has existed in versions.
pub(crate) fn alive(leaf: &FileInode) -> Timestamp {
    match leaf.home {
        LinkState::Slot { alive_since, .. } => alive_since,
        LinkState::Linked { .. } | LinkState::Orphan => Timestamp(0),
    }
}

pub(crate) fn set_alive(leaf: &mut FileInode, since: Timestamp) {
    if let LinkState::Slot { alive_since, .. } = &mut leaf.home {
        *alive_since = since;
    }
}
