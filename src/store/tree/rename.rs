//! Rename: moves a directory entry in one operation, whatever the size of a moved directory.
//!
//! Steps: both names are looked up without locks; the directories and inodes are locked; if a name leads to another inode by
//! then, the rename starts over; flushed states are saved; one transaction ends the old entries and writes the new ones.
//!
//! Invariant: directories move one at a time (`Tree::renames`), so that no two moves form a cycle.

use crate::store::commit::txn::Txn;
use crate::store::index::interval_tree;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{Dentry, DentryRef};
use crate::store::model::version::{Author, Displaced, EndOp, Ino, Kind, Op, Origin, Stat, Time};
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, DirectoryRow, EntryState, InodeState, LastVersion,
};
use crate::store::tree::Tree;
use crate::store::tree::create::check_entry_name;
use crate::store::tree::inode::{FileInode, LinkState};
use crate::store::tree::locked::{LockedInode, find};
use crate::store::tree::move_rows::BindTarget;
use crate::store::tree::review::review;
use crate::store::tree::row_writer::{NameRemoval, Unbinding};

/// What a rename does if the new name exists (flags of renameat2(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces the target.
    Replace,
    /// Fails with `Exists` (RENAME_NOREPLACE).
    NoReplace,
    /// Exchanges both names (RENAME_EXCHANGE).
    Exchange,
}

/// The result of a rename.
#[derive(Clone, Debug)]
pub struct Renamed {
    /// Stat of the moved inode, under its new name.
    pub moved: Stat,
    /// The inode that lost the new name, or that has the old name after an exchange.
    pub replaced: Option<Displaced>,
}

/// Both directory entries of a rename, as found under the locks.
struct RenameEnds {
    from: Dentry,
    to: Dentry,
    source: DentryRow,
    target: Option<DentryRow>,
}

/// Changes of the cached inodes, applied after the operation is enqueued.
pub(crate) enum RenameEffects {
    Leaf {
        ino: Ino,
        link_state: LinkState,
        node: InodeState,
        state: EntryState,
    },
    Directory {
        ino: Ino,
        place: Dentry,
        row: DirectoryRow,
    },
    Out {
        ino: Ino,
        link_state: LinkState,
    },
    Gone(Ino),
}

fn kind(entry: &DentryRow) -> Option<Kind> {
    match &entry.body {
        DentryBody::Own { node, .. } => Some(node.kind),
        DentryBody::Linked(_) => None,
    }
}

pub(crate) fn is_directory(entry: &DentryRow) -> bool {
    kind(entry) == Some(Kind::Directory)
}

impl Tree {
    /// Renames a directory entry, as rename(2) does. A directory moves with everything below it.
    ///
    /// # Errors
    /// `NotFound`, `Exists`, `NotEmpty`, `NotDirectory`, `IsDirectory`, `IntoItself`.
    pub async fn rename(
        &self,
        from: DentryRef<'_>,
        to: DentryRef<'_>,
        mode: RenameMode,
        author: &Author,
    ) -> Result<Renamed, StoreError> {
        check_entry_name(from.name)?;
        check_entry_name(to.name)?;
        self.room_for_names().await;
        let (from, to) = (from.to_dentry(), to.to_dentry());
        loop {
            // The first look says which inodes to lock. Only what is read under the locks decides.
            let (source, target) = self.entries(&from, &to).await?;
            let source = source.ok_or(StoreError::NotFound)?;
            let moves_directory =
                is_directory(&source) || target.as_ref().is_some_and(is_directory);
            let _gate = if moves_directory {
                Some(self.renames.lock().await)
            } else {
                None
            };
            let mut wanted = vec![from.parent, to.parent, source.ino];
            wanted.extend(target.as_ref().map(|t| t.ino));
            let mut locked = self.lock_all(&wanted).await?;
            self.check_not_restored(&wanted).await?;
            let (now_source, now_target) = self.entries(&from, &to).await?;
            let Some(now_source) = now_source.filter(|now| now.ino == source.ino) else {
                continue;
            };
            if now_target.as_ref().map(|now| now.ino) != target.as_ref().map(|t| t.ino) {
                continue;
            }
            let ends = RenameEnds {
                from,
                to,
                source: now_source,
                target: now_target,
            };
            return self.rename_locked(&mut locked, ends, mode, author).await;
        }
    }

    /// Reads both entries of a rename.
    async fn entries(
        &self,
        from: &Dentry,
        to: &Dentry,
    ) -> Result<(Option<DentryRow>, Option<DentryRow>), StoreError> {
        let source = self.entry(from.parent, &from.name).await?;
        let target = self.entry(to.parent, &to.name).await?;
        Ok((source, target))
    }
}

