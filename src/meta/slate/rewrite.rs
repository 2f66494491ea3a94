//! The rewriting of an index: what was deleted from it is in none of its objects afterwards.
//!
//! The engine keeps deleted and replaced values in old tables until a compaction happens to read them, and for a day after that, and in its
//! write-ahead log until the rows are in tables. Path: the rows in memory are written as tables; every table of a part is
//! compacted into one run, which has the newest value of each row and no deleted one; then the checkpoints are deleted by which the engine keeps
//! the old tables for running reads, and its own garbage collection deletes the objects that are in no use any more, whatever their age.
//!
//! Invariant: only objects are deleted that the newest manifest does not need, by the engine's own rules. A reader that has not read
//! that manifest yet finds an object missing, reads the newer manifest, and tries again.

use super::config::COLLECT_EVERY_MIN;
use super::status::{EngineStatus, classify};
use crate::meta::error::chain;
use crate::meta::{MetaError, ReplacedObjects};
use crate::sync::Arc;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use slatedb::admin::{Admin, AdminBuilder};
use slatedb::compactor::{CompactionSpec, SourceId};
use slatedb::config::{
    FlushOptions, FlushType, GarbageCollectorDirectoryOptions, GarbageCollectorOptions,
};
use slatedb::manifest::Segment;
use slatedb::{Db, PathResolver, VersionedManifest, WriteBatch};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often a compaction of all tables of a part is asked for: the engine refuses one while it compacts some of them by itself.
const ATTEMPTS: u32 = 30;
/// How often the garbage collection runs until no old object is left: it leaves those from after the beginning of a compaction that is
/// running, and one takes seconds.
const COLLECTIONS: u32 = 120;
/// After so many runs rows are written as tables again, so that no old object is the newest of its kind.
const TABLES_EVERY: u32 = 10;
/// The pause between two looks at the engine's state. The engine looks for work every second.
const PAUSE: Duration = Duration::from_millis(500);
/// The engine tells the times of tables and compactions apart if they differ by this.
const CLOCK_STEP: Duration = Duration::from_millis(2);
/// How many looks a compaction that was asked for may wait until the engine takes or refuses it.
const LOOKS: u32 = 40;

/// Rewrites the index of one writer.
pub(super) struct Rewriter {
    admin: Admin,
    place: Path,
    store: Arc<dyn ObjectStore>,
    local: bool,
    status: EngineStatus,
    deadline: Duration,
}

impl Rewriter {
    /// `place` and `store` are those of the engine.
    pub(super) fn new(
        place: Path,
        store: Arc<dyn ObjectStore>,
        local: bool,
        status: EngineStatus,
        deadline: Duration,
    ) -> Self {
        let building: AdminBuilder<Path> = Admin::builder(place.clone(), Arc::clone(&store));
        Self {
            admin: building.build(),
            place,
            store,
            local,
            status,
            deadline,
        }
    }

    /// Rewrites the tables of the rows whose keys begin with one of `parts`. Returns the objects that are replaced; they are not
    /// deleted yet.
    pub(super) async fn rewrite(
        &self,
        db: &Db,
        parts: &[u8],
    ) -> Result<ReplacedObjects, MetaError> {
        let mut old = BTreeSet::new();
        for part in parts {
            self.rewrite_part(db, *part, &mut old).await?;
        }
        // The engine keeps the newest object of its log and the newest table; newer ones take their place.
        self.write_tables(db, parts).await?;
        let manifest = self.newest_manifest(db).await?;
        let used = self.used(&manifest, |_| true);
        old.retain(|key| !used.contains(key));
        Ok(ReplacedObjects { keys: old })
    }

