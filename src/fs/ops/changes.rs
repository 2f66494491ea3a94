//! Changes of the tree that no call of the kernel made.

use crate::fs::FileSystem;
use crate::fs::kernel_cache::KernelCache;
use crate::store::{ROOT, TreeChanges};

impl FileSystem {
    /// Makes the tables of this room and the kernel follow changes of the tree that no call of the kernel made. The kernel may take locks
    /// that its running calls hold, so this blocks until these are answered.
    pub fn follow_changes(&self, changes: TreeChanges) {
        let TreeChanges {
            names,
            inodes,
            removed,
        } = changes;
        for gone in removed {
            self.live.removed(gone);
        }
        for ino in &inodes {
            self.live.xattrs_changed(*ino);
            self.past().changed(*ino);
        }
        let Some(forget) = self.forget.get() else {
            return;
        };
        for place in &names {
            forget(KernelCache::Name {
                parent: place.directory.0,
                name: &place.name,
            });
        }
        for ino in &inodes {
            forget(KernelCache::Pages(ino.0));
        }
    }

    /// Makes the kernel forget the whole live tree, because another process may have changed it. Blocks as [`Self::follow_changes`] does.
    pub fn forget_tree(&self) {
        let Some(forget) = self.forget.get() else {
            return;
        };
        for ino in self.live.referenced() {
            if let Some((parent, name)) = self.live.name_of(ino) {
                forget(KernelCache::Name {
                    parent: parent.0,
                    name: &name,
                });
            }
            forget(KernelCache::Pages(ino.0));
        }
        forget(KernelCache::Pages(ROOT.0));
    }
}