impl Tree {
    async fn rename_locked(
        &self,
        locked: &mut [LockedInode],
        mut ends: RenameEnds,
        mode: RenameMode,
        author: &Author,
    ) -> Result<Renamed, StoreError> {
        self.check_rename(locked, &ends, mode).await?;
        if ends
            .target
            .as_ref()
            .is_some_and(|t| t.ino == ends.source.ino)
        {
            let moved = self.live_stat(locked, ends.source.ino)?;
            return Ok(Renamed {
                moved,
                replaced: None,
            });
        }
        self.save_ends(locked, &mut ends, mode, author).await?;
        let answer = self.core.clock.begin();
        let mut txn = self
            .commit
            .txn(answer.at(), self.rename_dependencies(&ends).await?);
        let mut after = Vec::new();
        match mode {
            RenameMode::Exchange => {
                self.exchange(&mut txn, locked, &ends, author, &mut after)
                    .await?;
            }
            RenameMode::Replace | RenameMode::NoReplace => {
                self.replace(&mut txn, locked, &ends, author, &mut after)
                    .await?;
            }
        }
        let touched = self.touch_parents(&mut txn, locked, &ends, mode)?;
        let time = txn.time;
        self.commit.enqueue(txn)?;
        for (ino, change) in touched {
            if let Some(mut directory) = find(locked, ino).and_then(LockedInode::directory) {
                directory.merge(change);
            }
        }
        let replaced = ends.target.as_ref().map(|t| t.ino);
        let mut lost = None;
        for change in after {
            let ino = change.ino();
            if let Some(stat) = self.apply(locked, change, time)
                && Some(ino) == replaced
            {
                lost = Some(stat);
            }
        }
        Ok(Renamed {
            moved: self.live_stat(locked, ends.source.ino)?,
            replaced: lost,
        })
    }

    /// Saves the flushed states of both inodes. A save writes the entry of its inode anew, which is then read again.
    async fn save_ends(
        &self,
        locked: &mut [LockedInode],
        ends: &mut RenameEnds,
        mode: RenameMode,
        author: &Author,
    ) -> Result<(), StoreError> {
        if self.save_end(locked, ends.source.ino, true, author).await? {
            let saved = self.entry(ends.from.parent, &ends.from.name).await?;
            ends.source = saved.ok_or(StoreError::NotFound)?;
        }
        if let Some(target) = &ends.target {
            let moves = mode == RenameMode::Exchange;
            if self.save_end(locked, target.ino, moves, author).await? {
                ends.target = self.entry(ends.to.parent, &ends.to.name).await?;
            }
        }
        Ok(())
    }

    /// Saves the flushed states of one inode. Returns whether its rows were written.
    async fn save_end(
        &self,
        locked: &mut [LockedInode],
        ino: Ino,
        moves: bool,
        author: &Author,
    ) -> Result<bool, StoreError> {
        let Some(end) = find(locked, ino) else {
            return Ok(false);
        };
        let is_unsaved = |file: &FileInode| !file.flushes.is_empty() || file.is_dirty();
        if !end.as_file().is_some_and(is_unsaved) {
            return Ok(false);
        }
        self.save_flushes(end).await?;
        // The unsaved bytes are queued before the rename, so that no commit shows the new name before its bytes are uploaded.
        if moves {
            self.write_back(end, author).await?;
        }
        Ok(true)
    }

    fn live_stat(&self, locked: &mut [LockedInode], ino: Ino) -> Result<Stat, StoreError> {
        find(locked, ino).ok_or(StoreError::NotFound)?.stat()
    }

    pub(crate) fn apply(
        &self,
        locked: &mut [LockedInode],
        change: RenameEffects,
        time: Time,
    ) -> Option<Displaced> {
        let target = find(locked, change.ino())?;
        match change {
            RenameEffects::Leaf {
                ino,
                link_state,
                node,
                state,
            } => {
                let mut file = target.file()?;
                file.set_names(link_state, node, state);
                let stat = file.stat(ino);
                let xattrs = file.node.xattrs.clone();
                self.release_if_clean(target);
                Some(Displaced { stat, xattrs })
            }
            RenameEffects::Directory { ino, place, row } => {
                let mut directory = target.directory()?;
                directory.move_to(place, row);
                let xattrs = directory.node.xattrs.clone();
                let stat = directory.stat(ino);
                Some(Displaced { stat, xattrs })
            }
            RenameEffects::Out { link_state, .. } => Some(self.moved_out(target, link_state, time)),
            RenameEffects::Gone(ino) => {
                let directory = target.directory()?;
                let (mut stat, xattrs) = (directory.stat(ino), directory.node.xattrs.clone());
                (stat.nlink, stat.attrs.ctime) = (0, time);
                target.evict();
                Some(Displaced { stat, xattrs })
            }
        }
    }

