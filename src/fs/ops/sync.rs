//! flush, release, fsync, fsyncdir, and the end of a session: from changes to versions and into the bucket.

use crate::fs::handle::Handle;
use crate::fs::{FileSystem, FsResult, Node, SyncOn};
use futures::StreamExt;

/// How many handles the end of a session releases at once.
const RELEASES_AT_ONCE: usize = 64;

impl FileSystem {
    /// close(2) of one of a handle's descriptors: records the state that the handle's changes made; under [`SyncOn::Close`] waits
    /// until the bucket has it.
    ///
    /// # Errors
    /// The error that prevented the flush or the upload; close(2) returns it.
    pub async fn flush(&self, _ino: u64, handle: u64) -> FsResult<()> {
        self.admit()?;
        let Handle::File(open) = self.handles.get(handle)? else {
            return Ok(());
        };
        if !open.has_changed() {
            return Ok(());
        }
        open.flush().await?;
        if self.config().sync_on == SyncOn::Close {
            open.file.sync(open.author()).await?;
        }
        Ok(())
    }

    /// The last descriptor and the last mapping of a handle are closed: its changes become a version.
    ///
    /// # Errors
    /// Returns the error that prevented the version. No program waits for a release, so the caller must log it.
    pub async fn release(&self, _ino: u64, handle: u64) -> FsResult<()> {
        let handle = self.handles.remove(handle)?;
        self.admit()?;
        match handle {
            Handle::File(open) => {
                let changes = open.has_changed();
                let released = open.release().await;
                if changes {
                    // Equal bytes make no version, but change the times of the last one.
                    self.past().changed(open.file.ino());
                }
                released
            }
            Handle::Past(..) | Handle::Text(_) | Handle::Dir(_) => Ok(()),
        }
    }

    /// Waits until the bucket has the file as it is now.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`, `NoSpace`: the reason why the bucket does not have the bytes.
    pub async fn fsync(&self, _ino: u64, handle: u64, _data_only: bool) -> FsResult<()> {
        self.admit()?;
        match self.handles.get(handle)? {
            Handle::File(open) => Ok(open.file.sync(open.author()).await?),
            Handle::Past(..) | Handle::Text(_) | Handle::Dir(_) => Ok(()),
        }
    }

    /// Waits until the bucket has every change of the directory's entries.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`: the reason why the bucket does not have them.
    pub async fn fsyncdir(&self, ino: u64, _handle: u64) -> FsResult<()> {
        match self.node(ino)? {
            Node::Live(dir) => Ok(self.namespace().commit().sync_directory(dir).await?),
            Node::Past(_) => Ok(()),
        }
    }

    /// Releases every open handle: at an unmount the kernel drops the RELEASEs it had queued.
    pub async fn end_session(&self) {
        let numbers = self.handles.numbers();
        futures::stream::iter(numbers)
            .for_each_concurrent(RELEASES_AT_ONCE, async |number| {
                // A handle that a late RELEASE removed first is released already.
                let Ok(Handle::File(open)) = self.handles.remove(number) else {
                    return;
                };
                if let Err(error) = open.release().await {
                    let file = self.named(open.file.ino().0).await;
                    tracing::error!(%file, %error, "an open file's last changes became no version");
                }
            })
            .await;
    }
}
