//! Read-ahead of historical states.

use crate::store::data::read_ahead::{NextStep, ReadAhead, ReadStart};
use crate::store::history::History;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, PastEntry};
use crate::sync::Arc;

impl History {
    /// As `File::read_ahead`, for a handle of a historical state.
    pub async fn read_ahead_past(
        self: &Arc<Self>,
        runs: &Arc<ReadAhead>,
        entry: &PastEntry,
        offset: u64,
        len: u32,
    ) {
        let Some(content) = entry.content.reference() else {
            return;
        };
        let step = match self.data.note_read(runs, offset, len) {
            ReadStart::Plain => return,
            ReadStart::Await(reserved) => return reserved.wait().await,
            ReadStart::Begin(step) => step,
        };
        let (history, runs, size) = (Arc::clone(self), Arc::clone(runs), entry.attrs.size);
        let is_urgent = step.is_urgent;
        let fetch = async move {
            if let Err(error) = history.fetch_step(&runs, &step, content, size).await {
                tracing::debug!(cid = content.cid, %error, "nothing is fetched ahead");
            }
        };
        match is_urgent {
            true => fetch.await,
            false => drop(self.core.tasks.spawn("read-ahead", fetch)),
        }
    }

    async fn fetch_step(
        &self,
        runs: &ReadAhead,
        step: &NextStep,
        content: ContentRef,
        size: u64,
    ) -> Result<(), StoreError> {
        let to = step.to.min(size);
        let extents = match step.from < to {
            true => {
                let view = self.data.contents.view(&self.core.index);
                view.resolve(content, step.from, to).await?
            }
            false => Vec::new(),
        };
        self.data.fetch_step(runs, step, size, &extents);
        Ok(())
    }
}