    async fn check_rename(
        &self,
        locked: &mut [LockedInode],
        ends: &RenameEnds,
        mode: RenameMode,
    ) -> Result<(), StoreError> {
        for parent in [ends.from.parent, ends.to.parent] {
            find(locked, parent)
                .and_then(LockedInode::directory)
                .ok_or(StoreError::NotDirectory)?;
        }
        match (&ends.target, mode) {
            (Some(_), RenameMode::NoReplace) => return Err(StoreError::Exists),
            (None, RenameMode::Exchange) => return Err(StoreError::NotFound),
            _ => {}
        }
        let moving = [
            Some((&ends.source, ends.to.parent)),
            ends.target
                .as_ref()
                .filter(|_| mode == RenameMode::Exchange)
                .map(|t| (t, ends.from.parent)),
        ];
        for (entry, into) in moving.into_iter().flatten() {
            if is_directory(entry)
                && (into == entry.ino || self.lineage(into).await?.contains(&entry.ino))
            {
                return Err(StoreError::IntoItself);
            }
        }
        let Some(target) = ends
            .target
            .as_ref()
            .filter(|t| mode != RenameMode::Exchange && t.ino != ends.source.ino)
        else {
            return Ok(());
        };
        match (is_directory(&ends.source), is_directory(target)) {
            (true, false) => Err(StoreError::NotDirectory),
            (false, true) => Err(StoreError::IsDirectory),
            (true, true) => self.check_empty(target.ino).await,
            (false, false) => Ok(()),
        }
    }

    async fn rename_dependencies(&self, ends: &RenameEnds) -> Result<Dependencies, StoreError> {
        let mut dependencies = self
            .order_in(ends.from.parent, &ends.from.name, ends.source.ino)
            .await?;
        let other = ends.target.as_ref().map_or(ends.source.ino, |t| t.ino);
        let second = self.order_in(ends.to.parent, &ends.to.name, other).await?;
        dependencies.touches.extend(second.touches);
        dependencies.below.extend(second.below);
        if ends.to.parent != ends.from.parent {
            dependencies.within.extend(second.within);
        }
        Ok(dependencies)
    }

    /// Updates times and counters of both parent directories.
    fn touch_parents(
        &self,
        txn: &mut Txn,
        locked: &mut [LockedInode],
        ends: &RenameEnds,
        mode: RenameMode,
    ) -> Result<Vec<(Ino, DirectoryRow)>, StoreError> {
        let at = txn.timestamp;
        let source = i64::from(is_directory(&ends.source));
        let target = ends
            .target
            .as_ref()
            .map_or(0, |t| i64::from(is_directory(t)));
        let (from, to) = match mode {
            RenameMode::Exchange => ((0, target - source), (0, source - target)),
            _ => (
                (-1, -source),
                (i64::from(ends.target.is_none()), source - target),
            ),
        };
        let mut changes = Vec::new();
        for (ino, (entries, directories)) in [(ends.from.parent, from), (ends.to.parent, to)] {
            find(locked, ino)
                .and_then(LockedInode::directory)
                .ok_or(StoreError::NotDirectory)?;
            let change = DirectoryRow {
                entries,
                directories,
                removal_burst: Some((at, None)),
                ..DirectoryRow::default()
            };
            changes.push((ino, self.touch(txn, ino, change)));
        }
        Ok(changes)
    }

    async fn replace(
        &self,
        txn: &mut Txn,
        locked: &mut [LockedInode],
        ends: &RenameEnds,
        author: &Author,
        after: &mut Vec<RenameEffects>,
    ) -> Result<(), StoreError> {
        let at = txn.timestamp;
        txn.delete(keys::entry(ends.from.parent, &ends.from.name));
        if ends.target.is_none() {
            let older = self.kept_removed(locked, &ends.to).await?;
            review(txn, &ends.to, older);
        }
        let mut behind = None;
        if let Some(target) = &ends.target {
            let unborn = find(locked, ends.source.ino)
                .and_then(LockedInode::file)
                .is_some_and(|file| hides_replaced(&file));
            behind = self.replace_target(txn, locked, &ends.to, target, unborn, after)?;
        }
        let origin = Origin {
            directory: ends.from.parent,
            name: ends.from.name.clone(),
        };
        let arrival = BindTarget {
            dentry: ends.to.clone(),
            at,
            alive_since: ends.target.as_ref().map(|t| t.alive_since.min(at)),
            behind,
            stamp: self.stamp(at, Op::Rename, author, Some(origin)),
            exchanged: false,
        };
        self.move_entry(txn, locked, &ends.source, &ends.from, &arrival, after)
            .await?;
        Ok(())
    }

