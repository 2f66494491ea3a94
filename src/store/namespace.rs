//! A namespace: an independent tree inside a backend, with its one writer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

use crate::backend::{Backend, Trouble};
use crate::cache::{BlockCache, BlockCacheConfig, Budget, StagingDir};
use crate::env::Env;
use crate::meta::{Batch, Journal, JournalToken, MetaStore, Reason, SlateConfig, SlateStore};
use crate::store::commit::epoch_object::EpochObject;
use crate::store::commit::log::Log;
use crate::store::commit::queue::{Operation, Queue, Txn};
use crate::store::data::extent_map::ContentStore;
use crate::store::data::pins::Pins;
use crate::store::data::segment::ExtentReader;
use crate::store::follower::Role;
use crate::store::gc::task::{GcMode, GcState};
use crate::store::index::applied::ArchivedWatermarks;
use crate::store::index::health::Health;
use crate::store::index::overlay::Index;
use crate::store::index::provisional::ProvisionalStates;
use crate::store::index::timestamps::Timestamps;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Ino, Time, Timestamp};
use crate::store::recovery::evidence::{self, Evidence};
use crate::store::recovery::journal::RecoveredJournal;
use crate::store::schema::journal_record::{Dependencies, Record};
use crate::store::schema::manifest::identity;
use crate::store::schema::rows::{self, AppliedRow};
use crate::store::tree::disk_space::DiskSpace;
use crate::store::tree::inode::InodeCache;
use crate::sync::{Arc, Mutex, lock};
use crate::task::Tasks;

/// How far a clock may be behind the namespace's last timestamp, nanoseconds.
const CLOCK_BEHIND_MAX: u64 = 86_400 * 1_000_000_000;

/// When close(2) returns, seen from the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// Uploads begin as soon as a segment is full or a second has passed.
    AtOnce,
    /// Uploads of small files may be gathered for so long.
    For(Duration),
}

/// What a namespace needs to know about its machine.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    /// Directory for the journal, staging files and cached blocks; one subdirectory per namespace is made in it.
    pub cache_dir: PathBuf,
    /// Bytes of blocks kept on disk.
    pub cache_bytes: u64,
    /// Bytes of blocks kept in memory.
    pub memory_bytes: u64,
    /// Bytes acknowledged but not in the bucket, at most; beyond it writers wait.
    pub dirty_bytes_max: u64,
    /// How long small files wait for company.
    pub linger: Linger,
    /// Name of this machine, for versions.
    pub host: String,
    /// Owner of the root directory, when the namespace is made.
    pub owner: (u32, u32),
    /// When what nothing shows any more is removed from the bucket.
    pub reclaim: GcMode,
    /// How long an object stays after the last row that cites it has gone: longer than any reader, here or elsewhere, takes.
    pub grace: Duration,
}

/// A namespace that this process writes, or shows while another one does.
#[derive(Clone, Debug)]
pub struct Namespace(pub(crate) Arc<Shared>);

/// What all parts of a namespace share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NamespaceConfig,
    pub(crate) role: Role,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) tasks: Tasks,
    pub(crate) backend: Backend,
    pub(crate) epoch: u64,
    pub(crate) clock: Arc<Timestamps>,
    pub(crate) index: Index,
    pub(crate) inodes: InodeCache,
    pub(crate) contents: ContentStore,
    pub(crate) pins: Arc<Pins>,
    pub(crate) extents: ExtentReader,
    pub(crate) journal: Arc<Journal>,
    pub(crate) queue: Queue,
    pub(crate) staging: StagingDir,
    pub(crate) budget: Budget,
    pub(crate) space: DiskSpace,
    pub(crate) log: Log,
    pub(crate) epoch_object: EpochObject,
    pub(crate) gc: GcState,
    pub(crate) health: Health,
    pub(crate) applied: Mutex<AppliedRow>,
    pub(crate) archived_watermarks: Mutex<ArchivedWatermarks>,
    pub(crate) provisional: Mutex<ProvisionalStates>,
    pub(crate) replay: Mutex<crate::store::recovery::replay::JournalReplay>,
    pub(crate) uploads: Semaphore,
    pub(crate) unlinked: tokio::sync::mpsc::UnboundedSender<Ino>,
    pub(crate) renames: tokio::sync::Mutex<()>,
    pub(crate) restore_lock: crate::store::history::restore_tree::RestoreLock,
    ids: AtomicU64,
    sequence: AtomicU64,
}

