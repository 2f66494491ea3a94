//! A namespace: an independent tree in a backend, with one writer at a time.
//!
//! This module assembles the layers of the store (core, data, commit, tree, history, gc), opens and closes them, and
//! has no other logic.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

use crate::backend::{Backend, LaneFailure};
use crate::env::Env;
use crate::meta::{Journal, MetaStore, Reason, SlateConfig, SlateStore, TableDisk};
use crate::store::commit::Committer;
use crate::store::core::Core;
use crate::store::data::DataStore;
use crate::store::forget::Forgetter;
use crate::store::gc::Gc;
use crate::store::history::History;
use crate::store::history::forming_labels::FormingLabels;
use crate::store::history::restore_lock::RestoreLock;
use crate::store::index::applied::ArchivedWatermarks;
use crate::store::index::current::Index;
use crate::store::index::health::{Health, RecoveredConflicts};
use crate::store::index::timestamps::Timestamps;
use crate::store::lease::Lease;
use crate::store::lease::acquire::Waited;
use crate::store::lease::request::LeaseRequest;
use crate::store::lease::status::LeaseStatus;
use crate::store::model::config::{NamespaceConfig, Owner, check_name};
use crate::store::model::error::StoreError;
use crate::store::model::memory_shares::MemoryShares;
use crate::store::model::role::Role;
use crate::store::model::version::{Ino, Time, Timestamp};
use crate::store::recovery::Recovery;
use crate::store::recovery::bring_back::UncitedRange;
use crate::store::recovery::evidence::{self, Evidence};
use crate::store::recovery::first_rows::read_first_rows;
use crate::store::recovery::journal::{JournalRecords, RecoveredJournal};
use crate::store::retention::Retention;
use crate::store::schema::manifest::{
    Manifest, NamespaceHome, RebuildStage, existing_identity, identity,
};
use crate::store::schema::merge;
use crate::store::schema::object_names::SegmentId;
use crate::store::tree::Tree;
use crate::sync::{Arc, Mutex, lock};
use crate::task::Tasks;

/// Maximum by which the machine's clock may be behind the last timestamp of the namespace, in nanoseconds.
const CLOCK_BEHIND_MAX: u64 = 86_400 * 1_000_000_000;

/// Default time after which a drain without progress gives up.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(300);

/// An open namespace: this process writes it, or follows the process that does.
#[derive(Clone, Debug)]
pub struct Namespace {
    pub(crate) core: Arc<Core>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) commit: Arc<Committer>,
    pub(crate) tree: Arc<Tree>,
    pub(crate) history: Arc<History>,
    pub(crate) retention: Arc<Retention>,
    pub(crate) gc: Arc<Gc>,
    pub(crate) forget: Arc<Forgetter>,
}

/// What is needed to assemble a namespace.
pub(crate) struct NamespaceParts {
    pub(crate) config: NamespaceConfig,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) tasks: Tasks,
    /// Where its objects lie.
    pub(crate) home: NamespaceHome,
    pub(crate) uuid: Uuid,
    /// The local directory of the namespace.
    pub(crate) dir: PathBuf,
    pub(crate) epoch: u64,
    pub(crate) role: Role,
    pub(crate) journal: Journal,
    pub(crate) index: Index,
    /// `None` in a follower.
    pub(crate) lease: Option<Arc<Lease>>,
}

