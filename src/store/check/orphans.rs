//! What nothing needs any more and garbage collection has not deleted yet, and what garbage collection does not know of. None of it is
//! damage.

use crate::backend::Backend;
use crate::store::check::config::CheckConfig;
use crate::store::check::references::References;
use crate::store::model::error::StoreError;
use crate::store::schema::object_names::object_numbers;
use crate::store::schema::rows::LogPlace;

/// A number of objects or of lineages, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrphanCount {
    /// How many.
    pub count: u64,
    /// Their size in bytes; of lineages, the bytes that are stored in their rows.
    pub bytes: u64,
}

impl OrphanCount {
    fn add_one(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What nothing needs any more. Objects that were written within the grace period are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Segments that no row cites and that garbage collection deletes after their time.
    pub waiting_segments: OrphanCount,
    /// Segments that the index does not know: a crash left them, and garbage collection searches for them.
    pub unknown_segments: OrphanCount,
    /// Segments that no row cites and that garbage collection would not find.
    pub leaked_segments: OrphanCount,
    /// Log objects from before the newest checkpoint.
    pub log_objects: OrphanCount,
    /// Lineages with rows that no state shows, which garbage collection is to review.
    pub waiting_lineages: OrphanCount,
    /// Lineages with rows that no state shows and that garbage collection would not find.
    pub leaked_lineages: OrphanCount,
}

impl Orphans {
    /// Counts the segments and lineages that nothing needs. The segments are listed.
    pub(super) async fn of(
        references: &References,
        config: &CheckConfig,
    ) -> Result<Self, StoreError> {
        let mut orphans = Self::default();
        let mut segments = references.segment_cursor();
        while let Some((_, facts)) = segments.next().await? {
            let orphan = if facts.is_leaked() {
                &mut orphans.leaked_segments
            } else if facts.is_waiting() {
                &mut orphans.waiting_segments
            } else if facts.is_unknown() {
                &mut orphans.unknown_segments
            } else {
                continue;
            };
            if facts.is_stored() && config.is_old(facts.modified_ns) {
                orphan.add_one(facts.size);
            }
        }
        let mut lineages = references.lineage_cursor();
        while let Some((_, facts)) = lineages.next().await? {
            if facts.is_unshown() {
                match facts.is_waiting() {
                    true => orphans.waiting_lineages.add_one(facts.inline),
                    false => orphans.leaked_lineages.add_one(facts.inline),
                }
            }
        }
        Ok(orphans)
    }

    /// Counts the log objects from before `began`, where the newest checkpoint begins.
    pub(super) async fn add_log(
        &mut self,
        backend: &Backend,
        began: LogPlace,
        config: &CheckConfig,
    ) -> Result<(), StoreError> {
        let log_objects = &mut self.log_objects;
        backend
            .list_each("log", |object| {
                if let Some((epoch, sequence)) = object_numbers("log", &object.key)
                    && (LogPlace { epoch, sequence }) < began
                    && config.is_old(object.modified_ns)
                {
                    log_objects.add_one(object.size);
                }
                Ok::<(), StoreError>(())
            })
            .await
    }
}