/// Checks a namespace's name: parts of lowercase letters, digits, `-`, `_` and `.`, separated by `/`.
///
/// # Errors
/// `Invalid`, saying what is wrong with it.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let bad = |why: &str| {
        Err(StoreError::Invalid(format!(
            "namespace name {name:?}: {why}"
        )))
    };
    if name.len() > 200 {
        return bad("longer than 200 bytes");
    }
    for part in name.split('/') {
        let plain =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if part.is_empty() {
            return bad("an empty part; write it like team/eu");
        }
        if part.chars().all(|c| c == '.') {
            return bad("a part of dots only");
        }
        if !part.chars().all(plain) {
            return bad("only a-z, 0-9, '-', '_', '.' and '/' may be in it");
        }
        if matches!(part, "meta" | "data" | "log" | "epochs") {
            return bad("'meta', 'data', 'log' and 'epochs' are taken by the format");
        }
    }
    Ok(())
}

impl Namespace {
    /// Opens the namespace `name` of `backend` for writing, makes it if it is not there, and brings back what an earlier
    /// daemon acknowledged on this machine. Takes the namespace from any other writer.
    ///
    /// # Errors
    /// `Invalid` for a bad name, `Unavailable` when the bucket does not answer, `Busy` when another process uses the
    /// cache directory, `Corrupt` for a format this build does not know, `Damaged` when the index lacks what other objects prove, `Fenced`
    /// when another writer came between.
    pub async fn open(
        backend: &Backend,
        name: &str,
        config: NamespaceConfig,
        env: Arc<dyn Env>,
        tasks: Tasks,
    ) -> Result<Self, StoreError> {
        check_name(name)?;
        let backend = backend.child(name);
        let identity = identity(&backend, env.as_ref()).await?;
        let dir = config.cache_dir.join(identity.uuid.to_string());
        let meta_store = backend.object_store();
        let slate = SlateConfig {
            local: backend.is_local(),
            collect_after: config.grace,
            reason: Some(why_not(&backend)),
            ..SlateConfig::new(rows::merge)
        };
        let local = open_local(&dir, identity.uuid)?;
        // Before the engine writes anything: it would take a missing object for the end of what there is.
        if let Evidence::Damaged(what) = evidence::examine(&backend, &slate).await? {
            return Err(StoreError::Damaged(what));
        }
        let meta = SlateStore::open(meta_store, "meta", slate).await?;
        Self::assemble(backend, Arc::new(meta), config, (env, tasks), (dir, local)).await
    }

    pub(crate) async fn assemble(
        backend: Backend,
        meta: Arc<dyn MetaStore>,
        config: NamespaceConfig,
        outside: (Arc<dyn Env>, Tasks),
        (dir, journaled): (PathBuf, RecoveredJournal),
    ) -> Result<Self, StoreError> {
        let place = NamespaceParts {
            backend,
            dir,
            epoch: meta.epoch(),
            role: Role::Writer,
            journal: journaled.journal,
        };
        let (shared, orphans) = Shared::assemble(place, Index::new(meta), config, outside).await?;
        shared.recover(journaled.records).await?;
        shared.start(orphans);
        let namespace = Self(shared);
        namespace.0.finish_recovery().await?;
        namespace.0.journal.thaw();
        namespace.0.start_gc();
        Ok(namespace)
    }