impl Namespace {
    /// Opens the namespace `name` of `backend` for writing, creates it if it does not exist, and replays what an
    /// earlier daemon on this machine acknowledged. `config.takeover` says what happens while another writer may have it.
    ///
    /// # Errors
    /// `Invalid` for a bad name, `Unavailable` if the bucket does not answer, `Busy` if another process uses the cache
    /// directory or may have the namespace, `Clock` if the machine's clock is more than a day behind the namespace, `Corrupt` for a format that
    /// this build does not know, `Damaged` if the index lacks what other objects prove, `Fenced` if another writer
    /// takes the namespace meanwhile.
    pub async fn open(
        backend: &Backend,
        name: &str,
        config: NamespaceConfig,
        env: Arc<dyn Env>,
        tasks: Tasks,
    ) -> Result<Self, StoreError> {
        check_name(name)?;
        let identity = identity(&backend.child(name), env.as_ref()).await?;
        let home = identity.home(backend, name);
        let dir = config.cache_dir.join(identity.uuid.to_string());
        let slate = engine_of_writer(backend, &config, &dir);
        let local = open_local(&dir, identity.uuid)?;
        let request = LeaseRequest {
            backend: &home.index,
            dir: &dir,
            host: &config.host,
            env: &env,
            takeover: &config.takeover,
            times: config.lease,
        };
        let (lease, evidence) = take(request, &home, &slate, &tasks).await?;
        let opening = async {
            // The check comes before the index engine writes anything: the engine would take a missing object for the end
            // of its log.
            if let Evidence::Damaged(what) = evidence? {
                return Err(StoreError::Damaged(what));
            }
            let store = SlateStore::open(home.index.object_store(), "meta", slate).await?;
            let meta: Arc<dyn MetaStore> = Arc::new(store);
            let epoch = meta.epoch().saturating_add(home.epoch_base);
            lease.opened(epoch)?;
            let parts = NamespaceParts {
                config,
                env,
                tasks,
                uuid: identity.uuid,
                dir: dir.clone(),
                epoch,
                role: Role::Writer,
                journal: local.journal,
                index: Index::of_writer(meta).await?,
                lease: Some(Arc::clone(&lease)),
                home: home.clone(),
            };
            // Each boxed, because the compiler takes minutes for the type of a future that has these as parts.
            let starting: BoxFuture<'_, Result<Self, StoreError>> =
                Box::pin(Self::start_writer(parts, local.records));
            let namespace = starting.await?;
            let completing: BoxFuture<'_, Result<(), StoreError>> =
                Box::pin(namespace.complete_rebuild(&identity));
            completing.await?;
            Ok(namespace)
        };
        let opened = opening.await;
        if opened.is_err() {
            lease.end().await;
        }
        opened
    }

    /// Completes a rebuild: brings back what is newer than the log that the index was made from.
    async fn complete_rebuild(&self, identity: &Manifest) -> Result<(), StoreError> {
        let Some(RebuildStage::Recovering { epoch, sequence }) = identity.rebuild else {
            return Ok(());
        };
        let range = UncitedRange {
            from: SegmentId { epoch, sequence },
            last_epoch: identity.epoch_base,
        };
        let recovery = self.recovery();
        let bringing: BoxFuture<'_, Result<(), StoreError>> = Box::pin(recovery.bring_back(range));
        bringing.await?;
        let place = &self.core.home.index;
        let newest = Manifest::find(place).await?;
        let complete = Manifest {
            rebuild: None,
            ..newest.ok_or(StoreError::NotFound)?
        };
        complete.replace(place).await
    }

    fn recovery(&self) -> Recovery {
        Recovery {
            core: Arc::clone(&self.core),
            data: Arc::clone(&self.data),
            commit: Arc::clone(&self.commit),
            tree: Arc::clone(&self.tree),
            history: Arc::clone(&self.history),
        }
    }

    /// Recovers what is in the journal and starts the tasks of the writer.
    pub(crate) async fn start_writer(
        parts: NamespaceParts,
        records: JournalRecords,
    ) -> Result<Self, StoreError> {
        read_first_rows(&parts.index).await?;
        let (namespace, orphans) = Self::assemble(parts).await?;
        namespace.core.watch_lease();
        let recovery = namespace.recovery();
        let replay = recovery.recover(records).await?;
        namespace.commit.start();
        namespace.tree.start(orphans);
        recovery.finish(replay).await?;
        namespace.history.resume_restore().await?;
        namespace.core.journal.thaw();
        namespace.retention.start();
        namespace.gc.start_gc();
        Ok(namespace)
    }

