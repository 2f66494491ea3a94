//! The lease of a writer: the right to answer for a namespace, which ends unless it is renewed.
//!
//! The object `writer.json` of a namespace names its writer. The writer overwrites it every 30 s, and every 2 s while another process waits;
//! each write is a heartbeat. A process that wants the namespace reads it, and takes it by a conditional write when the writer has ended in
//! order, when it is this cache directory's own last writer, or when it has sent no heartbeat for longer than its lease, by the clock of the
//! process that waits. No clock of another machine and no name of a machine decides anything.
//!
//! Invariant: a writer whose lease is over answers nothing until it is renewed, except in an outage that it has seen itself without a pause, while
//! no other process waits. The index's own fence decides who may write; the lease keeps a writer that was stopped or cut off from
//! showing old states, and a second one from taking the namespace of a living one.

pub(crate) mod acquire;
mod beat;
mod beat_state;
pub(crate) mod identity;
pub(crate) mod request;
pub(crate) mod status;
#[cfg(test)]
mod tests;
mod wait;

use crate::backend::Backend;
use crate::env::Env;
use crate::store::lease::beat_state::BeatState;
use crate::store::lease::identity::WriterIdentity;
use crate::store::lease::status::{LeaseStanding, LeaseStatus};
use crate::store::model::error::StoreError;
use crate::store::model::takeover::LeaseTimes;
use crate::store::schema::writer_object::{KEY, WriterPhase};
use crate::sync::{Arc, Mutex, lock};
use crate::task::Tasks;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// How long the last heartbeat may take: the one that says that the writer has ended.
const END_MAX: Duration = Duration::from_secs(5);

/// How long a call waits for a lease that is over to be renewed.
const RENEWAL_MAX: Duration = Duration::from_secs(3);

/// The lease of one opening of a namespace.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The namespace's place.
    backend: Backend,
    env: Arc<dyn Env>,
    times: LeaseTimes,
    session: Uuid,
    /// The local directory of the namespace.
    dir: PathBuf,
    identity: Mutex<WriterIdentity>,
    phase: Mutex<WriterPhase>,
    /// The uptime until which the lease lasts, in nanoseconds; 0 when it is lost.
    until: AtomicU64,
    /// Asks for a heartbeat at once.
    hurry: Notify,
    /// Ends the task of the heartbeats.
    ending: Notify,
    status: watch::Sender<LeaseStatus>,
    /// What the task of the heartbeats leaves when it ends.
    rest: Mutex<Option<BeatState>>,
    /// Notified when `rest` is there.
    rested: Notify,
}

impl Lease {
    /// Sends heartbeats from now on, until `tasks` are stopped or the lease is lost.
    pub(crate) fn start(self: &Arc<Self>, tasks: &Tasks) {
        let rest = lock(&self.rest).take();
        let Some(state) = rest else { return };
        let (lease, stop) = (Arc::clone(self), tasks.clone());
        drop(tasks.spawn("lease", async move {
            let state = lease.beat_until_stopped(state, &stop).await;
            *lock(&lease.rest) = Some(state);
            lease.rested.notify_one();
        }));
    }

    /// Notes that the namespace is open and that its writer has `epoch`.
    ///
    /// # Errors
    /// `NoSpace`, `Unavailable` if the local disk fails.
    pub(crate) fn opened(&self, epoch: u64) -> Result<(), StoreError> {
        // Written before it is stored, outside the lock: a heartbeat waits for no fsync of the local disk.
        let mut identity = lock(&self.identity).clone();
        identity.note(epoch);
        identity.write(&self.dir)?;
        *lock(&self.identity) = identity;
        *lock(&self.phase) = WriterPhase::Writing;
        self.hurry.notify_one();
        Ok(())
    }

    /// Tells whether the writer may answer.
    pub(crate) fn is_held(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// Returns how long the writer may answer without another heartbeat.
    pub(crate) fn remaining(&self) -> Duration {
        let until = Duration::from_nanos(self.until.load(Ordering::Acquire));
        until.saturating_sub(self.env.uptime())
    }

    /// Waits a moment for a lease that is over to be renewed.
    pub(crate) async fn renewed(&self) {
        if self.is_held() {
            return;
        }
        self.hurry.notify_one();
        let mut status = self.status.subscribe();
        let renewed = async {
            while !self.is_held() && status.borrow_and_update().standing == LeaseStanding::Held {
                if status.changed().await.is_err() {
                    return;
                }
            }
        };
        // After the wait the caller looks again.
        let _ = tokio::time::timeout(RENEWAL_MAX, renewed).await;
    }

    /// Ends the lease: another writer has the namespace.
    pub(crate) fn lose(&self, to: Option<String>) {
        self.until.store(0, Ordering::Release);
        self.status.send_if_modified(|status| {
            let is_news = status.standing == LeaseStanding::Held;
            if is_news {
                status.standing = LeaseStanding::Lost(to);
                status.watched_by = None;
            }
            is_news
        });
    }

    /// Returns what becomes of the lease.
    pub(crate) fn status(&self) -> watch::Receiver<LeaseStatus> {
        self.status.subscribe()
    }

    /// Says in the bucket that the writer has ended, so that the next one does not wait for it. If the bucket does not answer, the next writer
    /// waits.
    pub(crate) async fn end(&self) {
        self.ending.notify_one();
        let Some(mut state) = self.rest_of_beats().await else {
            return;
        };
        *lock(&self.phase) = WriterPhase::Ended;
        self.until.store(0, Ordering::Release);
        if matches!(self.status.borrow().standing, LeaseStanding::Lost(_)) {
            return;
        }
        let ended = tokio::time::timeout(END_MAX, self.beat(&mut state)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::info!(
                object = KEY,
                "it does not say that this writer has ended: the next one waits, unless it has the same cache directory"
            );
        }
    }

    /// Waits for the end of the task, and takes what it has left; `None` if that takes too long.
    async fn rest_of_beats(&self) -> Option<BeatState> {
        let rest = || lock(&self.rest).take();
        match rest() {
            None if tokio::time::timeout(END_MAX, self.rested.notified())
                .await
                .is_ok() =>
            {
                rest()
            }
            rest => rest,
        }
    }
}