    /// The present timestamp of the namespace's clock; where another process writes, the last one that is final.
    pub fn now(&self) -> Timestamp {
        match &self.0.role {
            Role::Writer => self.0.clock.now(),
            Role::Follower(follower) => follower.newest(),
        }
    }

    /// The clock and the ids that the namespace was opened with.
    pub(crate) fn env(&self) -> Arc<dyn Env> {
        Arc::clone(&self.0.env)
    }

    /// The machine's clock, which the times of files follow.
    pub fn wall(&self) -> Time {
        self.0.clock.wall()
    }

    /// Name of this machine, as its versions carry it.
    pub fn host(&self) -> &str {
        &self.0.config.host
    }

    /// Requests and bytes exchanged with the bucket so far.
    pub fn counters(&self) -> crate::backend::Counters {
        self.0.backend.counters()
    }
}

/// Where a namespace is opened, and as what.
pub(crate) struct NamespaceParts {
    pub(crate) backend: Backend,
    /// What lies on this machine.
    pub(crate) dir: PathBuf,
    pub(crate) epoch: u64,
    pub(crate) role: Role,
    pub(crate) journal: Journal,
}

impl Shared {
    /// Puts the parts together, and gives with them who is told of inodes that nobody uses any more.
    pub(crate) async fn assemble(
        place: NamespaceParts,
        index: Index,
        config: NamespaceConfig,
        (env, tasks): (Arc<dyn Env>, Tasks),
    ) -> Result<(Arc<Self>, UnboundedReceiver<Ino>), StoreError> {
        let NamespaceParts {
            backend,
            dir,
            epoch,
            role,
            journal,
        } = place;
        let (applied, archived_watermarks) = ArchivedWatermarks::load(&index).await?;
        let blocks = BlockCache::open(
            BlockCacheConfig {
                memory_bytes: config.memory_bytes,
                disk_bytes: if backend.is_local() {
                    0
                } else {
                    config.cache_bytes
                },
                dir: Some(dir.join("blocks")),
            },
            tasks.clone(),
        )?;
        if matches!(role, Role::Writer) {
            check_clock(env.now(), applied.clock)?;
        }
        let clock = Timestamps::new(Arc::clone(&env));
        clock.raise(applied.clock);
        let (unlinked, orphans) = tokio::sync::mpsc::unbounded_channel();
        let journal = Arc::new(journal);
        let shared = Arc::new(Self {
            extents: ExtentReader::new(backend.clone(), blocks, Arc::clone(index.rows())),
            queue: Queue::new(Arc::clone(&journal), epoch),
            staging: StagingDir::open(&dir.join("staging"))?,
            budget: Budget::new(config.dirty_bytes_max),
            space: DiskSpace::default(),
            log: Log::new(backend.clone(), epoch),
            epoch_object: EpochObject::new(backend.clone(), epoch, &config.host, env.now()),
            gc: GcState::default(),
            health: Health::default(),
            ids: AtomicU64::new(applied.next_id.max(2)),
            applied: Mutex::new(applied),
            archived_watermarks: Mutex::new(archived_watermarks),
            provisional: Mutex::default(),
            replay: Mutex::default(),
            uploads: Semaphore::new(8),
            sequence: AtomicU64::new(1),
            inodes: InodeCache::default(),
            contents: ContentStore::default(),
            pins: Arc::default(),
            renames: tokio::sync::Mutex::new(()),
            restore_lock: crate::store::history::restore_tree::RestoreLock::default(),
            unlinked,
            config,
            role,
            env,
            tasks,
            backend,
            epoch,
            clock,
            index,
            journal,
        });
        Ok((shared, orphans))
    }
}

/// Refuses a clock that is more than a day behind the last timestamp of the namespace.
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

/// What a store says while requests to it fail, for the index, which learns of a failure only that it takes long.
pub(crate) fn why_not(backend: &Backend) -> Reason {
    let backend = backend.clone();
    let words = |trouble: Trouble| trouble.error.to_string();
    Arc::new(move || backend.troubles().into_iter().map(words).next_back())
}

