//! Counters for status output and statfs(2): files, bytes and operations that are not durable yet, and the namespace's usage.

use crate::store::index::health::{UploadBacklog, Usage};
use crate::store::tree::Tree;

impl Tree {
    /// Returns what is not in the bucket yet: files, bytes, operations, and the reasons of recent failures.
    pub fn pending(&self) -> UploadBacklog {
        let backlog = self.commit.queue.backlog();
        let mut files = backlog.files;
        files.extend(self.inodes.dirty_inodes().iter().map(|inode| inode.ino));
        let failures = self.core.backend.lane_failures();
        UploadBacklog {
            files: files.len() as u64,
            bytes: self.data.budget.used(),
            operations: backlog.operations,
            oldest: backlog.oldest,
            failures: (self.core.health).report(failures.iter().map(ToString::to_string).collect()),
        }
    }

    /// Returns the bytes and files that the namespace holds, for statfs(2).
    pub fn usage(&self) -> Usage {
        self.core.health.usage()
    }
}
