//! What every floor of the store uses: the index, timestamps, ids, the journal, the health of the writer. It knows no floor.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::backend::Backend;
use crate::env::Env;
use crate::meta::{Journal, JournalToken};
use crate::store::index::applied::ArchivedWatermarks;
use crate::store::index::health::Health;
use crate::store::index::overlay::Index;
use crate::store::index::provisional::ProvisionalStates;
use crate::store::index::timestamps::Timestamps;
use crate::store::model::config::NamespaceConfig;
use crate::store::model::error::StoreError;
use crate::store::model::role::Role;
use crate::store::model::version::Timestamp;
use crate::store::schema::journal_record::Record;
use crate::store::schema::rows::AppliedRow;
use crate::sync::{Arc, Mutex, lock};
use crate::task::Tasks;

/// The parts of a namespace that know no floor.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: NamespaceConfig,
    pub(crate) role: Role,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) tasks: Tasks,
    pub(crate) backend: Backend,
    pub(crate) epoch: u64,
    pub(crate) clock: Arc<Timestamps>,
    pub(crate) index: Index,
    pub(crate) journal: Arc<Journal>,
    pub(crate) health: Health,
    pub(crate) applied: Mutex<AppliedRow>,
    pub(crate) archived_watermarks: Mutex<ArchivedWatermarks>,
    pub(crate) provisional: Mutex<ProvisionalStates>,
    /// Something was queued, uploaded or committed, or an upload has failed.
    pub(crate) changed: Arc<Notify>,
    pub(crate) ids: AtomicU64,
}

impl Core {
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

    /// Appends a record to the journal. Fails once the writer has lost its place: nothing is acknowledged from then on.
    pub(crate) fn append(&self, record: &Record) -> Result<JournalToken, StoreError> {
        self.health.check()?;
        Ok(self.journal.append(&record.encode())?)
    }

    /// The present timestamp; for a follower the last one that is final.
    pub(crate) fn now(&self) -> Timestamp {
        match &self.role {
            Role::Writer => self.clock.now(),
            Role::Follower(follower) => follower.newest(),
        }
    }

    pub(crate) fn applied_now(&self) -> AppliedRow {
        lock(&self.applied).clone()
    }

    /// Sleeps, unless the namespace ends.
    pub(crate) async fn sleep(&self, time: std::time::Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.tasks.stopped() => {}
        }
    }
}
