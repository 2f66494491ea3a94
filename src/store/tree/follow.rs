//! A follower's cached inodes: forgotten when the index shows a newer state.

use std::time::Duration;

use crate::meta::SlateFollower;
use crate::store::model::error::StoreError;
use crate::store::model::role::Role;
use crate::store::schema::keys;
use crate::store::tree::Tree;
use crate::store::tree::inode::{CachedInode, Inode, LinkState};
use crate::sync::{Arc, lock};

/// After a state that could not be read.
const PAUSE: Duration = Duration::from_secs(1);

impl Tree {
    /// Takes note of newer states of the index.
    pub(crate) async fn follow_loop(self: Arc<Self>, index: Arc<SlateFollower>) {
        while !self.core.tasks.is_stopped() {
            tokio::select! {
                () = index.changed() => {}
                () = self.core.tasks.stopped() => return,
            }
            if let Err(error) = self.refresh().await {
                self.core.health.failed(&error.to_string());
                tracing::warn!(%error, "the namespace is shown as it was");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Forgets what an older state said, if the index shows a newer one.
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
        // The inodes first: whoever sees the new floor sees what lies below it.
        for inode in self.inodes.used() {
            self.reload(&inode).await;
        }
        self.core.health.uses((applied.bytes, applied.files));
        follower.raise(applied.low_watermark);
        *lock(&self.core.applied) = applied;
        Ok(())
    }
}

impl Tree {
    /// Lets whoever asks next see the rows as they are now. An open file that has lost its last name stays what it was: its
    /// bytes are given for as long as something shows them.
    pub(crate) async fn reload(&self, inode: &Arc<Inode>) {
        let mut locked = inode.lock().await;
        if inode.is_pinned()
            && let Some(file) = locked.file()
        {
            match self.read_inode(inode.ino).await {
                Ok(Some(cached)) => *locked.cached() = cached,
                Ok(None) => file.link_state = LinkState::Unlinked,
                // The next state is read like this one.
                Err(error) => tracing::warn!(ino = inode.ino.0, %error, "shown as it was"),
            }
            return;
        }
        *locked.cached() = CachedInode::No;
    }
}