pub(crate) fn open_local(
    dir: &std::path::Path,
    uuid: Uuid,
) -> Result<RecoveredJournal, StoreError> {
    let (journal, recovered) = Journal::open(&dir.join("journal"), uuid)?;
    // A mount that fails on the way must find everything again.
    journal.freeze();
    RecoveredJournal::read(journal, recovered)
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What still holds a token goes with it; what the bucket has was let go before.
        self.journal.freeze();
    }
}

impl Shared {
    /// A number that no inode, lineage or working ever had.
    pub(crate) fn new_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.ids.load(Ordering::SeqCst)
    }

    pub(crate) fn raise_ids(&self, next: u64) {
        self.ids.fetch_max(next, Ordering::SeqCst);
    }

    /// The sequence of the segment that is made next.
    pub(crate) fn next_segment(&self) -> u64 {
        self.sequence.load(Ordering::SeqCst)
    }

    pub(crate) fn new_segment(&self) -> crate::store::data::segment::SegmentId {
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst);
        crate::store::data::segment::SegmentId {
            epoch: self.epoch,
            sequence,
        }
    }

    /// A record into the journal. Fails once the writer has lost its place: nothing is acknowledged from then on.
    pub(crate) fn journal(&self, record: &Record) -> Result<JournalToken, StoreError> {
        self.health.check()?;
        Ok(self.journal.append(&record.encode())?)
    }

    /// A draft of an operation at `timestamp`.
    pub(crate) fn txn(&self, timestamp: Timestamp, dependencies: Dependencies) -> Txn {
        Txn {
            timestamp,
            time: self.clock.wall(),
            rows: Batch::new(),
            dependencies,
            content: None,
            byteless_flush: None,
            usage: (0, 0),
            held: crate::store::commit::queue::Guards::default(),
        }
    }

    /// Acknowledges an operation: into the journal, the overlay and the queue, or not at all.
    pub(crate) fn enqueue(&self, mut txn: Txn) -> Result<Arc<Operation>, StoreError> {
        self.health.check()?;
        crate::store::gc::lineage::note(&mut txn);
        let pending = txn.content.as_ref().map(|(pending, _)| Arc::clone(pending));
        let usage = txn.usage;
        if let Some(pending) = &pending {
            self.contents.add(pending);
        }
        match self.queue.push(txn, self.next_id(), |dependencies, rows| {
            self.index.lay(dependencies, rows);
        }) {
            Ok(operation) => {
                self.health.use_more(usage);
                Ok(operation)
            }
            Err(error) => {
                if let Some(pending) = pending {
                    self.contents.uploaded(pending.content);
                }
                Err(error)
            }
        }
    }

    /// The oldest timestamp that is not committed: everything below it is final.
    pub(crate) fn low_watermark(&self) -> Timestamp {
        match &self.role {
            Role::Writer => self.low_watermark_without(&[]),
            Role::Follower(follower) => follower.low_watermark(),
        }
    }

    /// The floor as it is when some operations, ascending by their places, are committed.
    pub(crate) fn low_watermark_without(&self, committed: &[Arc<Operation>]) -> Timestamp {
        // The clock first: what begins to be answered from here on gets no timestamp below it. Then the answers, for
        // they move on into the queue.
        let next = self.clock.next();
        let reserved = self.clock.oldest_reservation();
        let queued = self.queue.oldest_without(committed);
        reserved.into_iter().chain(queued).min().unwrap_or(next)
    }

    pub(crate) fn applied_now(&self) -> AppliedRow {
        lock(&self.applied).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_names_are_checked_with_a_reason() {
        for good in ["default", "team/eu", "a.b-c_1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a//b",
            "/a",
            "a/",
            "..",
            "A",
            "a b",
            "x/meta",
            &"a".repeat(201),
        ] {
            let error = check_name(bad).unwrap_err().to_string();
            assert!(error.contains("namespace name"), "{bad}: {error}");
        }
    }

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
