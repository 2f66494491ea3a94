//! Makes the bytes of deleted versions leave the bucket and this machine.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::store::commit::log_object;
use crate::store::forget::Forgetter;
use crate::store::forget::carry_out::ForgetSteps;
use crate::store::forget::report::ForgetStep;
use crate::store::gc::hasten::OldLog;
use crate::store::model::error::StoreError;
use crate::store::retention::task::HORIZON_GRACE;
use crate::store::schema::keys;
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::CheckpointRow;

/// The parts of the index whose rows have bytes of files, targets of symbolic links or extended attributes: the first letters
/// of their keys.
const PARTS: &[u8] = b"CH";
/// The pause before something that is in use is looked at again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often segments are copied and looked at again.
const ROUNDS: u32 = 20;
/// How often the journal is looked at until its old files are deleted.
const LOOKS: u32 = 60;

impl Forgetter {
    /// Makes all bytes go that no row has, and returns when they are gone; `segments` are those that have to go.
    pub(super) async fn purge(
        &self,
        segments: &BTreeSet<SegmentId>,
        steps: &ForgetSteps,
    ) -> Result<(), StoreError> {
        let log = self.gc.checkpoint_anew().await?;
        steps.send(ForgetStep::Log).ok();
        let index = self.core.index.writer()?;
        let replaced = index.rewrite(PARTS).await?;
        steps.send(ForgetStep::Index).ok();
        let grace = self.core.config.grace.min(HORIZON_GRACE);
        steps
            .send(ForgetStep::WaitsForFollowers(grace.as_secs()))
            .ok();
        self.core.sleep(grace).await;
        self.gc.delete_dead_now().await?;
        let left = index.delete_replaced(PARTS, &replaced).await?;
        if let Some(key) = left.keys.first() {
            return Err(StoreError::Busy(format!(
                "{} old objects of the index are still in the bucket, {key} among them: repeat the command",
                left.keys.len()
            )));
        }
        let listed = self.check_listing(segments, log).await?;
        let gone = segments.len() as u64 + replaced.keys.len() as u64;
        steps.send(ForgetStep::Objects(gone)).ok();
        self.purge_machine(&listed).await?;
        steps.send(ForgetStep::Local).ok();
        Ok(())
    }

    /// Deletes the rows, and copies the segments that have other bytes too. Returns the segments that have to go.
    pub(super) async fn purge_rows(
        &self,
        lineages: &BTreeSet<u64>,
        steps: &ForgetSteps,
    ) -> Result<BTreeSet<SegmentId>, StoreError> {
        let mut is_told = false;
        loop {
            self.gc.reclaim().await?;
            let is_read = self.gc.has_unreviewed(lineages).await?;
            if !is_read && !self.trim(lineages).await? {
                break;
            }
            if !is_told {
                steps.send(ForgetStep::WaitsForReaders).ok();
                is_told = true;
            }
            self.core.health.check()?;
            self.core.sleep(PAUSE).await;
        }
        let mut copied = 0;
        for _ in 0..ROUNDS {
            self.gc.reclaim().await?;
            let unshown = self.gc.unshown_segments(lineages).await?;
            if unshown.partial.is_empty() {
                let dead = unshown.dead.len() as u64;
                steps.send(ForgetStep::Rows { dead, copied }).ok();
                return Ok(unshown.dead);
            }
            copied += unshown.partial.len() as u64;
            self.gc.rewrite_segments(unshown.partial).await?;
        }
        Err(StoreError::Busy(
            "segments with the bytes change all the time: repeat the command".to_owned(),
        ))
    }

    /// Looks for the segments, and for log objects before the checkpoint, in a listing of the bucket. Returns the segments that it has.
    async fn check_listing(
        &self,
        segments: &BTreeSet<SegmentId>,
        log: OldLog,
    ) -> Result<BTreeSet<SegmentId>, StoreError> {
        let objects = self.core.backend.list("data").await?;
        let listed: BTreeSet<SegmentId> = objects
            .iter()
            .filter_map(|object| SegmentId::from_key(&object.key))
            .collect();
        let mut left = listed.intersection(segments);
        if let Some(first) = left.next() {
            return Err(StoreError::Busy(format!(
                "{} segments are still in the bucket, {} among them: repeat the command",
                left.count() + 1,
                first.key()
            )));
        }
        let checkpoint: Option<CheckpointRow> = self.core.index.row(&keys::checkpoint()).await?;
        let began = checkpoint.unwrap_or_default().began;
        let objects = log_object::list(&self.core.backend).await?;
        let is_old = objects.iter().any(|object| object.place < began);
        if is_old || log == OldLog::Kept {
            let grace = self.core.config.grace.as_secs();
            return Err(StoreError::Busy(format!(
                "log objects from before are kept until the segments that a crash left have been looked at: repeat the command in {} \
                 minutes",
                grace.div_ceil(60)
            )));
        }
        Ok(listed)
    }

    /// Drops the bytes from this machine's cache and journal.
    async fn purge_machine(&self, listed: &BTreeSet<SegmentId>) -> Result<(), StoreError> {
        self.data.extents.keep_only(listed);
        self.data.contents.drop_resolved();
        let begun = self.core.journal.begin_file();
        let begun = begun.map_err(StoreError::from)?;
        for _ in 0..LOOKS {
            self.drain().await?;
            let oldest = self.core.journal.oldest_file();
            if oldest.is_none_or(|oldest| oldest >= begun) {
                return Ok(());
            }
            self.core.sleep(PAUSE).await;
        }
        Err(StoreError::Busy(
            "the bytes are gone from the bucket; the journal in the cache directory of this machine still has changes that are not uploaded: close open \
             files and repeat the command"
                .to_owned(),
        ))
    }
}
