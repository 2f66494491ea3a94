//! The cached inodes after a restore.

use crate::store::history::History;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Displaced, Ino, Time};
use crate::store::schema::rows::{DirectoryRow, EntryState, InodeState};
use crate::store::tree::locked::LockedInode;
use crate::store::tree::rename::RenameEffects;

/// What is done with the cached inodes once the operation is queued.
pub(super) enum CachedChange {
    /// As of a rename.
    Effect(RenameEffects),
    /// The inode shows another version.
    State(Ino, InodeState, EntryState),
    /// A directory has other attributes.
    Attributes(Ino, InodeState, DirectoryRow),
    /// A directory has other times and counters.
    Merge(Ino, DirectoryRow),
}

/// Returns the lock of an inode; the locks are in ascending order.
pub(super) fn lock_of(
    locked: &mut [LockedInode],
    ino: Ino,
) -> Result<&mut LockedInode, StoreError> {
    let at = locked.binary_search_by_key(&ino, LockedInode::ino);
    let at = at.map_err(|_| StoreError::NotFound)?;
    Ok(&mut locked[at])
}

impl History {
    /// Updates a cached inode; returns what lost its last known name.
    pub(super) fn apply_restored(
        &self,
        locked: &mut [LockedInode],
        change: CachedChange,
        time: Time,
    ) -> Result<Option<Displaced>, StoreError> {
        match change {
            CachedChange::Effect(effect) => {
                let is_gone = matches!(effect, RenameEffects::Out { .. } | RenameEffects::Gone(_));
                let lock = lock_of(locked, effect.ino())?;
                let displaced = self.tree.apply(std::slice::from_mut(lock), effect, time);
                return Ok(displaced.filter(|_| is_gone));
            }
            CachedChange::State(ino, node, state) => {
                if let Some(mut file) = lock_of(locked, ino)?.file() {
                    file.reset(node, state);
                }
            }
            CachedChange::Attributes(ino, node, row) => {
                if let Some(mut directory) = lock_of(locked, ino)?.directory() {
                    directory.set_node(node, row);
                }
            }
            CachedChange::Merge(ino, row) => {
                if let Some(mut directory) = lock_of(locked, ino)?.directory() {
                    directory.merge(row);
                }
            }
        }
        Ok(None)
    }
}
