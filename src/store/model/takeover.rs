//! What a mount does about another writer, and the times of leases.

use crate::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What an opening of a namespace does if another writer has not ended in order: it may be alive.
#[derive(Clone, Debug)]
pub enum Takeover {
    /// It waits until the writer ends or counts as dead.
    Wait(WaitProgress),
    /// It takes the namespace at once; a living writer is fenced.
    Now,
    /// It fails with `Busy`.
    Never,
}

/// What an opening waits for; `None` while it does not wait.
pub type WaitProgress = Arc<watch::Sender<Option<AwaitedWriter>>>;

/// The writer that an opening waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitedWriter {
    /// Its machine, as it calls itself; `None` if its object cannot be read.
    pub host: Option<String>,
    /// How long this process has seen no heartbeat of it.
    pub silence: Duration,
    /// The silence after which it counts as dead.
    pub dead_after: Duration,
    /// Why the bucket could not be asked last time.
    pub failure: Option<String>,
}

/// How often a writer sends a heartbeat, and how long it may answer after one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// The interval of heartbeats.
    pub every: Duration,
    /// How long the writer may answer after the beginning of the last one that succeeded.
    pub lease: Duration,
}

/// The times of a writer's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// While no other process waits for the namespace.
    pub alone: LeaseTime,
    /// While one does.
    pub watched: LeaseTime,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            alone: LeaseTime {
                every: Duration::from_secs(30),
                lease: Duration::from_secs(50),
            },
            watched: LeaseTime {
                every: Duration::from_secs(2),
                lease: Duration::from_secs(5),
            },
        }
    }
}

/// Returns the silence after which a writer counts as dead that may answer for `lease` after each heartbeat. The difference covers clocks
/// that do not run equally fast.
pub(crate) fn dead_after(lease: Duration) -> Duration {
    lease.saturating_add((lease / 5).max(Duration::from_secs(1)))
}
