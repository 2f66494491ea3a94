//! What is not yet in the bucket, and how much a namespace holds.

use crate::store::index::health::{UploadBacklog, Usage};
use crate::store::tree::Tree;

impl Tree {
    /// What is not yet in the bucket.
    pub fn pending(&self) -> UploadBacklog {
        let backlog = self.commit.queue.backlog();
        let mut files = backlog.files;
        files.extend(self.inodes.dirty_inodes().iter().map(|inode| inode.ino));
        let troubles = self.core.backend.troubles();
        UploadBacklog {
            files: files.len() as u64,
            bytes: self.data.budget.used(),
            operations: backlog.operations,
            oldest: backlog.oldest,
            failures: (self.core.health).report(troubles.iter().map(ToString::to_string).collect()),
        }
    }

    /// What the namespace holds, for statfs(2).
    pub fn usage(&self) -> Usage {
        self.core.health.usage()
    }
}