    /// Assembles the layers. The receiver delivers inodes that have no name and no open handle any more.
    pub(crate) async fn assemble(
        parts: NamespaceParts,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Ino>), StoreError> {
        let dir = parts.dir.clone();
        let opened = parts.env.now();
        let core = Arc::new(core(parts).await?);
        let data = Arc::new(DataStore::open(Arc::clone(&core), &dir)?);
        let commit = Arc::new(Committer::new(Arc::clone(&core), Arc::clone(&data), opened));
        let (tree, orphans) = Tree::new(Arc::clone(&core), Arc::clone(&data), Arc::clone(&commit));
        let tree = Arc::new(tree);
        let history = Arc::new(History {
            restore_lock: RestoreLock::default(),
            forming_labels: FormingLabels::default(),
            core: Arc::clone(&core),
            data: Arc::clone(&data),
            commit: Arc::clone(&commit),
            tree: Arc::clone(&tree),
        });
        let retention = Arc::new(Retention::new(
            Arc::clone(&core),
            Arc::clone(&commit),
            Arc::clone(&tree),
            Arc::clone(&history),
        ));
        let gc = Gc::new(Arc::clone(&core), Arc::clone(&data), Arc::clone(&commit));
        let gc = Arc::new(gc);
        let forget = Arc::new(Forgetter {
            core: Arc::clone(&core),
            data: Arc::clone(&data),
            commit: Arc::clone(&commit),
            tree: Arc::clone(&tree),
            history: Arc::clone(&history),
            gc: Arc::clone(&gc),
            turn: tokio::sync::Mutex::default(),
        });
        let namespace = Self {
            core,
            data,
            commit,
            tree,
            history,
            retention,
            gc,
            forget,
        };
        Ok((namespace, orphans))
    }

    /// Returns the layer that stores file contents.
    pub fn data(&self) -> &Arc<DataStore> {
        &self.data
    }

    /// Returns the layer that commits operations to the bucket.
    pub fn commit(&self) -> &Arc<Committer> {
        &self.commit
    }

    /// Returns the live tree.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Returns the layer that serves past states.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Returns the retention of history.
    pub fn retention(&self) -> &Arc<Retention> {
        &self.retention
    }

    /// Returns the garbage collector.
    pub fn gc(&self) -> &Arc<Gc> {
        &self.gc
    }

    /// Returns what forgets versions together with their bytes.
    pub fn forget(&self) -> &Arc<Forgetter> {
        &self.forget
    }

    /// Returns the current timestamp of the namespace's clock; in a follower, the last final timestamp.
    pub fn now(&self) -> Timestamp {
        self.core.now()
    }

    /// Returns the last final timestamp that a follower shows; `None` in a writer.
    pub fn shown(&self) -> Option<Timestamp> {
        match &self.core.role {
            Role::Writer => None,
            Role::Follower(follower) => Some(follower.newest()),
        }
    }

    /// Returns the clock and id source with which the namespace was opened.
    pub(crate) fn env(&self) -> Arc<dyn Env> {
        Arc::clone(&self.core.env)
    }

    /// Returns the time of the machine's clock, which file times follow.
    pub fn wall(&self) -> Time {
        self.core.clock.wall()
    }

    /// Returns the id that the namespace has had since it was created.
    pub fn uuid(&self) -> Uuid {
        self.core.uuid
    }

    /// Returns the name of the machine that authors of changes have.
    pub fn host(&self) -> &str {
        &self.core.config.host
    }

    /// Returns the user and group of the process that opened the namespace.
    pub fn owner(&self) -> Owner {
        self.core.config.owner
    }

    /// Returns the numbers of requests and bytes exchanged with the bucket so far.
    pub fn counters(&self) -> crate::backend::Counters {
        self.core.backend.counters()
    }

    /// Tells whether another writer has taken the namespace; no change is accepted then.
    pub fn is_fenced(&self) -> bool {
        self.core.health.is_fenced()
    }

    /// Tells whether this process may answer for the namespace: a writer needs a lease that is not over.
    pub fn is_lease_held(&self) -> bool {
        self.core.lease.as_ref().is_none_or(|lease| lease.is_held())
    }

    /// Waits a moment for a lease that is over to be renewed.
    pub async fn lease_renewed(&self) {
        if let Some(lease) = &self.core.lease {
            lease.renewed().await;
        }
    }

    /// Returns how long the writer's lease lasts without another heartbeat; `None` in a follower.
    pub fn lease_remaining(&self) -> Option<Duration> {
        Some(self.core.lease.as_ref()?.remaining())
    }

