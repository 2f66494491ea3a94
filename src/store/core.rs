//! The state that every floor of the store uses: the index, timestamps, ids, the journal, the health of the writer.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::backend::Backend;
use crate::env::Env;
use crate::meta::{Journal, JournalToken};
use crate::store::index::applied::ArchivedWatermarks;
use crate::store::index::changed_hours::ChangedHours;
use crate::store::index::current::Index;
use crate::store::index::directory_policies::DirectoryPolicies;
use crate::store::index::health::Health;
use crate::store::index::provisional::ProvisionalStates;
use crate::store::index::timestamps::Timestamps;
use crate::store::lease::Lease;
use crate::store::lease::status::LeaseStanding;
use crate::store::model::config::NamespaceConfig;
use crate::store::model::error::StoreError;
use crate::store::model::policy::Policy;
use crate::store::model::role::Role;
use crate::store::model::version::Timestamp;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::journal_record::Record;
use crate::store::schema::keys;
use crate::store::schema::manifest::NamespaceHome;
use crate::store::schema::retention_keys;
use crate::store::schema::retention_rows::CapRow;
use crate::sync::{Arc, Mutex, lock};
use crate::task::Tasks;

/// The parts of a namespace that call no floor of the store.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: NamespaceConfig,
    pub(crate) role: Role,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) tasks: Tasks,
    /// The place of segments, log and `epochs/`.
    pub(crate) backend: Backend,
    pub(crate) home: NamespaceHome,
    /// The namespace's id.
    pub(crate) uuid: Uuid,
    /// Epoch of the writer; for a follower, that of the newest batch when it was opened.
    pub(crate) epoch: u64,
    pub(crate) clock: Arc<Timestamps>,
    pub(crate) index: Index,
    pub(crate) journal: Arc<Journal>,
    pub(crate) health: Health,
    /// The right to answer as the namespace's writer; `None` in a follower.
    pub(crate) lease: Option<Arc<Lease>>,
    /// The row `G A` after the newest commit.
    pub(crate) applied: Mutex<AppliedRow>,
    pub(crate) archived_watermarks: Mutex<ArchivedWatermarks>,
    pub(crate) provisional: Mutex<ProvisionalStates>,
    /// The retention policy of a writer, row `G Q`, shortened by `G d`; `None`: every version is kept.
    pub(crate) policy: Mutex<Option<Arc<Policy>>>,
    /// The policies of directories of a writer, rows `G q`.
    pub(crate) directory_policies: Mutex<Arc<DirectoryPolicies>>,
    /// Which hours in which names changed have a row.
    pub(crate) changed_hours: ChangedHours,
    /// How often a hold on a version was set or ended, or a label removed; a run of retention reads all of them again when it has changed.
    pub(crate) protection_changes: AtomicU64,
    /// Notified when an operation is queued, uploaded or committed, and when an upload has failed.
    pub(crate) changed: Arc<Notify>,
    /// The next free number for an inode, a lineage, a write session or a staging file.
    pub(crate) ids: AtomicU64,
}

impl Core {
    /// Returns a number that was never given before to an inode, a lineage, a write session or a staging file.
    pub(crate) fn new_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::SeqCst)
    }

    /// Returns the number that the next [`Self::new_id`] gives.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.load(Ordering::SeqCst)
    }

    /// Makes sure that no number below `next` is given any more.
    pub(crate) fn raise_ids(&self, next: u64) {
        self.ids.fetch_max(next, Ordering::SeqCst);
    }

    /// Stops the writer for good. The reason is logged once.
    pub(crate) fn stop_writing(&self, why: StoreError) {
        if self.health.check().is_ok() {
            tracing::error!(%why, "stopped writing to the namespace");
        }
        self.health.stop(why);
    }

    /// Stops the writer when its lease is lost, and ends the lease when the index has fenced the writer.
    pub(crate) fn watch_lease(self: &Arc<Self>) {
        let Some(lease) = self.lease.clone() else {
            return;
        };
        let core = Arc::clone(self);
        drop(self.tasks.spawn("lease-lost", async move {
            let mut status = lease.status();
            loop {
                let ended = core.health.ended.notified();
                if core.health.is_fenced() {
                    return lease.lose(None);
                }
                tokio::select! {
                    () = core.tasks.stopped() => return,
                    () = ended => {}
                    lost = status.wait_for(|status| status.standing != LeaseStanding::Held) => {
                        drop(lost);
                        return core.stop_writing(StoreError::Fenced);
                    }
                }
            }
        }));
    }

    /// Appends a record to the journal.
    ///
    /// # Errors
    /// The reason for which the writer has stopped (`Fenced`, `Closed`, ...): from then on nothing is acknowledged.
    /// `NoSpace`, `Unavailable` if the append fails.
    pub(crate) fn append(&self, record: &Record) -> Result<JournalToken, StoreError> {
        self.health.check()?;
        Ok(self.journal.append(&record.encode())?)
    }

    /// As [`Self::append`]; each new file of the journal begins with `head` from now on.
    pub(crate) fn append_with_head(
        &self,
        head: &Record,
        record: &Record,
    ) -> Result<JournalToken, StoreError> {
        self.health.check()?;
        let (head, record) = (head.encode(), record.encode());
        Ok(self.journal.append_with_head(&head, &record)?)
    }

    /// Returns the current timestamp; for a follower the last final one.
    pub(crate) fn now(&self) -> Timestamp {
        match &self.role {
            Role::Writer => self.clock.now(),
            Role::Follower(follower) => follower.newest(),
        }
    }

    /// Reads the retention policy in force. Only after the journal's operations are queued: one of them may have set it.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn load_policy(&self) -> Result<(), StoreError> {
        let policy: Option<Policy> = self.index.row(&keys::policy()).await?;
        let cap: Option<CapRow> = self.index.row(&retention_keys::cap()).await?;
        let policy = policy.map(|policy| policy.capped(cap.as_ref().map(|cap| &cap.policy)));
        *lock(&self.policy) = policy.map(Arc::new);
        Ok(())
    }

    /// Reads the policies of directories. Only under their turn: a change in progress has put into memory what no row has yet.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub(crate) async fn load_directory_policies(&self) -> Result<(), StoreError> {
        let policies = DirectoryPolicies::read(&self.index.snapshot()).await?;
        self.use_directory_policies(policies);
        Ok(())
    }

    /// Files the versions that end from now on by these policies of directories.
    pub(crate) fn use_directory_policies(&self, policies: DirectoryPolicies) {
        *lock(&self.directory_policies) = Arc::new(policies);
    }

    /// Returns the policies of directories as they were last read.
    pub(crate) fn directory_policies(&self) -> Arc<DirectoryPolicies> {
        Arc::clone(&lock(&self.directory_policies))
    }

    /// Returns the retention policy; `None` if every version is kept.
    pub(crate) fn policy(&self) -> Option<Arc<Policy>> {
        lock(&self.policy).clone()
    }

    /// Returns a copy of the row `G A` after the newest commit.
    pub(crate) fn applied_now(&self) -> AppliedRow {
        lock(&self.applied).clone()
    }

    /// Sleeps for `time`, or until the tasks of the namespace are stopped.
    pub(crate) async fn sleep(&self, time: std::time::Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.tasks.stopped() => {}
        }
    }
}
