//! The inode cache: which inodes are in memory.
//!
//! Invariant: a dirty inode stays cached, because its changes are in no row yet.

use std::collections::{HashMap, VecDeque};

use dashmap::DashMap;

use crate::store::model::version::Ino;
use crate::store::tree::inode::CachedInode;
use crate::store::tree::locked::{Inode, LockedInode};
use crate::sync::{Arc, Mutex, Weak, lock};

/// Number of recently loaded inodes that stay cached without a user.
const RECENT_MAX: usize = 16_384;

/// The cached inodes of a namespace.
#[derive(Debug, Default)]
pub(crate) struct InodeCache {
    table: DashMap<Ino, Weak<Inode>>,
    recent: Mutex<VecDeque<Arc<Inode>>>,
    /// Inodes with changes that the queue lacks, or with a state that is not a version; they stay cached.
    dirty_inodes: Mutex<HashMap<Ino, Arc<Inode>>>,
}

impl InodeCache {
    /// Returns the cached inode; adds one that is not loaded if there is none.
    pub(crate) fn get(&self, ino: Ino) -> Arc<Inode> {
        if let Some(known) = self.known(ino) {
            return known;
        }
        let fresh = Inode::unshared(ino);
        let mut cached = self.table.entry(ino).or_default();
        if let Some(known) = cached.upgrade() {
            return known;
        }
        *cached = Arc::downgrade(&fresh);
        drop(cached);
        let evicted = {
            let mut recent = lock(&self.recent);
            recent.push_back(Arc::clone(&fresh));
            if recent.len() > RECENT_MAX {
                recent.pop_front()
            } else {
                None
            }
        };
        if let Some(old) = evicted {
            self.remove_unused(old);
        }
        fresh
    }

    /// Returns the inode if it is cached.
    pub(crate) fn known(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.table.get(&ino)?.upgrade()
    }

    /// Makes a restored directory usable again: the next access loads its new rows instead of failing with `NotFound`.
    pub(crate) async fn revive(&self, ino: Ino) {
        if let Some(inode) = self.known(ino) {
            let mut locked = inode.lock().await;
            if matches!(locked.cached(), CachedInode::Evicted) {
                locked.unload();
            }
        }
    }

    /// Evicts every inode without a user and returns the others.
    pub(crate) fn used(&self) -> Vec<Arc<Inode>> {
        lock(&self.recent).clear();
        self.table.retain(|_, weak| weak.strong_count() > 0);
        self.table.iter().filter_map(|e| e.upgrade()).collect()
    }

    fn remove_unused(&self, inode: Arc<Inode>) {
        let ino = inode.ino;
        drop(inode);
        self.table
            .remove_if(&ino, |_, weak| weak.strong_count() == 0);
    }

    /// Keeps an inode cached until [`InodeCache::release_dirty`].
    pub(crate) fn keep_dirty(&self, inode: &Arc<Inode>) {
        lock(&self.dirty_inodes).insert(inode.ino, Arc::clone(inode));
    }

    pub(crate) fn release_dirty(&self, ino: Ino) {
        let _old = lock(&self.dirty_inodes).remove(&ino);
    }

    /// Returns every inode with changes that are not in a queued version.
    pub(crate) fn dirty_inodes(&self) -> Vec<Arc<Inode>> {
        lock(&self.dirty_inodes).values().cloned().collect()
    }

    /// Locks several inodes without loading them, each once, in ascending order of their numbers: the order of every caller,
    /// so that two callers never wait for each other. [`find`](crate::store::tree::locked::find) selects one of the locks.
    pub(crate) async fn lock_all(&self, wanted: &[Ino]) -> Vec<LockedInode> {
        let mut order: Vec<Ino> = wanted.to_vec();
        order.sort_unstable();
        order.dedup();
        let mut locked = Vec::with_capacity(order.len());
        for ino in order {
            locked.push(self.get(ino).lock().await);
        }
        locked
    }
}