    /// Returns what becomes of the writer's lease; `None` in a follower.
    pub fn lease_status(&self) -> Option<watch::Receiver<LeaseStatus>> {
        Some(self.core.lease.as_ref()?.status())
    }

    async fn end_lease(&self) {
        if let Some(lease) = &self.core.lease {
            lease.end().await;
        }
    }

    /// Returns why this process has stopped writing permanently: another writer has the namespace, the index failed, or
    /// a task panicked. `None` while it works.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        Some(self.core.health.check().err()?.to_string())
    }

    /// Returns what the mount recovered of acknowledged changes that another writer superseded.
    pub fn conflicts(&self) -> RecoveredConflicts {
        lock(&self.core.health.conflicts).clone()
    }

    /// As [`Namespace::drain_within`] with five minutes.
    ///
    /// # Errors
    /// As [`Namespace::drain_within`].
    pub async fn drain(&self) -> Result<(), StoreError> {
        self.drain_within(DRAIN_TIMEOUT).await
    }

    /// Waits until every acknowledged change is in the bucket and in its log, including writes to files that are still
    /// open. Failed requests are repeated. Gives up if nothing has progressed for `stall`, or if the bucket keeps
    /// refusing credentials that this process cannot renew.
    ///
    /// # Errors
    /// `Unavailable` with the reason; the remaining changes stay queued. `Fenced`: the remaining changes cannot reach
    /// the bucket.
    pub async fn drain_within(&self, stall: Duration) -> Result<(), StoreError> {
        if matches!(self.core.role, Role::Follower(_)) {
            return Ok(());
        }
        self.core.health.check()?;
        let _draining = self.core.health.drain();
        tokio::select! {
            drained = self.tree.drain_all() => drained,
            stalled = self.tree.stalled(stall) => Err(stalled),
        }
    }

    /// Drains and stops writing. The tasks of the namespace end soon after; join them before the same cache directory
    /// is opened again.
    ///
    /// # Errors
    /// As [`Namespace::drain`]; changes that are not in the bucket stay in the journal.
    pub async fn close(&self) -> Result<(), StoreError> {
        if let Role::Follower(follower) = &self.core.role {
            self.core.tasks.stop();
            return follower.close().await;
        }
        self.retention.end().await;
        self.gc.end().await;
        let drained = self.drain().await;
        self.core.health.stop(StoreError::Closed);
        self.core.tasks.stop();
        let closed = self.core.index.writer()?.close().await;
        self.end_lease().await;
        drained?;
        Ok(closed?)
    }

    /// Stops writing without waiting for the bucket. Changes that are not in the bucket are synced to the local disk in
    /// the cache directory, for the next open. The index is left as after a crash.
    ///
    /// # Errors
    /// `Unavailable` if the local disk fails.
    pub async fn abandon(&self) -> Result<(), StoreError> {
        if matches!(self.core.role, Role::Follower(_)) {
            return self.close().await;
        }
        self.core.health.stop(StoreError::Closed);
        self.core.journal.freeze();
        self.core.tasks.stop();
        let directory = self.core.config.cache_dir.clone();
        let sync = move || -> std::io::Result<()> {
            Ok(rustix::fs::syncfs(std::fs::File::open(directory)?)?)
        };
        let synced = self.core.tasks.blocking("sync-cache", sync).await;
        self.end_lease().await;
        let synced = synced.map_err(|_| StoreError::Closed)?;
        synced.map_err(|error| {
            StoreError::Unavailable(format!("the cache directory: {error}").into())
        })
    }
}

/// The settings of the index engine of a writer, whose local files are in `dir`.
fn engine_of_writer(backend: &Backend, config: &NamespaceConfig, dir: &Path) -> SlateConfig {
    let shares = MemoryShares::of(config.memory_bytes);
    SlateConfig {
        local: backend.is_local(),
        cache_bytes: shares.index_cache,
        unflushed_bytes: shares.index_rows as usize,
        tables: Some(TableDisk {
            dir: dir.join("tables"),
            bytes: config.table_bytes(),
        }),
        collect_after: config.grace,
        reason: Some(why_not(backend)),
        ..SlateConfig::new(merge::merge)
    }
}

