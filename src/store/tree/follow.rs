//! A follower's inode cache: cached inodes are reloaded when the index shows a newer state.
//!
//! Invariant: the follower's low watermark rises only after every cached inode was reloaded.

use std::time::Duration;

use crate::meta::SlateFollower;
use crate::store::model::error::StoreError;
use crate::store::model::role::Role;
use crate::store::schema::keys;
use crate::store::tree::Tree;
use crate::store::tree::locked::Inode;
use crate::sync::{Arc, lock};

/// Pause after a state of the index that could not be read.
const PAUSE: Duration = Duration::from_secs(1);

impl Tree {
    /// Refreshes the cache after every change of the index, until the tasks stop.
    pub(crate) async fn follow_loop(self: Arc<Self>, index: Arc<SlateFollower>) {
        while !self.core.tasks.is_stopped() {
            tokio::select! {
                () = index.changed() => {}
                () = self.core.tasks.stopped() => return,
            }
            if let Err(error) = self.refresh().await {
                self.core.health.failed(&error.to_string());
                tracing::warn!(%error, "cannot read the newer state of the index; showing the last one until the next change");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Reloads the cached inodes and raises the low watermark if the index shows a newer state.
    async fn refresh(&self) -> Result<(), StoreError> {
        let Role::Follower(follower) = &self.core.role else {
            return Ok(());
        };
        let Some(applied) = self.core.index.row(&keys::applied()).await? else {
            return Err(StoreError::NotFound);
        };
        if self.core.applied_now() == applied {
            return Ok(());
        }
        // The inodes are reloaded first: a reader that sees the new low watermark must see all changes below it.
        for inode in self.inodes.used() {
            self.reload(&inode).await;
        }
        self.core.health.uses(applied.bytes, applied.files);
        follower.raise(applied.low_watermark);
        *lock(&self.core.applied) = applied;
        Ok(())
    }
}

impl Tree {
    /// Drops the cached rows of an inode, so that the next access reads them again; an open file is reloaded at once. An open
    /// file that lost its last name keeps its state: its bytes stay readable while any row references them.
    pub(crate) async fn reload(&self, inode: &Arc<Inode>) {
        let mut locked = inode.lock().await;
        if inode.is_pinned()
            && let Some(mut file) = locked.file()
        {
            match self.read_inode(inode.ino).await {
                Ok(Some(cached)) => locked.load(cached),
                Ok(None) => file.set_unlinked(),
                // The next state of the index reloads the inode again.
                Err(error) => {
                    tracing::warn!(ino = inode.ino.0, %error, "cannot reload an inode; showing its last state");
                }
            }
            return;
        }
        locked.unload();
    }
}
