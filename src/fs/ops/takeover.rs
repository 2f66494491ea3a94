//! How a standby goes on as the writer of the namespace that it followed.

use crate::fs::FileSystem;
use crate::fs::config::FsConfig;
use crate::fs::handle::{Handle, OpenFile};
use crate::fs::served::Served;
use crate::store::{Namespace, ROOT};
use crate::sync::Arc;

impl FileSystem {
    /// Serves the namespace from now on as its writer, as `config` says. Does nothing if it does so already. What the kernel keeps is older
    /// than this and has to be forgotten: [`Self::forget_tree`]. Numbers of live inodes and handles of live files stay valid; a handle of
    /// the past and a directory that was opened before show what the namespace had as long as that can be read.
    pub async fn become_writer(&self, namespace: Namespace, config: FsConfig) {
        let served = Served::new(namespace, config);
        if let Some(forget) = self.forget.get() {
            served.tell_changes(forget);
        }
        if self.taken.set(served).is_ok() {
            self.reopen_files().await;
        }
    }

    /// Gives every handle of a live file that is open for reading the same file of the namespace that is served now.
    pub async fn reopen_files(&self) {
        for number in self.handles.numbers() {
            let Ok(Handle::File(open)) = self.handles.get(number) else {
                continue;
            };
            if open.access.writes() {
                continue;
            }
            let ino = open.file.ino();
            // A file that was removed meanwhile stays what it was.
            let Ok(file) = self.namespace().tree().file(ino).await else {
                continue;
            };
            let runs = match open.is_program() {
                true => Some(self.namespace().tree().programs().run(ino).await),
                false => None,
            };
            self.handles
                .replace(number, Arc::new(OpenFile::reopened(&open, file, runs)));
        }
        for ino in self.live.referenced().into_iter().chain([ROOT]) {
            self.listings.forget(ino);
        }
    }
}