    /// Deletes replaced objects. Returns those that are left.
    pub(super) async fn delete_replaced(
        &self,
        db: &Db,
        parts: &[u8],
        old: &ReplacedObjects,
    ) -> Result<ReplacedObjects, MetaError> {
        let at_once = Some(GarbageCollectorDirectoryOptions {
            interval: Some(COLLECT_EVERY_MIN),
            min_age: Duration::ZERO,
            dry_run: false,
        });
        let options = GarbageCollectorOptions {
            manifest_options: None,
            compactions_options: None,
            detach_options: None,
            wal_fence_options: None,
            wal_options: at_once,
            compacted_options: at_once,
            boundary_files_enabled: !self.local,
            ..GarbageCollectorOptions::default()
        };
        self.delete_checkpoints(db).await?;
        let mut left = BTreeSet::new();
        for run in 0..COLLECTIONS {
            let collecting = self.admin.run_gc_once(options.clone());
            self.within("the deletion of old tables", collecting)
                .await?;
            let listed = self.objects().await?;
            let manifest = self.newest_manifest(db).await?;
            // A table of another part that was written before the rewriting, and is in use since a compaction ended.
            let used = self.used(&manifest, |segment| !is_one_of(segment, parts));
            let still = listed.intersection(&old.keys);
            left = still.filter(|key| !used.contains(*key)).cloned().collect();
            if left.is_empty() {
                break;
            }
            if run % TABLES_EVERY == 0 {
                self.write_tables(db, parts).await?;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(ReplacedObjects { keys: left })
    }

    /// Deletes the checkpoints that keep old tables for a quarter of an hour: the engine makes one at each compaction, for readers that
    /// have begun before. Nothing else in this program makes one.
    async fn delete_checkpoints(&self, db: &Db) -> Result<(), MetaError> {
        let manifest = self.newest_manifest(db).await?;
        for checkpoint in manifest.checkpoints() {
            let deleting = self.admin.delete_checkpoint(checkpoint.id);
            self.within("the deletion of a checkpoint of the engine", deleting)
                .await?;
        }
        Ok(())
    }

    /// Writes the rows in memory as tables. Each part gets a table that overlaps all others of it: the engine would move tables
    /// that do not overlap instead of rewriting them.
    async fn write_tables(&self, db: &Db, parts: &[u8]) -> Result<(), MetaError> {
        let mut ends = WriteBatch::new();
        for part in parts {
            // No row has these keys.
            ends.delete(Bytes::copy_from_slice(&[*part]));
            ends.delete(Bytes::copy_from_slice(&[*part, 0xff]));
        }
        let flush_type = FlushType::MemTable;
        let writing = async {
            db.write(ends).await?;
            db.flush_with_options(FlushOptions { flush_type }).await
        };
        self.within("writing tables", writing).await
    }

    /// Compacts all tables of a part into one run, and adds to `old` the objects that there were before.
    async fn rewrite_part(
        &self,
        db: &Db,
        part: u8,
        old: &mut BTreeSet<String>,
    ) -> Result<(), MetaError> {
        for _ in 0..ATTEMPTS {
            self.wait_until_idle(part).await?;
            // A table alone would be moved as well: there are two at least, and the second one overlaps all others.
            for _ in 0..2 {
                self.write_tables(db, &[part]).await?;
            }
            // The garbage collection compares times in milliseconds: the compaction is to be later than the tables.
            tokio::time::sleep(CLOCK_STEP).await;
            let manifest = self.newest_manifest(db).await?;
            let Some(segment) = manifest.segment(&[part]) else {
                return Ok(());
            };
            old.extend(self.objects().await?);
            let Some(spec) = compaction_of_all(&manifest, segment) else {
                return Ok(());
            };
            let sources = self.used(&manifest, |segment| is_one_of(segment, &[part]));
            let submitting = self.admin.submit_compaction(spec);
            let submitted = self.within("a compaction", submitting).await;
            // Another writer of the engine's list of compactions was faster.
            if let Err(error) = submitted {
                tracing::debug!(%error, "a compaction of the index was not accepted; asking again");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            for _ in 0..LOOKS {
                tokio::time::sleep(PAUSE).await;
                self.wait_until_idle(part).await?;
                let manifest = self.newest_manifest(db).await?;
                let used = self.used(&manifest, |segment| is_one_of(segment, &[part]));
                if used.is_disjoint(&sources) {
                    return Ok(());
                }
                if !sources.is_subset(&used) {
                    // The engine has compacted a part of them by itself.
                    break;
                }
            }
        }
        Err(MetaError::Unavailable(
            "the tables of the index could not be rewritten: the engine was busy with other compactions"
                .to_owned(),
        ))
    }

    /// Waits until no compaction of a part is asked for or running.
    async fn wait_until_idle(&self, part: u8) -> Result<(), MetaError> {
        loop {
            let reading = self.admin.read_compactions(None);
            let all = self.within("reading the compactions", reading).await?;
            let is_busy = all.is_some_and(|all| {
                let mut active = all.recent_compactions().filter(|one| one.active());
                active.any(|one| one.spec().segment()[..] == [part])
            });
            if !is_busy {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn newest_manifest(&self, db: &Db) -> Result<VersionedManifest, MetaError> {
        self.within("reading the manifest", db.refresh_manifest())
            .await?;
        Ok(db.manifest())
    }

    /// Returns the keys of the tables that a manifest needs in the parts that `is_meant` names.
    fn used(
        &self,
        manifest: &VersionedManifest,
        is_meant: impl Fn(&Segment) -> bool,
    ) -> BTreeSet<String> {
        let paths = PathResolver::new(self.place.clone(), manifest);
        let segments = manifest.segments().iter().filter(|one| is_meant(one));
        let views = segments.flat_map(|segment| {
            let runs = segment.compacted().iter().flat_map(|run| run.sst_views());
            segment.l0().iter().chain(runs)
        });
        let keys = views.map(|view| paths.sst_path(&view.sst.id).to_string());
        keys.collect()
    }

    /// Lists the tables, and the objects of the write-ahead log that have rows.
    async fn objects(&self) -> Result<BTreeSet<String>, MetaError> {
        let mut keys = BTreeSet::new();
        for folder in ["compacted", "wal"] {
            let inside = self.place.clone().join(folder);
            let listing = self.store.list(Some(&inside));
            let objects: Result<Vec<_>, object_store::Error> = listing.try_collect().await;
            let objects = objects.map_err(|error| MetaError::Unavailable(chain(&error)))?;
            // An empty object of the log is a fence.
            let objects = objects.into_iter().filter(|object| object.size > 0);
            keys.extend(objects.map(|object| object.location.to_string()));
        }
        Ok(keys)
    }

    async fn within<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, slatedb::Error>> + Send,
    ) -> Result<T, MetaError> {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(done) => done.map_err(|error| classify(&error)),
            Err(_) => Err(self.status.why.late(what, self.deadline)),
        }
    }
}

/// Tells whether a segment of the engine has the rows of one of the parts.
fn is_one_of(segment: &Segment, parts: &[u8]) -> bool {
    parts.iter().any(|part| segment.prefix()[..] == [*part])
}

/// Returns the compaction of all tables of a part into one run; `None` if there are none.
fn compaction_of_all(manifest: &VersionedManifest, segment: &Segment) -> Option<CompactionSpec> {
    let young = segment.l0().iter().map(|view| SourceId::SstView(view.id));
    let runs = segment.compacted().iter().map(|run| run.id);
    let sources: Vec<SourceId> = young.chain(runs.clone().map(SourceId::SortedRun)).collect();
    if sources.is_empty() {
        return None;
    }
    let all = manifest.segments().iter();
    let all = all.flat_map(|segment| segment.compacted().iter().map(|run| run.id));
    let next = all.max().map_or(0, |newest| newest + 1);
    let into = runs.min().unwrap_or(next);
    let prefix = segment.prefix().clone();
    Some(CompactionSpec::for_segment(prefix, sources, into))
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
