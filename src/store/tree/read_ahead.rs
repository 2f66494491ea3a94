//! Read-ahead of live files.

use crate::store::data::read_ahead::{NextStep, ReadAhead, ReadStart};
use crate::store::model::error::StoreError;
use crate::store::tree::file::File;
use crate::sync::Arc;

impl File {
    /// Notes a read of a handle that is about to be executed, and begins to fetch what the handle seems to need after it. Fails
    /// silently: the reads report what cannot be fetched.
    pub async fn read_ahead(self: &Arc<Self>, runs: &Arc<ReadAhead>, offset: u64, len: u32) {
        let data = &self.tree.data;
        let step = match data.note_read(runs, offset, len) {
            ReadStart::Plain => return,
            ReadStart::Await(reserved) => return reserved.wait().await,
            ReadStart::Begin(step) => step,
        };
        let (file, runs) = (Arc::clone(self), Arc::clone(runs));
        let is_urgent = step.is_urgent;
        let fetch = async move {
            if let Err(error) = file.fetch_step(&runs, &step).await {
                tracing::debug!(ino = file.inode.ino.0, %error, "nothing is fetched ahead");
            }
        };
        match is_urgent {
            true => fetch.await,
            false => drop(self.tree.core.tasks.spawn("read-ahead", fetch)),
        }
    }

    /// Resolves a step as the file is now, and begins to fetch it.
    async fn fetch_step(&self, runs: &ReadAhead, step: &NextStep) -> Result<(), StoreError> {
        let tree = &self.tree;
        let locked = self.lock().await?;
        let file = locked.as_file().ok_or(StoreError::IsDirectory)?;
        let size = file.attrs.size;
        let to = step.to.min(size);
        let extents = match step.from < to {
            true => {
                let view = tree.read_view(file, step.from..to);
                drop(locked);
                view.resolve().await?
            }
            false => Vec::new(),
        };
        tree.data.fetch_step(runs, step, size, &extents);
        Ok(())
    }
}