    /// Removes the target of a rename from its name. Returns the version that an unborn replacement hides.
    pub(crate) fn replace_target(
        &self,
        txn: &mut Txn,
        locked: &mut [LockedInode],
        dentry: &Dentry,
        target: &DentryRow,
        unborn: bool,
        after: &mut Vec<RenameEffects>,
    ) -> Result<Option<Box<LastVersion>>, StoreError> {
        if is_directory(target) {
            self.remove_directory(txn, locked, dentry, target, EndOp::Replaced);
            after.push(RenameEffects::Gone(target.ino));
            return Ok(None);
        }
        let found = find(locked, target.ino).ok_or(StoreError::NotFound)?;
        let file = found.as_file().ok_or(StoreError::IsDirectory)?;
        let behind = if unborn && matches!(target.body, DentryBody::Own { .. }) {
            file.last_version(target.ino).map(Box::new)
        } else {
            None
        };
        if unborn && matches!(target.body, DentryBody::Linked(_)) {
            // An unborn file cannot hide a hard-linked target: the name's life ends here and starts again at the first save.
            let life = target.alive_since.min(txn.timestamp)..txn.timestamp;
            interval_tree::add(&mut txn.rows, dentry.parent, &dentry.name, life);
        }
        let cause = if behind.is_some() {
            Unbinding::ReplacedUnborn
        } else {
            Unbinding::Replaced
        };
        let removal = NameRemoval {
            dentry,
            entry: target,
            cause,
            is_pinned: found.inode.is_pinned(),
        };
        let link_state = self.detach(txn, target.ino, file, removal);
        after.push(RenameEffects::Out {
            ino: target.ino,
            link_state,
        });
        Ok(behind)
    }

    async fn exchange(
        &self,
        txn: &mut Txn,
        locked: &mut [LockedInode],
        ends: &RenameEnds,
        author: &Author,
        after: &mut Vec<RenameEffects>,
    ) -> Result<(), StoreError> {
        let Some(target) = &ends.target else {
            return Err(StoreError::NotFound);
        };
        let at = txn.timestamp;
        for (entry, from, to, there) in [
            (&ends.source, &ends.from, &ends.to, target),
            (target, &ends.to, &ends.from, &ends.source),
        ] {
            let arrival = BindTarget {
                dentry: to.clone(),
                at,
                alive_since: Some(there.alive_since.min(at)),
                behind: None,
                exchanged: true,
                stamp: self.stamp(
                    at,
                    Op::Rename,
                    author,
                    Some(Origin {
                        directory: from.parent,
                        name: from.name.clone(),
                    }),
                ),
            };
            self.move_entry(txn, locked, entry, from, &arrival, after)
                .await?;
        }
        Ok(())
    }

    /// Moves an inode from one directory entry to another.
    async fn move_entry(
        &self,
        txn: &mut Txn,
        locked: &mut [LockedInode],
        entry: &DentryRow,
        from: &Dentry,
        arrival: &BindTarget,
        after: &mut Vec<RenameEffects>,
    ) -> Result<(), StoreError> {
        let found = find(locked, entry.ino).ok_or(StoreError::NotFound)?;
        if let Some(directory) = found.directory() {
            let row = self.move_directory(txn, entry, from, &directory, arrival);
            after.push(RenameEffects::Directory {
                ino: entry.ino,
                place: arrival.dentry.clone(),
                row,
            });
            return Ok(());
        }
        let file = found.file().ok_or(StoreError::NotFound)?;
        let traced = self
            .leave(txn, entry.ino, &file, entry, from, arrival)
            .await?;
        let (link_state, node, state) = self.bind(txn, entry.ino, &file, arrival, traced);
        after.push(RenameEffects::Leaf {
            ino: entry.ino,
            link_state,
            node,
            state,
        });
        Ok(())
    }
}

impl RenameEffects {
    pub(crate) fn ino(&self) -> Ino {
        match self {
            Self::Leaf { ino, .. }
            | Self::Directory { ino, .. }
            | Self::Out { ino, .. }
            | Self::Gone(ino) => *ino,
        }
    }
}

/// Tells whether a file hides the version of a name that it replaces until it is saved for the first time. One with several names has its
/// state apart from them, which hides nothing.
fn hides_replaced(file: &FileInode) -> bool {
    let is_unborn = matches!(file.state, EntryState::Unborn { .. });
    is_unborn && matches!(file.link_state, LinkState::Single { .. })
}
