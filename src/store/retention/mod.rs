//! Retention: drops the versions that no rule of the policy keeps.
//!
//! A version that ends is filed at the time until which the rules of time keep it (row `G X`). A run takes the filings that are due,
//! asks for each version what else keeps it (`verdict.rs`), and drops the version or files it anew under what holds it
//! (`carry_out.rs`). A version that a name keeps is not due again: an operation that changes the name lists it for review (row `G Z`).
//!
//! Invariants: one run at a time; a dry run is none, and shares nothing with it (`dry_run.rs`). Before the first drop of a run the horizons (row `G I`) are durable that say which times are
//! still exact. Each version is dropped or filed by one operation, so that a crash between two leaves a whole history; the next run
//! goes on with what is due.

pub(crate) mod amounts;
pub(crate) mod brake;
pub(crate) mod cap;
pub(crate) mod carry_out;
pub(crate) mod changed_hours;
pub(crate) mod clocks;
pub(crate) mod directory_policies;
pub(crate) mod drop_progress;
pub(crate) mod drop_version;
pub(crate) mod dry_run;
pub(crate) mod horizon;
pub(crate) mod line;
pub(crate) mod pace;
pub(crate) mod policies;
pub(crate) mod policy_change;
pub(crate) mod protection;
pub(crate) mod removed;
pub(crate) mod report;
pub(crate) mod reviews;
pub(crate) mod run;
pub(crate) mod shown;
pub(crate) mod stats;
pub(crate) mod task;
pub(crate) mod verdict;
pub(crate) mod why;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::store::commit::Committer;
use crate::store::commit::operation::Operation;
use crate::store::commit::txn::Txn;
use crate::store::core::Core;
use crate::store::history::History;
use crate::store::model::error::StoreError;
use crate::store::retention::drop_progress::DropProgress;
use crate::store::retention::report::{HistoryState, LastRun};
use crate::store::tree::Tree;
use crate::sync::{Arc, Mutex, lock};

/// Longest wait for operations of a run to become durable.
const SETTLE: Duration = Duration::from_secs(10);

/// Whether the operations of a run are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    All,
    /// At least one is not.
    Late,
}

/// The retention of one namespace.
#[derive(Debug)]
pub struct Retention {
    pub(crate) core: Arc<Core>,
    pub(crate) commit: Arc<Committer>,
    pub(crate) tree: Arc<Tree>,
    pub(crate) history: Arc<History>,
    /// Held while the policy is changed, and for the moment in which a run takes its turn: who waits for it waits for a change, never for a run.
    pub(crate) policy_turn: tokio::sync::Mutex<()>,
    /// Held during a run, so that one runs at a time, and while the policy is changed.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Held while a policy of a directory is changed, or its horizons are.
    pub(crate) directory_turn: tokio::sync::Mutex<()>,
    /// Set when the namespace is being closed: a run ends before its next version, and no other one begins.
    pub(crate) ending: AtomicBool,
    /// Notified when `ending` is set.
    pub(crate) ended: Notify,
    /// What the last drop of each list of records left before the next one. Only the run that has the turn uses it.
    pub(crate) drops: Mutex<DropProgress>,
    /// Operations of the run that may not be durable yet: what lists their versions stays until they are.
    pub(crate) queued: Mutex<Vec<Arc<Operation>>>,
    /// What a status tells about the history.
    pub(crate) state: Mutex<Option<HistoryState>>,
    /// When it was opened, in nanoseconds since 1970.
    pub(crate) opened: u64,
    /// Until when the cap rests, because the history does not show yet what was dropped, in nanoseconds since 1970.
    pub(crate) cap_rests: Mutex<u64>,
    /// The last run of this process.
    pub(crate) last: Mutex<Option<LastRun>>,
}

impl Retention {
    pub(crate) fn new(
        core: Arc<Core>,
        commit: Arc<Committer>,
        tree: Arc<Tree>,
        history: Arc<History>,
    ) -> Self {
        Self {
            opened: core.env.now(),
            core,
            commit,
            tree,
            history,
            policy_turn: tokio::sync::Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            directory_turn: tokio::sync::Mutex::default(),
            ending: AtomicBool::new(false),
            ended: Notify::new(),
            drops: Mutex::default(),
            queued: Mutex::default(),
            state: Mutex::default(),
            cap_rests: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// Ends a run before its next version, and waits for that; no other run begins. The next mount goes on with what is due.
    pub(crate) async fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.ended.notify_waiters();
        drop(self.turn.lock().await);
    }

    /// Queues an operation of a run.
    ///
    /// # Errors
    /// Those of the queue.
    pub(crate) fn queue(&self, txn: Txn) -> Result<(), StoreError> {
        let operation = self.commit.enqueue(txn)?;
        lock(&self.queued).push(operation);
        Ok(())
    }

    /// Waits until the queued operations are durable, however long that takes.
    ///
    /// # Errors
    /// `Closed` when the namespace is being closed; those that stop all commits.
    pub(crate) async fn settle_all(&self) -> Result<(), StoreError> {
        // Made before the look: a close after it ends the wait.
        let ended = self.ended.notified();
        self.check_open()?;
        let queued = lock(&self.queued).clone();
        tokio::select! {
            durable = self.commit.wait_all_durable(&queued) => durable?,
            () = ended => return Err(StoreError::Closed),
        }
        // Only now: after a wait that was given up, the next one waits for them again.
        lock(&self.queued).clear();
        Ok(())
    }

    /// Waits until the queued operations are durable: one may wait for a save whose bytes are not
    /// uploaded yet. Gives up after some seconds.
    ///
    /// # Errors
    /// As those of [`Self::settle_all`].
    pub(crate) async fn settle(&self) -> Result<Settled, StoreError> {
        tokio::select! {
            durable = self.settle_all() => durable.map(|()| Settled::All),
            () = self.core.sleep(SETTLE) => Ok(Settled::Late),
        }
    }

    /// Fails if the namespace is being closed.
    pub(crate) fn check_open(&self) -> Result<(), StoreError> {
        match self.ending.load(Ordering::SeqCst) || self.core.tasks.is_stopped() {
            true => Err(StoreError::Closed),
            false => Ok(()),
        }
    }
}