/// Takes the lease of a namespace, and examines its index meanwhile, which only reads.
async fn take(
    request: LeaseRequest<'_>,
    home: &NamespaceHome,
    slate: &SlateConfig,
    tasks: &Tasks,
) -> Result<(Arc<Lease>, Result<Evidence, StoreError>), StoreError> {
    let taking = async {
        let (lease, waited) = Lease::acquire(request).await?;
        lease.start(tasks);
        Ok::<_, StoreError>((lease, waited))
    };
    let (taken, mut evidence) = tokio::join!(taking, evidence::examine(home, slate));
    let (lease, waited) = taken?;
    if waited == Waited::ForAnother {
        evidence = examine_again(home, slate).await;
    }
    Ok((lease, evidence))
}

/// Examines the index after a wait, in which the namespace may have been rebuilt or deleted.
async fn examine_again(home: &NamespaceHome, slate: &SlateConfig) -> Result<Evidence, StoreError> {
    existing_identity(&home.index).await?.check_alive()?;
    evidence::examine(home, slate).await
}

/// Reads the applied watermarks of the namespace and builds the core that all layers share.
async fn core(parts: NamespaceParts) -> Result<Core, StoreError> {
    let (applied, archived) = ArchivedWatermarks::load(&parts.index).await?;
    if matches!(parts.role, Role::Writer) {
        check_clock(parts.env.now(), applied.clock)?;
    }
    let clock = Timestamps::new(Arc::clone(&parts.env));
    clock.raise(applied.clock);
    Ok(Core {
        config: parts.config,
        role: parts.role,
        env: parts.env,
        tasks: parts.tasks,
        backend: parts.home.objects.clone(),
        home: parts.home,
        uuid: parts.uuid,
        epoch: parts.epoch,
        clock,
        index: parts.index,
        journal: Arc::new(parts.journal),
        health: Health::default(),
        lease: parts.lease,
        ids: AtomicU64::new(applied.next_id.max(2)),
        applied: Mutex::new(applied),
        archived_watermarks: Mutex::new(archived),
        provisional: Mutex::default(),
        policy: Mutex::default(),
        directory_policies: Mutex::default(),
        changed_hours: Default::default(),
        protection_changes: AtomicU64::new(0),
        changed: Arc::new(Notify::new()),
    })
}

/// Refuses a machine's clock that is more than a day behind the last timestamp of the namespace. `Clock` in that case.
fn check_clock(now: u64, last: u64) -> Result<(), StoreError> {
    if last <= now.saturating_add(CLOCK_BEHIND_MAX) {
        return Ok(());
    }
    let show = |ns: u64| {
        let seconds = i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(seconds).map_or_else(|_| ns.to_string(), |t| t.to_string())
    };
    Err(StoreError::Clock(format!(
        "this machine's clock says {}, the namespace was last written at {}: set the clock",
        show(now),
        show(last)
    )))
}

/// Returns a function that gives the newest error of requests to the bucket. The index engine itself sees only that its
/// requests take long.
pub(crate) fn why_not(backend: &Backend) -> Reason {
    let backend = backend.clone();
    let words = |failure: LaneFailure| failure.error.to_string();
    Arc::new(move || backend.lane_failures().into_iter().map(words).next_back())
}

pub(crate) fn open_local(dir: &Path, uuid: Uuid) -> Result<RecoveredJournal, StoreError> {
    let (journal, recovered) = Journal::open_in(dir, uuid)?;
    // The journal stays frozen until the mount is complete, so that a mount that fails leaves every record in place.
    journal.freeze();
    RecoveredJournal::read(journal, recovered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_more_than_a_day_behind_is_refused_with_both_times() {
        let now = 1_700_000_000_000_000_000;
        assert!(check_clock(now, 0).is_ok());
        assert!(check_clock(now, now + CLOCK_BEHIND_MAX).is_ok());
        let error = check_clock(now, now + CLOCK_BEHIND_MAX + 1)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("2023-11-14T22:13:20Z") && error.contains("2023-11-15T22:13:20Z"),
            "{error}"
        );
    }
}
